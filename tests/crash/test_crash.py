"""The ledger is ended anywhere, its disk fails or fills up: nothing acknowledged is lost, nothing half, nothing twice."""

import random
from pathlib import Path

import pytest

from tests.crash.child import COUNT, FAILED
from tests.crash.harness import (
    CALLS,
    calls_by_thread,
    calls_made,
    injected,
    injected_in_main,
    injected_in_writer,
    killed,
    limited,
    why_no_injection,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Calls of an undisturbed run."""
    if reason := why_no_injection():
        pytest.skip(f"faults at system calls are not tested: {reason}")
    found = calls_made(tmp_path_factory.mktemp("undisturbed"))
    assert found["fdatasync"] > 10
    assert found["pwrite64"] > 20
    return found


@pytest.mark.parametrize("call", CALLS)
def test_killed_at_a_system_call(tmp_path: Path, made: dict[str, int], call: str) -> None:
    """Killed as it writes or syncs, at five points of each call."""
    chance = random.Random(f"kill {call}")
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        when = number + 1 if number < 2 else chance.randint(1, max(1, made[call]))
        injected(folder, call, "signal=KILL", when)


@pytest.mark.parametrize(
    ("call", "error"), [("fdatasync", "EIO"), ("pwrite64", "EIO"), ("pwrite64", "ENOSPC"), ("pwrite64", "EROFS")]
)
def test_a_disk_that_fails(tmp_path: Path, made: dict[str, int], call: str, error: str) -> None:
    """An error of the disk, or one that turned read-only, ends the engine; what it had acknowledged is there."""
    chance = random.Random(f"{error} {call}")
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        injected(folder, call, f"error={error}", chance.randint(2, made[call]))


def test_a_commit_that_fails_is_not_tried_again(tmp_path: Path, made: dict[str, int]) -> None:
    """When the disk does not take a commit the engine ends at once, though the next try would seem to succeed."""
    assert made
    for when in (1, 7):
        left = injected_in_writer(_folder(tmp_path, str(when)), "fdatasync", "error=EIO", when, COUNT)
        assert left.status == FAILED
        assert left.acknowledged < COUNT


def test_killed_under_load(tmp_path: Path) -> None:
    """kill -9 from outside at five moments."""
    chance = random.Random(5)
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        killed(folder, chance.randint(0, COUNT - 5))


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    """Where files cannot grow the engine ends, and goes on where it was once they can."""
    ends = set()
    for size in (30_000, 190_000, 400_000):
        folder = tmp_path / str(size)
        folder.mkdir()
        ends.add(limited(folder, size).status)
    assert 0 not in ends


def test_killed_at_calls_of_one_thread(tmp_path: Path, made: dict[str, int]) -> None:
    """Of a thousand transactions: killed as the writer writes or syncs, at its first calls too, and as the chain is closed."""
    assert made
    main, writer = calls_by_thread(_folder(tmp_path, "calls"), 1000)
    assert writer["fdatasync"] > 50
    chance = random.Random("one thread")
    for call, when in (("pwrite64", 1), ("pwrite64", chance.randint(2, 500)), ("fdatasync", chance.randint(1, 40))):
        assert injected_in_writer(_folder(tmp_path, f"writer {call} {when}"), call, "signal=KILL", when, 1000).status != 0
    when = main["pwrite64"] * 3 // 4
    assert injected_in_main(_folder(tmp_path, "main"), "pwrite64", "signal=KILL", when, 1000).status != 0


def _folder(parent: Path, name: str) -> Path:
    path = parent / name
    path.mkdir()
    return path
