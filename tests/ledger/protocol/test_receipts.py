"""Signed receipts and checkpoints: what is signed, what is refused, and how they convict a node."""

import dataclasses
from typing import Any

import msgspec
import pytest

from ledger.protocol import keys
from ledger.protocol.block import BlockResult
from ledger.protocol.encoding import digest, encode
from ledger.protocol.errors import Code, Rejected
from ledger.protocol.messages import Transfer
from ledger.protocol.receipts import (
    SignedReceipt,
    Statement,
    Witness,
    contradictions,
    decode_statement,
    is_signed,
    sign_checkpoint,
    sign_receipt,
)
from tests.ledger import independent
from tests.ledger.machine.chain import ADA, BOB, CREDIT, Chain

SEED = b"\x07" * 32
KEY = keys.public_key(SEED).hex()


@dataclasses.dataclass
class Told:
    """A chain of three blocks, and what its node signed about them."""

    blocks: list[BlockResult]
    statements: list[Statement]


def told(first: int = 1) -> Told:
    """A chain whose first transfer moves `first`, and everything that its node can sign about it."""
    chain = Chain()
    amounts = ((first, 2), (3, 10**15), (4,))
    blocks = [chain.block(*(chain.sign(ADA, _pay(amount)) for amount in of_block)) for of_block in amounts]
    statements: list[Statement] = [sign_checkpoint(b.header, SEED, KEY) for b in blocks]
    statements += [sign_receipt(r, b.header, SEED, KEY) for b in blocks for r in b.receipts]
    return Told(blocks, statements)


def _pay(amount: int) -> Transfer:
    return Transfer(amount=str(amount), denomination=CREDIT, to=BOB.address)


def again(statement: SignedReceipt, **changes: Any) -> SignedReceipt:
    """The same receipt with other contents, signed by the node too."""
    said = msgspec.structs.replace(statement.receipt, **changes)
    signature = keys.sign(SEED, digest("receipt/v1", encode(said))).hex()
    return msgspec.structs.replace(statement, receipt=said, signature=signature)


def test_statements_hold_and_an_independent_verifier_agrees() -> None:
    """What a node signs decodes to itself and is accepted by a verifier that shares no code with the product."""
    for statement in told().statements:
        raw = encode(statement)
        assert is_signed(statement)
        assert decode_statement(raw) == statement
        assert independent.signed(msgspec.json.decode(raw))


def test_every_changed_digit_is_refused() -> None:
    """A statement with any digit or letter of it changed is refused, by the product and by the independent verifier."""
    for statement in told().statements[2:5]:
        raw = encode(statement)
        for at, byte in enumerate(raw):
            if not chr(byte).isalnum():
                continue
            other = raw[:at] + (b"1" if byte == 0x30 else b"0") + raw[at + 1 :]
            with pytest.raises(Rejected) as refusal:
                decode_statement(other)
            assert refusal.value.code in (Code.MALFORMED, Code.BAD_SIGNATURE)
            try:
                assert not independent.signed(msgspec.json.decode(other))
            except (msgspec.DecodeError, KeyError):
                continue


def test_a_receipt_is_no_checkpoint() -> None:
    """A signature made for one kind of statement does not pass for the other, nor for a transaction's."""
    checkpoint = told().statements[0]
    assert not is_signed(msgspec.structs.replace(checkpoint, signature=keys.sign(SEED, digest("receipt/v1", b"")).hex()))
    wrong = keys.sign(SEED, digest("receipt/v1", encode(checkpoint.said))).hex()
    assert not is_signed(msgspec.structs.replace(checkpoint, signature=wrong))
    for raw in (b"", b"{}", b"[]", b"\xff", b"{" * 5000, b'{"receipt":1}', encode(checkpoint).replace(b"{", b"{ ", 1) + b"x"):
        with pytest.raises(Rejected):
            decode_statement(raw)


def test_true_statements_convict_nobody() -> None:
    """What a node signed about its own chain contradicts nothing, and the chain bears it out."""
    found = told()
    assert list(contradictions(found.statements * 2)) == []
    witness = Witness(found.statements)
    for block in found.blocks:
        witness.look(block.header, block.receipts)
    witness.end(3)
    assert (witness.borne_out, witness.evidence) == (len(found.statements), [])


def test_a_fork_is_found_by_each_statement_about_it() -> None:
    """Each statement about a block that another chain replaced convicts the node, with both hashes and the transaction."""
    honest, forged = told(), told(first=9)
    witness = Witness(honest.statements)
    for block in forged.blocks:
        witness.look(block.header, block.receipts)
    witness.end(3)
    assert witness.borne_out == 0
    assert len(witness.evidence) == len(honest.statements)
    for item in witness.evidence:
        assert item.signed_hash == honest.blocks[item.height - 1].header.hash
        assert item.other_hash == forged.blocks[item.height - 1].header.hash
        assert item.node_key == KEY
    ids = {r.id for b in honest.blocks for r in b.receipts}
    assert {item.transaction for item in witness.evidence} == ids | {""}


def test_a_chain_cut_short_is_found() -> None:
    """What was signed about blocks beyond the end of a chain is missing there."""
    found = told()
    witness = Witness(found.statements)
    for block in found.blocks[:2]:
        witness.look(block.header, block.receipts)
    assert witness.evidence == []
    witness.end(2)
    assert [(item.height, item.other_hash) for item in witness.evidence] == [(3, ""), (3, "")]


def test_lies_within_the_right_block_are_found() -> None:
    """A receipt with the right hash and a wrong root, time, place, code or id is not borne out."""
    found = told()
    honest = next(s for s in found.statements if isinstance(s, SignedReceipt))
    lies = [{"state_root": "0" * 64}, {"time_ms": 5}, {"index": 1}, {"index": 9}, {"code": 200}, {"id": "0" * 64}]
    for changes in lies:
        witness = Witness([again(honest, **changes)])
        witness.look(found.blocks[0].header, found.blocks[0].receipts)
        assert len(witness.evidence) == 1, changes


def test_contradictions_need_no_chain() -> None:
    """Two statements of one key that cannot both be true are evidence: blocks, places and results; of two keys they are not."""
    statements = told().statements
    honest = next(s for s in statements if isinstance(s, SignedReceipt))
    forged = told(first=9).statements
    table = [
        (forged[0], "two different blocks"),
        (again(honest, state_root="0" * 64), "two different blocks"),
        (again(honest, code=200), "one place"),
        (again(honest, id="0" * 64), "one place"),
        (again(honest, index=7), "one transaction"),
        (again(honest, height=40, hash="1" * 64), "one transaction"),
    ]
    for lie, why in table:
        (item,) = contradictions([honest, lie])
        assert why in item.why
        assert set(item.statements) == {honest, lie}
    for code in (Code.RATE_LIMITED, Code.BAD_SEQUENCE, Code.NOT_AUTHORISED):
        # The same bytes may come again after these, so that there are two true receipts.
        assert list(contradictions([honest, again(honest, code=code, height=40, hash="1" * 64)])) == []
    other = sign_checkpoint(told(first=9).blocks[0].header, b"\x08" * 32, keys.public_key(b"\x08" * 32).hex())
    assert list(contradictions([honest, other])) == []
    assert len(list(contradictions([*statements, *forged]))) == len(statements)
