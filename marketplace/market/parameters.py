"""The market's parameters: name -> (default, lowest, highest). Times in ms, money in micro-units of whatever a bid takes."""

from types import MappingProxyType
from typing import Final

PARAMETERS: Final = MappingProxyType(
    {
        "activation_ms": (180_000, 1_000, 86_400_000),
        "bond_cooling_ms": (86_400_000, 0, 90 * 86_400_000),
        "bond_cut_activation": (0, 0, 10**15),
        "bond_cut_early": (0, 0, 10**15),
        "bond_cut_silence": (0, 0, 10**15),
        "bond_minimum": (0, 0, 10**15),
        "manifest_ms": (60_000, 1_000, 86_400_000),
        "match_tests_per_block": (50_000, 1, 10**9),
        "max_deployments": (1_000, 1, 10**6),
        "max_hosts": (1_000, 1, 10**6),
        "min_funding_ms": (60_000, 0, 86_400_000),
        "pull_free_ms": (120_000, 0, 86_400_000),
        "pull_most_ms": (1_800_000, 1_000, 86_400_000),
        "silence_close_ms": (600_000, 1_000, 86_400_000),
        "silence_ms": (150_000, 1_000, 86_400_000),
    }
)
"""What each one is stands in the package's README."""

PARAMETERS_SINCE: Final = MappingProxyType({"pull_free_ms": 2, "pull_most_ms": 2})
"""Which of them older protocols do not know."""
