"""Chains of many accounts, and work for them."""

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from sys import intern

import msgspec

from ledger.engine.embedded import Engine
from ledger.machine.accounts import ACCOUNTS, SUPPLIES, Account
from ledger.machine.context import Context
from ledger.machine.module import Plain
from ledger.protocol.errors import Code
from ledger.protocol.genesis import Allocation, Genesis
from ledger.protocol.messages import Message, Transfer
from tests.ledger.engine.ledgers import signed
from tests.ledger.machine.chain import CREDIT, User, genesis

SENDERS = 500
MONEY = 10**9
AT_ONCE = 10_000


class Open(Message, frozen=True, tag="Open"):
    """Opens accounts of these numbers, as they are once their owners have sent something: with key and rate bucket."""

    first: int
    count: int


class Openings(Plain):
    """A module that opens accounts without a transaction of each: the log, the state and its root have them like others."""

    name = "openings"

    def __init__(self) -> None:
        self.messages = {Open: self._open}

    def _open(self, ctx: Context, message: Open) -> None:
        name = intern(CREDIT)
        for number in range(message.first, message.first + message.count):
            digest = hashlib.sha256(number.to_bytes(8, "big")).hexdigest()
            account = Account(
                address=address(number), bucket_milli=999_000, bucket_ms=ctx.time, key=digest, money=(name, MONEY + number)
            )
            ctx.store.put(ACCOUNTS, account)
        supply = ctx.store.require(SUPPLIES, CREDIT, Code.DENOMINATION_NOT_FOUND)
        made = sum(MONEY + n for n in range(message.first, message.first + message.count))
        ctx.store.put(SUPPLIES, msgspec.structs.replace(supply, minted=supply.minted + made))


def address(number: int) -> str:
    """Something like an address: no checksum, which is only looked at where an account is opened."""
    return "gpu1" + hashlib.sha256(number.to_bytes(8, "big")).hexdigest()[:38].translate({ord("1"): "q", ord("b"): "z"})


def senders_of(records: int) -> list[User]:
    """Those who send, of a chain of so many accounts."""
    return [User(f"sender {n}") for n in range(min(SENDERS, records // 2))]


def first_of(senders: Sequence[User]) -> Genesis:
    """A genesis with money for the senders."""
    allocations = [Allocation(address=user.address, amount=str(MONEY), denomination=CREDIT) for user in senders]
    limits = {"bucket_burst": 1000, "bucket_refill_per_s": 100}
    return genesis(allocations=tuple(allocations), parameters=limits, time_ms=time.time_ns() // 10**6 - 1000)


def fill(engine: Engine, records: int, senders: Sequence[User]) -> None:
    """Open as many accounts as are missing."""
    numbers = range(0, records - len(senders), AT_ONCE)
    raws = [signed(engine.now_ms(), senders[0], Open(first=n, count=min(AT_ONCE, records - len(senders) - n))) for n in numbers]
    for raw in raws:
        assert engine.submit(raw).result(300).ok


def workload(engine: Engine, senders: Sequence[User], records: int, count: int) -> list[bytes]:
    """Signed transfers from the senders in turn to any account."""
    chance, now = random.Random(), engine.now_ms() + 50_000
    pick: Callable[[], str] = lambda: address(chance.randrange(records - len(senders)))  # noqa: E731
    transfers = [Transfer(amount="3", denomination=CREDIT, to=pick()) for _ in range(count)]
    return [signed(now, senders[n % len(senders)], t) for n, t in enumerate(transfers)]
