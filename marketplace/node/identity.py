"""What this software calls itself, and the node's key, with which it signs what it says about its chain."""

from functools import cache, lru_cache
from importlib.metadata import version as installed
from typing import Final

from ledger.engine.embedded import Engine
from ledger.protocol.block import Header, Receipt
from ledger.protocol.receipts import SignedCheckpoint, SignedReceipt, sign_checkpoint, sign_receipt

RECENT: Final = 256
"""Headers kept of blocks whose receipts were signed: a client that asks again must not cost a read of its block."""


@cache
def version() -> str:
    """Version of the installed package."""
    return installed("gpubid")


class Notary:
    """Signs receipts and checkpoints with the node's `seed` (32 bytes). For any thread."""

    def __init__(self, engine: Engine, seed: bytes, key_hex: str) -> None:
        self._engine = engine
        self._seed = seed
        self._key_hex = key_hex
        self._header = lru_cache(RECENT)(self._read)

    def receipt(self, receipt: Receipt) -> SignedReceipt:
        """The signed receipt of a committed transaction. Reads its block unless that `is_at_hand`."""
        return sign_receipt(receipt, self._header(receipt.height), self._seed, self._key_hex)

    def is_at_hand(self, height: int) -> bool:
        """True where a receipt of that block can be signed without reading it: at once, on the event loop too."""
        return self._engine.head.height == height

    def checkpoint(self, header: Header) -> SignedCheckpoint:
        """The signed checkpoint of a committed block."""
        return sign_checkpoint(header, self._seed, self._key_hex)

    def checkpoint_of(self, height: int) -> SignedCheckpoint:
        """The signed checkpoint of a block that the log has. Reads it, unless it was lately."""
        return self.checkpoint(self._header(height))

    def _read(self, height: int) -> Header:
        head = self._engine.head
        if head.height == height:
            return head
        block = self._engine.block(height)
        assert block is not None, f"block {height} of a receipt is not in the log"
        return block.header
