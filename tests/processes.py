"""Processes of the product for tests: started as a user starts them, ended whatever happens.

`Program` is one `gpubid …` process with a home of its own. Its standard output and error go to files, so no pipe can
fill up and no thread is needed; waiting looks at the files until a deadline.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

GPUBID = str(Path(sys.executable).parent / "gpubid")
PATIENCE_S = 150.0
"""Deadline of every wait: generous, since it costs nothing when all is well."""


def environment(home: Path, **extra: str) -> dict[str, str]:
    """The environment of a user whose home is `home`, free of the caller's GPUBID_ settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GPUBID_")}
    return kept | {"GPUBID_HOME": str(home), "NO_COLOR": "1"} | extra


def eventually(probe: Callable[[], T | None], what: str, patience_s: float = PATIENCE_S) -> T:
    """Return the first true result of `probe`; AssertionError names `what` when the deadline passes."""
    deadline = time.monotonic() + patience_s
    pause = 0.01
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {patience_s:.0f} s: {what}"
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)


class Program:
    """A running `gpubid …`; use as a context manager."""

    def __init__(
        self, arguments: Sequence[str], home: Path, *, log: Path | None = None, prefix: Sequence[str] = (), **extra: str
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.arguments = list(arguments)
        self.home = home
        folder = log or home
        folder.mkdir(parents=True, exist_ok=True)
        stamp = f"{'-'.join(a for a in arguments[:2])}-{time.monotonic_ns()}"
        self.stdout_path = folder / f"{stamp}.out"
        self.stderr_path = folder / f"{stamp}.err"
        with self.stdout_path.open("wb") as out, self.stderr_path.open("wb") as err:
            self.process = subprocess.Popen(
                [*prefix, GPUBID, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment(home, **extra)
            )

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self.stdout_path.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has said so far."""
        return self.stderr_path.read_text(errors="replace")

    def line(self, start: str, patience_s: float = PATIENCE_S) -> str:
        """Wait for a line on standard output that begins with `start`, and return it."""

        def probe() -> str | None:
            for line in self.stdout.splitlines():
                if line.startswith(start):
                    return line
            assert self.process.poll() is None, f"{self.arguments} ended with {self.process.poll()}: {self.stderr[-2000:]}"
            return None

        return eventually(probe, f"a line {start!r} from {self.arguments}; it said: {self.stderr[-2000:]}", patience_s)

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        """Wait for its end and return its exit status."""
        return self.process.wait(patience_s)

    def kill(self) -> None:
        """kill -9, and wait for its end."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end, wait, and return its exit status; kill -9 where it does not."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.kill()
        return int(self.process.returncode)

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class User:
    """Someone at a terminal without a screen: runs commands in a home of its own."""

    def __init__(self, home: Path, node: str = "") -> None:
        self.home = home
        self.settings = {"GPUBID_NODE": node} if node else {}

    def run(self, *arguments: str, stdin: str = "", timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run `gpubid ARGUMENTS` to its end."""
        return subprocess.run(
            [GPUBID, *arguments],
            input=stdin, capture_output=True, text=True, env=environment(self.home, **self.settings),
            timeout=timeout_s, check=False,
        )  # fmt: skip

    def ok(self, *arguments: str, timeout_s: float = 120) -> str:
        """Run a command that must succeed; its standard output."""
        done = self.run(*arguments, timeout_s=timeout_s)
        assert done.returncode == 0, f"gpubid {' '.join(arguments)}: {done.returncode}: {done.stderr}"
        return done.stdout

    def json(self, *arguments: str, timeout_s: float = 120) -> Any:
        """Run a command that must succeed with `-o json`; what it printed."""
        return json.loads(self.ok(*arguments, "-o", "json", timeout_s=timeout_s))

    def key(self, name: str = "default") -> str:
        """Make a key without a passphrase; its address."""
        return str(self.json("keys", "add", name, "--no-passphrase")["address"])


@contextlib.contextmanager
def development_node(folder: Path, *arguments: str) -> Iterator[tuple[Program, str]]:
    """A node of a new development chain on a free port: (program, URL)."""
    with Program(["node", "start", "--dev", "--listen", "127.0.0.1:0", *arguments], folder / "node") as program:
        yield program, program.line("ready ").split()[1]


@contextlib.contextmanager
def provider(folder: Path, node: str, docker_url: str, *arguments: str, name: str = "provider") -> Iterator[tuple[Program, str]]:
    """A provider with its bid in the book, on a free port: (program, its address)."""
    home = folder / name
    user = User(home, node)
    address = user.key(name) if not (home / "keys" / f"{name}.json").exists() else str(user.json("keys", "show", name)["address"])
    command = ["provider", "start", "--node", node, "--from", name, "--docker", docker_url, "--listen", "127.0.0.1:0", *arguments]
    try:
        with Program(command, home) as program:
            program.line("ready ")
            yield program, address
    finally:
        clear_engine(docker_url, address)


def clear_engine(docker_url: str, provider_address: str) -> None:
    """Remove every container and network of a provider from the engine."""
    import docker

    label = {"label": f"io.gpubid.provider={provider_address}"}
    client = docker.DockerClient(base_url=docker_url, timeout=60)
    try:
        for container in client.containers.list(all=True, filters=label, ignore_removed=True):
            with contextlib.suppress(docker.errors.APIError):
                container.remove(force=True, v=True)
        for network in client.networks.list(filters=label):
            with contextlib.suppress(docker.errors.APIError):
                network.remove()
        for volume in client.volumes.list(filters=label):
            with contextlib.suppress(docker.errors.APIError):
                volume.remove(force=True)
    finally:
        client.close()
