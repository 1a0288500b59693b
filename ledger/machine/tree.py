"""The state root: a bucket tree over every record, brought up to date once a block from what changed.

H is SHA-256. `kh = H(0x10 ‖ key)`, `vh = H(0x00 ‖ canonical value)`. A record lives in the bucket that the first 16
bits of `kh` name. A bucket is `0x02 ‖ kh₁‖vh₁ ‖ kh₂‖vh₂ …` sorted by `kh`; its digest is H of that, or 32 zero bytes
when empty. Above it are four levels of 16 children, node = `H(0x01 ‖ 16 × 32 bytes)`. Each level is one bytearray of
groups of 513 bytes that begin with 0x01, so that a group is hashed as one slice.
"""

from bisect import bisect_left
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

BUCKETS: Final = 1 << 16
EMPTY: Final = bytes(32)
_GROUP: Final = 1 + 16 * 32


class Tree:
    """Digests only: 64 bytes a record and 2 MiB of levels. The records themselves are the store's."""

    def __init__(self) -> None:
        self._buckets: list[bytearray | None] = [None] * BUCKETS
        self._levels: list[bytearray] = []
        child, groups = EMPTY, BUCKETS >> 4
        while groups:
            self._levels.append(bytearray((b"\x01" + child * 16) * groups))
            child = sha256(b"\x01" + child * 16).digest()
            groups >>= 4
        self.root = child

    def update(self, changes: Iterable[tuple[bytes, bytes | None]]) -> bytes:
        """Take in (kh, vh or None for a record that is gone) and return the new root R."""
        dirty: dict[int, bytearray] = {}
        buckets = self._buckets
        for kh, vh in changes:
            number = kh[0] << 8 | kh[1]
            bucket = buckets[number]
            if bucket is None:
                bucket = buckets[number] = bytearray(b"\x02")
            dirty[number] = bucket
            # The usual case, a record that is there: the bytes of its key's hash stand at an entry's beginning.
            at = bucket.find(kh)
            if vh is not None and at & 63 == 1:
                bucket[at + 32 : at + 64] = vh
            else:
                _place(bucket, kh, vh)
        changed: dict[int, bytes] = {}
        for number, bucket in dirty.items():
            if len(bucket) == 1:
                buckets[number] = None
                changed[number] = EMPTY
            else:
                changed[number] = sha256(bucket).digest()
        for level in self._levels:
            starts: dict[int, int] = {}
            for number, value in changed.items():
                group = number >> 4
                start = starts[group] = group * _GROUP
                start += 1 + ((number & 15) << 5)
                level[start : start + 32] = value
            with memoryview(level) as view:
                changed = {group: sha256(view[start : start + _GROUP]).digest() for group, start in starts.items()}
        self.root = changed.get(0, self.root)
        return self.root

    def build(self, shards: Iterable[list[bytes]]) -> bytes:
        """Fill an empty tree at once and return R: lists of kh ‖ vh, those whose first byte is 0, then 1 … to 255.

        The lists are sorted in place. ValueError where there are not 256 lists, or an entry is in another's.
        """
        assert not any(self._buckets), "the tree is not empty"
        leaves, number = self._levels[0], 0
        for first, entries in enumerate(shards):
            entries.sort()
            if first > 255 or (entries and not entries[0][0] == entries[-1][0] == first):
                raise ValueError("a record is in a shard that is not its own")
            low = 0
            for number in range(first << 8, (first + 1) << 8):
                # The end of the last bucket of all has no name in two bytes.
                high = len(entries) if number & 255 == 255 else bisect_left(entries, (number + 1).to_bytes(2, "big"), low)
                if high > low:
                    bucket = self._buckets[number] = bytearray(b"\x02" + b"".join(entries[low:high]))
                    start = (number >> 4) * _GROUP + 1 + (number & 15) * 32
                    leaves[start : start + 32] = sha256(bucket).digest()
                low = high
        if number != BUCKETS - 1:
            raise ValueError("there are shards missing")
        for level, above in zip(self._levels, [*self._levels[1:], bytearray(_GROUP)], strict=True):
            for group in range(len(level) // _GROUP):
                start = (group >> 4) * _GROUP + 1 + (group & 15) * 32
                above[start : start + 32] = sha256(level[group * _GROUP : (group + 1) * _GROUP]).digest()
        self.root = sha256(self._levels[-1]).digest()
        return self.root

    def bucket(self, kh: bytes) -> bytes:
        """Return the entries of the bucket that `kh` belongs to, without its tag."""
        bucket = self._buckets[kh[0] << 8 | kh[1]]
        return b"" if bucket is None else bytes(bucket[1:])

    def holds(self, kh: bytes) -> bool:
        """True where there is a record of that key hash."""
        bucket = self._buckets[kh[0] << 8 | kh[1]]
        return bucket is not None and _find(bucket, kh) >= 0

    def entries(self, kh: bytes) -> int:
        """Return how many entries the bucket has that `kh` belongs to."""
        bucket = self._buckets[kh[0] << 8 | kh[1]]
        return 0 if bucket is None else len(bucket) >> 6

    def path(self, kh: bytes) -> list[tuple[int, list[bytes]]]:
        """Return (place, the 16 children) of each level from the buckets up, for the bucket of `kh`."""
        number = kh[0] << 8 | kh[1]
        out = []
        for level in self._levels:
            start = (number >> 4) * _GROUP + 1
            out.append((number & 15, [bytes(level[start + 32 * i : start + 32 * i + 32]) for i in range(16)]))
            number >>= 4
        return out


def _find(bucket: bytearray, kh: bytes) -> int:
    """Where the entry of a key's hash begins in a bucket; negative where it has none."""
    at = bucket.find(kh)
    # The bytes of a key's hash may also stand across other entries: only their own place counts.
    while at >= 0 and at & 63 != 1:
        at = bucket.find(kh, at + 1)
    return at


def _place(bucket: bytearray, kh: bytes, vh: bytes | None) -> None:
    """Set, insert or remove one entry of a bucket."""
    at = _find(bucket, kh)
    if at >= 0:
        if vh is None:
            del bucket[at : at + 64]
        else:
            bucket[at + 32 : at + 64] = vh
        return
    if vh is None:
        return
    low, high = 0, len(bucket) >> 6
    while low < high:
        middle = (low + high) >> 1
        if bucket[1 + 64 * middle : 33 + 64 * middle] < kh:
            low = middle + 1
        else:
            high = middle
    bucket[1 + 64 * low : 1 + 64 * low] = kh + vh
