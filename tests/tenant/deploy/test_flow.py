"""From a plan to a running lease and to the bill, on a real node."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from ledger.protocol.errors import Rejected
from ledger.protocol.messages import Deposit
from marketplace.client import NodeClient, Unreachable
from marketplace.protocol.errors import MarketCode
from provider.client import GatewayError, GatewayUnreachable
from tenant.deploy.failure import DeployFailed, NoMatch, NotRunning
from tenant.deploy.flow import Deployer
from tests.tenant.deploy.scene import GPU, SDL, TWO_GROUPS, Gateway, Scene

Make = Callable[[int], Deployer]

numbers = itertools.count(100)


@pytest.fixture
def flow(deployer: Make) -> Deployer:
    """A deployer of an account of its own."""
    return deployer(next(numbers))


def opened(flow: Deployer, text: str = SDL, **options: Any) -> int:
    """Open a deployment of a file; its dseq."""
    plan = flow.prepare(text.encode(), **options)
    assert flow.create(plan) is not None
    return plan.dseq


def balance(flow: Deployer) -> int:
    """What the account has, in micro-credits."""
    return int(flow.node.account(flow.owner)["balances"].get("ucredit", "0"))


def test_the_whole_way(flow: Deployer, gateway: Gateway, market: Scene) -> None:
    """Create, match, manifest, running, close: the provider got the hashed manifest, and the bill is exact."""
    before = balance(flow)
    plan = flow.prepare(SDL.encode())
    flow.create(plan)
    assert balance(flow) == before - plan.deposit
    (lease,) = flow.wait_matched(plan.dseq, 60)
    assert lease["provider"] == market.provider
    gateway.phases = ["preparing", "starting", "running"]
    phases: list[str] = []
    flow.send_manifest(lease)
    assert gateway.manifests[lease["id"]] == plan.manifest
    assert flow.wait_running(lease, 60, phases.append)["phase"] == "running"
    assert phases == ["preparing", "starting"]
    assert all(token.count(".") == 2 for token in gateway.tokens)
    with pytest.raises(NotRunning, match="not reported"):
        flow.wait_active(lease, 0)
    market.activate(lease["id"])
    assert flow.wait_active(lease, 60)["state"] == "active"

    bill = flow.close(plan.dseq)
    after = balance(flow)
    assert [item["id"] for item in bill["leases"]] == [lease["id"]]
    assert int(bill["paid"]) + int(bill["fees"]) + int(bill["charged"]) + int(bill["refund"]) == plan.deposit
    assert before - after == plan.deposit - int(bill["refund"])
    assert int(bill["purse"]["deposited"]) == plan.deposit
    assert int(bill["purse"]["paid"]) == int(bill["paid"]) + int(bill["fees"])
    assert flow.node.lease(lease["id"])["cost"] == bill["purse"]["paid"]
    assert flow.shelf.find(flow.owner, plan.dseq) is None


def test_create_can_be_repeated(flow: Deployer) -> None:
    """The same plan again is done already and costs nothing more; another file under its number is refused before any change."""
    plan = flow.prepare(SDL.encode())
    flow.create(plan)
    left = balance(flow)
    assert flow.create(plan) is None
    other = flow.prepare(SDL.replace("nginx:1.27", "nginx:1.28").encode(), dseq=plan.dseq)
    with pytest.raises(DeployFailed, match="another file") as failed:
        flow.create(other)
    assert failed.value.exit_code == 5
    assert flow.shelf.get(flow.owner, plan.dseq).hash == plan.hash
    flow.shelf.drop(flow.owner, plan.dseq)
    with pytest.raises(Rejected) as refused:
        flow.create(other)
    assert refused.value.code == MarketCode.DEPLOYMENT_EXISTS
    assert flow.shelf.find(flow.owner, plan.dseq) is None
    assert flow.create(plan) is None
    assert flow.shelf.get(flow.owner, plan.dseq).manifest == plan.manifest
    assert balance(flow) == left


def test_a_lost_answer_is_made_good(flow: Deployer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the node applies a transaction and its answer is lost, sending goes on and there is one deployment."""
    post, lost = NodeClient.post, [2]

    def lossy(self: NodeClient, raw: bytes) -> Any:
        receipt = post(self, raw)
        if lost[0]:
            lost[0] -= 1
            raise Unreachable("lost on the way")
        return receipt

    monkeypatch.setattr(NodeClient, "post", lossy)
    dseq = opened(flow)
    assert [found["dseq"] for found in flow.node.deployments(owner=flow.owner)] == [dseq]


def test_a_refusal_leaves_nothing(deployer: Make, market: Scene) -> None:
    """Without the money nothing is opened and no manifest is kept."""
    flow = deployer(next(numbers))
    plan = flow.prepare(SDL.encode(), deposit=10**13)
    with pytest.raises(Rejected) as refused:
        flow.create(plan)
    assert getattr(refused.value, "status", 0) == 402
    assert flow.shelf.find(flow.owner, plan.dseq) is None
    assert flow.node.deployments(owner=flow.owner) == []


def test_an_order_that_waits_says_why(flow: Deployer) -> None:
    """NoMatch counts the bids that failed each test and names the nearest miss with its remedy."""
    cheap = SDL.replace("amount: 100000", "amount: 1").replace("cpu: {units: 100m}", "cpu: {units: 10}")
    words: list[str] = []
    dseq = opened(flow, cheap)
    with pytest.raises(NoMatch) as waits:
        flow.wait_matched(dseq, 0, words.append)
    text = str(waits.value)
    assert "price: 1" in text
    assert "raise the limit" in text
    assert "limit 0.000588" in text
    assert waits.value.exit_code == 6
    assert f"gpubid lease close {dseq}" in waits.value.fix
    dseq = opened(flow, GPU)
    with pytest.raises(NoMatch, match="group here waits"):
        flow.wait_matched(dseq, 0)


def test_a_wait_ends_with_the_match(flow: Deployer, market: Scene) -> None:
    """An order that waits is matched once a bid fits; until then each new reason is told once."""
    asked = SDL.replace("amount: 100000", "amount: 1000000").replace("cpu: {units: 100m}", "cpu: {units: 100}")
    dseq = opened(flow, asked)
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        if len(told) == 1:
            market.offer("big", cpu_milli=128_000)

    (lease,) = flow.wait_matched(dseq, 60, tell)
    assert lease["host"] == "big"
    assert "ask for less" in told[0]
    assert len(set(told)) == len(told)


def test_every_group_gets_a_lease(flow: Deployer, gateway: Gateway, market: Scene) -> None:
    """Two groups, two leases in order; closing one group leaves the other, closing all ends the wait."""
    dseq = opened(flow, TWO_GROUPS)
    leases = flow.wait_matched(dseq, 60)
    assert [lease["gseq"] for lease in leases] == [1, 2]
    bill = flow.close_group(dseq, 1)
    assert [item["id"] for item in bill["leases"]] == [leases[0]["id"]]
    assert bill["refund"] == "0"
    assert [lease["gseq"] for lease in flow.wait_matched(dseq, 60)] == [2]
    flow.close_group(dseq, 2)
    with pytest.raises(DeployFailed, match="every group") as over:
        flow.wait_matched(dseq, 60)
    assert f"gpubid lease close {dseq}" in over.value.fix
    assert int(flow.close(dseq)["refund"]) > 0
    with pytest.raises(DeployFailed, match="is closed: owner") as closed:
        flow.wait_matched(dseq, 60)
    assert closed.value.exit_code == 5


def test_a_lease_that_its_provider_ended(flow: Deployer, gateway: Gateway, market: Scene) -> None:
    """Where the manifest's fault ends a lease, waiting and running say so, and the close still refunds all."""
    plan = flow.prepare(SDL.encode())
    flow.create(plan)
    (lease,) = flow.wait_matched(plan.dseq, 60)
    market.end(lease["id"], "image_failed", "no such image")
    gateway.phases = ["closed"]
    with pytest.raises(NotRunning, match="image_failed: no such image"):
        flow.wait_running(lease, 60)
    with pytest.raises(NotRunning, match="image_failed: no such image"):
        flow.wait_active(lease, 60)
    with pytest.raises(NoMatch, match="image_failed") as over:
        flow.wait_matched(plan.dseq, 60)
    assert over.value.exit_code == 1
    assert int(flow.close(plan.dseq)["refund"]) == plan.deposit


def test_a_gateway_that_is_away(flow: Deployer, gateway: Gateway, market: Scene) -> None:
    """An absence is waited out; a lasting one is GatewayUnreachable; a refusal is told at once."""
    dseq = opened(flow)
    (lease,) = flow.wait_matched(dseq, 60)
    told: list[str] = []
    gateway.away = 2
    flow.send_manifest(lease, patience_s=60, progress=told.append)
    assert len(told) == 1
    assert "trying again" in told[0]
    gateway.away = 10
    with pytest.raises(GatewayUnreachable):
        flow.send_manifest(lease)
    gateway.away = 2
    assert flow.wait_running(lease, 60)["phase"] == "running"
    gateway.away = 10**6
    with pytest.raises(NotRunning, match="unreachable") as late:
        flow.wait_running(lease, 0)
    assert late.value.exit_code == 6
    market.end(lease["id"], "start_failed", "exit 1")
    with pytest.raises(NotRunning, match="start_failed: exit 1"):
        flow.wait_running(lease, 60)
    gateway.away, gateway.refusal = 0, GatewayError(422, "HASH", "the manifest was refused")
    calls = len(gateway.calls)
    with pytest.raises(GatewayError):
        flow.send_manifest(lease, patience_s=60)
    assert len(gateway.calls) == calls + 1


def test_containers_that_fail_are_told(flow: Deployer, gateway: Gateway) -> None:
    """A failed phase ends the wait with the provider's words and how to settle."""
    dseq = opened(flow)
    (lease,) = flow.wait_matched(dseq, 60)
    gateway.phases = ["starting", "failed"]
    with pytest.raises(NotRunning, match="it broke") as failed:
        flow.wait_running(lease, 60)
    assert f"gpubid lease close {dseq}" in failed.value.fix


def test_the_purse_accounts_for_all(flow: Deployer, gateway: Gateway, market: Scene) -> None:
    """With a second deposit and an earlier lease paid, deposited = paid + charged + withdrawn + refunded."""
    dseq = opened(flow, TWO_GROUPS)
    first, second = flow.wait_matched(dseq, 60)
    market.activate(first["id"])
    market.activate(second["id"])
    flow._send(Deposit(amount="5000000", purse=f"{flow.owner}/{dseq}"))
    flow.close_group(dseq, 1)
    purse = flow.close(dseq)["purse"]
    parts = sum(int(purse[name]) for name in ("paid", "charged", "withdrawn", "refunded"))
    assert int(purse["deposited"]) == parts
    cost = sum(int(flow.node.lease(lease["id"])["cost"]) for lease in (first, second))
    assert int(purse["paid"]) == cost
