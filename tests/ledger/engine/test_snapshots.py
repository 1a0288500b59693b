"""Snapshots: a chain goes on elsewhere from its newest state, which whoever begins with it has checked."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.engine.checkpoint import open_machine
from ledger.engine.embedded import Engine
from ledger.engine.errors import LedgerDamaged, LedgerMissing, LedgerNotEmpty, LedgerPruned, LedgerUnavailable
from ledger.engine.log import Log
from ledger.engine.snapshots import SnapshotRefused, Taken, begin, take
from ledger.protocol.encoding import encode
from ledger.protocol.errors import Code, Rejected
from tests.ledger.engine.ledgers import ManualClock, Remind, Reminders, seen, send, shards_often, signed, transfer
from tests.ledger.machine.chain import ADA, START, genesis

Opened = Callable[..., Engine]


def began(path: Path, url: str, taken: Taken) -> None:
    """Begin with a snapshot, trusting what it was said to be."""
    first, found = begin(path, url, [Reminders()], genesis=taken.genesis, height=taken.height, hash_=taken.hash)
    assert first == genesis()
    assert found == taken


def test_a_chain_goes_on_from_a_snapshot(url: str, opened: Opened, tmp_path: Path) -> None:
    """Taken from a node that runs, it gives the same state, due events and roots elsewhere; older blocks are not there."""
    clock = ManualClock()
    engine = opened(url, clock=clock)
    assert send(engine, signed(clock.now, ADA, Remind(due_ms=(due := clock.now + 90_000), id="tea"))).ok
    with shards_often():
        raws = [transfer(engine, n + 1) for n in range(12)]
        for raw in raws:
            assert send(engine, raw).ok
    taken = take(url, tmp_path / "snapshot")
    assert (taken.height, taken.hash, taken.state_root) == seen(engine)[:3]
    other = f"sqlite:///{tmp_path}/other.db"
    began(tmp_path / "snapshot", other, taken)
    copy = opened(other, clock=clock)
    assert seen(copy) == seen(engine)
    with copy.read() as machine:
        machine.invariants()
    assert copy.first_height == taken.height
    assert copy.block(taken.height - 1) is None
    newest = copy.block(taken.height)
    assert newest is not None
    assert newest.raws == raws[-1:]
    assert send(copy, raws[-1]).ok  # its result is in the block
    refusal = copy.submit(raws[0]).exception(60)
    assert isinstance(refusal, Rejected)
    assert refusal.code == Code.ALREADY_APPLIED
    more = transfer(engine, 5)
    clock.now += 100_000
    for one in (engine, copy):
        later = signed(clock.now, ADA, Remind(due_ms=clock.now + 1, id="cup"), nonce="f" * 32)
        assert send(one, later).ok
        assert isinstance(one.submit(more).exception(60), Rejected)
        reminded = [event for height in range(taken.height + 1, one.head.height + 1) for event in one.events(height)]
        assert encode(reminded[0]) == encode({"id": "tea", "kind": "Reminded", "time_ms": due})
    assert seen(copy)[3:] == seen(engine)[3:]
    with pytest.raises(LedgerPruned, match=str(taken.height)):
        copy.export(tmp_path / "export")
    before = seen(copy)
    copy.close()
    again = opened(other, clock=clock)
    assert seen(again) == before
    again.close()
    log = Log(other)
    log.drop_shards()
    with pytest.raises(LedgerDamaged, match="snapshot"):
        open_machine(log, None, [Reminders()])
    log.close()


def test_where_there_is_nothing_to_take(url: str, opened: Opened, tmp_path: Path) -> None:
    """No database, or no block in it: said so, and no file is left."""
    with pytest.raises(LedgerMissing):
        take(f"sqlite:///{tmp_path}/none.db", tmp_path / "snapshot")
    opened(url).close()
    with pytest.raises(LedgerUnavailable, match="first block"):
        take(url, tmp_path / "snapshot")
    assert not list(tmp_path.glob("*snapshot*"))
    assert not (tmp_path / "none.db").exists()


def test_a_snapshot_is_checked_before_anything_is_written(opened: Opened, tmp_path: Path) -> None:
    """Another block, genesis or chain, a file cut short, and any bit that is turned: refused, or the very same state."""
    url, other, path = f"sqlite:///{tmp_path}/chain.db", f"sqlite:///{tmp_path}/other.db", tmp_path / "snapshot"
    engine = opened(url, genesis=genesis(time_ms=START))
    with shards_often():
        for n in range(9):
            assert send(engine, transfer(engine, n + 1)).ok
    taken = take(url, path)
    good, chance = path.read_bytes(), random.Random(11)
    trusted = {"genesis": taken.genesis, "height": taken.height, "hash_": taken.hash}
    for wrong in ({"genesis": "0" * 64}, {"height": taken.height - 1}, {"hash_": "0" * 64}):
        with pytest.raises(SnapshotRefused):
            begin(path, other, [Reminders()], **(trusted | wrong))
    tables = good.index(b"S\0\0\0")
    cut = [good[: chance.randrange(len(good))] for _ in range(10)] + [b"", good + b"S", good[:tables] + good[tables + 6 :]]
    for data in cut:
        path.write_bytes(data)
        with pytest.raises(SnapshotRefused):
            begin(path, other, [Reminders()], **trusted)
    assert not (tmp_path / "other.db").exists()
    for number in range(60):
        at, bit = chance.randrange(len(good)), chance.randrange(8)
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :])
        place = f"sqlite:///{tmp_path}/{number}.db"
        try:
            began(path, place, taken)
        except SnapshotRefused:
            assert not (tmp_path / f"{number}.db").exists()
        else:
            log = Log(place)
            assert open_machine(log, None, [Reminders()]).head == engine.head
            log.close()
    path.write_bytes(good)
    began(path, other, taken)
    with pytest.raises(LedgerNotEmpty):
        began(path, other, taken)
