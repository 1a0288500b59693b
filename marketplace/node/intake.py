"""The bridge between the event loop and the ledger's writer, with as few crossings as can be.

What arrives within one turn of the loop goes to the engine in one call; the receipts of one block wake the loop once.
"""

import asyncio
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import Final

from ledger.engine.embedded import Engine
from ledger.protocol.block import Receipt

RESULT_S: Final = 30.0
"""Longest wait for a block."""

Waiter = asyncio.Future[Receipt]


class Intake:
    """Hands transactions to the engine; belongs to one event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._arrived: list[tuple[bytes, Waiter]] = []
        self._ready: deque[tuple[Waiter, Future[Receipt]]] = deque()
        self._waking = False

    async def result(self, raw: bytes) -> Receipt:
        """The receipt of a signed transaction, once durable; raises what its future raises, TimeoutError after 30 s."""
        loop = asyncio.get_running_loop()
        waiter: Waiter = loop.create_future()
        self._arrived.append((raw, waiter))
        if len(self._arrived) == 1:
            loop.call_soon(self._submit, loop)
        expiry = loop.call_later(RESULT_S, _expire, waiter)
        try:
            return await waiter
        finally:
            expiry.cancel()

    async def results(self, raws: list[bytes]) -> "list[Future[Receipt]]":
        """The futures of several transactions, all done; TimeoutError after 30 s."""
        loop = asyncio.get_running_loop()
        futures = self._engine.submit_many(raws)
        waiters: list[Waiter] = [loop.create_future() for _ in futures]
        for future, waiter in zip(futures, waiters, strict=True):
            future.add_done_callback(partial(self._done, loop, waiter))
        done, _ = await asyncio.wait(waiters, timeout=RESULT_S)
        for waiter in done:
            waiter.exception()  # looked at here: whoever asked reads the engine's own future
        if len(done) < len(waiters):
            raise TimeoutError
        return futures

    def _submit(self, loop: asyncio.AbstractEventLoop) -> None:
        arrived, self._arrived = self._arrived, []
        futures = self._engine.submit_many([raw for raw, _ in arrived])
        for (_, waiter), future in zip(arrived, futures, strict=True):
            future.add_done_callback(partial(self._done, loop, waiter))

    def _done(self, loop: asyncio.AbstractEventLoop, waiter: Waiter, future: "Future[Receipt]") -> None:
        """On the writer's thread: queue the result, and wake the loop unless it is waking already.

        The loop clears the mark before it empties the queue, so a result put in while the mark stands is never left.
        """
        self._ready.append((waiter, future))
        if not self._waking:
            self._waking = True
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._waking = False
        while self._ready:
            waiter, future = self._ready.popleft()
            if waiter.done():
                continue
            error = future.exception()
            if error is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(future.result())


def _expire(waiter: Waiter) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())
