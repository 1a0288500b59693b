"""`python -m tests.crash.record --kills 1000`: ends the ledger that often at random points, and prints what came of it."""

import argparse
import random
import sys
import time
from collections import Counter
from pathlib import Path

import structlog

from tests.crash.child import COUNT
from tests.crash.harness import CALLS, calls_made, fresh_folder, injected, killed, why_no_injection


def main() -> None:
    """End it again and again; an AssertionError names the seed and the number that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    reason = why_no_injection()
    if reason:
        print(f"only kills from outside: {reason}", file=sys.stderr)
    with fresh_folder() as folder:
        made = {} if reason else calls_made(Path(folder))
    chance, tally, start = random.Random(options.seed), Counter[str](), time.monotonic()
    acknowledged = applied = 0
    for number in range(options.kills):
        way = chance.choice(("outside",) if reason else ("outside", *CALLS, *CALLS, "EIO", "ENOSPC"))
        with fresh_folder() as name:
            folder_ = Path(name)
            try:
                if way == "outside":
                    left = killed(folder_, chance.randint(0, COUNT - 1))
                elif way in CALLS:
                    left = injected(folder_, way, "signal=KILL", chance.randint(1, max(1, made[way])))
                else:
                    call = "fdatasync" if way == "EIO" else "pwrite64"
                    left = injected(folder_, call, f"error={way}", chance.randint(1, made[call]))
            except AssertionError:
                print(f"seed {options.seed}, number {number}: {way}", flush=True)
                raise
        acknowledged, applied = acknowledged + left.acknowledged, applied + left.applied
        tally[way] += 1
        tally["ended before the script's end"] += left.status != 0
    print(f"{options.kills} ends in {time.monotonic() - start:.0f} s, seed {options.seed}: {dict(tally)}")
    print(f"{acknowledged} transfers acknowledged, {applied} applied; 0 lost, 0 half applied, 0 applied twice")


if __name__ == "__main__":
    main()
