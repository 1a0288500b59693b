"""The whole way with real processes and a real engine: node, provider, tenant, container."""

import contextlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import docker.errors
import pytest

from ledger.protocol.messages import SetParameter
from marketplace.node.home import seed_of as seed_of_node
from tests.processes import Program, User, development_node, eventually, provider
from tests.provider.daemon.tenant import WEB, Tenant, answer, seed_of
from tests.provider.runtime.registry import Registry, registry

pytestmark = [pytest.mark.docker, pytest.mark.process]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[str]:
    """URL of a node of a chain of its own."""
    with development_node(tmp_path) as (_, url):
        yield url


def container_ids(docker_url: str, address: str) -> dict[str, str]:
    """Id → state of every container of a provider."""
    client = docker.DockerClient(base_url=docker_url, timeout=60)
    try:
        found = client.containers.list(all=True, filters={"label": f"io.gpubid.provider={address}"}, ignore_removed=True)
        return {str(c.id): str(c.status) for c in found}
    finally:
        client.close()


def test_from_match_to_release_through_kill(tmp_path: Path, node: str, docker_url: str, test_image: str) -> None:
    """Match, manifest, container, answer; kill -9 of the daemon touches nothing; the next adopts, closes and releases."""
    with Tenant(node, seed_of(tmp_path, "tenant")) as tenant, provider(tmp_path, node, docker_url) as (program, address):
        lease, manifest = tenant.deploy(WEB.format(image=test_image))
        with tenant.gateway(lease) as gateway:
            gateway.put_manifest(lease, manifest)
        status = tenant.until_running(lease)
        assert "hello from gpubid" in answer(status)
        tenant.until(lease, "active")
        with tenant.gateway(lease) as gateway:
            assert "started hello" in [line["text"] for line in gateway.logs(lease)]
            ran = list(gateway.exec(lease, "web", ["/bin/sh", "-c", "cat; exit 3"], stdin=b"typed"))
        assert ran[-1] == {"exit_code": 3}
        assert b"".join(part["data"] for part in ran[:-1]) == b"typed"
        before = container_ids(docker_url, address)
        bid_before = tenant.node.bid(address, status_host(tenant, lease))["version"]

        program.kill()
        assert "hello from gpubid" in answer(status)
        assert tenant.state(lease) == "active"
        with Program(program.arguments, program.home) as again:
            again.line("ready ")
            status = tenant.until_running(lease)
            assert "hello from gpubid" in answer(status)
            assert container_ids(docker_url, address).keys() == before.keys()
            assert tenant.state(lease) == "active"
            assert tenant.node.bid(address, status_host(tenant, lease))["version"] == bid_before

            tenant.close_deployment()
            eventually(lambda: tenant.node.lease(lease)["released"], "the release")
            eventually(lambda: not container_ids(docker_url, address), "the containers to be gone")
            assert again.stop(signal.SIGINT) == 0


def status_host(tenant: Tenant, lease: str) -> str:
    """Host of a lease."""
    return str(tenant.node.lease(lease)["host"])


def test_the_cheapest_of_three_wins(tmp_path: Path, node: str, docker_url: str) -> None:
    """Of three providers with three price files, the cheapest gets the lease."""
    files = []
    for name, cpu in (("dear", "0.5"), ("cheap", "0.001"), ("middle", "0.05")):
        path = tmp_path / f"{name}.toml"
        path.write_text(f"cpu = {cpu}\n")
        files.append((name, str(path)))
    with (
        provider(tmp_path, node, docker_url, "--price-file", files[0][1], name="dear"),
        provider(tmp_path, node, docker_url, "--price-file", files[1][1], name="cheap") as (_, cheap),
        provider(tmp_path, node, docker_url, "--price-file", files[2][1], name="middle"),
        Tenant(node, seed_of(tmp_path, "tenant")) as tenant,
    ):
        lease, _ = tenant.deploy(WEB.format(image="unused"))
        assert lease.endswith(cheap)


def test_the_node_may_go_and_come(tmp_path: Path, docker_url: str, test_image: str) -> None:
    """While the node is away a lease runs on; when it is back, the daemon goes on as if nothing had been."""
    with (
        development_node(tmp_path) as (program, url),
        provider(tmp_path, url, docker_url) as (_, address),
        Tenant(url, seed_of(tmp_path, "tenant")) as tenant,
    ):
        lease, manifest = tenant.deploy(WEB.format(image=test_image))
        with tenant.gateway(lease) as gateway:
            gateway.put_manifest(lease, manifest)
        status = tenant.until_running(lease)
        tenant.until(lease, "active")
        before = container_ids(docker_url, address)
        program.kill()
        assert "hello from gpubid" in answer(status)
        listen = url.removeprefix("http://")
        with Program(["node", "start", "--dev", "--listen", listen], program.home) as again:
            again.line("ready ")
            assert tenant.state(lease) == "active"
            assert container_ids(docker_url, address).keys() == before.keys()
            tenant.close_deployment()
            eventually(lambda: tenant.node.lease(lease)["released"], "the release")


def test_mistakes_of_the_operator_are_answered(tmp_path: Path, node: str, docker_url: str) -> None:
    """No engine, a taken port, a second daemon, a wrong price file, a full disk: one clear line, its exit code, no traceback."""
    with provider(tmp_path, node, docker_url) as (program, _):
        listen = program.line("ready ").split()[1].removeprefix("https://")
        other = User(tmp_path / "other", node)
        other.key("provider")
        wrong = tmp_path / "wrong.toml"
        wrong.write_text("cpu = 'much'\n")
        base = ("provider", "start", "--node", node, "--from", "provider", "--docker", docker_url)
        cases = [
            (other, (*base[:-1], "unix:///nowhere/docker.sock", "--listen", "127.0.0.1:0"), 7, "systemctl start docker"),
            (other, (*base[:-1], "tcp://127.0.0.1:2375", "--listen", "127.0.0.1:0"), 2, "unix socket"),
            (other, (*base, "--listen", listen), 5, "--listen"),
            (other, (*base, "--listen", "127.0.0.1:0", "--price-file", str(wrong)), 2, "gpubid provider prices"),
            (other, (*base, "--listen", "127.0.0.1:0", "--simulate-gpus", "abacus:1"), 2, "h100:2"),
            (other, (*base, "--listen", "0.0.0.0:0"), 2, "--public-url"),
            (User(program.home, node), (*base, "--listen", "127.0.0.1:0"), 5, str(program.process.pid)),
        ]
        for user, arguments, code, says in cases:
            done = user.run(*arguments)
            assert (done.returncode, says in done.stderr) == (code, True), (arguments, done.returncode, done.stderr)
            assert "Traceback" not in done.stderr
        limited = ("bash", "-c", 'trap "" XFSZ; ulimit -f 4; exec "$@"', "limited")
        with Program([*base, "--listen", "127.0.0.1:0"], other.home, prefix=limited) as full:
            assert full.wait() == 1, full.stderr
        assert "make room" in full.stderr
        assert "Traceback" not in full.stderr
        assert program.process.poll() is None


@contextmanager
def slow_shop(docker_url: str, image: str) -> Iterator[Registry]:
    """A registry with the files of an image; what was pulled from it is removed again."""
    with contextlib.closing(docker.DockerClient(base_url=docker_url, timeout=60)) as engine:
        made = engine.containers.create(image)
        try:
            files = b"".join(made.export())
        finally:
            made.remove()
        with registry(engine.version()["Arch"], image, files) as shop:
            yield shop
        with contextlib.suppress(docker.errors.ImageNotFound):
            engine.images.remove(f"{shop.host}/stuck/app:1", force=True)


def test_a_slow_pull_is_told_and_billed(tmp_path: Path, node: str, docker_url: str, test_image: str) -> None:
    """While the image does not come the ledger knows of the pull; once it has, the lease runs and has paid for the wait."""
    prices = tmp_path / "prices.toml"
    prices.write_text("cpu = 500\n[terms]\nhold = 40\n")
    governor = seed_of_node(tmp_path / "node" / "node", "faucet", make=False)
    assert governor is not None
    with (
        slow_shop(docker_url, test_image) as shop,
        Tenant(node, seed_of(tmp_path, "tenant")) as tenant,
        provider(tmp_path, node, docker_url, "--price-file", str(prices)),
    ):
        tenant.node.sender(governor).send(SetParameter(name="pull_free_ms", value=1))
        lease, manifest = tenant.deploy(WEB.format(image=f"{shop.host}/stuck/app:1"))
        with tenant.gateway(lease) as gateway:
            gateway.put_manifest(lease, manifest)
        eventually(lambda: tenant.node.lease(lease)["pulling_ms"], "the pull to be reported")
        eventually(lambda: tenant.node.lease(lease)["hold_ms"] > 100, "the hold to run")
        assert tenant.state(lease) == "matched"
        shop.released.set()
        tenant.until(lease, "active")
        record = tenant.node.lease(lease)
        assert record["pulling_ms"] == 0
        assert int(record["hold_cost"]) == 40_000_000 * record["hold_ms"] // 3_600_000 > 0
