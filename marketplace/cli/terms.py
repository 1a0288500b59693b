"""The terms of a bid, in words."""

from ledger.cli.output import credits

_UNITS = ((3_600_000, "h"), (60_000, "min"), (1_000, "s"))


def duration(ms: int) -> str:
    """Milliseconds in the largest unit that is exact: `24h`, `90min`."""
    return next((f"{ms // unit}{suffix}" for unit, suffix in _UNITS if ms % unit == 0), f"{ms}ms")


def in_words(least_ms: int, most_ms: int, hold_per_hour: str) -> str:
    """Shortest and longest duration, and what a long pull costs an hour: `1h to 24h, hold 0.500000`; a dash for none of them."""
    parts = []
    if least_ms or most_ms:
        parts.append(f"{duration(least_ms) if least_ms else 'any'} to {duration(most_ms) if most_ms else 'any'}")
    if int(hold_per_hour or "0"):
        parts.append(f"hold {credits(hold_per_hour)}")
    return ", ".join(parts) or "–"
