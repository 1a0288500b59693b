"""The store: what is undone is as if it had never been, indexes, order and watchers included."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.machine import store as store_module
from ledger.machine.store import Store, Table
from ledger.protocol.errors import Code, Rejected


class Row(msgspec.Struct, frozen=True):
    """A record with a colour, or none."""

    colour: int | None
    id: str


ROWS: Table[Row] = Table("row", Row, lambda row: row.id, {"colour": lambda row: row.colour})
STEPS = st.lists(st.tuples(st.integers(0, 12), st.one_of(st.just(-1), st.none(), st.integers(0, 3))), max_size=40)


def take(store: Store, steps: list[tuple[int, int | None]]) -> None:
    """Put (a colour or none) or delete (-1) rows."""
    for number, colour in steps:
        if colour != -1:
            store.put(ROWS, Row(colour=colour, id=f"r{number:02}"))
        elif store.get(ROWS, f"r{number:02}") is not None:
            store.delete(ROWS, f"r{number:02}")


def view(store: Store) -> object:
    """All that can be asked."""
    return (
        list(store.scan(ROWS)),
        [store.find(ROWS, "colour", colour) for colour in range(4)],
        [store.count(ROWS, "colour", colour) for colour in range(4)],
        store.count(ROWS),
    )


@given(STEPS, STEPS, st.booleans())
def test_rollback_restores_everything(
    before: list[tuple[int, int | None]], after: list[tuple[int, int | None]], few: bool
) -> None:
    """Rows, indexes, order and a watcher's copy are as they were at the mark; changes then name nothing since."""
    store = Store([ROWS])
    copy: dict[str, Row] = {}

    def watcher(old: Row | None, new: Row | None) -> None:
        if new is not None:
            copy[new.id] = new
        elif old is not None:
            del copy[old.id]

    store.watch(ROWS, watcher)
    long = store_module._LONG
    store_module._LONG = 2 if few else long
    try:
        take(store, before)
        seen, mark, changed = view(store), store.mark(), {key: new for _, key, _, new in store.changes()}
        take(store, after)
        for row in store.scan(ROWS):
            assert row in (store.find(ROWS, "colour", row.colour) or [row])
        assert list(copy.values()) != [] or store.count(ROWS) == 0
        store.rollback(mark)
    finally:
        store_module._LONG = long
    assert view(store) == seen
    assert {key: new for _, key, _, new in store.changes()} == changed
    assert sorted(copy) == [row.id for row in store.scan(ROWS)]


@given(STEPS)
def test_changes_are_net(steps: list[tuple[int, int | None]]) -> None:
    """Between two `forget`s each changed record is named once, with what it was and what it is."""
    store = Store([ROWS])
    take(store, steps)
    old = {row.id: row for row in store.scan(ROWS)}
    store.forget()
    take(store, list(reversed(steps)))
    found = {key: (before, now) for _, key, before, now in store.changes()}
    for key, (before, now) in found.items():
        assert before == old.get(key)
        assert now == store.get(ROWS, key)
    new = {row.id: row for row in store.scan(ROWS)}
    assert {key for key in old | new if old.get(key) != new.get(key)} <= set(found)


def test_missing_records_are_refused_with_the_given_code() -> None:
    """`require` says which code."""
    with pytest.raises(Rejected) as refusal:
        Store([ROWS]).require(ROWS, "x", Code.PURSE_NOT_FOUND)
    assert refusal.value.code == Code.PURSE_NOT_FOUND


@pytest.mark.parametrize("make", [lambda: Store([ROWS, ROWS]), lambda: Table("a/b", Row, lambda row: row.id)])
def test_tables_have_names_of_their_own(make: Callable[[], object]) -> None:
    """Two tables of a name, or a name that could be mistaken for a key, are bugs."""
    with pytest.raises(AssertionError):
        make()


def test_a_scan_bears_changes() -> None:
    """Rows may go while a scan runs."""
    store = Store([ROWS])
    take(store, [(number, 1) for number in range(5)])
    seen = []
    for row in store.scan(ROWS):
        seen.append(row.id)
        store.delete(ROWS, row.id)
        if row.id == "r01":
            store.delete(ROWS, "r02")
    assert seen == ["r00", "r01", "r03", "r04"]
    assert store.count(ROWS) == 0
