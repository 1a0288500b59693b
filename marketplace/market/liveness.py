"""Who is alive: heartbeats, silence, gaps between blocks, and what becomes of leases then.

Silence is judged from the last beat, but never from before the end of the last gap: when the chain itself stood
still, nobody could beat.
"""

import msgspec

from ledger.machine import schedule
from ledger.machine.context import Context
from ledger.protocol.errors import require
from marketplace.market import leases, pulls
from marketplace.market.orders import clock
from marketplace.market.tables import BIDS, CLOCK, HOSTS, LEASES, PROVIDERS, host_key, lease_key
from marketplace.protocol.errors import MarketCode
from marketplace.protocol.events import BidGone, BidPut
from marketplace.protocol.messages import Heartbeat
from marketplace.protocol.records import LeaseState

SILENCE = "host_silence"

TICK = "market_tick"
"""Scheduled while anybody is to be judged: a quiet chain then has blocks, and only one that stood still has a gap."""


def heartbeat(ctx: Context, msg: Heartbeat) -> None:
    """Hosts of the principal are alive."""
    ctx.store.require(PROVIDERS, ctx.principal, MarketCode.PROVIDER_NOT_FOUND)
    keys = [host_key(ctx.principal, host) for host in msg.hosts]
    for key in keys:
        require(ctx.store.get(HOSTS, key) is not None, MarketCode.HOST_NOT_FOUND, key)

    for key in keys:
        beat(ctx, key)


def watch(ctx: Context, key: str) -> None:
    """Look at a host when it would have been silent for too long."""
    ctx.schedule(ctx.time + ctx.parameter("silence_ms"), SILENCE, key)
    if not schedule.is_set(ctx.store, TICK, "market"):
        _next_tick(ctx)


def tick(ctx: Context, id: str) -> None:
    """Scheduled: go on while a host is not silent or a lease is not closed."""
    del id
    if ctx.store.count(HOSTS, "heard", True) or ctx.store.count(LEASES, "unclosed", True):
        _next_tick(ctx)


def _next_tick(ctx: Context) -> None:
    # From block time, not from the tick's own due time: a long gap is not ticked through.
    ctx.schedule(max(ctx.time, clock(ctx.store).last_ms) + (ctx.parameter("silence_ms") >> 1), TICK, "market")


def beat(ctx: Context, key: str) -> None:
    """A sign of life: a silent host is back in the book, leases that a gap stopped go on."""
    host = ctx.store.get(HOSTS, key)
    assert host is not None, key
    first_after_gap = host.beat_ms < clock(ctx.store).resumed_ms
    ctx.store.put(HOSTS, msgspec.structs.replace(host, beat_ms=ctx.time, silent=False))
    if host.silent:
        watch(ctx, key)
        bid = ctx.store.get(BIDS, key)
        if bid is not None:
            ctx.emit(BidPut(host=bid.host, provider=bid.provider, version=bid.version))
    if first_after_gap:
        for lease in ctx.store.find(LEASES, "host", key):
            if lease.state is LeaseState.DOWN and lease.reason == "gap":
                leases.go_up(ctx, lease, "gap_over")


def silence(ctx: Context, key: str) -> None:
    """Scheduled: judge a host. A silent one's bid does not match, and its meters stop back to its last beat."""
    host = ctx.store.get(HOSTS, key)
    assert host is not None, key
    due = max(host.beat_ms, clock(ctx.store).resumed_ms) + ctx.parameter("silence_ms")
    if ctx.time < due:
        ctx.schedule(due, SILENCE, key)
        return
    ctx.store.put(HOSTS, msgspec.structs.replace(host, silent=True))
    if ctx.store.get(BIDS, key) is not None:
        ctx.emit(BidGone(host=host.host, provider=host.provider, reason="silence"))
    for lease in ctx.store.find(LEASES, "host", key):
        if lease.state is LeaseState.ACTIVE:
            leases.go_down(ctx, lease, "silence", host.beat_ms)
        elif lease.pulling_ms:
            pulls.silent(ctx, lease, host.beat_ms)
        elif lease.state is LeaseState.DOWN and lease.reason == "gap":
            ctx.store.put(LEASES, msgspec.structs.replace(lease, reason="silence"))


def gap(ctx: Context) -> None:
    """At a block's beginning: after too long a gap, running meters stop at the previous block's time, by nobody's fault."""
    now = clock(ctx.store)
    gone = bool(now.last_ms) and ctx.time - now.last_ms > ctx.parameter("silence_ms")
    resumed = ctx.time if gone or not now.last_ms else now.resumed_ms
    ctx.store.put(CLOCK, msgspec.structs.replace(now, last_ms=ctx.time, resumed_ms=resumed))
    if gone:
        # As of the previous block, however long ago: no limit on backdating may charge for the time between.
        ctx.time = now.last_ms
        for lease in ctx.store.find(LEASES, "active", True):
            leases.go_down(ctx, lease, "gap", now.last_ms)
        ctx.time = resumed
        pulls.stood_still(ctx, now.last_ms)


def activation(ctx: Context, id: str) -> None:
    """Scheduled: a matched lease that nobody started, or whose pull took too long. Its order is over, or its host was silent."""
    lease = ctx.store.get(LEASES, id)
    assert lease is not None, id
    assert lease.state is LeaseState.MATCHED, f"{id} is {lease.state}"
    limit = ctx.parameter("pull_most_ms" if lease.pulling_ms else "activation_ms")
    due = max(lease.pulling_ms or lease.since_ms, clock(ctx.store).resumed_ms) + limit
    if ctx.time < due:
        ctx.schedule(due, leases.ACTIVATION, id)
        return
    host = ctx.store.get(HOSTS, host_key(lease.provider, lease.host))
    assert host is not None
    if host.silent:
        leases.close(ctx, lease, "silence", reopen=True)
    else:
        leases.close(ctx, lease, "not_activated", reopen=False)


def down_too_long(ctx: Context, id: str) -> None:
    """Scheduled: a lease that is still down is over, and its group is offered again."""
    lease = ctx.store.get(LEASES, id)
    assert lease is not None, id
    assert lease.state is LeaseState.DOWN, f"{id} is {lease.state}"
    due = max(lease.since_ms, clock(ctx.store).resumed_ms) + ctx.parameter("silence_close_ms")
    if ctx.time < due:
        ctx.schedule(due, leases.DOWN, id)
        return
    leases.close(ctx, lease, lease.reason, reopen=True)


def term_over(ctx: Context, id: str) -> None:
    """Scheduled at the longest duration that a bid promised: the lease is over, and its group is offered again."""
    lease = ctx.store.get(LEASES, id)
    assert lease is not None, id
    assert lease_key(lease) == id
    leases.close(ctx, lease, "term_over", reopen=True)
