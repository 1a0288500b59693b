"""The state root covers every record and id; proofs of presence and absence hold, and nothing else does."""

import json
import random
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.machine.accounts import ACCOUNTS
from ledger.machine.machine import Machine
from ledger.machine.tree import Tree
from ledger.protocol.encoding import encode
from ledger.protocol.messages import Transfer
from ledger.protocol.proof import Proof, key_hash, value_hash, verify
from tests.ledger import independent
from tests.ledger.machine.chain import ADA, BOB, CREDIT, Chain, User


def everything(machine: Machine) -> tuple[dict[str, bytes], dict[int, list[str]]]:
    """All records and remembered ids of a machine, by the independent encoding."""
    records = {
        f"{table.name}/{table.key(record)}": independent.canonical(msgspec.to_builtins(record))
        for table in machine.store.tables.values()
        for record in machine.store.scan(table)
    }
    return records, dict(machine._remembered.ids())


def busy(count: int = 300) -> Chain:
    """A chain with a few hundred accounts."""
    chain = Chain()
    for at in range(0, count, 50):
        messages = [Transfer(amount="9", denomination=CREDIT, to=User(f"u{i}").address) for i in range(at, at + 50)]
        chain.ok(ADA, *messages)
    return chain


def test_root_equals_one_from_scratch_after_every_block() -> None:
    """The incremental root is that of the specification, ids by minute included, also when minutes are dropped."""
    chain = Chain()
    rng = random.Random(7)
    for height in range(12):
        wait = rng.choice([1, 500, 40_000, 130_000])
        users = [User(f"u{rng.randrange(40)}") for _ in range(5)]
        signed = [
            chain.sign(
                ADA,
                Transfer(amount=str(rng.randrange(1, 50)), denomination=CREDIT, to=user.address),
                valid_until=chain.now + wait + rng.randrange(120_000),
            )
            for user in users
        ]
        chain.block(*signed, at=chain.now + wait)
        assert chain.machine.head.state_root == independent.state_root(*everything(chain.machine)), height


def test_every_record_has_a_proof() -> None:
    """Each record is proven by our verifier and by an independent one; a key that is not there is proven absent."""
    chain = busy()
    root = chain.machine.head.state_root
    records, _ = everything(chain.machine)
    for key, value in records.items():
        proof = chain.machine.prove(key)
        assert proof.value is not None
        assert proof.value.encode() == value
        assert verify(proof, root)
    for key in [*sorted(records)[::20], "account/nobody", "no_such_table/x", ""]:
        proof = chain.machine.prove(key)
        assert verify(proof, root)
        assert independent.verify(json.loads(encode(proof)), root)
        assert (proof.value is None) == (key not in records)


def test_tampered_proofs_are_refused() -> None:
    """Whatever is changed in a proof, neither verifier takes it."""
    chain = busy()
    root = chain.machine.head.state_root
    there, absent = chain.machine.prove(f"account/{ADA.address}"), chain.machine.prove("account/nobody")
    rng = random.Random(3)
    replace: Any = msgspec.structs.replace
    bad = [
        replace(there, value=None),
        replace(there, value=str(there.value).replace("money", "honey")),
        replace(there, key=f"account/{BOB.address}"),
        replace(there, minutes=()),
        replace(there, minutes=there.minutes * 2),
        replace(there, levels=there.levels[:3]),
        replace(there, levels=(*there.levels, there.levels[-1])),
        replace(there, bucket=""),
        replace(there, bucket=there.bucket + there.bucket),
        replace(absent, value="{}"),
        replace(absent, bucket=there.bucket),
        replace(absent, key=f"account/{ADA.address}"),
    ]
    for proof in bad:
        assert not verify(proof, root)
        assert not independent.verify(json.loads(encode(proof)), root)
    for place in range(4):
        level = there.levels[place]
        for other in (
            replace(level, present=level.present ^ 1 << rng.randrange(16)),
            replace(level, siblings=level.siblings[64:] if level.siblings else "00" * 32),
        ):
            proof = replace(there, levels=(*there.levels[:place], other, *there.levels[place + 1 :]))
            assert not verify(proof, root)
    assert not verify(there, sha256(b"").hexdigest())


def test_a_proof_survives_the_wire() -> None:
    """A proof decodes to itself; lengths are bounded."""
    chain = busy(50)
    proof = chain.machine.prove(f"account/{ADA.address}")
    assert msgspec.json.decode(encode(proof), type=Proof) == proof
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(encode(proof).replace(b'"bucket":"', b'"bucket":"zz'), type=Proof)


@given(st.lists(st.tuples(st.integers(0, 30), st.one_of(st.none(), st.binary(max_size=3))), max_size=60), st.integers(1, 9))
def test_tree_is_a_function_of_its_contents(changes: list[tuple[int, bytes | None]], size: int) -> None:
    """However records came and went, in whatever batches, the root is that of what is there."""
    tree = Tree()
    have: dict[str, bytes] = {}
    for at in range(0, len(changes), size):
        batch = dict(changes[at : at + size])
        tree.update((key_hash(str(key)), None if value is None else value_hash(value)) for key, value in batch.items())
        for key, value in batch.items():
            have.pop(str(key), None)
            if value is not None:
                have[str(key)] = value
    fresh = Tree()
    fresh.update((key_hash(key), value_hash(value)) for key, value in sorted(have.items()))
    assert tree.root == fresh.root


def test_crowded_buckets_and_misleading_bytes() -> None:
    """Entries of one bucket stay in order, and a key's hash that stands across other entries is not taken for it."""
    tree, rng = Tree(), random.Random(5)
    entries = {b"\x12\x34" + rng.randbytes(30): rng.randbytes(32) for _ in range(60)}
    tree.update(entries.items())
    names = sorted(entries)
    tree.update([(names[9], None), (names[5], b"\x07" * 32)])
    entries[names[5]] = b"\x07" * 32
    del entries[names[9]]
    assert tree.bucket(names[0]) == b"".join(name + entries[name] for name in sorted(entries))
    inner = Tree()
    kh = bytes(2) + b"\x01" * 30
    other = bytes(2) + b"\x00" * 30
    inner.update([(other, kh), (kh, b"\x05" * 32)])
    inner.update([(kh, b"\x06" * 32)])
    assert inner.bucket(kh) == other + kh + kh + b"\x06" * 32


def test_records_outside_a_block_are_found() -> None:
    """The full check finds state that was changed behind the tree's back."""
    chain = busy(50)
    account = chain.machine.store.get(ACCOUNTS, ADA.address)
    assert account is not None
    chain.machine.store.put(ACCOUNTS, msgspec.structs.replace(account, version=9))
    with pytest.raises(AssertionError, match="tree differs"):
        chain.machine.invariants()
