"""What a transaction is allowed, what stays of a refused one, and what is remembered."""

import pytest

from ledger.machine.accounts import ACCOUNTS
from ledger.machine.delegation import DELEGATIONS, MAX_DELEGATIONS
from ledger.machine.machine import Machine, UpgradeRequired
from ledger.machine.params import LEDGER_PARAMETERS
from ledger.protocol import keys
from ledger.protocol.block import ZERO_HASH
from ledger.protocol.errors import Code, Rejected
from ledger.protocol.events import DelegationEnded, Upgraded
from ledger.protocol.genesis import PROTOCOL, Allocation
from ledger.protocol.messages import Burn, Delegate, Mint, Revoke, RotateKey, SetParameter, Transfer, Upgrade
from ledger.protocol.transaction import rotation_bytes
from tests.ledger.machine.chain import ADA, BOB, CHAIN, CREDIT, GOVERNOR, ISSUER, START, Chain, User, genesis, refused

KEY = User("delegate")
DAY = 86_400_000


def transfer(amount: int = 1, to: User = BOB) -> Transfer:
    """A transfer of `amount` micro-units."""
    return Transfer(amount=str(amount), denomination=CREDIT, to=to.address)


def delegate(expires_ms: int = START + DAY, spend: int = 100, version: int = 0, verbs: tuple[str, ...] = ("*",)) -> Delegate:
    """A delegation to KEY."""
    return Delegate(expires_ms=expires_ms, key=KEY.key, spend_per_day=str(spend), verbs=verbs, version=version)


def test_all_messages_or_none() -> None:
    """The first message's effect goes with the second's refusal, events too; the key and the token stay spent."""
    chain = Chain()
    receipt = chain.send(ADA, transfer(5), transfer(10**12))
    assert (receipt.code, receipt.events) == (Code.INSUFFICIENT_FUNDS, ())
    assert chain.balance(ADA) == chain.balance(BOB) == 10**12
    account = chain.machine.store.get(ACCOUNTS, ADA.address)
    assert account is not None
    assert (account.key, account.bucket_milli) == (ADA.key, 1_999_000)


def test_a_repeat_is_refused_and_the_first_result_is_known() -> None:
    """Within its validity an id is applied once, refusals included; after it, it is expired."""
    chain = Chain()
    good, bad = chain.sign(ADA, transfer()), chain.sign(ADA, transfer(10**13))
    first = chain.block(good, good, bad).receipts
    assert [r.code for r in first] == [0, Code.ALREADY_APPLIED, Code.INSUFFICIENT_FUNDS]
    assert chain.machine.receipt_of(good.id) == first[0]
    assert chain.machine.receipt_of(bad.id) == first[2]
    last = good.transaction.valid_until
    assert [r.code for r in chain.block(good, bad, at=last).receipts] == [Code.ALREADY_APPLIED] * 2
    assert [r.code for r in chain.block(good, bad, at=last + 1).receipts] == [Code.EXPIRED] * 2
    chain.block(at=last + 60_000)
    assert chain.machine.receipt_of(good.id) == first[0]
    assert not dict(chain.machine._remembered.ids())
    assert chain.balance(BOB) == 10**12 + 1


def test_a_forged_copy_does_not_block_the_original() -> None:
    """A copy with a bad signature has the same id; the good one is applied after it all the same."""
    chain = Chain()
    raw = chain.raw(ADA, transfer())
    forged = raw.replace(raw[14:142], b"0" * 128)
    codes = [r.code for r in chain.block(*map(chain.machine.codec.decode, (forged, raw))).receipts]
    assert codes == [Code.BAD_SIGNATURE, 0]


def test_the_window_is_exact() -> None:
    """A transaction is good in the last millisecond of its validity, and at most 120 s ahead."""
    chain = Chain()
    now = START + 10
    codes = [
        chain.block(chain.sign(ADA, transfer(), valid_until=now + ahead), at=now).receipts[0].code
        for now, ahead in ((now, 0), (now + 1, -1), (now + 2, 120_000), (now + 3, 120_001))
    ]
    assert codes == [0, Code.EXPIRED, 0, Code.VALID_TOO_LONG]


def test_offline_sequence() -> None:
    """Transactions signed offline are applied in their order, each once, without an end; a refused one uses its number."""
    chain = Chain()

    def offline(sequence: int, amount: int = 1) -> int:
        return chain.send(ADA, transfer(amount), nonce="", valid_until=0, sequence=sequence).code

    assert [offline(1), offline(1), offline(3), offline(2, 10**13), offline(2), offline(3)] == [
        0, Code.BAD_SEQUENCE, Code.BAD_SEQUENCE, Code.INSUFFICIENT_FUNDS, Code.BAD_SEQUENCE, 0,
    ]  # fmt: skip
    assert chain.balance(BOB) == 10**12 + 2


def test_an_account_opens_by_a_transfer_and_takes_its_first_key() -> None:
    """A new address can act once it has received money, by the key that hashes to it and by no other."""
    chain, new = Chain(), User("new")
    assert chain.send(new, transfer()).code == Code.ACCOUNT_NOT_FOUND
    chain.ok(ADA, transfer(10, new))
    assert chain.send(BOB, transfer(), principal=new.address).code == Code.KEY_REFUSED
    chain.ok(new, transfer(10))
    assert chain.balance(new) == 0
    assert chain.send(ADA, transfer(), principal=new.address).code == Code.NOT_AUTHORISED


def test_rotation_keeps_the_address() -> None:
    """After a rotation the new key acts for the old address, and the old key for nobody."""
    chain = Chain()
    proof = keys.sign(KEY.seed, rotation_bytes(CHAIN, ADA.address)).hex()
    chain.ok(ADA, RotateKey(key=KEY.key, proof=proof))
    assert chain.send(ADA, transfer()).code == Code.NOT_AUTHORISED
    chain.ok(KEY, transfer(), principal=ADA.address)


def test_delegation_holds_for_its_verbs_time_and_day() -> None:
    """A delegated key spends up to its limit each day, until it is revoked or its time is over."""
    chain = Chain()
    midnight = (START // DAY + 1) * DAY
    chain.ok(ADA, delegate(midnight + 1000, 100, verbs=("Transfer",)))
    codes = [
        chain.send(KEY, transfer(amount), principal=ADA.address, at=at).code
        for amount, at in ((60, START + 100), (41, START + 200), (40, START + 300), (1, midnight - 1), (100, midnight))
    ]
    assert codes == [0, Code.SPEND_LIMIT, 0, Code.SPEND_LIMIT, 0]
    ended = chain.block(at=midnight + 1000).begin_events
    assert DelegationEnded(address=ADA.address, key=KEY.key, reason="expired") in ended
    assert chain.machine.store.count(DELEGATIONS) == 0
    assert chain.send(KEY, transfer(), principal=ADA.address).code == Code.NOT_AUTHORISED


def test_delegation_is_replaced_by_version_and_revoked() -> None:
    """A second Delegate names the version; what was spent that day still counts; Revoke ends it at once."""
    chain = Chain()
    chain.ok(ADA, delegate())
    chain.ok(KEY, transfer(90), principal=ADA.address)
    assert chain.send(ADA, delegate()).code == Code.VERSION_MISMATCH
    chain.ok(ADA, delegate(version=1, expires_ms=START + 2 * DAY))
    assert chain.send(KEY, transfer(11), principal=ADA.address).code == Code.SPEND_LIMIT
    chain.ok(ADA, Revoke(key=KEY.key))
    assert chain.send(KEY, transfer(), principal=ADA.address).code == Code.NOT_AUTHORISED
    assert chain.machine.next_due() is None


def test_own_keys_stay_with_the_owner() -> None:
    """Not even a delegate for everything changes keys or delegations."""
    chain = Chain()
    chain.ok(ADA, delegate())
    proof = keys.sign(KEY.seed, rotation_bytes(CHAIN, ADA.address)).hex()
    for message in (RotateKey(key=KEY.key, proof=proof), Revoke(key=KEY.key), delegate(version=1)):
        assert chain.send(KEY, message, principal=ADA.address).code == Code.NOT_AUTHORISED


def test_delegations_are_bounded() -> None:
    """An account has at most so many."""
    chain = Chain()
    many = [Delegate(expires_ms=START + DAY, key=User(f"k{i}").key, spend_per_day="0", verbs=("*",)) for i in range(65)]
    chain.ok(ADA, *many[:MAX_DELEGATIONS])
    assert chain.send(ADA, many[-1]).code == Code.NOT_AUTHORISED


def test_rate_bucket_refills_by_the_millisecond() -> None:
    """An empty bucket refuses, inside the block and before it, and refills at its rate."""
    chain = Chain(parameters={"bucket_burst": 3, "bucket_refill_per_s": 2})
    codes = [r.code for r in chain.block(*(chain.sign(ADA, transfer()) for _ in range(4))).receipts]
    assert codes == [0, 0, 0, Code.RATE_LIMITED]
    with pytest.raises(Rejected) as refusal:
        chain.machine.check(chain.sign(ADA, transfer()), chain.now + 499)
    assert refusal.value.code == Code.RATE_LIMITED
    chain.machine.check(chain.sign(ADA, transfer()), chain.now + 500)
    chain.machine.check(chain.sign(ADA, transfer()))
    assert chain.send(ADA, transfer(), at=chain.now + 499).code == Code.RATE_LIMITED
    assert chain.send(ADA, transfer(), at=chain.now + 1).code == 0


def test_check_agrees_with_the_block() -> None:
    """What `check` refuses, a block refuses with the same code, and nothing has changed."""
    chain = Chain()
    root = chain.machine.head.state_root
    applied = chain.sign(ADA, transfer())
    chain.block(applied)
    nobody = User("nobody")
    for signed in (
        chain.sign(ADA, transfer(), chain_id="test-2"),
        chain.sign(ADA, transfer(), valid_until=START - 1),
        chain.sign(ADA, transfer(), valid_until=START + 10**9),
        chain.sign(nobody, transfer()),
        chain.sign(BOB, transfer(), principal=ADA.address),
        applied,
    ):
        code = refused(chain.machine.check, signed, chain.now)
        assert code == chain.block(signed).receipts[0].code != 0
    assert chain.machine.head.state_root != root


def test_issuer_mints_and_burns() -> None:
    """The issuer alone makes and destroys money; the supply follows."""
    chain = Chain()
    chain.ok(ISSUER, Mint(amount="7", denomination="uother", to=BOB.address))
    assert chain.balance(BOB, "uother") == 7
    chain.ok(BOB, Transfer(amount="7", denomination="uother", to=ISSUER.address))
    chain.ok(ISSUER, Burn(amount="7", denomination="uother"))
    assert chain.balance(ISSUER, "uother") == 0
    assert chain.send(ISSUER, Burn(amount="1", denomination="uother")).code == Code.INSUFFICIENT_FUNDS
    chain.machine.invariants()


def test_parameters_change_at_once_and_roll_back() -> None:
    """A parameter holds from the next message on; one set by a refused transaction does not."""
    chain = Chain()
    chain.ok(GOVERNOR, SetParameter(name="max_validity_ms", value=1000))
    assert chain.send(ADA, transfer()).code == Code.VALID_TOO_LONG
    bad = chain.send(GOVERNOR, SetParameter(name="max_validity_ms", value=5000), transfer(10**13), valid_until=chain.now + 500)
    assert bad.code == Code.INSUFFICIENT_FUNDS
    assert chain.machine.parameters()["max_validity_ms"] == 1000
    assert set(chain.machine.parameters()) == set(LEDGER_PARAMETERS)


def test_upgrade_at_its_height(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planned rules hold from their height; software that does not know them stops there and says what to do."""
    monkeypatch.setattr("ledger.protocol.genesis.PROTOCOL", 1)
    chain = Chain(protocol=1)
    chain.ok(GOVERNOR, Upgrade(height=3, protocol=2))
    assert chain.block().header.protocol == 1
    old = Machine.restore(chain.machine.genesis, (chain.probe,), chain.machine.snapshot())
    with pytest.raises(UpgradeRequired) as stop:
        chain.block()
    assert "newer" in stop.value.fix or "release" in stop.value.fix
    monkeypatch.setattr("ledger.protocol.genesis.PROTOCOL", 2)
    result = old.apply_block(chain.now + 1, [])
    assert result.header.protocol == 2
    assert Upgraded(protocol=2) in result.begin_events


def test_a_block_chains_to_the_one_before() -> None:
    """Height, parent and time go on; the first parent is the genesis' hash; time must advance."""
    chain = Chain()
    head = chain.machine.head
    assert (head.height, head.parent, head.time_ms) == (0, chain.machine.genesis.hash, START)
    one, two = chain.block(chain.sign(ADA, transfer())).header, chain.block().header
    assert (one.parent, two.parent, two.height) == (head.hash, one.hash, 2)
    assert ZERO_HASH not in (one.results, one.state_root, one.transactions)
    with pytest.raises(AssertionError):
        chain.machine.apply_block(chain.now, [])


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters": {"colour": 1}},
        {"parameters": {"take_rate_ppm": 10**6}},
        {"denominations": genesis().denominations * 2},
        {"allocations": (Allocation(address=ADA.address, amount=str(2**63 - 1), denomination=CREDIT),) * 2},
        {"governance": ADA.address[:-1] + ("q" if ADA.address[-1] != "q" else "p")},
        {"protocol": PROTOCOL + 1},
    ],
    ids=["unknown-parameter", "parameter-out-of-bounds", "denomination-twice", "too-much-money", "bad-address", "unknown-rules"],
)
def test_a_genesis_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    """No chain starts from it."""
    with pytest.raises((ValueError, Rejected, UpgradeRequired)):
        Machine(genesis(**changes), ())
