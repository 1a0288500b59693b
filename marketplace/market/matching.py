"""Matching, at the end of each block: which waiting orders are looked at, and which bid each takes.

An order is looked at when it arrives and when a host of its class gains capacity, gets cheaper or comes back; never
all orders every block. Orders are served as they arrived; each takes the lowest ask that fits, of equal asks the bid
that has stood longest, then by provider and host; the price is the ask.
"""

import msgspec

from ledger.machine import escrow
from ledger.machine.context import Context
from marketplace.market import leases
from marketplace.market.book import Book
from marketplace.market.placement import Ask, Fit, Miss, ask_of, examine
from marketplace.market.pricing import ask_per_hour
from marketplace.market.tables import ORDERS, QUEUE, deployment_of, order_key
from marketplace.market.words import closeness, nearest
from marketplace.protocol.events import OrderWaiting
from marketplace.protocol.records import Look, Order

MORE = "match_more"
"""Scheduled so that a block follows where the work budget left orders unlooked at."""

EXPLAINED_MOST = 256
"""Why an order waits is worked out over so many bids, the cheapest first; anew only where there are no more of them."""

DRY = "the deployment's purse is dry: deposit to it"


def clear(ctx: Context, book: Book) -> None:
    """Look at the orders whose turn it is, within the block's budget of tests; the rest waits in state for the next block."""
    left_over = list(ctx.store.scan(QUEUE))
    looks = book.take_looks()
    if left_over:
        for look in left_over:
            ctx.store.delete(QUEUE, f"{look.arrival:016d}")
        known = {(look.arrival, look.order) for look in left_over if book.is_waiting(look.order)}
        looks = sorted(known.union(looks))
    budget = ctx.parameter("match_tests_per_block")
    for index, (_, id) in enumerate(looks):
        if budget <= 0:
            _leave(ctx, looks[index:])
            return
        budget -= look_at(ctx, book, id)


def _leave(ctx: Context, looks: list[tuple[int, str]]) -> None:
    for arrival, id in looks:
        ctx.store.put(QUEUE, Look(arrival=arrival, order=id))
    ctx.schedule(ctx.time + 1, MORE, "market")


def look_at(ctx: Context, book: Book, id: str) -> int:
    """Match an order, or write down why it waits; returns how much work it was: a test of a bid counts 1."""
    order = ctx.store.get(ORDERS, id)
    assert order is not None, id
    purse = escrow.purse_view(ctx.store, deployment_of(order), ctx.time)
    if purse.state == "dry":
        _wait(ctx, order, {}, DRY)
        return 1
    ask = ask_of(order.group, order.denomination, order.avoid, purse.free)
    best, tests = find(ctx, book, ask)
    if best is not None:
        leases.match(ctx, order, best)
        book.refresh()
        return tests + 1
    if order.nearest and book.breadth(order.group) > EXPLAINED_MOST:
        return tests + 1
    refusals, words, more = explain(ctx, book, ask)
    _wait(ctx, order, refusals, words)
    return tests + more + 1


def find(ctx: Context, book: Book, ask: Ask) -> tuple[Fit | None, int]:
    """The lowest ask that fits, and how much work it was. Stops where nothing that follows can be cheaper."""
    best: Fit | None = None
    best_rank: tuple[int, int, str] | None = None
    tests = 0
    for least, entry in book.candidates(ask.group):
        if least > ask.limit or (best is not None and least > best.rate):
            break
        rest = ask_per_hour(ask.need, entry.prices, {})
        lowest = None if rest is None else rest + least if ask.need.gpus else rest
        if lowest is None or lowest > ask.limit or (best_rank is not None and (lowest, entry.bid.height, entry.key) >= best_rank):
            # Without choosing devices, which costs most, it is plain that this bid cannot win.
            tests += 1
            continue
        found = examine(ctx.store, ask, entry, ctx.height)
        tests += found.work
        if isinstance(found, Fit):
            rank = (found.rate, entry.bid.height, entry.key)
            if best_rank is None or rank < best_rank:
                best, best_rank = found, rank
    return best, tests


def explain(ctx: Context, book: Book, ask: Ask) -> tuple[dict[str, int], str, int]:
    """How many bids fail which test first, the nearest miss in words, and how much work it was."""
    refusals: dict[str, int] = {}
    closest: Miss | None = None
    tests = 0
    offering = book.offering(ask.group, EXPLAINED_MOST)
    for entry in offering:
        found = examine(ctx.store, ask, entry, ctx.height)
        assert isinstance(found, Miss), f"{entry.key} fits after all"
        tests += found.work
        refusals[found.test] = refusals.get(found.test, 0) + 1
        if closest is None or closeness(found) < closeness(closest):
            closest = found
    others = len(book.entries) - len(offering)
    if others and len(offering) < EXPLAINED_MOST:
        refusals["gpu_model"] = refusals.get("gpu_model", 0) + others
    elif others:
        refusals["not_tested"] = others
    return refusals, nearest(closest, ask.group, ask.denomination, len(book.entries), ctx.protocol), tests


def _wait(ctx: Context, order: Order, refusals: dict[str, int], words: str) -> None:
    """Write down why an order waits, and tell if that is news."""
    refusals = dict(sorted(refusals.items()))
    if (order.refusals, order.nearest) == (refusals, words):
        return
    ctx.store.put(ORDERS, msgspec.structs.replace(order, refusals=refusals, nearest=words))
    ctx.emit(OrderWaiting(nearest=words, order=order_key(order), owner=order.owner, refusals=refusals))
