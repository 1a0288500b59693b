"""Broken transactions of every kind meet numbered refusals, and leave a state in which everything holds."""

from tests.acceptance.fuzz import Fuzzer
from tests.acceptance.replaying import recorded


def test_broken_transactions_are_refused_or_right() -> None:
    """Of 4,000 broken transactions some are still good, the others are refused with many codes; all invariants hold."""
    seed = 7
    print(f"seed {seed}")
    fuzzer = Fuzzer(recorded(seed=seed, blocks=60), seed)
    fuzzer.run(4_000)
    assert fuzzer.codes["0"] > 100
    assert fuzzer.codes["MALFORMED"] > 500
    assert len(fuzzer.codes) > 20, fuzzer.codes
