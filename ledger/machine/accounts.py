"""Accounts: balances, keys and rate buckets; moving, minting and burning money; rotating a key."""

from sys import intern
from types import MappingProxyType
from typing import Any, Final

import msgspec

from ledger.machine import delegation
from ledger.machine.context import Context
from ledger.machine.module import Plain
from ledger.machine.store import Store, Table
from ledger.protocol import bech32m, keys
from ledger.protocol.encoding import digest
from ledger.protocol.errors import Code, Rejected, require
from ledger.protocol.events import AccountOpened, Burned, KeyRotated, Minted, Transferred
from ledger.protocol.messages import Burn, Mint, RotateKey, Transfer
from ledger.protocol.money import MAX_AMOUNT, parse_amount
from ledger.protocol.transaction import rotation_bytes

NETWORK_ACCOUNT: Final = bech32m.encode(keys.PREFIX, digest("address/network/v1")[:20])
"""Address that fees and holds go to; no key hashes to it, so nobody signs for it."""


class Account(msgspec.Struct, frozen=True, gc=False):
    """An account. `key` is hex, empty until its first transaction.

    `money` is denomination, micro-units, denomination, micro-units …, by denomination, none of them zero: a flat
    tuple takes a third of a mapping's memory, and there may be millions of accounts. `bucket_milli` thousandths of a
    transaction were left in the rate bucket at `bucket_ms`; a `bucket_ms` of 0 is a full bucket. `sequence` counts
    the transactions that were signed offline.
    """

    address: str
    bucket_milli: int = 0
    bucket_ms: int = 0
    key: str = ""
    money: tuple[str | int, ...] = ()
    sequence: int = 0
    version: int = 1

    @property
    def balances(self) -> dict[str, int]:
        """Micro-units by denomination."""
        money: Any = self.money
        return dict(zip(money[::2], money[1::2], strict=True))

    def holds(self, denomination: str) -> int:
        """Micro-units of a denomination."""
        money: Any = self.money
        if denomination not in money:
            return 0
        amount: int = money[money.index(denomination) + 1]
        return amount

    def holding(self, denomination: str, amount: int) -> "Account":
        """The same account with `amount` micro-units of a denomination."""
        money: Any = self.money
        if not money or (len(money) == 2 and money[0] == denomination):
            money = (intern(denomination), amount) if amount else ()
        else:
            balances = self.balances | {denomination: amount}
            money = tuple(part for name in sorted(balances) if balances[name] for part in (intern(name), balances[name]))
        return Account(self.address, self.bucket_milli, self.bucket_ms, self.key, money, self.sequence, self.version)


class Supply(msgspec.Struct, frozen=True):
    """A denomination: who issues it, how much was ever minted and burned in micro-units."""

    burned: int
    denomination: str
    issuer: str
    minted: int


_ADDRESS_AT: Final = len(b'{"address":"')


def _address_in(canonical: bytes) -> bytes:
    """The address in the canonical bytes of an account: its first field."""
    return canonical[_ADDRESS_AT : canonical.index(b'"', _ADDRESS_AT)]


ACCOUNTS: Table[Account] = Table("account", Account, lambda a: a.address, key_in=_address_in)
SUPPLIES: Table[Supply] = Table("supply", Supply, lambda s: s.denomination)


def balance(store: Store, address: str, denomination: str) -> int:
    """Return an account's balance in micro-units; 0 where there is no account."""
    account = store.get(ACCOUNTS, address)
    return account.holds(denomination) if account else 0


def debit(ctx: Context, address: str, denomination: str, amount: int) -> None:
    """Take from an account; INSUFFICIENT_FUNDS, or SPEND_LIMIT where a delegated key spends the principal's money."""
    account = ctx.store.require(ACCOUNTS, address, Code.ACCOUNT_NOT_FOUND)
    rest = account.holds(denomination) - amount
    if rest < 0:
        raise Rejected(Code.INSUFFICIENT_FUNDS, f"{address} lacks {-rest} micro-units of {denomination}")
    if ctx.delegated and address == ctx.principal:
        delegation.spend(ctx, amount)
    ctx.store.put(ACCOUNTS, account.holding(denomination, rest))


def credit(ctx: Context, address: str, denomination: str, amount: int) -> None:
    """Give to an account, opening it if need be; ADDRESS_REFUSED where a new address is not one."""
    account = ctx.store.get(ACCOUNTS, address)
    if account is None:
        keys.check_address(address)
        new = Account(address, ctx.buckets.first, ctx.time) if ctx.protocol >= 2 else Account(address=address)
        ctx.store.put(ACCOUNTS, new.holding(denomination, amount))
        ctx.emit(AccountOpened(address=address))
        return
    if amount:
        if ctx.protocol >= 2:
            account = ctx.buckets.settled(account, denomination, amount, ctx.time)
        ctx.store.put(ACCOUNTS, account.holding(denomination, account.holds(denomination) + amount))


def transfer(ctx: Context, source: str, to: str, denomination: str, amount: int) -> None:
    """Move `amount` micro-units between accounts; refused like `debit` and `credit`."""
    debit(ctx, source, denomination, amount)
    credit(ctx, to, denomination, amount)
    ctx.emit(Transferred(amount=str(amount), denomination=denomination, source=source, to=to))


def positive(text: str) -> int:
    """Return the amount in a message; AMOUNT_REFUSED where it is zero or too large."""
    amount = parse_amount(text)
    require(amount > 0, Code.AMOUNT_REFUSED, "the amount is zero")
    return amount


def _transfer(ctx: Context, message: Transfer) -> None:
    amount = positive(message.amount)
    ctx.store.require(SUPPLIES, message.denomination, Code.DENOMINATION_NOT_FOUND)
    transfer(ctx, ctx.principal, message.to, message.denomination, amount)


def _mint(ctx: Context, message: Mint) -> None:
    amount = positive(message.amount)
    supply = ctx.store.require(SUPPLIES, message.denomination, Code.DENOMINATION_NOT_FOUND)
    require(supply.issuer == ctx.principal, Code.NOT_ISSUER, f"{supply.issuer} issues {message.denomination}")
    # What exists never exceeds one amount, so no balance can overflow anywhere later.
    fits = supply.minted + amount <= MAX_AMOUNT
    require(fits, Code.AMOUNT_REFUSED, "more money than an amount can hold")
    credit(ctx, message.to, message.denomination, amount)
    ctx.store.put(SUPPLIES, msgspec.structs.replace(supply, minted=supply.minted + amount))
    ctx.emit(Minted(amount=str(amount), denomination=message.denomination, to=message.to))


def _burn(ctx: Context, message: Burn) -> None:
    amount = positive(message.amount)
    supply = ctx.store.require(SUPPLIES, message.denomination, Code.DENOMINATION_NOT_FOUND)
    require(supply.issuer == ctx.principal, Code.NOT_ISSUER, f"{supply.issuer} issues {message.denomination}")
    debit(ctx, ctx.principal, message.denomination, amount)
    ctx.store.put(SUPPLIES, msgspec.structs.replace(supply, burned=supply.burned + amount))
    ctx.emit(Burned(amount=str(amount), denomination=message.denomination, source=ctx.principal))


def _rotate(ctx: Context, message: RotateKey) -> None:
    key = bytes.fromhex(message.key)
    keys.check_key(key)
    account = ctx.store.require(ACCOUNTS, ctx.principal, Code.ACCOUNT_NOT_FOUND)
    good = keys.verify(key, rotation_bytes(ctx.chain_id, ctx.principal), bytes.fromhex(message.proof))
    require(good, Code.KEY_REFUSED, "the new key did not sign for this account")
    changed = msgspec.structs.replace(account, key=message.key, version=account.version + 1)
    ctx.store.put(ACCOUNTS, changed)
    ctx.emit(KeyRotated(address=ctx.principal, key=message.key, version=changed.version))


class Accounts(Plain):
    """The module of money in accounts."""

    name = "accounts"
    tables = (ACCOUNTS, SUPPLIES)
    messages = MappingProxyType({Transfer: _transfer, Mint: _mint, Burn: _burn, RotateKey: _rotate})
