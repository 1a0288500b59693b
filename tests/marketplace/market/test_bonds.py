"""Bonds of providers: what a bid needs, what a fault costs, when money leaves; and the shortest terms of bids."""

from collections.abc import Callable

import msgspec
import pytest

from ledger.machine import escrow
from ledger.machine.accounts import balance
from ledger.machine.bonds import Bond, bond_of
from ledger.machine.machine import Machine
from ledger.protocol.errors import Code
from ledger.protocol.events import BondCut, BondReturned
from ledger.protocol.messages import Deposit, SetParameter, Upgrade, Withdraw
from marketplace.market.module import Market
from marketplace.market.quote import quote
from marketplace.protocol import messages as m
from marketplace.protocol.errors import MarketCode
from marketplace.protocol.events import BidGone, LeaseEnded
from marketplace.protocol.records import LeaseState, OrderState
from tests.marketplace.market.world import ADDRESS, CREDIT, HOUR, World, device, genesis, group, offer, prices, unit

RICH = 10**6 * CREDIT
MINUTE = 60_000
DAY = 24 * HOUR
CUTS = {"bond_cut_activation": 2 * CREDIT, "bond_cut_early": 3 * CREDIT, "bond_cut_silence": 5 * CREDIT}


def bonded(posted: int = 20 * CREDIT, **parameters: int) -> World:
    """A market that asks 10 credits a GPU, and a provider with that bond and a bid of one GPU."""
    world = World(**{"bond_minimum": 10 * CREDIT, **CUTS, **parameters})
    world.provider()
    world.ok("pat", m.PostBond(amount=str(posted), denomination="ucredit"))
    world.host()
    return world


def bond(world: World, denomination: str = "ucredit") -> Bond:
    """Pat's bond."""
    return bond_of(world.machine.store, ADDRESS["pat"], denomination)


def held(world: World, who: str) -> int:
    """How much an actor has gained since the start, in micro-units."""
    return balance(world.machine.store, ADDRESS[who], "ucredit") - RICH


def network(world: World) -> int:
    """What the network's account holds."""
    return balance(world.machine.store, escrow.NETWORK_ACCOUNT, "ucredit")


def ask(amount: int = 20 * CREDIT) -> m.WithdrawBond:
    """A WithdrawBond."""
    return m.WithdrawBond(amount=str(amount), denomination="ucredit")


def test_a_bid_needs_a_bond_for_each_gpu_of_the_provider() -> None:
    """All GPUs that a provider offers in a denomination count, a host without any as one; only a bond in it does."""
    world = bonded()
    world.ok("pat", m.RegisterHost(host="h2"), m.RegisterHost(host="h3"))
    two = offer(device("a"), device("b"))
    assert world.code("pat", world.put(name="h2", bid=two)) == MarketCode.BOND_TOO_SMALL
    receipt = world.send("pat", world.put(name="h2", bid=two, denomination="uother"))
    assert receipt.code == MarketCode.BOND_TOO_SMALL
    assert "20000000 micro-units of uother, 0 are posted" in receipt.detail
    world.ok("pat", world.put(name="h2", bid=offer(device("a"))))
    assert world.code("pat", world.put(name="h3", bid=offer())) == MarketCode.BOND_TOO_SMALL
    # The bid of a host is replaced, not added.
    world.ok("pat", world.put(name="h2", bid=offer(device("b"))))
    world.ok("pat", m.PostBond(amount=str(10 * CREDIT), denomination="ucredit"))
    world.ok("pat", world.put(name="h3", bid=offer()))
    assert held(world, "pat") == -30 * CREDIT


def test_without_a_minimum_nobody_needs_a_bond() -> None:
    """The defaults ask for none, and cut none."""
    world = World()
    world.provider()
    world.host()
    world.deploy()
    world.live_until(world.now + 4 * MINUTE, "pat")
    assert not world.events(BondCut)


def end_unstarted(world: World) -> None:
    """A matched lease whose living provider does not start it."""
    world.deploy()
    world.live_until(world.now + 4 * MINUTE, "pat")


def end_silent(world: World) -> None:
    """An active lease whose host falls silent for good."""
    world.active()
    world.run_until(world.now + 14 * MINUTE)


def end_silent_unstarted(world: World) -> None:
    """A matched lease whose host falls silent."""
    world.deploy()
    world.run_until(world.now + 4 * MINUTE)


def end_failed(world: World) -> None:
    """An active lease that the provider ends because its host failed."""
    world.ok("pat", world.end(world.active(), "host_failed"))


def end_down(world: World) -> None:
    """An active lease that stays down for a fault of the device."""
    world.ok("pat", world.down(world.active(), world.now))
    world.live_until(world.now + 11 * MINUTE, "pat")


def end_policy(world: World) -> None:
    """An active lease that the provider ends by its policy."""
    world.ok("pat", world.end(world.active(), "policy"))


def end_image(world: World) -> None:
    """A lease whose image can not be had."""
    world.deploy()
    world.ok("pat", world.end(world.id_of(world.leases()[0]), "image_failed"))


def end_owner(world: World) -> None:
    """A lease that its tenant ends."""
    world.active()
    world.ok("ann", m.CloseDeployment(dseq=1))


def end_gap(world: World) -> None:
    """A lease that a gap between blocks stops, and its host resumes."""
    world.active()
    world.block(at=world.now + 80 * HOUR)
    world.ok("pat", world.beats("pat"))
    world.ok("ann", m.CloseDeployment(dseq=1))


@pytest.mark.parametrize(
    ("end", "lost"),
    [
        (end_unstarted, CUTS["bond_cut_activation"]),
        (end_silent, CUTS["bond_cut_silence"]),
        (end_silent_unstarted, CUTS["bond_cut_silence"]),
        (end_failed, CUTS["bond_cut_early"]),
        (end_down, CUTS["bond_cut_early"]),
        (end_policy, 0),
        (end_image, 0),
        (end_owner, 0),
        (end_gap, 0),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_what_each_end_costs_the_provider(end: Callable[[World], None], lost: int) -> None:
    """A fault that the ledger sees is cut from the bond, once, and goes to the network; any other end costs nothing."""
    world = bonded()
    end(world)
    assert world.leases()[0].state is LeaseState.CLOSED
    assert (bond(world).balance, bond(world).cut, network(world)) == (20 * CREDIT - lost, lost, lost)
    cuts = [(event.about, event.amount) for event in world.events(BondCut)]
    assert cuts == [(world.id_of(world.leases()[0]), str(lost))] * bool(lost)


def test_a_cut_counts_the_gpus_and_takes_no_more_than_there_is() -> None:
    """A lease of two GPUs costs twice as much; a bond never goes below zero."""
    world = bonded(bond_cut_early=7 * CREDIT)
    world.bid(bid=offer(device("a"), device("b")))
    both = group(*[unit for unit in group().resources for _ in range(2)])
    world.ok("pat", world.end(world.active("ann", both), "host_failed"))
    assert bond(world).balance == 6 * CREDIT
    assert network(world) == 14 * CREDIT
    poor = bonded(bond_cut_early=10**15)
    poor.ok("pat", poor.end(poor.active(), "host_failed"))
    assert (bond(poor).balance, network(poor)) == (0, 20 * CREDIT)


def test_bids_without_enough_bond_leave_the_book() -> None:
    """After a cut that leaves too little, the provider's bids go, its other leases stay; the group is not offered to it again."""
    world = bonded(posted=20 * CREDIT)
    world.bid(bid=offer(device("a"), device("b")))
    first = world.active()
    second = world.active("bob")
    world.ok("pat", world.end(first, "host_failed"), world.released(first))

    assert [event.reason for event in world.events(BidGone)] == ["bond"]
    assert world.lease(second).state is LeaseState.ACTIVE
    assert world.order(f"{ADDRESS['ann']}/1/1/2").state is OrderState.OPEN
    assert world.code("pat", world.put(bid=offer(device("a"), device("b")))) == MarketCode.BOND_TOO_SMALL
    world.ok("pat", world.put(bid=offer(device("a"))))
    world.block()
    assert world.order(f"{ADDRESS['ann']}/1/1/2").state is OrderState.MATCHED


def test_a_raised_minimum_holds_for_bids_from_then_on() -> None:
    """Standing bids stay until they are put anew."""
    world = bonded()
    world.ok("lee", SetParameter(name="bond_minimum", value=21 * CREDIT))
    world.active()
    assert world.code("pat", world.put()) == MarketCode.BOND_TOO_SMALL


def test_a_bond_leaves_after_the_cooling_time() -> None:
    """Asked back when nothing stands on it, it is in the account at the end of the cooling time, to the millisecond."""
    world = bonded()
    world.ok("pat", m.CancelBid(host="h1", version=1))
    world.ok("pat", ask(15 * CREDIT))
    asked = world.now
    world.run_until(asked + DAY - 1)
    assert held(world, "pat") == -20 * CREDIT
    world.block(at=asked + DAY)
    assert held(world, "pat") == -5 * CREDIT
    assert [(event.amount, event.address) for event in world.events(BondReturned)] == [(str(15 * CREDIT), ADDRESS["pat"])]
    assert (bond(world).balance, bond(world).leaving, bond(world).returned) == (5 * CREDIT, 0, 15 * CREDIT)


def test_a_bond_waits_for_the_last_bid_and_lease() -> None:
    """While a bid or an open lease is left it stays, and can be cut; it leaves in the block in which the last one goes."""
    world = bonded(bond_cooling_ms=MINUTE)
    first, second = world.active(), world.deploy("bob")
    assert not world.leases(second)
    world.ok("pat", ask())
    assert world.code("pat", world.put()) == MarketCode.BOND_TOO_SMALL
    world.live_until(world.now + 5 * MINUTE, "pat")
    assert bond(world).leaving == 20 * CREDIT
    world.ok("pat", m.CancelBid(host="h1", version=1))
    world.live_until(world.now + 5 * MINUTE, "pat")
    assert bond(world).balance == 20 * CREDIT
    world.ok("pat", world.end(first, "host_failed"))

    assert (bond(world).balance, bond(world).cut, bond(world).returned) == (0, 3 * CREDIT, 17 * CREDIT)
    assert held(world, "pat") == -3 * CREDIT + int(world.events(LeaseEnded)[0].paid)


def test_asking_again_replaces_what_was_asked() -> None:
    """A second asking starts the cooling time anew; asking for nothing ends it, and the bond counts for bids again."""
    world = bonded()
    world.ok("pat", ask(), at=world.now + HOUR)
    assert world.code("pat", world.put()) == MarketCode.BOND_TOO_SMALL
    world.ok("pat", ask(0))
    assert (bond(world).leaving, bond(world).leaves_ms) == (0, 0)
    world.ok("pat", world.put())
    world.ok("pat", m.CancelBid(host="h1", version=2))
    world.ok("pat", ask(1))
    world.ok("pat", ask(2), at=world.now + DAY - 1)
    world.run_until(world.now + HOUR)
    assert bond(world).leaving == 2
    world.run_until(world.now + DAY)
    assert bond(world).returned == 2


def test_a_part_leaves_while_leases_are_open() -> None:
    """What stays covers the bids and the dearest cut of the open leases: the rest leaves at the end of the cooling time."""
    world = bonded(posted=25 * CREDIT, bond_cooling_ms=MINUTE)
    id = world.active()
    world.ok("pat", ask(15 * CREDIT))
    asked = world.now
    world.live_until(asked + MINUTE - 1, "pat")
    assert bond(world).balance == 25 * CREDIT
    world.live_until(asked + MINUTE, "pat")
    assert (bond(world).balance, bond(world).returned, held(world, "pat")) == (10 * CREDIT, 15 * CREDIT, -10 * CREDIT)
    assert world.lease(id).state is LeaseState.ACTIVE
    world.ok("pat", ask(1))
    world.live_until(world.now + 2 * MINUTE, "pat")
    assert bond(world).balance == 10 * CREDIT


def bid_shrinks(world: World) -> None:
    """The provider offers one GPU less; the leased one goes on."""
    world.bid(bid=offer(device("pat/h1/0")))


def bond_grows(world: World) -> None:
    """The provider adds what is missing."""
    world.ok("pat", m.PostBond(amount=str(10 * CREDIT), denomination="ucredit"))


def bid_goes(world: World) -> None:
    """The provider offers nothing more; its lease goes on."""
    world.ok("pat", m.CancelBid(host="h1", version=2))


@pytest.mark.parametrize("mend", [bid_shrinks, bond_grows, bid_goes])
def test_a_part_waits_until_what_stays_is_enough(mend: Callable[[World], None]) -> None:
    """Two GPUs on offer hold 20; ten more leave whole, in the block in which they are not needed any more."""
    world = bonded(posted=25 * CREDIT, bond_cooling_ms=MINUTE)
    world.bid(bid=offer(device("pat/h1/0"), device("pat/h1/1")))
    world.active()
    world.ok("pat", ask(10 * CREDIT))
    world.live_until(world.now + 5 * MINUTE, "pat")
    assert not world.events(BondReturned)
    mend(world)
    assert [event.amount for event in world.events(BondReturned)] == [str(10 * CREDIT)]


@pytest.mark.parametrize(("gpus", "price"), [(1, 5), (2, 10), (0, 5)])
def test_an_open_lease_holds_its_dearest_cut(gpus: int, price: int) -> None:
    """Also where no minimum is asked, or the bid has gone: what a fault could still cost can not be taken away before."""
    world = bonded(bond_cooling_ms=MINUTE, bond_minimum=0)
    devices = [device(f"d{i}") for i in range(2)]
    world.bid(bid=offer(*devices))
    units = [unit for unit in group().resources for _ in range(gpus)] or [unit()]
    id = world.active("ann", group(*units))
    world.ok("pat", m.CancelBid(host="h1", version=2))
    world.ok("pat", ask((20 - price) * CREDIT + 1))
    world.live_until(world.now + 5 * MINUTE, "pat")
    assert not world.events(BondReturned)
    world.ok("pat", ask((20 - price) * CREDIT))
    world.live_until(world.now + 5 * MINUTE, "pat")
    assert bond(world).balance == price * CREDIT
    world.run_until(world.now + 14 * MINUTE)
    assert (world.lease(id).reason, bond(world).balance, bond(world).cut) == ("silence", 0, price * CREDIT)


def test_only_leases_in_its_money_hold_a_bond() -> None:
    """A lease that is paid in another denomination holds nothing of this one."""
    world = bonded(bond_cooling_ms=MINUTE, bond_minimum=0)
    world.active()
    world.ok("pat", m.PostBond(amount=str(CREDIT), denomination="uother"))
    world.ok("pat", m.WithdrawBond(amount=str(CREDIT), denomination="uother"))
    world.live_until(world.now + 2 * MINUTE, "pat")
    assert bond(world, "uother").balance == 0


def test_under_protocol_1_a_part_waits_like_the_whole() -> None:
    """The older rules: any bid or open lease holds all of the bond."""
    fields = {**CUTS, "bond_minimum": 10 * CREDIT, "bond_cooling_ms": MINUTE}
    world = World(Machine(msgspec.structs.replace(genesis(**fields), protocol=1), [Market()]))
    world.provider()
    world.ok("pat", m.PostBond(amount=str(25 * CREDIT), denomination="ucredit"))
    world.host()
    world.ok("pat", ask(CREDIT))
    world.live_until(world.now + 5 * MINUTE, "pat")
    world.bid()
    assert not world.events(BondReturned)
    world.ok("lee", Upgrade(height=world.machine.head.height + 2, protocol=2))
    world.bid()
    assert [event.amount for event in world.events(BondReturned)] == [str(CREDIT)]


# The shortest terms of bids


def termed(**parameters: int) -> World:
    """A provider whose bid at 2 credits an hour is for ten hours at least."""
    world = World(**parameters)
    world.provider()
    world.host(min_duration_ms=10 * HOUR)
    return world


LONG = group(duration_ms=10 * HOUR)


def test_a_shortest_term_is_only_for_who_asks_for_it() -> None:
    """A group that does not say that it runs that long does not take the bid, and is told what would help."""
    world = termed()
    deployment = world.deploy("ann", group(duration_ms=10 * HOUR - 1))
    order = world.order(f"{deployment}/1/1")
    assert order.refusals == {"duration": 1}
    assert "leases for at least 10h, 35999999ms accepted: accept 10h" in order.nearest
    assert world.leases(world.deploy("bob", LONG))


def test_a_purse_must_hold_the_shortest_term() -> None:
    """An order waits until its purse can pay for the shortest term; a deposit lets it match in the same block."""
    world = termed()
    deployment = world.deploy("ann", LONG, deposit=20 * CREDIT - 1)
    order = world.order(f"{deployment}/1/1")
    assert order.refusals == {"funds": 1}
    assert "its shortest duration costs 20000000 micro-units, 19999999 are free in the purse: deposit to it" in order.nearest
    world.ok("bob", Deposit(amount="1", purse=deployment))
    assert world.leases(deployment)


def test_ending_early_costs_the_rest_of_the_term() -> None:
    """The tenant can not withdraw what the term will cost, and pays it whole where he ends an active lease before."""
    world = termed()
    id = world.active("ann", LONG)
    world.live_until(world.now + HOUR, "pat")
    assert world.code("ann", Withdraw(amount=str(80 * CREDIT + 1), purse=f"{ADDRESS['ann']}/1")) == Code.INSUFFICIENT_FUNDS
    world.ok("ann", Withdraw(amount=str(80 * CREDIT), purse=f"{ADDRESS['ann']}/1"))
    world.ok("ann", m.CloseGroup(dseq=1, gseq=1))
    assert (held(world, "pat"), world.lease(id).reason) == (20 * CREDIT, "owner")
    assert [event.paid for event in world.events(LeaseEnded)] == [str(20 * CREDIT)]
    world.ok("ann", m.CloseDeployment(dseq=1))
    assert held(world, "ann") == -20 * CREDIT


@pytest.mark.parametrize("down", [False, True], ids=["never-started", "down"])
def test_nothing_is_owed_for_what_the_provider_does_not_give(down: bool) -> None:
    """A lease that was never started, or is down, is ended without owing the rest of its term."""
    world = termed()
    (lease,) = world.leases(world.deploy("ann", LONG))
    paid = 0
    if down:
        id = world.start(lease)
        world.ok("pat", world.down(id, world.now + 1_000))
        paid = 2 * CREDIT * 1_000 // HOUR
    world.ok("ann", m.CloseDeployment(dseq=1))
    assert held(world, "pat") == paid


def test_a_dearer_bid_without_a_term_serves_a_poor_purse() -> None:
    """Funds decide bid by bid: what can not pay the cheap bid's term takes the dearer one without."""
    world = termed()
    world.provider("pol")
    world.host("pol", "h9", price=prices(gpu=3 * CREDIT))
    (lease,) = world.leases(world.deploy("ann", LONG, deposit=10 * CREDIT))
    assert lease.provider == ADDRESS["pol"]


@pytest.mark.parametrize(("bound_ms", "fits"), [(10 * HOUR, True), (10 * HOUR - 1, False), (0, False)])
def test_a_group_says_what_it_lets_itself_be_bound_to(bound_ms: int, fits: bool) -> None:
    """What a group needs and what it is bound to are two things: to need a day is no promise to pay for it."""
    world = termed()
    deployment = world.deploy("ann", group(duration_ms=24 * HOUR, bound_ms=bound_ms))
    assert bool(world.leases(deployment)) == fits
    order = world.order(f"{deployment}/1/1")
    assert order.refusals == ({} if fits else {"duration": 1})
    assert fits or "leases for at least 10h, " in order.nearest
    (quoted,) = quote(world.machine.store, (group(bound_ms=bound_ms),), "ucredit", world.now)
    assert quoted.refusals == ({"gpu": 1} if fits else {"duration": 1})


def test_a_longest_duration_must_reach_what_is_needed() -> None:
    """A bid that ends leases sooner does not fit, whatever the group accepts; the quote of one that fits tells the terms."""
    world = World()
    world.provider()
    world.host(max_duration_ms=10 * HOUR, min_duration_ms=HOUR, hold_per_hour="7")
    deployment = world.deploy("ann", group(duration_ms=10 * HOUR + 1, bound_ms=HOUR))
    assert world.order(f"{deployment}/1/1").refusals == {"duration": 1}
    assert "leases for at most 10h, 36000001ms needed: shorten that" in world.order(f"{deployment}/1/1").nearest
    (quoted,) = quote(world.machine.store, (group(duration_ms=10 * HOUR, bound_ms=HOUR),), "ucredit", world.now)
    assert (quoted.least_ms, quoted.most_ms, quoted.hold_per_hour) == (HOUR, 10 * HOUR, "7")
