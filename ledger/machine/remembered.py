"""Ids of transactions, remembered by the minute their validity ends in, so that a whole minute is dropped at once.

Of each minute m there are 1,024 cells by the first 10 bits of an id; a cell is H(0x03 ‖ ids in order of application),
streamed; two levels of 32 children, H(0x01 ‖ 32 × 32 bytes), give S_m. The receipts stand beside the ids: the root
does not cover them, as the blocks do.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, Final

from ledger.protocol.block import Receipt

MINUTE_MS: Final = 60_000
_EMPTY_CELL: Final = hashlib.sha256(b"\x03").digest()
_EMPTY_GROUP: Final = hashlib.sha256(b"\x01" + _EMPTY_CELL * 32).digest()


class _Minute:
    """The ids of one minute."""

    def __init__(self) -> None:
        self.receipts: dict[str, Receipt | None] = {}
        self._cells: dict[int, Any] = {}
        self._dirty: set[int] = set()
        self._groups = [bytearray(b"\x01" + _EMPTY_CELL * 32) for _ in range(32)]
        self._top = bytearray(b"\x01" + _EMPTY_GROUP * 32)
        self._root = b""

    def add(self, id: str, receipt: Receipt | None) -> None:
        self.receipts[id] = receipt
        number = int(id[:3], 16) >> 2
        cell = self._cells.get(number)
        if cell is None:
            cell = self._cells[number] = hashlib.sha256(b"\x03")
        cell.update(bytes.fromhex(id))
        self._dirty.add(number)

    def load(self, packed: bytes) -> None:
        names = packed.hex()
        self.receipts.update(dict.fromkeys([names[at : at + 64] for at in range(0, len(names), 64)]))
        cells: dict[int, list[bytes]] = {}
        for at in range(0, len(packed), 32):
            cells.setdefault(packed[at] << 2 | packed[at + 1] >> 6, []).append(packed[at : at + 32])
        for number, ids in cells.items():
            self._cells.setdefault(number, hashlib.sha256(b"\x03")).update(b"".join(ids))
        self._dirty.update(cells)

    def root(self) -> bytes:
        if self._dirty:
            groups = set()
            for number in sorted(self._dirty):
                group, place = divmod(number, 32)
                self._groups[group][1 + 32 * place : 33 + 32 * place] = self._cells[number].digest()
                groups.add(group)
            for group in sorted(groups):
                self._top[1 + 32 * group : 33 + 32 * group] = hashlib.sha256(self._groups[group]).digest()
            self._root = hashlib.sha256(self._top).digest()
            self._dirty.clear()
        return self._root


class Remembered:
    """All ids that are remembered, with the receipts this process made for them."""

    def __init__(self) -> None:
        self._minutes: dict[int, _Minute] = {}

    def knows(self, id: str, valid_until: int) -> bool:
        """True where a transaction of that id and end of validity was applied or refused."""
        minute = self._minutes.get(valid_until // MINUTE_MS)
        return minute is not None and id in minute.receipts

    def receipt_of(self, id: str) -> Receipt | None:
        """Return the first result of a remembered id; None where it is unknown or older than a restore."""
        for minute in self._minutes.values():
            found = minute.receipts.get(id)
            if found is not None:
                return found
        return None

    def add(self, id: str, valid_until: int, receipt: Receipt | None) -> None:
        """Remember an id until its validity is over."""
        number = valid_until // MINUTE_MS
        minute = self._minutes.get(number)
        if minute is None:
            minute = self._minutes[number] = _Minute()
        minute.add(id, receipt)

    def load(self, minute: int, packed: bytes) -> None:
        """Remember ids of 32 bytes each, in order of application, whose validity ends in a minute; without receipts."""
        self._minutes.setdefault(minute, _Minute()).load(packed)

    def forget(self, now_ms: int) -> None:
        """Drop the minutes in which nothing can be valid any more."""
        for number in [n for n in self._minutes if n < now_ms // MINUTE_MS]:
            del self._minutes[number]

    def roots(self) -> list[tuple[int, bytes]]:
        """Return (m, S_m) in ascending order of m."""
        return [(number, self._minutes[number].root()) for number in sorted(self._minutes)]

    def ids(self) -> Iterator[tuple[int, list[str]]]:
        """Iterate over (m, ids in order of application), m ascending."""
        for number in sorted(self._minutes):
            yield number, list(self._minutes[number].receipts)
