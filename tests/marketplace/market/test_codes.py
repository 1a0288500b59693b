"""Every code of the market is provoked, by a message that fails for that reason and no other."""

from collections.abc import Callable

import pytest

from ledger.protocol.errors import Code
from ledger.protocol.messages import Message, SetParameter
from marketplace.protocol import messages as m
from marketplace.protocol.errors import MARKET_HTTP_STATUS, MarketCode
from marketplace.protocol.resources import Prices
from tests.marketplace.market.world import ADDRESS, CREDIT, START, World, device, gpu, group, offer, prices, unit

REGISTER = m.RegisterProvider(endpoint="https://127.0.0.1:8443", gateway_key="0" * 64)
NO_GPU_PRICE = Prices(cpu="0", gpu={}, memory="0", port="0", storage={"*": "0"})
NO_STORAGE_PRICE = Prices(cpu="0", gpu={"*": "1"}, memory="0", port="0", storage={})
NO_LEASE = f"{ADDRESS['ann']}/9/1/1/{ADDRESS['pat']}"


def register(world: World) -> None:
    """A provider without a host."""
    world.provider()


def bidding(world: World) -> None:
    """A provider with a host and its bid."""
    world.provider()
    world.host()


def bond_asked(world: World) -> None:
    """A provider whose bond was enough for its bid, until a part of it was asked back."""
    world.ok("lee", SetParameter(name="bond_minimum", value=CREDIT))
    world.ok("pat", m.PostBond(amount=str(CREDIT), denomination="ucredit"))
    bidding(world)
    world.ok("pat", m.WithdrawBond(amount="1", denomination="ucredit"))


def ordered(world: World) -> None:
    """A deployment of which nothing fits."""
    bidding(world)
    world.deploy("ann", group(limit=CREDIT))


def leased(world: World) -> None:
    """An active lease."""
    bidding(world)
    world.active()


def the(world: World) -> str:
    """The one lease."""
    return world.id_of(world.leases()[0])


def closed(world: World) -> None:
    """A lease that its provider ended, whose deployment is closed."""
    leased(world)
    world.ok("pat", world.end(the(world)))
    world.ok("ann", m.CloseDeployment(dseq=1))


def taking(**fields: object) -> Callable[[World], Message]:
    """A TakeBid of the waiting order."""
    return lambda world: m.TakeBid(
        **{"host": "h1", "order": f"{ADDRESS['ann']}/1/1/1", "provider": ADDRESS["pat"], "version": 1, **fields}  # type: ignore[arg-type]
    )


def moved_device(world: World) -> None:
    """A second host of the provider whose device is leased at its first."""
    leased(world)
    world.ok("pat", m.RegisterHost(host="h2"))


ROWS: list[tuple[int, Callable[[World], None], str, Callable[[World], Message]]] = [
    (MarketCode.PROVIDER_NOT_FOUND, lambda w: None, "pat", lambda w: m.RegisterHost(host="h1")),
    (MarketCode.PROVIDER_NOT_FOUND, lambda w: None, "pat", lambda w: w.put()),
    (MarketCode.PROVIDER_NOT_FOUND, lambda w: None, "pat", lambda w: m.Heartbeat(hosts=("h1",))),
    (MarketCode.PROVIDER_NOT_FOUND, lambda w: None, "aud", lambda w: m.Attest(attributes={}, provider=ADDRESS["pat"])),
    (MarketCode.HOST_NOT_FOUND, register, "pat", lambda w: w.put()),
    (MarketCode.HOST_NOT_FOUND, bidding, "pat", lambda w: m.Heartbeat(hosts=("h1", "h2"))),
    (MarketCode.BID_NOT_FOUND, bidding, "pat", lambda w: m.CancelBid(host="h2", version=1)),
    (MarketCode.BID_NOT_FOUND, ordered, "ann", taking(host="h2")),
    (MarketCode.BID_EXPIRED, bidding, "pat", lambda w: w.put(expires_ms=START)),
    (MarketCode.OFFER_REFUSED, bidding, "pat", lambda w: w.put(bid=offer(device("a"), device("a")))),
    (MarketCode.OFFER_REFUSED, bidding, "pat", lambda w: w.put(price=NO_GPU_PRICE)),
    (MarketCode.OFFER_REFUSED, bidding, "pat", lambda w: w.put(price=NO_STORAGE_PRICE)),
    (MarketCode.DEVICE_IN_USE, moved_device, "pat", lambda w: w.put(name="h2", bid=offer(device("pat/h1/0")))),
    (MarketCode.HOST_EXISTS, bidding, "pat", lambda w: m.RegisterHost(host="h1")),
    (MarketCode.OFFER_REFUSED, bidding, "pat", lambda w: w.put(min_duration_ms=2, max_duration_ms=1)),
    (MarketCode.BOND_TOO_SMALL, bond_asked, "pat", lambda w: w.put()),
    (MarketCode.BOND_NOT_FOUND, bidding, "pat", lambda w: m.WithdrawBond(amount="1", denomination="ucredit")),
    (MarketCode.DEPLOYMENT_NOT_FOUND, bidding, "ann", lambda w: m.CloseDeployment(dseq=1)),
    (MarketCode.DEPLOYMENT_NOT_FOUND, ordered, "bob", lambda w: m.CloseDeployment(dseq=1)),
    (MarketCode.DEPLOYMENT_NOT_FOUND, bidding, "ann", lambda w: m.UpdateDeployment(dseq=1, hash="b" * 64, version=1)),
    (MarketCode.DEPLOYMENT_EXISTS, ordered, "ann", lambda w: w.create()),
    (MarketCode.DEPLOYMENT_EXISTS, closed, "ann", lambda w: w.create()),
    (MarketCode.DEPLOYMENT_CLOSED, closed, "ann", lambda w: m.CloseDeployment(dseq=1)),
    (MarketCode.DEPLOYMENT_CLOSED, closed, "ann", lambda w: m.CloseGroup(dseq=1, gseq=1)),
    (MarketCode.GROUP_NOT_FOUND, ordered, "ann", lambda w: m.CloseGroup(dseq=1, gseq=2)),
    (MarketCode.GROUP_REFUSED, bidding, "ann", lambda w: w.create(group(), group())),
    (MarketCode.GROUP_REFUSED, bidding, "ann", lambda w: w.create(group(deadline_ms=START))),
    (MarketCode.ORDER_NOT_FOUND, bidding, "ann", taking()),
    (MarketCode.ORDER_NOT_OPEN, leased, "ann", taking()),
    (MarketCode.BID_DOES_NOT_FIT, ordered, "ann", taking()),
    (MarketCode.DEPOSIT_TOO_SMALL, bidding, "ann", lambda w: w.create(deposit=66_666)),
    (MarketCode.LIMIT_REFUSED, bidding, "ann", lambda w: w.create(group(limit=0))),
    (MarketCode.LIMIT_REFUSED, bidding, "ann", lambda w: w.create(group(limit=10**15 + 1))),
    (MarketCode.LEASE_NOT_FOUND, leased, "pat", lambda w: m.ReportUp(generation=1, lease=NO_LEASE)),
    (MarketCode.LEASE_NOT_OPEN, closed, "pat", lambda w: w.report(the(w))),
    (MarketCode.LEASE_NOT_OPEN, leased, "pat", lambda w: w.released(the(w))),
    (MarketCode.GENERATION_MISMATCH, leased, "pat", lambda w: m.Release(clean=True, generation=2, lease=the(w))),
    (MarketCode.REPORT_REFUSED, leased, "pat", lambda w: w.report(the(w))),
    (MarketCode.REPORT_REFUSED, leased, "pat", lambda w: w.up(the(w))),
    (MarketCode.REPORT_REFUSED, leased, "pat", lambda w: w.end(the(w), "manifest_missing")),
    (MarketCode.ATTESTATION_NOT_FOUND, bidding, "aud", lambda w: m.Retract(provider=ADDRESS["pat"])),
    (Code.VERSION_MISMATCH, bidding, "pat", lambda w: REGISTER),
    (Code.VERSION_MISMATCH, bidding, "pat", lambda w: w.put(version=0)),
    (Code.VERSION_MISMATCH, bidding, "pat", lambda w: m.CancelBid(host="h1", version=2)),
    (Code.VERSION_MISMATCH, ordered, "ann", taking(version=2)),
    (Code.VERSION_MISMATCH, ordered, "ann", lambda w: m.UpdateDeployment(dseq=1, hash="b" * 64, version=2)),
    (Code.VERSION_MISMATCH, bidding, "aud", lambda w: m.Attest(attributes={}, provider=ADDRESS["pat"], version=1)),
    (Code.NOT_AUTHORISED, ordered, "bob", taking()),
    (Code.NOT_AUTHORISED, leased, "pol", lambda w: w.end(the(w))),
    (Code.AMOUNT_REFUSED, bidding, "pat", lambda w: w.put(price=prices(gpu=10**19 - 1))),
    (Code.INSUFFICIENT_FUNDS, bidding, "ann", lambda w: w.create(deposit=10**13)),
    (Code.INSUFFICIENT_FUNDS, bidding, "pat", lambda w: m.PostBond(amount=str(10**13), denomination="ucredit")),
    (Code.INSUFFICIENT_FUNDS, bond_asked, "pat", lambda w: m.WithdrawBond(amount=str(CREDIT + 1), denomination="ucredit")),
    (Code.AMOUNT_REFUSED, bidding, "pat", lambda w: m.PostBond(amount="0", denomination="ucredit")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "given", "who", "message"),
    ROWS,
    ids=[f"{i:02d}-{MarketCode(r[0]).name if r[0] >= 400 else Code(r[0]).name}" for i, r in enumerate(ROWS)],
)
def test_each_code_is_provoked(code: int, given: Callable[[World], None], who: str, message: Callable[[World], Message]) -> None:
    """The message is refused with that code, and the state is as if it had never been sent, but for the sender's account."""
    world = World()
    given(world)
    before = {name: list(world.machine.store.scan(table)) for name, table in market_tables(world)}
    assert world.code(who, message(world)) == code

    assert {name: list(world.machine.store.scan(table)) for name, table in market_tables(world)} == before


def market_tables(world: World) -> list[tuple[str, object]]:
    """The tables of which a refusal changes nothing."""
    names = ("provider", "host", "bid", "device", "deployment", "order", "lease", "attestation", "purse", "meter", "bond")
    return [(name, world.machine.store.tables[name]) for name in names]


def test_two_hosts_do_not_offer_one_device() -> None:
    """A device stands at one host in the whole network until that host's bid is gone."""
    world = World()
    bidding(world)
    world.provider("pol")
    world.ok("pol", m.RegisterHost(host="h1"))
    squat = world.put("pol", bid=offer(device("pat/h1/0")))
    assert world.code("pol", squat) == MarketCode.DEVICE_CLAIMED
    world.ok("pat", m.CancelBid(host="h1", version=1))
    world.ok("pol", squat)


def test_devices_of_a_report_must_be_the_leased_ones() -> None:
    """ReportActive names exactly the devices of the lease."""
    world = World()
    bidding(world)
    world.deploy()
    wrong = m.ReportActive(devices=("0" * 64,), generation=1, images={}, lease=the(world))
    assert world.code("pat", wrong) == MarketCode.DEVICES_MISMATCH
    none = m.ReportActive(devices=(), generation=1, images={}, lease=the(world))
    assert world.code("pat", none) == MarketCode.DEVICES_MISMATCH


def test_counts_are_bounded() -> None:
    """TOO_MANY for a host or a deployment over the parameter; a closed deployment does not count."""
    world = World(max_hosts=1, max_deployments=1)
    bidding(world)
    assert world.code("pat", m.RegisterHost(host="h2")) == MarketCode.TOO_MANY
    world.deploy()
    assert world.code("ann", world.create(dseq=2)) == MarketCode.TOO_MANY
    world.ok("ann", m.CloseDeployment(dseq=1))
    world.ok("ann", world.create(dseq=2))


def test_a_group_is_ended_once() -> None:
    """CloseGroup ends the lease or order of one group; the second time there is nothing to end."""
    world = World()
    bidding(world)
    deployment = world.deploy("ann", group(name="a"), group(name="b"))
    world.ok("ann", m.CloseGroup(dseq=1, gseq=1))
    assert [lease.gseq for lease in world.machine.store.find(world.machine.store.tables["lease"], "live", deployment)] == []
    assert world.code("ann", m.CloseGroup(dseq=1, gseq=1)) == MarketCode.ORDER_NOT_OPEN
    assert world.order(f"{deployment}/2/1").state.value == "open"


def test_no_code_is_forgotten() -> None:
    """Each code stands in a row or a test of this file, and its HTTP status is known."""
    elsewhere = {MarketCode.DEVICE_CLAIMED, MarketCode.DEVICES_MISMATCH, MarketCode.TOO_MANY}
    assert set(MarketCode) == {row[0] for row in ROWS if row[0] >= 400} | elsewhere
    assert set(MARKET_HTTP_STATUS.values()) <= {402, 404, 409}


def test_transactions_are_applied_wholly_or_not_at_all() -> None:
    """A later message that is refused takes the earlier ones with it, matching included."""
    world = World()
    bidding(world)
    receipt = world.send("ann", world.create(), world.create(group(unit(gpu(1))), dseq=2), m.CloseDeployment(dseq=3))

    assert receipt.code == MarketCode.DEPLOYMENT_NOT_FOUND
    assert not world.leases()
    assert not list(world.machine.store.scan(world.machine.store.tables["deployment"]))
