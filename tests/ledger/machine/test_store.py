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
PLAIN: Table[Row] = Table("plain", Row, lambda row: row.id)
RESTING: Table[Row] = Table("plain", Row, lambda row: row.id, key_in=lambda line: line.split(b'"id":"')[1][:-2])
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


ACTIONS = st.sampled_from(["put", "put", "delete", "get", "mark", "rollback", "keep", "rest", "scan"])


def answer(store: Store, table: Table[Row], action: str, key: str) -> object:
    """What the store says to an action that asks something."""
    if action == "get":
        return store.get(table, key)
    if action == "rest":
        return store.shelved(table, [f"r{n}" for n in range(3)])
    return list(store.scan(table)) if action == "scan" else None


@given(st.lists(st.tuples(ACTIONS, st.integers(0, 2), st.integers(0, 3)), min_size=30, max_size=80))
def test_nobody_can_tell_what_rests(steps: list[tuple[str, int, int]]) -> None:
    """A store whose records rest between blocks, as bytes, answers like one whose records never do."""
    plain, resting = Store([PLAIN]), Store([RESTING])
    marks: list[int] = []
    both = ((plain, PLAIN), (resting, RESTING))
    for action, number, colour in steps:
        key = f"r{number}"
        there = key in dict(plain.items(PLAIN))
        for store, table in both:
            if action == "put":
                store.put(table, Row(colour=colour, id=key))
            elif action == "delete" and there:
                store.delete(table, key)
            elif action == "rollback" and marks:
                store.rollback(marks[-1])
            elif action == "keep":
                store.keep()
            elif action == "rest":
                store.forget()
        if action in ("keep", "rest", "rollback"):
            marks.clear()
        elif action == "mark":
            marks.append(resting.mark())
        answers = [answer(store, table, action, key) for store, table in both]
        assert answers[0] == answers[1]
        assert dict(resting.items(RESTING)) == dict(plain.items(PLAIN))
        changed = [[(k, old, new) for _, k, old, new in store.changes()] for store in (plain, resting)]
        assert changed[0] == changed[1]
        resting.check()


def test_a_watched_table_does_not_rest() -> None:
    """Who watches is told records, those too that rested before he came."""
    store, seen = Store([RESTING]), []
    store.load(RESTING, [("r1", b'{"colour":1,"id":"r1"}')])
    assert store.rests(RESTING)
    store.watch(RESTING, lambda old, new: seen.append((old, new)))
    assert not store.rests(RESTING)
    store.delete(RESTING, "r1")
    assert seen == [(Row(colour=1, id="r1"), None)]


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
