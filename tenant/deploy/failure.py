"""What can go wrong between a file and a running lease; each says what exists and how to go on."""


class DeployFailed(Exception):
    """A step failed; `fix` says how to go on."""

    exit_code = 1

    def __init__(self, message: str, *, fix: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.fix = fix
        self.exit_code = exit_code


class NoMatch(DeployFailed):
    """No bid fits yet: how many failed which test, and the nearest miss."""

    def __init__(self, dseq: int, orders: list[dict[str, object]]) -> None:
        reasons = []
        for order in orders:
            refusals = order.get("refusals")
            counts = ", ".join(f"{name}: {n}" for name, n in refusals.items()) if isinstance(refusals, dict) else ""
            group = order.get("group")
            name = group.get("name", "?") if isinstance(group, dict) else "?"
            if order.get("state") == "closed":
                reasons.append(f"group {name} was closed: {order.get('reason')}")
            else:
                nearest = order.get("nearest") or "there is no bid yet"
                reasons.append(f"group {name} waits: {nearest}" + (f" (bids refused by test: {counts})" if counts else ""))
        fix = f"it goes on waiting; gpubid lease manifest {dseq} once it has a lease, or gpubid lease close {dseq}"
        super().__init__(f"deployment {dseq} has no lease yet: " + "; ".join(reasons), fix=fix, exit_code=6)


class NotRunning(DeployFailed):
    """The lease exists but its containers do not run."""
