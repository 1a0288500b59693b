"""The messages that the ledger itself understands; a module adds its own.

A message is a frozen Struct with its name as tag in `type`. Every mutable object has a version, and a message
that changes one names the version it replaces.
"""

from typing import Annotated, Final

import msgspec

from ledger.protocol.keys import Address, KeyHex, SignatureHex
from ledger.protocol.money import Amount, Denomination

Verb = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z*]{1,32}\Z")]
PurseId = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9/]{1,96}\Z")]
TimeMs = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class Message(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, tag_field="type"):
    """Root of every message; subclasses are tagged with their own name."""


class Transfer(Message, frozen=True, tag="Transfer"):
    """Move money from the principal to an account, opening it if need be."""

    amount: Amount
    denomination: Denomination
    to: Address


class Delegate(Message, frozen=True, tag="Delegate"):
    """Let `key` act for the principal: which message names, how much a day, until when.

    `verbs` are names of messages, `*` for all, or `gateway` for tokens to a provider's gateway; `spend_per_day` is in
    micro-units over all denominations together. A second Delegate for the same key replaces the first and names its
    version. Delegate, Revoke and RotateKey always ask for the account's own key.
    """

    expires_ms: TimeMs
    key: KeyHex
    spend_per_day: Amount
    verbs: Annotated[tuple[Verb, ...], msgspec.Meta(min_length=1, max_length=32)]
    version: int = 0


class Revoke(Message, frozen=True, tag="Revoke"):
    """End the delegation to `key` at once."""

    key: KeyHex


class RotateKey(Message, frozen=True, tag="RotateKey"):
    """Replace the account's key; `proof` is the new key's signature over (chain id, address): it can sign."""

    key: KeyHex
    proof: SignatureHex


class Deposit(Message, frozen=True, tag="Deposit"):
    """Add the principal's money to any purse; refunds return it in the order of deposits."""

    amount: Amount
    purse: PurseId


class Withdraw(Message, frozen=True, tag="Withdraw"):
    """Take back from a purse, by one who deposited, what is free of dues."""

    amount: Amount
    purse: PurseId


class Settle(Message, frozen=True, tag="Settle"):
    """Let a purse pay its meters now, as far as no report can take it back any more: by a payee, or by its owner."""

    purse: PurseId


class Mint(Message, frozen=True, tag="Mint"):
    """Create money of a denomination; only its issuer may."""

    amount: Amount
    denomination: Denomination
    to: Address


class Burn(Message, frozen=True, tag="Burn"):
    """Destroy the principal's own money of a denomination; only its issuer may."""

    amount: Amount
    denomination: Denomination


class SetParameter(Message, frozen=True, tag="SetParameter"):
    """Change a protocol parameter; only governance may."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,48}\Z")]
    value: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class Upgrade(Message, frozen=True, tag="Upgrade"):
    """Let the rules of `protocol` hold from block `height` on; only governance may."""

    height: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    protocol: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


LEDGER_MESSAGES: Final[tuple[type[Message], ...]] = (
    Transfer,
    Delegate,
    Revoke,
    RotateKey,
    Deposit,
    Withdraw,
    Settle,
    Mint,
    Burn,
    SetParameter,
    Upgrade,
)
