"""No bucket of the state tree is stuffed by transactions; what falls due and what modules write is never refused for it."""

from collections import defaultdict

import pytest

from ledger.machine import escrow
from ledger.machine.accounts import ACCOUNTS, NETWORK_ACCOUNT
from ledger.machine.crowding import Crowding
from ledger.machine.delegation import DELEGATIONS
from ledger.machine.machine import Machine
from ledger.machine.params import LEDGER_PARAMETERS
from ledger.machine.purse import PURSES
from ledger.machine.schedule import SCHEDULE
from ledger.machine.store import Store
from ledger.machine.tree import Tree
from ledger.protocol.encoding import encode
from ledger.protocol.errors import Code
from ledger.protocol.messages import Deposit, Transfer
from ledger.protocol.proof import key_hash, value_hash
from tests.ledger.machine.chain import ADA, BOB, CREDIT, Chain, User, refused
from tests.ledger.machine.test_replicas import Rent, Renting


def neighbours(count: int) -> list[str]:
    """Names of purses whose records share a bucket."""
    found: dict[bytes, list[str]] = defaultdict(list)
    for number in range(10**6):
        name = f"n{number}"
        row = found[key_hash(f"purse/{name}")[:2]]
        row.append(name)
        if len(row) == count:
            return row
    raise AssertionError("no such names")


FOUR = neighbours(4)


def opened(name: str) -> Rent:
    """A message that opens a purse."""
    return Rent(name=name, payee=BOB.address, verb="open", value=5)


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> Chain:
    """A chain whose buckets take two records."""
    monkeypatch.setitem(LEDGER_PARAMETERS, "bucket_records", (2, 1, 10))  # type: ignore[arg-type]
    return Chain((Renting(),))


def test_a_third_record_is_refused_with_its_whole_transaction(chain: Chain) -> None:
    """The transaction that would make it changes nothing, whatever else it says; other buckets are free."""
    chain.ok(ADA, opened(FOUR[0]))
    chain.ok(ADA, opened(FOUR[1]))
    before = chain.balance(ADA)
    receipt = chain.send(ADA, Transfer(amount="1", denomination=CREDIT, to=BOB.address), opened(FOUR[2]))
    assert (receipt.code, receipt.events) == (Code.BUCKET_FULL, ())
    assert f"purse/{FOUR[2]}" in receipt.detail
    assert chain.balance(ADA) == before
    assert chain.machine.store.get(PURSES, FOUR[2]) is None
    chain.ok(ADA, opened("elsewhere"))
    chain.ok(ADA, Deposit(amount="1", purse=FOUR[0]))
    chain.machine.invariants()


def test_the_cap_holds_within_a_block_and_a_transaction(chain: Chain) -> None:
    """Records of the same block count, and those of the same transaction; a refused transaction's do not."""
    nothing = Transfer(amount="0", denomination=CREDIT, to=BOB.address)
    signed = [chain.sign(ADA, opened(FOUR[0])), chain.sign(ADA, opened(FOUR[1]), nothing)]
    signed += [chain.sign(BOB, opened(name)) for name in FOUR[2:]]
    codes = [receipt.code for receipt in chain.block(*signed).receipts]
    assert codes == [0, Code.AMOUNT_REFUSED, 0, Code.BUCKET_FULL]
    other = Chain((Renting(),))
    assert other.send(ADA, *map(opened, FOUR[:3])).code == Code.BUCKET_FULL
    other.ok(ADA, *map(opened, FOUR[:2]))


def test_replay_and_restore_refuse_the_same(chain: Chain) -> None:
    """A machine from a snapshot, and one that replays, know how full each bucket is."""
    raws = [chain.raw(ADA, opened(name)) for name in FOUR[:3]]
    codec = chain.machine.codec
    chain.block(codec.decode(raws[0]), codec.decode(raws[1]))
    twin = Machine.restore(chain.machine.genesis, (Renting(), chain.probe), chain.machine.snapshot())
    fresh = Machine(chain.machine.genesis, (Renting(), chain.probe))
    fresh.apply_block(chain.now, [codec.decode(raw) for raw in raws[:2]])
    last = [codec.decode(raws[2])]
    results = [machine.apply_block(chain.now + 1, last) for machine in (chain.machine, twin, fresh)]
    assert results[0].receipts[0].code == Code.BUCKET_FULL
    assert len({encode(result.header) for result in results}) == 1


def test_modules_are_not_refused(chain: Chain) -> None:
    """At a block's end a full bucket grows beyond the cap; transactions then still add nothing to it."""
    chain.ok(ADA, *map(opened, FOUR[:2]))
    out: list[int] = []
    chain.act(lambda ctx: out.append(refused(escrow.open_purse, ctx, FOUR[2], ADA.address, CREDIT, 1)))
    assert out == [0]
    assert chain.send(ADA, opened(FOUR[3])).code == Code.BUCKET_FULL
    chain.machine.invariants()


def test_what_follows_from_something_that_exists_is_not_refused() -> None:
    """Nobody keeps a meter from starting by filling the bucket of its purse's events; events of what is brought in count."""
    crowding = Crowding(Tree())
    existing, own = "purse_dry/p", "delegation_expiry/a/k"
    crowding.admit([(SCHEDULE, existing)], 0)
    assert refused(crowding.admit, [(DELEGATIONS, "a/k"), (SCHEDULE, own)], 0) == Code.BUCKET_FULL
    places = [key_hash(f"schedule/{own}"), key_hash(f"delegation/{own.partition('/')[2]}")]
    assert places[0][:2] != places[1][:2]
    full = Tree()
    full.update([(places[0][:2] + bytes(30), value_hash(b"x"))])
    assert refused(Crowding(full).admit, [(DELEGATIONS, "a/k"), (SCHEDULE, own)], 1) == Code.BUCKET_FULL
    Crowding(full).admit([(SCHEDULE, own), (ACCOUNTS, NETWORK_ACCOUNT)], 0)


def test_what_was_deleted_counts_until_the_next_block() -> None:
    """A bucket's place is free in the block after; a record that is made anew in its own place is none more."""
    tree = Tree()
    names = [key_hash(f"purse/{name}") for name in FOUR]
    tree.update((kh, value_hash(b"x")) for kh in names[:2])
    crowding = Crowding(tree)
    crowding.admit([(PURSES, FOUR[0]), (PURSES, FOUR[1])], 2)
    assert refused(crowding.admit, [(PURSES, FOUR[2])], 2) == Code.BUCKET_FULL
    tree.update([(names[0], None)])
    crowding.begin_block()
    crowding.admit([(PURSES, FOUR[2]), (PURSES, FOUR[2])], 2)
    assert refused(crowding.admit, [(PURSES, FOUR[0])], 2) == Code.BUCKET_FULL


def test_transactions_without_new_records_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transfer between open accounts asks for no bucket at all."""
    chain = Chain()
    chain.ok(ADA, Transfer(amount="1", denomination=CREDIT, to=User("dora").address))

    def never(*_: object) -> None:
        raise AssertionError("nothing is new")

    monkeypatch.setattr(Crowding, "admit", never)
    chain.ok(ADA, Transfer(amount="1", denomination=CREDIT, to=User("dora").address))


def test_made_names_what_is_new() -> None:
    """Inserted and still there: named; replaced, or inserted and gone again: not."""
    chain = Chain((Renting(),))
    chain.ok(ADA, opened("a"))
    record = chain.machine.store.get(PURSES, "a")
    assert record is not None
    store = Store([PURSES])
    mark = store.mark()
    store.put(PURSES, record)
    assert store.made(mark) == [(PURSES, "a")]
    again = store.mark()
    store.put(PURSES, record)
    assert store.made(again) == []
    store.delete(PURSES, "a")
    assert store.made(mark) == []
