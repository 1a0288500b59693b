"""Keeps what runs equal to what is wanted: asks ledger and engine, plans, and hands actions to threads.

One thread plans; it wakes on events and at deadlines, and every few seconds anyway. A manifest wakes it for its lease
alone, with what is known already, so that nothing is polled between the manifest and the container.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog

from marketplace.protocol.records import LeaseState
from provider.leases.executor import Executor
from provider.leases.journal import Journal
from provider.leases.ledger import Ledger, LedgerUnreachable
from provider.leases.model import Action, Entry, Note, Phase, Wait, Wanted
from provider.leases.plan import Policy, plan
from provider.runtime.port import Container, Runtime, Unknown

TICK_S: Final = 5.0
"""Everything is looked at this often, events or not."""

IDLE_LOOK_S: Final = 30.0
"""How often the engine is asked when the journal has no lease."""

WORKERS: Final = 16

STOP_S: Final = 5.0
"""How long actions under way are waited for at the end; any of them may be repeated by the next daemon."""

log = structlog.get_logger("provider.leases")


class Supervisor:
    """`lost` gives ids of leased devices that the host has no more; `on_fatal` is called when the journal fails."""

    def __init__(
        self,
        runtime: Runtime,
        journal: Journal,
        ledger: Ledger,
        executor: Executor,
        *,
        lost: Callable[[], frozenset[str]] = frozenset,
        on_fatal: Callable[[BaseException], None] | None = None,
        policy: Policy = Policy(),  # noqa: B008  (frozen)
        tick_s: float = TICK_S,
    ) -> None:
        self.runtime = runtime
        self.journal = journal
        self.ledger = ledger
        self.executor = executor
        self.policy = policy
        self._lost = lost
        self._on_fatal = on_fatal
        self._tick_s = tick_s
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="lease")
        self._changed = threading.Condition()
        self._busy: set[str] = set()
        self._woken: set[str] = set()
        self._all = True
        self._ask_ledger = True
        self._waits: dict[str, float] = {}
        """Lease → when, on the monotonic clock, it is to be looked at again."""
        self._stopping = False
        self._last_look = float("-inf")
        self._last_idle = float("-inf")
        """When the engine was last asked about everything."""
        self._done_at: dict[str, int] = {}
        """Lease → monotonic ns of the end of its last action: older answers about it are not believed."""
        self._thread = threading.Thread(target=self._loop, name="reconcile", daemon=True)
        self.passes = 0
        self.started = False
        self.engine_answers = True
        """False while the container engine does not answer: no new lease could be started."""

    def start(self) -> None:
        """Begin."""
        self.started = True
        self._thread.start()

    def stop(self, patience_s: float = STOP_S) -> bool:
        """End; leases are left as they are. False where an action is still under way after `patience_s`: it may be cut off."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            drained = self._changed.wait_for(lambda: not self._busy, patience_s)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(patience_s)
        drained = drained and not self._thread.is_alive()
        self._pool.shutdown(wait=drained, cancel_futures=True)
        self.executor.close(wait=drained)
        return drained

    def wake(self, lease: str = "", *, ask_ledger: bool = False) -> None:
        """Look at one lease, or at all, now; with `ask_ledger` ask the ledger again first."""
        with self._changed:
            if lease:
                self._woken.add(lease)
            else:
                self._all = True
            self._ask_ledger |= ask_ledger
            self._changed.notify_all()

    def _loop(self) -> None:
        try:
            while True:
                with self._changed:
                    if self._stopping:
                        return
                    if not (self._all or self._ask_ledger or self._woken):
                        self._changed.wait(self._pause())
                    if self._stopping:
                        return
                    now = time.monotonic()
                    due = {lease for lease, at in self._waits.items() if at <= now}
                    for lease in due:
                        del self._waits[lease]
                    leases = self._woken | due
                    everything = self._all or self._ask_ledger or now - self._last_look >= self._tick_s
                    self._woken, self._all, self._ask_ledger = set(), False, False
                if everything:
                    self.look()
                else:
                    for lease in sorted(leases):
                        self._look_at(lease)
        except BaseException as error:
            if self._on_fatal is None:
                raise
            self._on_fatal(error)

    def _pause(self) -> float:
        now = time.monotonic()
        until = min([self._last_look + self._tick_s, *self._waits.values()])
        return max(0.0, min(until - now, self._tick_s))

    def look(self) -> None:
        """One pass over everything: ask the ledger, ask the engine, plan for each lease."""
        began = time.monotonic()
        self._last_look = began
        self._take_wanted()
        if not self.journal.entries() and self.passes and began - self._last_idle < IDLE_LOOK_S:
            self.passes += 1
            return
        self._last_idle = began
        try:
            containers = self.runtime.containers()
            present = self.runtime.leases()
        except Unknown as error:
            self.engine_answers = False
            log.warning("the container engine does not answer; nothing is changed", why=str(error))
            return
        self.engine_answers = True
        for lease in sorted(present - self.journal.entries().keys()):
            self._meet(lease)
        for lease, entry in self.journal.entries().items():
            mine = tuple(c for c in containers if c.lease == lease)
            self._plan(entry, mine, lease in present)
        self.passes += 1

    def _look_at(self, lease: str) -> None:
        """One lease, with what is known of the ledger already."""
        entry = self.journal.get(lease)
        if entry is None:
            return
        try:
            containers = self.runtime.containers(lease)
            # Networks and volumes matter only where a lease is to vanish.
            gone = entry.wanted.state is LeaseState.CLOSED or entry.missing_since_ms
            present = bool(containers) or (lease in self.runtime.leases() if gone else True)
        except Unknown as error:
            log.warning("the container engine does not answer; nothing is changed", lease=lease, why=str(error))
            self._wait(lease, self._tick_s)
            return
        self._plan(entry, containers, present)

    def _take_wanted(self) -> None:
        """What the ledger wants now; without an answer all stays as it was."""
        asked_ns = time.monotonic_ns()
        try:
            found = {wanted.lease: wanted for wanted in self.ledger.unreleased()}
            for lease, wanted in found.items():
                self._update(lease, wanted, asked_ns)
            for lease, entry in self.journal.entries().items():
                if lease in found or (entry.wanted.state is LeaseState.CLOSED and entry.wanted.released):
                    continue  # of one that is over and released there is no news
                self._update(lease, self.ledger.lease(lease), asked_ns)
        except LedgerUnreachable as error:
            log.warning("the ledger does not answer; leases run on as long as they are paid", why=str(error))

    def _update(self, lease: str, wanted: Wanted | None, asked_ns: int) -> None:
        with self._changed:
            if lease in self._busy or self._done_at.get(lease, 0) > asked_ns:
                return  # the answer is older than what we did since
        entry = self.journal.get(lease)
        now_ms = self.ledger.now_ms()
        if wanted is None:
            if entry is not None and not entry.missing_since_ms:
                self.journal.change(lease, missing_since_ms=now_ms)
        elif entry is None:
            self.journal.add(Entry(lease=lease, wanted=wanted, first_seen_ms=now_ms))
        elif entry.wanted != wanted or entry.missing_since_ms:
            fresh = entry.wanted.generation != wanted.generation
            # A new generation starts with a clean slate; the manifest is the one that is here.
            extra: dict[str, Any] = {"failures": 0, "next_try_ms": 0, "first_seen_ms": now_ms} if fresh else {}
            self.journal.change(lease, wanted=wanted, missing_since_ms=0, **extra)

    def _meet(self, lease: str) -> None:
        """Something of ours is on the host whose lease is not in the journal."""
        try:
            wanted = self.ledger.lease(lease)
        except LedgerUnreachable:
            return
        now_ms = self.ledger.now_ms()
        if wanted is None:
            wanted = Wanted(lease=lease, state=LeaseState.CLOSED, generation=0, host="", released=True, reason="unknown")
            self.journal.add(Entry(lease=lease, wanted=wanted, first_seen_ms=now_ms, missing_since_ms=now_ms))
        else:
            self.journal.add(Entry(lease=lease, wanted=wanted, first_seen_ms=now_ms))

    def _plan(self, entry: Entry, containers: tuple[Container, ...], present: bool) -> None:
        lease = entry.lease
        with self._changed:
            if lease in self._busy or self._stopping:
                return
            self._waits.pop(lease, None)
        current = self.journal.get(lease)
        if current is not entry:
            self.wake(lease)  # it changed since the engine was asked
            return
        now_ms = self.ledger.now_ms()
        for action in plan(entry, containers, present, now_ms, self._lost(), self.policy):
            match action:
                case Note(changes=changes):
                    self.journal.change(lease, durable=changes.keys() != {"phase"}, **changes)
                    if "started_spec" in changes:
                        self.wake(lease)
                case Wait(until_ms=until_ms):
                    self._wait(lease, max(until_ms - now_ms, 1) / 1000)
                case _:
                    self._begin(action)

    def _wait(self, lease: str, seconds: float) -> None:
        with self._changed:
            self._waits[lease] = time.monotonic() + seconds
            self._changed.notify_all()

    def _begin(self, action: Action) -> None:
        with self._changed:
            if self._stopping:
                return
            self._busy.add(action.lease)
        self._pool.submit(self._run, action)

    def _run(self, action: Action) -> None:
        try:
            self.executor.run(action)
        except BaseException as error:
            log.error("an action failed", lease=action.lease, action=type(action).__name__, error=repr(error))
            if self._on_fatal is not None:
                self._on_fatal(error)
        finally:
            with self._changed:
                self._busy.discard(action.lease)
                self._changed.notify_all()
                self._done_at[action.lease] = time.monotonic_ns()
                if self.journal.get(action.lease) is None:
                    self._done_at.pop(action.lease, None)
            self.wake(action.lease)

    def entry(self, lease: str) -> Entry | None:
        """What the journal says of a lease, asking the ledger where it is not there yet."""
        found = self.journal.get(lease)
        if found is not None:
            return found
        wanted = self.ledger.lease(lease)
        if wanted is None:
            return None
        phase = Phase.CLOSED if wanted.state is LeaseState.CLOSED else Phase.WAITING_MANIFEST
        return self.journal.add(Entry(lease=lease, wanted=wanted, first_seen_ms=self.ledger.now_ms(), phase=phase))
