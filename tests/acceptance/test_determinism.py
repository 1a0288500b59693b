"""The same transactions give the same chain: on any machine, on both databases, across restarts, however blocks are cut."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ledger.engine.embedded import Engine
from ledger.machine.accounts import ACCOUNTS
from ledger.machine.escrow import METERS, PURSES
from ledger.machine.machine import Machine
from ledger.protocol.encoding import encode
from ledger.protocol.genesis import Genesis
from marketplace.market.module import Market
from tests.acceptance.replaying import Recorded, hash_of, load, recorded, save
from tests.ledger.engine.ledgers import ManualClock, eventually
from tests.ledger.machine.chain import genesis
from tests.ledger.machine.test_history import batch
from tests.ledger.machine.test_replicas import Renting
from tests.marketplace.market.world import World

ROOT = Path(__file__).resolve().parents[2]
ZONES = ("UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Kiritimati", "Europe/Lisbon")
LOCALES = ("C", "C.UTF-8", "tr_TR.UTF-8", "POSIX")


@pytest.fixture(scope="module")
def chain() -> Recorded:
    """A random market with every message of the ledger in it."""
    return recorded(seed=3, blocks=90)


@pytest.mark.slow
def test_twenty_surroundings_agree(chain: Recorded, tmp_path: Path) -> None:
    """20 hash seeds, five time zones and four locales: every receipt, event, root and record is the same."""
    path = tmp_path / "chain.json"
    save(chain, path)
    expected = hash_of(load(path))

    def elsewhere(number: int) -> str:
        changes = {"PYTHONHASHSEED": str(number * 7919), "TZ": ZONES[number % 5], "LC_ALL": LOCALES[number % 4]}
        done = subprocess.run(
            [sys.executable, "-m", "tests.acceptance.replaying", str(path)],
            cwd=ROOT, env=os.environ | changes, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (changes, done.stderr)
        return done.stdout.strip()

    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(elsewhere, range(20))) == {expected}


def _through_an_engine(chain: Recorded, url: str, restart_every: int) -> Iterator[bytes]:
    """Play the chain's transactions at their times, with restarts; then every block, receipts and events included."""
    clock = ManualClock(chain.genesis.time_ms)
    engine = Engine.open(url, chain.genesis, [Market()], clock=clock)
    last = b""
    try:
        for number, (at, raws) in enumerate(chain.blocks, 1):
            if number % restart_every == 0:
                engine.close()
                engine = Engine.open(url, None, [Market()], clock=clock)
            clock.now = at
            _let_due_things_happen(engine, at, last)
            if raws:
                clock.now = at + 1
                for future in engine.submit_many(raws):
                    future.exception(60)  # also what a block would refuse: it must be refused alike
                last = raws[0]
        yield from (encode(block.result) for block in engine.blocks(1, 10_000))
    finally:
        engine.close()


def _let_due_things_happen(engine: Engine, now_ms: int, repeat: bytes) -> None:
    """Wait until what has fallen due has its block; a repeated transaction wakes the writer."""

    def nothing_due() -> bool:
        if repeat:
            engine.submit(repeat).exception(60)
        with engine.read() as machine:
            due = machine.next_due()
        return due is None or due > now_ms

    eventually(nothing_due, "a block with what has fallen due")


@pytest.mark.slow
@pytest.mark.postgres
def test_restarts_and_both_databases_agree(chain: Recorded, tmp_path: Path, postgres_url: str) -> None:
    """Through SQLite without a pause, SQLite and PostgreSQL with restarts: each block is the same, byte for byte."""
    sqlite = [f"sqlite:///{tmp_path}/{name}.db" for name in ("one", "two")]
    one = list(_through_an_engine(chain, sqlite[0], 10**9))
    assert len(one) > 150
    assert one == list(_through_an_engine(chain, sqlite[1], 7))
    assert one == list(_through_an_engine(chain, postgres_url, 23))


def test_a_snapshot_anywhere_goes_on_alike(chain: Recorded) -> None:
    """From a snapshot of any tenth block the rest of the chain gives the same headers."""
    whole = Machine(chain.genesis, [Market()])
    others: list[Machine] = []
    for number, (at, raws) in enumerate(chain.blocks, 1):
        for machine in (whole, *others):
            machine.apply_block(at, [machine.codec.decode(raw) for raw in raws], verified=True)
        assert {machine.head for machine in others} <= {whole.head}
        if number % (len(chain.blocks) // 6) == 0:
            others.append(Machine.restore(chain.genesis, [Market()], whole.snapshot()))
    assert len(others) >= 6


def _outcome(machine: Machine) -> dict[str, Any]:
    """Every record but the chain's own."""
    return {
        f"{name}/{table.key(record)}": record
        for name, table in machine.store.tables.items()
        if name != "chain"
        for record in machine.store.scan(table)
    }


def _ledger_history(seed: int, made: Genesis) -> list[tuple[int, list[bytes]]]:
    """Random transactions with escrow among them, at their times."""
    chance, now, out = random.Random(seed), made.time_ms, []
    for height in range(60):
        now += chance.choice([10, 70, 700, 9000, 90_000])
        out.append((now, batch(chance, now, height)))
    return out


@pytest.mark.parametrize("seed", range(6))
def test_empty_blocks_change_nothing(seed: int) -> None:
    """However many blocks without transactions lie between: the same codes, events and records, money to the unit.

    What falls due happens at its own due time, so it does not matter in which block.
    """
    chance = random.Random(f"{seed} cuts")
    plain, cut = Machine(genesis(), (Renting(),)), Machine(genesis(), (Renting(),))
    events: tuple[list[bytes], list[bytes]] = ([], [])
    codes: tuple[list[int], list[int]] = ([], [])
    for at, raws in _ledger_history(seed, genesis()):
        for between in sorted(chance.sample(range(cut.head.time_ms + 1, at), min(3, at - cut.head.time_ms - 1))):
            events[1].extend(encode(event) for event in cut.apply_block(between, []).events())
        for which, machine in enumerate((plain, cut)):
            result = machine.apply_block(at, [machine.codec.decode(raw) for raw in raws])
            events[which].extend(encode(event) for event in result.events())
            codes[which].extend(receipt.code for receipt in result.receipts)
    assert codes[0] == codes[1]
    assert events[0] == events[1]
    assert _outcome(plain) == _outcome(cut)
    assert plain.head.height < cut.head.height


@pytest.mark.parametrize("seed", range(3))
def test_blocks_of_any_size_move_the_same_money(seed: int) -> None:
    """One transaction a block, or all in one: the same codes and balances where time plays no part."""
    history = [raw for _, raws in _ledger_history(seed, genesis())[:30] for raw in raws]
    ends = []
    for size in (1, 7, len(history)):
        machine = Machine(genesis(parameters={"max_validity_ms": 600_000}), (Renting(),))
        codes: list[int] = []
        for at in range(0, len(history), size):
            block = [machine.codec.decode(raw) for raw in history[at : at + size]]
            result = machine.apply_block(machine.head.time_ms + 1, block)
            codes += [receipt.code for receipt in result.receipts]
        ends.append((codes, {record.address: record.balances for record in machine.store.scan(ACCOUNTS)}))
    assert ends[0] == ends[1] == ends[2]


@pytest.mark.parametrize("pause_ms", [7_000, 61_003])
def test_more_blocks_do_not_change_a_bill(pause_ms: int) -> None:
    """An active lease costs the same with a block for each heartbeat only and with blocks all the time."""
    bills = []
    for extra in (0, pause_ms):
        world = World(check=False)
        world.provider("pat")
        world.host()
        lease = world.active("ann", deposit=10**8)
        begun = world.now
        for beat in range(1, 40):
            at = begun + beat * 61_000
            while extra and world.now + extra < at:
                world.block(at=world.now + extra)
            world.ok("pat", world.beats("pat"), at=at)
        world.ok("pat", world.end(lease), at=begun + 40 * 61_000)
        store = world.machine.store
        bills.append((store.get(METERS, lease), [purse.paid for purse in store.scan(PURSES)]))
    assert bills[0] == bills[1]
    assert bills[0][0].paid > 0
