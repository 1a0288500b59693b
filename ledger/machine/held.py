"""Earnings held back: what a meter pays waits here while it may still have to be refunded."""

import msgspec

from ledger.machine.accounts import NETWORK_ACCOUNT, credit
from ledger.machine.context import Context
from ledger.machine.purse import METERS, Meter
from ledger.machine.store import Store, Table
from ledger.protocol.errors import Code
from ledger.protocol.events import EarningsHeld, MeterPaid

RELEASE = "earnings_release"

replace = msgspec.structs.replace

Parts = tuple[tuple[str, int], ...]
"""(depositor, micro-units) …, oldest deposit first."""


class Held(msgspec.Struct, frozen=True):
    """What of a meter's earnings waits until `until_ms`: `amount` micro-units of at most `most`, the fee not taken yet.

    `sources` says from whose deposits they came.
    """

    amount: int
    denomination: str
    meter: str
    most: int
    sources: Parts
    until_ms: int


HELD: Table[Held] = Table("held", Held, lambda h: h.meter)


def held_of(store: Store, meter_id: str) -> int:
    """Micro-units of a meter's earnings that are held back now."""
    found = store.get(HELD, meter_id)
    return found.amount if found else 0


def fee_of(meter: Meter, held: int) -> int:
    """The network's part of what a meter's payee was paid: a closed form, so that payments in many parts give the same."""
    return (meter.paid - meter.credited - held) * meter.take_ppm // 1_000_000


def split(parts: Parts, amount: int) -> tuple[Parts, Parts]:
    """(what stays, the last `amount` micro-units) of parts, each oldest first."""
    kept: list[tuple[str, int]] = []
    last: list[tuple[str, int]] = []
    for who, part in reversed(parts):
        taken = min(part, amount)
        amount -= taken
        if taken:
            last.append((who, taken))
        if part > taken:
            kept.append((who, part - taken))
    assert amount == 0, "more is split off than is there"
    return tuple(reversed(kept)), tuple(reversed(last))


def joined(older: Parts, newer: Parts) -> Parts:
    """Parts one after the other; where one depositor's meet, they become one."""
    if older and newer and older[-1][0] == newer[0][0]:
        return (*older[:-1], (older[-1][0], older[-1][1] + newer[0][1]), *newer[1:])
    return older + newer


def put_aside(ctx: Context, meter: Meter, purse: str, parts: Parts) -> int:
    """Hold back as much of a payment, which came from `parts`, as is to be held; return how much, in micro-units."""
    found = ctx.store.get(HELD, meter.id)
    if found is None or found.amount >= found.most:
        return 0
    kept = min(sum(part for _, part in parts), found.most - found.amount)
    sources = joined(found.sources, split(parts, kept)[1])
    ctx.store.put(HELD, replace(found, amount=found.amount + kept, sources=sources))
    ctx.emit(EarningsHeld(amount=str(kept), meter=meter.id, payee=meter.payee, purse=purse, until_ms=found.until_ms))
    return kept


def pay_out(ctx: Context, meter: Meter, denomination: str, amount: int, held: int) -> Meter:
    """Give `amount` to a meter's payee, less the network's fee, while `held` stays back; return the meter, to be written."""
    fee = fee_of(meter, held) - meter.fee
    credit(ctx, meter.payee, denomination, amount - fee)
    if fee:
        credit(ctx, NETWORK_ACCOUNT, denomination, fee)
    ctx.emit(MeterPaid(amount=str(amount - fee), fee=str(fee), meter=meter.id, payee=meter.payee, purse=meter.purse))
    return replace(meter, fee=meter.fee + fee)


def release_held(ctx: Context, meter_id: str) -> None:
    """Pay out what is held back of a meter's earnings, and hold nothing more of them; nothing where nothing is."""
    found = ctx.store.get(HELD, meter_id)
    if found is None:
        return
    ctx.cancel(RELEASE, meter_id)
    ctx.store.delete(HELD, meter_id)
    if found.amount:
        meter = ctx.store.require(METERS, meter_id, Code.PURSE_NOT_FOUND)
        ctx.store.put(METERS, pay_out(ctx, meter, found.denomination, found.amount, 0))
