"""What to do next for a lease: a pure function of what is wanted, what was done, and what runs.

Level-triggered: it is asked again after each action and on every event, and remembers nothing by itself. At most one
action with an effect comes out; `Note` and `Wait` may stand beside it. Who calls it must not do so while the engine is
unreadable: unknown means change nothing.
"""

import msgspec

from marketplace.protocol.records import LeaseState
from provider.leases.model import (
    OPEN,
    Action,
    Close,
    Entry,
    Forget,
    Note,
    Phase,
    Remove,
    RemoveStale,
    Report,
    Slot,
    Start,
    Stop,
    Wait,
    Wanted,
    slot_of,
)
from provider.runtime.port import Container


class Policy(msgspec.Struct, frozen=True):
    """Times in ms and counts that the plan goes by."""

    manifest_ms: int = 60_000
    """A lease whose manifest does not come in this time is closed."""
    pull_report_ms: int = 2_000
    """A pull that lasts longer is reported, once a generation: the lease then has longer to start."""
    settle_ms: int = 300
    """Containers must run for this long before the lease is reported active."""
    start_failures: int = 5
    """Failed starts in a row, before the lease was ever active, after which it is closed."""
    image_failures: int = 3
    """The same for an image that cannot be had."""
    backoff_ms: int = 1_000
    """Wait before the first restart; it doubles with each."""
    backoff_most_ms: int = 60_000
    stable_ms: int = 600_000
    """Containers that ran this long start counting anew."""
    orphan_ms: int = 300_000
    remember_ms: int = 900_000
    """How long after it was first seen a lease that failed is remembered, so that its tenant can read why."""
    """Grace for containers with our label whose lease the ledger does not know."""


def backoff_ms(failures: int, policy: Policy) -> int:
    """Wait before the next try after `failures` in a row."""
    return int(min(policy.backoff_most_ms, policy.backoff_ms * 2 ** min(max(failures - 1, 0), 20)))


def is_dry(wanted: Wanted, now_ms: int) -> bool:
    """True where the purse has run out by our own clock, whether or not the ledger can be asked."""
    return wanted.funded_until_ms is not None and wanted.funded_until_ms <= now_ms


def plan(
    entry: Entry,
    containers: tuple[Container, ...],
    present: bool,
    now_ms: int,
    lost: frozenset[str] = frozenset(),
    policy: Policy = Policy(),  # noqa: B008  (frozen)
) -> tuple[Action, ...]:
    """What to do for one lease.

    `containers` are all of this lease in every state, `present` says whether anything of it (network and volumes too)
    is on the host, `lost` are ids of devices that the host has no more, `now_ms` is block time by our own estimate.
    """
    wanted = entry.wanted
    if entry.missing_since_ms:
        return _orphan(entry, present, now_ms, policy)
    if wanted.state is LeaseState.CLOSED:
        return _closed(entry, present, now_ms, policy)
    if wanted.state not in OPEN or is_dry(wanted, now_ms):
        return _unpaid(entry, containers, now_ms)
    if any(c.generation > wanted.generation for c in containers):
        return ()  # what the ledger said last is older than what we did: wait for news
    if any(c.generation != wanted.generation for c in containers):
        return _when_due(entry, now_ms, RemoveStale(entry.lease, wanted.generation))
    if not entry.spec:
        return _without_manifest(entry, containers, now_ms, policy)
    if any(c.spec_hash != entry.spec for c in containers):
        return _when_due(entry, now_ms, RemoveStale(entry.lease, 0))
    if lost.intersection(wanted.devices):
        return _device_lost(entry, now_ms)
    running = {slot_of(c) for c in containers if c.state == "running"}
    if _was_started(entry) and running.issuperset(entry.slots):
        return _running(entry, now_ms, policy)
    return _not_running(entry, containers, now_ms, policy)


def _was_started(entry: Entry) -> bool:
    return bool(entry.spec) and (entry.started_generation, entry.started_spec) == (entry.wanted.generation, entry.spec)


def _when_due(entry: Entry, now_ms: int, action: Action) -> tuple[Action, ...]:
    """The action, or the wait until it may be tried again."""
    return (Wait(entry.lease, entry.next_try_ms),) if now_ms < entry.next_try_ms else (action,)


def _noted(entry: Entry, **changes: object) -> tuple[Action, ...]:
    """A note of what differs from the entry; nothing where nothing does."""
    fresh = {name: value for name, value in changes.items() if getattr(entry, name) != value}
    return (Note(entry.lease, fresh),) if fresh else ()


def _orphan(entry: Entry, present: bool, now_ms: int, policy: Policy) -> tuple[Action, ...]:
    if not present:
        return (Forget(entry.lease),)
    due_ms = entry.missing_since_ms + policy.orphan_ms
    if now_ms < due_ms:
        return (Wait(entry.lease, due_ms),)
    return _when_due(entry, now_ms, Remove(entry.lease, "the ledger knows no such lease"))


def _closed(entry: Entry, present: bool, now_ms: int, policy: Policy) -> tuple[Action, ...]:
    noted = _noted(entry, phase=Phase.CLOSED)
    if present:
        return noted + _when_due(entry, now_ms, Remove(entry.lease, f"closed: {entry.wanted.reason}"))
    if not entry.wanted.released:
        return noted + _when_due(entry, now_ms, Report(entry.lease, entry.wanted.generation, "release"))
    if entry.error and now_ms < entry.first_seen_ms + policy.remember_ms:
        return (*noted, Wait(entry.lease, entry.first_seen_ms + policy.remember_ms))
    return (Forget(entry.lease),)


def _unpaid(entry: Entry, containers: tuple[Container, ...], now_ms: int) -> tuple[Action, ...]:
    noted = _noted(entry, phase=Phase.STOPPED, error="the purse is dry: deposit to go on", failures=0, started_spec="")
    if any(c.state == "running" for c in containers):
        return noted + _when_due(entry, now_ms, Stop(entry.lease, "the purse is dry"))
    return noted


def _without_manifest(entry: Entry, containers: tuple[Container, ...], now_ms: int, policy: Policy) -> tuple[Action, ...]:
    """No manifest (yet): wait for it a while. Containers that run without one, its journal lost, are left to run."""
    wanted = entry.wanted
    if any(c.state == "running" for c in containers):
        return _noted(entry, phase=Phase.RUNNING)
    noted = _noted(entry, phase=Phase.WAITING_MANIFEST)
    due_ms = max(entry.first_seen_ms + policy.manifest_ms, entry.next_try_ms)
    if now_ms < due_ms:
        return (*noted, Wait(entry.lease, due_ms))
    if wanted.state is LeaseState.MATCHED:
        return (*noted, Close(entry.lease, wanted.generation, "manifest_missing", "no manifest came"))
    return (*noted, Close(entry.lease, wanted.generation, "host_failed", "its manifest is not on the host any more"))


def _device_lost(entry: Entry, now_ms: int) -> tuple[Action, ...]:
    noted = _noted(entry, phase=Phase.FAILED, error="the host lost a device of this lease")
    if entry.wanted.state is LeaseState.ACTIVE:
        return noted + _when_due(entry, now_ms, Report(entry.lease, entry.wanted.generation, "down", "device_lost"))
    return noted


def _running(entry: Entry, now_ms: int, policy: Policy) -> tuple[Action, ...]:
    wanted = entry.wanted
    noted = _noted(entry, phase=Phase.RUNNING, error="")
    if wanted.state is LeaseState.ACTIVE:
        if entry.failures and now_ms - entry.started_ms >= policy.stable_ms:
            return _noted(entry, phase=Phase.RUNNING, error="", failures=0)
        return noted
    settled_ms = entry.started_ms + policy.settle_ms
    if wanted.state is LeaseState.MATCHED and now_ms < settled_ms:
        return (*noted, Wait(entry.lease, settled_ms))
    kind = "active" if wanted.state is LeaseState.MATCHED else "up"
    return noted + _when_due(entry, now_ms, Report(entry.lease, wanted.generation, kind))


def _not_running(entry: Entry, containers: tuple[Container, ...], now_ms: int, policy: Policy) -> tuple[Action, ...]:
    wanted = entry.wanted
    if not _was_started(entry):
        if _hopeless(entry, policy):
            return _when_due(entry, now_ms, Close(entry.lease, wanted.generation, entry.failure_kind, entry.error))
        noted = _noted(entry, phase=Phase.STARTING if entry.failures else Phase.PREPARING)
        if now_ms < entry.next_try_ms:
            return (*noted, Wait(entry.lease, entry.next_try_ms))
        return (*noted, Start(entry.lease, wanted.generation, entry.spec))
    ended = sorted((c for c in containers if c.state != "running" and slot_of(c) in entry.slots), key=slot_of)
    filled: set[Slot] = {slot_of(c) for c in containers}
    if not ended:
        # Containers that ran are gone without a trace: not their own doing, so the meter stops until they are back.
        assert not filled.issuperset(entry.slots), "all slots are filled and none ended, yet not all run"
        if wanted.state is LeaseState.ACTIVE:
            return _when_due(entry, now_ms, Report(entry.lease, wanted.generation, "down", "host_stop"))
        return (Start(entry.lease, wanted.generation, entry.spec),)
    failures = 1 if now_ms - entry.started_ms >= policy.stable_ms else entry.failures + 1
    # Written once: an unset `started_spec` says that this end is counted and a start is due.
    return _noted(
        entry,
        failures=failures,
        failure_kind="start_failed",
        next_try_ms=now_ms + backoff_ms(failures, policy),
        started_spec="",
        phase=Phase.STARTING,
        error=_how_ended(ended[0]),
    )


def _hopeless(entry: Entry, policy: Policy) -> bool:
    """True where a lease that was never active has failed to start often enough."""
    if entry.wanted.state is not LeaseState.MATCHED:
        return False
    limit = policy.image_failures if entry.failure_kind == "image_failed" else policy.start_failures
    return entry.failures >= limit


def _how_ended(container: Container) -> str:
    how = "ran out of memory" if container.oom_killed else f"exited with {container.exit_code}"
    return f"{container.service}/{container.replica} {how}"
