"""What a node signs with its key: the receipt of a transaction, and a block as a checkpoint.

A statement is signed over `digest("receipt/v1" or "checkpoint/v1", canonical bytes)`. Whoever keeps statements can convict
the node that signed them: two that contradict each other, or one that a chain does not bear out, prove that it lied.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Final

import msgspec

from ledger.protocol import keys
from ledger.protocol.block import Header, Receipt
from ledger.protocol.encoding import digest, encode
from ledger.protocol.errors import Code, Rejected
from ledger.protocol.keys import HashHex, KeyHex, SignatureHex
from ledger.protocol.messages import TimeMs
from ledger.protocol.transaction import ChainId

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]

_OF_MESSAGES: Final = 200
"""Codes from here on are of messages: they use up a transaction's nonce or sequence, so that it has no other result."""

MAX_STATEMENT: Final = 4096
"""Largest signed statement that is decoded, in bytes."""


class ReceiptStatement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That transaction `id` has the result `code` at `index` of the block of that hash; `time_ms` is block time."""

    chain_id: ChainId
    code: Count
    hash: HashHex
    height: Count
    id: HashHex
    index: Count
    state_root: HashHex
    time_ms: TimeMs


class CheckpointStatement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That the chain has the block of that hash and root at `height`."""

    chain_id: ChainId
    hash: HashHex
    height: Count
    state_root: HashHex
    time_ms: TimeMs


class SignedReceipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A receipt with the signature of a node."""

    node_key: KeyHex
    receipt: ReceiptStatement
    signature: SignatureHex

    @property
    def said(self) -> ReceiptStatement:
        """What was signed."""
        return self.receipt


class SignedCheckpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A checkpoint with the signature of a node."""

    checkpoint: CheckpointStatement
    node_key: KeyHex
    signature: SignatureHex

    @property
    def said(self) -> CheckpointStatement:
        """What was signed."""
        return self.checkpoint


Statement = SignedReceipt | SignedCheckpoint


def statement_bytes(said: ReceiptStatement | CheckpointStatement) -> bytes:
    """Return what the node's key signs: 32 bytes."""
    return digest("receipt/v1" if isinstance(said, ReceiptStatement) else "checkpoint/v1", encode(said))


def sign_receipt(receipt: Receipt, header: Header, seed: bytes, node_key: str) -> SignedReceipt:
    """The receipt of a transaction in the block of `header`, signed by the node's `seed` (32 bytes; about 30 µs)."""
    assert receipt.height == header.height, "the header is of another block"
    said = ReceiptStatement(
        chain_id=header.chain_id,
        code=receipt.code,
        hash=header.hash,
        height=header.height,
        id=receipt.id,
        index=receipt.index,
        state_root=header.state_root,
        time_ms=header.time_ms,
    )
    return SignedReceipt(node_key=node_key, receipt=said, signature=keys.sign(seed, statement_bytes(said)).hex())


def sign_checkpoint(header: Header, seed: bytes, node_key: str) -> SignedCheckpoint:
    """The block of `header`, signed by the node's `seed` (32 bytes)."""
    said = CheckpointStatement(
        chain_id=header.chain_id,
        hash=header.hash,
        height=header.height,
        state_root=header.state_root,
        time_ms=header.time_ms,
    )
    return SignedCheckpoint(checkpoint=said, node_key=node_key, signature=keys.sign(seed, statement_bytes(said)).hex())


def is_signed(statement: Statement) -> bool:
    """True where the statement is signed by the key that it names."""
    signature = bytes.fromhex(statement.signature)
    return keys.verify(bytes.fromhex(statement.node_key), statement_bytes(statement.said), signature)


def decode_statement(raw: bytes) -> Statement:
    """The signed receipt or checkpoint in `raw`, its signature found good. MALFORMED or BAD_SIGNATURE."""
    if len(raw) > MAX_STATEMENT:
        raise Rejected(Code.MALFORMED, f"a signed statement has at most {MAX_STATEMENT} bytes")
    kind: type[Statement] = SignedReceipt if b'"receipt"' in raw else SignedCheckpoint
    try:
        statement: Statement = msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Rejected(Code.MALFORMED, f"neither a signed receipt nor a signed checkpoint: {error}") from None
    if not is_signed(statement):
        raise Rejected(Code.BAD_SIGNATURE, f"the statement is not signed by {statement.node_key}")
    return statement


class Evidence(msgspec.Struct, frozen=True):
    """That a node lied: what it signed, beside what else it signed or what its chain says. Hashes are those of blocks."""

    node_key: str
    height: int
    transaction: str
    """Id; empty where a checkpoint convicts."""
    signed_hash: str
    other_hash: str
    """Hash of the other statement's block or of the chain's; empty where the chain has no block of that height."""
    why: str
    statements: tuple[Statement, ...]
    """One that the chain contradicts, or two that contradict each other."""


def contradictions(statements: Iterable[Statement]) -> Iterator[Evidence]:
    """What statements of one key say against each other: each pair at most once, in order of height. They must be signed."""
    ordered = sorted(set(statements), key=lambda s: (s.said.height, s.said.hash, s.signature))
    blocks: dict[tuple[str, str, int], Statement] = {}
    places: dict[tuple[str, str, int, int], SignedReceipt] = {}
    results: dict[tuple[str, str, str], SignedReceipt] = {}
    for statement in ordered:
        said, chain = statement.said, (statement.node_key, statement.said.chain_id)
        first: Statement = blocks.setdefault((*chain, said.height), statement)
        if _block(first) != _block(statement):
            yield _evidence(statement, first.said.hash, "two different blocks of one height", first)
            continue
        if not isinstance(statement, SignedReceipt):
            continue
        receipt = statement.receipt
        there = places.setdefault((*chain, receipt.height, receipt.index), statement)
        if there.receipt != receipt:
            yield _evidence(statement, there.said.hash, "two different results at one place of one block", there)
        elif receipt.code == Code.OK or receipt.code >= _OF_MESSAGES:
            earlier = results.setdefault((*chain, receipt.id), statement)
            if earlier.receipt != receipt:
                yield _evidence(statement, earlier.said.hash, "two different results of one transaction", earlier)


def _block(statement: Statement) -> tuple[str, str, int]:
    return statement.said.hash, statement.said.state_root, statement.said.time_ms


def _evidence(signed: Statement, other_hash: str, why: str, *before: Statement) -> Evidence:
    """That `signed` convicts its key, with an earlier statement (`before`) or by the chain alone."""
    return Evidence(
        node_key=signed.node_key,
        height=signed.said.height,
        transaction=signed.receipt.id if isinstance(signed, SignedReceipt) else "",
        signed_hash=signed.said.hash,
        other_hash=other_hash,
        why=why,
        statements=(*before, signed),
    )


class Witness:
    """Holds what nodes signed about a chain against the chain itself, block by block."""

    def __init__(self, statements: Iterable[Statement]) -> None:
        self._left: dict[int, list[Statement]] = {}
        for statement in sorted(set(statements), key=lambda s: s.signature):
            self._left.setdefault(statement.said.height, []).append(statement)
        self.borne_out = 0
        """How many statements the chain bears out so far."""
        self.evidence: list[Evidence] = []

    def look(self, header: Header, receipts: Sequence[Receipt]) -> None:
        """Compare what was signed about the block of `header` with it."""
        for statement in self._left.pop(header.height, ()):
            why = _differs(statement, header, receipts)
            if why:
                self.evidence.append(_evidence(statement, header.hash, why))
            else:
                self.borne_out += 1

    def end(self, height: int) -> None:
        """The chain ends at `height`: what was signed about later blocks is missing."""
        for late in sorted(self._left):
            for statement in self._left[late]:
                self.evidence.append(_evidence(statement, "", f"the chain ends at height {height}"))
        self._left.clear()


def _differs(statement: Statement, header: Header, receipts: Sequence[Receipt]) -> str:
    said = statement.said
    if said.hash != header.hash:
        return "the chain has another block at that height"
    if (said.state_root, said.time_ms) != (header.state_root, header.time_ms):
        return "that block has another state root or time"
    if isinstance(statement, SignedReceipt):
        index = statement.receipt.index
        found = receipts[index] if index < len(receipts) else None
        if found is None or (found.id, found.code) != (statement.receipt.id, statement.receipt.code):
            return f"that block has no such transaction with that result at index {index}"
    return ""
