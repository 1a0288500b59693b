"""The block log: what is committed. One commit a block; on SQLite (WAL, synchronous=FULL) or PostgreSQL by URL.

SQLAlchemy makes the schema, the connections and the reads; the writer appends over its raw connection with
statements built once.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec
import sqlalchemy as sa

from ledger.engine import tables
from ledger.engine.errors import LedgerDamaged, LedgerLocked
from ledger.engine.faults import translated
from ledger.engine.tables import BLOCKS, CHANGES, META, METADATA, NEEDED, REMEMBERED, SHARDS, TRANSACTIONS
from ledger.machine.machine import Machine
from ledger.machine.snapshot import NO_CHANGE, Change, Parts, pack_ids, unpack_ids
from ledger.machine.snapshot import SHARDS as SHARD_COUNT
from ledger.protocol.block import BlockResult, Header, Receipt, results_hash, transactions_hash
from ledger.protocol.encoding import encode
from ledger.protocol.errors import is_last_word
from ledger.protocol.genesis import Genesis

_ADVISORY: Final = 0x677075626964
"""Number of the advisory lock on PostgreSQL: "gpubid"."""

_OWNER: Final = """
    SELECT application_name || ' at ' || coalesce(host(client_addr), 'this machine')
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND classid::bigint = :high AND objid::bigint = :low AND granted
      AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


PART_TRANSACTIONS: Final = 16_384
"""Transactions of a part of the index."""

PARTS_AT_ONCE: Final = 500
"""Parts that one statement looks into."""


class StoredResults(msgspec.Struct, frozen=True, array_like=True):
    """Results of a block as they are stored: what its header hashes, and beside it the details, by place."""

    receipts: bytes
    begin: bytes
    end: bytes
    details: dict[int, str]


class StoredBlock(msgspec.Struct, frozen=True):
    """A committed block: the transactions as received, and what they gave.

    The events of one that was read from the log are mappings with their `kind`.
    """

    raws: list[bytes]
    result: BlockResult
    change: Change = NO_CHANGE
    """What it changed; kept for restarts only, so a block that was read from the log has none."""

    @property
    def header(self) -> Header:
        """The block's header."""
        return self.result.header


def prefix_of(tx_id: str) -> int:
    """The part of an id under which the log finds it."""
    return int(tx_id[:16], 16) >> 1


class Log:
    """The block log of one database. Appends come from one thread; reads from any."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock_file: TextIO | None = None
        self._lock_connection: sa.Connection | None = None
        self._part: tuple[int, int] | None = None
        """Newest part of the index of transactions, and how many are in it; None until the first block."""
        self.path: Path | None = None
        parsed = sa.make_url(url)
        self.where = parsed.render_as_string(hide_password=True)
        if parsed.get_backend_name() == "sqlite":
            assert parsed.database, "a SQLite URL names a file"
            self.path = Path(parsed.database)
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_sqlite(self.path)
            self._engine = sa.create_engine(parsed, poolclass=sa.QueuePool, pool_size=4, max_overflow=12)
            sa.event.listen(self._engine, "connect", _tune)
            mark = "?"
        else:
            # Whatever the server's default is: a commit is on disk when it returns.
            options = {"options": "-c synchronous_commit=on", "application_name": f"gpubid, process {os.getpid()}"}
            driver = parsed.set(drivername="postgresql+psycopg")
            self._engine = sa.create_engine(driver, pool_size=4, max_overflow=12, connect_args=options)
            with translated(self.where):
                self._lock_postgres()
            mark = "%s"
        try:
            with translated(self.where):
                self._make_tables()
                self._writer = self._engine.raw_connection()
        except BaseException:
            self._release()
            raise
        self._insert_block = f"INSERT INTO block (height, hash, header, raws, results) VALUES ({', '.join([mark] * 5)})"  # noqa: S608
        self._update_head = f"UPDATE meta SET value = {mark} WHERE name = 'head'"  # noqa: S608
        self._insert_change = f"INSERT INTO change (height, ids, records) VALUES ({mark}, {mark}, {mark})"  # noqa: S608
        self._insert_id = f"INSERT INTO applied (part, prefix, height, position) VALUES ({mark}, {mark}, {mark}, {mark})"  # noqa: S608
        self._keep_shard = (
            f"INSERT INTO shard (number, height, data) VALUES ({mark}, {mark}, {mark}) "  # noqa: S608
            "ON CONFLICT (number) DO UPDATE SET height = excluded.height, data = excluded.data"
        )
        self._old_ids = f"SELECT ids FROM change WHERE height <= {mark} ORDER BY height"  # noqa: S608
        self._drop_changes = f"DELETE FROM change WHERE height <= {mark}"  # noqa: S608
        self._insert_ids = f"INSERT INTO remembered (height, until, ids) VALUES ({mark}, {mark}, {mark})"  # noqa: S608
        self._drop_ids = f"DELETE FROM remembered WHERE until < {mark}"  # noqa: S608

    def _make_tables(self) -> None:
        """Make the tables where there are none; a database that has lost one is damaged, and not changed."""
        found = set(sa.inspect(self._engine).get_table_names()) & set(METADATA.tables)
        if found and (lost := NEEDED - found):
            raise LedgerDamaged(0, f"there is no table {', '.join(sorted(lost))}")
        if found != set(METADATA.tables):
            with self._transaction() as connection:
                METADATA.create_all(connection)

    # Who writes.

    def _lock_sqlite(self, path: Path) -> None:
        lock = path.with_name(path.name + ".lock")
        file = lock.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            file.close()
            raise LedgerLocked(str(path), f"process {owner}" if owner.isdigit() else owner) from None
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        self._lock_file = file

    def _lock_postgres(self) -> None:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            if not connection.execute(sa.text("SELECT pg_try_advisory_lock(:n)"), {"n": _ADVISORY}).scalar():
                owner = connection.execute(sa.text(_OWNER), {"high": _ADVISORY >> 32, "low": _ADVISORY & 0xFFFF_FFFF}).scalar()
                raise LedgerLocked(self.where, str(owner or "another node"))
        except BaseException:
            connection.close()
            self._engine.dispose()
            raise
        self._lock_connection = connection

    def _release(self) -> None:
        if self._lock_connection is not None:
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                self._lock_connection.execute(sa.text("SELECT pg_advisory_unlock(:n)"), {"n": _ADVISORY})
            self._lock_connection.close()
        self._engine.dispose()
        if self._lock_file is not None:
            self._lock_file.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """A connection whose statements are committed together, or not at all."""
        with translated(self.where), self._engine.begin() as connection:
            if self.path is not None:
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # our SQLite connections begin nothing by themselves
            yield connection

    # Meta.

    def meta(self, name: str) -> bytes | None:
        """A stored fact, or None."""
        with translated(self.where), self._engine.connect() as connection:
            found = connection.execute(sa.select(META.c.value).where(META.c.name == name)).scalar()
        return None if found is None else bytes(found)

    def set_meta(self, name: str, value: bytes) -> None:
        """Store a fact, replacing an earlier one."""
        upsert = sa.text("INSERT INTO meta (name, value) VALUES (:n, :v) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
        with self._transaction() as connection:
            connection.execute(upsert, {"n": name, "v": value})

    def start(self, genesis: Genesis) -> None:
        """Store the genesis of a new chain."""
        values = {"genesis": encode(genesis), "genesis_hash": genesis.hash.encode(), "head": head_mark(0, genesis.hash)}
        with self._transaction() as connection:
            connection.execute(sa.insert(META), [{"name": name, "value": value} for name, value in values.items()])

    def begin(self, genesis: bytes, genesis_hash: str, row: Mapping[str, Any], state: Machine) -> None:
        """Begin an empty log with a block (its row of the table) and the state that it left."""
        height, hash_, minutes = state.head.height, state.head.hash, state.remembered_ids()
        values = {"genesis": genesis, "genesis_hash": genesis_hash.encode(), "head": head_mark(height, hash_)}
        receipts = read_block(**row).result.receipts
        with self._transaction() as connection:
            connection.execute(sa.insert(META), [{"name": name, "value": value} for name, value in values.items()])
            connection.execute(sa.insert(BLOCKS), dict(row))
            if receipts:
                places = [{"part": 0, "prefix": prefix_of(r.id), "height": height, "position": r.index} for r in receipts]
                connection.execute(sa.insert(TRANSACTIONS), places)
            for number in range(SHARD_COUNT):
                connection.execute(sa.insert(SHARDS), {"number": number, "height": height, "data": state.shard(number)})
            if minutes:
                until = max(minute for minute, _ in minutes)
                connection.execute(sa.insert(REMEMBERED), {"height": height, "until": until, "ids": pack_ids(minutes)})

    def committed(self) -> bytes | None:
        """What the last commit said the newest block is, as `head_mark` gives it; None before the genesis."""
        return self.meta("head")

    # Blocks.

    def append(self, block: StoredBlock) -> None:
        """Commit a block durably. Any exception means: not known whether it is committed."""
        result = block.result
        header = result.header
        stored = StoredResults(*result.encoded, {r.index: r.detail for r in result.receipts if r.detail})
        row = (header.height, header.hash, encode(header), msgspec.msgpack.encode(block.raws), msgspec.msgpack.encode(stored))
        cursor = self._writer.cursor()
        if self.path is not None:
            cursor.execute("BEGIN IMMEDIATE")
        cursor.execute(self._insert_block, row)
        cursor.execute(self._insert_change, (header.height, block.change.ids, block.change.records))
        if result.receipts:
            part = self._part_for(len(result.receipts))
            cursor.executemany(self._insert_id, [(part, prefix_of(r.id), header.height, r.index) for r in result.receipts])
        # Kept apart from the blocks, so that a log that lost its end does not pass for a shorter one.
        cursor.execute(self._update_head, (head_mark(header.height, header.hash),))
        if self.path is not None:
            cursor.execute("COMMIT")
        else:
            self._writer.commit()
        cursor.close()

    def _part_for(self, count: int) -> int:
        """The part of the index that a block of so many transactions goes into."""
        if self._part is None:
            with self._connected() as connection:
                newest = int(connection.execute(sa.select(sa.func.max(TRANSACTIONS.c.part))).scalar() or 0)
                there = sa.select(sa.func.count()).select_from(TRANSACTIONS).where(TRANSACTIONS.c.part == newest)
                self._part = newest, int(connection.execute(there).scalar() or 0)
        part, filled = self._part
        if filled >= PART_TRANSACTIONS:
            part, filled = part + 1, 0
        self._part = part, filled + count
        return part

    def height(self) -> int:
        """Height of the newest block, 0 where there is none."""
        with translated(self.where), self._engine.connect() as connection:
            return int(connection.execute(sa.select(sa.func.max(BLOCKS.c.height))).scalar() or 0)

    def first_height(self) -> int:
        """Height of the oldest block there is: more than 1 where the log began with a snapshot; 0 where there is none."""
        with self._connected() as connection:
            return int(connection.execute(sa.select(sa.func.min(BLOCKS.c.height))).scalar() or 0)

    def block(self, height: int) -> StoredBlock | None:
        """A block, or None; LedgerDamaged where its parts do not belong together."""
        found = self.blocks(height, 1)
        return found[0] if found else None

    def blocks(self, first: int, limit: int) -> list[StoredBlock]:
        """Up to `limit` blocks from height `first` on."""
        query = sa.select(BLOCKS).where(BLOCKS.c.height >= first, BLOCKS.c.height < first + limit).order_by(BLOCKS.c.height)
        with translated(self.where, first), self._engine.connect() as connection:
            return [read_block(*row) for row in connection.execute(query)]

    def all_blocks(self, first: int = 1, last: int | None = None, page: int = 200) -> Iterator[StoredBlock]:
        """Every block from `first` to `last` (the newest there is now); LedgerDamaged where one is missing."""
        last = self.height() if last is None else last
        height = first
        while height <= last:
            found = self.blocks(height, min(page, last - height + 1))
            if not found:
                raise LedgerDamaged(height, "the block is missing")
            for block in found:
                if block.header.height != height:
                    raise LedgerDamaged(height, "the block is missing")
                yield block
                height += 1

    def receipt(self, tx_id: str) -> Receipt | None:
        """The result of a transaction, however old: the lasting one, where earlier tries came too early or too often."""
        here = TRANSACTIONS.c
        query = sa.select(here.height, here.position).where(here.prefix == prefix_of(tx_id))
        places: list[tuple[int, int]] = []
        with self._connected() as connection:
            newest_part = int(connection.execute(sa.select(sa.func.max(here.part))).scalar() or 0)
            for part in range(0, newest_part + 1, PARTS_AT_ONCE):
                some = query.where(here.part.in_(range(part, min(part + PARTS_AT_ONCE, newest_part + 1))))
                places += ((int(row[0]), int(row[1])) for row in connection.execute(some))
        places.sort(reverse=True)
        # Of one id the last lasting result is the only one that counts: what a block refused without using the id (a
        # sequence out of turn, an empty bucket) may come again.
        newest = None
        for height, position in places:
            receipt = self._receipt_at(height, position)
            if receipt is not None and receipt.id == tx_id:
                if is_last_word(receipt.code):
                    return receipt
                newest = newest or receipt
        return newest

    def _receipt_at(self, height: int, position: int) -> Receipt | None:
        """One receipt of a block, for a fifth of what reading the block costs; None where there is none."""
        columns = (BLOCKS.c.height, BLOCKS.c.hash, BLOCKS.c.header, BLOCKS.c.results)
        with translated(self.where, height), self._engine.connect() as connection:
            row = connection.execute(sa.select(*columns).where(BLOCKS.c.height == height)).one_or_none()
        if row is None:
            return None
        stored = _results_of(_header_of(*row[:3]), row[3])
        try:
            receipts = _RAWS.decode(stored.receipts)
            if not 0 <= position < len(receipts):
                return None
            id, code, events = _ROW.decode(receipts[position])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise LedgerDamaged(height, f"the block cannot be decoded: {error}") from None
        return Receipt(id, height, position, code, events, stored.details.get(position, ""))

    # What a restart needs: shards of the state, and what blocks changed since the oldest of them.

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        with translated(self.where), self._engine.connect() as connection:
            yield connection

    def shards_at(self) -> list[tuple[int, int]]:
        """(number, height) of every shard there is, by number."""
        with self._connected() as connection:
            return tables.shards_at(connection)

    def shard_sizes(self) -> list[int]:
        """Bytes of every shard there is, by number."""
        query = sa.select(sa.func.length(SHARDS.c.data)).order_by(SHARDS.c.number)
        with self._connected() as connection:
            return [int(size) for size in connection.execute(query).scalars()]

    def parts(self, head: int) -> Parts | None:
        """The state at height `head` in pieces; None where one is missing."""
        return tables.parts(self._connected, head)

    def keep_shards(self, height: int, shards: Mapping[int, bytes], oldest: int, minute: int) -> None:
        """Replace shards by those of `height`, the newest block's; drop what only older ones needed.

        `oldest` is the lowest height of a shard then, `minute` that of block time. Not on disk when it returns, but
        with the next block: until then a crash leaves all as it was.
        """
        with self._unsynced() as cursor:
            cursor.executemany(self._keep_shard, [(number, height, data) for number, data in shards.items()])
            ids = cursor.execute(self._old_ids, (oldest,)).fetchall()
            if ids:
                self._remember(cursor, oldest, [pair for row in ids for pair in unpack_ids(bytes(row[0]))], minute)
                cursor.execute(self._drop_changes, (oldest,))
            cursor.execute(self._drop_ids, (minute,))

    def restart_shards(self, height: int, ids: Sequence[tuple[int, bytes]]) -> None:
        """All shards are of `height` now, and these ids are remembered: whatever else restarts needed is dropped."""
        with self._unsynced() as cursor:
            cursor.execute("DELETE FROM change")
            cursor.execute("DELETE FROM remembered")
            self._remember(cursor, height, ids, 0)

    def drop_shards(self) -> None:
        """Drop what restarts need: the next one replays the blocks."""
        with self._transaction() as connection:
            for table in (SHARDS, CHANGES, REMEMBERED):
                connection.execute(sa.delete(table))

    def _remember(self, cursor: Any, height: int, ids: Sequence[tuple[int, bytes]], minute: int) -> None:
        valid = [pair for pair in ids if pair[0] >= minute]
        if valid:
            cursor.execute(self._insert_ids, (height, max(pair[0] for pair in valid), pack_ids(valid)))

    @contextlib.contextmanager
    def _unsynced(self) -> Iterator[Any]:
        """A transaction of the writer that need not be on disk yet; LedgerUnavailable or LedgerDamaged end the writer."""
        cursor: Any = self._writer.cursor()
        with translated(self.where):
            if self.path is None:
                cursor.execute("SET LOCAL synchronous_commit = off")
                yield cursor
                self._writer.commit()
            else:
                cursor.execute("PRAGMA synchronous=NORMAL")
                try:
                    cursor.execute("BEGIN IMMEDIATE")
                    yield cursor
                    cursor.execute("COMMIT")
                finally:
                    if self._writer.in_transaction:
                        cursor.execute("ROLLBACK")
                    cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    def close(self) -> None:
        """Close every connection and give up the lock."""
        self._writer.close()
        self._release()


def head_mark(height: int, hash_: str) -> bytes:
    """What is stored about the newest block."""
    return f"{height} {hash_}".encode()


def _tune(connection: sqlite3.Connection, _record: object) -> None:
    """SQLite as a log: a commit is on disk when it returns."""
    connection.isolation_level = None
    # Larger pages than usual: a block of a thousand transactions costs a quarter less, a lone one no more. What is copied
    # from the log at a time stays small, since a lone transaction may have to wait for it.
    size = ("page_size=8192", "wal_autocheckpoint=500")
    pragmas = (*size, "journal_mode=WAL", "synchronous=FULL", "busy_timeout=20000", "cell_size_check=ON")
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}").close()


_ROW: Final = msgspec.json.Decoder(tuple[str, int, tuple[Any, ...]])
_ROWS: Final = msgspec.json.Decoder(list[tuple[str, int, tuple[Any, ...]]])
_RAWS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_EVENTS: Final = msgspec.json.Decoder(tuple[Any, ...])


def read_block(height: int, hash: str, header: bytes, raws: bytes, results: bytes) -> StoredBlock:
    """A block out of its row; LedgerDamaged where its parts do not belong together."""
    found = _header_of(height, hash, header)
    stored = _results_of(found, results)
    try:
        transactions = msgspec.msgpack.decode(bytes(raws), type=list[bytes])
        rows, begin, end = _ROWS.decode(stored.receipts), _EVENTS.decode(stored.begin), _EVENTS.decode(stored.end)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LedgerDamaged(height, f"the block cannot be decoded: {error}") from None
    if transactions_hash(transactions) != found.transactions:
        raise LedgerDamaged(height, "the transactions are not those of the header")
    details = stored.details
    receipts = tuple(
        Receipt(id, height, index, code, events, details.get(index, "")) for index, (id, code, events) in enumerate(rows)
    )
    encoded = (stored.receipts, stored.begin, stored.end)
    result = BlockResult(header=found, receipts=receipts, begin_events=begin, end_events=end, encoded=encoded)
    return StoredBlock(raws=transactions, result=result)


def _header_of(height: int, hash: str, header: bytes) -> Header:
    """The header in a row, if it is the one that was committed."""
    try:
        found = msgspec.json.decode(bytes(header), type=Header)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LedgerDamaged(height, f"the block cannot be decoded: {error}") from None
    if found.height != height or found.hash != hash or encode(found) != bytes(header):
        raise LedgerDamaged(height, "the header is not the one that was committed")
    return found


def _results_of(header: Header, results: bytes) -> StoredResults:
    """The results in a row, if they are those of its header."""
    try:
        stored = msgspec.msgpack.decode(bytes(results), type=StoredResults)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LedgerDamaged(header.height, f"the block cannot be decoded: {error}") from None
    if results_hash(stored.receipts, stored.begin, stored.end) != header.results:
        raise LedgerDamaged(header.height, "the results are not those of the header")
    return stored
