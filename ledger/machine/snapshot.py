"""State as bytes: 256 shards of records, what each block changed, the ids that are remembered, and a whole snapshot.

A record's shard is the first byte of `kh`, so that a shard is 256 whole buckets of the tree. Records are kept as the
canonical bytes that the tree hashes, a newline after each (canonical JSON has none inside): they are decoded, split
and hashed in bulk. Nothing here carries a seal of its own. The state root covers every record and every id: whatever
differs from what was committed gives another root.

Shards may be of different heights. What blocks changed since the oldest of them is laid over all of them, newest last:
a record that was touched since has its newest bytes there, and one that was not is as its shard has it.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import compress
from typing import Any, Final

import msgspec

from ledger.machine.remembered import Remembered
from ledger.machine.store import Store, Table
from ledger.machine.tree import Tree
from ledger.protocol.block import Header
from ledger.protocol.genesis import Genesis

SHARDS: Final = 256
_FORMAT: Final = "gpubid/snapshot/v2"
_JSON: Final = msgspec.json.Encoder(order="sorted")
_PACK: Final = msgspec.msgpack.Encoder()

_Lines = list[tuple[str, bytes]]
"""Per table its name and the canonical bytes of records, a newline after each."""

_Gone = list[tuple[str, list[str]]]
"""Per table its name and the keys that are no more."""

_SHARD: Final = msgspec.msgpack.Decoder(_Lines)
_CHANGED: Final = msgspec.msgpack.Decoder(tuple[_Lines, _Gone])
_IDS: Final = msgspec.msgpack.Decoder(list[tuple[int, bytes]])


class Change(msgspec.Struct, frozen=True):
    """What a block changed: records (and those that are gone), and the ids it remembers, as `Parts` takes them."""

    records: bytes
    ids: bytes


class Parts(msgspec.Struct, frozen=True):
    """A state in pieces: shards 0 to 255, what blocks changed since the oldest of them, ids; oldest first, each read once."""

    shards: Iterable[bytes]
    changes: Iterable[bytes]
    ids: Iterable[bytes]


class Snapshot(msgspec.Struct, frozen=True):
    """A whole state with the header whose root covers it."""

    format: str
    genesis: Genesis
    head: Header
    shards: list[bytes]
    ids: bytes


def pack_change(lines: dict[str, list[bytes]], gone: dict[str, list[str]], ids: Iterable[tuple[int, bytes]]) -> Change:
    """Return a block's change: canonical values and gone keys by table, and (minute, id of 32 bytes) as they came."""
    records = [(name, b"\n".join(values) + b"\n") for name, values in lines.items()]
    return Change(records=_PACK.encode((records, list(gone.items()))), ids=pack_ids(ids))


NO_CHANGE: Final = Change(records=_PACK.encode(([], [])), ids=_PACK.encode([]))


def pack_ids(ids: Iterable[tuple[int, bytes]]) -> bytes:
    """Return (minute, packed ids) together, those of one minute in the order they came."""
    minutes: dict[int, list[bytes]] = {}
    for minute, packed in ids:
        minutes.setdefault(minute, []).append(packed)
    return _PACK.encode([(minute, b"".join(minutes[minute])) for minute in sorted(minutes)])


def unpack_ids(data: bytes) -> list[tuple[int, bytes]]:
    """Return the (minute, packed ids) of `pack_ids`; ValueError where it is no such thing."""
    try:
        found = _IDS.decode(data)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not remembered ids of a snapshot: {error}") from None
    if any(len(packed) % 32 for _, packed in found):
        raise ValueError("the snapshot's ids are cut short")
    return found


class Shards:
    """Which keys each shard has. A key that is gone stays listed until its shard is written: that finds out."""

    def __init__(self) -> None:
        self._keys: list[dict[str, list[str]]] = [{} for _ in range(SHARDS)]
        self._unsorted: set[tuple[int, str]] = set()

    def add(self, number: int, table: str, key: str) -> None:
        """Take in the key of a new record."""
        keys = self._keys[number].get(table)
        if keys is None:
            keys = self._keys[number][table] = []
        keys.append(key)
        self._unsorted.add((number, table))

    def extend(self, number: int, table: str, keys: Sequence[str]) -> None:
        """Take in the keys of new records."""
        if keys:
            self._keys[number].setdefault(table, []).extend(keys)
            self._unsorted.add((number, table))

    def dump(self, number: int, store: Store) -> bytes:
        """Return a shard as the store has it now; equal states give equal bytes."""
        out: _Lines = []
        listed = self._keys[number]
        for name in sorted(listed):
            keys = listed[name]
            if (number, name) in self._unsorted:
                self._unsorted.remove((number, name))
                keys = listed[name] = sorted(set(keys))
            lines = store.shelved(store.tables[name], keys)
            if not all(lines):
                listed[name] = list(compress(keys, lines))
            there = [line for line in lines if line]
            if there:
                out.append((name, b"\n".join(there) + b"\n"))
        return _PACK.encode(out)


def fill(parts: Parts, store: Store, tree: Tree, shards: Shards, remembered: Remembered) -> None:
    """Put a state into empty ones; ValueError where the parts cannot be read. Whether it is the right state, its root says."""
    try:
        loading = _Loading(store, shards)
        for change in parts.changes:
            loading.change(change)
        loading.settle()
        tree.build(loading.shard(number, data) for number, data in enumerate(parts.shards))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a snapshot: {error}") from None
    store.reindex()
    for ids in parts.ids:
        for minute, packed in unpack_ids(ids):
            remembered.load(minute, packed)


def first(store: Store, tree: Tree, shards: Shards) -> None:
    """Build the tree and the shards of a state that is in the store already: a genesis."""
    entries: list[list[bytes]] = [[] for _ in range(SHARDS)]
    for name, table in store.tables.items():
        keys, records = [], []
        for key, record in store.items(table):
            keys.append(key)
            records.append(record)
        for key, entry in zip(keys, _entries(name, keys, map(_JSON.encode, records)), strict=True):
            entries[entry[0]].append(entry)
            shards.add(entry[0], name, key)
    tree.build(entries)


class _Loading:
    """Records on their way from parts into a store. What is done for each of a million is done in bulk."""

    def __init__(self, store: Store, shards: Shards) -> None:
        self._store = store
        self._shards = shards
        self._decoders: dict[str, msgspec.json.Decoder[Any]] = {}
        self._newest: dict[str, dict[str, Any]] = {}
        """What the store takes as a record, by table and key; None for what is gone."""
        # Flat: a million small objects, freed here and there, would leave holes in memory.
        self._entries = [bytearray() for _ in range(SHARDS)]

    def _table(self, name: str) -> Table[Any]:
        table = self._store.tables.get(name)
        if table is None:
            raise ValueError(f"the snapshot has records of an unknown table, {name!r}")
        return table

    def _rows(self, table: Table[Any], lines: bytes) -> tuple[list[str], list[Any], list[bytes]]:
        """Keys, what the store takes as their records, and canonical bytes of some lines."""
        values = lines.split(b"\n")
        if values.pop():
            raise ValueError("not lines of a snapshot")
        if table.key_in is not None and self._store.rests(table):
            # Whether they make sense at all, the root says.
            return b"\n".join(map(table.key_in, values)).decode().split("\n") if values else [], values, values
        decoder = self._decoders.get(table.name)
        if decoder is None:
            decoder = self._decoders[table.name] = msgspec.json.Decoder(table.record)
        records = decoder.decode_lines(lines)
        if len(values) != len(records):
            raise ValueError("not lines of a snapshot")
        return list(map(table.key, records)), records, values

    def change(self, data: bytes) -> None:
        """Take in what a block changed; the next one is newer."""
        lines, gone = _CHANGED.decode(data)
        for name, some in lines:
            keys, rows, _ = self._rows(self._table(name), some)
            self._newest.setdefault(name, {}).update(zip(keys, rows, strict=True))
        for name, lost in gone:
            self._table(name)
            self._newest.setdefault(name, {}).update(dict.fromkeys(lost))

    def settle(self) -> None:
        """All changes are in: load what is newest."""
        for name, newest in self._newest.items():
            table = self._store.tables[name]
            there = {key: row for key, row in newest.items() if row is not None}
            rests = self._store.rests(table)
            values: Iterable[bytes] = there.values() if rests else map(_JSON.encode, there.values())
            keys: list[list[str]] = [[] for _ in range(SHARDS)]
            for key, entry in zip(there, _entries(name, there, values), strict=True):
                number = entry[0]
                keys[number].append(key)
                self._entries[number] += entry
            for number, some in enumerate(keys):
                self._shards.extend(number, name, some)
            # A dictionary keeps the key it had first: the record's own spares a copy.
            own = there if rests else map(table.key, there.values())
            self._store.load(table, zip(own, there.values(), strict=True))

    def shard(self, number: int, data: bytes) -> list[bytes]:
        """Load a shard, but for what is newer; return (kh ‖ vh) of all its records."""
        if number >= SHARDS:
            raise ValueError("there are more shards than there can be")
        packed = bytes(self._entries[number])
        self._entries[number] = bytearray()
        entries = [packed[at : at + 64] for at in range(0, len(packed), 64)]
        for name, lines in _SHARD.decode(data):
            table = self._table(name)
            keys, rows, values = self._rows(table, lines)
            newest = self._newest.get(name)
            if newest:
                kept = [key not in newest for key in keys]
                keys, rows, values = list(compress(keys, kept)), list(compress(rows, kept)), list(compress(values, kept))
            entries += _entries(name, keys, values)
            self._store.load(table, zip(keys, rows, strict=True))
            self._shards.extend(number, name, keys)
        return entries


def _entries(table: str, keys: Iterable[str], values: Iterable[bytes]) -> list[bytes]:
    """kh ‖ vh of each."""
    tag = f"\x10{table}/".encode()
    return [
        sha256(tag + key.encode()).digest() + sha256(b"\x00" + value).digest() for key, value in zip(keys, values, strict=True)
    ]


def dump(genesis: Genesis, head: Header, store: Store, shards: Shards, ids: Iterable[tuple[int, bytes]]) -> bytes:
    """Return the snapshot; equal states give equal bytes."""
    data = [shards.dump(number, store) for number in range(SHARDS)]
    return _PACK.encode(Snapshot(format=_FORMAT, genesis=genesis, head=head, shards=data, ids=pack_ids(ids)))


def load(data: bytes) -> Snapshot:
    """Return the snapshot in `data`; ValueError where it is none."""
    try:
        found = msgspec.msgpack.decode(data, type=Snapshot)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"not a snapshot: {error}") from None
    if found.format != _FORMAT:
        raise ValueError(f"not a snapshot of this kind: {found.format!r}")
    return found
