"""Orders: opened, closed, opened again for a group that goes on elsewhere."""

import msgspec

from ledger.machine.context import Context
from ledger.machine.store import Store
from marketplace.market.lifecycle import advance
from marketplace.market.tables import CLOCK, ORDERS, order_key
from marketplace.protocol.events import OrderEnded, OrderOpened
from marketplace.protocol.ids import order_id
from marketplace.protocol.records import Clock, Order, OrderState
from marketplace.protocol.resources import Group

DEADLINE = "order_deadline"

AVOIDED_MOST = 16
"""How many bids an order remembers as ended by their provider."""


def clock(store: Store) -> Clock:
    """What the market remembers from block to block."""
    return store.get(CLOCK, "market") or Clock(arrivals=0, last_ms=0, resumed_ms=0)


def open_order(
    ctx: Context, owner: str, dseq: int, gseq: int, group: Group, denomination: str, *, oseq: int = 1, avoid: tuple[str, ...] = ()
) -> None:
    """Offer a group to the market."""
    now = clock(ctx.store)
    ctx.store.put(CLOCK, msgspec.structs.replace(now, arrivals=now.arrivals + 1))
    id = order_id(owner, dseq, gseq, oseq)
    order = Order(
        arrival=now.arrivals,
        avoid=avoid[-AVOIDED_MOST:],
        closed_ms=0,
        created_ms=ctx.time,
        denomination=denomination,
        dseq=dseq,
        group=group,
        gseq=gseq,
        height=ctx.height,
        nearest="",
        oseq=oseq,
        owner=owner,
        reason="",
        refusals={},
        state=OrderState.OPEN,
    )
    ctx.store.put(ORDERS, order)
    if group.deadline_ms:
        ctx.schedule(group.deadline_ms, DEADLINE, id)
    ctx.emit(OrderOpened(order=id, owner=owner))


def close_order(ctx: Context, order: Order, reason: str) -> None:
    """End an order; one that had no lease tells so."""
    id = order_key(order)
    ctx.store.put(ORDERS, advance(order, OrderState.CLOSED, closed_ms=ctx.time, reason=reason))
    if order.state is OrderState.OPEN:
        ctx.cancel(DEADLINE, id)
        ctx.emit(OrderEnded(order=id, owner=order.owner, reason=reason))


def reopen(ctx: Context, order: Order, *, avoid: str = "") -> None:
    """Offer the group of an order that lost its lease again, as the next order; not to the bid `avoid`, if one is named."""
    avoided = (*order.avoid, avoid) if avoid else order.avoid
    open_order(ctx, order.owner, order.dseq, order.gseq, order.group, order.denomination, oseq=order.oseq + 1, avoid=avoided)


def deadline(ctx: Context, id: str) -> None:
    """Scheduled at a group's deadline: an order that still waits is over."""
    order = ctx.store.get(ORDERS, id)
    assert order is not None, id
    if order.state is OrderState.OPEN:
        close_order(ctx, order, "deadline")
