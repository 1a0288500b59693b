"""Live state: tables of frozen records in memory, ordered indexes, an undo log, and what a block changed.

A refused transaction is rolled back along the undo log; at the end of a block the records as they were before it name
every record that changed, so that the state tree looks at those alone.

Records of a large table that nobody has read for a while are kept as their canonical bytes: these take less memory and
fewer of its lines than what is decoded from them, and a restart need not decode what nobody asks for.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from enum import IntEnum
from typing import Any, Generic, TypeVar

import msgspec
from sortedcontainers import SortedList

from ledger.protocol.encoding import encode
from ledger.protocol.errors import Rejected

R = TypeVar("R", bound=msgspec.Struct)
Watcher = Callable[[Any, Any], None]

_LONG = 512
"""A plain list of keys is quicker and smaller than a SortedList up to about here."""


class Table(Generic[R]):
    """A kind of record: its name, its type, its key, and what it is found by.

    `name` is of a-z and _; the full key in state is `name/key`. An index maps a value to keys in ascending order;
    a record whose value is None is not in that index. `key_in` finds the key in a record's canonical bytes (ASCII): where
    it is given, records may rest as bytes.
    """

    def __init__(
        self,
        name: str,
        record: type[R],
        key: Callable[[R], str],
        indexes: Mapping[str, Callable[[R], Hashable | None]] | None = None,
        key_in: Callable[[bytes], bytes] | None = None,
    ) -> None:
        assert name.replace("_", "a").isalpha(), name
        assert name.islower(), name
        self.name = name
        self.prefix = b"\x10" + name.encode() + b"/"
        """What the hash of a key begins with, as `ledger.protocol.proof.key_hash` makes it."""
        self.record = record
        self.key = key
        self.indexes = dict(indexes or {})
        self.key_in = key_in


class Store:
    """State in memory. Every write can be undone back to a mark until `keep`, and is known as a change until `forget`."""

    def __init__(self, tables: Iterable[Table[Any]]) -> None:
        self.tables: dict[str, Table[Any]] = {}
        self._rows: dict[str, dict[str, Any]] = {}
        self._indexes: dict[str, dict[str, dict[Hashable, Any]]] = {}
        self._order: dict[str, Any] = {}
        self._watchers: dict[str, list[Watcher]] = {}
        self._attached: set[str] = set()
        self._resting: dict[str, msgspec.json.Decoder[Any]] = {}
        """Tables whose rows may be bytes, with what decodes them."""
        self._log: list[tuple[Table[Any], str, Any]] = []
        self._before: dict[str, dict[str, Any]] = {}
        for table in tables:
            assert table.name not in self.tables, f"two tables are called {table.name}"
            self.tables[table.name] = table
            self._rows[table.name] = {}
            self._before[table.name] = {}
            self._indexes[table.name] = {name: {} for name in table.indexes}
            self._watchers[table.name] = []
            if table.indexes:
                self._attached.add(table.name)
            elif table.key_in is not None:
                self._resting[table.name] = msgspec.json.Decoder(table.record)

    def get(self, table: Table[R], key: str) -> R | None:
        """Return the record, or None."""
        found: Any = self._rows[table.name].get(key)
        if type(found) is bytes:
            found = self._woken(table, key, found)
        return found  # type: ignore[no-any-return]

    def require(self, table: Table[R], key: str, code: IntEnum, detail: str = "") -> R:
        """Return the record; Rejected with `code` where there is none."""
        found: Any = self._rows[table.name].get(key)
        if found is None:
            raise Rejected(code, detail or key)
        if type(found) is bytes:
            found = self._woken(table, key, found)
        return found  # type: ignore[no-any-return]

    def put(self, table: Table[R], record: R) -> None:
        """Insert the record, or replace the one of the same key."""
        name = table.name
        key = table.key(record)
        rows = self._rows[name]
        old = rows.get(key)
        if type(old) is bytes:
            old = self._woken(table, key, old)
        self._log.append((table, key, old))
        before = self._before[name]
        if key not in before:
            before[key] = old
        rows[key] = record
        if name in self._attached:
            self._moved(table, key, old, record)

    def delete(self, table: Table[R], key: str) -> None:
        """Remove the record; it must be there."""
        old = self.get(table, key)
        del self._rows[table.name][key]
        self._log.append((table, key, old))
        self._before[table.name].setdefault(key, old)
        if table.name in self._attached:
            self._moved(table, key, old, None)

    def shelved(self, table: Table[R], keys: Iterable[str]) -> list[bytes | None]:
        """Return the canonical bytes of each record, None where there is none; those of a table that may rest, rest now."""
        rows, rests = self._rows[table.name], table.name in self._resting
        assert not self._before[table.name], "a block is being applied"
        out: list[bytes | None] = []
        for key in keys:
            row = rows.get(key)
            if row is not None and type(row) is not bytes:
                row = encode(row)
                if rests:
                    rows[key] = row
            out.append(row)
        return out

    def items(self, table: Table[R]) -> Iterator[tuple[str, R]]:
        """Iterate over every (key, record), in no order that may matter to anybody."""
        for key, row in self._rows[table.name].items():
            yield key, self._record(table, row)

    def load(self, table: Table[Any], records: Iterable[tuple[str, Any]]) -> None:
        """Take in records by key, past the undo log and the indexes: for a store that is being filled; then `reindex`.

        They are canonical bytes where the table may rest.
        """
        self._rows[table.name].update(records)

    def rests(self, table: Table[Any]) -> bool:
        """True where records of the table may rest as their canonical bytes."""
        return table.name in self._resting

    def reindex(self) -> None:
        """Bring indexes and watchers up to date with what was loaded into empty tables."""
        for name in sorted(self._attached):
            table, rows = self.tables[name], self._rows[name]
            for key in sorted(rows):
                self._moved(table, key, None, rows[key])

    def find(self, table: Table[R], index: str, value: Hashable) -> list[R]:
        """Return the records of an indexed value, in ascending key order."""
        rows = self._rows[table.name]
        return [rows[key] for key in self._indexes[table.name][index].get(value, ())]

    def scan(self, table: Table[R]) -> Iterator[R]:
        """Iterate over all records in ascending key order; the table may change meanwhile."""
        order = self._order.get(table.name)
        if order is None:
            # Made on first use: tables that nobody scans pay nothing for an order.
            order = self._order[table.name] = SortedList(self._rows[table.name])
            self._attached.add(table.name)
        rows = self._rows[table.name]
        for key in list(order):
            if key in rows:
                yield self._record(table, rows[key])

    def count(self, table: Table[R], index: str | None = None, value: Hashable = None) -> int:
        """Return how many records there are, of all or of an indexed value."""
        if index is None:
            return len(self._rows[table.name])
        return len(self._indexes[table.name][index].get(value, ()))

    def watch(self, table: Table[Any], watcher: Watcher) -> None:
        """Call `watcher(old, new)` on each change of a record, undone ones included; None stands for no record.

        This is how a cache beside the state stays true when a transaction is rolled back.
        """
        if table.name in self._resting:
            rows = self._rows[table.name]
            for key, row in rows.items():
                if type(row) is bytes:
                    self._woken(table, key, row)  # no key comes or goes
            del self._resting[table.name]
        self._watchers[table.name].append(watcher)
        self._attached.add(table.name)

    def mark(self) -> int:
        """Return a point to roll back to, good until `keep`."""
        return len(self._log)

    def keep(self) -> None:
        """What was written so far is not undone any more: the undo log is emptied."""
        self._log.clear()

    def rollback(self, mark: int) -> None:
        """Undo everything since `mark`, newest first."""
        log = self._log
        while len(log) > mark:
            table, key, old = log.pop()
            rows = self._rows[table.name]
            new = rows.get(key)
            if old is None:
                del rows[key]
            else:
                rows[key] = old
            if table.name in self._attached:
                self._moved(table, key, new, old)

    def made(self, mark: int) -> list[tuple[Table[Any], str]]:
        """Return (table, key) of what was inserted since `mark` and is there; a key that was deleted before may be named."""
        rows = self._rows
        return [(table, key) for table, key, old in self._log[mark:] if old is None and key in rows[table.name]]

    def changes(self) -> Iterator[tuple[Table[Any], str, Any, Any]]:
        """Iterate over (table, key, record before, record now) of what changed since `forget`, each once."""
        for name, before in self._before.items():
            if before:
                rows = self._rows[name]
                table = self.tables[name]
                for key, old in before.items():
                    new = rows.get(key)
                    if new is not old:
                        yield table, key, old, new

    def forget(self) -> None:
        """What was written stays: nothing is undone any more, and nothing has changed."""
        self._log.clear()
        for before in self._before.values():
            if before:
                before.clear()

    def check(self) -> None:
        """Assert that every index and order equals one built from the rows."""
        for name, table in self.tables.items():
            rows = self._rows[name]
            assert all(table.key(row) == key for key, row in self.items(table)), f"a row of {name} under another's key"
            resting = (row for row in rows.values() if type(row) is bytes)
            assert all(encode(self._record(table, row)) == row for row in resting), f"records of {name} rest in another form"
            for index, value_of in table.indexes.items():
                built: dict[Hashable, list[str]] = {}
                for key in sorted(rows):
                    value = value_of(rows[key])
                    if value is not None:
                        built.setdefault(value, []).append(key)
                found = {value: list(keys) for value, keys in self._indexes[name][index].items()}
                assert found == built, f"index {index} of {name} differs from its rows"
            if name in self._order:
                assert list(self._order[name]) == sorted(rows), f"the order of {name} differs from its rows"

    def _record(self, table: Table[Any], row: Any) -> Any:
        """The record of a row, which stays as it is."""
        return self._resting[table.name].decode(row) if type(row) is bytes else row

    def _woken(self, table: Table[Any], key: str, row: bytes) -> Any:
        """The record of a row that rested, and does no more."""
        record = self._rows[table.name][key] = self._resting[table.name].decode(row)
        return record

    def _moved(self, table: Table[Any], key: str, old: Any, new: Any) -> None:
        for name, value_of in table.indexes.items():
            before = None if old is None else value_of(old)
            after = None if new is None else value_of(new)
            if before != after:
                index = self._indexes[table.name][name]
                if before is not None:
                    _take(index, before, key)
                if after is not None:
                    _insert(index, after, key)
        order = self._order.get(table.name)
        if order is not None and (old is None) != (new is None):
            if new is None:
                order.remove(key)
            else:
                order.add(key)
        for watcher in self._watchers[table.name]:
            watcher(old, new)


def _insert(index: dict[Hashable, Any], value: Hashable, key: str) -> None:
    keys = index.get(value)
    if keys is None:
        index[value] = [key]
    elif type(keys) is list:
        insort(keys, key)
        if len(keys) > _LONG:
            index[value] = SortedList(keys)
    else:
        keys.add(key)


def _take(index: dict[Hashable, Any], value: Hashable, key: str) -> None:
    keys = index[value]
    if type(keys) is list:
        place = bisect_left(keys, key)
        assert keys[place] == key
        del keys[place]
    else:
        keys.remove(key)
    if not keys:
        del index[value]
