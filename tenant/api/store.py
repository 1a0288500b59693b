"""What the gateway must not forget: each deployment it was asked for, and the answer to each idempotency key."""

import threading
from pathlib import Path
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from tenant.deploy.plan import new_dseq

_METADATA: Final = sa.MetaData()
ASKED: Final = sa.Table(
    "asked",
    _METADATA,
    sa.Column("dseq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("owner", sa.String(64), nullable=False),
    # The client's key, or NULL: many requests may come without one.
    sa.Column("idempotency_key", sa.String(255), unique=True),
    sa.Column("body_hash", sa.String(64), nullable=False),
    sa.Column("source", sa.LargeBinary, nullable=False),
    sa.Column("strict", sa.Boolean, nullable=False),
    sa.Column("deposit", sa.BigInteger),
    sa.Column("phase", sa.String(16), nullable=False),
    sa.Column("error", sa.Text, nullable=False, default=""),
)

UNFINISHED: Final = ("accepted", "created", "matched")
"""Phases in which work is left: accepted (on disk here), created (on the ledger), matched (has leases)."""


class Asked(msgspec.Struct, frozen=True):
    """A deployment that was asked for. `deposit` is in micro-units, None for the default."""

    dseq: int
    owner: str
    idempotency_key: str | None
    body_hash: str
    source: bytes
    strict: bool
    deposit: int | None
    phase: str
    error: str


def _tune(connection: Any, _record: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=20000"):
        connection.execute(f"PRAGMA {pragma}").close()


class Store:
    """The gateway's memory in one SQLite file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._engine = sa.create_engine(f"sqlite:///{path}")
        sa.event.listen(self._engine, "connect", _tune)
        _METADATA.create_all(self._engine)
        self._lock = threading.Lock()

    def accept(
        self, owner: str, source: bytes, body_hash: str, *, key: str | None, strict: bool, deposit: int | None
    ) -> tuple[Asked, bool]:
        """Note a request durably and give it a dseq; or the earlier one of the same key. (what is noted, it is new)"""
        with self._lock, self._engine.begin() as connection:
            if key is not None:
                row = connection.execute(sa.select(ASKED).where(ASKED.c.idempotency_key == key)).one_or_none()
                if row is not None:
                    return _asked(row), False
            last = connection.execute(sa.select(sa.func.max(ASKED.c.dseq))).scalar() or 0
            asked = Asked(
                dseq=max(new_dseq(), int(last) + 1),
                owner=owner,
                idempotency_key=key,
                body_hash=body_hash,
                source=source,
                strict=strict,
                deposit=deposit,
                phase="accepted",
                error="",
            )
            connection.execute(sa.insert(ASKED).values(**msgspec.structs.asdict(asked)))
        return asked, True

    def move(self, dseq: int, phase: str, error: str = "") -> None:
        """Note how far a deployment has come."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(ASKED).where(ASKED.c.dseq == dseq).values(phase=phase, error=error[:2000]))

    def forget(self, dseq: int) -> None:
        """Take back a request that the market refused: its key may be used again."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(ASKED).where(ASKED.c.dseq == dseq))

    def get(self, dseq: int) -> Asked | None:
        """What is noted of a deployment, or None."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(ASKED).where(ASKED.c.dseq == dseq)).one_or_none()
        return None if row is None else _asked(row)

    def unfinished(self) -> list[Asked]:
        """Deployments with work left, oldest first."""
        query = sa.select(ASKED).where(ASKED.c.phase.in_(UNFINISHED)).order_by(ASKED.c.dseq)
        with self._engine.connect() as connection:
            return [_asked(row) for row in connection.execute(query)]

    def finished(self) -> list[int]:
        """Deployments that run or have failed, by dseq, oldest first: what happens on the ledger may give them work again."""
        query = sa.select(ASKED.c.dseq).where(ASKED.c.phase.in_(("running", "failed"))).order_by(ASKED.c.dseq)
        with self._engine.connect() as connection:
            return [int(row.dseq) for row in connection.execute(query)]

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()


def _asked(row: Any) -> Asked:
    return Asked(**row._mapping)
