"""What was applied long ago and comes again: it gets its first result, and holds nobody up."""

import threading
from collections.abc import Callable

import pytest

from ledger.engine import repeats
from ledger.engine.embedded import Engine
from ledger.engine.errors import EngineBusy, Indeterminate
from ledger.machine import remembered
from ledger.protocol.block import Receipt
from ledger.protocol.encoding import encode
from ledger.protocol.errors import Code, Rejected
from tests.ledger.engine.ledgers import send, transfer

Opened = Callable[..., Engine]


@pytest.fixture(autouse=True)
def few_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory keeps very few receipts; lookups take no breaks."""
    monkeypatch.setattr(remembered, "RECEIPTS", 2)
    monkeypatch.setattr(repeats, "BREAK", 0)


def test_an_old_repeat_gets_its_first_result(url: str, opened: Opened) -> None:
    """Out of the log, whatever stands around it in its block and in the batch; what never was gets its refusal."""
    engine = opened(url)
    raws = [transfer(engine) for _ in range(30)]
    first = [future.result(60) for future in engine.submit_many(raws)]
    for _ in range(2):
        send(engine, transfer(engine))
        again = engine.submit_many([*raws, transfer(engine), *raws[:3]])
        assert [encode(future.result(60)) for future in again[:30]] == [encode(receipt) for receipt in first]
        assert again[30].result(60).ok
        for future, receipt in zip(again[31:], first, strict=False):
            # The same twice in a batch: the second may have to come again.
            error = future.exception(60)
            assert isinstance(error, EngineBusy) or future.result().id == receipt.id
    never = transfer(engine, valid_until=engine.now_ms() - 1)
    refusal = engine.submit(never).exception(60)
    assert isinstance(refusal, Rejected)
    assert refusal.code == Code.EXPIRED


def test_old_repeats_hold_nobody_up(url: str, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """While first results are looked up, others are applied; what there is no room for is told to come again."""
    monkeypatch.setattr(repeats, "WAITING", 5)
    engine = opened(url)
    raws = [transfer(engine) for _ in range(20)]
    first = [future.result(60) for future in engine.submit_many(raws)]
    for _ in range(4):
        send(engine, transfer(engine))
    go, looked = threading.Event(), threading.Event()
    real = engine._repeats._receipt_of

    def slow(tx_id: str) -> Receipt | None:
        looked.set()
        assert go.wait(10)
        return real(tx_id)

    engine._repeats._receipt_of = slow
    one = engine.submit(raws[0])
    assert looked.wait(60)
    others = engine.submit_many(raws[1:])
    assert send(engine, transfer(engine)).ok
    assert not one.done()
    busy = [future for future in others if future.done()]
    assert len(busy) == len(others) - 5
    assert all(isinstance(future.exception(), EngineBusy) for future in busy)
    go.set()
    for future, receipt in zip([one, *others[:5]], first, strict=False):
        assert encode(future.result(60)) == encode(receipt)


def test_what_waits_at_the_end_is_not_left(url: str, opened: Opened) -> None:
    """An engine that closes, or fails, amid lookups answers every one of them."""
    engine = opened(url)
    raws = [transfer(engine) for _ in range(9)]
    for future in engine.submit_many(raws):
        future.result(60)
    for _ in range(4):
        send(engine, transfer(engine))
    go, looked = threading.Event(), threading.Event()

    def broken(tx_id: str) -> Receipt | None:
        looked.set()
        assert go.wait(60)
        raise OSError(f"the disk is gone: {tx_id}")

    engine._repeats._receipt_of = broken
    futures = engine.submit_many(raws)
    assert looked.wait(60)
    closing = threading.Thread(target=engine.close)
    closing.start()
    for future in futures[1:]:
        assert isinstance(future.exception(60), Indeterminate)
    go.set()
    assert isinstance(futures[0].exception(60), Indeterminate)
    closing.join(60)
    assert not closing.is_alive()
