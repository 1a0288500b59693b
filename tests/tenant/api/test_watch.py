"""What the gateway does by itself: manifests for leases that come later, and answers that were lost."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import tenant.deploy.flow
from ledger.client import Sender
from ledger.protocol.messages import Transfer
from marketplace.client import NodeClient, Unreachable
from tenant.api.watch import Watch
from tests.processes import eventually
from tests.tenant.api.gateway_story import Desk, address, offer, opened, sdl
from tests.tenant.deploy.scene import Gateway, Scene, scene

USERS = count(700)
SECOND = 650


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Scene]:
    """A market of one provider."""
    with scene(tmp_path / "market") as found:
        found.offer()
        yield found


@pytest.fixture
def played(market: Scene, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """The gateways of both providers, played by the test; the first one's leases are reported active."""

    def activate(lease: str) -> None:
        if lease.endswith(market.provider):
            market.activate(lease)

    found = Gateway(activate)
    monkeypatch.setattr(tenant.deploy.flow, "GatewayClient", found)
    return found


@pytest.fixture
def desk(market: Scene, tmp_path: Path) -> Iterator[Desk]:
    """A gateway whose account has money; nothing watches yet."""
    with opened(market.url, tmp_path / "tenant", next(USERS)) as found:
        market.node.faucet(found.gateway.flow.owner)
        yield found


def watching(desk: Desk, market: Scene) -> Watch:
    """What runs beside the requests of the gateway."""
    return Watch(market.url, desk.gateway.flow, desk.gateway.worker)


def reach(desk: Desk, dseq: int, phase: str) -> Any:
    """Wait until the gateway tells a phase; the deployment then."""

    def look() -> Any:
        found = desk.get(f"/v1/deployments/{dseq}")
        return found if found["phase"] == phase else None

    return eventually(look, f"deployment {dseq} to be {phase}", 60)


def fail(market: Scene, lease: str) -> None:
    """The provider of a lease gives it up, and is avoided from then on."""
    market.end(lease, "host_failed", "the host is gone")


def leases(desk: Desk, dseq: int) -> list[str]:
    """Ids of a deployment's leases that are not over."""
    return [lease["id"] for lease in desk.gateway.flow.leases(dseq)]


def test_a_rematch_gets_its_manifest(market: Scene, desk: Desk, played: Gateway) -> None:
    """When a provider gives a lease up and the order finds another one, that one gets the manifest; nobody had to ask."""
    with watching(desk, market):
        dseq = desk.made(sdl())["dseq"]
        reach(desk, dseq, "running")
        (first,) = leases(desk, dseq)
        offer(market.node, SECOND)
        fail(market, first)
        eventually(lambda: len(played.manifests) == 2, "the second manifest", 60)
        reach(desk, dseq, "running")
        (later,) = leases(desk, dseq)
        assert later in played.manifests
        assert played.manifests[first] == played.manifests[later]
        assert desk.call("DELETE", f"/v1/deployments/{dseq}").status_code == 200


def test_what_happened_unheard_is_made_good(market: Scene, desk: Desk, played: Gateway) -> None:
    """A match while nothing listened, and one after the stream broke off, get their manifests."""
    dseq = desk.made(sdl())["dseq"]
    reach(desk, dseq, "running")
    (first,) = leases(desk, dseq)
    offer(market.node, SECOND)
    fail(market, first)
    (later,) = eventually(lambda: leases(desk, dseq), "the next match", 60)
    assert later not in played.manifests
    with watching(desk, market) as watch:
        eventually(lambda: later in played.manifests, "the manifest of the second", 60)
        eventually(lambda: watch._clients, "the connection", 60)[0].close()
        other = desk.made(sdl())["dseq"]
        eventually(lambda: set(leases(desk, other)) & played.manifests.keys(), "its manifest", 60)
        flow = desk.gateway.flow
        plan = flow.prepare(sdl().encode())
        flow.create(plan)
        eventually(lambda: set(leases(desk, plan.dseq)) & played.manifests.keys(), "the event of a later connection", 60)


def test_a_commands_deployment_is_looked_after(market: Scene, desk: Desk, played: Gateway) -> None:
    """What a command in the same home deployed gets its manifest when its order is matched, and is forgotten at its end."""
    flow = desk.gateway.flow
    with watching(desk, market):
        plan = flow.prepare(sdl().encode())
        flow.create(plan)
        eventually(lambda: set(leases(desk, plan.dseq)) & played.manifests.keys(), "the manifest", 60)
        flow._send(tenant.deploy.flow.CloseDeployment(dseq=plan.dseq))
        eventually(lambda: flow.shelf.find(flow.owner, plan.dseq) is None, "the manifest to be dropped", 60)


def test_an_update_reaches_the_provider(market: Scene, desk: Desk, played: Gateway) -> None:
    """PUT gives the ledger the new hash and the lease's provider the new manifest; a command's deployment is updated as well."""
    with watching(desk, market):
        dseq = desk.made(sdl())["dseq"]
        reach(desk, dseq, "running")
        (lease,) = leases(desk, dseq)
        before = desk.get(f"/v1/deployments/{dseq}")
        newer = sdl().replace("gpubid/busybox:test", "gpubid/busybox:other")
        for body, sent in ((newer, newer), (newer, newer), (sdl(), sdl())):
            answer = desk.put(dseq, body)
            assert (answer.status_code, answer.json()["phase"] in ("created", "matched", "running")) == (200, True), answer.text
            manifest = desk.gateway.flow.prepare(sent.encode()).manifest
            eventually(lambda wanted=manifest: played.manifests[lease] == wanted, "the manifest", 60)  # type: ignore[misc]
        found = reach(desk, dseq, "running")
        assert (found["version"], found["hash"]) == (before["version"] + 2, before["hash"])
        assert leases(desk, dseq) == [lease]
        plan = desk.gateway.flow.prepare(sdl().encode())
        desk.gateway.flow.create(plan)
        (own,) = leases(desk, plan.dseq)
        assert desk.put(plan.dseq, newer).status_code == 200
        manifest = desk.gateway.flow.prepare(newer.encode()).manifest
        eventually(lambda: played.manifests.get(own) == manifest, "the manifest of the other", 60)


def test_an_order_that_waits_again_says_so(market: Scene, desk: Desk, played: Gateway) -> None:
    """Where no other bid fits after a failure, the phase is no longer `running`, and the reason of the wait is told."""
    with watching(desk, market):
        dseq = desk.made(sdl())["dseq"]
        reach(desk, dseq, "running")
        fail(market, leases(desk, dseq)[0])
        eventually(lambda: "waits" in reach(desk, dseq, "created")["error"], "the reason of the wait", 60)
        assert desk.call("DELETE", f"/v1/deployments/{dseq}").status_code == 200
        assert desk.get(f"/v1/deployments/{dseq}")["phase"] == "closed"


def test_the_outbox_is_settled_meanwhile(market: Scene, desk: Desk) -> None:
    """What another process left is sent while the gateway runs; what this one is sending is left alone."""
    flow = desk.gateway.flow
    with watching(desk, market), NodeClient(market.url) as node:
        pay = Transfer(amount="5", denomination="ucredit", to=address(8))
        kept, _ = flow._sender.build(pay)
        left, _ = Sender(node, flow._seed, outbox=flow.outbox).build(pay)
        eventually(lambda: not (flow.outbox / f"{left}.json").exists(), "what was left to be sent", 60)
        assert market.node.transaction(left)["code"] == 0
        assert (flow.outbox / f"{kept}.json").exists()


@pytest.mark.parametrize("applied", [True, False], ids=["applied", "never arrived"])
def test_a_lost_answer_is_found_out(market: Scene, desk: Desk, monkeypatch: pytest.MonkeyPatch, applied: bool) -> None:
    """A request that got no answer from the node is found out by itself: its deployment is on the ledger, once, and goes on."""
    flow = desk.gateway.flow
    real = flow.node.post

    def silent(raw: bytes) -> Any:
        if applied:
            real(raw)
        raise Unreachable("it went away")

    monkeypatch.setattr(flow.node, "post", silent)
    monkeypatch.setattr(flow, "_send", lambda *messages: flow._sender.send(*messages, timeout_s=0.2))
    desk.problem(desk.post(sdl(), "lost"), 503)
    monkeypatch.undo()
    with watching(desk, market):
        (found,) = eventually(lambda: desk.get("/v1/deployments")["items"], "the deployment", 60)
        again = desk.post(sdl(), "lost")
        assert (again.status_code, again.json()["dseq"]) == (200, found["dseq"])
        assert len(desk.get("/v1/deployments")["items"]) == 1
