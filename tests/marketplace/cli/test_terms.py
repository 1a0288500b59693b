"""Terms of bids as people read them."""

import pytest

from marketplace.cli.terms import in_words

HOUR = 3_600_000


@pytest.mark.parametrize(
    ("least_ms", "most_ms", "hold", "words"),
    [
        (0, 0, "0", "–"),
        (0, 0, "", "–"),
        (0, 48 * HOUR, "0", "any to 48h"),
        (90 * 60_000, 0, "0", "90min to any"),
        (HOUR, 24 * HOUR, "500000", "1h to 24h, hold 0.500000"),
        (1_500, 0, "1", "1500ms to any, hold 0.000001"),
    ],
)
def test_terms_in_words(least_ms: int, most_ms: int, hold: str, words: str) -> None:
    """Durations stand in the largest unit that is exact, the hold in credits an hour; what is not there is not said."""
    assert in_words(least_ms, most_ms, hold) == words
