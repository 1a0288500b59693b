"""Canonical bytes equal RFC 8785 on what we sign, and what is not canonical is refused, never altered."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from ledger.protocol.encoding import MAX_DEPTH, digest, encode, too_deep
from tests.ledger import independent

JCS = Path(__file__).resolve().parents[4] / "shared" / "vectors" / "jcs"
SAFE = st.integers(-(2**53) + 1, 2**53 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NAME = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8)
VALUE: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), SAFE, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAME, inner, max_size=4)),
    max_leaves=12,
)


@given(VALUE)
def test_equal_to_rfc_8785(value: Any) -> None:
    """Two other encoders, the standard's reference and plain json, write the same bytes."""
    assert encode(value) == rfc8785.dumps(value)
    if "\x7f" not in json.dumps(value, ensure_ascii=False):
        assert encode(value) == independent.canonical(value)


def has_float(value: Any) -> bool:
    """True where a number is no integer, or beyond what is exact."""
    if isinstance(value, dict):
        return any(map(has_float, value.values()))
    if isinstance(value, list):
        return any(map(has_float, value))
    return isinstance(value, float) or (isinstance(value, int) and abs(value) > 2**53 - 1)


def test_jcs_vectors() -> None:
    """The standard's files come out byte for byte, where all numbers are integers and all keys ASCII."""
    if not JCS.exists():
        pytest.skip("the vectors are not beside the checkout")
    equal = 0
    for source in sorted((JCS / "input").glob("*.json")):
        value = json.loads(source.read_bytes())
        expected = (JCS / "output" / source.name).read_bytes()
        if has_float(value) or (isinstance(value, dict) and not "".join(value).isascii()):
            continue
        assert encode(value) == expected, source.name
        equal += 1
    assert equal >= 2, "the set is short"


def test_digest_separates_domains_and_parts() -> None:
    """Neither another domain nor another split of the same bytes gives the same digest."""
    found = {digest("a", b"bc"), digest("ab", b"c"), digest("a", b"b", b"c"), digest("a", b"", b"bc"), digest("a")}
    assert len(found) == 5
    assert digest("a", b"bc").hex() == digest("a", *[b"bc"]).hex()


@given(VALUE, st.integers(0, 3))
def test_depth_is_counted_outside_strings(value: Any, extra: int) -> None:
    """Brackets in texts do not count; those outside do."""

    def depth(item: Any) -> int:
        if isinstance(item, dict):
            return 1 + max(map(depth, item.values()), default=0)
        if isinstance(item, list):
            return 1 + max(map(depth, item), default=0)
        return 0

    raw = json.dumps(['[[\\"{', value]).encode()
    assert not too_deep(raw)
    wraps = MAX_DEPTH + extra - 1 - depth(value)
    assert too_deep(b"[" * wraps + raw + b"]" * wraps) == (wraps + 1 + depth(value) > MAX_DEPTH)


def test_a_lone_surrogate_is_not_encoded() -> None:
    """It has no UTF-8, so it is refused instead of being replaced."""
    with pytest.raises((UnicodeEncodeError, msgspec.MsgspecError)):
        encode({"a": "\ud800"})
