"""The port's contract, held by the engine in memory and by the real one."""

import threading
from collections.abc import Iterator

import pytest

from provider.runtime.fake import FakeRuntime
from provider.runtime.port import Image, LogLine, PortMap, Runtime, StartFailed
from tests.processes import eventually
from tests.provider.runtime.leases import docker_runtime, ended, output, spec

LEASE = "gpu1owner/1/1/1/gpu1provider"
OTHER = "gpu1owner/2/1/1/gpu1provider"


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.docker)])
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """A runtime of either kind."""
    if request.param == "fake":
        yield FakeRuntime()
        return
    with docker_runtime(request.getfixturevalue("docker_url")) as made:
        yield made


@pytest.fixture
def image(runtime: Runtime, request: pytest.FixtureRequest) -> Image:
    """The test image, ready."""
    if isinstance(runtime, FakeRuntime):
        return runtime.ensure_image("gpubid/busybox:test")
    return runtime.ensure_image(request.getfixturevalue("test_image"))


def test_a_container_is_started_once(runtime: Runtime, image: Image) -> None:
    """Starting again what runs changes nothing; it is found by its lease, in the words it was started with."""
    assert image.digest.startswith("sha256:")
    runtime.ensure_network(LEASE)
    runtime.ensure_network(LEASE)
    wanted = spec(image, "sleep", "1000", ports=(PortMap(80, "tcp"), PortMap(81, "tcp")), devices=("GPU-1",), simulated=True)
    first = runtime.start(wanted)
    assert runtime.start(wanted).id == first.id
    (found,) = runtime.containers(LEASE)
    assert (found.state, found.exit_code, found.lease, found.generation) == ("running", None, LEASE, 1)
    assert (found.service, found.replica, found.devices, found.spec_hash) == ("web", 0, ("GPU-1",), "one")
    assert found.image_digest == image.digest
    assert found.started_ms > 0
    assert [p.container_port for p in found.ports] == [80, 81]
    assert len({p.host_port for p in found.ports} - {0}) == 2
    assert runtime.containers() == (found,)
    assert runtime.containers(OTHER) == ()
    assert runtime.leases() == {LEASE}


def test_an_end_is_told_and_can_be_begun_again(runtime: Runtime, image: Image) -> None:
    """An exit code is kept; the same container is started again, with another manifest it is a new one."""
    runtime.ensure_network(LEASE)
    wanted = spec(image, "sh", "-c", "exit 3")
    first = ended(runtime, runtime.start(wanted))
    assert (first.exit_code, first.oom_killed) == (3, False)
    assert first.finished_ms > 0
    again = ended(runtime, runtime.start(wanted))
    assert again.id == first.id
    other = ended(runtime, runtime.start(spec(image, "true", spec_hash="two")))
    assert other.id != first.id
    assert other.exit_code == 0
    assert [c.id for c in runtime.containers(LEASE)] == [other.id]


def test_a_stopped_lease_stays_and_a_removed_one_is_gone(runtime: Runtime, image: Image) -> None:
    """`stop` keeps the containers, `remove` with a generation keeps that one's, without it takes all; all repeatable."""
    runtime.ensure_network(LEASE)
    runtime.ensure_network(OTHER)
    runtime.start(spec(image, "sleep", "1000", volumes={"/data": ("data", False)}))
    runtime.start(spec(image, "sleep", "1000", generation=2))
    neighbour = runtime.start(spec(image, "sleep", "1000", lease=OTHER))
    for _ in range(2):
        runtime.stop(LEASE, grace_s=1)
    assert [c.state for c in runtime.containers(LEASE)] == ["exited", "exited"]
    for _ in range(2):
        runtime.remove(LEASE, keep_generation=2)
    assert [c.generation for c in runtime.containers(LEASE)] == [2]
    for _ in range(2):
        runtime.remove(LEASE)
    assert runtime.containers(LEASE) == ()
    assert runtime.leases() == {OTHER}
    assert [c.id for c in runtime.containers()] == [neighbour.id]


def test_output_is_read_to_its_end(runtime: Runtime, image: Image) -> None:
    """Followed output of a container that ends is all of it, and then over; its tail is its tail."""
    runtime.ensure_network(LEASE)
    container = runtime.start(spec(image, "echo", "one", "two"))
    followed = list(runtime.logs(container.id, follow=True, tail=None))
    assert [(line.stream, line.text) for line in followed] == [("stdout", "one two")]
    ended(runtime, container)
    assert list(runtime.logs(container.id, follow=False, tail=None)) == followed
    assert list(runtime.logs(container.id, follow=False, tail=0)) == []
    assert list(runtime.logs(container.id, follow=False, tail=5, since=followed[0].time)) == followed


def test_a_follower_can_be_stopped_from_outside(runtime: Runtime, image: Image) -> None:
    """`close` from another thread ends a follower that waits for output that never comes."""
    runtime.ensure_network(LEASE)
    container = runtime.start(spec(image, "sleep", "1000"))
    stream = runtime.logs(container.id, follow=True, tail=None)
    seen: list[LogLine] = []
    reader = threading.Thread(target=lambda: seen.extend(stream))
    reader.start()
    stream.close()
    stream.close()
    reader.join(60)
    assert not reader.is_alive()
    assert seen == []


def test_commands_run_inside(runtime: Runtime, image: Image) -> None:
    """A command gets its input, gives its output, and its exit code comes last; in what does not run it is refused."""
    runtime.ensure_network(LEASE)
    container = runtime.start(spec(image, "sleep", "1000"))
    assert output(runtime.execute(container.id, ("cat",), b"hello\n")) == (b"hello\n", 0)
    assert output(runtime.execute(container.id, ("sh", "-c", "exit 7"))) == (b"", 7)
    runtime.stop(LEASE, grace_s=1)
    with pytest.raises(StartFailed):
        runtime.execute(container.id, ("true",))


def test_a_port_is_taken_once(runtime: Runtime, image: Image) -> None:
    """A host port that is in use is refused as such, and the refused container is not left behind."""
    runtime.ensure_network(LEASE)
    first = runtime.start(spec(image, "sleep", "1000", ports=(PortMap(80, "tcp"),)))
    taken = PortMap(80, "tcp", "127.0.0.1", first.ports[0].host_port)
    with pytest.raises(StartFailed) as caught:
        runtime.start(spec(image, "sleep", "1000", service="other", ports=(taken,)))
    assert caught.value.kind == "port_taken"
    assert [c.id for c in runtime.containers()] == [first.id]


def test_changes_are_told(runtime: Runtime, image: Image) -> None:
    """A started container is an event of its lease; closing the stream ends it."""
    runtime.ensure_network(LEASE)
    events = runtime.events()
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.extend(events))
    reader.start()
    runtime.start(spec(image, "true"))
    eventually(lambda: LEASE in seen, "an event of the lease")
    events.close()
    reader.join(60)
    assert not reader.is_alive()
    assert set(seen) == {LEASE}
