"""The whole state as bytes: every record, the ids that are remembered, and the header whose root covers both."""

from typing import Final

import msgspec

from ledger.machine.store import Store
from ledger.protocol.block import Header

_FORMAT: Final = "gpubid/snapshot/v1"


class _Snapshot(msgspec.Struct, frozen=True):
    format: str
    head: Header
    minutes: list[tuple[int, bytes]]
    tables: dict[str, bytes]


def dump(head: Header, store: Store, minutes: list[tuple[int, list[str]]]) -> bytes:
    """Return the snapshot; equal states give equal bytes."""
    encoder = msgspec.msgpack.Encoder()
    tables = {name: encoder.encode(list(store.scan(table))) for name, table in sorted(store.tables.items()) if store.count(table)}
    ids = [(minute, b"".join(bytes.fromhex(id) for id in names)) for minute, names in minutes]
    return encoder.encode(_Snapshot(format=_FORMAT, head=head, minutes=ids, tables=tables))


def load(data: bytes, store: Store) -> tuple[Header, list[tuple[int, list[str]]]]:
    """Put the records of a snapshot into an empty store; return its head and (minute, ids). ValueError: not a snapshot."""
    try:
        found = msgspec.msgpack.decode(data, type=_Snapshot)
        if found.format != _FORMAT:
            raise ValueError(f"not a snapshot of this kind: {found.format!r}")
        for name, rows in found.tables.items():
            if name not in store.tables:
                raise ValueError(f"the snapshot has records of an unknown table, {name!r}")
            table = store.tables[name]
            for record in msgspec.msgpack.decode(rows, type=list[table.record]):  # type: ignore[name-defined]
                store.put(table, record)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a snapshot: {error}") from None
    ids = []
    for minute, packed in found.minutes:
        if len(packed) % 32:
            raise ValueError("the snapshot's ids are cut short")
        ids.append((minute, [packed[at : at + 32].hex() for at in range(0, len(packed), 32)]))
    return found.head, ids
