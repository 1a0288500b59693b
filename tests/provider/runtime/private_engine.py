"""A Docker Engine of a test's own, in its own folders, started and ended by process id. The shared one is left alone."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker.errors
import psutil

from provider.runtime.engine import Engine
from provider.runtime.port import Unknown
from tests.processes import PATIENCE_S, eventually

ROOT = Path(__file__).resolve().parents[3]
IMAGE = "gpubid/busybox:test"

HOOK = """#!{python}
import json, sys
state = json.load(sys.stdin)
config = json.load(open(state["bundle"] + "/config.json"))
env = dict(entry.split("=", 1) for entry in config["process"]["env"])
with open({log!r}, "a") as log:
    log.write(env.get("NVIDIA_VISIBLE_DEVICES", "") + "|" + env.get("NVIDIA_DRIVER_CAPABILITIES", "") + "\\n")
"""


class PrivateEngine:
    """dockerd with a stand-in for NVIDIA's hook on its PATH, which notes the devices it is told to give."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "docker.sock"
        self.url = f"unix://{self.socket}"
        self.hook_log = folder / "hook.log"
        self.process: subprocess.Popen[bytes] | None = None
        hooks = folder / "bin"
        hooks.mkdir()
        hook = hooks / "nvidia-container-runtime-hook"
        hook.write_text(HOOK.format(python=sys.executable, log=str(self.hook_log)))
        hook.chmod(0o755)
        self._env = os.environ | {"PATH": f"{hooks}:{os.environ['PATH']}"}

    def start(self) -> None:
        """Start dockerd and wait until it answers."""
        command = [
            "dockerd", "--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "exec"),
            "--pidfile", str(self.folder / "pid"), "-H", self.url, "--bridge=none", "--iptables=false", "--ip6tables=false",
            "--storage-driver=vfs", "--live-restore", "--config-file", str(self.folder / "none.json"),
        ]  # fmt: skip
        (self.folder / "none.json").write_text("{}")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        eventually(self._answers, f"an answer of dockerd; see {self.folder / 'log'}")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"dockerd ended: {(self.folder / 'log').read_text(errors='replace')[-2000:]}"
        with contextlib.suppress(Unknown), contextlib.closing(Engine(self.url)) as engine:
            return bool(engine.client().ping())
        return False

    def load_image(self) -> None:
        """Give it the test image."""
        done = subprocess.run(
            [str(ROOT / ".ci" / "image.sh"), self.url, IMAGE],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def kill(self) -> None:
        """kill -9; its containers live on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE_S)
        # Its containerd dies with it. Until somebody has reaped that, the next dockerd would take it for alive.
        note = self.folder / "exec" / "containerd" / "containerd.pid"
        if note.exists():
            pid = int(note.read_text())
            eventually(lambda: not _is_alive(pid), "the end of the killed engine's containerd")
            note.unlink()

    def end(self) -> None:
        """Remove its containers, end it and the containerd it started."""
        assert self.process is not None
        if self.process.poll() is None:
            with contextlib.suppress(Unknown, docker.errors.DockerException), contextlib.closing(Engine(self.url)) as engine:
                for container in engine.client().containers.list(all=True):
                    container.remove(force=True, v=True)
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE_S)
        if self.process.poll() is None:
            self.kill()
        for process in _of(self.folder):
            for each in (*process.children(recursive=True), process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def _of(folder: Path) -> list[psutil.Process]:
    """What is left of an engine in this folder: its containerd, the shims of its containers."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if words and Path(words[0]).name.startswith("containerd") and any(str(folder) in word for word in words):
                found.append(process)
    return found


@contextlib.contextmanager
def private_engine() -> Iterator[PrivateEngine]:
    """A private engine with the test image; gone at the end. Its folder's path is short: a socket's holds 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="gpubid-engine-"))
    engine = PrivateEngine(folder)
    try:
        engine.start()
        engine.load_image()
        yield engine
    finally:
        if engine.process is not None:
            engine.end()
        for mount in sorted(_mounts_below(folder), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True, timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if line.split()[1].startswith(f"{folder}/")]
