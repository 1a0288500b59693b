"""What falls due later: records in state, so that every node knows the same, and an ordered view of them."""

from typing import Any

import msgspec
from sortedcontainers import SortedList

from ledger.machine.store import Store, Table


class Due(msgspec.Struct, frozen=True, gc=False):
    """Something that happens at `due_ms`: `kind` says who handles it, `id` what it is about."""

    due_ms: int
    id: str
    kind: str


SCHEDULE: Table[Due] = Table("schedule", Due, lambda due: f"{due.kind}/{due.id}")


def put(store: Store, due_ms: int, kind: str, id: str) -> None:
    """Schedule (kind, id) at `due_ms`; an earlier due time of the same pair is replaced."""
    old = store.get(SCHEDULE, f"{kind}/{id}")
    if old is None or old.due_ms != due_ms:
        store.put(SCHEDULE, Due(due_ms=due_ms, id=id, kind=kind))


def drop(store: Store, kind: str, id: str) -> None:
    """Unschedule (kind, id); nothing where it is not scheduled."""
    key = f"{kind}/{id}"
    if store.get(SCHEDULE, key) is not None:
        store.delete(SCHEDULE, key)


def is_set(store: Store, kind: str, id: str) -> bool:
    """True where (kind, id) is scheduled."""
    return store.get(SCHEDULE, f"{kind}/{id}") is not None


class Agenda:
    """The schedule in order of (due, kind, id): a cache that follows the table."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._order: Any = SortedList((due.due_ms, due.kind, due.id) for due in store.scan(SCHEDULE))
        store.watch(SCHEDULE, self._changed)

    def _changed(self, old: Due | None, new: Due | None) -> None:
        if old is not None:
            self._order.remove((old.due_ms, old.kind, old.id))
        if new is not None:
            self._order.add((new.due_ms, new.kind, new.id))

    def check(self) -> None:
        """Assert that this view equals one built from the table."""
        built = sorted((due.due_ms, due.kind, due.id) for due in self._store.scan(SCHEDULE))
        assert list(self._order) == built, "the agenda differs from the schedule"

    def next_due(self) -> int | None:
        """Return the earliest due time in ms, or None."""
        due: int | None = self._order[0][0] if self._order else None
        return due

    def take(self, now_ms: int) -> tuple[int, str, str] | None:
        """Remove and return the first (due, kind, id) that is due by `now_ms`, or None."""
        if not self._order or self._order[0][0] > now_ms:
            return None
        due, kind, id = self._order[0]
        self._store.delete(SCHEDULE, f"{kind}/{id}")
        return due, kind, id
