"""The engine on the real machine, the same on SQLite and on PostgreSQL."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from ledger.engine import embedded
from ledger.engine.embedded import Engine
from ledger.engine.errors import EngineBusy, Indeterminate, LedgerLocked, LedgerMissing, WrongChain
from ledger.engine.log import StoredBlock
from ledger.protocol.block import Receipt
from ledger.protocol.encoding import encode
from ledger.protocol.errors import Code, Rejected
from ledger.protocol.messages import Transfer
from tests.ledger.engine.ledgers import (
    ManualClock,
    Remind,
    Reminders,
    balance_of,
    eventually,
    id_of,
    seen,
    send,
    signed,
    transfer,
)
from tests.ledger.machine.chain import ADA, BOB, CAT, CREDIT, START, User, genesis

Opened = Callable[..., Engine]


def test_receipts_are_ordered_and_outlive_a_restart(url: str, opened: Opened) -> None:
    """Transactions are applied in the order they were handed in; head, root, receipts and blocks survive a restart."""
    engine = opened(url)
    raws = [transfer(engine, n + 1) for n in range(30)]
    receipts = [f.result(60) for f in engine.submit_many(raws)] + [send(engine, raw := transfer(engine, 7))]
    raws.append(raw)
    assert all(r.ok for r in receipts)
    places = [(r.height, r.index) for r in receipts]
    assert places == sorted(set(places))
    assert [raw for block in engine.blocks(1, 1000) for raw in block.raws] == raws
    before, stored = seen(engine), [encode(engine.receipt(r.id)) for r in receipts]
    events = [encode(e) for e in engine.events(1)]
    assert stored == [encode(r) for r in receipts]
    assert engine.block(0) is None
    assert engine.block(engine.head.height + 1) is None
    engine.close()

    again = opened(url, genesis=None)
    assert seen(again) == before
    assert [encode(again.receipt(r.id)) for r in receipts] == stored
    assert [encode(e) for e in again.events(1)] == events
    assert again.receipt("0" * 64) is None
    with again.read() as machine:
        machine.invariants()


def test_a_repeat_gets_the_first_result(url: str, opened: Opened) -> None:
    """The same bytes again give the first receipt and no second effect: at once, when expired, after restarts."""
    clock = ManualClock()
    engine = opened(url, clock=clock)
    good, bad, offline = transfer(engine, 5), transfer(engine, 10**15), transfer(engine, 3, nonce="", sequence=1, valid_until=0)
    first = [send(engine, raw) for raw in (good, bad, offline)]
    assert [r.code for r in first] == [0, Code.INSUFFICIENT_FUNDS, 0]
    before = seen(engine)
    rounds = []
    for _ in range(3):
        rounds.append([send(engine, raw) for raw in (good, bad, offline)])
        clock.now += 90_000
    engine.close()
    engine = opened(url, clock=clock)
    rounds.append([send(engine, raw) for raw in (good, bad, offline)])
    assert all([encode(r) for r in again] == [encode(r) for r in first] for again in rounds)
    assert seen(engine) == before


def test_what_no_block_takes_is_refused_with_its_code(url: str, opened: Opened) -> None:
    """Bad signatures, malformed bytes and transactions out of their window get their code and are in no block."""
    engine = opened(url)
    now, message = engine.now_ms(), Transfer(amount="1", denomination=CREDIT, to=BOB.address)
    good = transfer(engine)
    at = good.index(b'"signature":"') + 13
    table = [
        (Code.BAD_SIGNATURE, good[:at] + good[at + 64 : at + 128] + good[at : at + 64] + good[at + 128 :]),
        (Code.MALFORMED, good[:-1]),
        (Code.MALFORMED, good.replace(b'"amount":"1"', b'"amount": "1"')),
        (Code.MALFORMED, b"\xff"),
        (Code.TOO_LARGE, b"{" + b" " * 300_000),
        (Code.EXPIRED, signed(now, ADA, message, valid_until=now - 1)),
        (Code.VALID_TOO_LONG, signed(now, ADA, message, valid_until=now + 10_000_000)),
        (Code.WRONG_CHAIN, signed(now, ADA, message, chain_id="other-1")),
        (Code.ACCOUNT_NOT_FOUND, signed(now, User("nobody"), message)),
        (Code.KEY_REFUSED, signed(now, CAT, message, principal=ADA.address)),
        (Code.BAD_SEQUENCE, signed(now, ADA, message, nonce="", sequence=5, valid_until=0)),
    ]
    futures = engine.submit_many([raw for _, raw in table])
    for (code, _), future in zip(table, futures, strict=True):
        with pytest.raises(Rejected) as refusal:
            future.result(60)
        assert refusal.value.code == code
    assert engine.head.height == 0
    # A faulty copy of a good one, in the same batch, does it no harm.
    faulty, fine = engine.submit_many([table[0][1], good])
    assert fine.result(60).ok
    assert isinstance(faulty.exception(60), Rejected)
    assert len(engine.blocks(1, 10)) == 1


def test_the_same_bytes_at_once_are_applied_once(url: str, opened: Opened) -> None:
    """Requests with the same transaction at the same time share one result."""
    engine = opened(url)
    raw = transfer(engine, 9)
    before, futures = balance_of(engine, BOB), []
    threads = [threading.Thread(target=lambda: futures.extend(engine.submit_many([raw, raw]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({encode(f.result(60)) for f in futures}) == 1
    assert balance_of(engine, BOB) == before + 9


def test_the_queue_is_bounded(url: str, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue answers EngineBusy and takes nothing in; what it had taken in is applied."""
    monkeypatch.setattr(embedded, "MAX_QUEUE", 5)
    engine = opened(url)
    futures: list[Future[Receipt]] = []
    with engine.read():  # the writer waits for us before its first block
        for _ in range(100):
            futures.append(engine.submit(transfer(engine)))
            if futures[-1].done():
                break
    assert isinstance(futures.pop().exception(60), EngineBusy)
    assert all(f.result(60).ok for f in futures)
    assert sum(len(b.raws) for b in engine.blocks(1, 100)) == len(futures)


def test_what_falls_due_wakes_the_writer(url: str, opened: Opened) -> None:
    """Without transactions a block comes when something falls due, and it runs at its own due time."""
    clock = ManualClock()
    engine = opened(url, clock=clock)
    due = clock.now + 5_000
    assert send(engine, signed(clock.now, ADA, Remind(due_ms=due, id="tea"))).ok
    height = engine.head.height
    clock.now = due + 250
    eventually(lambda: engine.head.height > height, "the block of what fell due")
    assert [encode(e) for e in engine.events(height + 1)] == [encode({"id": "tea", "kind": "Reminded", "time_ms": due})]
    assert engine.head.time_ms == due + 250
    assert engine.head.height == height + 1


def test_a_commit_that_fails_ends_the_engine(url: str, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a commit fails, everybody waiting learns that the result is not known, and nobody sees the half state."""
    fatal: list[BaseException] = []
    engine = opened(url, on_fatal=fatal.append)
    assert send(engine, transfer(engine, 5)).ok
    before = seen(engine)

    def broken(block: StoredBlock) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(engine._store, "append", broken)
    raws = [transfer(engine, 1000) for _ in range(20)]
    for future in engine.submit_many(raws):
        assert isinstance(future.exception(60), Indeterminate)
    eventually(lambda: fatal, "the owner is told")
    assert engine.head.height == before[0]
    assert engine.receipt(id_of(engine, raws[0])) is None
    assert engine.events(before[0] + 1) == []
    with pytest.raises(Indeterminate), engine.read():
        pass
    assert isinstance(engine.submit(transfer(engine)).exception(60), Indeterminate)
    engine.close()
    again = opened(url)
    assert seen(again) == before
    assert send(again, raws[0]).ok


def test_an_answer_is_given_once(url: str, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what follows a block fails, those who were answered are not told anything else."""
    fatal: list[BaseException] = []
    engine = opened(url, on_fatal=fatal.append)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine._checkpoints, "after_block", full)
    told: list[tuple[int, Any]] = []
    engine.submit_batch([transfer(engine, 5)], told.extend)
    eventually(lambda: fatal, "the owner is told")
    assert [(place, receipt.code) for place, receipt in told] == [(0, 0)]


def test_a_cancelled_request_harms_nobody(url: str, opened: Opened) -> None:
    """A future that was cancelled, early or late, leaves the writer at work."""
    fatal: list[BaseException] = []
    engine = opened(url, on_fatal=fatal.append)
    with engine.read():
        futures = [engine.submit(transfer(engine)) for _ in range(10)]
        for future in futures:
            future.cancel()
    assert send(engine, transfer(engine)).ok
    assert not fatal


def test_a_subscriber_that_fails_stops_nothing(url: str, opened: Opened) -> None:
    """Subscribers get every block in order until they end it; an error in one is its own."""
    engine = opened(url)
    heights: list[int] = []

    def broken(block: StoredBlock) -> None:
        raise RuntimeError("a bug of the subscriber")

    engine.subscribe(broken)
    end = engine.subscribe(lambda block: heights.append(block.header.height))
    for _ in range(3):
        assert send(engine, transfer(engine)).ok
    eventually(lambda: heights == [1, 2, 3], "three blocks")
    end()
    end()
    assert send(engine, transfer(engine)).ok
    engine.close()
    assert heights == [1, 2, 3]


def test_one_writer_at_a_time(url: str, opened: Opened) -> None:
    """A database has one writer; a second one is told who it is, and may write when the first has ended."""
    engine = opened(url)
    with pytest.raises(LedgerLocked, match="in use by") as refusal:
        opened(url)
    assert refusal.value.fix
    assert send(engine, transfer(engine)).ok
    engine.close()
    engine.close()
    assert send(opened(url), transfer(engine)).ok


def test_a_chain_is_not_taken_for_another(url: str, opened: Opened) -> None:
    """An empty place is no chain, and the genesis of another chain is refused."""
    with pytest.raises(LedgerMissing):
        Engine.open(url, None, [Reminders()])
    engine = opened(url)
    before = seen(engine)
    engine.close()
    with pytest.raises(WrongChain):
        opened(url, genesis=genesis(chain_id="test-2"))
    with pytest.raises(WrongChain):
        opened(url, genesis=genesis(time_ms=START - 1))
    assert seen(opened(url)) == before


def test_the_rate_limit_is_no_last_word(url: str, opened: Opened) -> None:
    """What comes too fast is refused before any block; the same bytes are applied later."""
    clock = ManualClock()
    engine = opened(url, clock=clock, genesis=genesis(parameters={"bucket_burst": 2, "bucket_refill_per_s": 1}))
    raws = [transfer(engine) for _ in range(5)]

    def outcome(future: Any) -> int:
        error = future.exception(60)
        return int(error.code) if isinstance(error, Rejected) else int(future.result().code)

    codes = [outcome(f) for f in engine.submit_many(raws)]
    assert codes == [0, 0] + [Code.RATE_LIMITED] * 3
    assert sum(len(b.raws) for b in engine.blocks(1, 100)) == 2
    clock.now += 1_000
    assert outcome(engine.submit(raws[2])) == 0
    assert balance_of(engine, BOB) == 10**12 + 3


def test_an_offline_transaction_that_came_too_early_gets_its_last_result(url: str, opened: Opened) -> None:
    """One sent before its turn is refused; sent again in its turn it is applied, and that is its result from then on."""
    engine = opened(url)
    one, two = (transfer(engine, amount, nonce="", sequence=amount, valid_until=0) for amount in (1, 2))
    assert _code(engine, two) == Code.BAD_SEQUENCE
    assert [_code(engine, raw) for raw in (one, two, one, two)] == [0, 0, 0, 0]
    engine.close()
    again = opened(url, genesis=None)
    assert [_code(again, raw) for raw in (one, two)] == [0, 0]
    found = again.receipt(id_of(again, two))
    assert found is not None
    assert found.code == 0


def _code(engine: Engine, raw: bytes) -> int:
    """The code that a transaction is answered with."""
    try:
        return send(engine, raw).code
    except Rejected as refusal:
        return int(refusal.code)
