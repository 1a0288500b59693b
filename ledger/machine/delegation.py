"""Delegations: one mechanism behind host keys, spend limits and agents.

A delegated key acts for an account within the verbs (names of messages, `*` for all), the spend per day and the time
it was given. It never changes keys or delegations: Delegate, Revoke and RotateKey ask for the account's own key.
"""

from types import MappingProxyType
from typing import Final

import msgspec

from ledger.machine.context import Context
from ledger.machine.module import Plain
from ledger.machine.store import Table
from ledger.protocol import keys
from ledger.protocol.errors import Code, Rejected, require
from ledger.protocol.events import Delegated, DelegationEnded
from ledger.protocol.messages import Delegate, Message, Revoke, RotateKey
from ledger.protocol.money import parse_amount

DAY_MS: Final = 86_400_000
EXPIRY: Final = "delegation_expiry"
MAX_DELEGATIONS: Final = 64
"""Most keys that may act for one account at a time."""

OWN_KEY_ONLY: Final[frozenset[type[Message]]] = frozenset({Delegate, Revoke, RotateKey})


class Delegation(msgspec.Struct, frozen=True):
    """What `key` may do for `address`. `spent` micro-units went on day number `day` (block time over 86,400,000 ms)."""

    address: str
    day: int
    expires_ms: int
    key: str
    spend_per_day: int
    spent: int
    verbs: tuple[str, ...]
    version: int


DELEGATIONS: Table[Delegation] = Table(
    "delegation", Delegation, lambda d: f"{d.address}/{d.key}", {"address": lambda d: d.address}
)


def allows(delegation: Delegation | None, message_types: list[type[Message]], now_ms: int) -> bool:
    """True where the delegation is in force and covers every one of the messages."""
    if delegation is None or delegation.expires_ms <= now_ms:
        return False
    verbs = delegation.verbs
    return all(kind not in OWN_KEY_ONLY and ("*" in verbs or kind.__struct_config__.tag in verbs) for kind in message_types)


def spend(ctx: Context, amount: int) -> None:
    """Count `amount` that leaves the principal's balance against the signer's day; SPEND_LIMIT beyond it."""
    delegation = ctx.store.require(DELEGATIONS, f"{ctx.principal}/{ctx.signer}", Code.DELEGATION_NOT_FOUND)
    day = ctx.time // DAY_MS
    spent = amount + (delegation.spent if delegation.day == day else 0)
    if spent > delegation.spend_per_day:
        raise Rejected(Code.SPEND_LIMIT, f"{spent} of {delegation.spend_per_day} micro-units a day")
    ctx.store.put(DELEGATIONS, msgspec.structs.replace(delegation, day=day, spent=spent))


def _delegate(ctx: Context, message: Delegate) -> None:
    keys.check_key(bytes.fromhex(message.key))
    require(message.expires_ms > ctx.time, Code.EXPIRED, "the delegation would be over already")
    limit = parse_amount(message.spend_per_day)
    old = ctx.store.get(DELEGATIONS, f"{ctx.principal}/{message.key}")
    version = old.version if old else 0
    require(message.version == version, Code.VERSION_MISMATCH, f"the version is {version}")
    if old is None:
        count = ctx.store.count(DELEGATIONS, "address", ctx.principal)
        require(count < MAX_DELEGATIONS, Code.NOT_AUTHORISED, f"at most {MAX_DELEGATIONS} delegations an account")
    record = Delegation(
        address=ctx.principal,
        day=old.day if old else 0,
        expires_ms=message.expires_ms,
        key=message.key,
        spend_per_day=limit,
        spent=old.spent if old else 0,
        verbs=message.verbs,
        version=version + 1,
    )
    ctx.store.put(DELEGATIONS, record)
    ctx.schedule(message.expires_ms, EXPIRY, f"{ctx.principal}/{message.key}")
    ctx.emit(
        Delegated(
            address=ctx.principal,
            expires_ms=message.expires_ms,
            key=message.key,
            spend_per_day=str(limit),
            verbs=message.verbs,
            version=version + 1,
        )
    )


def _revoke(ctx: Context, message: Revoke) -> None:
    name = f"{ctx.principal}/{message.key}"
    ctx.store.require(DELEGATIONS, name, Code.DELEGATION_NOT_FOUND)
    ctx.store.delete(DELEGATIONS, name)
    ctx.cancel(EXPIRY, name)
    ctx.emit(DelegationEnded(address=ctx.principal, key=message.key, reason="revoked"))


def _expired(ctx: Context, name: str) -> None:
    address, key = name.split("/")
    ctx.store.delete(DELEGATIONS, name)
    ctx.emit(DelegationEnded(address=address, key=key, reason="expired"))


class Delegations(Plain):
    """The module of Delegate and Revoke."""

    name = "delegation"
    tables = (DELEGATIONS,)
    messages = MappingProxyType({Delegate: _delegate, Revoke: _revoke})
    kinds = MappingProxyType({EXPIRY: _expired})
