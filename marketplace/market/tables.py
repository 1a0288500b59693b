"""The market's tables in the ledger's state."""

from typing import Final

from ledger.machine.store import Table
from marketplace.protocol.ids import deployment_id, order_id
from marketplace.protocol.records import (
    Attestation,
    Bid,
    Clock,
    Deployment,
    DeploymentState,
    DeviceClaim,
    Host,
    Lease,
    LeaseState,
    Look,
    Order,
    OrderState,
    Provider,
)


def host_key(provider: str, host: str) -> str:
    """Key of a host and of its bid."""
    return f"{provider}/{host}"


def order_key(order: Order) -> str:
    """Id of an order."""
    return order_id(order.owner, order.dseq, order.gseq, order.oseq)


def order_of(lease: Lease) -> str:
    """Id of the order that a lease fills."""
    return order_id(lease.owner, lease.dseq, lease.gseq, lease.oseq)


def lease_key(lease: Lease) -> str:
    """Id of a lease, and of its meter."""
    return f"{lease.owner}/{lease.dseq}/{lease.gseq}/{lease.oseq}/{lease.provider}"


def deployment_of(record: Lease | Order | Deployment) -> str:
    """Id of the deployment that an order or lease belongs to, and of its purse."""
    return deployment_id(record.owner, record.dseq)


PROVIDERS: Final[Table[Provider]] = Table("provider", Provider, lambda r: r.address)
HOSTS: Final[Table[Host]] = Table(
    "host",
    Host,
    lambda r: host_key(r.provider, r.host),
    indexes={"provider": lambda r: r.provider, "heard": lambda r: None if r.silent else True},
)
BIDS: Final[Table[Bid]] = Table("bid", Bid, lambda r: host_key(r.provider, r.host), indexes={"provider": lambda r: r.provider})
DEVICES: Final[Table[DeviceClaim]] = Table(
    "device", DeviceClaim, lambda r: r.id, indexes={"host": lambda r: host_key(r.provider, r.host)}
)
DEPLOYMENTS: Final[Table[Deployment]] = Table(
    "deployment",
    Deployment,
    deployment_of,
    indexes={"owner": lambda r: r.owner, "active": lambda r: r.owner if r.state is DeploymentState.ACTIVE else None},
)
ORDERS: Final[Table[Order]] = Table(
    "order",
    Order,
    order_key,
    indexes={
        "owner": lambda r: r.owner,
        "deployment": deployment_of,
        "open": lambda r: deployment_of(r) if r.state is OrderState.OPEN else None,
    },
)
LEASES: Final[Table[Lease]] = Table(
    "lease",
    Lease,
    lease_key,
    indexes={
        "owner": lambda r: r.owner,
        "provider": lambda r: r.provider,
        "deployment": deployment_of,
        "live": lambda r: None if r.state is LeaseState.CLOSED else deployment_of(r),
        "unclosed": lambda r: None if r.state is LeaseState.CLOSED else True,
        "serving": lambda r: None if r.state is LeaseState.CLOSED else r.provider,
        "active": lambda r: True if r.state is LeaseState.ACTIVE else None,
        "pulling": lambda r: True if r.pulling_ms else None,
        "host": lambda r: None if r.released else host_key(r.provider, r.host),
    },
)
ATTESTATIONS: Final[Table[Attestation]] = Table(
    "attestation", Attestation, lambda r: f"{r.provider}/{r.auditor}", indexes={"provider": lambda r: r.provider}
)
CLOCK: Final[Table[Clock]] = Table("clock", Clock, lambda _: "market")
QUEUE: Final[Table[Look]] = Table("look", Look, lambda r: f"{r.arrival:016d}")

TABLES: Final = (PROVIDERS, HOSTS, BIDS, DEVICES, DEPLOYMENTS, ORDERS, LEASES, ATTESTATIONS, CLOCK, QUEUE)
