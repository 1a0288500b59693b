"""Bonds against a model that is two numbers, and money that is somewhere at every block."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.machine import bonds
from ledger.machine.bonds import BONDS, bond_of
from ledger.machine.context import Context
from ledger.protocol import events
from ledger.protocol.errors import Code
from ledger.protocol.genesis import Allocation
from tests.ledger.machine.chain import ADA, BOB, CREDIT, START, Chain, refused

RICH = 10**12
STEP = st.tuples(st.sampled_from(["post", "ask", "give", "cut"]), st.integers(0, 60))


def step(ctx: Context, what: str, amount: int) -> None:
    """A step on Ada's bond; cuts go to Bob."""
    bond = bond_of(ctx.store, ADA.address, CREDIT)
    if what == "post":
        bonds.post(ctx, ADA.address, CREDIT, amount + 1)
    elif what == "ask" and amount <= bond.balance:
        bonds.ask_back(ctx, ADA.address, CREDIT, amount, ctx.time + 5)
    elif what == "give" and bond.leaving:
        bonds.give_back(ctx, bond)
    elif what == "cut":
        bonds.cut(ctx, ADA.address, CREDIT, amount, BOB.address, "x")


@settings(max_examples=25)
@given(st.lists(STEP, max_size=25))
def test_a_bond_is_what_was_posted_less_what_went(steps: list[tuple[str, int]]) -> None:
    """Whatever is posted, asked, given back and cut: bond, account and receiver have what a plain sum says, never below 0."""
    chain = Chain()
    have = asked = lost = 0
    for what, amount in steps:
        chain.act(lambda ctx, what=what, amount=amount: step(ctx, what, amount))
        if what == "post":
            have += amount + 1
        elif what == "ask" and amount <= have:
            asked = amount
        elif what == "give":
            have, asked = have - asked, 0
        elif what == "cut":
            taken = min(amount, have)
            have, lost = have - taken, lost + taken
            asked = min(asked, have)
        bond = bond_of(chain.machine.store, ADA.address, CREDIT)
        assert (bond.balance, bond.leaving, bond.cut) == (have, asked, lost)
        assert (bond.leaves_ms > 0) == (asked > 0)
        assert (chain.balance(ADA), chain.balance(BOB)) == (RICH - have - lost, RICH + lost)
        chain.machine.invariants()


def test_bonds_of_several_kinds_of_money_are_apart() -> None:
    """Each denomination has its own bond; more than an account or a bond holds is refused."""
    allocations = tuple(Allocation(address=ADA.address, amount=str(50), denomination=name) for name in (CREDIT, "uother"))
    chain = Chain(allocations=allocations)
    out: list[int] = []
    chain.act(
        lambda ctx: bonds.post(ctx, ADA.address, CREDIT, 20),
        lambda ctx: bonds.post(ctx, ADA.address, "uother", 30),
        lambda ctx: out.append(refused(bonds.post, ctx, ADA.address, CREDIT, 31)),
        lambda ctx: out.append(refused(bonds.ask_back, ctx, ADA.address, "uother", 31, START)),
        lambda ctx: out.append(bonds.cut(ctx, ADA.address, "unone", 5, BOB.address, "x")),
    )
    assert out == [Code.INSUFFICIENT_FUNDS, Code.INSUFFICIENT_FUNDS, 0]
    found = chain.machine.store.find(BONDS, "address", ADA.address)
    assert [(bond.denomination, bond.balance) for bond in found] == [(CREDIT, 20), ("uother", 30)]
    chain.machine.invariants()


def test_posting_and_asking_back_in_turns_does_not_outgrow_an_amount() -> None:
    """The totals of a bond's life stay what an amount can hold."""
    whole = 2**62
    chain = Chain(allocations=(Allocation(address=ADA.address, amount=str(whole), denomination=CREDIT),))
    out: list[int] = []

    def turn(ctx: Context) -> None:
        out.append(refused(bonds.post, ctx, ADA.address, CREDIT, whole))
        if not out[-1]:
            bonds.ask_back(ctx, ADA.address, CREDIT, whole, ctx.time)
            bonds.give_back(ctx, bond_of(ctx.store, ADA.address, CREDIT))

    chain.act(turn, turn)
    assert out == [0, Code.AMOUNT_REFUSED]
    chain.machine.invariants()


def test_events_tell_all_of_a_bond() -> None:
    """From the events alone a reader knows what a bond holds, what is asked back and who got a cut."""
    chain = Chain()
    result = chain.act(*(lambda ctx, s=s: step(ctx, *s) for s in (("post", 40), ("ask", 30), ("cut", 15), ("give", 0))))
    assert [event for event in result.end_events if type(event).__name__.startswith("Bond")] == [
        events.BondPosted(address=ADA.address, amount="41", denomination=CREDIT),
        events.BondAsked(address=ADA.address, amount="30", denomination=CREDIT, leaves_ms=chain.now + 5),
        events.BondCut(about="x", address=ADA.address, amount="15", denomination=CREDIT, to=BOB.address),
        events.BondReturned(address=ADA.address, amount="26", denomination=CREDIT),
    ]
