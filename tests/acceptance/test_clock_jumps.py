"""Wall clocks that jump while a chain runs, and while it is stopped."""

import dataclasses
from pathlib import Path

import pytest

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
