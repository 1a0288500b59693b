"""The demo runs to its end, twice in a row, also after one that was killed in the middle, and leaves nothing."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "tests.acceptance.demo"]
PATIENCE_S = 280

pytestmark = [pytest.mark.docker, pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def environment(docker_url: str, test_image: str) -> dict[str, str]:
    """The demo uses the engine that the tests use."""
    del test_image
    return os.environ | {"GPUBID_TEST_DOCKER": docker_url, "NO_COLOR": "1"}


@pytest.fixture
def engine(docker_url: str) -> Iterator[docker.DockerClient]:
    """A client of the engine."""
    client = docker.DockerClient(base_url=docker_url, timeout=60)
    yield client
    client.close()


def demo_processes() -> list[str]:
    """Command lines of processes whose home lies in the demo's folder."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if b"GPUBID_HOME=" + str(ROOT / "build" / "demo").encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_it_runs_after_one_that_was_killed(environment: dict[str, str], engine: docker.DockerClient, tmp_path: Path) -> None:
    """Killed with -9 while a container runs, the next demo clears what was left, runs to its end, and leaves nothing."""
    said = tmp_path / "first.txt"
    with said.open("wb") as out:
        first = subprocess.Popen(COMMAND, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        deadline = time.monotonic() + PATIENCE_S
        while "the service answers" not in said.read_text():
            assert first.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.05)
        first.kill()
        first.wait()
    assert demo_processes(), "the daemons of a demo that was killed are still there"

    second = subprocess.run(
        COMMAND,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert second.returncode == 0, second.stdout + second.stderr
    for words in ("hello from gpubid", "Linux x86_64", "refunded", "verified      True", "nothing is left behind"):
        assert words in second.stdout, words
    assert not demo_processes()
    assert not (ROOT / "build" / "demo").exists()
    for line in second.stdout.splitlines():
        if line.strip().startswith("ready https://"):
            provider = line.split("provider ")[1].split()[0]
            label = {"label": f"io.gpubid.provider={provider}"}
            assert not engine.containers.list(all=True, filters=label, ignore_removed=True)
            assert not engine.networks.list(filters=label)
