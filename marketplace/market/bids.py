"""Standing bids: put, replaced, cancelled, expired."""

import msgspec

from ledger.machine.context import Context
from ledger.protocol.errors import Code, require
from ledger.protocol.money import parse_amount
from marketplace.market import bonds, claims, liveness, offers
from marketplace.market.pricing import price_list
from marketplace.market.tables import BIDS, HOSTS, PROVIDERS, host_key
from marketplace.protocol.errors import MarketCode
from marketplace.protocol.events import BidPut
from marketplace.protocol.messages import CancelBid, PutBid
from marketplace.protocol.records import Bid


def put_bid(ctx: Context, msg: PutBid) -> None:
    """Put the standing offer of a host, or replace it. It may fall below what unreleased leases hold."""
    ctx.store.require(PROVIDERS, ctx.principal, MarketCode.PROVIDER_NOT_FOUND)
    key = host_key(ctx.principal, msg.host)
    host = ctx.store.require(HOSTS, key, MarketCode.HOST_NOT_FOUND)
    old = ctx.store.get(BIDS, key)
    if msg.version:
        ctx.store.require(BIDS, key, MarketCode.BID_NOT_FOUND)
    version = old.version if old else 0
    require(msg.version == version, Code.VERSION_MISMATCH, f"the bid's version is {version}")
    require(msg.expires_ms > ctx.time, MarketCode.BID_EXPIRED, f"it is {ctx.time}")
    _check_offer(msg)
    bonds.check(ctx, msg)
    claims.check(ctx, host, msg.offer)

    claims.claim(ctx, host, msg.offer)
    bid = Bid(
        denomination=msg.denomination,
        expires_ms=msg.expires_ms,
        height=ctx.height,
        host=msg.host,
        offer=msg.offer,
        prices=msg.prices,
        provider=ctx.principal,
        terms=msg.terms,
        version=host.bids + 1,
    )
    ctx.store.put(BIDS, bid)
    ctx.store.put(HOSTS, msgspec.structs.replace(host, bids=host.bids + 1))
    liveness.beat(ctx, key)
    ctx.schedule(ctx.time + 1, offers.COUNTS, key)
    ctx.schedule(msg.expires_ms, offers.EXPIRY, key)
    ctx.emit(BidPut(host=msg.host, provider=ctx.principal, version=bid.version))
    if ctx.protocol >= 2:
        bonds.leave(ctx, ctx.principal)


def cancel_bid(ctx: Context, msg: CancelBid) -> None:
    """Take a bid out of the book; its leases go on."""
    key = host_key(ctx.principal, msg.host)
    bid = ctx.store.require(BIDS, key, MarketCode.BID_NOT_FOUND)
    require(bid.version == msg.version, Code.VERSION_MISMATCH, f"the bid's version is {bid.version}")

    offers.take_out(ctx, bid, "cancelled")
    bonds.leave(ctx, ctx.principal)


def expire(ctx: Context, key: str) -> None:
    """Scheduled at a bid's expiry: it leaves the book."""
    bid = ctx.store.get(BIDS, key)
    assert bid is not None, key
    offers.take_out(ctx, bid, "expired")
    bonds.leave(ctx, bid.provider)


def _check_offer(msg: PutBid) -> None:
    """OFFER_REFUSED where a device is named twice, something on offer has no price, or no lease could keep the terms."""
    prices = price_list(msg.prices)
    parse_amount(msg.terms.hold_per_hour)
    longest = msg.terms.max_duration_ms
    possible = not longest or msg.terms.least_ms <= longest
    require(possible, MarketCode.OFFER_REFUSED, "the shortest duration is longer than the longest")
    ids = [device.id for device in msg.offer.devices]
    require(len(set(ids)) == len(ids), MarketCode.OFFER_REFUSED, "a device is named twice")
    for device in msg.offer.devices:
        require(prices.of_gpu(device.model) is not None, MarketCode.OFFER_REFUSED, f"no price for GPU {device.model}")
    for name in sorted(msg.offer.storage):
        require(prices.of_storage(name) is not None, MarketCode.OFFER_REFUSED, f"no price for storage {name}")
