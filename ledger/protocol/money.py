"""Amounts: checked integers in micro-units of a denomination, decimal strings on the wire."""

from typing import Annotated, Final, NewType

import msgspec

from ledger.protocol.errors import Code, Rejected

MAX_AMOUNT: Final = 2**63 - 1
"""Largest amount in micro-units: what a signed 64-bit column holds."""

MS_PER_HOUR: Final = 3_600_000

Amount = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,18})\Z")]
"""An amount in micro-units as it stands in a message: a decimal string, no sign, no leading zero."""

Denomination = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9]{2,15}\Z")]

Micro = NewType("Micro", int)


def parse_amount(text: str) -> int:
    """Return the integer in micro-units; AMOUNT_REFUSED where it is over `MAX_AMOUNT`."""
    value = int(text)
    if not 0 <= value <= MAX_AMOUNT:
        raise Rejected(Code.AMOUNT_REFUSED, f"{text} is not within 0..{MAX_AMOUNT}")
    return value


def add(left: int, right: int) -> int:
    """Sum of two amounts; AMOUNT_REFUSED where it leaves 0..MAX_AMOUNT."""
    value = left + right
    if not 0 <= value <= MAX_AMOUNT:
        raise Rejected(Code.AMOUNT_REFUSED, "the sum is out of range")
    return value


def ceil_div(numerator: int, denominator: int) -> int:
    """Quotient rounded up, of integers of any sign over a positive divisor."""
    return -(-numerator // denominator)


def metered(rate_per_hour: int, up_ms: int) -> int:
    """Cost in micro-units of `up_ms` milliseconds at a rate in micro-units an hour: the closed form, rounded down."""
    return rate_per_hour * up_ms // MS_PER_HOUR
