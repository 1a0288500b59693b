"""The bridge between the event loop and the ledger's writer, with as few crossings as can be.

What arrives within one turn of the loop goes to the engine in one call; the results of one block wake the loop once;
one timer looks after all that wait.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from ledger.engine.asked import Outcome
from ledger.engine.embedded import Engine

RESULT_S: Final = 30.0
"""Longest wait for a block."""

SWEEP_S: Final = 1.0
"""How often it is looked for what has waited too long."""


class Ticket:
    """One transaction on its way. Its outcome is TimeoutError where the engine says nothing for 30 s."""

    __slots__ = ("answer", "outcome", "raw", "since")

    def __init__(self, raw: bytes, answer: Callable[["Ticket"], None]) -> None:
        self.raw = raw
        self.answer = answer
        self.since = time.perf_counter()
        self.outcome: Outcome | None = None


class Intake:
    """Hands transactions to the engine and their outcomes back. Belongs to one event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived: list[Ticket] = []
        self._waiting: set[Ticket] = set()
        self._ready: deque[tuple[list[Ticket], list[tuple[int, Outcome]]]] = deque()
        self._waking = False
        self._sweeping = False

    def put(self, raws: Sequence[bytes], answer: Callable[[Ticket], None]) -> list[Ticket]:
        """Take in transactions; `answer` is called in the loop with each one's ticket when it has its outcome, never at once."""
        loop = self._loop
        if loop is None or not self._waiting:
            loop = self._loop = asyncio.get_running_loop()
        tickets = [Ticket(raw, answer) for raw in raws]
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
        self._engine.submit_batch([ticket.raw for ticket in arrived], partial(self._done, arrived))

    def _done(self, tickets: list[Ticket], outcomes: list[tuple[int, Outcome]]) -> None:
        """Queue the outcomes of a block, and wake the loop unless it is waking already. Called on the writer's thread.

        The loop clears the mark before it empties the queue, so what is put in while the mark stands is never left.
        """
        self._ready.append((tickets, outcomes))
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
            tickets, outcomes = ready.popleft()
            for place, outcome in outcomes:
                ticket = tickets[place]
                if ticket in waiting:
                    waiting.remove(ticket)
                    ticket.outcome = outcome
                    ticket.answer(ticket)

    def _sweep(self) -> None:
        """Give up what has waited too long; go on while there is something to wait for."""
        oldest = time.perf_counter() - RESULT_S
        for ticket in [t for t in self._waiting if t.since <= oldest]:
            self._waiting.remove(ticket)
            ticket.outcome = TimeoutError()
            ticket.answer(ticket)
        self._sweeping = bool(self._waiting)
        if self._sweeping:
            assert self._loop is not None
            self._loop.call_later(min(SWEEP_S, RESULT_S), self._sweep)
