"""What a database says when something is wrong, in the engine's own words: damaged, or not to be had now."""

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Final

import sqlalchemy as sa

from ledger.engine.errors import LedgerDamaged, LedgerUnavailable

_UNAVAILABLE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)


def failure(where: str, height: int, error: BaseException, *, away: bool) -> LedgerDamaged | LedgerUnavailable:
    """What a driver's error means; `away` where its kind is that of a server that cannot be reached."""
    # The low byte of SQLite's code is its kind; PostgreSQL answers OperationalError where it cannot be reached.
    code = getattr(error, "sqlite_errorcode", None)
    unavailable = away if code is None else (code & 0xFF) in _UNAVAILABLE
    return LedgerUnavailable(where, str(error)) if unavailable else LedgerDamaged(height, str(error))


@contextlib.contextmanager
def translated(where: str, height: int = 0) -> Iterator[None]:
    """Raise LedgerDamaged or LedgerUnavailable for what the database, or the reading of what it gave, raises."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise failure(where, height, error.orig or error, away=isinstance(error, sa.exc.OperationalError)) from error
    except (TypeError, ValueError, OverflowError, MemoryError, sa.exc.SQLAlchemyError) as error:
        raise LedgerDamaged(height, f"a stored value cannot be read: {error}") from error
