"""Clocks of the engine: the wall once at start, monotonic time after that; a wall that jumps is told of, not followed."""

import time
from typing import Final, Protocol

import structlog

SLEW_PPM: Final = 500
"""Block time nears a wall clock that stands elsewhere by at most so many millionths of the time that passes."""

LOOK_MS: Final = 1_000
"""How often the two are compared, at most."""

LONGEST_MS: Final = 60_000
"""Time without blocks that counts for one step: 30 ms at most."""

JUMP_MS: Final = 1_000
"""What is told of."""

_log = structlog.get_logger()


class Clock(Protocol):
    """Two readings in ms."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970, UTC."""

    def monotonic_ms(self) -> int:
        """Milliseconds that never jump."""


class SystemClock:
    """The clocks of this machine."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Milliseconds since some start; suspended time counts, so that meters do not lose it."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class BlockTime:
    """Block time as it runs, in ms: the wall clock's at start, or the last block's where that is later; then monotonic."""

    def __init__(self, clock: Clock, least_ms: int) -> None:
        self._clock = clock
        started = clock.monotonic_ms()
        self._anchor_ms = max(least_ms, clock.wall_ms()) - started
        self._looked_ms = started - LOOK_MS
        self._told_ms = 0

    def now_ms(self) -> int:
        """Block time now, but for blocks that were ahead of it."""
        return self._anchor_ms + self._clock.monotonic_ms()

    def wall_ahead_ms(self) -> int:
        """How far the wall clock is ahead of block time; negative where it is behind."""
        return self._clock.wall_ms() - self.now_ms()

    def look(self) -> None:
        """Compare with the wall clock: a jump is told of, and slewed. Called by one thread, after blocks."""
        now = self._clock.monotonic_ms()
        passed = now - self._looked_ms
        if passed < LOOK_MS:
            return
        self._looked_ms = now
        ahead = self.wall_ahead_ms()
        if abs(ahead - self._told_ms) >= JUMP_MS:
            _log.warning("the wall clock and block time differ: block time goes on, and nears it slowly", wall_ahead_ms=ahead)
            self._told_ms = ahead
        most = min(passed, LONGEST_MS) * SLEW_PPM // 1_000_000
        self._anchor_ms += max(-most, min(most, ahead))
