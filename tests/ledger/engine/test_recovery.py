"""Restart: checkpoints, damaged files, locks, and the processes that verify."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest

from ledger.engine import checkpoint
from ledger.engine.embedded import Engine
from ledger.engine.errors import Indeterminate, LedgerDamaged, LedgerUnavailable
from ledger.engine.log import Log
from ledger.machine.machine import Machine
from ledger.protocol.errors import Code, Rejected
from tests.crash.flips import a_chain, flips_found
from tests.ledger.engine.ledgers import eventually, seen, send, transfer
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


def test_a_restart_uses_the_checkpoint_and_does_without_it(url: str, opened: Opened, replayed_from: list[int]) -> None:
    """A restart takes the checkpoint; a damaged or missing one costs a replay and gives the same."""
    engine = opened(url)
    for _ in range(3):
        assert send(engine, transfer(engine)).ok
    before = seen(engine)
    engine.close()
    engine = opened(url)
    assert seen(engine) == before
    engine.close()
    assert replayed_from == [0, before[0]]
    changes: list[Callable[[bytes], bytes]] = [
        lambda data: bytes([data[0] ^ 4]) + data[1:],
        lambda data: data[:-1] + bytes([data[-1] ^ 128]),
        lambda data: data[:-1],
        lambda data: b"",
    ]
    for change in changes:
        _change_checkpoint(url, change)
        engine = opened(url)
        assert seen(engine) == before
        engine.close()
    assert replayed_from[2:] == [0] * 4


def _change_checkpoint(url: str, change: Callable[[bytes], bytes]) -> None:
    log = Log(url)
    try:
        data = change(log.load_checkpoint() or b"")
        if log.checkpoint_path is not None:
            log.checkpoint_path.write_bytes(data)
        else:
            log.save_checkpoint(1, data)
    finally:
        log.close()


def test_checkpoints_come_while_it_runs(
    url: str, opened: Opened, monkeypatch: pytest.MonkeyPatch, replayed_from: list[int]
) -> None:
    """After enough blocks a checkpoint is written beside the work; a restart replays what came after it only."""
    monkeypatch.setattr(checkpoint, "TAIL_BLOCKS", 4)
    engine = opened(url)
    for _ in range(4):
        assert send(engine, transfer(engine)).ok
    eventually(lambda: engine._store.load_checkpoint(), "a checkpoint")
    before = seen(engine)
    monkeypatch.setattr(checkpoint.Checkpoints, "close", lambda self, machine: self._reap(wait=True))  # as if it was killed
    engine.close()
    assert seen(opened(url)) == before
    assert replayed_from == [0, 4]


def test_a_log_behind_its_checkpoint_is_refused(tmp_path: Path, opened: Opened) -> None:
    """An old copy of the database beside a newer checkpoint is not taken for the chain."""
    url, path = f"sqlite:///{tmp_path}/chain.db", tmp_path / "chain.db"
    engine = opened(url)
    assert send(engine, transfer(engine)).ok
    engine.close()
    shutil.copy(path, tmp_path / "old")
    engine = opened(url)
    assert send(engine, transfer(engine)).ok
    engine.close()
    shutil.copy(tmp_path / "old", path)
    with pytest.raises(LedgerDamaged, match="checkpoint"):
        opened(url)


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
    """Blocks that were changed, exchanged or taken away by hand are found, with and without a checkpoint."""
    url, path = f"sqlite:///{tmp_path}/chain.db", tmp_path / "chain.db"
    engine = opened(url)
    for _ in range(3):
        assert send(engine, transfer(engine)).ok
    engine.close()
    (tmp_path / "chain.db.checkpoint").unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(change)
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
        workers = [w.process for w in engine._verifying._workers]
        if round_ in (1, 2):
            for worker in workers[:round_]:
                worker.send_signal(signal.SIGKILL)
        futures = engine.submit_many(raws)
        for n, future in enumerate(futures):
            error = future.exception(60)
            assert (isinstance(error, Rejected) and error.code == Code.BAD_SIGNATURE) == (n in bad), error
    assert engine._verifying._workers
    pids = [w.process.pid for w in engine._verifying._workers]
    engine.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


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
    (tmp_path / "chain.db.checkpoint").unlink()
    assert seen(opened(url)) == before
