"""Long random histories of mostly sensible transactions: replicas agree, every event happens, money is conserved."""

import random
from collections import Counter

import pytest

from ledger.machine.machine import Machine
from ledger.machine.purse import METERS, PURSES
from ledger.protocol.encoding import encode
from ledger.protocol.events import LEDGER_EVENTS, KeyRotated, Upgraded, UpgradePlanned
from ledger.protocol.messages import Burn, Delegate, Deposit, Message, Mint, Revoke, SetParameter, Settle, Transfer, Withdraw
from ledger.protocol.transaction import Transaction, sign_transaction
from tests.ledger.machine.chain import ADA, BOB, CAT, CHAIN, CREDIT, GOVERNOR, ISSUER, START, User, genesis
from tests.ledger.machine.test_replicas import VERBS, Rent, Renting

PEOPLE = [ADA, BOB, CAT, GOVERNOR, ISSUER]
AGENTS = [User(f"agent{i}") for i in range(3)]


def message(rng: random.Random, now: int, height: int) -> tuple[User, Message]:
    """Somebody and what he wants, sensible more often than not."""
    user, other, name = rng.choice(PEOPLE), rng.choice(PEOPLE + AGENTS), f"p{height // 40}x{rng.randrange(2)}"
    amount = str(rng.choice([1, 20, 300, 4000]))
    kind = rng.randrange(20)
    if kind < 8:
        return user, Rent(
            name=name,
            payee=other.address,
            verb=rng.choice([*VERBS, "hold", "start", "stop", "refund"]),
            value=rng.randrange(1, 300),
        )
    if kind < 12:
        return user, Deposit(amount=amount, purse=name)
    if kind < 14:
        return user, rng.choice([Withdraw(amount=amount, purse=name), Settle(purse=name)])
    if kind == 14:
        return ISSUER, Mint(amount=amount, denomination=rng.choice([CREDIT, "uother"]), to=other.address)
    if kind == 15:
        return ISSUER, Burn(amount=amount, denomination=CREDIT)
    if kind == 16:
        key = rng.choice(AGENTS).key
        ends = now + rng.choice([1000, 10**7])
        return user, Delegate(expires_ms=ends, key=key, spend_per_day="500", verbs=("*",), version=rng.randrange(2))
    if kind == 17:
        return user, Revoke(key=rng.choice(AGENTS).key)
    if kind == 18:
        name, value = rng.choice([("take_rate_ppm", 20_000), ("backdate_ms", 50), ("purse_grace_ms", 5000)])
        return GOVERNOR, SetParameter(name=name, value=value)
    return user, Transfer(amount=amount, denomination=CREDIT, to=other.address)


def batch(rng: random.Random, now: int, height: int) -> list[bytes]:
    """The transactions of a block; some by an agent, some that are refused."""
    out = []
    for _ in range(rng.randrange(7)):
        wants = [message(rng, now, height) for _ in range(rng.choice([1, 1, 2]))]
        user = wants[0][0]
        signer = rng.choice(AGENTS) if rng.random() < 0.15 else user
        transaction = Transaction(
            chain_id=CHAIN,
            messages=tuple(want for _, want in wants),
            nonce=rng.randbytes(16).hex(),
            principal=user.address,
            sequence=0,
            signer=signer.key,
            valid_until=now + rng.choice([0, 60_000, 60_000, 120_000, 120_000, 120_000, 120_001]),
        )
        out.append(sign_transaction(transaction, signer.seed))
    return out


def test_replicas_agree_over_long_histories() -> None:
    """Every receipt, event and root is the same in a machine that is restored from a snapshot now and then."""
    seen: Counter[type] = Counter()
    codes: Counter[int] = Counter()
    meters = purses = 0
    for seed in range(12):
        rng = random.Random(seed)
        one, two = Machine(genesis(), (Renting(),)), Machine(genesis(), (Renting(),))
        now = START
        for height in range(150):
            now += rng.choice([1, 7, 60, 700, 9000, 90_000])
            raws = batch(rng, now, height)
            results = [machine.apply_block(now, [machine.codec.decode(raw) for raw in raws]) for machine in (one, two)]
            assert encode(results[0]) == encode(results[1]), (seed, height)
            seen.update(type(event) for event in results[0].events())
            codes.update(int(receipt.code) for receipt in results[0].receipts)
            if height % 10 == 0:
                one.invariants()
            if rng.random() < 0.05:
                two = Machine.restore(genesis(), (Renting(),), one.snapshot())
        two.invariants()
        meters += one.store.count(METERS)
        purses += one.store.count(PURSES)
    assert set(LEDGER_EVENTS) - set(seen) <= {KeyRotated, UpgradePlanned, Upgraded}, "the histories are too tame"
    assert codes[0] > 300, codes
    assert min(meters, purses) > 30, (meters, purses)


@pytest.mark.parametrize("height", [1, 40])
def test_a_replica_can_join_anywhere(height: int) -> None:
    """A snapshot taken at any height continues to the same head as the whole history."""
    rng = random.Random(99)
    whole, late = Machine(genesis(), (Renting(),)), None
    now = START
    for number in range(60):
        now += rng.choice([1, 800, 30_000])
        raws = batch(rng, now, number)
        for machine in filter(None, (whole, late)):
            machine.apply_block(now, [machine.codec.decode(raw) for raw in raws], verified=True)
        if number == height:
            late = Machine.restore(genesis(), (Renting(),), whole.snapshot())
    assert late is not None
    assert late.head == whole.head
    assert late.snapshot() == whole.snapshot()
