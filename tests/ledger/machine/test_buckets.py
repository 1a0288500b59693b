"""Rate buckets of protocol 2: what an account may send grows with what it holds, and splitting or moving money gains nothing."""

import random
from itertools import pairwise
from typing import Any

import pytest

from ledger.machine import bonds
from ledger.machine.accounts import ACCOUNTS, Account
from ledger.machine.buckets import Allowance
from ledger.machine.machine import Machine
from ledger.protocol.errors import Code, Rejected
from ledger.protocol.genesis import Allocation
from ledger.protocol.messages import SetParameter, Transfer, Upgrade
from tests.ledger.machine.chain import ADA, BOB, CREDIT, GOVERNOR, Chain, User, refused

ONE = 10**6
"""A credit."""


def rich(*people: User, each: int = 1_000 * ONE) -> dict[str, Any]:
    """What a genesis needs for these to hold so much each."""
    return {"allocations": tuple(Allocation(address=u.address, amount=str(each), denomination=CREDIT) for u in people)}


def pay(to: User, amount: int = 1) -> Transfer:
    """A transfer."""
    return Transfer(amount=str(amount), denomination=CREDIT, to=to.address)


def account(chain: Chain, user: User) -> Account:
    """An account that is there."""
    found = chain.machine.store.get(ACCOUNTS, user.address)
    assert found is not None
    return found


def allowed(chain: Chain, user: User, after_ms: int = 0) -> Allowance:
    """What an account may send so long after the last block."""
    return chain.machine.allowance(account(chain, user), chain.now + after_ms)


def test_limits_grow_with_holdings() -> None:
    """They never fall as holdings grow, lie between floor and most, and are those of the parameters at both ends."""
    buckets = Chain().machine._buckets
    rng = random.Random(5)
    held = sorted([0, 1, ONE, 10**9 - 1, 10**9, 10**18, *(rng.randrange(2 * 10**9) for _ in range(500))])
    limits = [buckets.limits(h) for h in held]
    assert limits[0] == (20_000, 12)
    assert limits[-1] == (2_000_000, 12_000)
    for before, after in pairwise(limits):
        assert all(b <= a for b, a in zip(before, after, strict=True))


def test_splitting_gains_nothing() -> None:
    """However money is split over accounts of a credit or more, together they refill no faster than one that holds it all."""
    buckets = Chain().machine._buckets
    rng = random.Random(seed := 6)
    for _ in range(200):
        parts = [rng.randrange(ONE, 20 * ONE) for _ in range(rng.randrange(1, 50))]
        whole = buckets.limits(sum(parts))[1]
        assert sum(buckets.limits(part)[1] for part in parts) <= whole, (seed, parts)
    assert 1_000 * buckets.limits(ONE)[1] == buckets.limits(1_000 * ONE)[1] == 12_000
    assert 1_000 * buckets.limits(1)[1] == 12_000  # a thousand accounts of dust are one that holds 1,000 credits


def test_moving_money_gains_nothing() -> None:
    """Money that passes through many accounts gives none of them what it earned elsewhere, or would have earned there."""
    people = [User(f"mover {n}") for n in range(6)]
    chain = Chain(allocations=(*rich(*people, each=ONE)["allocations"], *rich(ADA)["allocations"]))
    for user in people:
        chain.ok(user, pay(user))  # all buckets are in use from now on
    chain.block(at=chain.now + 1_000_000)  # long enough to fill every bucket
    chain.ok(ADA, pay(people[0], 999 * ONE), at=chain.now + 1)
    sent = 0
    for user, following in zip(people, [*people[1:], people[0]], strict=True):
        codes = [r.code for r in chain.block(*(chain.sign(user, pay(user)) for _ in range(40))).receipts]
        sent += codes.count(0)
        assert codes.count(0) <= 21
        chain.block(at=chain.now + 1_000)
        chain.ok(user, pay(following, 999 * ONE))
    assert sent <= 21 * len(people)
    chain.machine.invariants()


def test_who_opens_an_account_pays_for_its_first_transactions() -> None:
    """A new account begins with a quarter of the floor, which its opener gave; so no tokens come of opening."""
    new = [User(f"new {n}") for n in range(3)]
    chain = Chain(**rich(ADA, each=ONE))
    assert allowed(chain, ADA) == Allowance(left=20, at_once=20, per_minute=12)
    chain.ok(ADA, *(pay(user) for user in new[:2]))
    assert allowed(chain, ADA).left == 20 - 1 - 2 * 5
    assert allowed(chain, new[0]) == Allowance(left=5, at_once=20, per_minute=12)
    codes = [r.code for r in chain.block(*(chain.sign(new[0], pay(new[0])) for _ in range(6))).receipts]
    assert codes == [0] * 5 + [Code.RATE_LIMITED]
    with pytest.raises(Rejected) as refusal:
        chain.machine.check(chain.sign(ADA, *(pay(User(f"crowd {n}")) for n in range(4))), chain.now)
    assert "count as 21 transactions" in refusal.value.detail


def test_refusal_says_when_and_what_would_help() -> None:
    """RATE_LIMITED names the wait to the millisecond, before the block and in it, and the holdings that would allow more."""
    chain = Chain(**rich(ADA, each=10 * ONE))
    assert [r.code for r in chain.block(*(chain.sign(ADA, pay(ADA)) for _ in range(20))).receipts] == [0] * 20
    with pytest.raises(Rejected) as refusal:
        chain.machine.check(chain.sign(ADA, pay(ADA)), chain.now)
    assert refusal.value.code == Code.RATE_LIMITED
    wait = refusal.value.retry_ms
    assert wait == 500  # 10 credits: 120 a minute
    assert f"{990 * ONE} micro-units of {CREDIT} more" in refusal.value.detail
    signed = chain.sign(ADA, pay(ADA))
    assert refused(chain.machine.check, signed, chain.now + wait - 1) == Code.RATE_LIMITED
    chain.machine.check(signed, chain.now + wait)
    full = chain.now
    assert chain.block(signed, at=full + wait - 1).receipts[0].code == Code.RATE_LIMITED
    assert chain.block(signed, at=full + wait).receipts[0].code == 0


def test_dust_from_strangers_does_not_slow_a_bucket() -> None:
    """Small gains every few milliseconds leave an account what it would have had without them."""
    chain = Chain(allocations=(*rich(BOB, each=ONE)["allocations"], *rich(ADA)["allocations"]))
    chain.block(*(chain.sign(BOB, pay(BOB)) for _ in range(20)))
    start = chain.now
    for at in range(3, 5_001, 3):
        if at % 300 == 0:
            chain.ok(ADA, pay(BOB), at=start + at)
    assert chain.send(BOB, pay(BOB), at=start + 4_999).code == Code.RATE_LIMITED
    assert chain.send(BOB, pay(BOB), at=start + 5_000).code == 0


def test_a_bond_counts_like_a_balance() -> None:
    """What is pledged allows as much as what is not; it moves between both without a change, and a cut lowers it."""
    chain = Chain(**rich(ADA, BOB))
    before = allowed(chain, ADA)
    chain.act(lambda ctx: bonds.post(ctx, ADA.address, CREDIT, 600 * ONE))
    assert allowed(chain, ADA) == before
    chain.machine.invariants()
    chain.block(*(chain.sign(ADA, pay(ADA)) for _ in range(2_000)))
    assert allowed(chain, ADA).left == 0
    chain.act(
        lambda ctx: bonds.ask_back(ctx, ADA.address, CREDIT, 600 * ONE, ctx.time),
        lambda ctx: bonds.give_back(ctx, bonds.bond_of(ctx.store, ADA.address, CREDIT)),
        at=chain.now + 1_000,
    )
    assert allowed(chain, ADA) == Allowance(left=200, at_once=2_000, per_minute=12_000)
    chain.act(lambda ctx: bonds.post(ctx, ADA.address, CREDIT, 600 * ONE))
    chain.act(lambda ctx: bonds.cut(ctx, ADA.address, CREDIT, 500 * ONE, BOB.address, "x"))
    assert allowed(chain, ADA).at_once == 1_000
    chain.machine.invariants()
    again = Machine.restore(chain.machine.genesis, (chain.probe,), chain.machine.snapshot())
    assert again.allowance(account(chain, ADA), chain.now) == allowed(chain, ADA)
    again.invariants()


def test_other_money_does_not_count() -> None:
    """Only the chain's first denomination does: another may be worth nothing."""
    other = (Allocation(address=ADA.address, amount=str(10**12), denomination="uother"),)
    chain = Chain(allocations=other)
    assert allowed(chain, ADA).at_once == 20
    chain.act(lambda ctx: bonds.post(ctx, ADA.address, "uother", 10**11))
    assert allowed(chain, ADA).at_once == 20
    chain.machine.invariants()


def test_governance_moves_floor_and_most() -> None:
    """Each of the five parameters holds at once; a floor never exceeds the most."""
    chain = Chain(allocations=(*rich(ADA, each=10 * ONE)["allocations"], *rich(GOVERNOR)["allocations"]))
    for name, value, wanted in (
        ("bucket_full", 100 * ONE, (200, 1_200)),
        ("bucket_burst", 1_000, (100, 1_200)),
        ("bucket_refill_per_s", 5, (100, 30)),
        ("bucket_floor", 2_000, (1_000, 30)),
        ("bucket_floor_per_min", 1_000, (1_000, 300)),
    ):
        chain.ok(GOVERNOR, SetParameter(name=name, value=value))
        found = allowed(chain, ADA)
        assert (found.at_once, found.per_minute) == wanted, name


def test_an_upgrade_changes_buckets_at_its_height() -> None:
    """Until then all have what the parameters say, from then on what they hold allows; full buckets are cut to that."""
    chain = Chain(protocol=1, **rich(ADA, BOB, GOVERNOR, each=10 * ONE + 1_000))
    new = User("new")
    chain.ok(ADA, pay(new))
    assert account(chain, new).bucket_ms == 0
    assert allowed(chain, ADA) == Allowance(left=1_999, at_once=2_000, per_minute=12_000)
    chain.ok(GOVERNOR, Upgrade(height=4, protocol=2))
    assert [r.code for r in chain.block(*(chain.sign(ADA, pay(BOB)) for _ in range(30))).receipts] == [0] * 30
    assert allowed(chain, ADA) == Allowance(left=20, at_once=20, per_minute=120)
    codes = [r.code for r in chain.block(*(chain.sign(u, pay(BOB)) for u in (ADA, BOB) for _ in range(21))).receipts]
    assert codes == ([0] * 20 + [Code.RATE_LIMITED]) * 2
    chain.machine.invariants()
