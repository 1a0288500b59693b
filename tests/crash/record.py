"""Ends the ledger again and again, for the record, and prints what came of it.

`python -m tests.crash.record --kills 1000`: at random points of a short script, at calls and from outside, with failing disks.
`python -m tests.crash.record --every 1`: at every fsync and every write of a script of 1,000 transactions (`--every 5`: each
fifth). `python -m tests.crash.record --nodes 100`: the whole node under load over HTTP, its clients checked at the end.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from tests.crash.child import COUNT
from tests.crash.harness import (
    CALLS,
    Left,
    calls_by_thread,
    calls_made,
    fresh_folder,
    injected,
    injected_in_main,
    injected_in_writer,
    killed,
    why_no_injection,
)
from tests.crash.nodes import Rig

End = tuple[str, Callable[[Path], Left]]
"""A name for the tally, and what ends a child in a folder."""

PER_NODE = 25
"""So often a node of one chain is killed before its clients are asked; then another chain begins."""


def at_random(count: int, seed: int) -> list[End]:
    """Ends at random points."""
    chance = random.Random(seed)
    reason = why_no_injection()
    if reason:
        print(f"only kills from outside: {reason}", file=sys.stderr)
        made = {}
    else:
        with fresh_folder() as folder:
            made = calls_made(Path(folder))
    ends: list[End] = []
    for _ in range(count):
        way = chance.choice(("outside",) if reason else ("outside", *CALLS, *CALLS, "EIO", "ENOSPC"))
        if way == "outside":
            after = chance.randint(0, COUNT - 1)
            ends.append((way, lambda folder, after=after: killed(folder, after)))
            continue
        call, what = {"EIO": ("fdatasync", "error=EIO"), "ENOSPC": ("pwrite64", "error=ENOSPC")}.get(way, (way, "signal=KILL"))
        when = chance.randint(1, max(1, made[call]))
        ends.append((way, lambda folder, call=call, what=what, when=when: injected(folder, call, what, when)))
    return ends


def at_every_call(every: int, count: int) -> list[End]:
    """An end at each `every`-th call of each kind, in the thread that opens and closes the chain and in the writer."""
    with fresh_folder() as folder:
        main, writer = calls_by_thread(Path(folder), count)
    print(f"calls of {count} transactions: {main} to open and close, {writer} to write", flush=True)
    ends: list[End] = []
    for place, made, end in (("main", main, injected_in_main), ("writer", writer, injected_in_writer)):
        for call in CALLS:
            for when in range(1, made[call] + 1, every):
                ends.append((f"{place} {call}", lambda f, e=end, c=call, w=when: _died(e(f, c, "signal=KILL", w, count))))
    return ends


def _died(left: Left) -> Left:
    # Writes come in other numbers when a thread is late, so the very last ones may not be reached.
    assert left.status != 0 or left.acknowledged == left.applied, "it lived on"
    return left


def run_all(ends: list[End], jobs: int, seed: int) -> None:
    """End one after the other, `jobs` at a time; an AssertionError names the number and the way."""
    tally, begun = Counter[str](), time.monotonic()

    def one(number: int) -> Left:
        way, end = ends[number]
        with fresh_folder() as folder:
            try:
                return end(Path(folder))
            except AssertionError:
                print(f"seed {seed}, number {number}: {way}", flush=True)
                raise

    acknowledged = applied = 0
    with ThreadPoolExecutor(jobs) as pool:
        for number, left in enumerate(pool.map(one, range(len(ends)))):
            acknowledged, applied = acknowledged + left.acknowledged, applied + left.applied
            tally[ends[number][0]] += 1
            tally["ended before the script's end"] += left.status != 0
            if number % 100 == 99:
                print(f"{number + 1} of {len(ends)}, {time.monotonic() - begun:.0f} s", flush=True)
    print(f"{len(ends)} ends in {time.monotonic() - begun:.0f} s, seed {seed}: {dict(tally)}")
    print(f"{acknowledged} transfers acknowledged, {applied} applied; 0 lost, 0 half applied, 0 applied twice")


def kill_nodes(count: int, seed: int) -> None:
    """Kill whole nodes under load over HTTP."""
    chance, begun = random.Random(seed), time.monotonic()
    acknowledged = forgot = 0
    for first in range(0, count, PER_NODE):
        with fresh_folder() as folder:
            rig = Rig(Path(folder), seed=chance.randrange(2**32))
            with rig.running() as program:
                rig.begin()
                rig.kill_under_load(program, chance.randint(1, 60))
            for _ in range(min(PER_NODE, count - first) - 1):
                with rig.running() as program:
                    rig.check_acknowledged()
                    rig.kill_under_load(program, chance.randint(1, 60))
            with rig.running():
                rig.finish()
        acknowledged += len(rig.acknowledged())
        forgot += sum(client.forgot for client in rig.clients)
        print(f"{first + rig.kills} of {count}, {time.monotonic() - begun:.0f} s", flush=True)
    print(f"{count} nodes killed under load over HTTP in {time.monotonic() - begun:.0f} s, seed {seed}: {acknowledged} transfers")
    print(
        f"acknowledged, clients went back to their outbox {forgot} times; 0 lost, 0 applied twice, 0 reads older than a receipt"
    )


def main() -> None:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--every", type=int, default=0)
    parser.add_argument("--nodes", type=int, default=0)
    parser.add_argument("--script", type=int, default=1000, help="transactions of the script of --every")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    if options.every:
        run_all(at_every_call(options.every, options.script), options.jobs, options.seed)
    if options.nodes:
        kill_nodes(options.nodes, options.seed)
    if options.kills or not (options.every or options.nodes):
        run_all(at_random(options.kills or 1000, options.seed), options.jobs, options.seed)


if __name__ == "__main__":
    main()
