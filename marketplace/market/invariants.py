"""What must hold of the market's state after every block; a broken one is our bug and stops the machine."""

from ledger.machine.bonds import BONDS
from ledger.machine.escrow import METERS, PURSES
from ledger.machine.held import held_of
from ledger.machine.params import chain
from ledger.machine.store import Store
from marketplace.market import bonds, pulls
from marketplace.market.pricing import need_of
from marketplace.market.tables import (
    BIDS,
    DEPLOYMENTS,
    DEVICES,
    HOSTS,
    LEASES,
    ORDERS,
    deployment_of,
    host_key,
    lease_key,
    order_of,
)
from marketplace.protocol.records import DeploymentState, DeviceState, Lease, LeaseState, OrderState


def check(store: Store) -> None:
    """All of them, over the whole state."""
    _devices(store)
    _leases(store)
    _deployments(store)
    _bids(store)
    _bonds(store)


def _bonds(store: Store) -> None:
    """What was asked back of a bond has left once its time came and nothing stands on it."""
    now = chain(store).time_ms
    for bond in store.scan(BONDS):
        late = bond.leaving and bond.leaves_ms <= now and not bonds.stands(store, bond.address)
        assert not late, f"{bond.leaving} of the bond of {bond.address} should have left"


def _devices(store: Store) -> None:
    """A device is in at most one unreleased lease, and its claim says which."""
    held: dict[str, str] = {}
    for lease in store.scan(LEASES):
        if lease.released:
            continue
        for id in lease.devices:
            assert id not in held, f"device {id} is in leases {held[id]} and {lease_key(lease)}"
            held[id] = lease_key(lease)
    for claim in store.scan(DEVICES):
        if claim.state is DeviceState.LEASED:
            assert held.pop(claim.id, None) == claim.lease, f"device {claim.id} is leased to {claim.lease}"
        else:
            assert claim.id not in held, f"device {claim.id} is {claim.state} and in lease {held[claim.id]}"
            assert (claim.state is DeviceState.FREE) == (claim.lease == ""), claim.id
    assert not held, f"leased devices without a claim: {sorted(held)}"


def _leases(store: Store) -> None:
    """A lease has its order and its meter; one meter runs where the lease is active, and nowhere else."""
    for lease in store.scan(LEASES):
        id = lease_key(lease)
        order = store.get(ORDERS, order_of(lease))
        meter = store.get(METERS, id)
        assert order is not None, id
        assert meter is not None, id
        closed = lease.state is LeaseState.CLOSED
        assert closed == (order.state is OrderState.CLOSED), f"{id} {lease.state}, its order {order.state}"
        assert closed == meter.closed, f"{id} {lease.state}, its meter {'closed' if meter.closed else 'open'}"
        assert (lease.state is LeaseState.ACTIVE) == bool(meter.since_ms), f"{id} {lease.state}, meter since {meter.since_ms}"
        assert meter.rate_per_hour == lease.rate_per_hour, id
        assert lease.rate_per_hour <= int(order.group.limit_per_hour), f"{id} costs more than its limit"
        assert closed or not lease.released, f"{id} is released and not closed"
        _pull(store, lease, id)


def _pull(store: Store, lease: Lease, id: str) -> None:
    """Only a matched lease is pulled, and only while it is its hold runs or waits for the end of the pull."""
    pulling = lease.state is LeaseState.MATCHED and lease.pulling_ms
    assert pulling or not lease.pulling_ms, f"{id} is {lease.state} and pulled"
    hold = store.get(METERS, pulls.hold_of(id))
    assert pulling or not held_of(store, pulls.hold_of(id)), f"{id} is {lease.state}, and its hold is undecided"
    if hold is None:
        return
    assert hold.closed == (lease.state is LeaseState.CLOSED), (
        f"{id} {lease.state}, its hold {'closed' if hold.closed else 'open'}"
    )
    assert pulling or not hold.since_ms, f"{id} is {lease.state}, and its hold runs"
    assert hold.rate_per_hour == lease.hold_per_hour <= lease.rate_per_hour, f"the hold of {id} is {hold.rate_per_hour}"


def _deployments(store: Store) -> None:
    """A closed deployment has nothing open; its purse is closed and empty: what came in is paid, charged or back."""
    for deployment in store.scan(DEPLOYMENTS):
        id = deployment_of(deployment)
        purse = store.get(PURSES, id)
        assert purse is not None, id
        closed = deployment.state is DeploymentState.CLOSED
        assert closed == (purse.state == "closed"), f"{id} {deployment.state}, its purse {purse.state}"
        assert purse.deposited == purse.balance + purse.paid + purse.charged + purse.refunded + purse.withdrawn, id
        if closed:
            assert not store.count(LEASES, "live", id), f"{id} is closed and has leases"
            assert not store.count(ORDERS, "open", id), f"{id} is closed and has orders"
            assert purse.balance == 0, id
        if purse.state == "dry":
            assert all(lease.state is LeaseState.PAUSED for lease in store.find(LEASES, "live", id)), id
        for gseq in range(1, deployment.groups + 1):
            live = [lease for lease in store.find(LEASES, "live", id) if lease.gseq == gseq]
            waits = [order for order in store.find(ORDERS, "open", id) if order.gseq == gseq]
            assert len(live) + len(waits) <= 1, f"group {gseq} of {id} has {len(live)} leases and {len(waits)} orders"


def _bids(store: Store) -> None:
    """A bid has its host and claims its devices; what is leased of a host never exceeds what was on offer when it was leased."""
    for bid in store.scan(BIDS):
        key = host_key(bid.provider, bid.host)
        host = store.get(HOSTS, key)
        assert host is not None, key
        assert bid.version == host.bids, key
        for device in bid.offer.devices:
            claim = store.get(DEVICES, device.id)
            assert claim is not None, device.id
            assert host_key(claim.provider, claim.host) == key, device.id
        leases = [lease for lease in store.find(LEASES, "host", key) if lease.bid_version == bid.version]
        needs = []
        for lease in leases:
            order = store.get(ORDERS, order_of(lease))
            assert order is not None
            needs.append(need_of(order.group))
        assert sum(need.cpu_milli for need in needs) <= bid.offer.cpu_milli, key
        assert sum(need.memory for need in needs) <= bid.offer.memory, key
        assert sum(need.ports for need in needs) <= bid.offer.ports, key
        for name, size in bid.offer.storage.items():
            assert sum(need.storage.get(name, 0) for need in needs) <= size, f"{key} {name}"
