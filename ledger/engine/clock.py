"""Clocks of the engine: the wall once at start, monotonic time after that."""

import time
from typing import Protocol


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
