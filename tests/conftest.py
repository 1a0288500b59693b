"""What every test shares: Hypothesis profiles, signals as a terminal would give them, and the real engine."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres import postgres_folder, postgres_url  # noqa: F401  # fixtures of every test

ROOT = Path(__file__).resolve().parent.parent

# Derandomized: the same examples on every machine. A slow machine is no failure of the code.
settings.register_profile(
    "ci",
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
settings.register_profile("dev", parent=settings.get_profile("ci"), max_examples=50)
settings.register_profile("night", parent=settings.get_profile("ci"), max_examples=10_000)
settings.load_profile(os.environ.get("GPUBID_HYPOTHESIS", "ci"))

# A background job of a non-interactive shell ignores SIGINT, and its children would too: tests that press Ctrl-C
# need what a terminal gives.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on the real engine, with processes or a database run last, when the quick ones have already failed."""
    items.sort(key=lambda item: any(item.get_closest_marker(m) for m in ("docker", "slow", "process")))


@pytest.fixture(scope="session")
def docker_url() -> str:
    """URL of a real Docker Engine, started in the background if none answers."""
    done = subprocess.run(
        [str(ROOT / ".ci" / "engine.sh"), "ensure"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"no Docker Engine: {done.stderr}"
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="session")
def test_image(docker_url: str) -> str:
    """Reference of a small image (static busybox) that is on the engine."""
    reference = "gpubid/busybox:test"
    done = subprocess.run(
        [str(ROOT / ".ci" / "image.sh"), docker_url, reference],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"the test image cannot be made: {done.stderr}"
    return reference


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty GPUBID_HOME of the test's own."""
    path = tmp_path / "home"
    monkeypatch.setenv("GPUBID_HOME", str(path))
    return path
