"""The plan of a lease: a table of cases, and any order of events."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.protocol.records import LeaseState
from provider.leases.model import (
    Close,
    Entry,
    Forget,
    Note,
    Phase,
    Remove,
    RemoveStale,
    Report,
    Slot,
    Start,
    Stop,
    Wait,
    Wanted,
    slot_of,
)
from provider.leases.plan import Policy, backoff_ms, plan
from provider.runtime.port import Container

L = "lease"
NOW = 1_000_000
WEB = Slot("web", 0)


def wanted(state: str = "active", **changes: Any) -> Wanted:
    """A lease on the ledger."""
    return msgspec.structs.replace(Wanted(lease=L, state=LeaseState(state), generation=2, host="h"), **changes)


def entry(state: str = "active", w: dict[str, Any] | None = None, **changes: Any) -> Entry:
    """A lease whose containers were started."""
    plain = Entry(
        lease=L, wanted=wanted(state, **(w or {})), first_seen_ms=NOW, spec="s", slots=(WEB,), phase=Phase.RUNNING,
        started_ms=NOW - 5_000, started_spec="s", started_generation=2,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def box(state: str = "running", generation: int = 2, spec: str = "s", service: str = "web", replica: int = 0) -> Container:
    """A container on the host."""
    return Container(
        id=f"{service}{replica}{generation}", name="n", lease=L, generation=generation, service=service, replica=replica,
        state=state, exit_code=None if state == "running" else 1, oom_killed=False, started_ms=1, finished_ms=0, devices=(),
        image_digest="sha256:0", spec_hash=spec, ports=(),
    )  # fmt: skip


CASES: list[tuple[str, Entry, tuple[Container, ...], bool, tuple[Any, ...]]] = [
    ("all is well", entry(), (box(),), True, ()),
    ("closed, containers there", entry("closed", phase=Phase.CLOSED), (box(),), True, (Remove(L, "closed: "),)),
    ("closed, network left", entry("closed", phase=Phase.CLOSED), (), True, (Remove(L, "closed: "),)),
    ("closed, all gone", entry("closed", phase=Phase.CLOSED), (), False, (Report(L, 2, "release"),)),
    ("closed and released", entry("closed", {"released": True}, phase=Phase.CLOSED), (), False, (Forget(L),)),
    (
        "released, yet something runs",
        entry("closed", {"released": True}, phase=Phase.CLOSED),
        (box(),),
        True,
        (Remove(L, "closed: "),),
    ),
    (
        "a failed removal waits",
        entry("closed", phase=Phase.CLOSED, next_try_ms=NOW + 9),
        (box(),),
        True,
        (Wait(L, NOW + 9),),
    ),
    ("older generation", entry(), (box(generation=1),), True, (RemoveStale(L, 2),)),
    ("both generations", entry(), (box(generation=1), box()), True, (RemoveStale(L, 2),)),
    ("newer than the ledger said", entry(), (box(generation=3),), True, ()),
    ("another manifest", entry(), (box(spec="old"),), True, (RemoveStale(L, 0),)),
    ("matched and running", entry("matched"), (box(),), True, (Report(L, 2, "active"),)),
    (
        "matched, just started",
        entry("matched", started_ms=NOW - 1),
        (box(),),
        True,
        (Wait(L, NOW + 299),),
    ),
    ("down and running again", entry("down"), (box(),), True, (Report(L, 2, "up"),)),
    ("containers vanished", entry(), (), True, (Report(L, 2, "down", "host_stop"),)),
    ("vanished and down", entry("down"), (), True, (Start(L, 2, "s"),)),
    ("manifest came", entry("matched", started_spec="", phase=Phase.PREPARING), (), False, (Start(L, 2, "s"),)),
    (
        "adopted without a note of the start",
        entry("matched", started_generation=0, phase=Phase.PREPARING),
        (box(),),
        True,
        (Start(L, 2, "s"),),
    ),
    (
        "backing off",
        entry(started_spec="", failures=2, next_try_ms=NOW + 7, phase=Phase.STARTING),
        (box("exited"),),
        True,
        (Wait(L, NOW + 7),),
    ),
    (
        "start failed too often",
        entry("matched", started_spec="", failures=5, failure_kind="start_failed", error="e"),
        (box("exited"),),
        True,
        (Close(L, 2, "start_failed", "e"),),
    ),
    (
        "no image",
        entry("matched", started_spec="", failures=3, failure_kind="image_failed", error="e"),
        (),
        False,
        (Close(L, 2, "image_failed", "e"),),
    ),
    ("once active, never closed", entry(started_spec="", failures=99, phase=Phase.STARTING), (), True, (Start(L, 2, "s"),)),
    ("no manifest in time", entry("matched", spec="", first_seen_ms=NOW - 60_000, phase=Phase.WAITING_MANIFEST), (), False,
     (Close(L, 2, "manifest_missing", "no manifest came"),)),
    ("a manifest may come", entry("matched", spec="", phase=Phase.WAITING_MANIFEST), (), False, (Wait(L, NOW + 60_000),)),
    ("journal lost, container runs", entry(spec=""), (box(),), True, ()),
    ("unknown lease, in grace", entry("closed", missing_since_ms=NOW), (box(),), True, (Wait(L, NOW + 300_000),)),
    ("unknown", entry("closed", missing_since_ms=NOW - 300_000), (box(),), True, (Remove(L, "the ledger knows no such lease"),)),
    ("unknown lease, nothing left", entry("closed", missing_since_ms=NOW), (), False, (Forget(L),)),
    ("funded to the last", entry(w={"funded_until_ms": NOW + 1}), (box(),), True, ()),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given_entry", "containers", "present", "expected"), CASES, ids=[c[0] for c in CASES])
def test_table(
    name: str, given_entry: Entry, containers: tuple[Container, ...], present: bool, expected: tuple[Any, ...]
) -> None:
    """Each situation has its one next action."""
    assert plan(given_entry, containers, present, NOW) == expected


@pytest.mark.parametrize("state", ["matched", "active", "down", "paused"])
def test_a_dry_lease_is_stopped_by_our_own_clock(state: str) -> None:
    """Whatever the ledger said last, containers stop when the money it told of is used up."""
    dry = entry(state, {"funded_until_ms": NOW})

    actions = plan(dry, (box(),), True, NOW)

    assert [a for a in actions if not isinstance(a, Note)] == [Stop(L, "the purse is dry")]
    assert any(isinstance(a, Note) and a.changes["phase"] == Phase.STOPPED for a in actions)


def test_an_exit_is_counted_once_and_backed_off() -> None:
    """A container that ended is counted, and started again after a wait that doubles."""
    ended = entry(failures=1)
    (note,) = plan(ended, (box("exited"),), True, NOW)
    assert isinstance(note, Note)
    after = msgspec.structs.replace(ended, **note.changes)

    assert (after.failures, after.next_try_ms, after.error) == (2, NOW + 2_000, "web/0 exited with 1")
    assert plan(after, (box("exited"),), True, NOW) == (Wait(L, NOW + 2_000),)
    assert plan(after, (box("exited"),), True, NOW + 2_000)[-1] == Start(L, 2, "s")
    assert [backoff_ms(n, Policy()) for n in (1, 2, 3, 7, 50)] == [1_000, 2_000, 4_000, 60_000, 60_000]


def test_a_lost_device_stops_the_meter() -> None:
    """A lease whose device the host lost is reported down, and not started again before it is back."""
    with_device = {"devices": ("d1",)}
    lost = frozenset({"d1"})

    assert plan(entry(w=with_device), (box(),), True, NOW, lost)[-1] == Report(L, 2, "down", "device_lost")
    assert not [a for a in plan(entry("down", with_device), (), True, NOW, lost) if not isinstance(a, Note)]


class Model:
    """A lease, its host and its ledger; every action may fail, be late, or meet a changed world."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = NOW
        self.boxes: list[Container] = []
        self.present = False
        self.ledger = Wanted(lease=L, state=LeaseState.MATCHED, generation=1, host="h")
        self.entry = Entry(lease=L, wanted=self.ledger, first_seen_ms=NOW)
        self.forgotten = False
        self.pending: list[Any] = []

    def event(self, what: str) -> None:
        """Something happens."""
        state = self.ledger.state
        if what == "see":
            self.entry = msgspec.structs.replace(self.entry, wanted=self.ledger)
        elif what == "manifest" and not self.forgotten:
            self.entry = msgspec.structs.replace(self.entry, spec=f"s{self.random.randint(1, 2)}", slots=(WEB, Slot("db", 0)))
        elif what == "pause" and state is LeaseState.ACTIVE:
            self.ledger = msgspec.structs.replace(self.ledger, state=LeaseState.PAUSED)
        elif what == "resume" and state is LeaseState.PAUSED:
            self.ledger = msgspec.structs.replace(self.ledger, state=LeaseState.MATCHED, generation=self.ledger.generation + 1)
        elif what == "close" and state is not LeaseState.CLOSED:
            self.ledger = msgspec.structs.replace(self.ledger, state=LeaseState.CLOSED)
        elif what == "exit" and self.boxes:
            i = self.random.randrange(len(self.boxes))
            self.boxes[i] = msgspec.structs.replace(self.boxes[i], state="exited", exit_code=1)
        elif what == "vanish" and self.boxes:
            self.boxes.pop(self.random.randrange(len(self.boxes)))
        elif what == "forget" and self.random.random() < 0.5:
            # kill -9 before the journal was written: the last start was not noted.
            self.entry = msgspec.structs.replace(self.entry, started_spec="", started_generation=0)
        self.now += self.random.choice((1, 500, 70_000))

    def step(self, fail: bool = False) -> bool:
        """Plan and act; True where something was done."""
        if self.forgotten:
            return False
        done = False
        for action in plan(self.entry, tuple(self.boxes), self.present or bool(self.boxes), self.now):
            done = True
            if isinstance(action, Note):
                self.entry = msgspec.structs.replace(self.entry, **action.changes)
            elif isinstance(action, Wait):
                self.now = max(self.now, action.until_ms)
            elif not fail:
                self.act(action)
            self.check()
        return done

    def act(self, action: Any) -> None:
        """Carry out an action as the executor does."""
        match action:
            case Start(generation=generation, spec=spec):
                assert not [b for b in self.boxes if b.generation != generation], "two generations at once"
                kept = {slot_of(b): b for b in self.boxes}
                for slot in self.entry.slots:
                    kept[slot] = box(generation=generation, spec=spec, service=slot.service)
                self.boxes, self.present = list(kept.values()), True
                self.entry = msgspec.structs.replace(
                    self.entry, started_spec=spec, started_generation=generation, started_ms=self.now
                )
            case Stop():
                self.boxes = [msgspec.structs.replace(b, state="exited", exit_code=143) for b in self.boxes]
            case Remove():
                self.boxes, self.present = [], False
            case RemoveStale(keep_generation=keep):
                self.boxes = [b for b in self.boxes if b.generation == keep]
            case Report(kind=kind, generation=generation):
                if kind == "release":
                    assert self.ledger.state is LeaseState.CLOSED
                    assert not self.boxes
                    self.ledger = msgspec.structs.replace(self.ledger, released=True)
                elif generation == self.ledger.generation and self.ledger.state in ("matched", "active", "down"):
                    state = LeaseState.DOWN if kind == "down" else LeaseState.ACTIVE
                    self.ledger = msgspec.structs.replace(self.ledger, state=state)
                self.entry = msgspec.structs.replace(self.entry, wanted=self.ledger)
            case Close():
                self.ledger = msgspec.structs.replace(self.ledger, state=LeaseState.CLOSED)
                self.entry = msgspec.structs.replace(self.entry, wanted=self.ledger)
            case Forget():
                assert not self.boxes
                self.forgotten = True

    def check(self) -> None:
        """At no time do containers of two generations run."""
        assert len({b.generation for b in self.boxes if b.state == "running"}) <= 1


EVENTS = st.lists(
    st.sampled_from(["see", "manifest", "pause", "resume", "close", "exit", "vanish", "forget", "plan", "fail"]), max_size=40
)


@given(EVENTS, st.integers(0, 2**32))
def test_any_order_of_events_ends_well(events: list[str], seed: int) -> None:
    """Never two generations at once; when events stop, an open lease runs, and a closed one is removed and released."""
    model = Model(seed)
    for what in events:
        if what in ("plan", "fail"):
            model.step(fail=what == "fail")
        else:
            model.event(what)
        model.check()
    model.event("see")
    for _ in range(40):
        if not model.step():
            break
        model.event("see")

    state = model.ledger.state
    if state is LeaseState.CLOSED:
        assert model.forgotten
        assert model.ledger.released
    elif state is LeaseState.PAUSED:
        assert not [b for b in model.boxes if b.state == "running"]
    else:
        assert state is LeaseState.ACTIVE
        assert {slot_of(b) for b in model.boxes if b.state == "running"} >= set(model.entry.slots)
