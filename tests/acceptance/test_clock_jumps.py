"""Wall clocks that jump while a chain runs, and while it is stopped."""

import dataclasses
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ledger.engine.embedded import Engine
from tests.ledger.engine.ledgers import send, transfer
from tests.ledger.machine.chain import START, genesis

HOUR_MS = 3_600_000


@dataclasses.dataclass
class TwoClocks:
    """A wall clock and a monotonic one that a test sets apart."""

    wall: int = START + 5_000
    monotonic: int = 77

    def wall_ms(self) -> int:
        """Milliseconds since 1970."""
        return self.wall

    def monotonic_ms(self) -> int:
        """Milliseconds that never jump."""
        return self.monotonic


@pytest.mark.parametrize("jump_ms", [-HOUR_MS, HOUR_MS])
def test_block_time_does_not_jump_with_the_wall(tmp_path: Path, jump_ms: int) -> None:
    """While it runs block time follows the monotonic clock; a restart never goes back, and goes forward with the wall."""
    clock, url = TwoClocks(), f"sqlite:///{tmp_path}/chain.db"
    engine = Engine.open(url, genesis(), [], clock=clock)
    try:
        assert send(engine, transfer(engine)).ok
        before = engine.head.time_ms
        clock.wall += jump_ms
        clock.monotonic += 40
        assert engine.now_ms() == before + 40
        assert send(engine, transfer(engine)).ok
        assert engine.head.time_ms == before + 40
        engine.close()
        clock.monotonic = 3  # another boot
        engine = Engine.open(url, None, [], clock=clock)
        assert engine.now_ms() == (clock.wall if jump_ms > 0 else before + 40)
        assert send(engine, transfer(engine)).ok
        assert engine.head.time_ms == (clock.wall if jump_ms > 0 else before + 41)
    finally:
        engine.close()


@pytest.mark.parametrize("jump_ms", [-HOUR_MS, HOUR_MS])
def test_a_jump_is_told_of_and_slewed(tmp_path: Path, jump_ms: int) -> None:
    """One warning says by how much; block time nears the wall's by half a millisecond a second, and never goes back."""
    clock = TwoClocks()
    engine = Engine.open(f"sqlite:///{tmp_path}/chain.db", genesis(), [], clock=clock)
    try:
        assert send(engine, transfer(engine)).ok
        clock.wall += jump_ms
        times = [engine.head.time_ms]
        with capture_logs() as logs:
            for _ in range(40):
                for name in ("wall", "monotonic"):
                    setattr(clock, name, getattr(clock, name) + 4_000)
                assert send(engine, transfer(engine)).ok
                times.append(engine.head.time_ms)
            engine.close()  # the last look at the clocks is behind it
        told = [line["wall_ahead_ms"] for line in logs if "wall_ahead_ms" in line]
        assert told == [jump_ms]
        assert times == sorted(set(times))
        nearer = (times[-1] - times[0] - 40 * 4_000) * (1 if jump_ms > 0 else -1)
        assert 0 < nearer <= 40 * 2
        assert abs(engine.wall_ahead_ms()) >= HOUR_MS - 40 * 2
    finally:
        engine.close()


def test_a_chain_that_is_ahead_of_the_wall_waits_for_it(tmp_path: Path) -> None:
    """Set back before a start, the wall is told of; block time goes on from the last block, a little slower."""
    clock, url = TwoClocks(), f"sqlite:///{tmp_path}/chain.db"
    engine = Engine.open(url, genesis(), [], clock=clock)
    assert send(engine, transfer(engine)).ok
    last = engine.head.time_ms
    engine.close()
    clock.wall -= HOUR_MS
    with capture_logs() as logs:
        engine = Engine.open(url, None, [], clock=clock)
        try:
            assert send(engine, transfer(engine)).ok
            assert last < engine.head.time_ms <= last + 1
        finally:
            engine.close()
    assert [line["wall_ahead_ms"] for line in logs if "wall_ahead_ms" in line] == [-HOUR_MS]
