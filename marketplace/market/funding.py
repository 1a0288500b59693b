"""What a purse's state does to its deployment: a dry one pauses all leases of it and of no other."""

from ledger.machine.context import Context
from marketplace.market import deployments, leases, pulls
from marketplace.market.tables import DEPLOYMENTS, LEASES, lease_key
from marketplace.protocol.records import LeaseState


def ran_dry(ctx: Context, purse: str) -> None:
    """Every lease is paused: its containers are stopped, unbilled, its data kept until the grace is over."""
    for lease in ctx.store.find(LEASES, "live", purse):
        for kind in (leases.ACTIVATION, leases.DOWN):
            ctx.cancel(kind, lease_key(lease))
        if lease.pulling_ms:
            pulls.decide(ctx, lease, billed=True)
        leases.move(ctx, lease, LeaseState.PAUSED, "purse_dry", reason="purse_dry")


def funded(ctx: Context, purse: str) -> None:
    """Paused leases are to be started anew, at the next generation: what an older one still reports is refused."""
    for lease in ctx.store.find(LEASES, "live", purse):
        assert lease.state is LeaseState.PAUSED, lease_key(lease)
        leases.move(ctx, lease, LeaseState.MATCHED, "purse_funded", generation=lease.generation + 1, reason="")
        ctx.schedule(ctx.time + ctx.parameter("activation_ms"), leases.ACTIVATION, lease_key(lease))


def grace_over(ctx: Context, purse: str) -> None:
    """Nobody paid: the deployment is over."""
    deployment = ctx.store.get(DEPLOYMENTS, purse)
    assert deployment is not None, purse
    deployments.close(ctx, deployment, "insufficient_funds")
