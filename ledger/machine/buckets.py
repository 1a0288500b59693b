"""Rate buckets from protocol 2 on: what an account may send grows with what it holds.

Holdings are micro-units of the chain's first denomination, in the account's balance and in its bond. At `bucket_full` of them a
bucket takes `bucket_burst` transactions and refills with `bucket_refill_per_s`; below, both are in proportion, but never
less than `bucket_floor` and `bucket_floor_per_min`. So money earns the same in one account and in many. What is earned
is earned by holding: before holdings grow, the bucket is brought up to date with those of until then.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ledger.machine.accounts import ACCOUNTS, Account
from ledger.machine.bonds import BONDS, Bond
from ledger.machine.params import PARAMETERS
from ledger.machine.store import Store
from ledger.protocol.errors import Code, Rejected
from ledger.protocol.messages import Message, Mint, Transfer
from ledger.protocol.transaction import Transaction

Limits = tuple[int, int]
"""Thousandths of a transaction that a bucket takes; transactions a minute that it refills with."""


class Allowance(msgspec.Struct, frozen=True):
    """What an account may send: whole transactions now and at most at once, and how many a minute it may go on with."""

    left: int
    at_once: int
    per_minute: int


class Buckets:
    """The buckets of one machine's accounts, under the parameters that are in force."""

    def __init__(self, store: Store, values: Mapping[str, int], denomination: str) -> None:
        """`values` are the parameters by name, kept up to date by another watcher of theirs that was there before."""
        self._store = store
        self._values = values
        self._denomination = denomination
        self._read()
        store.watch(PARAMETERS, lambda old, new: self._read())
        self._bonds: dict[str, int] = {}
        """What is in the bonds that count, by address: a cache of state."""
        store.watch(BONDS, self._bonded)

    def _bonded(self, old: Bond | None, new: Bond | None) -> None:
        bond = new or old
        if bond is None or bond.denomination != self._denomination:
            return
        if new is not None and new.balance:
            self._bonds[new.address] = new.balance
        else:
            self._bonds.pop(bond.address, None)

    def check(self) -> None:
        """Assert that what is known of bonds equals what is in state."""
        there = {b.address: b.balance for b in self._store.scan(BONDS) if b.denomination == self._denomination and b.balance}
        assert there == self._bonds, "what rate buckets know of bonds differs from the bonds"

    def _read(self) -> None:
        values = self._values
        self._full = values["bucket_full"]
        self._burst = values["bucket_burst"]
        self._most: Limits = (values["bucket_burst"] * 1000, values["bucket_refill_per_s"] * 60)
        least = (values["bucket_floor"] * 1000, values["bucket_floor_per_min"])
        self._least: Limits = (min(least[0], self._most[0]), min(least[1], self._most[1]))
        self._opening = values["bucket_opening"] * 1000
        self.first = values["bucket_first"] * 1000
        """Thousandths of a transaction that a new account begins with."""

    def held(self, account: Account) -> int:
        """Micro-units that count for an account."""
        money: Any = account.money
        denomination = self._denomination
        held: int = money[1] if money and money[0] == denomination else account.holds(denomination)
        return held + self._bonds.get(account.address, 0)

    def limits(self, held: int) -> Limits:
        """What so many micro-units allow."""
        if held >= self._full:
            return self._most
        least_burst, least_per_min = self._least
        # Of whole transactions: small gains change no limit.
        burst, per_min = self._burst * held // self._full * 1000, self._most[1] * held // self._full
        return burst if burst > least_burst else least_burst, per_min if per_min > least_per_min else least_per_min

    @staticmethod
    def level(account: Account, limits: Limits, now_ms: int) -> int:
        """Thousandths of a transaction in the bucket at `now_ms`; one that was never used is full."""
        burst, per_min = limits
        if account.bucket_ms == 0:
            return burst
        level = account.bucket_milli + per_min * max(0, now_ms - account.bucket_ms) // 60
        return level if level < burst else burst

    def allowance(self, account: Account, now_ms: int) -> Allowance:
        """What an account may send at `now_ms`."""
        limits = self.limits(self.held(account))
        left = self.level(account, limits, now_ms) // 1000
        return Allowance(left=left, at_once=limits[0] // 1000, per_minute=limits[1])

    def take(self, account: Account, transaction: Transaction, now_ms: int) -> int:
        """Return what a transaction leaves in the bucket, in thousandths; RATE_LIMITED where it costs more than is there."""
        limits = self._most if self._is_full(account) else self.limits(self.held(account))
        rest = (self.level(account, limits, now_ms) if account.bucket_ms else limits[0]) - 1000
        for message in transaction.messages:
            if type(message) in _OPENING and self._store.get(ACCOUNTS, message.to) is None:  # type: ignore[attr-defined]
                rest -= self._opening
        if rest < 0:
            raise self._empty(account, limits, now_ms, rest)
        return rest

    def _is_full(self, account: Account) -> bool:
        """True where the balance alone allows the most: so it is asked first, no bond need be looked up."""
        money: Any = account.money
        return bool(money) and money[0] == self._denomination and money[1] >= self._full

    def _empty(self, account: Account, limits: Limits, now_ms: int, rest: int) -> Rejected:
        burst, per_min = limits
        cost = self.level(account, limits, now_ms) - rest
        more = self._full - self.held(account)
        most = f"{self._most[0] // 1000} at once and {self._most[1]} a minute"
        raised = f"holding {more} micro-units of {self._denomination} more, bonds included, would allow {most}"
        advice = raised if more > 0 else "no account has more"
        allowed = f"it may send {burst // 1000} at once and {per_min} a minute; {advice}"
        if cost > burst:
            return Rejected(Code.RATE_LIMITED, f"the accounts it opens make it count as {cost // 1000} transactions: {allowed}")
        wait_ms = -(rest * 60 // per_min)
        return Rejected(Code.RATE_LIMITED, f"the account's bucket has a transaction again in {wait_ms} ms: {allowed}", wait_ms)

    def settled(self, account: Account, denomination: str, gained: int, now_ms: int) -> Account:
        """The account before it gains: where that raises its limits, its bucket has what the old ones gave until now."""
        if denomination != self._denomination or self._is_full(account):
            return account
        held = self.held(account)
        limits = self.limits(held)
        if limits == self.limits(held + gained):
            # Bringing it up to date would change nothing but the rounding, of which a stranger must not make use.
            return account
        level = self.level(account, limits, now_ms)
        at = max(now_ms, account.bucket_ms)
        return Account(account.address, level, at, account.key, account.money, account.sequence, account.version)


_OPENING: Final[frozenset[type[Message]]] = frozenset({Transfer, Mint})
"""Messages that may open an account, `to`."""
