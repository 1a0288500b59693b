"""A small chain of protocol 1 as an export: under any later software it has to replay to the same roots.

`python -m tests.vectors.protocol_1` writes `protocol-1.export`, which was made by software that knew protocol 1 alone.
What it makes today has to be the same, byte for byte.
"""

from pathlib import Path
from typing import Any

import msgspec

from ledger.machine.machine import Machine
from ledger.protocol import keys
from ledger.protocol.encoding import encode
from ledger.protocol.genesis import Allocation, DenominationSpec, Genesis
from ledger.protocol.messages import (
    Burn,
    Delegate,
    Deposit,
    Mint,
    Revoke,
    RotateKey,
    SetParameter,
    Settle,
    Transfer,
    Upgrade,
    Withdraw,
)
from ledger.protocol.transaction import Transaction, rotation_bytes, sign_transaction
from marketplace.market.module import Market
from marketplace.protocol import messages as m
from tests.marketplace.market.world import (
    ADDRESS,
    CHAIN,
    CREDIT,
    NAMES,
    SEEDS,
    START,
    World,
    device,
    device_id,
    gpu,
    group,
    offer,
    unit,
)

FILE = Path(__file__).resolve().with_name("protocol-1.export")
DAY = 86_400_000

assert device_id(CHAIN, "x") == device("x").id, "devices are named after the chain of the world"


def first() -> Genesis:
    """The genesis: what it does not say is as protocol 1 has it."""
    return Genesis(
        chain_id=CHAIN,
        denominations=tuple(DenominationSpec(issuer=ADDRESS["lee"], name=name) for name in ("ucredit", "uother")),
        governance=ADDRESS["lee"],
        time_ms=START,
        allocations=tuple(Allocation(address=ADDRESS[n], amount=str(10**4 * CREDIT), denomination="ucredit") for n in NAMES),
        parameters={"backdate_ms": 0, "bond_cooling_ms": 60_000, "bond_cut_early": 100, "bond_minimum": 1_000, "bucket_burst": 9},
        protocol=1,
    )


def _signed(world: World, who: str, seed: bytes, *messages: Any, **changes: Any) -> bytes:
    """A transaction of an account by another key than its first, or with a sequence."""
    world._nonce += 1
    fields = {
        "chain_id": CHAIN, "messages": messages, "nonce": f"{world._nonce:032x}", "principal": ADDRESS[who], "sequence": 0,
        "signer": keys.public_key(seed).hex(), "valid_until": world.now + 60_000,
    }  # fmt: skip
    return sign_transaction(Transaction(**(fields | changes)), seed)


def _money(world: World) -> None:
    """Transfers, an issuer's messages, keys, an offline transaction, refusals, an empty bucket."""
    transfer = Transfer(amount="5", denomination="ucredit", to=ADDRESS["bob"])
    world.ok("ann", transfer, Transfer(amount="7", denomination="ucredit", to=keys.address_of(keys.public_key(b"\x07" * 32))))
    world.ok(
        "lee",
        Mint(amount="900", denomination="uother", to=ADDRESS["ann"]),
        Mint(amount="4", denomination="uother", to=ADDRESS["lee"]),
    )
    world.ok("lee", Burn(amount="4", denomination="uother"), SetParameter(name="take_rate_ppm", value=10_000))
    world.ok(
        "ann", Delegate(expires_ms=START + DAY, key=keys.public_key(SEEDS["cat"]).hex(), spend_per_day="50", verbs=("Transfer",))
    )
    spends = [_signed(world, "ann", SEEDS["cat"], Transfer(amount="30", denomination="ucredit", to=ADDRESS["cat"])) for _ in "ab"]
    assert [r.code for r in world.block(*spends).receipts] == [0, 203]
    world.ok("ann", Revoke(key=keys.public_key(SEEDS["cat"]).hex()))
    world.block(_signed(world, "bob", SEEDS["bob"], transfer, nonce="", sequence=1, valid_until=0))
    new = b"\x09" * 32
    proof = keys.sign(new, rotation_bytes(CHAIN, ADDRESS["aud"])).hex()
    world.ok("aud", RotateKey(key=keys.public_key(new).hex(), proof=proof))
    assert world.block(_signed(world, "aud", new, transfer)).receipts[0].ok
    many = [world.raw("cat", transfer) for _ in range(11)]
    assert [r.code for r in world.block(*many, many[0]).receipts] == [0] * 9 + [110, 110, 108]
    assert world.code("ann", Transfer(amount=str(10**15), denomination="ucredit", to=ADDRESS["bob"])) == 200
    assert world.code("ann", SetParameter(name="take_rate_ppm", value=1)) == 206


def _market(world: World) -> None:
    """Bonds, hosts, bids, orders, leases that end in different ways, purses."""
    world.provider("pat", region="us")
    world.ok("pat", m.PostBond(amount="5000", denomination="ucredit"))
    world.host("pat", "h1", bid=offer(device("a"), device("b")))
    world.provider("pia")
    world.ok("pia", m.PostBond(amount="2000", denomination="ucredit"))
    world.host("pia", "h1", bid=offer(device("c", "a100")))
    world.ok("pol", m.Attest(attributes={"tier": "gold"}, provider=ADDRESS["pat"]))
    lease = world.active("ann", deposit=50 * CREDIT)
    world.ok("bob", Deposit(amount="1000", purse=f"{ADDRESS['ann']}/1"))
    world.live_until(world.now + 120_000, "pat", "pia")
    world.ok("pat", Settle(purse=f"{ADDRESS['ann']}/1"))
    world.ok("bob", Withdraw(amount="400", purse=f"{ADDRESS['ann']}/1"))
    world.ok("pat", world.down(lease, world.now))
    world.ok("pat", world.up(lease))
    second = world.active("bob", group(unit(gpu(1, "a100"))), dseq=2, deposit=20 * CREDIT)
    waits = world.deploy("cat", group(unit(gpu(8, "h100"))), dseq=3)
    world.ok("pat", world.end(lease, "host_failed"))
    world.ok("pat", world.released(lease))
    world.ok("cat", m.CloseDeployment(dseq=3))
    assert world.deployment(waits).state == "closed"
    world.ok("bob", m.CloseDeployment(dseq=2))
    world.ok("pia", world.released(second), m.CancelBid(host="h1", version=world.book_bid("pia").version))
    world.ok("pia", m.WithdrawBond(amount="2000", denomination="ucredit"))
    world.run_until(world.now + 70_000)


def history() -> World:
    """All of it; the last block plans an upgrade that never begins."""
    world = World(Machine(first(), [Market()]))
    _money(world)
    _market(world)
    world.ok("lee", Upgrade(height=10**6, protocol=2))
    return world


def export() -> bytes:
    """The chain as `gpubid ledger verify` takes it."""
    world = history()
    lines = [encode({"format": "gpubid/export/v1", "genesis": first()})]
    for (_, raws), result in zip(world.blocks, world.results, strict=True):
        lines.append(encode({"header": result.header, "transactions": [msgspec.Raw(raw) for raw in raws]}))
    lines.append(encode({"hash": world.machine.head.hash, "height": world.machine.head.height}))
    return b"\n".join(lines) + b"\n"


if __name__ == "__main__":
    FILE.write_bytes(export())
