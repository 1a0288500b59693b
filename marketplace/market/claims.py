"""Device claims: a device is offered by one host in the whole network, and leased at most once."""

from collections.abc import Collection

from ledger.machine.context import Context
from ledger.protocol.errors import require
from marketplace.market.lifecycle import advance
from marketplace.market.tables import BIDS, DEVICES, host_key
from marketplace.protocol.errors import MarketCode
from marketplace.protocol.records import DeviceClaim, DeviceState, Host
from marketplace.protocol.resources import Offer


def check(ctx: Context, host: Host, offer: Offer) -> None:
    """DEVICE_CLAIMED or DEVICE_IN_USE where another host offers, or last leased, a device on offer."""
    for device in offer.devices:
        claim = ctx.store.get(DEVICES, device.id)
        if claim is not None and (claim.provider, claim.host) != (host.provider, host.host):
            code = MarketCode.DEVICE_CLAIMED if claim.state is DeviceState.FREE else MarketCode.DEVICE_IN_USE
            require(False, code, f"{device.id} stands at host {claim.host} of {claim.provider}")


def claim(ctx: Context, host: Host, offer: Offer) -> None:
    """Claim the devices on offer; give up free ones that are no longer."""
    offered = {device.id for device in offer.devices}
    give_up(ctx, host_key(host.provider, host.host), keep=offered)
    for device in offer.devices:
        if ctx.store.get(DEVICES, device.id) is None:
            ctx.store.put(
                DEVICES,
                DeviceClaim(host=host.host, id=device.id, lease="", provider=host.provider, state=DeviceState.FREE),
            )


def give_up(ctx: Context, key: str, keep: Collection[str] = ()) -> None:
    """Let go of the free devices of a host, but for those to keep."""
    for old in ctx.store.find(DEVICES, "host", key):
        if old.state is DeviceState.FREE and old.id not in keep:
            ctx.store.delete(DEVICES, old.id)


def hold(ctx: Context, devices: tuple[str, ...], lease: str) -> None:
    """A lease takes free devices."""
    for id in devices:
        claim = ctx.store.get(DEVICES, id)
        assert claim is not None, id
        ctx.store.put(DEVICES, advance(claim, DeviceState.LEASED, lease=lease))


def release(ctx: Context, devices: tuple[str, ...], lease: str, *, clean: bool) -> None:
    """Devices of a closed lease: free where clean, else cordoned. A free one that no bid offers is claimed by nobody."""
    for id in devices:
        claim = ctx.store.get(DEVICES, id)
        assert claim is not None, id
        assert claim.lease == lease, f"{id} is held by {claim.lease}, not {lease}"
        if not clean:
            ctx.store.put(DEVICES, advance(claim, DeviceState.CORDONED))
            continue
        freed = advance(claim, DeviceState.FREE, lease="")
        bid = ctx.store.get(BIDS, host_key(claim.provider, claim.host))
        if bid is not None and any(device.id == id for device in bid.offer.devices):
            ctx.store.put(DEVICES, freed)
        else:
            ctx.store.delete(DEVICES, id)
