"""The bridge between the event loop and the ledger's writer, with as few crossings as can be.

What arrives within one turn of the loop goes to the engine in one call; the results of one block wake the loop once;
one timer looks after all that wait.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from ledger.engine.embedded import Engine
from ledger.protocol.block import Receipt

RESULT_S: Final = 30.0
"""Longest wait for a block."""

SWEEP_S: Final = 1.0
"""How often it is looked for what has waited too long."""

Outcome = Receipt | BaseException
"""A receipt, or why there is none: what the engine says, or TimeoutError where it says nothing for 30 s."""


class Ticket:
    """One transaction on its way; stands where the engine expects a future, at a tenth of the price."""

    __slots__ = ("answer", "intake", "outcome", "raw", "since")

    def __init__(self, intake: "Intake", raw: bytes, answer: Callable[["Ticket"], None]) -> None:
        self.intake = intake
        self.raw = raw
        self.answer = answer
        self.since = time.perf_counter()
        self.outcome: Outcome | None = None

    # What the engine calls, on its writer's thread; nothing here is ever cancelled.

    def set_running_or_notify_cancel(self) -> bool:
        """Always wanted: a client that left may come back for the result."""
        return True

    def done(self) -> bool:
        """True once there is an outcome."""
        return self.outcome is not None

    def set_result(self, receipt: Receipt) -> None:
        """The receipt of a durable block."""
        self.outcome = receipt
        self.intake.wake(self)

    def set_exception(self, error: BaseException) -> None:
        """No block takes it, or the engine has stopped."""
        self.outcome = error
        self.intake.wake(self)


class Intake:
    """Hands transactions to the engine and their outcomes back. Belongs to one event loop; `wake` to any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived: list[Ticket] = []
        self._waiting: set[Ticket] = set()
        self._ready: deque[Ticket] = deque()
        self._waking = False
        self._sweeping = False

    def put(self, raws: Sequence[bytes], answer: Callable[[Ticket], None]) -> list[Ticket]:
        """Take in transactions; `answer` is called in the loop with each one's ticket when it has its outcome, never at once."""
        loop = self._loop
        if loop is None or not self._waiting:
            loop = self._loop = asyncio.get_running_loop()
        tickets = [Ticket(self, raw, answer) for raw in raws]
        if not self._arrived:
            loop.call_soon(self._submit)
        self._arrived += tickets
        self._waiting.update(tickets)
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(min(SWEEP_S, RESULT_S), self._sweep)
        return tickets

    async def outcomes(self, raws: Sequence[bytes]) -> list[Ticket]:
        """The tickets of some transactions, all with their outcome."""
        whole: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        left = len(raws)

        def answer(_ticket: Ticket) -> None:
            nonlocal left
            left -= 1
            if not left and not whole.done():
                whole.set_result(None)

        tickets = self.put(raws, answer)
        await whole
        return tickets

    def _submit(self) -> None:
        arrived, self._arrived = self._arrived, []
        self._engine.submit_to([ticket.raw for ticket in arrived], arrived)

    def wake(self, ticket: Ticket) -> None:
        """Queue an outcome, and wake the loop unless it is waking already.

        The loop clears the mark before it empties the queue, so what is put in while the mark stands is never left.
        """
        self._ready.append(ticket)
        if not self._waking:
            self._waking = True
            # A loop that has ended has nobody left to tell.
            with contextlib.suppress(RuntimeError):
                assert self._loop is not None
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._waking = False
        ready, waiting = self._ready, self._waiting
        while ready:
            ticket = ready.popleft()
            if ticket in waiting:
                waiting.remove(ticket)
                ticket.answer(ticket)

    def _sweep(self) -> None:
        """Give up what has waited too long; go on while there is something to wait for."""
        oldest = time.perf_counter() - RESULT_S
        for ticket in [t for t in self._waiting if t.since <= oldest]:
            self._waiting.remove(ticket)
            if ticket.outcome is None:
                ticket.outcome = TimeoutError()
            ticket.answer(ticket)
        self._sweeping = bool(self._waiting)
        if self._sweeping:
            assert self._loop is not None
            self._loop.call_later(min(SWEEP_S, RESULT_S), self._sweep)
