"""`make selftest`: plant each known bug and see that the suite finds it.

`--rotate N` takes N of them, others each day; `--only NAME` takes one.
"""

import argparse
import datetime
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.selftest.bug import Bug
from tests.selftest.bugs import all_bugs

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 240
"""A bug is to be found within a minute on an idle machine; a loaded one may take longer."""


def found(name: str, bug: Bug) -> tuple[bool, str]:
    """Run the tests that must find the bug: (they did, the last words of pytest)."""
    env = os.environ | {"GPUBID_TEST_PLANT": name}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "tests.selftest.plant", *bug.caught_by]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return False, f"not found within {LIMIT_S} s"
    # 1: tests ran and failed. Anything else (no tests, broken collection) found nothing.
    return done.returncode == 1, (done.stdout.strip().splitlines() or ["no output"])[-1]


def main() -> int:
    """Run the chosen bugs; 0 where each was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rotate", type=int)
    parser.add_argument("--only")
    options = parser.parse_args()
    bugs = all_bugs()
    names = sorted(bugs)
    if options.only:
        names = [options.only]
    elif options.rotate:
        start = datetime.datetime.now(datetime.UTC).timetuple().tm_yday * options.rotate
        names = [names[(start + i) % len(names)] for i in range(min(options.rotate, len(names)))]
    missed = 0
    for name in names:
        began = time.monotonic()
        good, words = found(name, bugs[name])
        missed += not good
        print(f"{'found ' if good else 'MISSED'} {name} ({time.monotonic() - began:.0f} s): {bugs[name].why}", flush=True)
        if not good:
            print(f"       {words}")
    print(f"planted bugs: {len(names) - missed} found, {missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
