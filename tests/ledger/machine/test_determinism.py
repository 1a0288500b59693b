"""The same blocks give the same root in other processes, under other hash seeds, time zones and locales."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ledger.machine import escrow
from ledger.protocol.encoding import digest, encode
from ledger.protocol.messages import Delegate, Deposit, Mint, SetParameter, Transfer, Withdraw
from tests.ledger.machine.chain import ADA, BOB, CAT, CREDIT, GOVERNOR, ISSUER, Chain, User

ROOT = Path(__file__).resolve().parents[3]


def history() -> str:
    """A fixed history over every part of the ledger; a hash of all its results."""
    chain = Chain()
    results = [
        chain.block(
            chain.sign(ISSUER, Mint(amount="9", denomination="uother", to=User("x").address)),
            chain.sign(GOVERNOR, SetParameter(name="take_rate_ppm", value=20_000)),
            chain.sign(ADA, Delegate(expires_ms=chain.now + 9000, key=CAT.key, spend_per_day="50", verbs=("Transfer", "*"))),
        ),
        chain.act(
            lambda ctx: escrow.open_purse(ctx, "a/1", ADA.address, CREDIT, 5000),
            lambda ctx: escrow.add_meter(ctx, "m1", "a/1", BOB.address, 1_234_567),
            lambda ctx: escrow.add_meter(ctx, "m2", "a/1", CAT.address, 7_654_321),
            lambda ctx: escrow.start_meter(ctx, "m1"),
            lambda ctx: escrow.start_meter(ctx, "m2"),
        ),
        chain.block(
            chain.sign(CAT, Transfer(amount="7", denomination=CREDIT, to=BOB.address), principal=ADA.address),
            chain.sign(BOB, Deposit(amount="70", purse="a/1")),
            chain.sign(ADA, Withdraw(amount="20", purse="a/1")),
            chain.sign(ADA, Transfer(amount="0", denomination=CREDIT, to=BOB.address)),
        ),
        chain.block(at=chain.now + 10_000),
        chain.block(at=chain.now + 4_000_000),
    ]
    chain.machine.invariants()
    return digest("history", *(encode(result) for result in results), chain.machine.snapshot()).hex()


@pytest.mark.parametrize(
    "changes",
    [
        {"PYTHONHASHSEED": "1", "TZ": "Asia/Kathmandu", "LC_ALL": "tr_TR.UTF-8"},
        {"PYTHONHASHSEED": "4242", "TZ": "America/St_Johns", "LC_ALL": "C"},
    ],
    ids=["seed-1", "seed-4242"],
)
def test_other_processes_agree(changes: dict[str, str]) -> None:
    """A process with another environment comes to the same results."""
    done = subprocess.run(
        [sys.executable, "-c", "from tests.ledger.machine.test_determinism import history; print(history())"],
        cwd=ROOT,
        env=os.environ | changes | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == [history()], done.stderr
