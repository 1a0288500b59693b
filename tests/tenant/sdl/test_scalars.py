"""Scalars are Go's, not PyYAML's. The answers come from strconv and yaml.v3."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant.sdl.quantity import BINARY_SUFFIXES, SUFFIXES, decimal18, duration_ns, fixed18, milli_cpu, size, version
from tenant.sdl.scalars import BadScalar, as_bool, as_uint32, binary64, number, resolve


@pytest.mark.parametrize(
    ("text", "tag", "value"),
    [
        ("yes", "!!str", "yes"),
        ("on", "!!str", "on"),
        ("True", "!!bool", True),
        ("tRUE", "!!str", "tRUE"),
        ("~", "!!null", None),
        ("", "!!null", None),
        ("Null", "!!null", None),
        ("nULL", "!!str", "nULL"),
        ("012", "!!int", 10),
        ("0o12", "!!int", 10),
        ("08", "!!float", Fraction(8)),
        ("0x1F", "!!int", 31),
        ("0b101", "!!int", 5),
        ("1_000", "!!int", 1000),
        ("+5", "!!int", 5),
        ("1e3", "!!float", Fraction(1000)),
        ("12:30", "!!str", "12:30"),
        (".5", "!!float", Fraction(1, 2)),
        (".inf", "!!float", None),
        ("-.INF", "!!float", None),
        ("2001-01-01", "!!timestamp", "2001-01-01"),
        ("18446744073709551615", "!!int", 2**64 - 1),
        ("18446744073709551616", "!!float", Fraction(2**64)),
        ("-", "!!str", "-"),
        ("1.2.3", "!!str", "1.2.3"),
        ("<<", "!!str", "<<"),
    ],
)
def test_resolution(text: str, tag: str, value: object) -> None:
    """A plain scalar resolves as yaml.v3 resolves it."""
    assert resolve("", text) == (tag, value)


def test_explicit_tags() -> None:
    """A tag that does not fit is refused; an integer may be tagged a float."""
    assert resolve("!!float", "5") == ("!!float", Fraction(5))
    assert resolve("!!binary", "aGk=") == ("!!binary", "hi")
    assert resolve("!!str", "5") == ("!!str", "5")
    for tag, text in (("!!int", "x"), ("!!bool", "yes"), ("!foo", "x"), ("!!null", "x"), ("!!binary", "***")):
        with pytest.raises(BadScalar):
            resolve(tag, text)


def test_typed_scalars() -> None:
    """Typed fields take the words of YAML 1.1 for flags, and cut floats for numbers."""
    assert [as_bool("", w) for w in ("yes", "off", "true", "1", "maybe")] == [True, False, True, None, None]
    assert [as_uint32("", w) for w in ("80", "80.9", "-0.5", "-1", "0x50", "80-90", "4294967296")] == [
        80,
        80,
        0,
        None,
        80,
        None,
        None,
    ]
    assert as_uint32("!!str", "80") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.001", 1000),
        ("0.5", 500),
        ("500m", 500),
        ("0x1p-1", 500),
        ("1_0", 10_000),
        ("4294968", 704),
        ("nan", 0),
        ("0.0000001", 0),
    ],
)
def test_cpu(text: str, value: int) -> None:
    """Processors are computed in doubles and cut to 32 bits, as the reference does."""
    assert milli_cpu(text) == value


@pytest.mark.parametrize("text", ["", "-1", "1.5m", "4294967296m", "one", "1e400", "1 ", "-inf", "0x10"])
def test_bad_cpu(text: str) -> None:
    """What ParseFloat and ParseUint refuse is refused."""
    with pytest.raises(BadScalar):
        milli_cpu(text)


def test_sizes() -> None:
    """Suffixes are case-sensitive; a fraction of a byte is cut; GPU memory takes binary suffixes alone."""
    for text, value in (
        ("1Gi", 2**30),
        ("1.1Gi", 1181116006),
        ("512", 512),
        ("1k", 1000),
        ("1e3", 1000),
        ("1E", 10**18),
        ("2Ei", 2**61),
    ):
        assert size(text, SUFFIXES) == value, text
    for text in ("1gi", "1Gb", "15GB", "Gi", "-1Gi", "1 Gi", "1ki"):
        with pytest.raises(BadScalar):
            size(text, SUFFIXES)
    with pytest.raises(BadScalar):
        size("80G", BINARY_SUFFIXES)


def test_prices() -> None:
    """Prices are the chain's decimals: at most 18 places, no exponent."""
    assert fixed18(decimal18("12.25")) == "12.250000000000000000"
    assert fixed18(decimal18("0.000000000000000001")) == "0.000000000000000001"
    assert decimal18("--5") == 5
    for text in ("", "-", "1e3", ".5", "5.", "1.2.3", "0." + "1" * 19, "abc", "1_0", "9" * 121):
        with pytest.raises(BadScalar):
            decimal18(text)


def test_durations_and_versions() -> None:
    """Durations are time.ParseDuration's, versions tolerant semver."""
    assert [duration_ns(t) for t in ("24h", "1h30m", "1.5s", "0", "-1s", "100ns")] == [
        86_400 * 10**9,
        5_400 * 10**9,
        1_500_000_000,
        0,
        -(10**9),
        100,
    ]
    for text in ("", "1", "h", "1d", "1h ", "99999999999h"):
        with pytest.raises(BadScalar):
            duration_ns(text)
    assert [version(t) for t in ("2.0", "2", "v2.0", " 2.0.0+x ", "2.1", "3.0", "2.2.0-rc.1")] == ["2.0"] * 4 + ["2.1"] * 3
    for text in ("", "1.9", "2.0.0-rc", "2.1.0-rc", "2.0.5", "two", "2.0-x"):
        with pytest.raises(BadScalar):
            version(text)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_doubles_are_exact(value: float) -> None:
    """Our integers compute the same doubles as the machine."""
    assert number(repr(value)) == Fraction(value)


@given(st.fractions(min_value=-(10**30), max_value=10**30))
def test_rounding_is_to_the_nearest_double(value: Fraction) -> None:
    """Rounding to 53 bits is what the machine does."""
    assert binary64(value) == Fraction(value.numerator / value.denominator)
