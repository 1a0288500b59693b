"""The port to a container engine: what the daemon asks of it, in its own words.

An engine that cannot be reached raises `Unknown`: the caller changes nothing. It never means "gone".
"""

from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

import msgspec


class Unknown(Exception):
    """The engine cannot be reached or did not answer: nothing is known, change nothing."""


class StartFailed(Exception):
    """The engine answered that it cannot do this: `kind` is image_failed, start_failed or port_taken."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


T_co = TypeVar("T_co", covariant=True)


class Stream(Protocol[T_co]):
    """Items as they come. `close()` may be called from another thread while `next()` waits, and ends it."""

    def __iter__(self) -> Iterator[T_co]:
        """Itself."""
        ...

    def __next__(self) -> T_co:
        """The next item; StopIteration at the end or after `close()`."""
        ...

    def close(self) -> None:
        """End it; repeatable."""
        ...


class Credentials(msgspec.Struct, frozen=True):
    """The tenant's own login for a registry; the operator's is never used."""

    host: str
    username: str
    password: str = msgspec.field()

    def __repr__(self) -> str:
        """No secret in logs."""
        return f"Credentials(host={self.host!r}, username={self.username!r}, password=…)"


class Image(msgspec.Struct, frozen=True):
    """An image that is ready on the host. `digest` is `sha256:…`: the repository digest, or the image id of a local one."""

    digest: str
    id: str
    reference: str


class PortMap(msgspec.Struct, frozen=True):
    """A container port to publish; `host_port` 0 lets the daemon choose one. `host_ip` is where it listens."""

    container_port: int
    protocol: str
    """tcp or udp"""
    host_ip: str = "127.0.0.1"
    host_port: int = 0


class ContainerSpec(msgspec.Struct, frozen=True):
    """One container of a lease: service `service`, replica `replica` (from 0), at a generation of the lease.

    Sizes are bytes, `cpu_milli` thousandths of a processor, `disk` bounds the writable layer. `devices` are UUIDs as
    NVML names them; `simulated` ones are passed as environment only, no device reaches the container.
    """

    lease: str
    generation: int
    service: str
    replica: int
    image: Image
    cpu_milli: int
    memory: int
    disk: int
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    ports: tuple[PortMap, ...] = ()
    devices: tuple[str, ...] = ()
    simulated: bool = False
    shm: int = 0
    """Bytes of /dev/shm, inside `memory`."""
    tmpfs: Mapping[str, int] = {}
    """Mount point → bytes."""
    volumes: Mapping[str, tuple[str, bool]] = {}
    """Mount point → (volume name inside the lease, read only)."""
    hostname: str = ""
    spec_hash: str = ""


class Container(msgspec.Struct, frozen=True):
    """A container with our label, as it is. `state`: created, running, exited, dead."""

    id: str
    name: str
    lease: str
    generation: int
    service: str
    replica: int
    state: str
    exit_code: int | None
    oom_killed: bool
    started_ms: int
    """Wall-clock ms of its last start, 0 for never."""
    finished_ms: int
    devices: tuple[str, ...]
    image_digest: str
    spec_hash: str
    ports: tuple[PortMap, ...]


class LogLine(msgspec.Struct, frozen=True):
    """A line of a container's output. `time` is RFC 3339."""

    stream: str
    text: str
    time: str


class Chunk(msgspec.Struct, frozen=True):
    """Output of a command: `stream` is stdout or stderr; or, with `exit_code`, its end."""

    stream: str
    data: bytes
    exit_code: int | None = None


class Terminal(Protocol):
    """A command with a terminal: bytes both ways."""

    def read(self) -> bytes:
        """Next output; empty at the end."""
        ...

    def write(self, data: bytes) -> None:
        """Input."""
        ...

    def resize(self, rows: int, columns: int) -> None:
        """The window changed."""
        ...

    def exit_code(self) -> int | None:
        """Code of the command once it ended."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class EngineInfo(msgspec.Struct, frozen=True):
    """Facts about the engine and its host that a bid or the doctor needs."""

    version: str
    api_version: str
    root: str
    storage_driver: str
    cgroup_version: str
    runtimes: tuple[str, ...]
    security: tuple[str, ...]
    warnings: tuple[str, ...]
    gpu_support: bool


class Runtime(Protocol):
    """A container engine. Every method is safe to repeat and raises `Unknown` where the engine does not answer."""

    def info(self) -> EngineInfo:
        """Facts about the engine."""
        ...

    def ensure_image(self, reference: str, credentials: Credentials | None = None) -> Image:
        """Make the image ready, pulling it if need be; StartFailed("image_failed") says why not."""
        ...

    def ensure_network(self, lease: str) -> None:
        """Make the lease's own network with its rules; repeatable."""
        ...

    def start(self, spec: ContainerSpec) -> Container:
        """Create under its fixed name and start; a container of that name that runs already is returned as it is."""
        ...

    def containers(self, lease: str | None = None) -> tuple[Container, ...]:
        """All containers with this provider's label, in every state; or those of one lease."""
        ...

    def stop(self, lease: str, *, grace_s: int = 10) -> None:
        """Stop the lease's containers but keep them and their data."""
        ...

    def remove(self, lease: str, *, keep_generation: int | None = None) -> None:
        """Remove containers, volumes, network of a lease; or only containers of other generations."""
        ...

    def leases(self) -> frozenset[str]:
        """Leases of which anything (container, network, volume) is on the host."""
        ...

    def logs(self, container: str, *, follow: bool, tail: int | None, since: str = "") -> Stream[LogLine]:
        """Lines of a container's output, oldest first; with `follow` until it ends, `Unknown` where the engine goes away.

        `since` is the RFC 3339 time of a line: those from it on are given.
        """
        ...

    def execute(self, container: str, command: tuple[str, ...], stdin: bytes = b"") -> Stream[Chunk]:
        """Run a command inside; the last chunk has its exit code."""
        ...

    def terminal(self, container: str, command: tuple[str, ...]) -> Terminal:
        """Run a command inside with a terminal."""
        ...

    def events(self) -> Stream[str]:
        """Lease ids whose containers changed, as it happens; ends when the engine goes away."""
        ...
