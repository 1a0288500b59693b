"""Long pulls: from `pull_free_ms` after ReportPulling on, a lease that is not active yet costs its hold rate.

A meter of its own counts the time (`hold_of`), so that it is exact, stops where the purse runs dry, and can not be
withdrawn. What it pays is held back until the pull is over: its provider gets it where the lease became active, and
where the tenant ended it or let the purse run dry; in any other case it goes back to the deposits that it came from.
"""

from typing import Final

from ledger.machine import escrow
from ledger.machine.context import Context
from ledger.machine.store import Store
from ledger.protocol.money import MAX_AMOUNT
from marketplace.market.orders import clock
from marketplace.market.tables import LEASES, deployment_of, lease_key
from marketplace.protocol.records import Lease

HOLD: Final = "lease_hold"
"""Scheduled: the free time of a pull is over."""

UNTIL_DECIDED_MS: Final = 2**53 - 1
"""Until when a hold's earnings wait: the end of the pull says what becomes of them, never the clock."""


def hold_of(lease: str) -> str:
    """Id of the meter of a lease's hold; there is none before the first long pull."""
    return f"{lease}/hold"


def begin(ctx: Context, lease: Lease) -> None:
    """A pull began: let its free time run."""
    if lease.hold_per_hour:
        ctx.schedule(ctx.time + ctx.parameter("pull_free_ms"), HOLD, lease_key(lease))


def free_time_over(ctx: Context, id: str) -> None:
    """Scheduled: the hold is billed from now on; not for time in which the chain stood still."""
    resumed = clock(ctx.store).resumed_ms
    if ctx.time < resumed:
        ctx.schedule(resumed, HOLD, id)
        return
    lease = ctx.store.get(LEASES, id)
    assert lease is not None, id
    assert lease.pulling_ms, id
    hold = hold_of(id)
    if ctx.store.get(escrow.METERS, hold) is None:
        escrow.add_meter(ctx, hold, deployment_of(lease), lease.provider, lease.hold_per_hour)
    escrow.hold_back(ctx, hold, MAX_AMOUNT, UNTIL_DECIDED_MS)
    escrow.start_meter(ctx, hold)


def silent(ctx: Context, lease: Lease, since_ms: int) -> None:
    """Its host fell silent: the hold ends at the last sign of life, for this generation; the pull may yet succeed."""
    ctx.cancel(HOLD, lease_key(lease))
    if _exists(ctx.store, lease):
        escrow.stop_meter(ctx, hold_of(lease_key(lease)), since_ms)


def stood_still(ctx: Context, last_ms: int) -> None:
    """The chain stood still since `last_ms`: holds that run are not billed for that time, and go on from now."""
    now = ctx.time
    running = [hold for lease in ctx.store.find(LEASES, "pulling", True) if _runs(ctx.store, hold := hold_of(lease_key(lease)))]
    # As of the previous block, however long ago: no limit on backdating may charge for the time between.
    ctx.time = last_ms
    for hold in running:
        escrow.stop_meter(ctx, hold)
    ctx.time = now
    for hold in running:
        escrow.start_meter(ctx, hold)


def decide(ctx: Context, lease: Lease, *, billed: bool) -> None:
    """The pull of this generation is over: what its hold came to is its provider's where `billed`, else the depositors' again."""
    ctx.cancel(HOLD, lease_key(lease))
    if not _exists(ctx.store, lease):
        return
    hold = hold_of(lease_key(lease))
    escrow.stop_meter(ctx, hold)
    if not billed:
        escrow.refund_held(ctx, hold, MAX_AMOUNT)
    escrow.release_held(ctx, hold)


def close(ctx: Context, lease: Lease, *, billed: bool) -> int:
    """The lease ends: decide about its pull, if there is one, and close the hold; return what its provider got for it in all."""
    if lease.pulling_ms:
        decide(ctx, lease, billed=billed)
    return escrow.close_meter(ctx, hold_of(lease_key(lease))) if _exists(ctx.store, lease) else 0


def _exists(store: Store, lease: Lease) -> bool:
    return store.get(escrow.METERS, hold_of(lease_key(lease))) is not None


def _runs(store: Store, hold: str) -> bool:
    meter = store.get(escrow.METERS, hold)
    return meter is not None and bool(meter.since_ms)
