"""Escrow by examples: to the millisecond, to the micro-unit."""

import pytest

from ledger.machine import escrow
from ledger.machine.accounts import NETWORK_ACCOUNT
from ledger.machine.context import Context
from ledger.machine.purse import METERS, PURSES, dry_instant
from ledger.protocol import events
from ledger.protocol.errors import Code
from ledger.protocol.genesis import Allocation
from ledger.protocol.messages import Deposit, SetParameter, Withdraw
from tests.ledger.machine.chain import ADA, BOB, CAT, CREDIT, GOVERNOR, START, Chain, refused

HOUR = 3_600_000
T0 = START + 1000


def running(*rates: int, deposit: int = 1000, **parameters: int) -> Chain:
    """A chain on which Ada's purse `p` has meters m0, m1 … of Bob's running since T0."""
    chain = Chain(parameters=parameters)

    def begin(ctx: Context) -> None:
        escrow.open_purse(ctx, "p", ADA.address, CREDIT, deposit)
        for i, rate in enumerate(rates):
            escrow.add_meter(ctx, f"m{i}", "p", BOB.address, rate)
            escrow.start_meter(ctx, f"m{i}")

    chain.act(begin, at=T0)
    return chain


def finish(ctx: Context) -> None:
    """Close every meter, then the purse."""
    purse = ctx.store.get(PURSES, "p")
    assert purse is not None
    for id in purse.meters:
        escrow.close_meter(ctx, id)
    escrow.close_purse(ctx, "p")


def paid(chain: Chain, meter: str) -> int:
    """What left the purse for a meter."""
    record = chain.machine.store.get(METERS, meter)
    assert record is not None
    return record.paid


# Akash's own cases: funds, rates a block, blocks; what Akash pays and has left; what we pay and have left, a block
# being an hour. Where the money ends, Akash pays its first payment in key order in full and goes below zero by what is
# missing; here both stop when the money does, paid alike, and nothing is ever negative.
AKASH = [
    (100, (1, 2), 5, (5, 10), 85, (5, 10), 85),
    (100, (10, 10), 5, (50, 50), 0, (50, 50), 0),
    (100, (10, 10), 6, (60, 40), -20, (50, 50), 0),
    (100, (1, 2), 5, (5, 10), 85, (5, 10), 85),
    (200, (10, 10), 5, (50, 50), 100, (50, 50), 100),
    (200, (10, 10), 6, (60, 60), 80, (60, 60), 80),
    (200, (10, 10), 10, (100, 100), 0, (100, 100), 0),
    (200, (10, 10), 11, (110, 90), -20, (100, 100), 0),
]


def akash(funds: int, rates: tuple[int, ...], blocks: int) -> tuple[tuple[int, ...], int]:
    """Akash's settlement: payments in key order, each as far as there are funds; the missing part makes them negative."""
    paid, missing = [], 0
    for rate in rates:
        due = rate * blocks
        taken = min(due, funds)
        funds -= taken
        missing += due - taken
        paid.append(taken)
    return tuple(paid), funds - missing


@pytest.mark.parametrize(("funds", "rates", "hours", "theirs", "their_rest", "ours", "our_rest"), AKASH)
def test_akash_cases(
    funds: int, rates: tuple[int, ...], hours: int, theirs: tuple[int, ...], their_rest: int, ours: tuple[int, ...], our_rest: int
) -> None:
    """Payments and remainder are Akash's where it has the money for them; where it has not, nobody is paid from nothing."""
    assert akash(funds, rates, hours) == (theirs, their_rest)
    chain = running(*rates, deposit=funds)
    before = chain.balance(ADA)
    chain.act(finish, at=T0 + hours * HOUR)
    assert tuple(paid(chain, f"m{i}") for i in range(len(rates))) == ours
    assert chain.balance(ADA) - before == our_rest
    assert (ours, our_rest) == (theirs, their_rest) or their_rest < 0 == our_rest
    chain.machine.invariants()


def test_dry_to_the_millisecond() -> None:
    """The purse runs dry at the last millisecond it pays for, whenever the block comes; warning and grace are exact too."""
    chain = running(3_600_000, deposit=5_000_000)
    dry = T0 + 5_000_000  # 1 micro-unit a ms: the 5,000,000th ms is paid, the next would not be
    view = escrow.purse_view(chain.machine.store, "p", T0 + 10)
    assert (view.accrued, view.free, view.dry_at_ms) == (10, 4_999_990, dry)
    assert chain.machine.next_due() == T0 + HOUR  # the hourly payout comes first
    result = chain.block(at=dry + 40_000)
    assert chain.probe.heard == [("p", "warning", dry - 600_000), ("p", "dry", dry)]
    assert paid(chain, "m0") == 5_000_000
    assert events.PurseDry(grace_until_ms=dry + HOUR, owner=ADA.address, purse="p") in result.begin_events
    assert escrow.purse_view(chain.machine.store, "p", chain.now).state == "dry"
    chain.block(at=dry + HOUR)
    assert chain.probe.heard[-1] == ("p", "grace_over", dry + HOUR)
    chain.machine.invariants()


def test_dry_with_several_remainders() -> None:
    """With several meters the dry instant is the last ms at which the sum of rounded costs fits, by trying each."""
    chain = running(1_999_999, 700_001, 3, deposit=97)
    meters = list(chain.machine.store.scan(METERS))
    dry = dry_instant(97, meters)
    costs = [sum(m.rate_per_hour * (t - T0) // HOUR for m in meters) for t in range(T0, T0 + 2000)]
    assert dry == T0 + max(i for i, cost in enumerate(costs) if cost <= 97)
    chain.block(at=T0 + 2000)
    assert chain.probe.heard[-1] == ("p", "dry", dry)
    chain.machine.invariants()


def test_deposit_revives_a_dry_purse() -> None:
    """A deposit makes a dry purse open, cancels the end of its grace, and tells the modules, who start meters again."""
    chain = running(3_600_000, deposit=1000)
    chain.probe.on_funded = lambda ctx, purse: escrow.start_meter(ctx, "m0")
    chain.block(at=T0 + 5000)
    receipt = chain.ok(CAT, Deposit(amount="500", purse="p"), at=T0 + 9000)
    assert any(isinstance(event, events.PurseFunded) for event in receipt.events)
    chain.block(at=T0 + 2 * HOUR)
    times = [(what, at - T0) for _, what, at in chain.probe.heard if what != "warning"]
    # Dry again 500 ms after the deposit; that grace ends an hour later, the first one never did.
    assert times == [("dry", 1000), ("funded", 9000), ("dry", 9500), ("grace_over", 9500 + HOUR)]
    assert paid(chain, "m0") == 1500
    chain.machine.invariants()


def test_warning_comes_once_for_each_end() -> None:
    """A purse that is short from the start is warned of once; a deposit that moves the end away arms the warning again."""
    chain = running(3_600_000, deposit=1000)
    chain.block(at=T0 + 1)
    chain.ok(ADA, Deposit(amount="10", purse="p"), at=T0 + 2)
    chain.ok(ADA, Deposit(amount="10", purse="p"), at=T0 + 3)
    assert [what for _, what, _ in chain.probe.heard] == ["warning"]
    chain.ok(ADA, Deposit(amount=str(2 * 600_000), purse="p"), at=T0 + 4)
    chain.block(at=T0 + 600_000 + 1020)
    assert [what for _, what, _ in chain.probe.heard] == ["warning", "warning"]


def test_refunds_go_back_in_deposit_order() -> None:
    """Costs eat the oldest deposit first; what is left of each goes to its depositor, the oldest first."""
    chain = running(3_600_000, deposit=100)
    chain.ok(CAT, Deposit(amount="50", purse="p"), at=T0 + 1)
    chain.ok(BOB, Deposit(amount="50", purse="p"), at=T0 + 2)
    result = chain.act(finish, at=T0 + 120)
    back = [event for event in result.end_events if isinstance(event, events.Refunded)]
    assert [(event.depositor, event.amount) for event in back] == [(CAT.address, "30"), (BOB.address, "50")]
    assert chain.balance(ADA) == 10**12 - 100
    chain.machine.invariants()


def test_withdraw_what_is_free() -> None:
    """A depositor takes back what is his and not owed; dues count against the oldest deposit; the end comes sooner."""
    chain = running(3_600_000, deposit=100)
    chain.ok(CAT, Deposit(amount="50", purse="p"), at=T0 + 10)
    assert chain.send(ADA, Withdraw(amount="81", purse="p"), at=T0 + 20).code == Code.INSUFFICIENT_FUNDS
    chain.ok(ADA, Withdraw(amount="79", purse="p"), at=T0 + 21)
    assert chain.send(CAT, Withdraw(amount="50", purse="p"), at=T0 + 22).code == Code.INSUFFICIENT_FUNDS
    assert escrow.purse_view(chain.machine.store, "p", chain.now).dry_at_ms == T0 + 71
    chain.act(finish, at=T0 + 500)
    assert paid(chain, "m0") == 71
    assert chain.balance(ADA) == 10**12 - 21
    assert chain.balance(CAT) == 10**12 - 50
    chain.machine.invariants()


def test_backdated_stop() -> None:
    """A stop may lie in the past, back to the last start, and moves the dry instant; it is never in the future."""
    chain = running(3_600_000, deposit=10_000)
    chain.act(lambda ctx: escrow.stop_meter(ctx, "m0", T0 + 30), at=T0 + 100)
    assert paid(chain, "m0") == 30
    chain.act(lambda ctx: escrow.start_meter(ctx, "m0"), at=T0 + 200)
    chain.act(lambda ctx: escrow.stop_meter(ctx, "m0", T0), at=T0 + 300)
    assert paid(chain, "m0") == 30
    chain.act(lambda ctx: escrow.start_meter(ctx, "m0"), at=T0 + 400)
    chain.act(lambda ctx: escrow.stop_meter(ctx, "m0", T0 + 9000), at=T0 + 450)
    assert paid(chain, "m0") == 80
    assert escrow.total_cost(chain.machine.store, "m0", T0 + 9000) == 80
    chain.machine.invariants()


def test_gap_between_blocks() -> None:
    """At a block's beginning, long after a purse ran dry, a backdated stop of one meter lets the other run on to its own end."""
    chain = running(3_600_000, 3_600_000, deposit=1000)
    chain.probe.first.append(lambda ctx: escrow.stop_meter(ctx, "m0", T0 + 200))
    chain.block(at=T0 + 50_000)
    assert (paid(chain, "m0"), paid(chain, "m1")) == (200, 800)
    assert chain.probe.heard[-1] == ("p", "dry", T0 + 800)
    chain.machine.invariants()


def test_gap_with_everything_overdue() -> None:
    """At a block's beginning a stop without a time counts to the dry instant, not to block time."""
    chain = running(3_600_000, deposit=1000)
    chain.probe.first.append(lambda ctx: escrow.stop_meter(ctx, "m0"))
    chain.block(at=T0 + 50_000)
    assert paid(chain, "m0") == 1000
    chain.machine.invariants()


def test_nothing_starts_after_the_end() -> None:
    """At a block's beginning, past the dry instant of a purse that was not told yet, no meter of it starts."""
    chain = running(3_600_000, deposit=1000)
    chain.act(lambda ctx: escrow.add_meter(ctx, "late", "p", BOB.address, 1))
    out: list[int] = []
    chain.probe.first.append(lambda ctx: out.append(refused(escrow.start_meter, ctx, "late")))
    chain.block(at=T0 + 50_000)
    assert out == [Code.PURSE_LOCKED]
    chain.machine.invariants()


def test_payout_waits_until_a_report_can_not_take_it_back() -> None:
    """The hourly payout pays running meters for what is older than `backdate_ms`, and a later stop reaches back no further."""
    chain = running(3_600_000, deposit=10 * HOUR, backdate_ms=HOUR)
    chain.block(at=T0 + HOUR)
    assert paid(chain, "m0") == 0
    chain.block(at=T0 + 3 * HOUR)
    assert paid(chain, "m0") == 2 * HOUR
    chain.act(lambda ctx: escrow.stop_meter(ctx, "m0", T0), at=T0 + 3 * HOUR + 5)
    assert paid(chain, "m0") == 2 * HOUR + 5
    chain.machine.invariants()


def test_settling_every_millisecond_loses_nothing() -> None:
    """At 0.9 units a ms, a payee who is paid every ms has as much as one who is paid once: 90 after 100 ms."""
    chain = running(3_240_000, 3_240_000, deposit=10_000, backdate_ms=0)
    for step in range(1, 100):
        chain.act(lambda ctx: escrow.settle(ctx, "p"), at=T0 + step)
    chain.act(finish, at=T0 + 100)
    assert (paid(chain, "m0"), paid(chain, "m1")) == (90, 90)
    chain.machine.invariants()


def test_take_rate_is_a_closed_form() -> None:
    """The fee is rounded down over the whole of a meter's payments, however many there were."""
    chain = running(3_600_000, deposit=1000, take_rate_ppm=15_000)
    for step in range(1, 11):
        chain.act(lambda ctx: escrow.stop_meter(ctx, "m0"), lambda ctx: escrow.start_meter(ctx, "m0"), at=T0 + 37 * step)
    out: list[int] = []
    chain.act(lambda ctx: out.append(escrow.close_meter(ctx, "m0")), lambda ctx: escrow.close_purse(ctx, "p"))
    assert paid(chain, "m0") == 371
    assert chain.balance(NETWORK_ACCOUNT) == 371 * 15_000 // 1_000_000
    assert out == [371 - chain.balance(NETWORK_ACCOUNT)]
    assert chain.balance(BOB) == 10**12 + out[0]
    chain.machine.invariants()


def test_charge_takes_at_most_what_is_free() -> None:
    """A single charge is cut down to what is not owed already."""
    chain = running(3_600_000, deposit=100)
    out: list[int] = []
    chain.act(lambda ctx: out.append(escrow.charge(ctx, "p", CAT.address, 30)), at=T0 + 50)
    chain.act(lambda ctx: out.append(escrow.charge(ctx, "p", CAT.address, 30)), at=T0 + 51)
    assert out == [30, 19]
    assert chain.balance(CAT) == 10**12 + 49
    chain.act(finish, at=T0 + 60)
    assert paid(chain, "m0") == 51
    chain.machine.invariants()


def test_a_meter_needs_an_open_purse() -> None:
    """Meters are not added to closed purses nor started in dry ones; a running one is not started twice."""
    chain = running(3_600_000, deposit=10)
    out: list[int] = []
    chain.act(lambda ctx: escrow.start_meter(ctx, "m0"), at=T0 + 5)
    chain.act(lambda ctx: out.append(refused(escrow.start_meter, ctx, "m0")), at=T0 + 50)
    assert paid(chain, "m0") == 10
    chain.act(finish)
    for call in (
        lambda ctx: escrow.add_meter(ctx, "m9", "p", BOB.address, 1),
        lambda ctx: escrow.start_meter(ctx, "m0"),
        lambda ctx: escrow.charge(ctx, "p", BOB.address, 1),
        lambda ctx: escrow.close_purse(ctx, "p"),
    ):
        chain.act(lambda ctx, call=call: out.append(refused(call, ctx)))
    assert out == [Code.PURSE_LOCKED] + [Code.PURSE_CLOSED] * 4


def test_totals_do_not_outgrow_an_amount() -> None:
    """Depositing and withdrawing in turns is refused before a purse's totals leave what an amount can hold."""
    whole = 2**62
    allocation = (Allocation(address=ADA.address, amount=str(whole), denomination=CREDIT),)
    chain = Chain(allocations=allocation)
    chain.act(lambda ctx: escrow.open_purse(ctx, "p", ADA.address, CREDIT, whole))
    chain.ok(ADA, Withdraw(amount=str(whole - 1), purse="p"))
    assert chain.send(ADA, Deposit(amount=str(whole - 1), purse="p")).code == Code.OK
    chain.ok(ADA, Withdraw(amount=str(whole - 1), purse="p"))
    assert chain.send(ADA, Deposit(amount=str(whole - 1), purse="p")).code == Code.AMOUNT_REFUSED
    out: list[int] = []
    chain.act(lambda ctx: out.append(refused(escrow.add_meter, ctx, "m", "p", "gpu1nobody", 1)))
    assert out == [Code.ADDRESS_REFUSED]
    chain.machine.invariants()


def test_the_owner_is_never_locked_out() -> None:
    """Strangers can fill the list of deposits; the owner still tops up, into a deposit he has."""
    chain = running(3_600_000, deposit=1000, purse_max_deposits=2)
    chain.ok(BOB, Deposit(amount="1", purse="p"))
    chain.ok(ADA, Deposit(amount="5", purse="p"))
    chain.ok(BOB, Deposit(amount="1", purse="p"))
    purse = chain.machine.store.get(PURSES, "p")
    assert purse is not None
    assert purse.deposits == ((ADA.address, 1005), (BOB.address, 2))


def test_parameters_hold_from_then_on() -> None:
    """A meter keeps the take rate it was added under."""
    chain = running(3_600_000, deposit=1000)
    chain.ok(GOVERNOR, SetParameter(name="take_rate_ppm", value=500_000))
    chain.act(finish, at=T0 + 100)
    assert chain.balance(NETWORK_ACCOUNT) == 0
