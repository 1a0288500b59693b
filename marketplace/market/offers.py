"""How a bid leaves the book, for whatever reason."""

from typing import Final

from ledger.machine.context import Context
from marketplace.market import claims
from marketplace.market.tables import BIDS, host_key
from marketplace.protocol.events import BidGone
from marketplace.protocol.records import Bid

COUNTS: Final = "bid_counts"
"""Scheduled: a bid counts from the block after its own, so that nobody prices an order that he has seen."""

EXPIRY: Final = "bid_expiry"


def take_out(ctx: Context, bid: Bid, reason: str) -> None:
    """Take a bid out of the book and give up its free devices; its leases go on."""
    key = host_key(bid.provider, bid.host)
    ctx.cancel(COUNTS, key)
    ctx.cancel(EXPIRY, key)
    ctx.store.delete(BIDS, key)
    claims.give_up(ctx, key)
    ctx.emit(BidGone(host=bid.host, provider=bid.provider, reason=reason))
