"""Blocks, receipts and events: what a node stores and what a client is told."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec

from ledger.protocol.encoding import digest, domain, encode

ZERO_HASH: Final = "0" * 64


class Event(msgspec.Struct, frozen=True, gc=False, tag_field="kind"):
    """Root of every event; subclasses are tagged with their own name and carry what a read model needs."""


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The result of one transaction: `code` and `events` are consensus, `detail` is for people."""

    id: str
    height: int
    index: int
    code: int
    events: tuple[Any, ...] = ()
    detail: str = ""

    @property
    def ok(self) -> bool:
        """True where every message was applied."""
        return self.code == 0


class Header(msgspec.Struct, frozen=True):
    """What the hash of a block covers; `time_ms` is block time, `results` hashes receipts and events."""

    chain_id: str
    height: int
    parent: str
    protocol: int
    results: str
    state_root: str
    time_ms: int
    transactions: str

    @property
    def hash(self) -> str:
        """Hex of the block's hash."""
        return digest("block/v1", encode(self)).hex()


class BlockResult(msgspec.Struct, frozen=True):
    """What applying a block gave: a header, one receipt a transaction, and events outside transactions."""

    header: Header
    receipts: tuple[Receipt, ...]
    begin_events: tuple[Any, ...]
    """Events of what fell due before the transactions."""
    end_events: tuple[Any, ...]
    """Events of matching, after the transactions."""
    encoded: tuple[bytes, bytes, bytes]
    """What `results` of the header hashes, as `encode_results` gives it."""

    def events(self) -> list[Any]:
        """All events of the block in order: their positions are the indexes of `height:index` ids."""
        out = list(self.begin_events)
        for receipt in self.receipts:
            out.extend(receipt.events)
        out.extend(self.end_events)
        return out


def encode_results(receipts: Sequence[Receipt], begin: Sequence[Any], end: Sequence[Any]) -> tuple[bytes, bytes, bytes]:
    """Canonical bytes of (id, code, events) of each receipt, and of the events before and after the transactions.

    Details are left out: they are no part of consensus.
    """
    return encode([(r.id, r.code, r.events) for r in receipts]), encode(begin), encode(end)


def results_hash(receipts: bytes, begin: bytes, end: bytes) -> str:
    """Hex over what `encode_results` gives."""
    return digest("results/v1", receipts, begin, end).hex()


_TRANSACTIONS: Final = domain("transactions/v1")


def transactions_hash(raws: list[bytes]) -> str:
    """Hex over the signed bytes of a block's transactions, in order."""
    # `digest("transactions/v1", *raws)`, in one go.
    return sha256(b"".join((_TRANSACTIONS, *(part for raw in raws for part in (len(raw).to_bytes(8, "big"), raw))))).hexdigest()
