"""The tables of a ledger's database, and the reading of a state out of them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import chain
from typing import Final

import sqlalchemy as sa

from ledger.machine.snapshot import SHARDS as COUNT
from ledger.machine.snapshot import Parts

Connect = Callable[[], AbstractContextManager[sa.Connection]]

METADATA: Final = sa.MetaData()
META: Final = sa.Table(
    "meta", METADATA, sa.Column("name", sa.String(64), primary_key=True), sa.Column("value", sa.LargeBinary, nullable=False)
)
BLOCKS: Final = sa.Table(
    "block",
    METADATA,
    sa.Column("height", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("header", sa.LargeBinary, nullable=False),
    sa.Column("raws", sa.LargeBinary, nullable=False),
    sa.Column("results", sa.LargeBinary, nullable=False),
)
TRANSACTIONS: Final = sa.Table(
    "applied",
    METADATA,
    # Counts up after so many transactions: ids are random, and a block that wrote one into every page of a large index
    # would cost several times what it costs itself.
    sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
    # The first 63 bits of an id: enough to find it, and a whole number in both databases.
    sa.Column("prefix", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("height", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)
CHANGES: Final = sa.Table(
    "change",
    METADATA,
    # What a block changed, apart from the blocks: they are large, and a restart reads many of these in a row.
    sa.Column("height", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("ids", sa.LargeBinary, nullable=False),
    sa.Column("records", sa.LargeBinary, nullable=False),
)
SHARDS: Final = sa.Table(
    "shard",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("height", sa.BigInteger, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
REMEMBERED: Final = sa.Table(
    "remembered",
    METADATA,
    # Ids of transactions up to a height, since the row before; of no use after the minute `until`.
    sa.Column("height", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("until", sa.BigInteger, nullable=False),
    sa.Column("ids", sa.LargeBinary, nullable=False),
)
NEEDED: Final = frozenset({"applied", "block", "meta"})
"""Without the other tables a restart replays the blocks."""

for _table, _column in (("change", "records"), ("shard", "data")):
    # PostgreSQL would try to compress what is written every few milliseconds.
    _alter = sa.DDL(f"ALTER TABLE {_table} ALTER COLUMN {_column} SET STORAGE EXTERNAL")  # type: ignore[no-untyped-call]
    sa.event.listen(METADATA.tables[_table], "after_create", _alter.execute_if(dialect="postgresql"))


def shards_at(connection: sa.Connection) -> list[tuple[int, int]]:
    """(number, height) of every shard there is, by number."""
    query = sa.select(SHARDS.c.number, SHARDS.c.height).order_by(SHARDS.c.number)
    return [(int(number), int(height)) for number, height in connection.execute(query)]


def parts(connect: Connect, head: int) -> Parts | None:
    """The state at height `head` in pieces, read as they are used; None where one is missing."""
    first, last, count = sa.func.min(CHANGES.c.height), sa.func.max(CHANGES.c.height), sa.func.count(CHANGES.c.height)
    with connect() as connection:
        heights = [height for _, height in shards_at(connection)]
        found = tuple(connection.execute(sa.select(first, last, count)).one())
    if len(heights) != COUNT or max(heights) > head:
        return None
    oldest = min(heights)
    # Each block since the oldest shard, and no other.
    if found != ((oldest + 1, head, head - oldest) if head > oldest else (None, None, 0)):
        return None
    ids = (_values(connect, REMEMBERED.c.ids, REMEMBERED.c.height), _values(connect, CHANGES.c.ids, CHANGES.c.height))
    return Parts(
        shards=_values(connect, SHARDS.c.data, SHARDS.c.number, page=1),
        changes=_values(connect, CHANGES.c.records, CHANGES.c.height),
        ids=chain(*ids),
    )


def _values(connect: Connect, column: sa.Column[bytes], by: sa.Column[int], page: int = 64) -> Iterator[bytes]:
    """A column's values by ascending key, a few at a time: together they may be large."""
    query = sa.select(by, column).order_by(by).limit(page)
    after = None
    while True:
        with connect() as connection:
            rows = connection.execute(query if after is None else query.where(by > after)).all()
        if not rows:
            return
        after = rows[-1][0]
        for _, value in rows:
            if not isinstance(value, bytes):
                raise ValueError("a stored value is of another type")
            yield value
