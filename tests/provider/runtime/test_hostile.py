"""Containers that mean harm, on the real engine: each is held, and its neighbours and the host go on."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from provider.runtime.docker import DockerRuntime
from provider.runtime.port import Container, Image, PortMap
from tests.processes import eventually
from tests.provider.runtime.leases import MIB, docker_runtime, ended, output, spec

pytestmark = [pytest.mark.docker, pytest.mark.slow]

LEASE = "gpu1owner/1/1/1/gpu1provider"
VICTIM = "gpu1alice/1/1/1/gpu1provider"


@pytest.fixture
def runtime(docker_url: str) -> Iterator[DockerRuntime]:
    """A runtime with both leases' networks."""
    with docker_runtime(docker_url) as made:
        made.ensure_network(LEASE)
        made.ensure_network(VICTIM)
        yield made


@pytest.fixture
def image(runtime: DockerRuntime, test_image: str) -> Image:
    """The test image."""
    return runtime.ensure_image(test_image)


def test_a_container_has_nothing_it_was_not_given(runtime: DockerRuntime, image: Image) -> None:
    """Inside: no capability, no new privileges, filtered system calls, its own cgroups, bounded memory files and logs."""
    status = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status"
    script = f"{status}; df -k /dev/shm | tail -1; mknod /x c 1 3 || echo no"
    container = runtime.start(spec(image, "sleep", "1000"))
    text = output(runtime.execute(container.id, ("sh", "-c", script)))[0].decode()
    words = text.split()
    assert words[words.index("CapEff:") + 1] == "0" * 16
    assert words[words.index("CapBnd:") + 1] == "0" * 16
    assert words[words.index("NoNewPrivs:") + 1] == "1"
    assert words[words.index("Seccomp:") + 1] == "2"
    assert "no" in words
    assert str(32 * 1024) in words  # /dev/shm is half of 64 MiB


def test_a_fork_bomb_is_bounded(runtime: DockerRuntime, image: Image) -> None:
    """A container cannot make more processes than it may, and is ended as any other."""
    container = runtime.start(spec(image, "sleep", "1000"))
    bomb = runtime.execute(container.id, ("sh", "-c", "for i in $(seq 200); do sleep 1000 >/dev/null 2>&1 & done"))
    said = b"".join(chunk.data for chunk in bomb if chunk.stream == "stderr")
    assert b"can't fork" in said
    neighbour = runtime.start(spec(image, "sleep", "1000", lease=VICTIM))
    assert output(runtime.execute(neighbour.id, ("echo", "alive"))) == (b"alive\n", 0)
    assert len(runtime._engine.api.top(container.id)["Processes"]) <= 64
    runtime.stop(LEASE, grace_s=1)
    assert ended(runtime, container).state == "exited"


def test_a_memory_hog_is_ended(runtime: DockerRuntime, image: Image) -> None:
    """More memory than was bought ends the container, and it is told why."""
    hog = runtime.start(spec(image, "tail", "/dev/zero", memory=16 * MIB))
    found = ended(runtime, hog)
    assert found.exit_code == 137
    assert found.oom_killed


def test_a_flood_of_output_is_bounded(runtime: DockerRuntime, image: Image) -> None:
    """However much is printed, little is kept; a follower that comes late still sees the end."""
    flood = runtime.start(spec(image, "sh", "-c", "yes 0123456789012345678901234567890123456789 | head -n 20000; echo done"))
    ended(runtime, flood)
    lines = [line.text for line in runtime.logs(flood.id, follow=False, tail=None)]
    assert lines[-1] == "done"
    assert len(lines) < 2000


@contextlib.contextmanager
def listener() -> Iterator[tuple[int, list[str]]]:
    """A port on every address of this host, and who came."""
    came: list[str] = []
    with socket.create_server(("0.0.0.0", 0)) as server:
        server.settimeout(0.5)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, address = server.accept()
                    came.append(address[0])
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], came
        finally:
            stop.set()
            thread.join()


def test_neither_the_host_nor_another_lease_is_reached(runtime: DockerRuntime, image: Image) -> None:
    """A container reaches its own lease's containers by name; not the host, not another lease, not what is published."""
    if runtime.info().warnings and any("can reach this host" in warning for warning in runtime.info().warnings):
        pytest.skip("rules cannot be set on this machine")
    page = ("sh", "-c", "mkdir -p /w && echo hello >/w/index.html && httpd -f -p 80 -h /w")
    ports = (PortMap(80, "tcp"),)
    friend = runtime.start(spec(image, *page, service="friend", ports=ports))
    victim = runtime.start(spec(image, *page, lease=VICTIM, ports=ports))
    attacker = runtime.start(spec(image, "sleep", "1000", service="attacker"))

    def inside(command: str) -> tuple[bytes, int]:
        return output(runtime.execute(attacker.id, ("sh", "-c", command)))

    def fetch(address: str, port: int = 80) -> bytes:
        return inside(f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} {port}")[0]

    friendly = _address(runtime, friend)
    assert eventually(lambda: b"hello" in fetch(friendly), "an answer of the friend")
    assert friendly.encode() in inside("nslookup friend")[0]
    eventually(lambda: _host_reads(friend.ports[0].host_port), "an answer on the published port")
    with listener() as (port, came):
        for address in ("$(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p')", _host_address()):
            assert inside(f"nc -w 5 {address} {port} </dev/null")[1] != 0, address
        assert came == []
    assert fetch(_address(runtime, victim)) == b""
    assert fetch(_host_address(), victim.ports[0].host_port) == b""


def _address(runtime: DockerRuntime, container: Container) -> str:
    """A container's address on its lease's network."""
    networks = runtime._engine.api.inspect_container(container.id)["NetworkSettings"]["Networks"]
    return str(networks.popitem()[1]["IPAddress"])


def _host_reads(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        data = b""
        while more := connection.recv(4096):
            data += more
        return b"hello" in data
    return False


def _host_address() -> str:
    """An address of this host other than loopback; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "172.17.0.1"
        return str(probe.getsockname()[0])
