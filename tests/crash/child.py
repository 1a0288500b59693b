"""A process that applies a fixed script of transfers and notes each acknowledgement, until it ends or is ended.

`python -m tests.crash.child FOLDER [--count N] [--limit BYTES] [--wait]`. Exit status 0: all
applied; 3: the engine ended by an error, as it should where the disk fails.
"""

import argparse
import functools
import os
import resource
import sys
import time
from pathlib import Path

import structlog

from ledger.engine.embedded import Engine
from ledger.engine.errors import Indeterminate, LedgerDamaged, LedgerUnavailable
from ledger.protocol.messages import Transfer
from tests.ledger.engine.ledgers import ManualClock, shards_often, signed
from tests.ledger.machine.chain import ADA, BOB, CREDIT, START, genesis

COUNT = 40
BATCHES = (1, 3, 1, 4, 2, 1)
LONG_BATCHES = (1, 8, 3, 40, 1, 20)
"""Sizes of the batches of a long script."""

FAILED = 3


def amounts(count: int = COUNT) -> range:
    """What the transfers of the script move."""
    return range(1, count + 1)


@functools.cache
def script(count: int = COUNT) -> list[bytes]:
    """The transfers, the same bytes in every process: the clock stands still at the chain's beginning."""
    transfers = [Transfer(amount=str(n), denomination=CREDIT, to=BOB.address) for n in amounts(count)]
    return [signed(START, ADA, t, nonce=f"{n:032x}", valid_until=START + 100_000) for n, t in enumerate(transfers)]


def url_of(folder: Path) -> str:
    """Where the chain is."""
    return f"sqlite:///{folder}/chain.db"


def apply(folder: Path, count: int = COUNT, *, wait: bool = False) -> None:
    """Apply the script in batches; a line with its number for each transfer once it is acknowledged.

    With `wait` it names the writer's thread in a file and begins when another file says so.
    """
    engine = Engine.open(url_of(folder), genesis(), [], clock=ManualClock())
    raws = script(count)
    if wait:
        (folder / "writer.new").write_text(str(engine._thread.native_id))
        (folder / "writer.new").rename(folder / "writer")
        while not (folder / "go").exists():
            time.sleep(0.002)
    acks = os.open(folder / "acks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    batches = BATCHES if count <= 10 * COUNT else LONG_BATCHES
    at = turn = 0
    # So that what was written before is dropped, too.
    with shards_often():
        while at < len(raws):
            size = batches[turn % len(batches)]
            turn += 1
            for number, future in enumerate(engine.submit_many(raws[at : at + size]), at):
                assert future.result(300).ok
                os.write(acks, f"{number}\n".encode())
            at += size
        os.close(acks)
        engine.close()


def main() -> None:
    """Apply, under a limit on the size of files where one is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--wait", action="store_true")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    if options.limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (options.limit, options.limit))
    try:
        apply(options.folder, options.count, wait=options.wait)
    except (Indeterminate, LedgerDamaged, LedgerUnavailable, OSError) as error:
        # At once, as the node does: what the engine may hold in memory is not what is on disk.
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.stderr.flush()
        os._exit(FAILED)


if __name__ == "__main__":
    main()
