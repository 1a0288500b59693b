"""Leases from match to release, and what goes wrong between."""

import pytest

from ledger.machine import escrow
from ledger.machine.accounts import balance
from ledger.protocol.messages import Deposit
from marketplace.market.matching import DRY
from marketplace.protocol import messages as m
from marketplace.protocol.events import DeploymentEnded, LeaseChanged, LeaseEnded, OrderEnded, OrderOpened
from marketplace.protocol.records import DeviceState, LeaseState, OrderState
from tests.marketplace.market.world import ADDRESS, CREDIT, HOUR, START, World, device, group, offer, prices

RICH = 10**6 * CREDIT
MINUTE = 60_000


def market(**parameters: int) -> World:
    """One provider with one host of one H100 at 2 credits an hour."""
    world = World(**parameters)
    world.provider()
    world.host()
    return world


def held(world: World, who: str) -> int:
    """How much an actor has gained since the start, in micro-units."""
    return balance(world.machine.store, ADDRESS[who], "ucredit") - RICH


def test_from_bid_to_paid_lease() -> None:
    """An order takes the bid in its own block, is metered from ReportActive on, and closing pays and refunds to the unit."""
    world = market()
    deployment = world.deploy()
    lease = world.leases(deployment)[0]
    assert (lease.state, lease.rate_per_hour, lease.generation) == (LeaseState.MATCHED, 2 * CREDIT, 1)
    assert world.order(f"{deployment}/1/1").state is OrderState.MATCHED

    id = world.start(lease)
    world.live_until(world.now + HOUR + HOUR // 2 - 1_000, "pat")
    world.ok("ann", m.CloseDeployment(dseq=1))

    assert world.lease(id).state is LeaseState.CLOSED
    assert (held(world, "pat"), held(world, "ann")) == (3 * CREDIT, -3 * CREDIT)
    assert [event.paid for event in world.events(LeaseEnded)] == [str(3 * CREDIT)]
    assert [event.reason for event in world.events(DeploymentEnded)] == ["owner"]


def test_capacity_is_free_only_after_release() -> None:
    """A closed lease holds its device until the provider's clean Release; an order that waits then takes it."""
    world = market()
    id = world.active()
    waiting = world.deploy("bob")
    world.ok("ann", m.CloseDeployment(dseq=1))
    assert not world.leases(waiting)

    world.ok("pat", world.released(id))
    lease = world.leases(waiting)[0]
    assert lease.devices == world.lease(id).devices
    assert world.lease(id).released


def test_unclean_release_cordons_the_devices() -> None:
    """Devices of an unclean release serve nobody until the same lease is released clean."""
    world = market()
    id = world.active()
    waiting = world.deploy("bob")
    world.ok("pat", world.end(id))
    world.ok("pat", world.released(id, clean=False))
    (claim,) = world.claims()
    assert (claim.state, claim.lease) == (DeviceState.CORDONED, id)
    world.bid()
    assert not world.leases(waiting)

    world.ok("pat", world.released(id))
    assert world.leases(waiting)


def test_amending_below_what_is_leased_is_allowed() -> None:
    """A bid may shrink under its leases: free capacity floors at 0, the lease goes on, its device is nobody else's."""
    world = market()
    id = world.active()
    world.bid(bid=offer(cpu_milli=500))
    world.deploy("bob", group(*[], limit=CREDIT * 9))
    assert world.lease(id).state is LeaseState.ACTIVE
    assert not world.leases(f"{ADDRESS['bob']}/1")

    world.ok("ann", m.CloseDeployment(dseq=1))
    world.ok("pat", world.released(id))
    assert not world.claims()


def test_cancelled_bid_leaves_its_leases_alone() -> None:
    """CancelBid takes the offer away, not the lease; the lease's claim stays until it is released."""
    world = market()
    id = world.active()
    world.ok("pat", m.CancelBid(host="h1", version=1))
    world.live_until(world.now + HOUR, "pat")

    assert world.lease(id).state is LeaseState.ACTIVE
    assert [claim.lease for claim in world.claims()] == [id]


def test_price_changes_do_not_reach_running_leases() -> None:
    """A dearer bid changes what the next order pays, never what a lease pays."""
    world = market()
    id = world.active()
    world.bid(price=prices(gpu=9 * CREDIT))

    assert world.lease(id).rate_per_hour == 2 * CREDIT


@pytest.mark.parametrize(
    ("reason", "again"),
    [
        ("policy", True),
        ("host_failed", True),
        ("manifest_missing", False),
        ("manifest_refused", False),
        ("image_failed", False),
        ("start_failed", False),
    ],
)
def test_who_caused_the_end_decides_what_becomes_of_the_order(reason: str, again: bool) -> None:
    """After a host's fault the group is offered again as oseq + 1, not to the same bid; after a tenant's its order is over."""
    world = market()
    deployment = world.deploy()
    (lease,) = world.leases(deployment)
    world.ok("pat", world.end(world.id_of(lease), reason))
    world.ok("pat", world.released(world.id_of(lease)))

    assert [(order.oseq, order.state) for order in world.orders(deployment)] == [(1, OrderState.CLOSED)] + [
        (2, OrderState.OPEN)
    ] * again
    assert world.lease(world.id_of(lease)).reason == reason
    if again:
        assert world.order(f"{deployment}/1/2").refusals == {"avoided": 1}
        world.bid()
        assert world.leases(deployment)[-1].oseq == 2


def test_missing_manifest_costs_the_tenant_the_hold() -> None:
    """The bid's hold rate, never over the lease's rate, for the time held; paid to the network, not to the provider."""
    world = World()
    world.provider()
    world.host(hold_per_hour=str(50 * CREDIT))
    deployment = world.deploy()
    (lease,) = world.leases(deployment)
    matched = world.now
    world.run_until(matched + MINUTE - 1_000)
    world.ok("pat", world.end(world.id_of(lease), "manifest_missing"))
    world.ok("ann", m.CloseDeployment(dseq=1))

    assert held(world, "ann") == -(2 * CREDIT * MINUTE // HOUR)
    assert held(world, "pat") == 0
    assert balance(world.machine.store, escrow.NETWORK_ACCOUNT, "ucredit") == 2 * CREDIT * MINUTE // HOUR


def test_not_activated_ends_the_group() -> None:
    """A matched lease that its living provider does not start in time is closed, unpaid, and its order with it."""
    world = market()
    deployment = world.deploy()
    world.live_until(world.now + 4 * MINUTE, "pat")

    (lease,) = world.leases(deployment)
    assert (lease.state, lease.reason) == (LeaseState.CLOSED, "not_activated")
    assert [order.state for order in world.orders(deployment)] == [OrderState.CLOSED]
    assert held(world, "pat") == 0


def test_down_stops_the_meter_where_the_host_says() -> None:
    """ReportDown is backdated, but never before the last start; ReportUp goes on from its own block."""
    world = market()
    id = world.active()
    started = world.now
    world.live_until(started + 10 * MINUTE, "pat")
    world.ok("pat", world.down(id, started + 5 * MINUTE))
    assert (world.lease(id).state, world.lease(id).since_ms) == (LeaseState.DOWN, started + 5 * MINUTE)
    world.ok("pat", world.up(id))
    again = world.now
    world.ok("pat", world.down(id, 0))
    assert world.lease(id).since_ms == again
    world.ok("pat", world.up(id), at=world.now + 2 * MINUTE)
    last = world.now
    world.ok("pat", world.down(id, 10**15), at=last + 2 * MINUTE)
    world.ok("ann", m.CloseDeployment(dseq=1))

    assert held(world, "pat") == 2 * CREDIT * 7 * MINUTE // HOUR
    assert world.lease(id).since_ms == world.now


def test_down_for_too_long_moves_the_group_on() -> None:
    """A lease that stays down is closed with the reason of its host, and the group is matched elsewhere."""
    world = market()
    id = world.active()
    world.provider("pol")
    world.host("pol", "h9")
    down = world.now
    world.ok("pat", world.down(id, down))
    world.live_until(down + 11 * MINUTE, "pat", "pol")

    assert (world.lease(id).state, world.lease(id).reason) == (LeaseState.CLOSED, "xid")
    first, second = world.leases(f"{ADDRESS['ann']}/1")
    assert (first.oseq, second.oseq, second.provider) == (1, 2, ADDRESS["pol"])


def test_silent_host_is_not_paid_past_its_last_beat() -> None:
    """Silence stops the meter back to the last beat, takes the bid out of the match, then closes and reopens."""
    world = market()
    id = world.active()
    started = world.now
    world.live_until(started + 5 * MINUTE, "pat")
    world.run_until(started + 8 * MINUTE)

    lease = world.lease(id)
    assert (lease.state, lease.reason, lease.since_ms) == (LeaseState.DOWN, "silence", started + 5 * MINUTE)
    assert world.host_of().silent
    waiting = world.deploy("bob")
    assert world.orders(waiting)[0].refusals == {"silent": 1}

    world.run_until(started + 16 * MINUTE)
    assert (world.lease(id).state, world.lease(id).reason) == (LeaseState.CLOSED, "silence")
    assert held(world, "pat") == 2 * CREDIT * 5 * MINUTE // HOUR
    assert world.order(f"{ADDRESS['ann']}/1/1/2").state is OrderState.OPEN


def test_silent_host_comes_back_with_its_lease() -> None:
    """A beat puts the bid back into the book; the lease goes on only by ReportUp, unbilled for the silence."""
    world = market()
    id = world.active()
    started = world.now
    world.run_until(started + 4 * MINUTE)
    world.ok("pat", world.beats("pat"))
    assert not world.host_of().silent
    assert world.lease(id).state is LeaseState.DOWN
    world.ok("pat", world.up(id))
    world.live_until(world.now + MINUTE - 1_000, "pat")
    world.ok("ann", m.CloseDeployment(dseq=1))

    assert held(world, "pat") == 2 * CREDIT * MINUTE // HOUR


def test_silent_host_that_never_started_is_no_fault_of_the_tenant() -> None:
    """Not activated by a host that fell silent: the order goes on as the next one."""
    world = market()
    deployment = world.deploy()
    world.run_until(world.now + 4 * MINUTE)

    assert world.leases(deployment)[0].reason == "silence"
    assert [order.state for order in world.orders(deployment)] == [OrderState.CLOSED, OrderState.OPEN]


def test_a_gap_between_blocks_blames_nobody() -> None:
    """Meters stop at the last block before the gap; after it every host gets the whole limit anew before it is judged."""
    world = market()
    id = world.active()
    started = world.now
    matched = world.deploy("bob", group(limit=CREDIT))
    world.live_until(started + 2 * MINUTE, "pat")
    stopped = world.now
    world.block(at=stopped + 80 * HOUR)
    resumed = world.now

    lease = world.lease(id)
    assert (lease.state, lease.reason, lease.since_ms) == (LeaseState.DOWN, "gap", stopped)
    assert not world.host_of().silent
    world.run_until(resumed + MINUTE)
    assert not world.host_of().silent
    world.ok("pat", world.beats("pat"))
    assert world.lease(id).state is LeaseState.ACTIVE
    world.live_until(world.now + MINUTE - 1_000, "pat")
    world.ok("ann", m.CloseDeployment(dseq=1))
    assert held(world, "pat") == 2 * CREDIT * 3 * MINUTE // HOUR
    assert world.orders(matched)[0].state is OrderState.OPEN


def test_a_host_that_is_still_away_after_a_gap_is_judged_then() -> None:
    """The limit counts from the first block after the gap, for silence, activation and closing alike."""
    world = market()
    id = world.active()
    world.block(at=world.now + HOUR)
    resumed = world.now
    world.run_until(resumed + 149_000)
    assert not world.host_of().silent
    world.run_until(resumed + 151_000)
    assert world.host_of().silent
    assert (world.lease(id).state, world.lease(id).reason) == (LeaseState.DOWN, "silence")
    world.run_until(resumed + 10 * MINUTE + 1_000)
    assert world.lease(id).state is LeaseState.CLOSED


def test_overdrawn_runs_free_not() -> None:
    """A dry purse stops its leases to the millisecond, pauses them, and ends the deployment after the grace; no other's."""
    world = market()
    world.bid(bid=offer(device("a"), device("b")))
    poor = world.active(deposit=CREDIT)
    started = world.now
    rich = world.active("bob")
    world.live_until(started + 31 * MINUTE, "pat")

    lease = world.lease(poor)
    assert (lease.state, lease.generation) == (LeaseState.PAUSED, 1)
    assert held(world, "pat") == CREDIT
    assert world.lease(rich).state is LeaseState.ACTIVE
    assert world.code("pat", world.up(poor)) == 503
    world.live_until(started + 92 * MINUTE, "pat")
    assert world.deployment(f"{ADDRESS['ann']}/1").reason == "insufficient_funds"
    assert (world.lease(poor).state, world.lease(poor).reason) == (LeaseState.CLOSED, "insufficient_funds")
    assert held(world, "ann") == -CREDIT
    assert world.lease(rich).state is LeaseState.ACTIVE


def test_a_deposit_resumes_at_the_next_generation() -> None:
    """Funded again, a paused lease is matched anew; reports of the older generation are refused."""
    world = market()
    id = world.active(deposit=CREDIT)
    started = world.now
    world.live_until(started + 31 * MINUTE, "pat")
    world.ok("ann", Deposit(amount=str(CREDIT), purse=f"{ADDRESS['ann']}/1"))

    lease = world.lease(id)
    assert (lease.state, lease.generation) == (LeaseState.MATCHED, 2)
    assert world.code("pat", world.report(id, generation=1)) == 502
    assert world.code("pat", m.CloseLease(generation=1, lease=id, reason="policy")) == 502
    world.ok("pat", world.report(id))
    world.live_until(world.now + 15 * MINUTE - 1_000, "pat")
    world.ok("ann", m.CloseDeployment(dseq=1))
    assert held(world, "pat") == CREDIT + CREDIT // 2
    assert [event.state for event in world.events(LeaseChanged)] == ["active", "paused", "matched", "active"]


def test_an_order_waits_while_its_purse_is_dry() -> None:
    """An order that a host's fault reopened does not match on a dry purse, and does as soon as it is funded."""
    world = market()
    world.bid(bid=offer(device("a"), device("b")))
    deployment = world.deploy("ann", group(name="a"), group(name="b"), deposit=CREDIT)
    first, second = [world.start(lease) for lease in world.leases(deployment)]
    world.live_until(world.now + 10 * MINUTE, "pat")
    world.ok("pat", world.end(second), world.released(second))
    world.live_until(world.now + 20 * MINUTE, "pat")
    assert world.lease(first).state is LeaseState.PAUSED
    world.bid()
    order = world.order(f"{deployment}/2/2")
    assert (order.state, order.nearest) == (OrderState.OPEN, DRY)
    world.ok("bob", Deposit(amount=str(CREDIT), purse=deployment))

    assert world.order(f"{deployment}/2/2").state is OrderState.MATCHED
    assert world.lease(first).generation == 2


def test_term_of_a_bid_ends_its_lease() -> None:
    """A bid's longest duration ends a lease, and the group is offered again; a group that asks for longer does not match."""
    world = World()
    world.provider()
    world.host(max_duration_ms=HOUR)
    id = world.active()
    picky = world.deploy("bob", group(duration_ms=2 * HOUR))
    assert world.orders(picky)[0].refusals == {"duration": 1}
    world.live_until(world.now + HOUR, "pat")

    assert (world.lease(id).state, world.lease(id).reason) == (LeaseState.CLOSED, "term_over")
    assert world.order(f"{ADDRESS['ann']}/1/1/2").state is OrderState.OPEN


def test_a_bid_expires_and_an_order_meets_its_deadline() -> None:
    """Both happen at their own time, to the millisecond of block time, with nothing held afterwards."""
    world = World()
    world.provider()
    world.host()
    world.bid(expires_ms=START + HOUR)
    deployment = world.deploy("ann", group(limit=CREDIT, deadline_ms=START + 2 * HOUR))
    world.live_until(START + HOUR - 1_000, "pat")
    assert world.claims()
    world.run_until(START + HOUR)
    assert not world.claims()
    assert world.code("pat", m.CancelBid(host="h1", version=2)) == 402
    world.live_until(START + 2 * HOUR + MINUTE, "pat")

    order = world.orders(deployment)[0]
    assert (order.state, order.reason, order.closed_ms) == (OrderState.CLOSED, "deadline", START + 2 * HOUR)
    world.ok("ann", m.CloseDeployment(dseq=1))
    assert held(world, "ann") == 0


def test_losing_bid_stays_open_not() -> None:
    """What did not win holds nothing: the losing bid's devices stay free, a closed order's money is all back."""
    world = market()
    world.provider("pol")
    world.host("pol", "h9", price=prices(gpu=3 * CREDIT))
    world.active()
    assert [claim.state for claim in world.claims()].count(DeviceState.FREE) == 1
    world.deploy("bob", group(limit=CREDIT))
    world.ok("bob", m.CloseGroup(dseq=1, gseq=1))
    assert [event.reason for event in world.events(OrderEnded)] == ["owner"]
    world.ok("bob", m.CloseDeployment(dseq=1))

    assert held(world, "bob") == 0


def test_orphan_after_close_not() -> None:
    """Closing a deployment ends every lease and order of it in that block, whatever their states."""
    world = market()
    world.bid(bid=offer(*(device(f"d{i}") for i in range(3))))
    groups = [group(name=f"g{i}") for i in range(3)] + [group(name="waits", limit=CREDIT)]
    deployment = world.deploy("ann", *groups)
    first, second, _ = (world.id_of(lease) for lease in world.leases(deployment))
    world.ok("pat", world.report(first))
    world.ok("pat", world.report(second))
    world.ok("pat", world.down(second, world.now))
    world.ok("ann", m.CloseDeployment(dseq=1))

    assert {lease.state for lease in world.leases(deployment)} == {LeaseState.CLOSED}
    assert {order.state for order in world.orders(deployment)} == {OrderState.CLOSED}
    assert len(world.events(OrderOpened)) == 4


def test_wrong_close_reason_not() -> None:
    """A lease keeps the reason of its first end: nothing that comes later rewrites it."""
    world = market()
    id = world.active()
    world.ok("pat", world.end(id, "host_failed"))
    assert world.code("pat", world.end(id, "policy")) == 501
    world.ok("ann", m.CloseDeployment(dseq=1))

    assert (world.lease(id).reason, world.lease(id).detail) == ("host_failed", "because of host_failed")
    assert [(event.reason, event.detail) for event in world.events(LeaseEnded)] == [("host_failed", "because of host_failed")]
