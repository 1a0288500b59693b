"""The records of the market in the ledger's state, and what states they pass through."""

from enum import StrEnum

import msgspec

from marketplace.protocol.resources import Group, Offer, Prices, Terms


class OrderState(StrEnum):
    """An order waits, has a lease, or is over."""

    OPEN = "open"
    MATCHED = "matched"
    CLOSED = "closed"


class LeaseState(StrEnum):
    """matched → active ⇄ down → closed; a dry purse pauses a lease until a deposit or the end of its grace."""

    MATCHED = "matched"
    ACTIVE = "active"
    DOWN = "down"
    PAUSED = "paused"
    CLOSED = "closed"


class DeploymentState(StrEnum):
    """A deployment is active until its owner, or an empty purse, closes it."""

    ACTIVE = "active"
    CLOSED = "closed"


class DeviceState(StrEnum):
    """free → leased → free, or cordoned until its provider says that it is clean."""

    FREE = "free"
    LEASED = "leased"
    CORDONED = "cordoned"


class Provider(msgspec.Struct, frozen=True):
    """An account that offers hosts. `address` is its account."""

    address: str
    attributes: dict[str, str]
    endpoint: str
    gateway_key: str
    leases_closed: int
    """How many leases it ended itself."""
    version: int


class Host(msgspec.Struct, frozen=True):
    """A host; `beat_ms` is block time of its last sign of life."""

    beat_ms: int
    bids: int
    """How many versions its bid has had: a version is never given twice."""
    host: str
    provider: str
    silent: bool
    """True from the silence limit on until its next sign of life: its bid does not match meanwhile."""


class Bid(msgspec.Struct, frozen=True):
    """The standing offer of a host. `height` is the block it came in: it counts for matching after that."""

    denomination: str
    expires_ms: int
    height: int
    host: str
    offer: Offer
    prices: Prices
    provider: str
    terms: Terms
    version: int


class DeviceClaim(msgspec.Struct, frozen=True):
    """Who may offer a device. `lease` names the unreleased lease that holds it, or the one that left it cordoned."""

    host: str
    id: str
    lease: str
    provider: str
    state: DeviceState


class Deployment(msgspec.Struct, frozen=True):
    """What a tenant wants. Its purse has the same id."""

    closed_ms: int
    created_ms: int
    denomination: str
    dseq: int
    groups: int
    """How many groups: gseq runs from 1."""
    hash: str
    owner: str
    reason: str
    spec_hash: str
    state: DeploymentState
    version: int


class Order(msgspec.Struct, frozen=True):
    """A group offered to the market.

    `refusals` counts, for an order that waits, the bids that failed each test; `nearest` says in words what came
    closest and what would mend it. `arrival` numbers orders as they came; `avoid` names the bids ("provider/host/version")
    whose leases of this group their provider ended.
    """

    arrival: int
    avoid: tuple[str, ...]
    closed_ms: int
    created_ms: int
    denomination: str
    dseq: int
    group: Group
    gseq: int
    height: int
    nearest: str
    oseq: int
    owner: str
    reason: str
    refusals: dict[str, int]
    state: OrderState


class Lease(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A bid taken by an order. `rate_per_hour` is fixed at the match; money is metered by the ledger's meter of the same id.

    `devices` come in the order of the group's units, replica by replica. `hold_per_hour` is never over the rate.
    A field that has a default came with protocol 2: it is left out while it has that value.
    """

    activated_ms: int
    bid_version: int
    closed_ms: int
    created_ms: int
    detail: str
    """What its provider said when it ended it, for people; public like all of the ledger."""
    devices: tuple[str, ...]
    dseq: int
    generation: int
    gseq: int
    hold_per_hour: int
    host: str
    images: dict[str, str]
    oseq: int
    owner: str
    provider: str
    pulling_ms: int = 0
    """Since when its provider pulls the images of this generation, block time; 0: it does not."""
    rate_per_hour: int
    reason: str
    released: bool
    """True once the provider said the containers are gone: its capacity is free again."""
    simulated: bool
    """True where its devices are simulated ones."""
    since_ms: int
    """Block time at which its present state began; of an active lease, its last start."""
    state: LeaseState


class Attestation(msgspec.Struct, frozen=True):
    """An auditor's word on a provider."""

    attributes: dict[str, str]
    auditor: str
    provider: str
    version: int


class Clock(msgspec.Struct, frozen=True):
    """What the market remembers from block to block: one record.

    `last_ms` is the time of the newest block, `resumed_ms` that of the first block after the last gap: nobody is
    blamed for silence before it. `arrivals` counts orders.
    """

    arrivals: int
    last_ms: int
    resumed_ms: int


class Look(msgspec.Struct, frozen=True):
    """An order that the work budget of a block left for the next one."""

    arrival: int
    order: str
