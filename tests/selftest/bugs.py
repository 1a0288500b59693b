"""All planted bugs by name."""

from tests.selftest.bug import Bug


def all_bugs() -> dict[str, Bug]:
    """Every bug of every package, names unique."""
    from tests.selftest import ledger_bugs, market_bugs, receipt_bugs

    found: dict[str, Bug] = {}
    for module in (ledger_bugs, market_bugs, receipt_bugs):
        for name, bug in module.BUGS.items():
            assert name not in found, name
            found[name] = bug
    return found
