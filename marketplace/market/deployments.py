"""Deployments: opened with their purse, given another manifest, closed; and orders taken by hand."""

import msgspec

from ledger.machine import escrow
from ledger.machine.context import Context
from ledger.protocol.errors import Code, require
from ledger.protocol.money import MS_PER_HOUR, ceil_div, parse_amount
from marketplace.market import leases, orders
from marketplace.market.lifecycle import advance
from marketplace.market.placement import Miss, ask_of, entry_of, examine
from marketplace.market.tables import BIDS, DEPLOYMENTS, LEASES, ORDERS, host_key
from marketplace.protocol.errors import MarketCode
from marketplace.protocol.events import DeploymentEnded, DeploymentOpened, DeploymentUpdated
from marketplace.protocol.ids import deployment_id, parse_order
from marketplace.protocol.messages import CloseDeployment, CloseGroup, CreateDeployment, TakeBid, UpdateDeployment
from marketplace.protocol.records import Deployment, DeploymentState, OrderState

LIMIT_MOST = 10**15
"""Highest limit of a group in micro-units an hour: a billion whole units."""


def since(msg: CreateDeployment) -> int:
    """The protocol from which on a CreateDeployment is understood: a group may say what it lets itself be bound to."""
    return 2 if any(group.bound_ms is not msgspec.UNSET for group in msg.groups) else 1


def create_deployment(ctx: Context, msg: CreateDeployment) -> None:
    """Open a deployment with its purse; each group becomes an order."""
    id = deployment_id(ctx.principal, msg.dseq)
    require(ctx.store.get(DEPLOYMENTS, id) is None, MarketCode.DEPLOYMENT_EXISTS, id)
    most = ctx.parameter("max_deployments")
    active = ctx.store.count(DEPLOYMENTS, "active", ctx.principal)
    require(active < most, MarketCode.TOO_MANY, f"at most {most} deployments")
    _check_groups(ctx, msg)
    limits = sum(parse_amount(group.limit_per_hour) for group in msg.groups)
    deposit = parse_amount(msg.deposit)
    least = max(1, ceil_div(limits * ctx.parameter("min_funding_ms"), MS_PER_HOUR))
    require(deposit >= least, MarketCode.DEPOSIT_TOO_SMALL, f"at least {least} micro-units")

    escrow.open_purse(ctx, id, ctx.principal, msg.denomination, deposit)
    ctx.store.put(
        DEPLOYMENTS,
        Deployment(
            closed_ms=0,
            created_ms=ctx.time,
            denomination=msg.denomination,
            dseq=msg.dseq,
            groups=len(msg.groups),
            hash=msg.hash,
            owner=ctx.principal,
            reason="",
            spec_hash=msg.spec_hash,
            state=DeploymentState.ACTIVE,
            version=1,
        ),
    )
    ctx.emit(DeploymentOpened(deployment=id, owner=ctx.principal))
    for gseq, group in enumerate(msg.groups, 1):
        orders.open_order(ctx, ctx.principal, msg.dseq, gseq, group, msg.denomination)


def _check_groups(ctx: Context, msg: CreateDeployment) -> None:
    """GROUP_REFUSED or LIMIT_REFUSED where a group makes no sense."""
    names = [group.name for group in msg.groups]
    require(len(set(names)) == len(names), MarketCode.GROUP_REFUSED, "two groups share a name")
    for group in msg.groups:
        late = group.deadline_ms and group.deadline_ms <= ctx.time
        require(not late, MarketCode.GROUP_REFUSED, f"{group.name}: its deadline has passed")
        within = 1 <= parse_amount(group.limit_per_hour) <= LIMIT_MOST
        require(within, MarketCode.LIMIT_REFUSED, f"{group.name}: a limit is 1 to {LIMIT_MOST} micro-units an hour")


def _active(ctx: Context, dseq: int) -> Deployment:
    """The principal's deployment, where it is not closed."""
    deployment = ctx.store.require(DEPLOYMENTS, deployment_id(ctx.principal, dseq), MarketCode.DEPLOYMENT_NOT_FOUND)
    require(deployment.state is DeploymentState.ACTIVE, MarketCode.DEPLOYMENT_CLOSED, deployment.reason)
    return deployment


def update_deployment(ctx: Context, msg: UpdateDeployment) -> None:
    """Run another manifest in the same groups."""
    old = _active(ctx, msg.dseq)
    require(old.version == msg.version, Code.VERSION_MISMATCH, f"the deployment's version is {old.version}")

    ctx.store.put(DEPLOYMENTS, msgspec.structs.replace(old, hash=msg.hash, spec_hash=msg.spec_hash, version=old.version + 1))
    ctx.emit(DeploymentUpdated(deployment=deployment_id(old.owner, old.dseq), hash=msg.hash, owner=old.owner))


def take_bid(ctx: Context, msg: TakeBid) -> None:
    """Lease an open order to the bid that its owner picked. It must fit as in any match."""
    order = ctx.store.require(ORDERS, msg.order, MarketCode.ORDER_NOT_FOUND)
    require(parse_order(msg.order)[0] == ctx.principal, Code.NOT_AUTHORISED, "another tenant's order")
    require(order.state is OrderState.OPEN, MarketCode.ORDER_NOT_OPEN, f"it is {order.state.value}")
    key = host_key(msg.provider, msg.host)
    bid = ctx.store.require(BIDS, key, MarketCode.BID_NOT_FOUND)
    require(bid.version == msg.version, Code.VERSION_MISMATCH, f"the bid's version is {bid.version}")
    entry = entry_of(ctx.store, key)
    assert entry is not None
    purse = escrow.purse_view(ctx.store, deployment_id(order.owner, order.dseq), ctx.time)
    found = examine(ctx.store, ask_of(order.group, order.denomination, order.avoid, purse.free), entry, ctx.height)
    if isinstance(found, Miss):
        require(False, MarketCode.BID_DOES_NOT_FIT, found.test)
        return
    require(purse.state != "dry", Code.PURSE_LOCKED, "the purse is dry")

    leases.match(ctx, order, found)


def close_deployment(ctx: Context, msg: CloseDeployment) -> None:
    """End all leases and orders of a deployment, settle and refund at once."""
    close(ctx, _active(ctx, msg.dseq), "owner")


def close_group(ctx: Context, msg: CloseGroup) -> None:
    """End the lease or order of one group; the purse stays."""
    deployment = _active(ctx, msg.dseq)
    require(msg.gseq <= deployment.groups, MarketCode.GROUP_NOT_FOUND, f"{deployment.groups} groups")
    id = deployment_id(ctx.principal, msg.dseq)
    lease = next((found for found in ctx.store.find(LEASES, "live", id) if found.gseq == msg.gseq), None)
    order = next((found for found in ctx.store.find(ORDERS, "open", id) if found.gseq == msg.gseq), None)
    require(lease or order, MarketCode.ORDER_NOT_OPEN, "the group is over")

    if lease is not None:
        leases.close(ctx, lease, "owner", reopen=False)
    if order is not None:
        orders.close_order(ctx, order, "owner")


def close(ctx: Context, deployment: Deployment, reason: str) -> None:
    """End a deployment: each lease is paid, each order closed, the rest of the purse refunded."""
    id = deployment_id(deployment.owner, deployment.dseq)
    for lease in ctx.store.find(LEASES, "live", id):
        leases.close(ctx, lease, reason, reopen=False)
    for order in ctx.store.find(ORDERS, "open", id):
        orders.close_order(ctx, order, reason)
    escrow.close_purse(ctx, id)
    ctx.store.put(DEPLOYMENTS, advance(deployment, DeploymentState.CLOSED, closed_ms=ctx.time, reason=reason))
    ctx.emit(DeploymentEnded(deployment=id, owner=deployment.owner, reason=reason))
