"""Ends the child at chosen points, and checks what is left: nothing acknowledged lost, nothing half, nothing twice."""

import dataclasses
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from ledger.engine.embedded import Engine
from ledger.engine.verifying import INLINE as FEW
from tests.crash.child import COUNT, FAILED, amounts, script, url_of
from tests.ledger.engine.ledgers import ManualClock, balance_of, id_of
from tests.ledger.machine.chain import ADA, BOB, genesis

ROOT = Path(__file__).resolve().parents[2]
CALLS = ("fdatasync", "fsync", "pwrite64")
PATIENCE_S = 240


@dataclasses.dataclass(frozen=True)
class Left:
    """What an ended child left: its exit status, and how much was acknowledged and applied."""

    status: int
    acknowledged: int
    applied: int


def why_no_injection() -> str:
    """Why faults cannot be injected here; empty where they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=getppid", "-e", "inject=getppid:error=EPERM", "true"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else f"strace may not trace here: {done.stderr.strip()[:200]}"


def command(folder: Path, count: int = COUNT, *arguments: str) -> list[str]:
    """The child's command line."""
    return [sys.executable, "-m", "tests.crash.child", str(folder), "--count", str(count), *arguments]


def run(arguments: list[str]) -> int:
    """Run to the end; the exit status, negative or over 128 for a signal."""
    return subprocess.run(
        arguments, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S, check=False
    ).returncode


def calls_made(folder: Path, count: int = COUNT) -> dict[str, int]:
    """How often the busiest thread of an undisturbed child makes each call: strace counts by thread."""
    main, writer = calls_by_thread(folder, count)
    return {call: max(main[call], writer[call]) for call in CALLS}


def calls_by_thread(folder: Path, count: int = COUNT) -> tuple[dict[str, int], dict[str, int]]:
    """How often an undisturbed child makes each call: in its main thread, which opens and closes the chain, and in its writer."""
    trace = folder / "trace"
    (folder / "go").touch()
    watched = ["strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={','.join(CALLS)}"]
    status = run([*watched, *command(folder, count, "--wait")])
    assert status == 0, f"the undisturbed child ended with {status}"
    made = [found.groups() for found in re.finditer(r"^(\d+) +(\w+)\(", trace.read_text(), re.MULTILINE)]
    tally, main, writer = Counter(made), made[0][0], (folder / "writer").read_text()
    return {call: tally[main, call] for call in CALLS}, {call: tally[writer, call] for call in CALLS}


def injected(folder: Path, call: str, what: str, when: int) -> Left:
    """A child that meets `what` (strace's words: `signal=KILL`, `error=EIO`) at the `when`-th `call` of one of its threads."""
    return checked(folder, run(["strace", "-f", *_injection(call, what, when), *command(folder)]))


def injected_in_main(folder: Path, call: str, what: str, when: int, count: int) -> Left:
    """A child whose main thread alone meets `what`: as it opens or closes the chain."""
    return checked(folder, run(["strace", *_injection(call, what, when), *command(folder, count)]), count)


def _injection(call: str, what: str, when: int) -> list[str]:
    return ["-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{what}:when={when}"]


def injected_in_writer(folder: Path, call: str, what: str, when: int, count: int) -> Left:
    """A child whose writer alone meets `what` at its `when`-th `call`: what the chain's opening did is not counted."""
    with subprocess.Popen(
        command(folder, count, "--wait"), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        try:
            _until(child, (folder / "writer").exists, "a writer")
            writer = (folder / "writer").read_text()
            attach = ["strace", *_injection(call, what, when), "-p", writer]
            with subprocess.Popen(
                attach, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as tracer:
                status = Path(f"/proc/{child.pid}/task/{writer}/status")
                _until(tracer, lambda: "TracerPid:\t0\n" not in status.read_text(), "a tracer")
                (folder / "go").touch()
                code = child.wait(PATIENCE_S)
                tracer.wait(PATIENCE_S)
        finally:
            child.kill()
    return checked(folder, code, count)


def _until(process: "subprocess.Popen[bytes]", probe: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not probe():
        assert process.poll() is None, f"it ended before there was {what}"
        assert time.monotonic() < deadline, f"no {what} in time"
        time.sleep(0.001)


def killed(folder: Path, after: int) -> Left:
    """A child that is killed from outside once it has `after` acknowledgements."""
    with subprocess.Popen(
        command(folder), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        deadline = time.monotonic() + PATIENCE_S
        try:
            while len(acknowledged(folder)) < after and child.poll() is None:
                assert time.monotonic() < deadline, "the child does not get on"
                time.sleep(0.001)
        finally:
            child.kill()
        status = child.wait(PATIENCE_S)
    return checked(folder, status)


def limited(folder: Path, size: int) -> Left:
    """A child whose files may have `size` bytes: its disk is full beyond that."""
    return checked(folder, run(command(folder, COUNT, "--limit", str(size))))


def acknowledged(folder: Path) -> set[int]:
    """Numbers of the transfers that the child was told are applied."""
    path = folder / "acks"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return {int(line) for line in lines}


def checked(folder: Path, status: int, count: int = COUNT) -> Left:
    """Open what was left and check it, before and after everything is sent again."""
    assert status in (0, FAILED, -9, 137), f"the child ended with {status}"
    raws, acks = script(count), acknowledged(folder)
    engine = Engine.open(url_of(folder), genesis(), [], clock=ManualClock())
    try:
        ids = [id_of(engine, raw) for raw in raws]
        receipts = [engine.receipt(id) for id in ids]
        lost = [n for n in acks if receipts[n] is None]
        assert not lost, f"acknowledged and lost: {lost}"
        applied = [n for n, receipt in enumerate(receipts) if receipt is not None and receipt.ok]
        moved = sum(amounts(count)[n] for n in applied)
        assert balance_of(engine, BOB) == 10**12 + moved, "half applied"
        assert balance_of(engine, ADA) == 10**12 - moved, "half applied"
        with engine.read() as machine:
            machine.invariants()
        again = raws if count == COUNT else [raw for n, raw in enumerate(raws) if n not in acks or n % 50 == 0]
        for at in range(0, len(again), FEW):  # so few that no process is started for them
            assert all(f.result(PATIENCE_S).ok for f in engine.submit_many(again[at : at + FEW]))
        assert balance_of(engine, BOB) == 10**12 + sum(amounts(count)), "applied twice"
        logged = Counter(raw for block in engine.blocks(1, 10_000) for raw in block.raws)
        assert logged == Counter(raws), "in the log twice"
    finally:
        engine.close()
    return Left(status=status, acknowledged=len(acks), applied=len(applied))


def fresh_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder for one child, on a disk."""
    return tempfile.TemporaryDirectory(prefix="crash-")
