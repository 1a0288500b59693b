"""How long a restart takes, and how much memory a record: after kill -9 amid full load, each in a process of its own.

`python -m tests.bench.restart load URL RECORDS` fills a chain and goes on until it is killed; it says what it has
acknowledged. `python -m tests.bench.restart open URL` opens it and prints seconds and bytes.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import deque
from concurrent.futures import Future
from typing import Any

import psutil

from ledger.engine.embedded import Engine
from ledger.machine.accounts import ACCOUNTS
from ledger.protocol.block import Receipt
from ledger.protocol.encoding import encode
from tests.bench.chains import Openings, fill, first_of, senders_of, workload

BATCH = 1_000
UNDER_WAY = 5


def load(url: str, records: int) -> None:
    """Transfers until the end of days; a line with their number for each batch that is acknowledged."""
    senders = senders_of(records)
    engine = Engine.open(url, first_of(senders), [Openings()])
    fill(engine, records, senders)
    done, waiting = 0, deque[Future[Receipt]]()
    while True:
        for at in range(0, len(raws := workload(engine, senders, records, 10 * BATCH)), BATCH):
            waiting.append(engine.submit_many(raws[at : at + BATCH])[-1])
            if len(waiting) > UNDER_WAY:
                assert waiting.popleft().result(300).ok
                done += BATCH
                print(done, flush=True)


def opened(url: str) -> dict[str, Any]:
    """Seconds that an open takes, and what memory it adds, in a process that did nothing else."""
    process = psutil.Process()
    before, start, cpu = process.memory_info().rss, time.perf_counter(), time.process_time()
    engine = Engine.open(url, None, [Openings()])
    spent, cpu_spent = time.perf_counter() - start, time.process_time() - cpu
    added = process.memory_info().rss - before
    with engine.read() as machine:
        count = sum(machine.store.count(table) for table in machine.store.tables.values())
        sample = [len(encode(account)) for _, account in zip(range(100_000), machine.store.scan(ACCOUNTS), strict=False)]
    head = engine.head
    engine.close()
    return {
        "seconds": spent,
        "cpu_seconds": cpu_spent,
        "bytes": added,
        "records": count,
        "record_bytes": sum(sample) // len(sample),
        "height": head.height,
    }


def child(*arguments: str) -> list[str]:
    """The command line of this module."""
    return [sys.executable, "-m", "tests.bench.restart", *arguments]


def killed_under_load(url: str, records: int, transactions: int) -> None:
    """Fill a chain and kill the process amid its load, once it has acknowledged so many."""
    with subprocess.Popen(child("load", url, str(records)), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= transactions:
                break
        process.kill()
    assert process.returncode == -9, "the load ended by itself"


def reopened(url: str) -> dict[str, Any]:
    """`opened` in a fresh process."""
    found: dict[str, Any] = json.loads(subprocess.run(child("open", url), capture_output=True, text=True, check=True).stdout)
    return found


def main() -> None:
    """Be one of the two processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["load", "open"])
    parser.add_argument("url")
    parser.add_argument("records", type=int, nargs="?", default=0)
    options = parser.parse_args()
    if options.what == "load":
        load(options.url, options.records)
    else:
        print(json.dumps(opened(options.url)))


if __name__ == "__main__":
    main()
