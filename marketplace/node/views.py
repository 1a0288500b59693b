"""What readers see of records: plain dicts with amounts as decimal strings, ids as text, times in ms of block time."""

from collections import Counter
from typing import Any, Final

import msgspec

from ledger.machine.accounts import Account
from ledger.machine.bonds import BONDS, Bond
from ledger.machine.buckets import Allowance
from ledger.machine.delegation import DELEGATIONS
from ledger.machine.purse import METERS, PURSES, Purse, cost_at, horizon, purse_view, up_at
from ledger.machine.store import Store
from ledger.protocol.block import BlockResult, Header
from marketplace.market import bonds, pulls
from marketplace.market.tables import (
    ATTESTATIONS,
    HOSTS,
    LEASES,
    ORDERS,
    deployment_of,
    host_key,
    lease_key,
    order_key,
    order_of,
)
from marketplace.protocol.records import Bid, Deployment, Host, Lease, Order, OrderState, Provider

Json = dict[str, Any]

MONEY: Final = frozenset(
    {
        "rate_per_hour", "hold_per_hour", "balance", "charged", "deposited", "paid", "refunded", "withdrawn", "accrued", "free",
        "spend_per_day", "spent", "fee", "dues", "reserve", "cut", "leaving", "needed", "posted", "returned",
    }
)  # fmt: skip
"""Fields that are integers of micro-units in records and decimal strings here."""


def plain(record: msgspec.Struct) -> Json:
    """The fields of a record as JSON-able values, money as strings."""
    found: Json = msgspec.to_builtins(record)
    return {name: str(value) if name in MONEY and isinstance(value, int) else value for name, value in found.items()}


def account(store: Store, record: Account, allowance: Allowance) -> Json:
    """An account with its bonds and delegations, and what it may send."""
    delegations = [plain(d) for d in store.find(DELEGATIONS, "address", record.address)]
    return {
        "address": record.address,
        "balances": {name: str(amount) for name, amount in sorted(record.balances.items())},
        "key": record.key,
        "sequence": record.sequence,
        "version": record.version,
        "bucket": plain(allowance),
        "bonds": [bond(store, b) for b in store.find(BONDS, "address", record.address)],
        "delegations": [{k: v for k, v in d.items() if k != "address"} for d in delegations],
    }


def bond(store: Store, record: Bond) -> Json:
    """A bond with what the provider's bids in its denomination need now, and what of it bids and open leases hold."""
    found = {name: value for name, value in plain(record).items() if name != "address"}
    return found | {
        "needed": str(bonds.needed(store, bonds.minimum_of(store), record.address, record.denomination)),
        "stays": str(bonds.demanded(store, record.address, record.denomination)),
    }


def provider(store: Store, record: Provider) -> Json:
    """A provider with its hosts, its bonds and what auditors say of it."""
    return plain(record) | {
        "bonds": [bond(store, b) for b in store.find(BONDS, "address", record.address)],
        "hosts": [host(h) for h in store.find(HOSTS, "provider", record.address)],
        "attestations": [plain(a) for a in store.find(ATTESTATIONS, "provider", record.address)],
        "open_leases": sum(not lease.released for lease in store.find(LEASES, "provider", record.address)),
    }


def host(record: Host) -> Json:
    """A host."""
    return {"id": host_key(record.provider, record.host)} | plain(record)


def bid(store: Store, record: Bid) -> Json:
    """A bid with what it has free: devices that no lease holds, by model."""
    id = host_key(record.provider, record.host)
    taken = {device for lease in store.find(LEASES, "host", id) for device in lease.devices}
    devices = record.offer.devices
    free = Counter(d.model for d in devices if d.id not in taken)
    at = store.get(HOSTS, id)
    return plain(record) | {
        "id": id,
        "models": dict(sorted(Counter(d.model for d in devices).items())),
        "free": {model: free[model] for model in sorted({d.model for d in devices})},
        "simulated": any(d.simulated for d in devices),
        "silent": bool(at and at.silent),
    }


def order(record: Order) -> Json:
    """An order; the limit of an open one is its owner's secret until it is matched."""
    found = plain(record)
    if record.state is OrderState.OPEN:
        found["group"] = {name: value for name, value in found["group"].items() if name != "limit_per_hour"}
    return {"id": order_key(record)} | found


def purse(store: Store, record: Purse, now_ms: int) -> Json:
    """A purse as it stands now."""
    seen = purse_view(store, record.id, now_ms)
    found = plain(record) | plain(seen)
    found["deposits"] = [{"depositor": depositor, "left": str(left)} for depositor, left in record.deposits]
    return found


def lease(store: Store, record: Lease, now_ms: int) -> Json:
    """A lease with what it costs until now, what of that is paid, what its long pulls cost, and when its purse runs dry."""
    id = lease_key(record)
    found = plain(record) | {"id": id, "order": order_of(record), "deployment": deployment_of(record)}
    held = store.get(PURSES, deployment_of(record))
    meter = store.get(METERS, id)
    cost = paid = up_ms = least_ms = 0
    hold = store.get(METERS, pulls.hold_of(id))
    hold_cost = hold_ms = 0
    if meter is not None and held is not None:
        until = horizon(held, now_ms)
        cost, paid, up_ms, least_ms = cost_at(meter, until), meter.paid, up_at(meter, until), meter.least_ms
        if hold is not None:
            hold_cost, hold_ms = cost_at(hold, until) - hold.credited, up_at(hold, until)
    dry_at_ms = held.dry_at_ms or None if held is not None else None
    found |= {
        "cost": str(cost),
        "paid": str(paid),
        "up_ms": up_ms,
        "least_ms": least_ms,
        "pulling_ms": record.pulling_ms,
        "hold_cost": str(hold_cost),
        "hold_ms": hold_ms,
        "dry_at_ms": dry_at_ms,
        "time_ms": now_ms,
    }
    return found


def deployment(record: Deployment) -> Json:
    """A deployment alone, as it stands in lists."""
    return {"id": deployment_of(record)} | plain(record)


def deployment_whole(store: Store, record: Deployment, now_ms: int) -> Json:
    """A deployment with its orders, leases and purse."""
    id = deployment_of(record)
    held = store.get(PURSES, id)
    return deployment(record) | {
        "orders": [order(o) for o in store.find(ORDERS, "deployment", id)],
        "leases": [lease(store, found, now_ms) for found in store.find(LEASES, "deployment", id)],
        "purse": purse(store, held, now_ms) if held else None,
    }


def header(record: Header) -> Json:
    """A block's header with its hash."""
    found: Json = msgspec.to_builtins(record)
    return found | {"hash": record.hash}


def block(raws: list[bytes], result: BlockResult) -> Json:
    """A whole block: transactions as they were received, receipts, and events outside transactions."""
    return header(result.header) | {
        "signed": [msgspec.Raw(raw) for raw in raws],
        "receipts": list(result.receipts),
        "begin_events": list(result.begin_events),
        "end_events": list(result.end_events),
    }
