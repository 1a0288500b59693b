"""All planted bugs by name."""

import os

import pytest

from tests.selftest.bug import Bug


def all_bugs() -> dict[str, Bug]:
    """Every bug of every package, names unique."""
    from tests.selftest import engine_bugs, ledger_bugs, market_bugs, receipt_bugs

    found: dict[str, Bug] = {}
    for module in (engine_bugs, ledger_bugs, market_bugs, receipt_bugs):
        for name, bug in module.BUGS.items():
            assert name not in found, name
            found[name] = bug
    return found


def plant_if_asked() -> None:
    """Plant the bug that GPUBID_TEST_PLANT names in this process: for processes that a test starts."""
    name = os.environ.get("GPUBID_TEST_PLANT")
    if name:
        all_bugs()[name].plant(pytest.MonkeyPatch())
