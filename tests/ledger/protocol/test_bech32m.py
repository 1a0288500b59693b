"""BIP-350's own vectors for bech32m."""

import pytest

from ledger.protocol import bech32m

VALID = [
    "A1LQFN3A",
    "a1lqfn3a",
    "an83characterlonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11sg7hg6",
    "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx",
    "11llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllludsr8",
    "split1checkupstagehandshakeupstreamerranterredcaperredlc445v",
    "?1v759aa",
]
INVALID = [
    "\x201xj0phk",
    "\x7f1g6xzxy",
    "\x801vctc34",
    "an84characterslonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11d6pts4",
    "qyrz8wqd2c9m",
    "1qyrz8wqd2c9m",
    "y1b0jsk6g",
    "lt1igcx5c0",
    "in1muywd",
    "mm1crxm3i",
    "au1s5cgom",
    "M1VUXWEZ",
    "16plkw9",
    "1p2gdwpf",
]


@pytest.mark.parametrize("text", VALID)
def test_valid(text: str) -> None:
    """Accepted, and written again as it was, in lower case."""
    prefix, words = bech32m.decode_words(text)
    assert text.lower().startswith(prefix + "1")
    assert len(words) == len(text) - len(prefix) - 7


@pytest.mark.parametrize("text", INVALID)
def test_invalid(text: str) -> None:
    """Refused."""
    with pytest.raises(ValueError, match=r"(it|the) "):
        bech32m.decode_words(text)


def test_round_trip() -> None:
    """Every payload comes back; padding that is not zero is refused."""
    for size in range(40):
        payload = bytes(range(7, 7 + size))
        assert bech32m.decode(bech32m.encode("gpu", payload)) == ("gpu", payload)
    with pytest.raises(ValueError, match="padding"):
        bech32m.decode(VALID[4])
