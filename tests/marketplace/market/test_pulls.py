"""Long pulls: what the time beyond the free part costs, to whom it goes, and when a pull is over."""

from collections.abc import Callable

import msgspec
import pytest

from ledger.machine import escrow
from ledger.machine.accounts import balance
from ledger.machine.held import HELD
from ledger.machine.machine import Machine
from ledger.protocol.errors import Code
from ledger.protocol.messages import Deposit, SetParameter, Settle, Upgrade, Withdraw
from marketplace.market import pulls
from marketplace.market.module import Market
from marketplace.protocol import messages as m
from marketplace.protocol.errors import MarketCode
from marketplace.protocol.events import LeaseChanged, LeaseEnded
from marketplace.protocol.records import LeaseState, OrderState
from tests.marketplace.market.world import ADDRESS, CREDIT, HOUR, World, device, genesis, group, offer

RICH = 10**6 * CREDIT
MINUTE = 60_000
FREE = 2 * MINUTE
HOLD = 1_234_567
"""Of the hold of the bid, micro-units an hour; the lease costs 2 credits."""


def pulling(deposit: int = 100 * CREDIT, **parameters: int) -> tuple[World, str]:
    """A lease whose provider has just reported that it pulls its image."""
    world = World(**parameters)
    world.provider()
    world.host(hold_per_hour=str(HOLD))
    (lease,) = world.leases(world.deploy(deposit=deposit))
    world.ok("pat", m.ReportPulling(generation=1, lease=world.id_of(lease)))
    return world, world.id_of(lease)


def held(world: World, who: str) -> int:
    """How much an actor has gained since the start, in micro-units."""
    return balance(world.machine.store, ADDRESS[who], "ucredit") - RICH


def cost(ms: int, rate: int = HOLD) -> int:
    """The closed form."""
    return rate * ms // HOUR


def left(world: World) -> int:
    """What is left in the purse, with what waits."""
    return world.purse(f"{ADDRESS['ann']}/1").balance + sum(found.amount for found in world.machine.store.scan(HELD))


def test_a_pull_within_the_free_time_costs_nothing() -> None:
    """A lease that is active by the end of the free time pays for its own time alone."""
    world, id = pulling()
    assert [(e.state, e.reason) for e in world.events(LeaseChanged)] == [("matched", "pulling")]
    world.ok("pat", world.report(id), at=world.now + FREE)
    started = world.now
    world.ok("ann", m.CloseDeployment(dseq=1), at=started + MINUTE)
    assert held(world, "pat") == cost(MINUTE, 2 * CREDIT)
    assert held(world, "ann") == -held(world, "pat")


@pytest.mark.parametrize("stop_at", [1, 7, 59_999, MINUTE, 13 * MINUTE + 1])
@pytest.mark.parametrize("take_ppm", [0, 10_000])
def test_the_time_beyond_is_billed_at_the_hold_rate(stop_at: int, take_ppm: int) -> None:
    """From the free time's end to ReportActive, to the millisecond, the provider gets the hold rate less the network's part."""
    world, id = pulling(take_rate_ppm=take_ppm)
    began = world.now
    world.live_until(began + FREE + stop_at - 1, "pat")
    world.ok("pat", world.report(id), at=began + FREE + stop_at)
    due = cost(stop_at)
    assert held(world, "pat") == due - due * take_ppm // 10**6
    world.ok("ann", m.CloseDeployment(dseq=1), at=world.now + 1_000)

    whole = due + cost(1_000, 2 * CREDIT)
    assert held(world, "ann") == -whole
    paid = due - due * take_ppm // 10**6 + cost(1_000, 2 * CREDIT) - cost(1_000, 2 * CREDIT) * take_ppm // 10**6
    assert held(world, "pat") == paid == int(world.events(LeaseEnded)[0].paid)
    assert world.lease(id).pulling_ms == 0


def test_a_tenant_who_ends_it_pays_what_it_came_to() -> None:
    """Closing while the image is pulled costs the hold until then, and no shortest term."""
    world, id = pulling()
    began = world.now
    world.live_until(began + 9 * MINUTE, "pat")
    assert held(world, "pat") == 0
    world.ok("ann", m.CloseGroup(dseq=1, gseq=1), at=began + 10 * MINUTE)
    assert held(world, "pat") == cost(8 * MINUTE) == int(world.events(LeaseEnded)[0].paid)
    assert world.lease(id).reason == "owner"


def never_ready(world: World, id: str) -> None:
    """The pull lasts beyond its deadline."""
    began = world.lease(id).pulling_ms
    world.live_until(began + 30 * MINUTE - 1, "pat")
    assert world.lease(id).state is LeaseState.MATCHED
    world.live_until(began + 30 * MINUTE, "pat")
    assert (world.lease(id).reason, world.lease(id).closed_ms) == ("not_activated", began + 30 * MINUTE)
    assert world.orders(f"{ADDRESS['ann']}/1")[-1].state is OrderState.CLOSED


def gives_up(reason: str) -> Callable[[World, str], None]:
    """The provider ends the lease after ten minutes."""

    def end(world: World, id: str) -> None:
        world.live_until(world.now + 10 * MINUTE, "pat")
        world.ok("pat", world.end(id, reason))

    return end


def goes_silent(world: World, id: str) -> None:
    """The host falls silent in the pull, for good."""
    world.live_until(world.now + 10 * MINUTE, "pat")
    world.run_until(world.now + 30 * MINUTE)
    assert world.lease(id).reason == "silence"


@pytest.mark.parametrize(
    "fails",
    [never_ready, goes_silent, *[gives_up(reason) for reason in ("image_failed", "start_failed", "policy", "host_failed")]],
    ids=["never_ready", "goes_silent", "image_failed", "start_failed", "policy", "host_failed"],
)
def test_a_pull_that_comes_to_nothing_costs_nothing(fails: Callable[[World, str], None]) -> None:
    """Whatever the provider or the ledger ends the lease for, all that was held goes back to the deposits."""
    world, id = pulling()
    fails(world, id)
    assert world.lease(id).state is LeaseState.CLOSED
    assert left(world) == 100 * CREDIT
    world.ok("ann", m.CloseDeployment(dseq=1))
    assert (held(world, "ann"), held(world, "pat")) == (0, 0)
    assert [event.paid for event in world.events(LeaseEnded)] == ["0"]


def test_what_accrues_can_not_be_withdrawn_nor_settled_away() -> None:
    """The tenant cannot take out what the hold came to; the provider gets nothing of it before the pull is over, even asking."""
    world, id = pulling(backdate_ms=0)
    began = world.now
    world.live_until(began + 10 * MINUTE, "pat")
    due = cost(8 * MINUTE + 1_000)
    purse = f"{ADDRESS['ann']}/1"
    assert world.code("ann", Withdraw(amount=str(100 * CREDIT - due + 1), purse=purse)) == Code.INSUFFICIENT_FUNDS
    world.ok("pat", Settle(purse=purse))
    assert held(world, "pat") == 0
    world.ok("pat", world.end(id, "image_failed"))
    assert left(world) == 100 * CREDIT


def test_a_purse_that_runs_dry_in_a_pull_stops_it_there() -> None:
    """The hold ends at the instant at which the money does; what it came to is paid, and a new generation pulls anew."""
    world, id = pulling(deposit=200_000)
    began = world.now
    most = (200_001 * HOUR - 1) // HOLD
    world.live_until(began + FREE + most - 1, "pat")
    assert world.lease(id).state is LeaseState.MATCHED
    world.live_until(began + FREE + most, "pat")
    assert (world.lease(id).state, world.lease(id).pulling_ms) == (LeaseState.PAUSED, 0)
    assert held(world, "pat") == 200_000

    world.ok("bob", Deposit(amount=str(CREDIT), purse=f"{ADDRESS['ann']}/1"))
    assert world.lease(id).state is LeaseState.MATCHED
    assert world.code("pat", m.ReportPulling(generation=1, lease=id)) == MarketCode.GENERATION_MISMATCH
    world.ok("pat", m.ReportPulling(generation=2, lease=id))
    again = world.now
    world.live_until(again + FREE + MINUTE, "pat")
    world.ok("pat", world.end(id, "image_failed"))
    assert held(world, "pat") == 200_000
    world.ok("ann", m.CloseDeployment(dseq=1))
    assert held(world, "bob") == 0


def test_two_generations_of_pulls_are_one_closed_form() -> None:
    """A lease that was active, paused and pulled again pays both holds, rounded once."""
    world, id = pulling(deposit=CREDIT)
    world.live_until(world.now + FREE + MINUTE + 7, "pat")
    world.ok("pat", world.report(id))
    first = cost(MINUTE + 7 + 1_000)
    world.live_until(world.now + HOUR, "pat")
    assert world.lease(id).state is LeaseState.PAUSED
    world.ok("ann", Deposit(amount=str(CREDIT), purse=f"{ADDRESS['ann']}/1"))
    world.ok("pat", m.ReportPulling(generation=2, lease=id))
    again = world.now
    world.live_until(again + FREE + MINUTE + 4, "pat")
    world.ok("pat", world.report(id))
    hold = world.machine.store.get(escrow.METERS, pulls.hold_of(id))
    assert hold is not None
    assert (hold.paid, hold.up_ms) == (cost(2 * (MINUTE + 1_000) + 11), 2 * (MINUTE + 1_000) + 11)
    assert hold.paid >= first


def test_silence_ends_the_hold_at_the_last_beat() -> None:
    """A host that falls silent and comes back may still make the lease active, for the hold up to its last sign of life."""
    world, id = pulling()
    began = world.now
    world.live_until(began + 5 * MINUTE, "pat")
    world.run_until(began + 8 * MINUTE)
    assert world.host_of().silent
    world.live_until(began + 20 * MINUTE, "pat")
    world.ok("pat", world.report(id))
    assert held(world, "pat") == cost(3 * MINUTE)


@pytest.mark.parametrize("before", [MINUTE, 4 * MINUTE], ids=["in-the-free-time", "after-it"])
def test_a_gap_between_blocks_is_not_billed(before: int) -> None:
    """Time in which the chain stood still is no hold; after it the pull has all of its time again."""
    world, id = pulling()
    began = world.now
    world.live_until(began + before, "pat")
    world.block(at=world.now + 80 * HOUR)
    resumed = world.now
    world.live_until(resumed + 29 * MINUTE, "pat")
    assert world.lease(id).state is LeaseState.MATCHED
    world.ok("pat", world.report(id))
    assert held(world, "pat") == cost(max(0, before - FREE) + 29 * MINUTE + 1_000)


def test_a_pull_is_reported_once_of_a_matched_lease() -> None:
    """Twice, of a running lease, by another, or with a lost manifest after it, it is refused."""
    world, id = pulling()
    again = m.ReportPulling(generation=1, lease=id)
    assert world.code("pat", again) == MarketCode.REPORT_REFUSED
    assert world.code("pol", again) == Code.NOT_AUTHORISED
    assert world.code("pat", world.end(id, "manifest_missing")) == MarketCode.REPORT_REFUSED
    world.ok("pat", world.report(id))
    assert world.code("pat", again) == MarketCode.REPORT_REFUSED


def test_without_a_report_or_a_hold_nothing_changes() -> None:
    """A bid without a hold rate costs nothing in a pull; a lease whose pull nobody reported ends as before."""
    world = World()
    world.provider()
    world.host(bid=offer(device("a"), device("b")))
    first, second = world.leases(world.deploy("ann", group(name="a"), group(name="b")))
    world.ok("pat", m.ReportPulling(generation=1, lease=world.id_of(first)))
    began = world.now
    world.live_until(began + 20 * MINUTE, "pat")
    assert world.lease(world.id_of(second)).reason == "not_activated"
    world.ok("pat", world.report(world.id_of(first)))
    assert held(world, "pat") == 0


def test_older_rules_know_none_of_it() -> None:
    """Under protocol 1 the report, the field and the parameters are unknown and leave no trace; from an upgrade on they hold."""
    world = World(Machine(msgspec.structs.replace(genesis(), protocol=1), [Market()]))
    world.provider()
    world.host(hold_per_hour=str(HOLD))
    (lease,) = world.leases(world.deploy())
    report = m.ReportPulling(generation=1, lease=world.id_of(lease))
    bound = world.create(group(bound_ms=HOUR), dseq=2)
    assert world.code("pat", report) == Code.UNKNOWN_MESSAGE
    assert world.code("ann", bound) == Code.UNKNOWN_MESSAGE
    assert world.code("lee", SetParameter(name="pull_free_ms", value=1)) == Code.PARAMETER_REFUSED
    world.ok("lee", Upgrade(height=world.machine.head.height + 2, protocol=2))
    world.ok("pat", report)
    world.ok("ann", bound)
    world.ok("lee", SetParameter(name="pull_free_ms", value=1))
