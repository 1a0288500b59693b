"""Escrow against a model that knows no formula: it walks through every millisecond."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.machine import escrow
from ledger.machine.context import Context
from ledger.machine.purse import METERS, PURSES
from ledger.protocol.messages import Deposit, Withdraw
from tests.ledger.machine.chain import ADA, BOB, CAT, CREDIT, START, Chain, User

HOUR = 3_600_000
T0 = START + 1000
PAYEES = [User(f"payee{i}") for i in range(3)]
PEOPLE = {"ada": ADA, "bob": BOB, "cat": CAT}


@dataclass
class Model:
    """A purse walked through ms by ms: counters of rate × ms, money as a list of single deposits."""

    rates: tuple[int, ...]
    money: int
    time: int = T0
    up: set[int] = field(default_factory=set)
    work: dict[int, int] = field(default_factory=dict)
    deposits: list[list[object]] = field(default_factory=list)
    took: dict[str, int] = field(default_factory=dict)

    def cost(self, work: dict[int, int]) -> int:
        """What all meters cost for the work done."""
        return sum(done // HOUR for done in work.values())

    def walk(self, to: int) -> None:
        """Let time pass; the ms that cannot be paid does not happen, and then everything stops."""
        while True:
            ahead = {i: done + (self.rates[i] if i in self.up else 0) for i, done in self.work.items()}
            if self.cost(ahead) > self.money:
                self.up.clear()
                ahead = self.work
            if self.time == to:
                return
            self.work = ahead
            self.time += 1

    def left(self) -> list[list[object]]:
        """Deposits after the costs so far, oldest first."""
        owed = self.cost(self.work)
        out = []
        for who, amount in self.deposits:
            taken = min(int(str(amount)), owed)
            owed -= taken
            out.append([who, int(str(amount)) - taken])
        return out

    def withdraw(self, who: str, amount: int) -> bool:
        """Take back from the newest of one's deposits, where that much is free."""
        free = sum(int(str(left)) for owner, left in self.left() if owner == who)
        if not 0 < amount <= free:
            return False
        for item in reversed(self.deposits):
            if item[0] == who:
                part = min(int(str(item[1])), amount)
                item[1] = int(str(item[1])) - part
                amount -= part
                self.money -= part
                self.took[who] = self.took.get(who, 0) + part
        return True


STEP = st.one_of(
    st.tuples(st.just("start"), st.integers(0, 2), st.just("")),
    st.tuples(st.just("stop"), st.integers(0, 2), st.just("")),
    st.tuples(st.just("settle"), st.just(0), st.just("")),
    st.tuples(st.just("deposit"), st.integers(1, 60), st.sampled_from(sorted(PEOPLE))),
    st.tuples(st.just("withdraw"), st.integers(1, 60), st.sampled_from(sorted(PEOPLE))),
)
RATES = st.tuples(*[st.one_of(st.integers(0, HOUR), st.integers(0, 9 * HOUR))] * 3)
SCHEDULE = st.lists(st.tuples(st.integers(1, 40), STEP), min_size=1, max_size=14)


def play(chain: Chain, rates: tuple[int, ...], schedule: list[tuple[int, tuple[str, int, str]]], settle: bool) -> None:
    """Run a schedule on the real ledger."""

    def begin(ctx: Context) -> None:
        escrow.open_purse(ctx, "p", ADA.address, CREDIT, 100)
        for i, rate in enumerate(rates):
            escrow.add_meter(ctx, f"m{i}", "p", PAYEES[i].address, rate)

    def step(ctx: Context, what: str, which: int) -> None:
        purse = ctx.store.get(PURSES, "p")
        assert purse is not None
        if what == "start" and purse.state == "open":
            escrow.start_meter(ctx, f"m{which}")
        if what == "stop":
            escrow.stop_meter(ctx, f"m{which}")
        if what == "settle" and settle:
            escrow.settle(ctx, "p")

    chain.act(begin, at=T0)
    for wait, (what, value, who) in schedule:
        at = chain.now + wait
        if what == "deposit":
            chain.ok(PEOPLE[who], Deposit(amount=str(value), purse="p"), at=at)
        elif what == "withdraw":
            chain.send(PEOPLE[who], Withdraw(amount=str(value), purse="p"), at=at)
        else:
            chain.act(lambda ctx, what=what, value=value: step(ctx, what, value), at=at)
        chain.machine.invariants()


def close(ctx: Context) -> None:
    """Close meters and purse."""
    for i in range(3):
        escrow.close_meter(ctx, f"m{i}")
    escrow.close_purse(ctx, "p")


def simulate(rates: tuple[int, ...], schedule: list[tuple[int, tuple[str, int, str]]]) -> Model:
    """Run a schedule on the model."""
    model = Model(rates, 100, work=dict.fromkeys(range(3), 0), deposits=[["ada", 100]])
    dry = False
    for wait, (what, value, who) in schedule:
        running = bool(model.up)
        model.walk(model.time + wait)
        dry = dry or (running and not model.up)
        if what == "start" and not dry:
            model.up.add(value)
        elif what == "stop":
            model.up.discard(value)
        elif what == "deposit":
            model.money += value
            model.deposits.append([who, value])
            dry = False
        elif what == "withdraw" and not dry:
            model.withdraw(who, value)
    return model


@settings(max_examples=80)
@given(RATES, SCHEDULE, st.booleans())
def test_escrow_equals_the_walk_through_every_millisecond(
    rates: tuple[int, ...], schedule: list[tuple[int, tuple[str, int, str]]], settle: bool
) -> None:
    """Whoever starts, stops, settles, deposits or withdraws when: every payee and depositor has what the model says."""
    chain = Chain(parameters={"backdate_ms": 0})
    play(chain, rates, schedule, settle)
    model = simulate(rates, schedule)
    chain.act(close, at=chain.now + 40)
    model.walk(chain.now)
    for i, payee in enumerate(PAYEES):
        assert chain.balance(payee) == model.work[i] // HOUR
    given_in = {who: 0 for who in PEOPLE}
    back = dict(given_in)
    for who, amount in model.deposits:
        given_in[str(who)] += int(str(amount))
    for who, amount in model.left():
        back[str(who)] += int(str(amount))
    for who, user in PEOPLE.items():
        # What was withdrawn is gone from the model's deposits and was added to the balance.
        assert chain.balance(user) == 10**12 - given_in[who] + back[who]
    chain.machine.invariants()


@settings(max_examples=25)
@given(RATES, SCHEDULE)
def test_settling_often_changes_nothing(rates: tuple[int, ...], schedule: list[tuple[int, tuple[str, int, str]]]) -> None:
    """With a settlement after every step or with none, all accounts end alike."""
    often = [item for entry in schedule for item in (entry, (1, ("settle", 0, "")))]
    ends = []
    for settle in (False, True):
        chain = Chain(parameters={"backdate_ms": 0})
        play(chain, rates, often, settle)
        chain.act(close)
        ends.append([chain.balance(user) for user in (*PAYEES, *PEOPLE.values())])
        assert all(meter.closed for meter in chain.machine.store.scan(METERS))
    assert ends[0] == ends[1]
