"""What happened on the ledger, enough to rebuild every read model. Amounts are decimal strings in micro-units."""

from typing import Final

from ledger.protocol.block import Event


class AccountOpened(Event, frozen=True):
    """An address received money for the first time."""

    address: str


class Transferred(Event, frozen=True):
    """Money moved between accounts."""

    amount: str
    denomination: str
    source: str
    to: str


class Minted(Event, frozen=True):
    """An issuer created money."""

    amount: str
    denomination: str
    to: str


class Burned(Event, frozen=True):
    """An issuer destroyed its own money."""

    amount: str
    denomination: str
    source: str


class Delegated(Event, frozen=True):
    """A key may act for an account until `expires_ms`."""

    address: str
    expires_ms: int
    key: str
    spend_per_day: str
    verbs: tuple[str, ...]
    version: int


class DelegationEnded(Event, frozen=True):
    """A key may no longer act for an account: `revoked` or `expired`."""

    address: str
    key: str
    reason: str


class KeyRotated(Event, frozen=True):
    """An account answers to another key."""

    address: str
    key: str
    version: int


class PurseOpened(Event, frozen=True):
    """A purse exists, with its owner's first deposit."""

    amount: str
    denomination: str
    owner: str
    purse: str


class Deposited(Event, frozen=True):
    """Money went into a purse."""

    amount: str
    depositor: str
    owner: str
    purse: str


class Withdrawn(Event, frozen=True):
    """A depositor took back what was free."""

    amount: str
    depositor: str
    owner: str
    purse: str


class MeterPaid(Event, frozen=True):
    """A purse paid for metered time: `amount` to the payee, `fee` to the network."""

    amount: str
    fee: str
    meter: str
    payee: str
    purse: str


class EarningsHeld(Event, frozen=True):
    """Of what a purse pays for metered time, `amount` waits until `until_ms`: it may have to be refunded."""

    amount: str
    meter: str
    payee: str
    purse: str
    until_ms: int


class EarningsRefunded(Event, frozen=True):
    """Earnings that were held back went back to the purse, or to its depositors where it is closed."""

    amount: str
    meter: str
    owner: str
    payee: str
    purse: str


class Charged(Event, frozen=True):
    """A purse paid a single charge."""

    amount: str
    purse: str
    to: str


class PurseWarned(Event, frozen=True):
    """A purse runs dry at `dry_at_ms` unless someone deposits."""

    dry_at_ms: int
    owner: str
    purse: str


class PurseDry(Event, frozen=True):
    """A purse ran dry and its meters stopped; a deposit before `grace_until_ms` revives it."""

    grace_until_ms: int
    owner: str
    purse: str


class PurseFunded(Event, frozen=True):
    """A dry purse received a deposit."""

    owner: str
    purse: str


class PurseGraceOver(Event, frozen=True):
    """A purse stayed dry for the whole of its grace."""

    owner: str
    purse: str


class Refunded(Event, frozen=True):
    """What was left of a deposit went back when its purse closed."""

    amount: str
    depositor: str
    purse: str


class PurseClosed(Event, frozen=True):
    """A purse is settled and empty."""

    owner: str
    purse: str
    refunded: str


class BondPosted(Event, frozen=True):
    """An account pledged money."""

    address: str
    amount: str
    denomination: str


class BondAsked(Event, frozen=True):
    """An account wants `amount` of its bond back, in place of what it wanted before; not before `leaves_ms`."""

    address: str
    amount: str
    denomination: str
    leaves_ms: int


class BondReturned(Event, frozen=True):
    """What was asked back of a bond is in its account again."""

    address: str
    amount: str
    denomination: str


class BondCut(Event, frozen=True):
    """A bond lost `amount` to the account `to`; `about` names what for."""

    about: str
    address: str
    amount: str
    denomination: str
    to: str


class ParameterSet(Event, frozen=True):
    """Governance changed a parameter."""

    name: str
    value: int


class UpgradePlanned(Event, frozen=True):
    """Other rules are to hold from a height on."""

    height: int
    protocol: int


class Upgraded(Event, frozen=True):
    """Other rules hold from this block on."""

    protocol: int


LEDGER_EVENTS: Final[tuple[type[Event], ...]] = (
    AccountOpened, Transferred, Minted, Burned, Delegated, DelegationEnded, KeyRotated, PurseOpened, Deposited, Withdrawn,
    MeterPaid, EarningsHeld, EarningsRefunded, Charged, PurseWarned, PurseDry, PurseFunded, PurseGraceOver, Refunded,
    PurseClosed, BondPosted, BondAsked, BondReturned, BondCut, ParameterSet, UpgradePlanned, Upgraded,
)  # fmt: skip
