"""Buckets of the state tree are capped: nobody may make proofs and blocks slow by grinding keys into one of them.

Only transactions are held to it, and only for what they bring in themselves: what falls due and what matching writes
goes on, and so does the scheduling of something that exists, or a stranger who fills the right bucket could keep a lease
from starting. That may fill a bucket beyond the cap; then nothing new is let into it.
"""

from collections.abc import Sequence
from typing import Any

from ledger.machine.accounts import NETWORK_ACCOUNT
from ledger.machine.schedule import SCHEDULE
from ledger.machine.store import Table
from ledger.machine.tree import Tree
from ledger.protocol.errors import Code, require
from ledger.protocol.proof import key_hash


class Crowding:
    """Counts the records that the transactions of a block made, by bucket, beside those that the tree has already."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._made: dict[bytes, set[bytes]] = {}

    def begin_block(self) -> None:
        """Forget the last block's: they are in the tree."""
        self._made.clear()

    def admit(self, made: Sequence[tuple[Table[Any], str]], most: int) -> None:
        """Count what a transaction made; BUCKET_FULL where what it brings in would be beyond entry `most` of its bucket.

        What was deleted in the block still counts, until the next.
        """
        mine: dict[bytes, set[bytes]] = {}
        brought = {key for table, key in made if table is not SCHEDULE}
        for table, key in made:
            kh = key_hash(f"{table.name}/{key}")
            there = self._made.get(kh[:2], set())
            if kh in there or self._tree.holds(kh):
                continue
            new = mine.setdefault(kh[:2], set())
            new.add(kh)
            follows = key == NETWORK_ACCOUNT or (table is SCHEDULE and key.partition("/")[2] not in brought)
            count = self._tree.entries(kh) + len(there) + len(new)
            require(
                follows or count <= most,
                Code.BUCKET_FULL,
                f"{table.name}/{key}: its bucket of the state tree holds {most} records",
            )
        for prefix, new in mine.items():
            self._made.setdefault(prefix, set()).update(new)
