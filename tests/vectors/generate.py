"""Golden vectors: bytes, ids, addresses, roots and proofs that must never change within a protocol version.

`python -m tests.vectors.generate` writes them anew; a change of these files is a change of consensus.
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from ledger.machine import bonds, escrow
from ledger.machine.accounts import NETWORK_ACCOUNT
from ledger.machine.machine import Machine
from ledger.protocol import keys
from ledger.protocol.block import Header, Receipt
from ledger.protocol.encoding import encode
from ledger.protocol.genesis import Allocation, Genesis
from ledger.protocol.messages import Delegate, Deposit, SetParameter, Settle, Transfer, Upgrade
from ledger.protocol.receipts import sign_checkpoint, sign_receipt, statement_bytes
from ledger.protocol.transaction import rotation_bytes
from marketplace.market.module import Market
from tests.ledger import independent
from tests.ledger.machine.chain import ADA, BOB, CAT, CHAIN, CREDIT, GOVERNOR, START, Chain, User, genesis
from tests.vectors import market_2

FOLDER = Path(__file__).resolve().parent


def accounts() -> list[dict[str, str]]:
    """Seeds with their keys and addresses."""
    return [{"seed": u.seed.hex(), "key": u.key, "address": u.address} for u in (ADA, BOB, CAT, User("dora"))]


def transactions() -> list[dict[str, Any]]:
    """Signed bytes with their ids."""
    chain = Chain(protocol=1)
    raws = {
        "transfer": chain.raw(ADA, Transfer(amount="5", denomination=CREDIT, to=BOB.address)),
        "offline": chain.raw(ADA, Deposit(amount="7", purse="a/1"), nonce="", sequence=1, valid_until=0),
        "two messages": chain.raw(
            GOVERNOR,
            SetParameter(name="take_rate_ppm", value=10_000),
            Delegate(expires_ms=START + 9, key=CAT.key, spend_per_day="0", verbs=("Transfer", "*")),
        ),
    }
    return [{"name": name, "raw": raw.decode(), "id": chain.machine.codec.decode(raw).id} for name, raw in raws.items()]


def history(protocol: int = 1) -> Chain:
    """A short history that touches each of the ledger's tables, under the rules of a protocol."""
    chain = Chain(protocol=protocol)
    chain.block(
        chain.sign(ADA, Transfer(amount="5", denomination=CREDIT, to=User("dora").address)),
        chain.sign(GOVERNOR, SetParameter(name="take_rate_ppm", value=10_000)),
        chain.sign(ADA, Delegate(expires_ms=START + 10**6, key=CAT.key, spend_per_day="50", verbs=("Transfer",))),
    )
    chain.act(
        lambda ctx: escrow.open_purse(ctx, "a/1", ADA.address, CREDIT, 10**6),
        lambda ctx: escrow.add_meter(ctx, "a/1/m", "a/1", BOB.address, 7_200_000),
        lambda ctx: escrow.start_meter(ctx, "a/1/m"),
    )
    chain.block(chain.sign(BOB, Deposit(amount="70", purse="a/1")), chain.sign(ADA, Deposit(amount="0", purse="a/1")))
    last = chain.sign(BOB, Transfer(amount="1", denomination=CREDIT, to=ADA.address), valid_until=START + 800_000)
    chain.block(last, at=START + 700_000)
    return chain


def blocks(protocol: int = 1) -> dict[str, Any]:
    """The genesis, the head after the history, the whole state, and the root by the independent builder."""
    chain = history(protocol)
    machine: Machine = chain.machine
    records = {
        f"{table.name}/{table.key(record)}": encode(record).decode()
        for table in machine.store.tables.values()
        for record in machine.store.scan(table)
    }
    minutes = dict(machine._remembered.ids())
    return {
        "genesis": encode(genesis(protocol=protocol)).decode(),
        "genesis_hash": genesis(protocol=protocol).hash,
        "head": json.loads(encode(machine.head)),
        "head_hash": machine.head.hash,
        "records": records,
        "ids": {str(minute): ids for minute, ids in minutes.items()},
        "independent_root": independent.state_root({k: v.encode() for k, v in records.items()}, minutes),
    }


def upgrade() -> dict[str, Any]:
    """A chain that goes from protocol 1 to 2 at height 4, and what rate buckets make of the same load on both sides."""
    poor = User("poor")
    allocations = [Allocation(address=u.address, amount=a, denomination=CREDIT) for u, a in ((ADA, "20000000"), (GOVERNOR, "9"))]
    chain = Chain(protocol=1, allocations=tuple(allocations), parameters={"bucket_burst": 50})
    chain.ok(ADA, Transfer(amount="7", denomination=CREDIT, to=poor.address))
    chain.ok(GOVERNOR, Upgrade(height=4, protocol=2))
    heads, codes = [], []
    for _ in range(3):
        load = [chain.sign(u, Transfer(amount="1", denomination=CREDIT, to=ADA.address)) for u in (ADA, poor) for _ in range(60)]
        load += [chain.sign(ADA, Transfer(amount="1", denomination=CREDIT, to=User(f"new {chain.now}").address))]
        result = chain.block(*load, at=chain.now + 600)
        heads.append(json.loads(encode(result.header)))
        codes.append([receipt.code for receipt in result.receipts])
    records = {user.address: chain.machine.prove(f"account/{user.address}").value for user in (ADA, poor)}
    return {"heads": heads, "codes": codes, "records": records}


def pledges() -> dict[str, Any]:
    """Records of bonds, of earnings held back and of a meter with a shortest term, and the root over all of the state."""
    chain = Chain(parameters={"backdate_ms": 0}, protocol=1)
    chain.act(
        lambda ctx: bonds.post(ctx, BOB.address, CREDIT, 900),
        lambda ctx: bonds.ask_back(ctx, BOB.address, CREDIT, 400, START + 10**6),
        lambda ctx: bonds.cut(ctx, BOB.address, CREDIT, 50, NETWORK_ACCOUNT, "a/1/m"),
        lambda ctx: escrow.open_purse(ctx, "a/1", ADA.address, CREDIT, 10**6),
        lambda ctx: escrow.add_meter(ctx, "a/1/m", "a/1", BOB.address, 7_200_000, 5_000),
        lambda ctx: escrow.start_meter(ctx, "a/1/m"),
        lambda ctx: escrow.hold_back(ctx, "a/1/m", 1_000, START + 10**6),
    )
    chain.block(chain.sign(BOB, Settle(purse="a/1"), valid_until=START + 60_000), at=START + 3_000)
    chain.act(lambda ctx: escrow.refund_held(ctx, "a/1/m", 300))
    machine = chain.machine
    names = (f"bond/{BOB.address}/{CREDIT}", "held/a/1/m", "meter/a/1/m", "purse/a/1")
    return {"head": json.loads(encode(machine.head)), "records": {name: machine.prove(name).value for name in names}}


def proofs() -> list[dict[str, Any]]:
    """Proofs of presence and absence under the head's root."""
    machine = history().machine
    names = [f"account/{ADA.address}", "purse/a/1", "chain/chain", "account/nobody", "purse/a/2"]
    return [{"root": machine.head.state_root, "proof": json.loads(encode(machine.prove(name)))} for name in names]


def log() -> dict[str, Any]:
    """The blocks of a market from before there were bonds, as they were stored, with the hash and root that they lead to."""
    stored = json.loads((FOLDER / "log.json").read_text())
    machine = Machine(msgspec.convert(stored["genesis"], Genesis), [Market()])
    for time_ms, raws in stored["blocks"]:
        machine.apply_block(time_ms, [machine.codec.decode(raw.encode()) for raw in raws])
    machine.invariants()
    return stored | {"head": machine.head.hash, "root": machine.head.state_root}


def receipts() -> list[dict[str, Any]]:
    """What a node with CAT's key signs about a made-up block: two receipts and a checkpoint."""
    names = ("parent", "results", "state_root", "transactions")
    hashes = {name: digit * 64 for name, digit in zip(names, "1234", strict=True)}
    header = Header(chain_id=CHAIN, height=7, protocol=1, time_ms=START, **hashes)
    found = (Receipt(id="a" * 64, height=7, index=0, code=0), Receipt(id="b" * 64, height=7, index=1, code=200))
    statements = [
        *(sign_receipt(receipt, header, CAT.seed, CAT.key) for receipt in found),
        sign_checkpoint(header, CAT.seed, CAT.key),
    ]
    return [{"signs": statement_bytes(s.said).hex(), "statement": json.loads(encode(s))} for s in statements]


def vectors() -> dict[str, Any]:
    """All sets by file name."""
    return {
        "accounts": {
            "accounts": accounts(),
            "network": NETWORK_ACCOUNT,
            "rotation": keys.sign(CAT.seed, rotation_bytes(CHAIN, ADA.address)).hex(),
        },
        "transactions": transactions(),
        "state": blocks(),
        "state-2": blocks(protocol=2),
        "upgrade": upgrade(),
        "proofs": proofs(),
        "pledges": pledges(),
        "log": log(),
        "receipts": receipts(),
        "market-2": market_2.story(),
    }


if __name__ == "__main__":
    for name, value in vectors().items():
        (FOLDER / f"{name}.json").write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
