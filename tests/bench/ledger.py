"""The ledger's figures: durable transactions a second against the Ed25519 rate of both cores, answers, restart, proofs.

`python -m tests.bench.ledger --records 1000,100000,1000000` prints one JSON line a figure.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from ledger.engine.asked import Done, Outcome
from ledger.engine.checkpoint import replay
from ledger.engine.embedded import Engine
from ledger.engine.log import Log
from ledger.machine import snapshot
from ledger.machine.accounts import ACCOUNTS
from ledger.machine.machine import Machine
from ledger.protocol.block import Receipt
from ledger.protocol.encoding import encode
from tests.bench.chains import Openings, fill, first_of, senders_of, workload
from tests.bench.restart import killed_under_load, reopened

TRANSACTIONS = 40_000
PART, UNDER_WAY = 500, 8
"""Transactions are handed in 500 at a time, 4,000 at most before they are answered."""

KILLED_AFTER = 30_000
GOALS = {1_000: 0.65, 100_000: 0.60, 1_000_000: 0.52}

_VERIFY = """
import sys, time
from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
public, secret = crypto_sign_seed_keypair(b"7" * 32)
signed = [crypto_sign(n.to_bytes(32, "big"), secret) for n in range(500)]
sys.stdin.readline()
start, done = time.perf_counter(), 0
while time.perf_counter() - start < 1.5:
    for one in signed:
        crypto_sign_open(one, public)
    done += len(signed)
print(done / (time.perf_counter() - start))
"""


def verify_rate() -> float:
    """Signatures a second that the same library checks in two processes and that do nothing else."""
    pipe = subprocess.PIPE
    workers = [subprocess.Popen([sys.executable, "-c", _VERIFY], stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return sum(float(worker.communicate()[0]) for worker in workers)


def throughput(engine: Engine, raws: Sequence[bytes]) -> float:
    """Durable transactions a second, a few thousand of them under way at any time."""
    free = threading.Semaphore(UNDER_WAY)
    failed: list[object] = []

    def asked(count: int) -> Done:
        left = count

        def done(outcomes: list[tuple[int, Outcome]]) -> None:
            nonlocal left
            failed.extend(o for _, o in outcomes if isinstance(o, Exception) or not o.ok)
            left -= len(outcomes)
            if not left:
                free.release()

        return done

    start = time.perf_counter()
    for at in range(0, len(raws), PART):
        part = raws[at : at + PART]
        assert free.acquire(timeout=300)
        engine.submit_batch(part, asked(len(part)))
    for _ in range(UNDER_WAY):
        assert free.acquire(timeout=300)
    assert not failed, failed[0]
    return len(raws) / (time.perf_counter() - start)


def answer_times(engine: Engine, raws: Sequence[bytes], per_s: int = 200) -> list[float]:
    """Milliseconds from the moment a transaction was due to its durable receipt; they come whether or not answers do."""
    times: list[float] = []
    lock = threading.Lock()
    start = time.perf_counter() + 0.05
    futures = []
    for number, raw in enumerate(raws):
        due = start + number / per_s
        while (left := due - time.perf_counter()) > 0:
            time.sleep(left)

        def done(_: Future[Receipt], due: float = due) -> None:
            with lock:
                times.append((time.perf_counter() - due) * 1000)

        futures.append(engine.submit(raw))
        futures[-1].add_done_callback(done)
    for future in futures:
        assert future.result(60).ok
    return sorted(times)


def figure(
    name: str, value: float, unit: str, limit: float | None = None, goal: str | None = None, met: bool | None = None
) -> dict[str, object]:
    """A figure as the table wants it."""
    ratio = None if limit is None else round(value / limit, 3)
    rounded = round(value) if value >= 100 else round(value, 3)
    shown = None if limit is None else round(limit)
    return {"name": name, "value": rounded, "unit": unit, "limit": shown, "ratio": ratio, "goal": goal, "met": met}


def of_size(records: int, folder: Path) -> Iterator[dict[str, object]]:
    """The figures with so many records in state."""
    senders = senders_of(records)
    url = f"sqlite:///{folder}/chain-{records}.db"
    engine = Engine.open(url, first_of(senders), [Openings()])
    fill(engine, records, senders)
    with engine.read() as machine:
        filled = machine.snapshot()
    throughput(engine, workload(engine, senders, records, 2_000))
    rates = []
    for _ in range(2):
        raws = workload(engine, senders, records, TRANSACTIONS // 2)
        # The limit in the same moments as the figure: other work on the machine meets both.
        limit = verify_rate()
        rates.append((throughput(engine, raws), (limit + verify_rate()) / 2))
    rate, limit = max(rates, key=lambda pair: pair[0] / pair[1])
    goal = GOALS.get(records, 0.6)
    yield figure(f"durable transactions, {records:,} records", rate, "tx/s", limit, f"≥ {goal} × verify", rate / limit >= goal)
    times = answer_times(engine, workload(engine, senders, records, 800))
    for name, share, most in (("p50", 0.5, None), ("p99", 0.99, 20)):
        value = times[int(len(times) * share)]
        met = None if most is None else value <= most
        yield figure(f"answer at 200/s, {name}, {records:,} records", value, "ms", None, f"≤ {most} ms" if most else None, met)
    with engine.read() as machine:
        start = time.perf_counter()
        proofs = [machine.prove(f"{ACCOUNTS.name}/{user.address}") for user in senders[:200]]
        spent = (time.perf_counter() - start) / len(proofs)
    yield figure(f"proof, {records:,} records", max(len(encode(p)) for p in proofs), "bytes")
    yield figure(f"time of a proof, {records:,} records", spent * 1e6, "µs")
    engine.close()
    yield from replay_figures(url, filled, records, limit)
    yield from restart_figures(f"sqlite:///{folder}/restart-{records}.db", records)


def replay_figures(url: str, filled: bytes, records: int, limit: float) -> Iterator[dict[str, object]]:
    """A replay of the transfers."""
    log = Log(url)
    machine = Machine.restore(snapshot.load(filled).genesis, [Openings()], filled)
    first = machine.head.height + 1
    start = time.perf_counter()
    replay(machine, log)
    spent = time.perf_counter() - start
    count = sum(len(block.raws) for block in log.all_blocks(first))
    log.close()
    yield figure(f"replay, {records:,} records", count / spent, "tx/s", limit)


def restart_figures(url: str, records: int) -> Iterator[dict[str, object]]:
    """A restart after kill -9 amid full load, and the memory it takes; each process does nothing else."""
    killed_under_load(url, records, KILLED_AFTER)
    found = min((reopened(url) for _ in range(2)), key=lambda run: run["seconds"])
    most = 1.0 if records <= 100_000 else 4.0
    size, seconds = f"{records:,} records of {found['record_bytes']} B", found["seconds"]
    yield figure(f"restart after kill -9 under load, {size}", seconds, "s", None, f"≤ {most:g} s", seconds <= most)
    memory = found["bytes"] / found["records"]
    goal, met = ("≤ 600 B", memory <= 600) if records > 100_000 else (None, None)
    yield figure(f"memory after it, {size}", memory, "bytes/record", None, goal, met)


def figures(sizes: Sequence[int] = (1_000, 100_000, 1_000_000)) -> Iterator[dict[str, object]]:
    """Every figure at every size."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for records in sizes:
            yield from of_size(records, Path(folder))


def main() -> None:
    """Print the figures as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", default="1000,100000,1000000")
    for found in figures([int(n) for n in parser.parse_args().records.split(",")]):
        print(json.dumps(found, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
