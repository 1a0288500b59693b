"""A chain's newest state as a file: taken from a database that a node may be using, and what another's log begins with.

After the first line there are frames: a letter, a length (u32be), bytes. `B` is genesis and newest block, `C` what blocks
changed since the oldest shard, `S` the shards, `I` ids. Whoever begins with it names the block and the genesis that he
trusts: the header's root covers the whole state, so no byte of the file need be.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import sqlalchemy as sa

from ledger.engine.checkpoint import stored_genesis
from ledger.engine.errors import LedgerDamaged, LedgerMissing, LedgerNotEmpty, LedgerUnavailable
from ledger.engine.faults import translated
from ledger.engine.log import Log, read_block
from ledger.engine.tables import BLOCKS, META, parts
from ledger.machine.machine import Machine
from ledger.machine.module import Module
from ledger.machine.snapshot import Parts
from ledger.protocol.block import Header
from ledger.protocol.genesis import Genesis

_FORMAT: Final = b"gpubid/state/v1\n"
_KINDS: Final = b"BCSI"


class SnapshotRefused(Exception):
    """The file is not the state that was asked for."""

    exit_code = 1

    def __init__(self, what: str, fix: str = "get another file, from somebody else perhaps; nothing was changed") -> None:
        super().__init__(f"the snapshot cannot be used: {what}")
        self.fix = fix


class Taken(msgspec.Struct, frozen=True):
    """What a snapshot is of."""

    chain_id: str
    genesis: str
    """Hex of the genesis' hash."""
    hash: str
    height: int
    state_root: str


class _Begin(msgspec.Struct, frozen=True, array_like=True):
    genesis: bytes
    height: int
    hash: str
    header: bytes
    raws: bytes
    results: bytes


def take(url: str, path: Path) -> Taken:
    """Write the newest state in the database at `url` to `path`; LedgerMissing or LedgerUnavailable where there is none.

    It reads at one moment and locks nobody out: a node may go on writing.
    """
    parsed = sa.make_url(url)
    where = parsed.render_as_string(hide_password=True)
    sqlite = parsed.get_backend_name() == "sqlite"
    if sqlite and not Path(parsed.database or "").is_file():
        raise LedgerMissing(where)
    engine = sa.create_engine(parsed if sqlite else parsed.set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    options = {"isolation_level": "AUTOCOMMIT" if sqlite else "REPEATABLE READ"}
    try:
        with translated(where), engine.connect().execution_options(**options) as connection:
            if sqlite:
                connection.exec_driver_sql("BEGIN")
            return _take(connection, where, path)
    finally:
        engine.dispose()


def _take(connection: sa.Connection, where: str, path: Path) -> Taken:
    tables = sa.inspect(connection).get_table_names()
    values: dict[str, bytes] = {}
    if "meta" in tables:
        values = {name: bytes(value) for name, value in connection.execute(sa.select(META.c.name, META.c.value))}
    height = int(values.get("head", b"0").split(b" ")[0])
    if "genesis" not in values:
        raise LedgerMissing(where)
    row = connection.execute(sa.select(BLOCKS).where(BLOCKS.c.height == height)).one_or_none()
    found = parts(lambda: contextlib.nullcontext(connection), height) if row is not None and "shard" in tables else None
    if row is None or found is None:
        raise LedgerUnavailable(where, "there is no state yet: it comes with the first block of a running node")
    header = read_block(*row).header
    begin = _Begin(values["genesis"], *row)
    draft = path.with_name(path.name + ".new")
    try:
        with draft.open("wb") as out:
            out.write(_FORMAT)
            _frame(out, b"B", msgspec.msgpack.encode(begin))
            for kind, pieces in ((b"C", found.changes), (b"S", found.shards), (b"I", found.ids)):
                for piece in pieces:
                    _frame(out, kind, piece)
            out.flush()
            os.fsync(out.fileno())
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    genesis = values["genesis_hash"].decode()
    return Taken(chain_id=header.chain_id, genesis=genesis, hash=header.hash, height=height, state_root=header.state_root)


def _frame(out: BinaryIO, kind: bytes, data: bytes) -> None:
    out.write(kind + len(data).to_bytes(4, "big") + data)


class _File:
    """A snapshot's frames: where they are, and their bytes one by one."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._places: dict[int, list[tuple[int, int]]] = {kind: [] for kind in _KINDS}
        size = os.fstat(source.fileno()).st_size
        if source.read(len(_FORMAT)) != _FORMAT:
            raise SnapshotRefused("it is no snapshot of this kind")
        at = len(_FORMAT)
        while at < size:
            source.seek(at)
            head = source.read(5)
            length = int.from_bytes(head[1:], "big")
            if len(head) < 5 or head[0] not in self._places or at + 5 + length > size:
                raise SnapshotRefused("it is cut short, or damaged")
            self._places[head[0]].append((at + 5, length))
            at += 5 + length

    def pieces(self, kind: bytes) -> Iterator[bytes]:
        """The frames of a kind, in order."""
        for at, length in self._places[kind[0]]:
            self._source.seek(at)
            yield self._source.read(length)

    def begin(self) -> _Begin:
        """Genesis and newest block."""
        try:
            (data,) = self.pieces(b"B")
            return msgspec.msgpack.decode(data, type=_Begin)
        except (ValueError, msgspec.MsgspecError) as error:
            raise SnapshotRefused(f"it does not begin with a block: {error}") from None


def header_of(path: Path) -> Header:
    """Header of the block that the state in `path` is said to be of; SnapshotRefused where there is none. Nothing is checked."""
    with path.open("rb") as source:
        found = _File(source).begin()
    try:
        return read_block(found.height, found.hash, found.header, found.raws, found.results).header
    except LedgerDamaged as error:
        raise SnapshotRefused(str(error)) from None


def begin(path: Path, url: str, modules: Sequence[Module], *, genesis: str, height: int, hash_: str) -> tuple[Genesis, Taken]:
    """Begin the log at `url` with the state in `path`: that of block `height` of `hash_`, in the chain of that genesis (hex).

    SnapshotRefused, LedgerNotEmpty where `url` has a chain, and the errors of an `Engine.open`. Nothing is written before
    all was checked, and then all or nothing.
    """
    with path.open("rb") as source:
        file = _File(source)
        found = file.begin()
        try:
            first = stored_genesis(found.genesis, genesis)
            header = read_block(found.height, found.hash, found.header, found.raws, found.results).header
        except LedgerDamaged as error:
            raise SnapshotRefused(str(error)) from None
        if (header.height, header.hash, header.chain_id) != (height, hash_, first.chain_id):
            raise SnapshotRefused(f"it is of block {header.height} with hash {header.hash}")
        pieces = Parts(shards=file.pieces(b"S"), changes=file.pieces(b"C"), ids=file.pieces(b"I"))
        try:
            machine = Machine.load(first, modules, header, pieces)
        except (ValueError, AssertionError) as error:
            raise SnapshotRefused(str(error)) from None
    log = Log(url)
    try:
        if log.meta("genesis") is not None:
            raise LedgerNotEmpty(log.where)
        row = {name: getattr(found, name) for name in ("height", "hash", "header", "raws", "results")}
        log.begin(found.genesis, genesis, row, machine)
    finally:
        log.close()
    taken = Taken(chain_id=header.chain_id, genesis=genesis, hash=hash_, height=height, state_root=header.state_root)
    return first, taken
