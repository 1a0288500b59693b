"""A container engine in memory, with the real one's manners: for tests of what stands above the port.

It understands a few programs (`echo`, `true`, `false`, `sleep`, `cat`, `exit`), enough to have output, exit codes and
containers that stay. Faults are switches: `down`, `missing_images`, `slow_images`, `refuse`, `taken_ports`.
"""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

import msgspec

from provider.runtime.naming import container_name
from provider.runtime.port import (
    Chunk,
    Container,
    ContainerSpec,
    Credentials,
    EngineInfo,
    Image,
    LogLine,
    PortMap,
    StartFailed,
    Stream,
    Terminal,
    Unknown,
)

T = TypeVar("T")

KILLED: Final = 137
TERMINATED: Final = 143
FIRST_PORT: Final = 40_000


class _Feed(Generic[T]):
    """A stream fed by other threads. `put` adds, `finish` ends it after what is in it; a failure is raised at the end."""

    def __init__(self, on_close: Callable[["_Feed[T]"], None] | None = None) -> None:
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._failure: Exception | None = None
        self._on_close = on_close

    def put(self, item: T) -> None:
        """Add an item."""
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    def finish(self, failure: Exception | None = None) -> None:
        """No more items."""
        with self._changed:
            self._ended, self._failure = True, self._failure or failure
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended)
            if self._items:
                return self._items.popleft()
            if self._failure is not None:
                raise self._failure
            raise StopIteration

    def close(self) -> None:
        """End it at once."""
        with self._changed:
            self._items.clear()
            self._failure, self._ended = None, True
            self._changed.notify_all()
        if self._on_close is not None:
            self._on_close(self)


class _Held:
    """A container that the fake holds."""

    def __init__(self, spec: ContainerSpec, container: Container) -> None:
        self.spec = spec
        self.container = container
        self.lines: list[LogLine] = []
        self.followers: list[_Feed[LogLine]] = []


class _FakeTerminal:
    """Gives back what is typed, until it is closed."""

    def __init__(self) -> None:
        self._feed: _Feed[bytes] = _Feed()
        self.size = (24, 80)
        self._code: int | None = None

    def read(self) -> bytes:
        """Next output; empty at the end."""
        return next(self._feed, b"")

    def write(self, data: bytes) -> None:
        """Echo it; the line `exit` ends the command."""
        if data.strip() == b"exit":
            self._code = 0
            self._feed.finish()
        else:
            self._feed.put(data)

    def resize(self, rows: int, columns: int) -> None:
        """Keep the size."""
        self.size = (rows, columns)

    def exit_code(self) -> int | None:
        """Code once it ended."""
        return self._code

    def close(self) -> None:
        """End it."""
        self._code = KILLED if self._code is None else self._code
        self._feed.finish()


class FakeRuntime:
    """The port in memory. `started` and `stopped` count calls that changed something."""

    def __init__(self, provider_id: str = "fake") -> None:
        self.provider_id = provider_id
        self.down = False
        """True: the engine does not answer."""
        self.missing_images: set[str] = set()
        self.slow_images: dict[str, threading.Event] = {}
        """Reference → set when its pull is to end."""
        self.refuse: dict[str, str] = {}
        """Service name → why the engine will not start it."""
        self.taken_ports: set[int] = set()
        self.started = 0
        self.stopped = 0
        self._held: dict[str, _Held] = {}
        self._networks: set[str] = set()
        self._volumes: set[str] = set()
        self._lock = threading.RLock()
        self._listeners: list[_Feed[str]] = []

    def _ask(self) -> None:
        if self.down:
            raise Unknown("the engine does not answer")

    def info(self) -> EngineInfo:
        """Facts about no engine."""
        self._ask()
        return EngineInfo("0", "1.44", "/", "memory", "2", ("runc",), ("seccomp",), (), True)

    def ensure_image(self, reference: str, credentials: Credentials | None = None) -> Image:
        """Any image is there, but for `missing_images`; one of `slow_images` once it has come."""
        self._ask()
        if reference in self.slow_images:
            self.slow_images[reference].wait()
        if reference in self.missing_images:
            raise StartFailed("image_failed", f"no such image: {reference}")
        digest = "sha256:" + hashlib.sha256(reference.encode()).hexdigest()
        return Image(digest, digest, reference)

    def ensure_network(self, lease: str) -> None:
        """Remember that the lease has one."""
        self._ask()
        self._networks.add(lease)

    def start(self, spec: ContainerSpec) -> Container:
        """Create or start again, as the port says."""
        self._ask()
        with self._lock:
            name = container_name(self.provider_id, spec)
            held = self._held.get(name)
            if held and held.container.state == "running":
                return held.container
            if spec.service in self.refuse:
                raise StartFailed("start_failed", self.refuse[spec.service])
            ports = self._publish(spec)
            if held and held.spec.spec_hash != spec.spec_hash:
                del self._held[name]
                held = None
            if held is None:
                held = _Held(spec, _new_container(name, spec, ports))
                self._held[name] = held
            self._volumes.update(spec.lease for _ in spec.volumes)
            self.started += 1
            held.container = msgspec.structs.replace(
                held.container,
                state="running",
                exit_code=None,
                oom_killed=False,
                started_ms=_now_ms(),
                finished_ms=0,
                ports=ports,
            )
            self._announce(spec.lease)
            self._run(held)
            return held.container

    def _publish(self, spec: ContainerSpec) -> tuple[PortMap, ...]:
        used = {p.host_port for h in self._held.values() if h.container.state == "running" for p in h.container.ports}
        used |= self.taken_ports
        done: list[PortMap] = []
        for port in spec.ports:
            number = port.host_port or next(n for n in range(FIRST_PORT, 65_536) if n not in used)
            if number in used:
                raise StartFailed("port_taken", f"port {number} is in use")
            used.add(number)
            done.append(msgspec.structs.replace(port, host_port=number))
        return tuple(done)

    def _run(self, held: _Held) -> None:
        words = (*held.spec.command, *held.spec.args)
        output, code = _program(words, b"")
        for line in output.decode().splitlines():
            self.say(held.container.id, line)
        if code is not None:
            self.finish(held.container.id, code)

    def say(self, container: str, text: str, stream: str = "stdout") -> None:
        """A container prints a line."""
        with self._lock:
            held = self._find(container)
            line = LogLine(stream, text, f"2026-01-01T00:00:00.{len(held.lines):09d}Z")
            held.lines.append(line)
            for follower in held.followers:
                follower.put(line)

    def finish(self, container: str, code: int, *, oom: bool = False) -> None:
        """A container ends by itself."""
        with self._lock:
            held = self._find(container)
            if held.container.state != "running":
                return
            held.container = msgspec.structs.replace(
                held.container, state="exited", exit_code=code, oom_killed=oom, finished_ms=_now_ms()
            )
            for follower in held.followers:
                follower.finish()
            held.followers.clear()
            self._announce(held.container.lease)

    def _find(self, container: str) -> _Held:
        for held in self._held.values():
            if container in (held.container.id, held.container.name):
                return held
        raise StartFailed("start_failed", f"no such container: {container}")

    def containers(self, lease: str | None = None) -> tuple[Container, ...]:
        """All, or those of a lease, by name."""
        self._ask()
        with self._lock:
            return tuple(h.container for _, h in sorted(self._held.items()) if lease in (None, h.container.lease))

    def stop(self, lease: str, *, grace_s: int = 10) -> None:
        """End the lease's containers, keep them."""
        self._ask()
        for container in self.containers(lease):
            if container.state == "running":
                self.stopped += 1
                self.finish(container.id, TERMINATED)

    def remove(self, lease: str, *, keep_generation: int | None = None) -> None:
        """Forget the lease's containers and, without `keep_generation`, all that is its own."""
        self._ask()
        with self._lock:
            for name, held in list(self._held.items()):
                if held.container.lease == lease and held.container.generation != keep_generation:
                    self.finish(held.container.id, KILLED)
                    del self._held[name]
            if keep_generation is None:
                self._networks.discard(lease)
                self._volumes.discard(lease)
            self._announce(lease)

    def leases(self) -> frozenset[str]:
        """Leases of which anything is left."""
        self._ask()
        return frozenset({h.container.lease for h in self._held.values()} | self._networks | self._volumes)

    def logs(self, container: str, *, follow: bool, tail: int | None, since: str = "") -> Stream[LogLine]:
        """Lines so far and, with `follow`, those to come."""
        self._ask()
        feed: _Feed[LogLine] = _Feed()
        with self._lock:
            held = self._find(container)
            lines = [line for line in held.lines if line.time >= since]
            for line in lines if tail is None else lines[len(lines) - min(tail, len(lines)) :]:
                feed.put(line)
            if follow and held.container.state == "running":
                held.followers.append(feed)
            else:
                feed.finish()
        return feed

    def execute(self, container: str, command: tuple[str, ...], stdin: bytes = b"") -> Stream[Chunk]:
        """Run one of the programs it knows."""
        self._ask()
        if self._find(container).container.state != "running":
            raise StartFailed("start_failed", "the container does not run")
        feed: _Feed[Chunk] = _Feed()
        output, code = _program(command, stdin)
        if output:
            feed.put(Chunk("stdout", output))
        feed.put(Chunk("", b"", 0 if code is None else code))
        feed.finish()
        return feed

    def terminal(self, container: str, command: tuple[str, ...]) -> Terminal:
        """A terminal that gives back what is typed."""
        self._ask()
        if self._find(container).container.state != "running":
            raise StartFailed("start_failed", "the container does not run")
        return _FakeTerminal()

    def events(self) -> Stream[str]:
        """Lease ids as their containers change."""
        self._ask()
        feed: _Feed[str] = _Feed(on_close=lambda closed: self._listeners.remove(closed) if closed in self._listeners else None)
        self._listeners.append(feed)
        return feed

    def go_down(self) -> None:
        """The engine goes away: streams end, every call raises `Unknown`; containers live on."""
        with self._lock:
            self.down = True
            for listener in self._listeners:
                listener.finish()
            self._listeners.clear()
            for held in self._held.values():
                for follower in held.followers:
                    follower.finish(Unknown("the engine went away"))
                held.followers.clear()

    def _announce(self, lease: str) -> None:
        for listener in list(self._listeners):
            listener.put(lease)

    def close(self) -> None:
        """Nothing to close."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _new_container(name: str, spec: ContainerSpec, ports: tuple[PortMap, ...]) -> Container:
    identity = hashlib.sha256(f"{name}|{time.monotonic_ns()}".encode()).hexdigest()
    return Container(
        id=identity, name=name, lease=spec.lease, generation=spec.generation, service=spec.service, replica=spec.replica,
        state="created", exit_code=None, oom_killed=False, started_ms=0, finished_ms=0, devices=spec.devices,
        image_digest=spec.image.digest, spec_hash=spec.spec_hash, ports=ports,
    )  # fmt: skip


def _program(words: tuple[str, ...], stdin: bytes) -> tuple[bytes, int | None]:
    """Output and exit code of a command; None: it goes on running. No command is a server: it stays."""
    if words[:2] == ("sh", "-c") or words[:2] == ("/bin/sh", "-c"):
        words = tuple(words[2].split()) if len(words) > 2 else ()
    match words:
        case ():
            return b"", None
        case ("echo", *rest):
            return (" ".join(rest) + "\n").encode(), 0
        case ("cat",):
            return stdin, 0
        case ("true",):
            return b"", 0
        case ("false",):
            return b"", 1
        case ("exit", code):
            return b"", int(code)
        case _:
            return b"", None
