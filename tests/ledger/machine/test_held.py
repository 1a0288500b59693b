"""Earnings held back for a refund, shortest terms and reserves: by examples, and against models that move single coins."""

from dataclasses import dataclass, field
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.machine import escrow
from ledger.machine.accounts import NETWORK_ACCOUNT
from ledger.machine.context import Context
from ledger.machine.held import HELD
from ledger.machine.purse import METERS, PURSES
from ledger.protocol import events
from ledger.protocol.errors import Code
from ledger.protocol.messages import Deposit, SetParameter, Settle, Withdraw
from tests.ledger.machine.chain import ADA, BOB, CAT, CREDIT, GOVERNOR, START, Chain, User

HOUR = 3_600_000
T0 = START + 1000
PAYEE = User("payee")
PEOPLE = {"ada": ADA, "bob": BOB, "cat": CAT}
PAID = (("ada", 60), ("bob", 90), ("cat", 6_000))
"""The first deposits: two are used up soon, the last one never."""


def rented(rate: int = HOUR, least_ms: int = 0, **parameters: int) -> Chain:
    """A chain on which Ada's purse `p` has a stopped meter `m` of the payee."""
    chain = Chain(parameters={"backdate_ms": 0, **parameters})

    def begin(ctx: Context) -> None:
        escrow.open_purse(ctx, "p", ADA.address, CREDIT, PAID[0][1])
        escrow.add_meter(ctx, "m", "p", PAYEE.address, rate, least_ms)

    chain.act(begin, at=T0 - 2)
    deposits = [chain.sign(PEOPLE[who], Deposit(amount=str(amount), purse="p")) for who, amount in PAID[1:]]
    assert all(receipt.ok for receipt in chain.block(*deposits, at=T0 - 1).receipts)
    return chain


def start(ctx: Context) -> None:
    """Start the meter."""
    escrow.start_meter(ctx, "m")


def finish(ctx: Context) -> None:
    """Close the meter, then the purse."""
    escrow.close_meter(ctx, "m")
    escrow.close_purse(ctx, "p")


@dataclass
class Coins:
    """A purse as a row of coins, each with its depositor's name; a hold as another. Knows no formula but a meter's cost."""

    rate: int
    purse: list[str] = field(default_factory=lambda: [who for who, amount in PAID for _ in range(amount)])
    hold: list[str] = field(default_factory=list)
    most: int = 0
    until: int = 0
    payee: int = 0
    ever: int = 0
    up: int = 0
    since: int = 0
    refunded: int = 0

    def pay(self, now: int) -> None:
        """Move coins for the time until now: the last of them into the hold, as far as it wants some."""
        cost = self.rate * (self.up + (now - self.since if self.since else 0)) // HOUR
        due, self.ever = cost - self.ever, cost
        coins, self.purse = self.purse[:due], self.purse[due:]
        kept = min(due, self.most - len(self.hold))
        self.payee += due - kept
        self.hold += coins[due - kept :]

    def tick(self, now: int) -> None:
        """What is held goes to the payee at its time."""
        if self.until and now >= self.until:
            self.payee += len(self.hold)
            self.hold, self.most, self.until = [], 0, 0

    def stop(self, now: int) -> None:
        """Pay and stand still."""
        if self.since:
            self.pay(now)
            self.up, self.since = self.up + now - self.since, 0

    def refund(self, amount: int) -> None:
        """The coin that came last goes back first, to the front of the row."""
        for _ in range(min(amount, len(self.hold))):
            self.purse.insert(0, self.hold.pop())
            self.most -= 1
            self.refunded += 1


STEP = st.one_of(
    st.tuples(st.sampled_from(["start", "start", "stop", "settle"]), st.just(0)),
    st.tuples(st.just("hold"), st.integers(1, 200)),
    st.tuples(st.just("refund"), st.integers(1, 200)),
)
SCHEDULE = st.lists(st.tuples(st.integers(1, 40), STEP), min_size=1, max_size=16)


def act(ctx: Context, what: str, value: int) -> None:
    """A step on the real ledger."""
    if what == "start":
        start(ctx)
    elif what == "stop":
        escrow.stop_meter(ctx, "m")
    elif what == "settle":
        escrow.settle(ctx, "p")
    elif what == "hold":
        escrow.hold_back(ctx, "m", value, ctx.time + 3 * value)
    else:
        escrow.refund_held(ctx, "m", value)


@settings(max_examples=100)
@given(st.integers(0, 9 * HOUR), SCHEDULE, st.sampled_from([0, 15_000, 500_000]), st.booleans())
def test_held_earnings_equal_single_coins(
    rate: int, schedule: list[tuple[int, tuple[str, int]]], take: int, close_first: bool
) -> None:
    """Whatever is held, refunded and released when: payee, network and each depositor have what the coins say."""
    chain, model = rented(rate, take_rate_ppm=take), Coins(rate)
    for wait, (what, value) in schedule:
        now = chain.now + wait
        model.tick(now)
        if what == "start":
            model.since = model.since or now
        elif what == "stop":
            model.stop(now)
        elif what == "settle" and model.since:
            model.pay(now)
        elif what == "hold":
            model.most, model.until = max(model.most, value), max(model.until, now + 3 * value)
        elif what == "refund":
            model.refund(value)
        chain.act(lambda ctx, what=what, value=value: act(ctx, what, value), at=now)
        chain.machine.invariants()
        purse = chain.machine.store.get(PURSES, "p")
        assert purse is not None
        row = [(PEOPLE[who].address, len(list(coins))) for who, coins in groupby(model.purse)]
        assert list(purse.deposits) == row

    model.tick(chain.now + 1)
    model.stop(chain.now + 1)
    model.refund(7)
    steps = [finish, lambda ctx: escrow.refund_held(ctx, "m", 7)]
    if not close_first:
        steps = [lambda ctx: escrow.stop_meter(ctx, "m"), steps[1], finish]
    chain.act(*steps)
    model.tick(chain.now + HOUR)
    chain.block(at=chain.now + HOUR)
    chain.machine.invariants()
    for name, user in PEOPLE.items():
        assert chain.balance(user) == 10**12 - dict(PAID)[name] + model.purse.count(name), name
    fee = model.payee * take // 1_000_000
    assert (chain.balance(PAYEE), chain.balance(NETWORK_ACCOUNT)) == (model.payee - fee, fee)
    assert model.payee == model.ever - model.refunded
    assert not chain.machine.store.count(HELD)


def test_a_slice_waits_and_goes_back() -> None:
    """What a stop pays is held back up to the amount named; a refund within the time fills the purse, the rest is paid then."""
    chain = rented()
    chain.act(start, at=T0 + 10)
    chain.act(lambda ctx: escrow.hold_back(ctx, "m", 40, T0 + 500), at=T0 + 100)
    result = chain.act(lambda ctx: escrow.stop_meter(ctx, "m"), at=T0 + 110)
    assert [e.amount for e in result.end_events if isinstance(e, events.EarningsHeld)] == ["40"]
    assert chain.balance(PAYEE) == 60
    out: list[int] = []
    chain.act(lambda ctx: out.append(escrow.refund_held(ctx, "m", 25)), lambda ctx: out.append(escrow.refund_held(ctx, "m", 99)))
    assert out == [25, 15]
    purse = chain.machine.store.get(PURSES, "p")
    assert purse is not None
    # All of Ada's deposit and 40 of Bob's were spent last: Bob has them back.
    assert purse.deposits == ((BOB.address, 90), (CAT.address, 6_000))
    assert (purse.balance, purse.paid) == (6_090, 60)
    chain.block(at=T0 + 600)
    assert chain.balance(PAYEE) == 60
    chain.machine.invariants()


def test_what_is_held_outlives_its_purse() -> None:
    """After the purse closed, a refund goes to the depositors themselves; what is not refunded is the payee's at its time."""
    chain = rented()
    chain.act(start, lambda ctx: escrow.hold_back(ctx, "m", 50, T0 + 10_000), at=T0 + 1)
    chain.act(finish, at=T0 + 101)
    assert chain.balance(PAYEE) == 50
    before = chain.balance(BOB)
    chain.act(lambda ctx: escrow.refund_held(ctx, "m", 30))
    # 100 were spent: Ada's 60, then 40 of Bob's; 10 of hers and those 40 were held.
    assert chain.balance(BOB) == before + 30
    owner = chain.balance(ADA)
    chain.act(lambda ctx: escrow.refund_held(ctx, "m", 15))
    assert (chain.balance(BOB), chain.balance(ADA)) == (before + 40, owner + 5)
    chain.block(at=T0 + 9_999)
    assert chain.balance(PAYEE) == 50
    chain.block(at=T0 + 10_000)
    assert chain.balance(PAYEE) == 55
    chain.machine.invariants()


def test_a_release_before_its_time() -> None:
    """A module may let go of what is held at once; there is nothing to release twice, nor to refund then."""
    chain = rented()
    chain.act(start, lambda ctx: escrow.hold_back(ctx, "m", 50, T0 + 10_000), at=T0 + 1)
    out: list[int] = []
    chain.act(
        lambda ctx: escrow.stop_meter(ctx, "m"),
        lambda ctx: escrow.release_held(ctx, "m"),
        lambda ctx: escrow.release_held(ctx, "m"),
        lambda ctx: out.append(escrow.refund_held(ctx, "m", 1)),
        at=T0 + 101,
    )
    assert (chain.balance(PAYEE), out) == (100, [0])
    assert not chain.machine.store.count(HELD)
    chain.machine.invariants()


def test_a_refund_does_not_revive_a_dry_purse() -> None:
    """What comes back to a dry purse stays there for its depositors: nobody starts the workload again by a refund."""
    chain = rented()
    chain.act(start, lambda ctx: escrow.hold_back(ctx, "m", 50, T0 + HOUR), at=T0)
    chain.block(at=T0 + 6_151)
    view = escrow.purse_view(chain.machine.store, "p", chain.now)
    assert (view.state, view.balance) == ("dry", 0)
    chain.act(lambda ctx: escrow.refund_held(ctx, "m", 50))
    assert escrow.purse_view(chain.machine.store, "p", chain.now).state == "dry"
    before = chain.balance(CAT)
    chain.act(finish)
    assert chain.balance(CAT) == before + 50
    chain.machine.invariants()


def test_settle_on_demand() -> None:
    """A payee or the owner has the purse pay now what is final; nobody else, and a report can still take back the rest."""
    chain = rented(backdate_ms=50)
    chain.ok(ADA, Deposit(amount="1", purse="p"))
    chain.act(start, at=T0 + 10)
    payee = chain.balance(PAYEE)
    chain.act(lambda ctx: escrow.charge(ctx, "p", PAYEE.address, 1), at=T0 + 11)  # opens the payee's account
    assert chain.send(CAT, Settle(purse="p"), at=T0 + 100).code == Code.NOT_AUTHORISED
    chain.ok(PAYEE, Settle(purse="p"), at=T0 + 110)
    assert chain.balance(PAYEE) == payee + 1 + 50
    chain.ok(ADA, Settle(purse="p"), at=T0 + 111)
    assert chain.balance(PAYEE) == payee + 1 + 51
    chain.act(lambda ctx: escrow.stop_meter(ctx, "m", T0 + 80), at=T0 + 120)
    assert chain.balance(PAYEE) == payee + 1 + 70
    assert chain.send(PAYEE, Settle(purse="q")).code == Code.PURSE_NOT_FOUND
    chain.act(finish)
    assert chain.send(PAYEE, Settle(purse="p")).code == Code.PURSE_CLOSED
    chain.machine.invariants()


def test_the_shortest_term_is_owed() -> None:
    """What is left of a promised term can not be withdrawn; who ends it early pays the rest, who does not owes nothing more."""
    chain = rented(least_ms=1000)
    chain.act(start, at=T0)
    chain.block(at=T0 + 100)
    view = escrow.purse_view(chain.machine.store, "p", chain.now)
    assert (view.balance, view.accrued, view.dues, view.reserve, view.free) == (6_150, 100, 900, 0, 5_150)
    assert chain.send(CAT, Withdraw(amount="5151", purse="p")).code == Code.INSUFFICIENT_FUNDS
    chain.ok(CAT, Withdraw(amount="5150", purse="p"))
    out: list[int] = []
    chain.act(lambda ctx: out.append(escrow.close_meter(ctx, "m", early=True)), lambda ctx: escrow.close_purse(ctx, "p"))
    assert (out, chain.balance(PAYEE)) == ([1000], 1000)
    assert chain.balance(CAT) == 10**12 - 6_000 + 5_150
    chain.machine.invariants()


@pytest.mark.parametrize(("early", "ran", "paid"), [(True, 1500, 1500), (False, 300, 300)], ids=["term-over", "payees-fault"])
def test_nothing_is_owed_after_the_term_or_by_anothers_fault(early: bool, ran: int, paid: int) -> None:
    """After the term, or where the owner did not end it, only the time that ran is paid."""
    chain = rented(least_ms=1000)
    chain.act(start, at=T0)
    chain.act(lambda ctx: escrow.close_meter(ctx, "m", early=early), at=T0 + ran)
    assert chain.balance(PAYEE) == paid
    assert escrow.purse_view(chain.machine.store, "p", chain.now).dues == 0
    chain.machine.invariants()


@settings(max_examples=50)
@given(
    st.integers(1, 9 * HOUR), st.integers(1, 9 * HOUR), st.integers(0, 300), st.integers(0, 100), st.integers(0, 200),
    st.integers(1, 4000),
)  # fmt: skip
def test_what_is_free_leaves_enough(rate: int, other: int, least: int, reserve: int, ran: int, deposit: int) -> None:
    """After all that is free was withdrawn, the purse still lasts for the reserve, and for the rest of the shortest term."""
    chain = Chain(parameters={"backdate_ms": 0, "purse_reserve_ms": reserve})

    def begin(ctx: Context) -> None:
        escrow.open_purse(ctx, "p", ADA.address, CREDIT, deposit)
        for name, each, least_ms in (("m", rate, least), ("n", other, 0)):
            escrow.add_meter(ctx, name, "p", PAYEE.address, each, least_ms)
            escrow.start_meter(ctx, name)

    chain.act(begin, at=T0)
    chain.block(at=T0 + ran + 1)
    now = chain.now + 1
    view = escrow.purse_view(chain.machine.store, "p", now)
    if view.state == "dry" or not view.free:
        return
    # By walking: what the term has yet to cost, ms by ms, and what both meters cost in the reserve's time.
    up = now - T0
    assert view.dues == sum(rate * (t + 1) // HOUR - rate * t // HOUR for t in range(up, max(least, up)))
    ahead = range(up, up + reserve)
    assert view.reserve == sum(each * (t + 1) // HOUR - each * t // HOUR for t in ahead for each in (rate, other))
    assert view.balance == view.accrued + view.dues + view.reserve + view.free
    assert chain.send(ADA, Withdraw(amount=str(view.free + 1), purse="p"), at=now).code == Code.INSUFFICIENT_FUNDS
    at = chain.now + 1
    left = escrow.purse_view(chain.machine.store, "p", at)
    if not left.free:
        return
    chain.ok(ADA, Withdraw(amount=str(left.free), purse="p"), at=at)
    after = escrow.purse_view(chain.machine.store, "p", at)
    assert after.free == 0
    assert (after.dry_at_ms or at) >= at + reserve
    chain.machine.invariants()


def test_the_reserve_is_governed() -> None:
    """The reserve is what running meters cost for the parameter's time; stopped ones need none."""
    chain = rented(rate=HOUR + 1)
    chain.ok(GOVERNOR, SetParameter(name="purse_reserve_ms", value=1000))
    assert escrow.purse_view(chain.machine.store, "p", chain.now).reserve == 0
    chain.act(start)
    assert escrow.purse_view(chain.machine.store, "p", chain.now).reserve == 1000
    meter = chain.machine.store.get(METERS, "m")
    assert meter is not None
    assert meter.least_ms == 0
