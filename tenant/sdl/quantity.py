"""Amounts of things: processors, bytes, prices, durations, versions, as the reference reads them."""

import re
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Final

from tenant.sdl.scalars import BadScalar, binary64, number, unsigned

_DECIMAL_UNITS: Final = {"k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
BINARY_SUFFIXES: Final = {f"{letter}i": 1024**power for letter, power in zip("KMGTPE", range(1, 7), strict=True)}
SUFFIXES: Final = {letter: 1000**power for letter, power in _DECIMAL_UNITS.items()} | BINARY_SUFFIXES
_AMOUNT: Final = re.compile(r"[-+]?[0-9]+")
_DURATION_UNITS: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION_PART: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
_SEMVER_WORD: Final = re.compile(r"[0-9A-Za-z-]+")
LARGEST: Final = 2**63
"""What a number too large for the reference's integers reads as: more than any limit."""


@lru_cache(maxsize=1024)
def milli_cpu(text: str) -> int:
    """Processors (`0.5`, `500m`) in thousandths, cut to whole ones and to 32 bits as the reference does."""
    if text.endswith("m"):
        return unsigned(text[:-1], 32)
    if text.isascii() and text.isdigit() and len(text) <= 12:
        return int(text) * 1000 % 2**32
    value = number(text)
    if value is None:
        if text.startswith("-"):
            raise BadScalar("negative")
        return 0
    if value < 0:
        raise BadScalar("negative")
    milli = int(binary64(value * 1000))
    return milli % 2**32 if milli < 2**63 else 0


def size(text: str, suffixes: dict[str, int]) -> int:
    """Bytes (`512Mi`, `1.5G`, `1048576`), a fraction of a byte cut. Raises BadScalar."""
    unit = suffixes.get(text[-2:]) or suffixes.get(text[-1:])
    if unit is None:
        unit = 1
    elif text[-2:] in suffixes:
        text = text[:-2]
    else:
        text = text[:-1]
    if text.isascii() and text.isdigit() and len(text) <= 15:
        whole = int(text) * unit
        if whole < 2**53:
            return whole
    value = number(text)
    if value is None:
        if text.startswith("-"):
            raise BadScalar("negative")
        return LARGEST
    if value < 0:
        raise BadScalar("negative")
    product = value * unit
    return min(LARGEST, int(product if product.denominator == 1 and product < 2**53 else binary64(product)))


@lru_cache(maxsize=1024)
def decimal18(text: str) -> Decimal:
    """A price with at most 18 decimals, as the chain's decimals read it. Raises BadScalar."""
    negative = text.startswith("-")
    body = text[1:] if negative else text
    if not body:
        raise BadScalar("empty")
    before, dot, after = body.partition(".")
    if dot and (not before or not after or "." in after or len(after) > 18):
        raise BadScalar("not a decimal with at most 18 digits after the point")
    digits = before + after
    if len(digits) > 120 or not _AMOUNT.fullmatch(digits):
        raise BadScalar("not a decimal")
    value = int(digits) * 10 ** (18 - len(after))
    if abs(value).bit_length() > 315:
        raise BadScalar("too large")
    return Decimal(-value if negative else value).scaleb(-18)


def fixed18(value: Decimal) -> str:
    """A price with all 18 decimals, as the chain writes it."""
    scaled = int(value.scaleb(18))
    return f"{scaled // 10**18}.{scaled % 10**18:018d}"


def duration_ns(text: str) -> int:
    """A duration (`24h`, `1h30m`) in nanoseconds: Go's ParseDuration. Raises BadScalar."""
    body = text[1:] if text[:1] in ("+", "-") else text
    if body == "0":
        return 0
    total = place = 0
    while place < len(body):
        part = _DURATION_PART.match(body, place)
        if not part or not (part[1] or part[2]) or len(part[1]) > 20:
            raise BadScalar("not a duration")
        unit = _DURATION_UNITS[part[3]]
        fraction = (part[2] or "")[:18]
        total += int(part[1] or "0") * unit + int(Fraction(int(fraction or "0") * unit, 10 ** len(fraction)))
        place = part.end()
    if not body or total >= 2**63:
        raise BadScalar("not a duration")
    return -total if text.startswith("-") else total


def version(text: str) -> str:
    """`2.0` or `2.1`: the grammar that a version asks for, read as tolerantly as the reference does. Raises BadScalar."""
    parts = text.strip().removeprefix("v").split(".", 2)
    for index, part in enumerate(parts):
        if len(part) > 1:
            cut = part.lstrip("0")
            parts[index] = cut if cut and cut[0] in "0123456789" else "0" + cut
    if len(parts) < 3:
        if "+" in parts[-1] or "-" in parts[-1]:
            raise BadScalar("a short version with a suffix")
        parts += ["0"] * (3 - len(parts))
    patch, plus, build = parts[2].partition("+")
    patch, minus, before = patch.partition("-")
    numbers = []
    for part in (parts[0], parts[1], patch):
        if len(part) > 1 and part.startswith("0"):
            raise BadScalar("not a version")
        numbers.append(unsigned(part, 64))
    words = (before.split(".") if minus else []) + (build.split(".") if plus else [])
    if not all(_SEMVER_WORD.fullmatch(word) for word in words):
        raise BadScalar("not a version")
    if minus and any(w.isdigit() and len(w) > 1 and w.startswith("0") for w in before.split(".")):
        raise BadScalar("not a version")
    triple = tuple(numbers)
    if triple == (2, 0, 0) and not minus:
        return "2.0"
    if triple > (2, 1, 0) or (triple == (2, 1, 0) and not minus):
        return "2.1"
    raise BadScalar("unsupported")
