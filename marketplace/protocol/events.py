"""What happened in the market, enough to rebuild every read model."""

from ledger.protocol.block import Event


class ProviderChanged(Event, frozen=True, tag="ProviderChanged"):
    """A provider registered or changed its record."""

    provider: str
    version: int


class BidPut(Event, frozen=True, tag="BidPut"):
    """A bid entered the book or was replaced."""

    host: str
    provider: str
    version: int


class BidGone(Event, frozen=True, tag="BidGone"):
    """A bid left the book: cancelled, expired, its provider's bond was cut below what its bids need, or its host fell silent."""

    host: str
    provider: str
    reason: str


class DeploymentOpened(Event, frozen=True, tag="DeploymentOpened"):
    """A deployment and its purse exist."""

    deployment: str
    owner: str


class DeploymentUpdated(Event, frozen=True, tag="DeploymentUpdated"):
    """Another manifest is to run."""

    deployment: str
    hash: str
    owner: str


class DeploymentEnded(Event, frozen=True, tag="DeploymentEnded"):
    """A deployment is over; its purse was settled and refunded."""

    deployment: str
    owner: str
    reason: str


class OrderOpened(Event, frozen=True, tag="OrderOpened"):
    """An order waits for a bid."""

    order: str
    owner: str


class OrderWaiting(Event, frozen=True, tag="OrderWaiting"):
    """An order was looked at and nothing fits yet: how many bids failed which test, and the nearest miss."""

    nearest: str
    order: str
    owner: str
    refusals: dict[str, int]


class OrderEnded(Event, frozen=True, tag="OrderEnded"):
    """An order is over without a lease."""

    order: str
    owner: str
    reason: str


class LeaseMatched(Event, frozen=True, tag="LeaseMatched"):
    """An order took a bid; the host's capacity is held."""

    devices: tuple[str, ...]
    host: str
    lease: str
    owner: str
    provider: str
    rate_per_hour: str


class LeaseChanged(Event, frozen=True, tag="LeaseChanged"):
    """A lease moved: active, down, paused, or resumed at a new generation."""

    generation: int
    lease: str
    owner: str
    provider: str
    reason: str
    state: str


class LeaseEnded(Event, frozen=True, tag="LeaseEnded"):
    """A lease is over; `paid` in micro-units is what its provider got for it, `detail` what it said if it ended it."""

    detail: str
    lease: str
    owner: str
    paid: str
    provider: str
    reason: str


class LeaseReleased(Event, frozen=True, tag="LeaseReleased"):
    """The provider said that nothing of a closed lease is left on its host."""

    clean: bool
    lease: str
    owner: str
    provider: str


class Attested(Event, frozen=True, tag="Attested"):
    """An auditor stated, or took back (empty), attributes of a provider."""

    attributes: dict[str, str]
    auditor: str
    provider: str


MARKET_EVENTS = (
    ProviderChanged,
    BidPut,
    BidGone,
    DeploymentOpened,
    DeploymentUpdated,
    DeploymentEnded,
    OrderOpened,
    OrderWaiting,
    OrderEnded,
    LeaseMatched,
    LeaseChanged,
    LeaseEnded,
    LeaseReleased,
    Attested,
)
