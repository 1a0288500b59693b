"""The embedded engine: one writer thread, a block as soon as there is work, one durable commit each, then the answers.

The writer hands batches to the verifying processes, a few ahead of the one that it applies, and checks signatures
itself where it would wait for them. A transaction is decoded right before it is applied: thousands of them, decoded
ahead, would have to come back from slow memory. Readers see committed state only: they wait while a block is applied
and committed. Any error on that way ends the engine: what is not known to be committed is answered `Indeterminate`.
"""

import contextlib
import gc
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final, Self

import structlog

from ledger.engine.asked import Asked, Done, Outcome
from ledger.engine.checkpoint import Checkpoints, open_machine
from ledger.engine.clock import BlockTime, Clock, SystemClock
from ledger.engine.errors import EngineBusy, Indeterminate
from ledger.engine.export import write_export
from ledger.engine.log import Log, StoredBlock
from ledger.engine.repeats import Repeats
from ledger.engine.verifier import NOT_GOOD
from ledger.engine.verifying import Verifying
from ledger.machine.machine import Machine, check_protocol
from ledger.machine.module import Module
from ledger.protocol.block import Event, Header, Receipt
from ledger.protocol.errors import Code, Rejected
from ledger.protocol.genesis import Genesis
from ledger.protocol.transaction import MAX_BYTES, Signed

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

UNDER_WAY: Final = 3
"""Batches that the verifying processes have at a time: one done, one at work, one waiting keeps them and the writer busy."""

Entry = tuple[bytes, Asked, int]
"""A signed transaction as it came, who asked for it, and its place among what they asked for."""


class Engine:
    """Orders transactions of one chain. Made by `open`, ended by `close`."""

    def __init__(self, log: Log, machine: Machine, clock: Clock, on_fatal: Callable[[BaseException], None] | None) -> None:
        self._store = log
        self.machine = machine
        self.genesis = machine.genesis
        self._on_fatal = on_fatal
        self._state = threading.RLock()
        self._work = threading.Condition()
        self._queue: deque[Entry] = deque()
        self._queue_bytes = 0
        self._subscribers: list[Callable[[StoredBlock], None]] = []
        self._verifying = Verifying(depth=UNDER_WAY, most_bytes=BLOCK_BYTES + MAX_BYTES)
        self._repeats = Repeats(log.receipt)
        self._checkpoints = Checkpoints(log, machine)
        self.first_height = max(1, log.first_height())
        """Height of the oldest block there is: more than 1 where the log began with a snapshot."""
        self._closing = False
        self._head = machine.head
        self.planned_upgrade = machine.planned_upgrade()
        """(height, protocol) of an upgrade that is planned as of the newest committed block; None without."""
        self._failure: BaseException | None = None
        self._time = BlockTime(clock, machine.head.time_ms)
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
        LedgerDamaged say why not, UpgradeRequired that the newest block or the next follows newer rules than are known.
        `on_fatal` is called on the writer's thread when the engine ends by an error.
        """
        if not __debug__:
            raise RuntimeError("the ledger relies on its assertions: start without -O and PYTHONOPTIMIZE")
        log = Log(url)
        try:
            newest = log.block(log.height())
            if newest is not None:
                check_protocol(newest.header.protocol, newest.header.height)
            machine = open_machine(log, genesis, modules)
            # Better now than in the middle of the next block.
            check_protocol(machine.protocol_ahead, machine.head.height + 1)
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
        return max(self._head.time_ms, self._time.now_ms())

    def wall_ahead_ms(self) -> int:
        """How far the wall clock is ahead of block time; negative where it is behind."""
        return self._time.wall_ahead_ms()

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
        for future in futures:
            future.set_running_or_notify_cancel()  # its answer will come: nobody can cancel it

        def done(outcomes: list[tuple[int, Outcome]]) -> None:
            for place, outcome in outcomes:
                if isinstance(outcome, Exception):
                    futures[place].set_exception(outcome)
                else:
                    futures[place].set_result(outcome)

        self.submit_batch(raws, done)
        return futures

    def submit_batch(self, raws: Sequence[bytes], done: Done) -> None:
        """Take in several at the least cost: `done` gets (place in `raws`, receipt or exception) of each, once.

        It is called on this thread with what is refused at once, on the writer's with what a block decided, once a
        block, and on a third with each that had its result long ago: it must be quick and may not raise. The
        exceptions are those of `submit`.
        """
        asked = Asked(done)
        taken: list[Entry] = []
        size = 0
        for place, raw in enumerate(raws):
            if len(raw) > MAX_BYTES:
                asked.put(place, Rejected(Code.TOO_LARGE, f"{len(raw)} bytes, at most {MAX_BYTES}"))
            else:
                taken.append((raw, asked, place))
                size += len(raw)
        if asked.waiting:
            asked.deliver()
        error: Exception
        with self._work:
            if self._failure is not None or self._closing:
                error = Indeterminate("the ledger has stopped")
            elif len(self._queue) + len(taken) > MAX_QUEUE or self._queue_bytes > MAX_QUEUE_BYTES:
                error = EngineBusy(f"{len(self._queue)} transactions wait")
            else:
                self._queue.extend(taken)
                self._queue_bytes += size
                self._work.notify()
                return
        _answer((entry, error) for entry in taken)

    # The writer.

    def _run(self) -> None:
        try:
            self._write()
        except BaseException as error:
            self._fail(error)
        finally:
            self._verifying.close()
            self._repeats.close()

    def _write(self) -> None:
        under_way: deque[list[Entry]] = deque()
        current: list[Entry] = []
        try:
            while True:
                batch = self._take(wait=not under_way)
                if batch is None and not under_way:
                    return
                if batch:
                    self._verifying.begin([raw for raw, _, _ in batch])
                    under_way.append(batch)
                    if len(under_way) < UNDER_WAY and self._queue:
                        continue
                # Nothing is waited for that is not there yet: a lone transaction gets a block of its own at once.
                current = under_way.popleft() if under_way else []
                stored = self._block(current, self._verifying.finish() if current else [])
                current = []
                if stored is not None:
                    self._committed(stored)
        except BaseException:
            error = Indeterminate("the ledger stopped before the result was known")
            _answer((entry, error) for entries in (current, *under_way) for entry in entries)
            raise

    def _take(self, *, wait: bool) -> list[Entry] | None:
        """The next transactions; empty when something falls due or there is no need to wait; None at the end."""
        with self._work:
            while wait and not self._queue and not self._closing:
                pause = self._pause_s()
                if pause is not None and pause <= 0:
                    return []
                self._work.wait(pause)
            if not self._queue and self._closing:
                return None
            taken: list[Entry] = []
            size = 0
            while self._queue and len(taken) < BLOCK_TRANSACTIONS and size < BLOCK_BYTES:
                entry = self._queue.popleft()
                size += len(entry[0])
                taken.append(entry)
            self._queue_bytes -= size
            return taken

    def _pause_s(self) -> float | None:
        due = self.machine.next_due()
        # A second at most: the condition's clock stands still while the machine sleeps, ours does not.
        return None if due is None else min((due - self.now_ms()) / 1000, 1.0)

    def _block(self, entries: Sequence[Entry], contents: Sequence[bytes]) -> StoredBlock | None:
        """Apply and commit one block of what is good, then answer. What no block would take is answered too."""
        answers: list[tuple[Entry, Outcome]] = []
        with self._state:
            try:
                stored = self._apply(entries, contents, answers)
            except BaseException as error:
                # Before the lock is given up: nobody may read a state that is not committed.
                self._failure = error
                raise
        _answer(answers)
        return stored

    def _committed(self, stored: StoredBlock) -> None:
        """What follows a block, its answers being out."""
        for subscriber in list(self._subscribers):
            try:
                subscriber(stored)
            except Exception:
                _log.exception("a subscriber failed", height=stored.header.height)
        self._checkpoints.after_block(self.machine, stored)
        self._time.look()

    def _apply(
        self, entries: Sequence[Entry], contents: Sequence[bytes], answers: list[tuple[Entry, Outcome]]
    ) -> StoredBlock | None:
        """Choose, apply and commit; None where there is nothing to do. Fills in the answers."""
        chosen: dict[str, Entry] = {}
        repeats: list[tuple[Entry, Entry]] = []
        good = self._good(entries, contents, chosen, repeats, answers)
        time_ms = max(self._head.time_ms + 1, self.now_ms())
        due = self.machine.next_due()
        if not (due is not None and due <= time_ms):
            first = self._first(good, time_ms, chosen, answers)
            if first is None:
                self._repeated(repeats, answers)
                return None
            good = itertools.chain((first,), good)
        result, refusals = self.machine.propose_block(time_ms, good)
        for signed, refusal in refusals:
            self._refused(chosen.pop(signed.id), signed, refusal, answers)
        stored = StoredBlock(raws=[raw for raw, _, _ in chosen.values()], result=result, change=self.machine.change)
        self._store.append(stored)
        self._head = result.header
        self.planned_upgrade = self.machine.planned_upgrade()
        answers.extend(zip(chosen.values(), result.receipts, strict=True))
        self._repeated(repeats, answers)
        return stored

    def _good(
        self,
        entries: Sequence[Entry],
        contents: Sequence[bytes],
        chosen: dict[str, Entry],
        repeats: list[tuple[Entry, Entry]],
        answers: list[tuple[Entry, Outcome]],
    ) -> Iterator[Signed]:
        """Iterate over what is well formed, signed and no repeat, decoded when it is asked for; `chosen` has it by its id.

        What is no transaction at all is answered; `repeats` gets what is one again, behind the one it repeats.
        """
        decode = self.machine.codec.decode
        for entry, content in zip(entries, contents, strict=True):
            try:
                if content == NOT_GOOD:
                    decode(entry[0])
                    raise Rejected(Code.BAD_SIGNATURE, "the signature does not match")
                signed = decode(entry[0], content)
            except Rejected as refusal:
                answers.append((entry, refusal))
                continue
            first = chosen.setdefault(signed.id, entry)
            if first is entry:
                yield signed
            else:
                repeats.append((first, entry))

    def _first(
        self, good: Iterator[Signed], time_ms: int, chosen: dict[str, Entry], answers: list[tuple[Entry, Outcome]]
    ) -> Signed | None:
        """The first that a block would take, or None; those before it are answered and no more chosen.

        So no block is made, and nothing is written, for transactions that are all refused.
        """
        for signed in good:
            try:
                self.machine.check(signed, time_ms)
            except Rejected as refusal:
                self._refused(chosen.pop(signed.id), signed, refusal, answers)
            else:
                return signed
        return None

    def _repeated(self, repeats: Sequence[tuple[Entry, Entry]], answers: list[tuple[Entry, Outcome]]) -> None:
        """Requests with the same transaction share its answer."""
        if repeats:
            known = dict(answers)
            looked_up = EngineBusy("its first result is being looked up")
            answers.extend((entry, known.get(first, looked_up)) for first, entry in repeats)

    def _refused(self, entry: Entry, signed: Signed, refusal: Rejected, answers: list[tuple[Entry, Outcome]]) -> None:
        """Answer what no block takes; a repeat with the first result, also when it has expired meanwhile."""
        outcome: Outcome | None = refusal
        if refusal.code in _REPEATS:
            _, asked, place = entry
            outcome = self.machine.receipt_of(signed.id) or self._repeats.ask(signed.id, refusal, asked, place)
        if outcome is not None:
            answers.append((entry, outcome))

    def _fail(self, error: BaseException) -> None:
        """The engine is over: nobody is left waiting, and the owner is told."""
        _log.error("the ledger stops", error=repr(error), height=self._head.height)
        with self._work:
            self._failure = error
            left = list(self._queue)
            self._queue.clear()
        _answer((entry, Indeterminate("the ledger has stopped")) for entry in left)
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
        """Write what is queued, end; harmless when repeated."""
        with self._work:
            if self._closing:
                return
            self._closing = True
            self._work.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._store.close()


def _answer(answers: Iterable[tuple[Entry, Outcome]]) -> None:
    """Tell everyone who asked, each once."""
    told: dict[Asked, None] = {}
    for (_, asked, place), outcome in answers:
        asked.put(place, outcome)
        told[asked] = None
    for asked in told:
        try:
            asked.deliver()
        except Exception:
            _log.exception("an answer could not be delivered")
