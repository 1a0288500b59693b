"""What holds of any market, whatever its people do: invariants, money, replicas, replays, snapshots."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ledger.machine.accounts import ACCOUNTS
from ledger.machine.escrow import METERS, PURSES
from ledger.machine.machine import Machine
from marketplace.market.module import Market
from marketplace.market.tables import DEVICES, LEASES
from marketplace.protocol.records import DeviceState, LeaseState
from tests.marketplace.market.chaos import Chaos, settle
from tests.marketplace.market.world import NAMES, START, World, genesis

ROOT = Path(__file__).resolve().parents[3]
BLOCKS = 110


def replay(world: World, machine: Machine) -> str:
    """Apply a world's blocks to another machine from where it stands; the last block's hash."""
    for time, raws in world.blocks[machine.head.height :]:
        machine.apply_block(time, [machine.codec.decode(raw) for raw in raws])
    return machine.head.hash


def fresh(world: World) -> Machine:
    """A machine at height 0 of the same chain."""
    return Machine(world.machine.genesis, [Market()])


@pytest.mark.parametrize("seed", range(8))
def test_random_markets_keep_their_invariants(seed: int) -> None:
    """After each block every invariant holds; replayed, and restored from a snapshot midway, it is the same chain."""
    print(f"seed {seed}")
    chaos = Chaos(seed)
    world = chaos.run(BLOCKS // 2)
    middle = world.machine.snapshot()
    chaos.run(BLOCKS // 2)
    assert replay(world, fresh(world)) == world.machine.head.hash
    assert replay(world, Machine.restore(world.machine.genesis, [Market()], middle)) == world.machine.head.hash

    settle(world)
    assert {lease.state for lease in world.leases()} <= {LeaseState.CLOSED}
    assert DeviceState.LEASED not in {claim.state for claim in world.machine.store.scan(DEVICES)}
    check_money(world)


def check_money(world: World) -> None:
    """Closed leases: what came in is paid, charged, or back, to the unit; nothing is made or lost."""
    store = world.machine.store
    for purse in store.scan(PURSES):
        assert purse.deposited == purse.paid + purse.charged + purse.refunded + purse.withdrawn
        assert purse.balance == 0
    for lease in store.scan(LEASES):
        meter = store.get(METERS, LEASES.key(lease))
        assert meter is not None
        assert meter.paid == lease.rate_per_hour * meter.up_ms // 3_600_000
        assert meter.up_ms <= lease.closed_ms - lease.created_ms
    total = sum(account.balances.get("ucredit", 0) for account in store.scan(ACCOUNTS))
    assert total == len(NAMES) * 10**12


def test_chaos_reaches_everything() -> None:
    """The random markets are worth something: leases in all states, all ends, dry purses, silence, gaps, reopened orders."""
    seen: Counter[str] = Counter()
    for seed in range(8):
        world = Chaos(seed).run(BLOCKS)
        for result in world.results:
            for event in result.events():
                seen[type(event).__name__] += 1
                for field in ("reason", "state"):
                    seen[str(getattr(event, field, ""))] += 1
    wanted = {
        "silence", "gap", "gap_over", "purse_dry", "purse_funded", "insufficient_funds", "not_activated", "term_over", "policy",
        "manifest_missing", "owner", "expired", "cancelled", "deadline", "OrderWaiting", "LeaseReleased",
        "active", "down", "paused",
    }  # fmt: skip
    missing = wanted - set(seen)
    assert not missing


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_the_same_under_any_hash_seed(hash_seed: str, tmp_path: Path) -> None:
    """A replay in another process, with another order of hashes and another locale and time zone, gives the same chain."""
    del tmp_path
    script = "from tests.marketplace.market.chaos import Chaos\nworld = Chaos(3).run(40)\nprint(world.machine.head.hash)\n"
    env = {**os.environ, "PYTHONHASHSEED": hash_seed, "TZ": "Asia/Kathmandu", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == Chaos(3).run(40).machine.head.hash


def test_an_empty_market_is_the_same_everywhere() -> None:
    """The genesis of a market gives one state root."""
    machine = Machine(genesis(), [Market()])
    assert (machine.head.height, machine.head.time_ms) == (0, START)
    assert machine.head.state_root == Machine(genesis(), [Market()]).head.state_root
