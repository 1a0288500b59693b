"""What was applied long ago and comes again: its first result is looked up in the log, beside the writer.

Everybody can send again what is in the log, by the thousand and for nothing. So the writer never looks there itself, and
whoever does takes breaks: a fifth of a core at most goes into it, and what comes faster is told to come again.
"""

import threading
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Final

import structlog

from ledger.engine.asked import Asked, Outcome
from ledger.engine.errors import EngineBusy, Indeterminate
from ledger.protocol.block import Receipt
from ledger.protocol.errors import Rejected

WAITING: Final = 256
"""Most that wait to be looked up."""

BREAK: Final = 4
"""So many times what a look took is the break after it."""

_log = structlog.get_logger()


class Repeats:
    """Looks up first results, one at a time, on a thread of its own that starts when there is first one to look up."""

    def __init__(self, receipt_of: Callable[[str], Receipt | None]) -> None:
        self._receipt_of = receipt_of
        self._work = threading.Condition()
        self._waiting: deque[tuple[str, Rejected, Asked, int]] = deque()
        self._closing = False
        self._thread: threading.Thread | None = None

    def ask(self, tx_id: str, refusal: Rejected, asked: Asked, place: int) -> EngineBusy | None:
        """Answer `asked` with the first result of a transaction, or with `refusal` where there is none; soon, or EngineBusy."""
        with self._work:
            if self._closing or len(self._waiting) >= WAITING:
                return EngineBusy(f"{len(self._waiting)} old transactions wait for their results")
            self._waiting.append((tx_id, refusal, asked, place))
            self._work.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ledger-repeats", daemon=True)
                self._thread.start()
        return None

    def close(self) -> None:
        """Answer what waits with Indeterminate, and end; harmless when repeated."""
        with self._work:
            self._closing = True
            left = list(self._waiting)
            self._waiting.clear()
            self._work.notify()
        for _, _, asked, place in left:
            _answer(asked, place, Indeterminate("the ledger has stopped"))
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._work:
                self._work.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    return
                tx_id, refusal, asked, place = self._waiting.popleft()
            start = perf_counter()
            outcome: Outcome
            try:
                outcome = self._receipt_of(tx_id) or refusal
            except Exception as error:
                # The log is damaged there, or cannot be read now: whoever asked is told, nobody else.
                _log.exception("a first result could not be read", id=tx_id)
                outcome = Indeterminate(f"its first result could not be read: {error}")
            _answer(asked, place, outcome)
            with self._work:
                self._work.wait_for(lambda: self._closing, BREAK * (perf_counter() - start))


def _answer(asked: Asked, place: int, outcome: Outcome) -> None:
    try:
        asked.answer(place, outcome)
    except Exception:
        _log.exception("an answer could not be delivered")
