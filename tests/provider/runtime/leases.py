"""What tests of the runtime share: specs, waiting, and a runtime that leaves nothing behind."""

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any

from provider.runtime.docker import DockerRuntime
from provider.runtime.port import Chunk, Container, ContainerSpec, Image, Runtime
from provider.runtime.profile import Limits
from tests.processes import eventually

MIB = 2**20


def spec(image: Image, *args: str, lease: str = "gpu1owner/1/1/1/gpu1provider", **more: Any) -> ContainerSpec:
    """A small container that runs `args`."""
    fields: dict[str, Any] = {
        "lease": lease, "generation": 1, "service": "web", "replica": 0, "image": image, "cpu_milli": 1000,
        "memory": 64 * MIB, "disk": 2**30, "args": args, "spec_hash": "one",
    }  # fmt: skip
    return ContainerSpec(**(fields | more))


@contextlib.contextmanager
def docker_runtime(url: str, **options: Any) -> Iterator[DockerRuntime]:
    """A runtime for a provider nobody else is; all it made is removed at the end."""
    provider = f"gpu1test{secrets.token_hex(6)}"
    with DockerRuntime(url, provider, limits=Limits(pids=64, log_bytes=20_000, log_files=2), **options) as runtime:
        try:
            yield runtime
        finally:
            for lease in runtime.leases():
                runtime.remove(lease)
            assert runtime.leases() == frozenset()


def ended(runtime: Runtime, container: Container) -> Container:
    """The container once it has ended."""

    def probe() -> Container | None:
        found = [c for c in runtime.containers(container.lease) if c.id == container.id]
        return found[0] if found and found[0].state == "exited" else None

    return eventually(probe, f"the end of {container.name}")


def output(chunks: Iterator[Chunk]) -> tuple[bytes, int]:
    """Standard output and exit code of a command."""
    data = b""
    code: int | None = None
    for chunk in chunks:
        data += chunk.data if chunk.stream == "stdout" else b""
        code = chunk.exit_code
    assert code is not None
    return data, code
