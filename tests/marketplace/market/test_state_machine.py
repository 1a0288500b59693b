"""A Hypothesis state machine over every message of ledger and market: invariants after each block, replicas and replays agree."""

import random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ledger.machine.machine import Machine
from ledger.protocol import keys
from ledger.protocol import messages as ledger
from ledger.protocol.encoding import encode
from ledger.protocol.messages import LEDGER_MESSAGES, Message
from ledger.protocol.transaction import rotation_bytes
from marketplace.market.module import Market
from marketplace.protocol.messages import MARKET_MESSAGES
from tests.marketplace.market.chaos import Chaos, settle
from tests.marketplace.market.test_chaos import check_money
from tests.marketplace.market.world import ADDRESS, CHAIN, CREDIT, NAMES, SEEDS

MARKET = ("put", "create", "report", "release", "end", "close", "money", "bond", "other")
"""What `Chaos` knows to do; between them they send every message of the market but the two that open it."""

AGENT = keys.public_key(b"a" * 32).hex()
PERSON = st.sampled_from(NAMES)
AMOUNT = st.sampled_from(["0", "1", str(CREDIT), str(10**13)])
MONEY = st.sampled_from(["ucredit", "uother"])
PURSE = st.builds(lambda who, dseq: f"{ADDRESS[who]}/{dseq}", st.sampled_from(NAMES[:3]), st.integers(1, 30))
PROOF = keys.sign(SEEDS["aud"], rotation_bytes(CHAIN, ADDRESS["aud"])).hex()
LEDGER: dict[type[Message], st.SearchStrategy[Message]] = {
    ledger.Transfer: st.builds(ledger.Transfer, amount=AMOUNT, denomination=MONEY, to=PERSON.map(ADDRESS.__getitem__)),
    ledger.Delegate: st.builds(
        ledger.Delegate,
        expires_ms=st.sampled_from([1, 2 * 10**12]),
        key=st.just(AGENT),
        spend_per_day=AMOUNT,
        verbs=st.sampled_from([("*",), ("PutBid", "Heartbeat")]),
        version=st.integers(0, 1),
    ),
    ledger.Revoke: st.builds(ledger.Revoke, key=st.just(AGENT)),
    ledger.RotateKey: st.builds(ledger.RotateKey, key=st.just(keys.public_key(SEEDS["aud"]).hex()), proof=st.just(PROOF)),
    ledger.Deposit: st.builds(ledger.Deposit, amount=AMOUNT, purse=PURSE),
    ledger.Withdraw: st.builds(ledger.Withdraw, amount=AMOUNT, purse=PURSE),
    ledger.Settle: st.builds(ledger.Settle, purse=PURSE),
    ledger.Mint: st.builds(ledger.Mint, amount=AMOUNT, denomination=MONEY, to=PERSON.map(ADDRESS.__getitem__)),
    ledger.Burn: st.builds(ledger.Burn, amount=AMOUNT, denomination=MONEY),
    ledger.SetParameter: st.one_of(
        st.builds(
            ledger.SetParameter,
            name=st.sampled_from(["bond_minimum", "bond_cut_early", "bond_cut_silence", "bond_cut_activation"]),
            value=st.sampled_from([0, 1, CREDIT]),
        ),
        st.builds(
            ledger.SetParameter,
            name=st.sampled_from(
                ["backdate_ms", "purse_reserve_ms", "bond_cooling_ms", "take_rate_ppm", "match_tests_per_block"]
            ),
            value=st.sampled_from([1, 60_000, 400_000]),
        ),
    ),
    ledger.Upgrade: st.builds(ledger.Upgrade, height=st.just(10**9), protocol=st.sampled_from([1, 2])),
}


class Markets(RuleBasedStateMachine):
    """One market, and a replica that is now and then replaced by a snapshot of it; both get the same blocks."""

    @initialize(seed=st.integers(0, 1000))
    def begin(self, seed: int) -> None:
        """Providers with hosts and bonds, each with a bid, and a deployment that has money for a while."""
        self.chaos = Chaos(seed)
        self.world = self.chaos.world
        self.pending: list[tuple[str, tuple[Message, ...]]] = []
        for _ in range(4):
            self.act("put", self.chaos.rng)
        self.block(1_000, True)
        self.act("create", self.chaos.rng)
        self.block(1_000, True)
        self.replica = Machine.restore(self.world.machine.genesis, [Market()], self.world.machine.snapshot())

    @rule(what=st.sampled_from([*MARKET, *["report"] * 4]), rng=st.randoms(use_true_random=False))
    def act(self, what: str, rng: random.Random) -> None:
        """Somebody does something in the market, sensible more often than not."""
        self.chaos.rng = rng
        who, message = getattr(self.chaos, what)()
        self.pending.append((who, (message,)))

    @rule(who=PERSON, message=st.one_of(*LEDGER.values()))
    def pay(self, who: str, message: Message) -> None:
        """Somebody sends a message of the ledger; governance and the issuer their own."""
        governed = isinstance(message, ledger.SetParameter | ledger.Upgrade | ledger.Mint | ledger.Burn)
        rotates = isinstance(message, ledger.RotateKey)
        self.pending.append(("lee" if governed else "aud" if rotates else who, (message,)))

    @precondition(lambda self: len(self.pending) > 1)
    @rule()
    def join(self) -> None:
        """Two wants of one person become one transaction: both or none."""
        who, messages = self.pending.pop()
        before, first = self.pending[-1]
        if before == who:
            self.pending[-1] = (who, first + messages)

    @rule(wait=st.sampled_from([1, 7, 1_000, 30_000, 60_000, 60_000, 149_000, 151_000, 1_500_000]), beats=st.booleans())
    def block(self, wait: int, beats: bool) -> None:
        """Both apply what is pending, mostly with everybody's heartbeat before it; receipts, events and roots are the same."""
        at = self.world.now + wait
        raws = [self.world.raw(who, self.world.beats(who), at=at) for who in ("pat", "pia", "pol") if beats]
        raws += [self.world.raw(who, *messages, at=at) for who, messages in self.pending]
        self.pending = []
        result = self.world.block(*raws, at=at)
        if hasattr(self, "replica"):
            codec = self.replica.codec
            assert encode(self.replica.apply_block(at, [codec.decode(raw) for raw in raws])) == encode(result)

    @rule()
    def snapshot(self) -> None:
        """The replica is replaced by a snapshot; its own is the same bytes."""
        data = self.world.machine.snapshot()
        self.replica = Machine.restore(self.world.machine.genesis, [Market()], data)
        assert self.replica.snapshot() == data

    def teardown(self) -> None:
        """Faults stop: everything closes, and all money is where it belongs."""
        if hasattr(self, "replica"):
            settle(self.world)
            if not minted(self.world):
                check_money(self.world)


def minted(world: Any) -> bool:
    """True where money was made or destroyed since genesis."""
    found = list(world.machine.store.scan(world.machine.store.tables["supply"]))
    return any(supply.burned or supply.minted != len(NAMES) * 10**6 * CREDIT for supply in found)


TestMarkets = Markets.TestCase
TestMarkets.settings = settings(max_examples=40, stateful_step_count=30)


def test_every_message_is_sent() -> None:
    """The whole vocabulary of ledger and market is within reach of the state machine."""
    assert set(LEDGER) == set(LEDGER_MESSAGES)
    sent: set[type[Message]] = set()
    for seed in range(6):
        chaos = Chaos(seed)
        chaos.world.check = False
        world = chaos.run(60)
        for (_, raws), result in zip(world.blocks, world.results, strict=True):
            for raw, receipt in zip(raws, result.receipts, strict=True):
                if receipt.ok:
                    sent.update(type(message) for message in world.machine.codec.decode(raw).transaction.messages)
    assert set(MARKET_MESSAGES) <= sent
