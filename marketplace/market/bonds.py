"""A provider's bond: what its bids need, what its faults cost, and when it may leave.

It is cut only for what the ledger itself sees, and goes to the network: who could gain by a provider's fault would
bring it about.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ledger.machine import bonds, params
from ledger.machine.accounts import NETWORK_ACCOUNT, positive
from ledger.machine.bonds import BONDS
from ledger.machine.context import Context
from ledger.machine.store import Store
from ledger.protocol.errors import require
from ledger.protocol.money import parse_amount
from marketplace.market import offers
from marketplace.market.parameters import PARAMETERS
from marketplace.market.tables import BIDS, LEASES, ORDERS, lease_key, order_of
from marketplace.protocol.errors import MarketCode
from marketplace.protocol.messages import PostBond, PutBid, WithdrawBond
from marketplace.protocol.records import Lease
from marketplace.protocol.resources import Offer

COOLED: Final = "bond_cooled"

CUTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "not_activated": "bond_cut_activation",
        "silence": "bond_cut_silence",
        **dict.fromkeys(("host_failed", "device_lost", "xid", "host_stop", "maintenance"), "bond_cut_early"),
    }
)
"""Which parameter says what the end of a lease costs its provider, by reason. Any other end costs nothing."""


def post_bond(ctx: Context, msg: PostBond) -> None:
    """Add the principal's money to its bond."""
    bonds.post(ctx, ctx.principal, msg.denomination, positive(msg.amount))
    if ctx.protocol >= 2:
        leave(ctx, ctx.principal)


def withdraw_bond(ctx: Context, msg: WithdrawBond) -> None:
    """Ask for a part of the bond: it leaves after the cooling time, and when what stays is enough, see `leave`."""
    key = f"{ctx.principal}/{msg.denomination}"
    ctx.store.require(BONDS, key, MarketCode.BOND_NOT_FOUND)
    amount = parse_amount(msg.amount)
    leaves_ms = ctx.time + ctx.parameter("bond_cooling_ms")
    bonds.ask_back(ctx, ctx.principal, msg.denomination, amount, leaves_ms)
    if amount:
        ctx.schedule(leaves_ms, COOLED, key)
    else:
        ctx.cancel(COOLED, key)


def cooled(ctx: Context, key: str) -> None:
    """Scheduled at the end of the cooling time: the bond leaves, or waits until what stays is enough."""
    leave(ctx, key.partition("/")[0])


def leave(ctx: Context, provider: str) -> None:
    """Give back what a provider asked for and what nothing holds any more.

    Under protocol 1 every bid and open lease holds all of it, later they hold what they demand: the rest leaves, whole or
    not at all.
    """
    for bond in ctx.store.find(BONDS, "address", provider):
        if not bond.leaving or bond.leaves_ms > ctx.time:
            continue
        rest = bond.balance - bond.leaving
        if not stands(ctx.store, provider) or (ctx.protocol >= 2 and rest >= demanded(ctx.store, provider, bond.denomination)):
            bonds.give_back(ctx, bond)


def stands(store: Store, provider: str) -> bool:
    """True while a provider has a bid in the book or a lease that is not closed."""
    return bool(store.count(BIDS, "provider", provider) or store.count(LEASES, "serving", provider))


def units_of(offer: Offer) -> int:
    """What an offer counts for: its GPUs, a host without any for one."""
    return max(1, len(offer.devices))


def minimum_of(store: Store) -> int:
    """The bond for each GPU that is asked now, from state alone."""
    return _value(store, "bond_minimum")


def _value(store: Store, name: str) -> int:
    found = store.get(params.PARAMETERS, name)
    return found.value if found else PARAMETERS[name][0]


def demanded(store: Store, provider: str, denomination: str) -> int:
    """What of a bond may not leave, in micro-units, from state alone.

    The minimum for each GPU that is on offer or in an open lease, a host without any counting as one; and no less than
    the dearest cut of each open lease.
    """
    bids = [bid for bid in store.find(BIDS, "provider", provider) if bid.denomination == denomination]
    leases = [found for found in store.find(LEASES, "serving", provider) if _paid_in(store, found) == denomination]
    units = sum(units_of(bid.offer) for bid in bids)
    offered = {device.id for bid in bids for device in bid.offer.devices}
    units += sum(id not in offered for lease in leases for id in lease.devices)
    units += len({lease.host for lease in leases if not lease.devices} - {bid.host for bid in bids})
    dearest = max(_value(store, name) for name in CUTS.values())
    exposed = dearest * sum(max(1, len(lease.devices)) for lease in leases)
    return max(minimum_of(store) * units, exposed)


def _paid_in(store: Store, lease: Lease) -> str:
    """The denomination that a lease is paid in."""
    order = store.get(ORDERS, order_of(lease))
    assert order is not None, lease_key(lease)
    return order.denomination


def needed(store: Store, minimum: int, provider: str, denomination: str, besides: str = "") -> int:
    """What a provider's bids in a denomination need at `minimum` for each GPU, without the bid of host `besides`."""
    if not minimum:
        return 0
    bids = store.find(BIDS, "provider", provider)
    return minimum * sum(units_of(bid.offer) for bid in bids if bid.denomination == denomination and bid.host != besides)


def check(ctx: Context, msg: PutBid) -> None:
    """BOND_TOO_SMALL where the bond, less what is asked back, is below what the provider's bids need with this one."""
    minimum = ctx.parameter("bond_minimum")
    if not minimum:
        return
    need = needed(ctx.store, minimum, ctx.principal, msg.denomination, msg.host) + minimum * units_of(msg.offer)
    bond = bonds.bond_of(ctx.store, ctx.principal, msg.denomination)
    have = bond.balance - bond.leaving
    detail = f"its bids need a bond of {need} micro-units of {msg.denomination}, {have} are posted: post {need - have} more"
    require(have >= need, MarketCode.BOND_TOO_SMALL, detail)


def cut(ctx: Context, lease: Lease, denomination: str) -> None:
    """Cut the bond of a provider for the way in which a lease ended, if that is its fault.

    What is left may be too small for its bids in that denomination: then they leave the book, all of them.
    """
    name = CUTS.get(lease.reason)
    amount = ctx.parameter(name) * max(1, len(lease.devices)) if name else 0
    if not amount or not bonds.cut(ctx, lease.provider, denomination, amount, NETWORK_ACCOUNT, lease_key(lease)):
        return
    need = needed(ctx.store, ctx.parameter("bond_minimum"), lease.provider, denomination)
    if bonds.bond_of(ctx.store, lease.provider, denomination).balance < need:
        for bid in ctx.store.find(BIDS, "provider", lease.provider):
            if bid.denomination == denomination:
                offers.take_out(ctx, bid, "bond")
