"""What needs an engine of one's own: the path of a GPU to its container, and an engine that is killed."""

import contextlib
from collections.abc import Iterator

import docker
import pytest

from provider.runtime.docker import DockerRuntime
from provider.runtime.port import Container, Unknown
from tests.processes import eventually
from tests.provider.runtime.leases import docker_runtime, output, spec
from tests.provider.runtime.private_engine import IMAGE, PrivateEngine, private_engine

pytestmark = [pytest.mark.docker, pytest.mark.slow]

LEASE = "gpu1owner/1/1/1/gpu1provider"
GPUS = ("GPU-aaaaaaaa-0000-4000-8000-000000000001", "GPU-bbbbbbbb-0000-4000-8000-000000000002")


@pytest.fixture
def engine(docker_url: str) -> Iterator[PrivateEngine]:
    """A private engine. The shared one is asked for first, since that installs dockerd where there is none."""
    with private_engine() as made:
        yield made


def greedy_image(engine: PrivateEngine) -> str:
    """An image that asks for every GPU of the host, as CUDA's own do."""
    with contextlib.closing(docker.DockerClient(base_url=engine.url, timeout=120)) as client:
        container = client.containers.create(IMAGE, "true")
        container.commit("gpubid/greedy", "test", changes="ENV NVIDIA_VISIBLE_DEVICES=all\nENV NVIDIA_DRIVER_CAPABILITIES=all")
        container.remove()
    return "gpubid/greedy:test"


def devices_inside(runtime: DockerRuntime, container: Container) -> list[str]:
    """Variables of a container that select devices."""
    text, code = output(runtime.execute(container.id, ("env",)))
    assert code == 0
    return sorted(line for line in text.decode().splitlines() if line.startswith("NVIDIA_"))


def test_exactly_the_leased_gpus_reach_a_container(engine: PrivateEngine) -> None:
    """The toolkit is told the lease's UUIDs and no other, whatever image and tenant say; without GPUs it is not called."""
    with docker_runtime(engine.url) as runtime:
        image = runtime.ensure_image(greedy_image(engine))
        runtime.ensure_network(LEASE)
        leased = runtime.start(spec(image, "sleep", "1000", devices=GPUS, env={"NVIDIA_VISIBLE_DEVICES": "all"}))
        assert engine.hook_log.read_text().splitlines() == [f"{','.join(GPUS)}|compute,utility"]
        assert devices_inside(runtime, leased) == [
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility", f"NVIDIA_VISIBLE_DEVICES={','.join(GPUS)}",
        ]  # fmt: skip
        without = runtime.start(spec(image, "sleep", "1000", service="cpu", env={"NVIDIA_VISIBLE_DEVICES": "all"}))
        rehearsal = runtime.start(spec(image, "sleep", "1000", service="rehearsal", devices=GPUS[:1], simulated=True))
        assert len(engine.hook_log.read_text().splitlines()) == 1
        for container in (without, rehearsal):
            assert "NVIDIA_VISIBLE_DEVICES=void" in devices_inside(runtime, container)
        (found,) = [c for c in runtime.containers() if c.service == "web"]
        assert found.devices == GPUS


def test_a_killed_engine_is_unknown_and_its_container_is_found_again(engine: PrivateEngine) -> None:
    """While dockerd is dead nothing is known; a follower says so too; afterwards the same container still runs."""
    with docker_runtime(engine.url) as runtime:
        runtime.ensure_network(LEASE)
        wanted = spec(runtime.ensure_image(IMAGE), "sh", "-c", "echo begun; sleep 1000")
        before = runtime.start(wanted)
        follower = runtime.logs(before.id, follow=True, tail=None)
        events = runtime.events()
        assert next(follower).text == "begun"
        engine.kill()
        with pytest.raises(Unknown):
            next(follower)
        follower.close()
        assert list(events) == []
        for call in (runtime.containers, runtime.info, runtime.leases, lambda: runtime.start(wanted)):
            with pytest.raises(Unknown):
                call()
        engine.start()

        def again() -> list[Container]:
            with contextlib.suppress(Unknown):
                return [c for c in runtime.containers() if c.state == "running"]
            return []

        (after,) = eventually(again, "the container, found again")
        assert (after.id, after.started_ms) == (before.id, before.started_ms)
        assert runtime.start(wanted).id == before.id
        assert [line.text for line in runtime.logs(after.id, follow=False, tail=None)] == ["begun"]
