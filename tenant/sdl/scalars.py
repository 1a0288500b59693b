"""Scalars as Go reads them: the resolution of yaml.v3, and the number parsers of strconv, in exact integers."""

import base64
import re
from fractions import Fraction
from typing import Any, Final

NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
BOOLS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_TYPED_TRUE: Final = frozenset({"y", "Y", "yes", "Yes", "YES", "on", "On", "ON"})
_TYPED_FALSE: Final = frozenset({"n", "N", "no", "No", "NO", "off", "Off", "OFF"})
_SPECIAL: Final = frozenset({".nan", ".NaN", ".NAN", *(s + i for s in ("", "+", "-") for i in (".inf", ".Inf", ".INF"))})
_STYLE_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INT: Final = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]([0-7]+)|(0[0-7]*)|([1-9][0-9]*))")
_DIGITS: Final = r"[0-9](?:_?[0-9])*"
_DECIMAL: Final = re.compile(rf"([-+]?)(?:({_DIGITS})(?:\.({_DIGITS})?)?|\.({_DIGITS}))(?:[eE]([-+]?[0-9](?:_?[0-9])*))?")
_HEX: Final = re.compile(
    r"([-+]?)0[xX]((?:_?[0-9a-fA-F])*)(?:\.((?:[0-9a-fA-F](?:_?[0-9a-fA-F])*)?))?[pP]([-+]?[0-9](?:_?[0-9])*)"
)
_WORDS: Final = re.compile(r"[-+]?inf(?:inity)?|nan", re.IGNORECASE)
_TIMESTAMP: Final = re.compile(
    r"[0-9]{4}-(?:[0-9]{2}-[0-9]{2}|[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?.*)"
)
LONGEST_NUMBER: Final = 400


class BadScalar(ValueError):
    """The reference cannot read this scalar as what its tag or place says."""


def whole(text: str) -> int | None:
    """An integer as Go's ParseInt(base 0) and yaml.v3 read it (underscores dropped), within 64 bits; else None."""
    plain = text.replace("_", "")
    if len(plain) > LONGEST_NUMBER or not (found := _INT.fullmatch(plain)):
        return None
    sign, hexa, binary, octal, old_octal, decimal = found.groups()
    value = (
        int(hexa, 16)
        if hexa
        else int(binary, 2)
        if binary
        else int(octal, 8)
        if octal
        else int(old_octal or "0", 8)
        if old_octal
        else int(decimal)
    )
    if sign == "-":
        return -value if value <= 2**63 else None
    limit = 2**63 if sign else 2**64
    return value if value < limit else None


def resolve(tag: str, text: str) -> tuple[str, Any]:
    """The tag and value of a scalar: yaml.v3's `resolve`. Floats come as exact fractions, or None if not finite.

    `tag` is a short tag (`!!int`) or empty for a plain scalar. Raises BadScalar where the tag does not fit.
    """
    if tag == "!!str":
        return tag, text
    if tag == "!!binary":
        try:
            return tag, base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True).decode("utf-8", "replace")
        except ValueError:
            raise BadScalar("!!binary value is not base64") from None
    found, value = _plain(tag, text)
    if tag in ("", found):
        return found, value
    if tag == "!!float" and found == "!!int":
        return tag, Fraction(value)
    raise BadScalar(f"cannot read {found} `{text[:40]}` as {tag}")


def _plain(tag: str, text: str) -> tuple[str, Any]:
    if text in NULLS:
        return "!!null", None
    if text in BOOLS:
        return "!!bool", BOOLS[text]
    first = text[0]
    if first not in "+-.0123456789":
        return "!!str", text
    if text in _SPECIAL:
        return "!!float", None
    if first == ".":
        try:
            return "!!float", number(text)
        except BadScalar:
            return "!!str", text
    if tag in ("", "!!timestamp") and first.isdigit() and _TIMESTAMP.fullmatch(text):
        return "!!timestamp", text
    integer = whole(text)
    if integer is not None:
        return "!!int", integer
    plain = text.replace("_", "")
    if _STYLE_FLOAT.fullmatch(plain):
        try:
            return "!!float", number(plain)
        except BadScalar:
            return "!!str", text
    return "!!str", text


def as_uint32(tag: str, text: str) -> int | None:
    """A scalar as a Go uint32 (a float is cut), or None where yaml.v3 refuses it."""
    found, value = resolve(tag, text)
    if found == "!!int" or (found == "!!float" and value is not None):
        cut = int(value)
        return cut if 0 <= cut < 2**32 else None
    return None


def as_bool(tag: str, text: str) -> bool | None:
    """A scalar as a Go bool: true and false, and the words of YAML 1.1; None where yaml.v3 refuses it."""
    found, value = resolve(tag, text)
    if found == "!!bool":
        return bool(value)
    if found == "!!str":
        return True if value in _TYPED_TRUE else False if value in _TYPED_FALSE else None
    return None


def binary64(value: Fraction) -> Fraction:
    """The nearest IEEE 754 double, ties to even: what Go computes with. Raises BadScalar beyond its range."""
    numerator, denominator = abs(value.numerator), value.denominator
    if numerator == 0:
        return Fraction(0)
    exponent = numerator.bit_length() - denominator.bit_length() - 53
    exponent = max(exponent, -1074)
    while True:
        scaled = Fraction(numerator, denominator) * (Fraction(2) ** -exponent)
        mantissa = round(scaled)
        if mantissa < 2**53:
            break
        exponent += 1
    result = mantissa * Fraction(2) ** exponent
    if result >= 2**1024:
        raise BadScalar("value out of range")
    return -result if value < 0 else result


def number(text: str) -> Fraction | None:
    """Go's ParseFloat(text, 64), exactly; None for an infinity or NaN. Raises BadScalar."""
    if text.isascii() and text.isdigit() and len(text) <= 15:
        return Fraction(int(text))
    if len(text) > LONGEST_NUMBER:
        raise BadScalar("the number is too long")
    if found := _DECIMAL.fullmatch(text):
        sign, before, after, only, power = (part.replace("_", "") if part else "" for part in found.groups())
        fraction = after or only
        exponent = _exponent(power) - len(fraction)
        digits = int((before + fraction) or "0")
        if digits and not -800 < exponent + len(before + fraction) < 400:
            if exponent > 0:
                raise BadScalar("value out of range")
            digits = 0
        value = Fraction(digits) * Fraction(10) ** (exponent if digits else 0)
        value = binary64(value)
        return -value if sign == "-" else value
    if found := _HEX.fullmatch(text):
        sign, before, after, power = (part.replace("_", "") if part else "" for part in found.groups())
        if not before and not after:
            raise BadScalar("no digits")
        exponent = max(-5000, min(5000, _exponent(power))) - 4 * len(after)
        value = binary64(Fraction(int(before + after, 16)) * Fraction(2) ** exponent)
        return -value if sign == "-" else value
    if _WORDS.fullmatch(text):
        return None
    raise BadScalar("not a number")


def _exponent(text: str) -> int:
    # Go stops counting at 10,000: far outside what a double holds.
    return max(-10_000, min(10_000, int(text or "0")))


def unsigned(text: str, bits: int) -> int:
    """Go's ParseUint(text, 10, bits). Raises BadScalar."""
    if not (text.isascii() and text.isdigit()) or len(text) > LONGEST_NUMBER or int(text) >= 2**bits:
        raise BadScalar("not a whole number")
    return int(text)
