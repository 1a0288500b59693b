"""The embedded engine: one writer thread, a block as soon as there is work, one durable commit each, then the answers.

Transactions are decoded by whoever submits them. The writer hands a batch to the verifying processes, applies the
one before while they work, and so on. Readers see committed state only: they wait while a block is applied and
committed. Any error on that way ends the engine: what is not known to be committed is answered `Indeterminate`.
"""

import contextlib
import gc
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final, Protocol, Self

import structlog

from ledger.engine.checkpoint import Checkpoints, open_machine
from ledger.engine.clock import Clock, SystemClock
from ledger.engine.errors import EngineBusy, Indeterminate
from ledger.engine.export import write_export
from ledger.engine.log import Log, StoredBlock
from ledger.engine.rate import Rate
from ledger.engine.verifying import Verifying
from ledger.machine.machine import Machine
from ledger.machine.module import Module
from ledger.protocol.block import Event, Header, Receipt
from ledger.protocol.errors import Code, Rejected
from ledger.protocol.genesis import Genesis
from ledger.protocol.transaction import Signed

MAX_QUEUE: Final = 20_000
"""Transactions that wait; more are refused with `EngineBusy`."""

MAX_QUEUE_BYTES: Final = 64 * 1024 * 1024
"""The same in bytes: transactions may be large."""

BLOCK_TRANSACTIONS: Final = 1_000
"""Most transactions of a block."""

BLOCK_BYTES: Final = 4 * 1024 * 1024
"""Most bytes of a block's transactions."""

_REPEATS: Final = frozenset({Code.ALREADY_APPLIED, Code.EXPIRED, Code.BAD_SEQUENCE})
"""Refusals that a transaction gets which was applied before: a repeat is answered with its first result."""

_log = structlog.get_logger()


class Promise(Protocol):
    """Where a result goes: the part of a future that the engine uses. All of it is called on the writer's thread, or by
    whoever submits; it must be quick and raise nothing."""

    def set_running_or_notify_cancel(self) -> bool:
        """False where nobody wants the result any more; asked once."""

    def done(self) -> bool:
        """True once there is a result."""

    def set_result(self, receipt: Receipt, /) -> None:
        """The receipt, durable."""

    def set_exception(self, error: BaseException, /) -> None:
        """Why there is none."""


Entry = tuple[Signed, list[Promise]]


class Engine:
    """Orders transactions of one chain. Made by `open`, ended by `close`."""

    def __init__(self, log: Log, machine: Machine, clock: Clock, on_fatal: Callable[[BaseException], None] | None) -> None:
        self._store = log
        self.machine = machine
        self.genesis = machine.genesis
        self._clock = clock
        self._on_fatal = on_fatal
        self._state = threading.RLock()
        self._work = threading.Condition()
        self._queue: deque[tuple[Signed, Promise]] = deque()
        self._queue_bytes = 0
        self._subscribers: list[Callable[[StoredBlock], None]] = []
        self._verifying = Verifying()
        self._checkpoints = Checkpoints(log)
        self._closing = False
        self._head = machine.head
        self._failure: BaseException | None = None
        # The wall clock is read once: afterwards block time follows the monotonic clock, whatever happens to the wall's.
        self._anchor_ms = max(machine.head.time_ms, clock.wall_ms()) - clock.monotonic_ms()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)

    @classmethod
    def open(
        cls,
        url: str,
        genesis: Genesis | None,
        modules: Sequence[Module],
        *,
        clock: Clock | None = None,
        on_fatal: Callable[[BaseException], None] | None = None,
    ) -> Self:
        """Open the chain at `url`, starting it from `genesis` where there is none, and begin to write.

        `url` is `sqlite:///absolute/path` or `postgresql://…`. LedgerLocked, LedgerMissing, WrongChain and
        LedgerDamaged say why not. `on_fatal` is called on the writer's thread when the engine ends by an error.
        """
        if not __debug__:
            raise RuntimeError("the ledger relies on its assertions: start without -O and PYTHONOPTIMIZE")
        log = Log(url)
        try:
            machine = open_machine(log, genesis, modules)
            engine = cls(log, machine, clock or SystemClock(), on_fatal)
        except BaseException:
            log.close()
            raise
        # What was loaded stays: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        # Blocks make many objects that live until their minute is over: looking at them less often saves a tenth.
        gc.set_threshold(50_000, 20, 100)
        engine._thread.start()
        return engine

    @property
    def head(self) -> Header:
        """Header of the newest committed block."""
        return self._head

    def now_ms(self) -> int:
        """Block time as it would be now, in ms."""
        return max(self._head.time_ms, self._anchor_ms + self._clock.monotonic_ms())

    # Transactions in.

    def submit(self, raw: bytes) -> "Future[Receipt]":
        """Take in a signed transaction; its receipt comes when it is durable.

        The future raises Rejected where no block takes it, EngineBusy where the queue is full, Indeterminate where
        the engine ended first. A repeat gets the first result.
        """
        return self.submit_many([raw])[0]

    def submit_many(self, raws: Sequence[bytes]) -> "list[Future[Receipt]]":
        """Take in several; each has a future of its own, as from `submit`."""
        futures: list[Future[Receipt]] = [Future() for _ in raws]
        self.submit_to(raws, futures)
        return futures

    def submit_to(self, raws: Sequence[bytes], promises: Sequence[Promise]) -> None:
        """Take in several whose results go to promises of the caller's own, which may cost less than futures."""
        taken: list[tuple[Signed, Promise]] = []
        for raw, promise in zip(raws, promises, strict=True):
            try:
                taken.append((self.machine.codec.decode(raw), promise))
            except Rejected as refusal:
                promise.set_exception(refusal)
        with self._work:
            if self._failure is not None or self._closing:
                error: Exception | None = Indeterminate("the ledger has stopped")
            elif len(self._queue) + len(taken) > MAX_QUEUE or self._queue_bytes > MAX_QUEUE_BYTES:
                error = EngineBusy(f"{len(self._queue)} transactions wait")
            else:
                error = None
                self._queue.extend(taken)
                self._queue_bytes += sum(len(signed.raw) for signed, _ in taken)
                self._work.notify()
        if error is not None:
            for _, promise in taken:
                promise.set_exception(error)

    # The writer.

    def _run(self) -> None:
        try:
            self._write()
        except BaseException as error:
            self._fail(error)
        finally:
            self._verifying.close()

    def _write(self) -> None:
        pending: list[Entry] = []
        while True:
            batch = self._take(wait=not pending)
            if batch is None and not pending:
                return
            fresh = self._fresh(batch or [])
            try:
                self._verifying.begin([signed for signed, _ in fresh])
                if pending or (not fresh and self._is_due()):
                    self._block(pending)
                pending = self._good(fresh, self._verifying.finish())
                if pending and not self._queue:
                    # Nothing to overlap with: a lone transaction must not wait for another.
                    self._block(pending)
                    pending = []
            except BaseException:
                for _, futures in (*pending, *fresh):
                    _refuse(futures, Indeterminate("the ledger stopped before the result was known"))
                raise

    def _take(self, *, wait: bool) -> list[tuple[Signed, Promise]] | None:
        """The next transactions; empty when something falls due or there is no need to wait; None at the end."""
        with self._work:
            while wait and not self._queue and not self._closing:
                pause = self._pause_s()
                if pause is not None and pause <= 0:
                    return []
                self._work.wait(pause)
            if not self._queue and self._closing:
                return None
            taken: list[tuple[Signed, Promise]] = []
            size = 0
            while self._queue and len(taken) < BLOCK_TRANSACTIONS and size < BLOCK_BYTES:
                entry = self._queue.popleft()
                size += len(entry[0].raw)
                # From here on a future cannot be cancelled: its answer will be set, by this thread alone.
                if entry[1].set_running_or_notify_cancel():
                    taken.append(entry)
            self._queue_bytes -= size
            return taken

    def _pause_s(self) -> float | None:
        due = self.machine.next_due()
        # A second at most: the condition's clock stands still while the machine sleeps, ours does not.
        return None if due is None else min((due - self.now_ms()) / 1000, 1.0)

    def _is_due(self) -> bool:
        due = self.machine.next_due()
        return due is not None and due <= self.now_ms()

    def _fresh(self, batch: Sequence[tuple[Signed, Promise]]) -> list[Entry]:
        """One entry a transaction id: two requests with the same transaction share a result."""
        entries: dict[tuple[str, bytes], Entry] = {}
        for signed, future in batch:
            entries.setdefault((signed.id, signed.signature), (signed, []))[1].append(future)
        return list(entries.values())

    def _good(self, entries: Sequence[Entry], verdicts: Sequence[bool]) -> list[Entry]:
        good = []
        for entry, verdict in zip(entries, verdicts, strict=True):
            if verdict:
                good.append(entry)
            else:
                _refuse(entry[1], Rejected(Code.BAD_SIGNATURE, "the signature does not match"))
        return good

    def _block(self, entries: Sequence[Entry]) -> None:
        """Apply and commit one block of verified transactions, then answer. What no block would take is answered first."""
        with self._state:
            try:
                found = self._apply(entries)
            except BaseException as error:
                # Before the lock is given up: nobody may read a state that is not committed.
                self._failure = error
                raise
        if found is None:
            return
        chosen, stored = found
        receipts = stored.result.receipts
        for (_, futures), receipt in zip(chosen, receipts, strict=True):
            for future in futures:
                future.set_result(receipt)
        for subscriber in list(self._subscribers):
            try:
                subscriber(stored)
            except Exception:
                _log.exception("a subscriber failed", height=stored.header.height)
        self._checkpoints.after_block(self.machine, len(stored.raws))

    def _apply(self, entries: Sequence[Entry]) -> tuple[list[Entry], StoredBlock] | None:
        """Choose, apply and commit; None where there is nothing to do."""
        time_ms = max(self._head.time_ms + 1, self.now_ms())
        chosen: dict[str, Entry] = {}
        rate = Rate(self.machine, time_ms)
        for signed, futures in entries:
            if signed.id in chosen:
                chosen[signed.id][1].extend(futures)
                continue
            try:
                self.machine.check(signed, time_ms)
                rate.take(signed.transaction.principal)
            except Rejected as refusal:
                self._refused(signed, futures, refusal)
            else:
                chosen[signed.id] = (signed, futures)
        if not chosen and not self._is_due():
            return None
        result = self.machine.apply_block(time_ms, [signed for signed, _ in chosen.values()], verified=True)
        stored = StoredBlock(raws=[signed.raw for signed, _ in chosen.values()], result=result)
        self._store.append(stored)
        self._head = result.header
        return list(chosen.values()), stored

    def _refused(self, signed: Signed, futures: Sequence[Promise], refusal: Rejected) -> None:
        """Answer what no block takes; a repeat gets the first result, also when it has expired meanwhile."""
        if refusal.code in _REPEATS:
            first = self.machine.receipt_of(signed.id) or self._store.receipt(signed.id)
            if first is not None:
                for future in futures:
                    future.set_result(first)
                return
        _refuse(futures, refusal)

    def _fail(self, error: BaseException) -> None:
        """The engine is over: nobody is left waiting, and the owner is told."""
        _log.error("the ledger stops", error=repr(error), height=self._head.height)
        with self._work:
            self._failure = error
            left = list(self._queue)
            self._queue.clear()
        for _, future in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(Indeterminate("the ledger has stopped"))
        if self._on_fatal is not None:
            self._on_fatal(error)

    # Readers.

    @contextlib.contextmanager
    def read(self) -> Iterator[Machine]:
        """Committed state, which does not change meanwhile; hold it briefly. Indeterminate when the engine has failed."""
        with self._state:
            if self._failure is not None:
                raise Indeterminate("the ledger has stopped")
            yield self.machine

    def block(self, height: int) -> StoredBlock | None:
        """A committed block, or None."""
        return self._store.block(height) if 0 < height <= self.head.height else None

    def blocks(self, first: int, limit: int) -> list[StoredBlock]:
        """Committed blocks from height `first` on, at most `limit`."""
        return self._store.blocks(first, max(0, min(limit, self.head.height - first + 1)))

    def receipt(self, tx_id: str) -> Receipt | None:
        """The first result of a transaction, however old."""
        with self._state:
            # After a failure memory may hold a block that was not committed; the log does not.
            found = self.machine.receipt_of(tx_id) if self._failure is None else None
        return found or self._store.receipt(tx_id)

    def events(self, height: int) -> list[Event]:
        """Events of a block in order; positions are the indexes of `height:index` ids."""
        found = self.block(height)
        return found.result.events() if found else []

    def subscribe(self, callback: Callable[[StoredBlock], None]) -> Callable[[], None]:
        """Call `callback` with each block after its commit, on the writer's thread; returns what ends that."""
        self._subscribers.append(callback)

        def end() -> None:
            with contextlib.suppress(ValueError):
                self._subscribers.remove(callback)

        return end

    def export(self, path: Path) -> None:
        """Write genesis and every block to a file that `ledger.engine.export.verify_export` replays."""
        write_export(self._store, self.genesis, self.head.height, path)

    def close(self) -> None:
        """Write what is queued, keep a checkpoint, end; harmless when repeated."""
        with self._work:
            if self._closing:
                return
            self._closing = True
            self._work.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._checkpoints.close(None if self._failure is not None else self.machine)
        self._store.close()


def _refuse(futures: Sequence[Promise], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
