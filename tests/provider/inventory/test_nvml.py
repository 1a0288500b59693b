"""The NVML reader through the real binding, on a stub of the library."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.provider.inventory import profiles

ROOT = Path(__file__).resolve().parents[3]
SOURCE = Path(__file__).with_name("nvml_stub.c")

pytestmark = pytest.mark.slow


def build(folder: Path, *flags: str) -> Path:
    """The stub as libnvidia-ml.so.1 in a folder; the folder."""
    assert shutil.which("gcc"), "these tests need a C compiler: install gcc (make setup-test does)"
    folder.mkdir()
    command = ["gcc", "-shared", "-fPIC", "-O1", *flags, "-Wl,-soname,libnvidia-ml.so.1", "-o"]
    done = subprocess.run(
        [*command, str(folder / "libnvidia-ml.so.1"), str(SOURCE)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stub."""
    return build(tmp_path_factory.mktemp("nvml") / "lib")


def look(library: Path, state: Path, *arguments: str) -> Any:
    """What a process that loads the stub prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.provider.inventory.look", *arguments],
        cwd=ROOT,
        env=os.environ | {"LD_LIBRARY_PATH": str(library), "NVML_STATE": str(state), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def seen(library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Readings of all machines, from one process."""
    folder = tmp_path_factory.mktemp("states")
    for make in (profiles.hgx, profiles.gaming, profiles.sliced, profiles.unified, profiles.one_lost, profiles.no_handle):
        (folder / make.__name__).write_text(profiles.text(make()))
    for number, (_, fault, _) in enumerate(profiles.AILMENTS):
        (folder / f"ailment{number}").write_text(profiles.text(profiles.ailing(fault)))
    (folder / "mismatch").write_text("init=18\n")
    (folder / "empty").write_text("")
    found: dict[str, Any] = look(library, folder / "hgx", "many", str(folder))
    return found


def test_cards_on_a_switch_are_one_island(seen: dict[str, Any]) -> None:
    """Eight H100 on NVSwitch: each is known, offered, and in the same island."""
    devices, attributes, warnings = seen["hgx"]
    assert len(devices) == 8
    assert {(d["model"], d["interface"], d["vram_mib"], d["offerable"], d["reason"]) for d in devices} == {
        ("h100", "sxm5", 81920, True, "")
    }
    assert len({d["uuid"] for d in devices}) == 8
    assert len({d["link"] for d in devices}) == 1
    assert devices[0]["link"].startswith("nvlink-")
    assert attributes == {"cuda": "12.8", "nvidia-driver": "570.86.15"}
    assert warnings == []
    assert devices[0]["facts"]["remapped_rows"] == [0, 0, 0, 0]
    assert devices[0]["facts"]["pci_bus"] == "0000:10:00.0"
    assert "serial" not in devices[0]["facts"]


def test_a_mixed_host_is_not_averaged(seen: dict[str, Any]) -> None:
    """Bridged 3090 are an island of two; the others stand alone, the laptop's part under its own name."""
    devices = seen["gaming"][0]
    assert [d["model"] for d in devices] == ["rtx3090", "rtx3090", "rtx4090", "rtx4090m"]
    assert devices[0]["link"] == devices[1]["link"] != ""
    assert [d["link"] for d in devices[2:]] == ["", ""]
    assert all(d["offerable"] for d in devices)
    assert devices[2]["facts"]["ecc_mode"] == {"missing": "not_supported"}


def test_slices_stand_for_their_card(seen: dict[str, Any]) -> None:
    """A card in MIG mode is seven devices of its own kind; the whole one beside it is a card."""
    devices = seen["sliced"][0]
    assert [d["model"] for d in devices] == ["a100mig1g5gb"] * 7 + ["a100"]
    assert all(d["uuid"].startswith("MIG-") and d["vram_mib"] == 4864 and d["offerable"] for d in devices[:7])
    assert [d["facts"]["gpu_instance"] for d in devices[:7]] == list(range(7, 14))


def test_shared_memory_is_the_machines(seen: dict[str, Any]) -> None:
    """A GB10 has no memory of its own: it is offered with the machine's, and says so."""
    (device,) = seen["unified"][0]
    assert device["offerable"]
    assert device["model"] == "gb10"
    assert device["vram_mib"] > 0
    assert device["facts"]["unified_memory"] is True


def test_a_lost_card_hides_no_other(seen: dict[str, Any]) -> None:
    """One of four is lost: three are offered, the fourth is there with its reason."""
    for name, place, total in (("one_lost", 2, 4), ("no_handle", 0, 2)):
        devices, _, warnings = seen[name]
        assert [d["offerable"] for d in devices] == [index != place for index in range(total)], name
        assert "lost" in devices[place]["reason"]
        assert len(warnings) == 1


@pytest.mark.parametrize("number", range(len(profiles.AILMENTS)), ids=[row[0] for row in profiles.AILMENTS])
def test_an_ailing_card_is_not_offered(seen: dict[str, Any], number: int) -> None:
    """Each fault keeps its card from being offered, names itself, and leaves the neighbour alone."""
    healthy, ailing = seen[f"ailment{number}"][0]
    assert healthy["offerable"], healthy["reason"]
    assert not ailing["offerable"]
    assert profiles.AILMENTS[number][2] in ailing["reason"]


def test_no_driver_is_no_failure(seen: dict[str, Any]) -> None:
    """A driver that does not fit its library, and a machine without devices, give none and say why."""
    devices, _, warnings = seen["mismatch"]
    assert devices == []
    assert "driver_version_mismatch" in warnings[0]
    assert seen["empty"] == [[], {}, []]


def test_no_missing_call_hides_a_card(library: Path, tmp_path: Path) -> None:
    """Whatever single function a driver lacks, reading never raises and every card but those of the call stays."""
    state = tmp_path / "state"
    state.write_text(profiles.text(profiles.sliced()))
    found = look(library, state, "without")
    assert len(found) > 30
    needed = {"nvmlInitWithFlags", "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID"}
    slices = {"nvmlDeviceGetMigMode", "nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex"}
    for symbol, names in found.items():
        assert isinstance(names, list), (symbol, names)
        if symbol not in needed | slices:
            assert len(names) == 8, symbol


def test_an_old_driver_is_read(tmp_path: Path) -> None:
    """A driver without the newer calls still gives its cards."""
    state = tmp_path / "state"
    state.write_text(profiles.text(profiles.gaming()))
    devices, _, _ = look(build(tmp_path / "old", "-DOLD_DRIVER"), state, "once")
    assert [d["model"] for d in devices] == ["rtx3090", "rtx3090", "rtx4090", "rtx4090m"]
    assert all(d["offerable"] for d in devices)


def test_xids_are_told_with_their_device(library: Path, tmp_path: Path) -> None:
    """The watch tells each Xid in order, with the UUID of its device and what it asks for."""
    state = tmp_path / "state"
    state.write_text(profiles.text(profiles.hgx() | {"event1": "3,79", "event2": "0,31", "event3": "7,74"}))
    found = look(library, state, "events", "3")
    told = [(event["uuid"][:12], event["xid"], event["what"]) for event in found]
    assert told == [("GPU-00000003", 79, "fatal"), ("GPU-00000000", 31, "application"), ("GPU-00000007", 74, "link")]
