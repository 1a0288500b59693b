"""Restart: checkpoints, damaged files, locks, and the processes that verify."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest
import sqlalchemy as sa

from ledger.engine import checkpoint
from ledger.engine.embedded import Engine
from ledger.engine.errors import Indeterminate, LedgerDamaged, LedgerUnavailable
from ledger.engine.log import Log
from ledger.engine.tables import CHANGES, REMEMBERED
from ledger.machine.machine import Machine
from ledger.protocol.block import Receipt
from ledger.protocol.encoding import encode
from ledger.protocol.errors import Code, Rejected
from tests.crash.flips import a_chain, flips_found
from tests.ledger.engine.ledgers import ManualClock, eventually, seen, send, shards_often, transfer
from tests.ledger.machine.chain import CAT

Opened = Callable[..., Engine]


@pytest.fixture
def replayed_from(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Heights from which a restart replayed."""
    heights: list[int] = []
    real = checkpoint.replay

    def spy(machine: Machine, log: Log) -> None:
        heights.append(machine.head.height)
        real(machine, log)

    monkeypatch.setattr(checkpoint, "replay", spy)
    return heights


def test_a_restart_loads_the_state(url: str, opened: Opened, replayed_from: list[int]) -> None:
    """A restart replays nothing: not of an empty chain, of a young one, nor once shards were written in turn."""
    engine = opened(url)
    assert replayed_from == [0]
    engine.close()
    engine = opened(url)
    for often in (False, True, False):
        with shards_often() if often else contextlib.nullcontext():
            for _ in range(9):
                assert send(engine, transfer(engine)).ok
            raw = transfer(engine, 3)
            first = encode(send(engine, raw))
            before = seen(engine)
            engine.close()  # it adds nothing to what each block left; crashes are tests/crash's
        engine = opened(url)
        assert seen(engine) == before
        assert encode(send(engine, raw)) == first
        with engine.read() as machine:
            machine.invariants()
    assert replayed_from == [0]


def test_what_no_shard_needs_is_dropped(url: str, opened: Opened) -> None:
    """What blocks changed is kept since the oldest shard only, ids of transactions until they cannot come again."""
    clock = ManualClock()
    engine = opened(url, clock=clock)
    with shards_often():
        raws = [transfer(engine, n + 1, valid_until=clock.now + 60_000) for n in range(40)]
        for raw in raws[:-1]:
            assert send(engine, raw).ok
        head = engine.head.height
        engine.close()  # shards are written after the answers
        oldest, heights, remembered = _kept(url)
        assert head - 20 < oldest < head
        assert heights == list(range(oldest + 1, head + 1))
        assert remembered
        # With the state comes what was applied: none of it is applied again.
        engine = opened(url, clock=clock)
        before = seen(engine)
        assert all(send(engine, raw).ok for raw in raws[:-1])
        assert seen(engine) == before
        clock.now += 180_000
        for _ in range(20):
            assert send(engine, transfer(engine)).ok
    before = seen(engine)
    engine.close()
    assert all(until >= clock.now // 60_000 for until in _kept(url)[2])
    assert seen(opened(url, clock=clock)) == before


def _kept(url: str) -> tuple[int, list[int], list[int]]:
    """Height of the oldest shard; heights of what changed; last minutes of remembered ids."""
    log = Log(url)
    try:
        with log._engine.connect() as connection:
            rows = [
                [row[0] for row in connection.execute(sa.select(c).order_by(c))] for c in (CHANGES.c.height, REMEMBERED.c.until)
            ]
        return min(height for _, height in log.shards_at()), rows[0], rows[1]
    finally:
        log.close()


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM shard WHERE number = 9",
        "DELETE FROM shard",
        "DELETE FROM change WHERE height = 21",
        "DELETE FROM change WHERE height = 24",
        "DELETE FROM change",
        "DELETE FROM remembered",
        "UPDATE shard SET height = 30 WHERE number = 0",
        "UPDATE shard SET number = 300 WHERE number = 5",
        "UPDATE shard SET data = (SELECT data FROM shard WHERE number = 2) WHERE length(data) > 20",
        "UPDATE shard SET data = 'text' WHERE number = 3",
        "UPDATE change SET records = (SELECT records FROM change WHERE height = 22) WHERE height = 24",
        "UPDATE change SET ids = (SELECT ids FROM change WHERE height = 22) WHERE height = 24",
        "UPDATE change SET ids = x'00' WHERE height = 24",
        "UPDATE remembered SET ids = x'9192'",
        "DROP TABLE shard",
        "DROP TABLE remembered",
    ],
)
def test_pieces_that_are_damaged_or_missing_cost_a_replay(
    tmp_path: Path, opened: Opened, replayed_from: list[int], change: str
) -> None:
    """The state comes out of the blocks instead, and the next restart has good pieces again."""
    url, path = f"sqlite:///{tmp_path}/chain.db", tmp_path / "chain.db"
    clock = ManualClock()
    engine = opened(url, clock=clock)
    with shards_often():
        for _ in range(20):
            assert send(engine, transfer(engine)).ok
    for _ in range(4):
        assert send(engine, transfer(engine)).ok
    before = seen(engine)
    engine.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(change)
        connection.commit()
    for _ in range(2):
        engine = opened(url, clock=clock)
        assert seen(engine) == before
        engine.close()
    assert replayed_from == [0, 0]


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM block WHERE height = 2",
        "DELETE FROM block WHERE height = 3",
        "UPDATE block SET raws = (SELECT raws FROM block WHERE height = 1) WHERE height = 2",
        "UPDATE block SET results = (SELECT results FROM block WHERE height = 1) WHERE height = 2",
        "UPDATE block SET header = (SELECT header FROM block WHERE height = 1) WHERE height = 2",
        "UPDATE block SET header = 'text' WHERE height = 2",
        "UPDATE block SET hash = 'x' WHERE height = 2",
        "UPDATE meta SET value = x'00' WHERE name = 'genesis'",
        "DELETE FROM meta WHERE name = 'genesis'",
        "DELETE FROM meta WHERE name = 'head'",
        "DROP TABLE block",
        "DROP TABLE meta",
    ],
)
def test_a_changed_log_is_refused(tmp_path: Path, opened: Opened, change: str) -> None:
    """Blocks that were changed, exchanged or taken away by hand are found where the state comes out of them."""
    url, path = f"sqlite:///{tmp_path}/chain.db", tmp_path / "chain.db"
    engine = opened(url)
    for _ in range(3):
        assert send(engine, transfer(engine)).ok
    engine.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(change)
        connection.execute("DELETE FROM shard")
        connection.commit()
    with pytest.raises(LedgerDamaged) as refusal:
        opened(url)
    assert refusal.value.fix


def test_another_process_is_named(tmp_path: Path, opened: Opened) -> None:
    """A second process is refused and told the first one's id."""
    url = f"sqlite:///{tmp_path}/chain.db"
    opened(url)
    code = f"from ledger.engine.log import Log; Log({url!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert f"is in use by process {os.getpid()}" in done.stderr


@pytest.mark.postgres
def test_a_connection_that_breaks_ends_the_engine(postgres_url: str, opened: Opened) -> None:
    """Where the database server ends the connections, results are not known; all is well after a restart."""
    fatal: list[BaseException] = []
    engine = opened(postgres_url, on_fatal=fatal.append)
    assert send(engine, transfer(engine)).ok
    before = seen(engine)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        others = "pid <> pg_backend_pid() AND datname = current_database()"
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
        raw = transfer(engine)
        assert isinstance(engine.submit(raw).exception(60), Indeterminate)
    eventually(lambda: fatal, "the owner is told")
    engine.close()
    again = opened(postgres_url)
    assert seen(again) == before
    assert send(again, raw).ok


def test_a_server_that_is_away_is_named(tmp_path: Path, opened: Opened) -> None:
    """A database that cannot be reached is no damage; the password is in no message."""
    with pytest.raises(LedgerUnavailable) as refusal:
        opened(f"postgresql://postgres:secret@/chain?host={tmp_path}")
    assert "secret" not in str(refusal.value)


def test_verdicts_are_right_when_workers_die(tmp_path: Path, opened: Opened) -> None:
    """Verifying processes that are killed, before a batch or amid one, change no verdict."""
    engine = opened(f"sqlite:///{tmp_path}/chain.db")
    for round_ in range(4):
        raws = [transfer(engine) for _ in range(60)]
        bad = {n for n in range(60) if n % 7 == round_}
        for n in bad:
            at = raws[n].index(b'"signature":"') + 13
            other = transfer(engine, 2)
            raws[n] = raws[n][:at] + other[at : at + 128] + raws[n][at + 128 :]
        workers = list(engine._verifying.processes)
        if round_ in (1, 2):
            for worker in workers[:round_]:
                worker.send_signal(signal.SIGKILL)
        futures = engine.submit_many(raws)
        for n, future in enumerate(futures):
            error = future.exception(60)
            assert (isinstance(error, Rejected) and error.code == Code.BAD_SIGNATURE) == (n in bad), error
    assert engine._verifying.processes
    pids = [process.pid for process in engine._verifying.processes]
    engine.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_each_of_a_mixed_batch_gets_its_own_answer(tmp_path: Path, opened: Opened) -> None:
    """Good, malformed, badly signed, too large, twice the same: side by side, on every way that signatures are checked."""
    engine = opened(f"sqlite:///{tmp_path}/chain.db")
    for _ in range(3):
        good = [transfer(engine) for _ in range(150)]
        at = good[0].index(b'"signature":"') + 13
        bad = good[0][:at] + good[1][at : at + 128] + good[0][at + 128 :]
        asked: list[tuple[bytes, Code | None]] = []
        for n, raw in enumerate(good):
            others = (
                (b"{" + raw, Code.MALFORMED),
                (bad, Code.BAD_SIGNATURE),
                (b" " * 300_000, Code.TOO_LARGE),
                (good[n // 2], None),
            )
            asked += [(raw, None), *others[: n % 5]]
        receipts: dict[bytes, Receipt] = {}
        for (raw, code), future in zip(asked, engine.submit_many([raw for raw, _ in asked]), strict=True):
            error = future.exception(60)
            if code is None:
                assert future.result().ok
                assert receipts.setdefault(raw, future.result()) == future.result()
            else:
                assert isinstance(error, Rejected)
                assert error.code == code
        assert len(receipts) == 150
    assert engine._verifying.processes


def test_a_flipped_bit_is_found_or_harmless() -> None:
    """Of bits flipped in database, checkpoint and export none gives another state."""
    with a_chain() as chain:
        tally = flips_found(chain, 200, seed=7)
    assert sum(tally.values()) == 200
    assert tally["found"] > 0
    assert tally["harmless"] > 0


def test_the_outcome_of_a_spent_account_survives(tmp_path: Path, opened: Opened) -> None:
    """An account opened by a transfer, and its key, are the same after a replay from nothing."""
    url = f"sqlite:///{tmp_path}/chain.db"
    engine = opened(url)
    assert send(engine, transfer(engine, 10**12, source=CAT)).ok
    assert send(engine, transfer(engine, 1, source=CAT)).code == Code.INSUFFICIENT_FUNDS
    before = seen(engine)
    engine.close()
    log = Log(url)
    log.drop_shards()
    log.close()
    assert seen(opened(url)) == before
