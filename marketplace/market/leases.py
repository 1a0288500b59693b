"""Leases: matched, down and up again, ended."""

from ledger.machine import escrow
from ledger.machine.context import Context
from ledger.protocol.money import parse_amount
from marketplace.market import bonds, claims, orders, pulls
from marketplace.market.devices import wants_simulated
from marketplace.market.lifecycle import advance
from marketplace.market.placement import Fit
from marketplace.market.tables import LEASES, ORDERS, deployment_of, host_key, lease_key, order_key, order_of
from marketplace.protocol.events import LeaseChanged, LeaseEnded, LeaseMatched
from marketplace.protocol.records import Lease, LeaseState, Order, OrderState

ACTIVATION = "lease_activation"
DOWN = "lease_down"
TERM = "lease_term"

HOST_FAULTS = frozenset({"policy", "host_failed"})
"""Reasons of CloseLease after which the group is offered again; after any other its order is over."""


def match(ctx: Context, order: Order, fit: Fit) -> None:
    """Lease an open order to a bid that fits, at its ask."""
    bid = fit.entry.bid
    id = f"{order_key(order)}/{bid.provider}"
    assert ctx.store.get(LEASES, id) is None, id
    assert fit.rate <= parse_amount(order.group.limit_per_hour)

    lease = Lease(
        activated_ms=0,
        bid_version=bid.version,
        closed_ms=0,
        created_ms=ctx.time,
        detail="",
        devices=fit.devices,
        dseq=order.dseq,
        generation=1,
        gseq=order.gseq,
        hold_per_hour=min(parse_amount(bid.terms.hold_per_hour), fit.rate),
        host=bid.host,
        images={},
        oseq=order.oseq,
        owner=order.owner,
        provider=bid.provider,
        rate_per_hour=fit.rate,
        reason="",
        released=False,
        simulated=wants_simulated(order.group),
        since_ms=ctx.time,
        state=LeaseState.MATCHED,
    )
    matched = advance(order, OrderState.MATCHED, refusals={}, nearest="")
    ctx.store.put(ORDERS, matched)
    ctx.cancel(orders.DEADLINE, order_key(order))
    ctx.store.put(LEASES, lease)
    claims.hold(ctx, fit.devices, id)
    escrow.add_meter(ctx, id, deployment_of(order), bid.provider, fit.rate, bid.terms.least_ms)
    ctx.schedule(ctx.time + ctx.parameter("activation_ms"), ACTIVATION, id)
    if bid.terms.max_duration_ms:
        ctx.schedule(ctx.time + bid.terms.max_duration_ms, TERM, id)
    ctx.emit(
        LeaseMatched(
            devices=fit.devices, host=bid.host, lease=id, owner=order.owner, provider=bid.provider, rate_per_hour=str(fit.rate)
        )
    )


def move(ctx: Context, lease: Lease, to: LeaseState, why: str, **changes: object) -> Lease:
    """Write a lease in another state, and tell why. A pull that was under way is over."""
    moved = advance(lease, to, **{"since_ms": ctx.time, "pulling_ms": 0, **changes})
    write(ctx, moved, why)
    return moved


def write(ctx: Context, lease: Lease, why: str) -> None:
    """Write a lease that changed, and tell why."""
    ctx.store.put(LEASES, lease)
    ctx.emit(
        LeaseChanged(
            generation=lease.generation,
            lease=lease_key(lease),
            owner=lease.owner,
            provider=lease.provider,
            reason=why,
            state=lease.state.value,
        )
    )


def go_down(ctx: Context, lease: Lease, reason: str, since_ms: int) -> None:
    """An active lease's host failed it since `since_ms`: the meter stops there.

    No earlier than its last start, nor than the ledger takes back at all.
    """
    id = lease_key(lease)
    since = min(max(since_ms, lease.since_ms, ctx.time - ctx.parameter("backdate_ms")), ctx.time)
    escrow.stop_meter(ctx, id, since)
    move(ctx, lease, LeaseState.DOWN, reason, since_ms=since, reason=reason)
    ctx.schedule(max(since, orders.clock(ctx.store).resumed_ms) + ctx.parameter("silence_close_ms"), DOWN, id)


def go_up(ctx: Context, lease: Lease, reason: str) -> None:
    """A lease that was down runs again: the meter goes on from now."""
    id = lease_key(lease)
    ctx.cancel(DOWN, id)
    move(ctx, lease, LeaseState.ACTIVE, reason, reason="")
    escrow.start_meter(ctx, id)


def close(ctx: Context, lease: Lease, reason: str, *, reopen: bool, detail: str = "") -> None:
    """End a lease and pay for it; its capacity stays held until its provider releases it.

    An owner who ends an active lease before the bid's shortest duration pays the rest of it, one who ends it during a
    pull what the hold came to; a provider at fault loses part of its bond.
    """
    id = lease_key(lease)
    for kind in (ACTIVATION, DOWN, TERM):
        ctx.cancel(kind, id)
    paid = escrow.close_meter(ctx, id, early=reason == "owner" and lease.state is LeaseState.ACTIVE)
    paid += pulls.close(ctx, lease, billed=reason == "owner")
    ended = advance(lease, LeaseState.CLOSED, closed_ms=ctx.time, detail=detail, pulling_ms=0, reason=reason, since_ms=ctx.time)
    ctx.store.put(LEASES, ended)
    ctx.emit(LeaseEnded(detail=detail, lease=id, owner=lease.owner, paid=str(paid), provider=lease.provider, reason=reason))
    order = ctx.store.get(ORDERS, order_of(lease))
    assert order is not None
    orders.close_order(ctx, order, reason)
    bonds.cut(ctx, ended, order.denomination)
    bonds.leave(ctx, lease.provider)
    if reopen:
        # What its provider ended goes to another bid, or to this one once it is put anew.
        bid = f"{host_key(lease.provider, lease.host)}/{lease.bid_version}"
        orders.reopen(ctx, order, avoid=bid if reason in HOST_FAULTS else "")
