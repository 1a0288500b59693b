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


@contextlib.contextmanager
def translated(where: str, height: int = 0) -> Iterator[None]:
    """Raise LedgerDamaged or LedgerUnavailable for what the database, or the reading of what it gave, raises."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise _named(error.orig, where, height) from error
    except (TypeError, ValueError, OverflowError, MemoryError, sa.exc.SQLAlchemyError) as error:
        raise LedgerDamaged(height, f"a stored value cannot be read: {error}") from error
    except Exception as error:
        # Of a raw connection; psycopg may not be installed.
        if not isinstance(error, sqlite3.Error) and not type(error).__module__.startswith("psycopg"):
            raise
        raise _named(error, where, height) from error


def _named(error: BaseException | None, where: str, height: int) -> Exception:
    # The low byte of SQLite's code is its kind; PostgreSQL answers OperationalError where it cannot be reached.
    code = getattr(error, "sqlite_errorcode", None)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    away = "OperationalError" in kinds if code is None else (code & 0xFF) in _UNAVAILABLE
    return LedgerUnavailable(where, str(error)) if away else LedgerDamaged(height, str(error))
