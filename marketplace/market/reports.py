"""What a provider says of its leases: active, down, up, over, released."""

import msgspec

from ledger.machine import escrow
from ledger.machine.context import Context
from ledger.protocol.errors import Code, Rejected, require
from ledger.protocol.money import metered
from marketplace.market import claims, leases, liveness, pulls
from marketplace.market.tables import DEVICES, LEASES, PROVIDERS, deployment_of, host_key
from marketplace.protocol.errors import MarketCode
from marketplace.protocol.events import LeaseReleased
from marketplace.protocol.messages import CloseLease, Release, ReportActive, ReportDown, ReportPulling, ReportUp
from marketplace.protocol.records import DeviceState, Lease, LeaseState


def _own(ctx: Context, id: str, generation: int) -> Lease:
    """The lease, where the principal is its provider and names its generation; open or not."""
    lease = ctx.store.require(LEASES, id, MarketCode.LEASE_NOT_FOUND)
    require(lease.provider == ctx.principal, Code.NOT_AUTHORISED, "another provider's lease")
    if lease.generation != generation:
        raise Rejected(MarketCode.GENERATION_MISMATCH, f"the lease's generation is {lease.generation}")
    return lease


def _open(ctx: Context, id: str, generation: int) -> Lease:
    """The same, of a lease that is not closed."""
    lease = _own(ctx, id, generation)
    require(lease.state is not LeaseState.CLOSED, MarketCode.LEASE_NOT_OPEN, lease.reason)
    return lease


def report_pulling(ctx: Context, msg: ReportPulling) -> None:
    """A matched lease's manifest came and its images are pulled: it has longer to become active, at the hold rate in the end."""
    lease = _open(ctx, msg.lease, msg.generation)
    require(lease.state is LeaseState.MATCHED, MarketCode.REPORT_REFUSED, f"the lease is {lease.state.value}")
    require(not lease.pulling_ms, MarketCode.REPORT_REFUSED, f"its pull was reported at {lease.pulling_ms}")

    pulling = msgspec.structs.replace(lease, pulling_ms=ctx.time)
    leases.write(ctx, pulling, "pulling")
    liveness.beat(ctx, host_key(lease.provider, lease.host))
    ctx.schedule(ctx.time + ctx.parameter("pull_most_ms"), leases.ACTIVATION, msg.lease)
    pulls.begin(ctx, pulling)


def report_active(ctx: Context, msg: ReportActive) -> None:
    """The containers of a matched lease run, on exactly its devices: the meter starts."""
    lease = _open(ctx, msg.lease, msg.generation)
    require(lease.state is LeaseState.MATCHED, MarketCode.REPORT_REFUSED, f"the lease is {lease.state.value}")
    require(sorted(msg.devices) == sorted(lease.devices), MarketCode.DEVICES_MISMATCH, f"leased are {list(lease.devices)}")

    ctx.cancel(leases.ACTIVATION, msg.lease)
    if lease.pulling_ms:
        pulls.decide(ctx, lease, billed=True)
    leases.move(ctx, lease, LeaseState.ACTIVE, "", activated_ms=lease.activated_ms or ctx.time, images=msg.images)
    liveness.beat(ctx, host_key(lease.provider, lease.host))
    escrow.start_meter(ctx, msg.lease)


def report_down(ctx: Context, msg: ReportDown) -> None:
    """The host failed an active lease: the meter stops at the instant named, within the time since the last start."""
    lease = _open(ctx, msg.lease, msg.generation)
    require(lease.state is LeaseState.ACTIVE, MarketCode.REPORT_REFUSED, f"the lease is {lease.state.value}")

    leases.go_down(ctx, lease, msg.reason, msg.since_ms)


def report_up(ctx: Context, msg: ReportUp) -> None:
    """A lease that was down runs again."""
    lease = _open(ctx, msg.lease, msg.generation)
    require(lease.state is LeaseState.DOWN, MarketCode.REPORT_REFUSED, f"the lease is {lease.state.value}")

    liveness.beat(ctx, host_key(lease.provider, lease.host))
    current = ctx.store.get(LEASES, msg.lease)
    assert current is not None
    # The beat itself resumes a lease that only a gap between blocks had stopped.
    if current.state is LeaseState.DOWN:
        leases.go_up(ctx, current, "")


def release(ctx: Context, msg: Release) -> None:
    """Nothing of a closed lease is left on its host. Devices once cordoned are freed by a later clean release."""
    lease = _own(ctx, msg.lease, msg.generation)
    require(lease.state is LeaseState.CLOSED, MarketCode.LEASE_NOT_OPEN, "the lease is not closed")
    held = tuple(
        id
        for id in lease.devices
        if (claim := ctx.store.get(DEVICES, id)) is not None and claim.lease == msg.lease and claim.state is not DeviceState.FREE
    )
    again = lease.released
    require(not again or (held and msg.clean), MarketCode.LEASE_NOT_OPEN, "the lease is released")

    claims.release(ctx, held, msg.lease, clean=msg.clean)
    if not again:
        ctx.store.put(LEASES, msgspec.structs.replace(lease, released=True))
    ctx.emit(LeaseReleased(clean=msg.clean, lease=msg.lease, owner=lease.owner, provider=lease.provider))


def close_lease(ctx: Context, msg: CloseLease) -> None:
    """The provider ends a lease. Where the host is the cause, the group is offered again; where the tenant is, not.

    A manifest that never came costs the tenant the bid's hold rate for the time the capacity was held, paid to the
    network.
    """
    lease = _open(ctx, msg.lease, msg.generation)
    if msg.reason == "manifest_missing":
        require(lease.state is LeaseState.MATCHED, MarketCode.REPORT_REFUSED, f"the lease is {lease.state.value}")
        require(not lease.pulling_ms, MarketCode.REPORT_REFUSED, "its pull was reported, so its manifest came")

    if msg.reason == "manifest_missing":
        held_ms = min(ctx.time - lease.since_ms, ctx.parameter("activation_ms"))
        escrow.charge(ctx, deployment_of(lease), escrow.NETWORK_ACCOUNT, metered(lease.hold_per_hour, held_ms))
    leases.close(ctx, lease, msg.reason, reopen=msg.reason in leases.HOST_FAULTS, detail=msg.detail)
    provider = ctx.store.get(PROVIDERS, lease.provider)
    assert provider is not None
    ctx.store.put(PROVIDERS, msgspec.structs.replace(provider, leases_closed=provider.leases_closed + 1))
