"""The doctor: what it says of good and bad hosts."""

import pytest

from provider.doctor import FLOORS, below, run_checks, version_of
from provider.inventory.models import DeviceFacts
from provider.runtime.network import Firewall

GOOD = DeviceFacts("GPU-1", "h100", "nvidia", 81920)
LOST = DeviceFacts("GPU-2", "h100", "nvidia", 81920, offerable=False, reason="lost: it does not answer; reset or reboot")


def test_an_engine_on_the_network_is_refused() -> None:
    """Who reaches an engine over TCP is root: that is a failure, with the way out."""
    (check,) = run_checks("tcp://0.0.0.0:2375")
    assert (check.name, check.result) == ("engine", "fail")
    assert "unix://" in check.mend


def test_a_missing_engine_is_told_and_the_rest_still_looked_at() -> None:
    """Without an engine that check fails; devices are judged nevertheless."""
    checks = run_checks("unix:///nowhere/docker.sock", read_devices=lambda: ((GOOD, LOST), {}, ("device 1 is lost",)))
    assert [(c.name, c.result) for c in checks] == [
        ("engine", "fail"), ("device GPU-2", "warn"), ("nvml", "warn"), ("devices", "ok"),
    ]  # fmt: skip
    assert all(c.mend for c in checks if c.result != "ok")


@pytest.mark.docker
def test_every_check_that_is_not_ok_says_how_to_mend_it(docker_url: str) -> None:
    """On a real engine each check has its say; an engine that cannot give GPUs fails a host that has some."""
    broken = Firewall(runner=lambda command, stdin: (1, "no"))
    checks = run_checks(docker_url, read_devices=lambda: ((GOOD,), {}, ()), firewall=broken)
    found = {check.name: check for check in checks}
    assert len(found) == len(checks)
    assert {"engine", "seccomp", "cgroup", "version runc", "version nvidia-container-toolkit", "firewall", "disk"} <= set(found)
    assert found["engine"].result == "ok"
    assert found["firewall"].result == "warn"
    assert all(check.mend for check in checks if check.result != "ok")
    assert found["devices"].found == "h100"
    simulated = run_checks(docker_url, simulate=True, firewall=broken)
    assert "version nvidia-container-toolkit" not in {check.name for check in simulated}


@pytest.mark.parametrize(
    ("program", "text", "bad"),
    [
        ("runc", "1.1.5+ds1", True), ("runc", "1.1.12", True), ("runc", "1.2.8", False), ("runc", "1.3.2", True),
        ("runc", "v1.4.0", False),
        ("containerd", "1.6.38", False), ("containerd", "1.7.26", True), ("containerd", "2.1.0", False),
        ("docker", "28.5.2", False), ("docker", "26.1.4", True), ("nvidia-container-toolkit", "cli-version: 1.17.7", True),
        ("nvidia-container-toolkit", "cli-version: 1.17.8", False), ("nvidia-container-toolkit", "1.18", False),
    ],
)  # fmt: skip
def test_versions_with_a_known_way_out_are_known(program: str, text: str, bad: bool) -> None:
    """A version lacks a mend or has it, older branches that got it included."""
    version = version_of(text)
    assert version is not None
    assert any(below(floor, version) for floor in FLOORS if floor.program == program) is bad
