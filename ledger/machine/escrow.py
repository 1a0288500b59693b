"""Escrow: a purse per deployment pays meters by the millisecond and stops them the instant it runs dry.

Functions here are what a module calls. Money is taken from the oldest deposit first; a meter's cost is a closed form
of its up-time, rounded down to the tenant's side, so it never depends on how often it is settled.
"""

from types import MappingProxyType
from typing import Final

import msgspec

from ledger.machine import schedule
from ledger.machine.accounts import ACCOUNTS, NETWORK_ACCOUNT, credit, debit, positive
from ledger.machine.bonds import BONDS
from ledger.machine.context import Context
from ledger.machine.held import HELD, RELEASE, Held, held_of, joined, pay_out, put_aside, release_held, split
from ledger.machine.module import Plain
from ledger.machine.purse import (
    CLOSED,
    DRY,
    METERS,
    OPEN,
    PURSES,
    Meter,
    Purse,
    PurseView,
    accrued_at,
    consume,
    cost_at,
    dry_instant,
    dues_at,
    horizon,
    meters_of,
    purse_view,
    reserve_at,
    total_cost,
)
from ledger.protocol import events
from ledger.protocol.errors import Code, require
from ledger.protocol.keys import check_address
from ledger.protocol.messages import Deposit, Settle, Withdraw
from ledger.protocol.money import MAX_AMOUNT, metered

__all__ = [
    "METERS", "NETWORK_ACCOUNT", "PURSES", "Escrow", "Meter", "Purse", "PurseView", "add_meter", "charge", "close_meter",
    "close_purse", "hold_back", "open_purse", "purse_view", "refund_held", "release_held", "settle", "start_meter", "stop_meter",
    "total_cost",
]  # fmt: skip

RUNS_DRY: Final = "purse_dry"
WARNING: Final = "purse_warning"
GRACE: Final = "purse_grace"
PAYOUT: Final = "purse_payout"

replace = msgspec.structs.replace


def open_purse(ctx: Context, purse_id: str, owner: str, denomination: str, deposit: int) -> None:
    """Open a purse with the owner's first deposit, taken from the owner's balance.

    ID_CONFLICT where the id is taken; AMOUNT_REFUSED for nothing; refused like a transfer otherwise.
    """
    require(ctx.store.get(PURSES, purse_id) is None, Code.ID_CONFLICT, purse_id)
    require(deposit > 0, Code.AMOUNT_REFUSED, "the deposit is zero")
    debit(ctx, owner, denomination, deposit)
    purse = Purse(
        balance=deposit,
        charged=0,
        denomination=denomination,
        deposited=deposit,
        deposits=((owner, deposit),),
        dry_at_ms=0,
        id=purse_id,
        meters=(),
        owner=owner,
        paid=0,
        refunded=0,
        state=OPEN,
        warned=False,
        withdrawn=0,
    )
    ctx.store.put(PURSES, purse)
    ctx.emit(events.PurseOpened(amount=str(deposit), denomination=denomination, owner=owner, purse=purse_id))


def add_meter(ctx: Context, meter_id: str, purse_id: str, payee: str, rate_per_hour: int, least_ms: int = 0) -> None:
    """Add a stopped meter, for a promised `least_ms` of paid time; what that costs can not be withdrawn while it is open.

    PURSE_NOT_FOUND, PURSE_CLOSED, ID_CONFLICT where the id is taken, ADDRESS_REFUSED.
    """
    purse = _open(ctx, purse_id)
    require(ctx.store.get(METERS, meter_id) is None, Code.ID_CONFLICT, meter_id)
    assert rate_per_hour >= 0, "a negative rate"
    # Payments come from scheduled events, which may not be refused: the payee must be one that can be paid.
    if ctx.store.get(ACCOUNTS, payee) is None:
        check_address(payee)
    meter = Meter(
        closed=False,
        fee=0,
        id=meter_id,
        paid=0,
        payee=payee,
        purse=purse_id,
        rate_per_hour=rate_per_hour,
        settled_ms=0,
        since_ms=0,
        take_ppm=ctx.parameter("take_rate_ppm"),
        up_ms=0,
        least_ms=least_ms,
    )
    ctx.store.put(METERS, meter)
    ctx.store.put(PURSES, replace(purse, meters=(*purse.meters, meter_id)))


def start_meter(ctx: Context, meter_id: str) -> None:
    """Let a meter run from now; nothing where it runs. PURSE_LOCKED where the purse is dry, PURSE_CLOSED."""
    meter = ctx.store.require(METERS, meter_id, Code.PURSE_NOT_FOUND)
    purse = _open(ctx, meter.purse)
    # At a block's beginning a purse may be past its end without having been told.
    in_time = purse.state == OPEN and horizon(purse, ctx.time) == ctx.time
    require(in_time, Code.PURSE_LOCKED, f"{purse.id} is dry")
    require(not meter.closed, Code.PURSE_CLOSED, f"{meter_id} is closed")
    if meter.since_ms:
        return
    ctx.store.put(METERS, replace(meter, since_ms=ctx.time))
    if not schedule.is_set(ctx.store, PAYOUT, purse.id):
        ctx.schedule(ctx.time + ctx.parameter("purse_payout_ms"), PAYOUT, purse.id)
    _reckon(ctx, purse)


def stop_meter(ctx: Context, meter_id: str, at_ms: int | None = None) -> None:
    """Stop a meter and pay what it cost; nothing where it is stopped.

    `at_ms` may lie in the past: back to the last start, but never into time that is paid or older than `backdate_ms`.
    """
    meter = ctx.store.require(METERS, meter_id, Code.PURSE_NOT_FOUND)
    if not meter.since_ms:
        return
    purse = ctx.store.require(PURSES, meter.purse, Code.PURSE_NOT_FOUND)
    now = horizon(purse, ctx.time)
    at = now if at_ms is None else min(at_ms, now)
    at = max(at, meter.since_ms, meter.settled_ms, min(now, ctx.time - ctx.parameter("backdate_ms")))
    _reckon(ctx, _halt(ctx, purse, meter, at))


def close_meter(ctx: Context, meter_id: str, *, early: bool = False) -> int:
    """Stop, settle and take the meter from its purse; return what its payee got by now, in micro-units.

    `early`: its owner ends it before the shortest term that he promised, and pays the rest of that as far as there is
    money for it. What is held back counts as not got yet.
    """
    stop_meter(ctx, meter_id)
    meter = ctx.store.require(METERS, meter_id, Code.PURSE_NOT_FOUND)
    got = meter.paid - meter.credited - meter.fee - held_of(ctx.store, meter_id)
    if not meter.closed:
        purse = ctx.store.require(PURSES, meter.purse, Code.PURSE_NOT_FOUND)
        ctx.store.put(METERS, replace(meter, closed=True))
        ctx.store.put(PURSES, replace(purse, meters=tuple(id for id in purse.meters if id != meter_id)))
        if early:
            left = metered(meter.rate_per_hour, meter.least_ms) - cost_at(meter, 0)
            got += charge(ctx, purse.id, meter.payee, left)
    return got


def charge(ctx: Context, purse_id: str, to: str, amount: int) -> int:
    """Pay `to` once, at most what is not owed to meters yet; return what was charged, in micro-units."""
    purse = _open(ctx, purse_id)
    free = purse.balance - accrued_at(purse, meters_of(ctx.store, purse), ctx.time)
    taken = max(0, min(amount, free))
    if taken:
        credit(ctx, to, purse.denomination, taken)
        purse = replace(
            purse,
            balance=purse.balance - taken,
            charged=purse.charged + taken,
            deposits=consume(purse.deposits, taken),
        )
        ctx.emit(events.Charged(amount=str(taken), purse=purse_id, to=to))
        _reckon(ctx, purse)
    return taken


def close_purse(ctx: Context, purse_id: str) -> None:
    """Refund what is left of each deposit, the oldest deposit first; every meter must be closed before."""
    purse = _open(ctx, purse_id)
    assert not purse.meters, f"{purse_id} still has meters"
    for depositor, left in purse.deposits:
        credit(ctx, depositor, purse.denomination, left)
        ctx.emit(events.Refunded(amount=str(left), depositor=depositor, purse=purse_id))
    for kind in (RUNS_DRY, WARNING, GRACE, PAYOUT):
        ctx.cancel(kind, purse_id)
    ctx.store.put(
        PURSES, replace(purse, balance=0, deposits=(), dry_at_ms=0, refunded=purse.refunded + purse.balance, state=CLOSED)
    )
    ctx.emit(events.PurseClosed(owner=purse.owner, purse=purse_id, refunded=str(purse.balance)))


def hold_back(ctx: Context, meter_id: str, amount: int, until_ms: int) -> None:
    """Of what a meter pays from now on, let `amount` micro-units wait until `until_ms` for a possible refund.

    A second call for the same meter raises both to the larger. What was paid before is its payee's for good.
    """
    assert amount > 0, "nothing is to be held back"
    meter = ctx.store.require(METERS, meter_id, Code.PURSE_NOT_FOUND)
    purse = ctx.store.require(PURSES, meter.purse, Code.PURSE_NOT_FOUND)
    old = ctx.store.get(HELD, meter_id) or Held(
        amount=0, denomination=purse.denomination, meter=meter_id, most=0, sources=(), until_ms=0
    )
    held = replace(old, most=max(old.most, amount), until_ms=max(old.until_ms, until_ms))
    ctx.store.put(HELD, held)
    ctx.schedule(held.until_ms, RELEASE, meter_id)


def refund_held(ctx: Context, meter_id: str, amount: int) -> int:
    """Give back at most `amount` of what is held of a meter's earnings; return how much that was, in micro-units.

    It goes to the deposits that it came from, the last one first; to the depositors where the purse is closed. A dry
    purse stays dry: only a deposit revives it. What is held beyond it waits on.
    """
    found = ctx.store.get(HELD, meter_id)
    taken = min(amount, found.amount) if found else 0
    if found is None or taken <= 0:
        return 0
    meter = ctx.store.require(METERS, meter_id, Code.PURSE_NOT_FOUND)
    purse = ctx.store.require(PURSES, meter.purse, Code.PURSE_NOT_FOUND)
    sources, back = split(found.sources, taken)
    # What was given back is not held anew out of later payments.
    ctx.store.put(HELD, replace(found, amount=found.amount - taken, most=found.most - taken, sources=sources))
    ctx.store.put(METERS, replace(meter, credited=meter.credited + taken))
    purse = replace(purse, paid=purse.paid - taken)
    ctx.emit(events.EarningsRefunded(amount=str(taken), meter=meter_id, owner=purse.owner, payee=meter.payee, purse=purse.id))
    if purse.state == CLOSED:
        for depositor, part in back:
            credit(ctx, depositor, purse.denomination, part)
            ctx.emit(events.Refunded(amount=str(part), depositor=depositor, purse=purse.id))
        ctx.store.put(PURSES, replace(purse, refunded=purse.refunded + taken))
    else:
        _reckon(ctx, replace(purse, balance=purse.balance + taken, deposits=joined(back, purse.deposits)))
    return taken


def settle(ctx: Context, purse_id: str) -> None:
    """Pay the running meters for time that no report can take back any more: all but the last `backdate_ms`."""
    purse = ctx.store.require(PURSES, purse_id, Code.PURSE_NOT_FOUND)
    final = horizon(purse, ctx.time - ctx.parameter("backdate_ms"))
    for meter in meters_of(ctx.store, purse):
        if meter.since_ms and final > max(meter.since_ms, meter.settled_ms):
            purse, meter = _pay(ctx, purse, meter, final)
            ctx.store.put(METERS, replace(meter, settled_ms=final))
    ctx.store.put(PURSES, purse)


def _open(ctx: Context, purse_id: str) -> Purse:
    purse = ctx.store.require(PURSES, purse_id, Code.PURSE_NOT_FOUND)
    require(purse.state != CLOSED, Code.PURSE_CLOSED, purse_id)
    return purse


def _halt(ctx: Context, purse: Purse, meter: Meter, at_ms: int) -> Purse:
    """Stop a running meter at `at_ms` and pay it; return the purse, which the caller writes."""
    stopped = replace(meter, since_ms=0, up_ms=meter.up_ms + at_ms - meter.since_ms)
    purse, stopped = _pay(ctx, purse, stopped, at_ms)
    ctx.store.put(METERS, stopped)
    return purse


def _pay(ctx: Context, purse: Purse, meter: Meter, until_ms: int) -> tuple[Purse, Meter]:
    """Pay what a meter cost until `until_ms`; return both records, which the caller writes."""
    due = cost_at(meter, until_ms) - meter.paid
    assert 0 <= due <= purse.balance, f"{meter.id}: {due} due of {purse.balance}"
    if due == 0:
        return purse, meter
    meter = replace(meter, paid=meter.paid + due)
    deposits = consume(purse.deposits, due)
    kept = 0
    if ctx.store.count(HELD):
        kept = put_aside(ctx, meter, purse.id, split(purse.deposits, purse.balance - due)[0])
    if kept < due:
        meter = pay_out(ctx, meter, purse.denomination, due - kept, held_of(ctx.store, meter.id))
    return replace(purse, balance=purse.balance - due, deposits=deposits, paid=purse.paid + due), meter


def _reckon(ctx: Context, purse: Purse) -> None:
    """Write the purse with the instant at which it runs dry, and schedule that and the warning before it."""
    if purse.state != OPEN:
        ctx.store.put(PURSES, purse)
        return
    dry = dry_instant(purse.balance, meters_of(ctx.store, purse))
    warned = purse.warned
    if not dry:
        warned = False
        ctx.cancel(RUNS_DRY, purse.id)
        ctx.cancel(WARNING, purse.id)
    else:
        # At a block's beginning the instant may lie before block time: it is handled at its own time all the same.
        schedule.put(ctx.store, dry, RUNS_DRY, purse.id)
        warn = dry - ctx.parameter("purse_warning_ms")
        warned = warned and warn <= ctx.time
        if warned:
            ctx.cancel(WARNING, purse.id)
        else:
            schedule.put(ctx.store, max(warn, min(ctx.time, dry)), WARNING, purse.id)
    ctx.store.put(PURSES, replace(purse, dry_at_ms=dry, warned=warned))


def _runs_dry(ctx: Context, purse_id: str) -> None:
    purse = ctx.store.require(PURSES, purse_id, Code.PURSE_NOT_FOUND)
    for meter in meters_of(ctx.store, purse):
        if meter.since_ms:
            purse = _halt(ctx, purse, meter, purse.dry_at_ms)
    grace_until = ctx.time + ctx.parameter("purse_grace_ms")
    ctx.store.put(PURSES, replace(purse, state=DRY))
    ctx.cancel(WARNING, purse_id)
    ctx.cancel(PAYOUT, purse_id)
    ctx.schedule(grace_until, GRACE, purse_id)
    ctx.emit(events.PurseDry(grace_until_ms=grace_until, owner=purse.owner, purse=purse_id))
    ctx.notify(purse_id, "dry")


def _warn(ctx: Context, purse_id: str) -> None:
    purse = ctx.store.require(PURSES, purse_id, Code.PURSE_NOT_FOUND)
    ctx.store.put(PURSES, replace(purse, warned=True))
    ctx.emit(events.PurseWarned(dry_at_ms=purse.dry_at_ms, owner=purse.owner, purse=purse_id))
    ctx.notify(purse_id, "warning")


def _grace_over(ctx: Context, purse_id: str) -> None:
    purse = ctx.store.require(PURSES, purse_id, Code.PURSE_NOT_FOUND)
    ctx.emit(events.PurseGraceOver(owner=purse.owner, purse=purse_id))
    ctx.notify(purse_id, "grace_over")


def _payout(ctx: Context, purse_id: str) -> None:
    settle(ctx, purse_id)
    purse = ctx.store.require(PURSES, purse_id, Code.PURSE_NOT_FOUND)
    if any(meter.since_ms for meter in meters_of(ctx.store, purse)):
        ctx.schedule(ctx.time + ctx.parameter("purse_payout_ms"), PAYOUT, purse_id)


def _deposit(ctx: Context, message: Deposit) -> None:
    amount = positive(message.amount)
    purse = _open(ctx, message.purse)
    # Totals over a purse's life are amounts too: depositing and withdrawing in turns must not outgrow them.
    require(purse.deposited + amount <= MAX_AMOUNT, Code.AMOUNT_REFUSED, "more than a purse can take in its life")
    deposits = list(purse.deposits)
    mine = [i for i, (depositor, _) in enumerate(deposits) if depositor == ctx.principal]
    full = len(deposits) >= ctx.parameter("purse_max_deposits")
    if mine and (mine[-1] == len(deposits) - 1 or full):
        depositor, left = deposits[mine[-1]]
        deposits[mine[-1]] = (depositor, left + amount)
    else:
        # The owner can always top up: strangers' small deposits must not lock him out.
        require(not full or ctx.principal == purse.owner, Code.DEPOSITORS_FULL, f"{len(deposits)} deposits")
        deposits.append((ctx.principal, amount))
    debit(ctx, ctx.principal, purse.denomination, amount)
    was_dry = purse.state == DRY
    purse = replace(
        purse,
        balance=purse.balance + amount,
        deposited=purse.deposited + amount,
        deposits=tuple(deposits),
        dry_at_ms=0 if was_dry else purse.dry_at_ms,
        state=OPEN,
    )
    ctx.emit(events.Deposited(amount=str(amount), depositor=ctx.principal, owner=purse.owner, purse=purse.id))
    _reckon(ctx, purse)
    if was_dry:
        ctx.cancel(GRACE, purse.id)
        ctx.emit(events.PurseFunded(owner=purse.owner, purse=purse.id))
    ctx.notify(purse.id, "funded" if was_dry else "deposited")


def _withdraw(ctx: Context, message: Withdraw) -> None:
    amount = positive(message.amount)
    purse = _open(ctx, message.purse)
    mine = [depositor for depositor, _ in purse.deposits if depositor == ctx.principal]
    require(mine or ctx.principal == purse.owner, Code.NOT_AUTHORISED, "nothing of yours is left in this purse")
    require(purse.state == OPEN, Code.PURSE_LOCKED, f"{purse.id} is dry")
    # What is owed and what is to stay comes out of the oldest deposits, whoever withdraws first.
    meters = meters_of(ctx.store, purse)
    bound = accrued_at(purse, meters, ctx.time) + dues_at(purse, meters, ctx.time)
    bound = min(purse.balance, bound + reserve_at(purse, meters, ctx.time, ctx.parameter("purse_reserve_ms")))
    free = sum(left for depositor, left in consume(purse.deposits, bound) if depositor == ctx.principal)
    require(amount <= free, Code.INSUFFICIENT_FUNDS, f"{free} micro-units of yours are free")
    deposits, missing = [], amount
    for depositor, left in reversed(purse.deposits):
        taken = min(left, missing) if depositor == ctx.principal else 0
        missing -= taken
        if left > taken:
            deposits.append((depositor, left - taken))
    credit(ctx, ctx.principal, purse.denomination, amount)
    ctx.emit(events.Withdrawn(amount=str(amount), depositor=ctx.principal, owner=purse.owner, purse=purse.id))
    purse = replace(
        purse,
        balance=purse.balance - amount,
        deposits=tuple(reversed(deposits)),
        withdrawn=purse.withdrawn + amount,
    )
    _reckon(ctx, purse)


def _settle(ctx: Context, message: Settle) -> None:
    purse = _open(ctx, message.purse)
    payees = {meter.payee for meter in meters_of(ctx.store, purse)}
    concerned = ctx.principal == purse.owner or ctx.principal in payees
    require(concerned, Code.NOT_AUTHORISED, "no meter of this purse pays you")
    settle(ctx, purse.id)


class Escrow(Plain):
    """The module of Deposit, Withdraw and Settle and of what falls due in purses; bonds are money of its kind."""

    name = "escrow"
    tables = (PURSES, METERS, BONDS, HELD)
    messages = MappingProxyType({Deposit: _deposit, Withdraw: _withdraw, Settle: _settle})
    kinds = MappingProxyType({RUNS_DRY: _runs_dry, WARNING: _warn, GRACE: _grace_over, PAYOUT: _payout, RELEASE: release_held})
