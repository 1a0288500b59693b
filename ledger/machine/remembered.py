"""Ids of transactions, remembered by the minute their validity ends in, so that a whole minute is dropped at once.

Of each minute m there is S_m = H(0x03 ‖ ids in order of application), a hash that goes on as ids come. The newest
receipts are kept beside the ids: the root does not cover them, as the blocks do.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Final

from ledger.protocol.block import Receipt

MINUTE_MS: Final = 60_000

RECEIPTS: Final = 10_000
"""At least so many of the newest receipts are kept, at most twice as many: retries come soon or are rare."""


class _Minute:
    """The ids of one minute."""

    def __init__(self) -> None:
        self.ids: dict[str, None] = {}
        self.new: list[bytes] = []
        self._hasher = sha256(b"\x03")
        self.root = b""

    def take_new(self) -> bytes:
        packed = b"".join(self.new)
        self.new.clear()
        self._hasher.update(packed)
        self.root = self._hasher.digest()
        return packed

    def load(self, packed: bytes) -> None:
        names = packed.hex()
        self.ids.update(dict.fromkeys([names[at : at + 64] for at in range(0, len(names), 64)]))
        self._hasher.update(packed)
        self.root = self._hasher.digest()


class Remembered:
    """All ids that are remembered, with the newest of the receipts this process made for them."""

    def __init__(self) -> None:
        self._minutes: dict[int, _Minute] = {}
        self._newer: dict[str, Receipt] = {}
        self._older: dict[str, Receipt] = {}

    def knows(self, id: str, valid_until: int) -> bool:
        """True where a transaction of that id and end of validity was applied or refused."""
        minute = self._minutes.get(valid_until // MINUTE_MS)
        return minute is not None and id in minute.ids

    def receipt_of(self, id: str) -> Receipt | None:
        """Return the first result of an id that was remembered lately; None where it was not, or before a restore."""
        return self._newer.get(id) or self._older.get(id)

    def add(self, id: str, packed: bytes, valid_until: int, receipt: Receipt) -> None:
        """Remember an id, given in hex and as its 32 bytes, until its validity is over."""
        number = valid_until // MINUTE_MS
        minute = self._minutes.get(number)
        if minute is None:
            minute = self._minutes[number] = _Minute()
        minute.ids[id] = None
        minute.new.append(packed)
        newer = self._newer
        newer[id] = receipt
        if len(newer) >= RECEIPTS:
            self._newer, self._older = {}, newer

    def load(self, minute: int, packed: bytes) -> None:
        """Remember ids of 32 bytes each, in order of application, whose validity ends in a minute; without receipts."""
        self._minutes.setdefault(minute, _Minute()).load(packed)

    def take_new(self) -> list[tuple[int, bytes]]:
        """Return (minute, packed ids) of what was added since the last call, which the roots cover from now on."""
        return [(number, minute.take_new()) for number, minute in self._minutes.items() if minute.new]

    def forget(self, now_ms: int) -> None:
        """Drop the minutes in which nothing can be valid any more."""
        for number in [n for n in self._minutes if n < now_ms // MINUTE_MS]:
            del self._minutes[number]

    def roots(self) -> list[tuple[int, bytes]]:
        """Return (m, S_m) in ascending order of m."""
        return [(number, self._minutes[number].root) for number in sorted(self._minutes)]

    def ids(self) -> Iterator[tuple[int, list[str]]]:
        """Iterate over (m, ids in order of application), m ascending."""
        for number in sorted(self._minutes):
            yield number, list(self._minutes[number].ids)
