"""Who asked for transactions, and the answers that wait for them: delivered together, once a block, or one by one."""

from collections.abc import Callable

from ledger.protocol.block import Receipt

Outcome = Receipt | Exception
Done = Callable[[list[tuple[int, Outcome]]], None]
"""Takes (place in what was handed in, its outcome) of some transactions."""


class Asked:
    """What one caller handed in at once. Used by its thread until it is queued, then by the writer's; `answer` by any."""

    __slots__ = ("_done", "waiting")

    def __init__(self, done: Done) -> None:
        self._done = done
        self.waiting: list[tuple[int, Outcome]] = []

    def put(self, place: int, outcome: Outcome) -> None:
        """Keep an answer until the next `deliver`."""
        self.waiting.append((place, outcome))

    def deliver(self) -> None:
        """Hand over the answers that are kept."""
        ready, self.waiting = self.waiting, []
        self._done(ready)

    def answer(self, place: int, outcome: Outcome) -> None:
        """Hand over one answer at once."""
        self._done([(place, outcome)])
