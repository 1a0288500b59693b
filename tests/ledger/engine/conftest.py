"""The databases that the engine's tests run on: a SQLite file, and a real PostgreSQL server started for the session."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledger.engine.embedded import Engine
from tests.ledger.engine.ledgers import Reminders
from tests.ledger.machine.chain import genesis


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/chain.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def opened() -> Iterator[Callable[..., Engine]]:
    """Opens engines, with the tests' genesis unless told, and closes those that a test left open."""
    with contextlib.ExitStack() as stack:

        def start(url: str, **options: object) -> Engine:
            first = options.pop("genesis", None) or genesis()
            engine = Engine.open(url, first, [Reminders()], **options)  # type: ignore[arg-type]
            stack.callback(engine.close)
            return engine

        yield start
