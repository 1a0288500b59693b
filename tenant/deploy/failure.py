"""What can go wrong between a file and a running lease; each says what exists and how to go on."""

from typing import Any


class DeployFailed(Exception):
    """A step failed; `fix` says how to go on."""

    exit_code = 1

    def __init__(self, message: str, *, fix: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.fix = fix
        self.exit_code = exit_code


class NoMatch(DeployFailed):
    """A group has no lease: how many bids failed which test and the nearest miss, or why its order was closed."""

    def __init__(self, dseq: int, orders: list[dict[str, Any]]) -> None:
        waits = all(order["state"] != "closed" for order in orders)
        goes_on = f"it goes on waiting: gpubid lease manifest {dseq} once it has a lease, or gpubid lease close {dseq}"
        super().__init__(
            f"deployment {dseq} has no lease{' yet' if waits else ''}: " + "; ".join(_words(order) for order in orders),
            fix=goes_on if waits else f"gpubid lease close {dseq} ends it and refunds the rest; then deploy again",
            exit_code=6 if waits else 1,
        )


def _words(order: dict[str, Any]) -> str:
    name = order["group"]["name"]
    if order["state"] == "closed":
        return f"group {name} was closed: {order['reason']}"
    counts = ", ".join(f"{test}: {number}" for test, number in sorted(order["refusals"].items()))
    return f"group {name} waits: {order['nearest'] or 'no bid was looked at yet'}" + (
        f" (bids refused by test: {counts})" if counts else ""
    )


class NotRunning(DeployFailed):
    """The lease exists but its containers do not run."""
