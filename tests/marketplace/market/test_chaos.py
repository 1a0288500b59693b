"""What holds of any market, whatever its people do: invariants, money, replicas, replays, snapshots."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ledger.machine.accounts import ACCOUNTS
from ledger.machine.bonds import BONDS
from ledger.machine.escrow import METERS, PURSES
from ledger.machine.held import HELD
from ledger.machine.machine import Machine
from marketplace.market import pulls
from marketplace.market.module import Market
from marketplace.market.tables import BIDS, DEPLOYMENTS, DEVICES, HOSTS, LEASES, ORDERS
from marketplace.protocol.events import (
    MARKET_EVENTS,
    BidGone,
    BidPut,
    DeploymentEnded,
    DeploymentOpened,
    LeaseChanged,
    LeaseEnded,
    LeaseMatched,
    LeaseReleased,
    OrderEnded,
    OrderOpened,
)
from marketplace.protocol.ids import parse_lease
from marketplace.protocol.messages import MARKET_MESSAGES
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
        hold = store.get(METERS, pulls.hold_of(LEASES.key(lease)))
        held_ms = hold.up_ms if hold is not None else 0
        assert hold is None or hold.paid == lease.hold_per_hour * held_ms // 3_600_000
        assert meter.up_ms + held_ms <= lease.closed_ms - lease.created_ms
    assert not store.count(HELD)
    total = sum(account.balances.get("ucredit", 0) for account in store.scan(ACCOUNTS))
    total += sum(bond.balance for bond in store.scan(BONDS) if bond.denomination == "ucredit")
    assert total == len(NAMES) * 10**12


@pytest.mark.parametrize("seed", range(4))
def test_events_suffice_to_rebuild_read_models(seed: int) -> None:
    """States of deployments, orders and leases, and which bids match, follow from the events alone."""
    world = Chaos(seed).run(BLOCKS)
    deployments: dict[str, str] = {}
    orders: dict[str, str] = {}
    leases: dict[str, tuple[str, bool]] = {}
    bids: set[tuple[str, str]] = set()
    for event in (event for result in world.results for event in result.events()):
        match event:
            case DeploymentOpened(deployment=id):
                deployments[id] = "active"
            case DeploymentEnded(deployment=id):
                deployments[id] = "closed"
            case OrderOpened(order=id):
                orders[id] = "open"
            case OrderEnded(order=id):
                orders[id] = "closed"
            case LeaseMatched(lease=id):
                orders[parse_lease(id).order] = "matched"
                leases[id] = ("matched", False)
            case LeaseChanged(lease=id, state=state):
                leases[id] = (state, False)
            case LeaseEnded(lease=id):
                orders[parse_lease(id).order] = "closed"
                leases[id] = ("closed", False)
            case LeaseReleased(lease=id):
                leases[id] = ("closed", True)
            case BidPut(provider=provider, host=host):
                bids.add((provider, host))
            case BidGone(provider=provider, host=host):
                bids.discard((provider, host))

    store = world.machine.store
    assert deployments == {DEPLOYMENTS.key(d): d.state for d in store.scan(DEPLOYMENTS)}
    assert orders == {ORDERS.key(o): o.state for o in store.scan(ORDERS)}
    assert leases == {LEASES.key(lease): (lease.state, lease.released) for lease in store.scan(LEASES)}
    silent = {HOSTS.key(host) for host in store.scan(HOSTS) if host.silent}
    assert bids == {(bid.provider, bid.host) for bid in store.scan(BIDS) if BIDS.key(bid) not in silent}


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
        "manifest_missing", "owner", "bond", "BondPosted", "BondAsked", "BondReturned", "BondCut", "expired", "cancelled",
        "deadline", "active", "down", "paused", "pulling", "EarningsHeld", "EarningsRefunded",
        *(kind.__name__ for kind in MARKET_EVENTS),
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


def test_every_message_has_its_handler() -> None:
    """The market handles the whole vocabulary of its protocol, and nothing else."""
    assert set(Market().messages) == set(MARKET_MESSAGES)
