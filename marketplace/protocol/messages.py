"""The messages of the market."""

from typing import Annotated, Final

import msgspec

from ledger.protocol.keys import Address, HashHex
from ledger.protocol.messages import Message, TimeMs
from ledger.protocol.money import Amount, Denomination
from marketplace.protocol.ids import Dseq, HostName, LeaseId, OrderId, Seq
from marketplace.protocol.resources import Attributes, Group, Offer, Prices, Terms

Generation = Annotated[int, msgspec.Meta(ge=1, le=10**6)]
Version = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Endpoint = Annotated[str, msgspec.Meta(max_length=256, pattern=r"^https://[A-Za-z0-9.:\[\]-]+\Z")]
Digest = Annotated[str, msgspec.Meta(max_length=128, pattern=r"^[a-z0-9+._-]+:[0-9a-f]{32,128}\Z")]
ServiceName = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class RegisterProvider(Message, frozen=True, tag="RegisterProvider"):
    """Make the principal a provider, or change its record: where its gateway is and the key it answers with.

    `gateway_key` is SHA-256 over the DER SubjectPublicKeyInfo of the gateway's TLS certificate. `version` is the
    one replaced, 0 for a new provider.
    """

    endpoint: Endpoint
    gateway_key: HashHex
    attributes: Attributes = msgspec.field(default_factory=dict)
    version: Version = 0


class RegisterHost(Message, frozen=True, tag="RegisterHost"):
    """Add a host to the provider."""

    host: HostName


class PutBid(Message, frozen=True, tag="PutBid"):
    """The standing offer of a host, new (version 0) or in place of the version named; counts from the next block."""

    denomination: Denomination
    expires_ms: TimeMs
    host: HostName
    offer: Offer
    prices: Prices
    terms: Terms = Terms()
    version: Version = 0


class CancelBid(Message, frozen=True, tag="CancelBid"):
    """Take a bid out of the book; its leases go on."""

    host: HostName
    version: Version


class PostBond(Message, frozen=True, tag="PostBond"):
    """Pledge the principal's money for its conduct as a provider; bids in a denomination need a bond in it."""

    amount: Amount
    denomination: Denomination


class WithdrawBond(Message, frozen=True, tag="WithdrawBond"):
    """Ask for `amount` of the bond, in place of what was asked before; "0" takes the asking back.

    It no longer counts for new bids. It leaves after a cooling time, once no bid and no open lease of the provider is left;
    from protocol 2 on as soon as what stays covers what those demand.
    """

    amount: Amount
    denomination: Denomination


class Heartbeat(Message, frozen=True, tag="Heartbeat"):
    """The hosts are alive; every 60 s each."""

    hosts: Annotated[tuple[HostName, ...], msgspec.Meta(min_length=1, max_length=64)]


class ReportPulling(Message, frozen=True, tag="ReportPulling"):
    """The manifest of a matched lease is here and its images are being pulled; once a generation. From protocol 2 on.

    What the pull takes beyond `pull_free_ms` is billed at the lease's hold rate if the lease comes to run; it has
    `pull_most_ms` from here to do so.
    """

    generation: Generation
    lease: LeaseId


class ReportActive(Message, frozen=True, tag="ReportActive"):
    """The containers of a lease run; the meter starts. Names the devices used and the image of each service."""

    devices: Annotated[tuple[HashHex, ...], msgspec.Meta(max_length=64)]
    generation: Generation
    images: Annotated[dict[ServiceName, Digest], msgspec.Meta(max_length=64)]
    lease: LeaseId


class ReportDown(Message, frozen=True, tag="ReportDown"):
    """The host failed the lease since `since_ms` (block time, may lie back to the last start): the meter stops then."""

    generation: Generation
    lease: LeaseId
    reason: Annotated[str, msgspec.Meta(pattern=r"^(device_lost|xid|host_stop|maintenance)\Z")]
    since_ms: TimeMs


class ReportUp(Message, frozen=True, tag="ReportUp"):
    """The lease runs again; the meter goes on from this block."""

    generation: Generation
    lease: LeaseId


class Release(Message, frozen=True, tag="Release"):
    """Containers of a closed lease are gone; `clean` frees its capacity, otherwise its devices are cordoned."""

    clean: bool
    generation: Generation
    lease: LeaseId


class CloseLease(Message, frozen=True, tag="CloseLease"):
    """The provider ends a lease."""

    generation: Generation
    lease: LeaseId
    reason: Annotated[
        str, msgspec.Meta(pattern=r"^(policy|manifest_missing|manifest_refused|image_failed|start_failed|host_failed)\Z")
    ]
    detail: Annotated[str, msgspec.Meta(max_length=256)] = ""


class CreateDeployment(Message, frozen=True, tag="CreateDeployment"):
    """Open a deployment with its purse; each group becomes an order.

    `hash` is that of the Akash manifest, `spec_hash` that of our additions (64 zeros where there are none).
    """

    denomination: Denomination
    deposit: Amount
    dseq: Dseq
    groups: Annotated[tuple[Group, ...], msgspec.Meta(min_length=1, max_length=20)]
    hash: HashHex
    spec_hash: HashHex = "0" * 64


class UpdateDeployment(Message, frozen=True, tag="UpdateDeployment"):
    """Run another manifest in the same groups."""

    dseq: Dseq
    hash: HashHex
    version: Version
    spec_hash: HashHex = "0" * 64


class TakeBid(Message, frozen=True, tag="TakeBid"):
    """Lease an open order of manual selection to the bid that its owner picked."""

    host: HostName
    order: OrderId
    provider: Address
    version: Version


class CloseDeployment(Message, frozen=True, tag="CloseDeployment"):
    """End all leases and orders of a deployment, settle and refund."""

    dseq: Dseq


class CloseGroup(Message, frozen=True, tag="CloseGroup"):
    """End the lease or order of one group."""

    dseq: Dseq
    gseq: Seq


class Attest(Message, frozen=True, tag="Attest"):
    """The principal, an auditor, states attributes of a provider."""

    attributes: Attributes
    provider: Address
    version: Version = 0


class Retract(Message, frozen=True, tag="Retract"):
    """The auditor takes its statement back."""

    provider: Address


MARKET_MESSAGES: Final[tuple[type[Message], ...]] = (
    RegisterProvider,
    RegisterHost,
    PutBid,
    CancelBid,
    PostBond,
    WithdrawBond,
    Heartbeat,
    ReportPulling,
    ReportActive,
    ReportDown,
    ReportUp,
    Release,
    CloseLease,
    CreateDeployment,
    UpdateDeployment,
    TakeBid,
    CloseDeployment,
    CloseGroup,
    Attest,
    Retract,
)
