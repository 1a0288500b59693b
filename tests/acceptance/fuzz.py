"""Millions of broken transactions through decoding and blocks: nothing but a numbered refusal may come of them.

`python -m tests.acceptance.fuzz --count 1000000` for the record. Transactions of a random market, of every kind, are taken
apart: values exchanged for others of the same name, for edges and for nonsense, keys left out, doubled or made up. Most are
signed anew, so that they reach the handlers; of others some bytes are changed. Invariants are checked in full now and then.
"""

import argparse
import copy
import json
import random
import time
from collections import Counter, defaultdict
from typing import Any

from ledger.machine.machine import Machine
from ledger.protocol import keys
from ledger.protocol.encoding import encode
from ledger.protocol.errors import Rejected
from ledger.protocol.transaction import Signed, signing_bytes
from marketplace.market.module import Market
from tests.acceptance.replaying import Recorded, recorded
from tests.marketplace.market.world import SEEDS

EDGES: tuple[Any, ...] = (
    0, 1, -1, 2**31, 2**53 - 1, 2**53, 2**63, 2**64, 0.5, True, None, "", "0", "00", "-1", "1e3", "1", str(2**63 - 1), str(2**63),
    "9" * 40, "a" * 300, "é", "\u2028", "\x00", "*", "/", "//", [], [[]], {}, {"type": "Transfer"}, ["a", "a"], {"*": "1"},
)  # fmt: skip
PER_BLOCK = 40
CHECK_EVERY = 200
SEED_OF = {keys.public_key(seed).hex(): seed for seed in (*SEEDS.values(), bytes([9]) * 32)}


class Fuzzer:
    """Breaks transactions of a chain, with one source of chance."""

    def __init__(self, chain: Recorded, seed: int) -> None:
        self.chance = random.Random(seed)
        self.machine = Machine(chain.genesis, [Market()])
        self.corpus = [json.loads(raw)["transaction"] for _, raws in chain.blocks for raw in raws]
        self.pool: dict[str, list[Any]] = defaultdict(list)
        for transaction in self.corpus:
            self._collect("", transaction)
        self.codes: Counter[str] = Counter()
        # The chain itself first: what is broken then meets deployments, leases and bids that are there.
        for at, raws in chain.blocks:
            self.machine.apply_block(at, [self.machine.codec.decode(raw) for raw in raws])

    def _collect(self, name: str, value: Any) -> None:
        if name:
            self.pool[name].append(value)
        inside = value.items() if isinstance(value, dict) else ((name, item) for item in value) if isinstance(value, list) else ()
        for key, item in inside:
            self._collect(key, item)

    def broken(self) -> bytes:
        """Signed bytes of a transaction of which something is broken."""
        chance = self.chance
        transaction = copy.deepcopy(chance.choice(self.corpus))
        others = chance.choices(self.corpus, k=chance.choice((0, 0, 0, 1, 3)))
        transaction["messages"] += [message for other in others for message in copy.deepcopy(other["messages"])]
        transaction["nonce"] = f"{chance.getrandbits(128):032x}"
        transaction["valid_until"] = self.machine.head.time_ms + 60_000
        for _ in range(chance.choice((0, 1, 1, 1, 2, 5))):
            self._break(transaction if chance.random() < 0.05 else transaction.get("messages"))
        try:
            content = encode(transaction)
        except (OverflowError, UnicodeEncodeError, ValueError):
            content = json.dumps(transaction, sort_keys=True, separators=(",", ":")).encode()
        seed = SEED_OF.get(str(transaction.get("signer")), bytes(32))
        signature = keys.sign(seed, signing_bytes(content)).hex()
        raw = b'{"signature":"' + signature.encode() + b'","transaction":' + content + b"}"
        if chance.random() < 0.1:
            at = chance.randrange(len(raw))
            raw = raw[:at] + chance.randbytes(chance.choice((0, 1, 1, 4))) + raw[at + chance.choice((0, 1, 1, 7)) :]
        return raw

    def _break(self, value: Any) -> None:
        """Go down at random and change one thing."""
        chance = self.chance
        while isinstance(value, dict | list) and value:
            key = chance.choice(sorted(value) if isinstance(value, dict) else range(len(value)))
            if isinstance(value[key], dict | list) and value[key] and chance.random() < 0.8:
                value = value[key]
                continue
            how = chance.random()
            if how < 0.55 and self.pool.get(str(key)):
                value[key] = copy.deepcopy(chance.choice(self.pool[str(key)]))
            elif how < 0.85:
                value[key] = copy.deepcopy(chance.choice(EDGES))
            elif how < 0.93:
                del value[key]
            elif isinstance(value, dict):
                value[chance.choice(("surprise", "amount", "type", "é"))] = copy.deepcopy(value[key])
            else:
                value += copy.deepcopy(value[: chance.randrange(70)])
            return

    def block(self, count: int = PER_BLOCK) -> None:
        """A block of what can be decoded of `count` broken transactions; only Rejected may come of the others."""
        chosen: list[Signed] = []
        for _ in range(count):
            try:
                chosen.append(self.machine.codec.decode(self.broken()))
            except Rejected as refusal:
                self.codes[refusal.code.name] += 1
        step = self.chance.choice((1, 1, 1_000, 20_000, 90_000))
        result = self.machine.apply_block(self.machine.head.time_ms + step, chosen)
        self.codes.update(str(receipt.code) for receipt in result.receipts)

    def run(self, count: int) -> None:
        """Break `count` transactions."""
        for number in range(-(-count // PER_BLOCK)):
            self.block()
            if number % CHECK_EVERY == 0:
                self.machine.invariants()
        self.machine.invariants()


def main() -> None:
    """Break many and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    begun, done = time.monotonic(), 0
    total: Counter[str] = Counter()
    while done < options.count:
        # A fresh chain now and then: one that is used up refuses everything for the same reasons.
        share = min(50_000, options.count - done)
        fuzzer = Fuzzer(recorded(seed=options.seed + done // 50_000, blocks=60), options.seed + done)
        fuzzer.run(share)
        done += share
        total += fuzzer.codes
        print(f"{done} of {options.count}, {time.monotonic() - begun:.0f} s", flush=True)
    print(f"{done} broken transactions, seed {options.seed}: {total['0']} applied, by code {dict(total.most_common())}")


if __name__ == "__main__":
    main()
