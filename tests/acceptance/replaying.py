"""A recorded chain of ledger and market messages, and its replay in a process of any surroundings.

`python -m tests.acceptance.replaying FILE` replays the blocks in FILE under the locale and time zone that the environment
names, and prints one hash over every receipt, event, header and record.
"""

import contextlib
import dataclasses
import json
import locale
import random
import sys
import time
from pathlib import Path

import msgspec

from ledger.machine.machine import Machine
from ledger.protocol import keys
from ledger.protocol.encoding import digest, encode
from ledger.protocol.genesis import Genesis
from ledger.protocol.messages import Burn, Delegate, Message, Mint, Revoke, RotateKey, SetParameter, Transfer, Upgrade, Withdraw
from ledger.protocol.transaction import rotation_bytes
from marketplace.market.module import Market
from tests.marketplace.market.chaos import Chaos
from tests.marketplace.market.world import ADDRESS, CHAIN, SEEDS, World


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A genesis and the blocks after it: time and signed bytes."""

    genesis: Genesis
    blocks: list[tuple[int, list[bytes]]]


def recorded(seed: int, blocks: int) -> Recorded:
    """Blocks of a random market with every message of the ledger among them."""
    chaos = Chaos(seed)
    chaos.world.check = False
    chance = random.Random(seed)
    for height in range(blocks):
        chaos.run(1)
        who, message = _others(chance, chaos.world, height)
        chaos.world.block(chaos.world.raw(who, message, at=chaos.world.now + 5), at=chaos.world.now + 5)
    return Recorded(chaos.world.machine.genesis, chaos.world.blocks)


def _others(chance: random.Random, world: World, height: int) -> tuple[str, Message]:
    """What the market's people do not do by themselves."""
    key = keys.public_key(SEEDS["cat"]).hex()
    new = bytes([9]) * 32
    proof = keys.sign(new, rotation_bytes(CHAIN, ADDRESS["aud"])).hex()
    version = 0 if height % 14 < 7 else 1
    choices: list[tuple[str, Message]] = [
        ("lee", Mint(amount="900", denomination="uother", to=ADDRESS["bob"])),
        ("lee", Burn(amount="7", denomination="uother")),
        ("ann", Delegate(expires_ms=world.now + 10**6, key=key, spend_per_day="500", verbs=("Transfer", "*"), version=version)),
        ("ann", Revoke(key=key)),
        ("lee", SetParameter(name="take_rate_ppm", value=chance.choice((0, 20_000)))),
        ("bob", Transfer(amount=str(chance.randrange(10**4)), denomination="uother", to=ADDRESS["cat"])),
        ("bob", Withdraw(amount="5", purse=f"{ADDRESS['bob']}/1")),
        ("lee", Upgrade(height=height * 3 + 40, protocol=1)),
        ("aud", RotateKey(key=keys.public_key(new).hex(), proof=proof)),
    ]
    # The rotated key signs nothing more here: it comes late, so that its account has acted before.
    return choices[height % len(choices) if height > 30 else height % (len(choices) - 1)]


def save(chain: Recorded, path: Path) -> None:
    """Write a chain to a file."""
    blocks = [[at, [raw.decode() for raw in raws]] for at, raws in chain.blocks]
    path.write_text(json.dumps({"genesis": encode(chain.genesis).decode(), "blocks": blocks}))


def load(path: Path) -> Recorded:
    """The chain in a file."""
    found = json.loads(path.read_text())
    blocks = [(at, [raw.encode() for raw in raws]) for at, raws in found["blocks"]]
    return Recorded(msgspec.json.decode(found["genesis"], type=Genesis), blocks)


def hash_of(chain: Recorded) -> str:
    """Hash of all that a replay gives, order included."""
    machine = Machine(chain.genesis, [Market()])
    parts = []
    for at, raws in chain.blocks:
        parts.append(encode(machine.apply_block(at, [machine.codec.decode(raw) for raw in raws])))
    for table in machine.store.tables.values():
        parts.extend(encode(record) for record in machine.store.scan(table))
    return digest("replay", *parts).hex()


if __name__ == "__main__":
    with contextlib.suppress(locale.Error):  # not every machine has every locale
        locale.setlocale(locale.LC_ALL, "")
    time.tzset()
    print(hash_of(load(Path(sys.argv[1]))))
