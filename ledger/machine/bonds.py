"""Bonds: money that an account pledges for its conduct, which a module may cut and which leaves only when asked back.

Functions here are what a module calls; it decides what a bond is for, how much is cut, and when nothing stands on it.
"""

import msgspec

from ledger.machine.accounts import credit, debit
from ledger.machine.context import Context
from ledger.machine.store import Store, Table
from ledger.protocol.errors import Code, require
from ledger.protocol.events import BondAsked, BondCut, BondPosted, BondReturned
from ledger.protocol.money import MAX_AMOUNT

replace = msgspec.structs.replace


class Bond(msgspec.Struct, frozen=True):
    """What `address` pledged in a denomination, in micro-units: posted = balance + cut + returned, always.

    `leaving` of the balance was asked back and may leave from `leaves_ms` on (0: nothing was); it is cut like the rest.
    """

    address: str
    balance: int
    cut: int
    denomination: str
    leaves_ms: int
    leaving: int
    posted: int
    returned: int


BONDS: Table[Bond] = Table("bond", Bond, lambda b: f"{b.address}/{b.denomination}", {"address": lambda b: b.address})


def bond_of(store: Store, address: str, denomination: str) -> Bond:
    """An account's bond; an empty one where there is none."""
    found = store.get(BONDS, f"{address}/{denomination}")
    return found or Bond(
        address=address, balance=0, cut=0, denomination=denomination, leaves_ms=0, leaving=0, posted=0, returned=0
    )


def post(ctx: Context, address: str, denomination: str, amount: int) -> None:
    """Move `amount` micro-units from an account's balance into its bond; refused like a transfer."""
    bond = bond_of(ctx.store, address, denomination)
    # Totals over a bond's life are amounts too: posting and asking back in turns must not outgrow them.
    require(bond.posted + amount <= MAX_AMOUNT, Code.AMOUNT_REFUSED, "more than a bond can take in its life")
    debit(ctx, address, denomination, amount)
    ctx.store.put(BONDS, replace(bond, balance=bond.balance + amount, posted=bond.posted + amount))
    ctx.emit(BondPosted(address=address, amount=str(amount), denomination=denomination))


def ask_back(ctx: Context, address: str, denomination: str, amount: int, leaves_ms: int) -> None:
    """Ask for `amount` of a bond, in place of what was asked before; none of it leaves before `leaves_ms`.

    INSUFFICIENT_FUNDS where the bond holds less.
    """
    bond = bond_of(ctx.store, address, denomination)
    require(amount <= bond.balance, Code.INSUFFICIENT_FUNDS, f"the bond holds {bond.balance} micro-units of {denomination}")
    ctx.store.put(BONDS, replace(bond, leaves_ms=leaves_ms if amount else 0, leaving=amount))
    ctx.emit(BondAsked(address=address, amount=str(amount), denomination=denomination, leaves_ms=leaves_ms if amount else 0))


def give_back(ctx: Context, bond: Bond) -> None:
    """Pay to its account what was asked back of a bond, as far as it is still there."""
    assert bond.leaving, f"nothing of the bond of {bond.address} was asked back"
    # In this order: what an account may send counts both, and is brought up to date before it gains.
    credit(ctx, bond.address, bond.denomination, bond.leaving)
    ctx.store.put(
        BONDS,
        replace(bond, balance=bond.balance - bond.leaving, leaves_ms=0, leaving=0, returned=bond.returned + bond.leaving),
    )
    ctx.emit(BondReturned(address=bond.address, amount=str(bond.leaving), denomination=bond.denomination))


def cut(ctx: Context, address: str, denomination: str, amount: int, to: str, about: str) -> int:
    """Take at most `amount` from a bond and give it to an account; return what was taken, in micro-units.

    `about` names what the cut is for.
    """
    bond = bond_of(ctx.store, address, denomination)
    taken = min(amount, bond.balance)
    if not taken:
        return 0
    rest = bond.balance - taken
    leaving = min(bond.leaving, rest)
    ctx.store.put(
        BONDS, replace(bond, balance=rest, cut=bond.cut + taken, leaves_ms=bond.leaves_ms if leaving else 0, leaving=leaving)
    )
    credit(ctx, to, denomination, taken)
    ctx.emit(BondCut(about=about, address=address, amount=str(taken), denomination=denomination, to=to))
    return taken
