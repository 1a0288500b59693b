"""A Hypothesis state machine over all messages of the ledger: replicas agree, money is conserved, snapshots go on."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ledger.machine import bonds, escrow
from ledger.machine.context import Context
from ledger.machine.held import HELD
from ledger.machine.machine import Machine
from ledger.machine.module import Plain
from ledger.machine.purse import METERS, PURSES
from ledger.protocol import keys
from ledger.protocol.encoding import encode
from ledger.protocol.messages import (
    LEDGER_MESSAGES,
    Burn,
    Delegate,
    Deposit,
    Message,
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
from tests.ledger.machine.chain import ADA, BOB, CAT, CHAIN, CREDIT, GOVERNOR, ISSUER, START, User, genesis

PEOPLE = [ADA, BOB, CAT, GOVERNOR, ISSUER]
SPARE = [User(f"spare{i}") for i in range(3)]
MONEY = st.sampled_from([CREDIT, "uother", "unone"])
AMOUNT = st.one_of(st.integers(0, 400).map(str), st.just(str(10**12)), st.just(str(2**63)))
PERSON = st.sampled_from(PEOPLE)
ANYONE = st.sampled_from(PEOPLE + SPARE)
PURSE = st.sampled_from(["a", "a", "b"])


class Rent(Message, frozen=True, tag="Rent"):
    """A message of the test's module: do something with a purse or meter of `name`."""

    name: str
    payee: str
    verb: str
    value: int


class Renting(Plain):
    """A module that rents things out: it opens purses, runs meters, closes a purse that stayed dry."""

    name = "renting"

    def __init__(self) -> None:
        self.messages = {Rent: self.rent}

    def rent(self, ctx: Context, message: Rent) -> None:
        """Act for the principal."""
        meter = f"{message.name}/{message.value % 3}"
        if message.verb == "open":
            escrow.open_purse(ctx, message.name, ctx.principal, CREDIT, message.value)
        elif message.verb == "add":
            escrow.add_meter(ctx, meter, message.name, message.payee, message.value * 50_000, message.value % 5 * 700)
        elif message.verb == "start":
            escrow.start_meter(ctx, meter)
        elif message.verb == "stop":
            escrow.stop_meter(ctx, meter, ctx.time - message.value)
        elif message.verb == "charge":
            escrow.charge(ctx, message.name, message.payee, message.value)
        elif message.verb == "settle":
            escrow.settle(ctx, message.name)
        elif message.verb == "hold":
            for id in self.meters(ctx, message.name):
                escrow.hold_back(ctx, id, message.value, ctx.time + message.value * 10_000)
                escrow.stop_meter(ctx, id)
        elif message.verb == "refund":
            for held in list(ctx.store.scan(HELD)):
                escrow.refund_held(ctx, held.meter, message.value // 3)
        elif message.verb == "end":
            escrow.close_meter(ctx, meter, early=message.value % 2 == 0)
        elif message.verb in ("post", "ask", "give", "cut"):
            self.bond(ctx, message)
        else:
            self.close(ctx, message.name)

    def bond(self, ctx: Context, message: Rent) -> None:
        """Do something with the principal's bond."""
        if message.verb == "post":
            bonds.post(ctx, ctx.principal, CREDIT, message.value)
        elif message.verb == "ask":
            bonds.ask_back(ctx, ctx.principal, CREDIT, message.value // 2, ctx.time + 1)
        elif message.verb == "cut":
            bonds.cut(ctx, ctx.principal, CREDIT, message.value // 2, message.payee, message.name)
        elif (bond := bonds.bond_of(ctx.store, ctx.principal, CREDIT)).leaving:
            bonds.give_back(ctx, bond)

    def meters(self, ctx: Context, name: str) -> tuple[str, ...]:
        """The open meters of a purse."""
        purse = ctx.store.get(PURSES, name)
        return purse.meters if purse else ()

    def close(self, ctx: Context, name: str) -> None:
        """Close all meters of a purse, then the purse."""
        for id in self.meters(ctx, name):
            escrow.close_meter(ctx, id)
        escrow.close_purse(ctx, name)

    def on_purse(self, ctx: Context, purse: str, what: str) -> None:
        """Start again what was funded; end what stayed dry."""
        if what == "funded":
            for meter in list(ctx.store.scan(METERS)):
                if meter.purse == purse and not meter.closed:
                    escrow.start_meter(ctx, meter.id)
        if what == "grace_over":
            self.close(ctx, purse)


VERBS = [
    "open", "open", "add", "add", "start", "start", "start", "stop", "charge", "settle", "close", "end", "hold", "hold", "refund",
    "post", "ask", "give", "cut",
]  # fmt: skip
RENT = st.builds(
    Rent,
    name=PURSE,
    payee=ANYONE.map(lambda user: user.address),
    verb=st.sampled_from(VERBS),
    value=st.integers(1, 300),
)
MESSAGES: dict[type[Message], st.SearchStrategy[Message]] = {
    Rent: RENT,
    Transfer: st.builds(Transfer, amount=AMOUNT, denomination=MONEY, to=ANYONE.map(lambda user: user.address)),
    Mint: st.builds(Mint, amount=AMOUNT, denomination=MONEY, to=ANYONE.map(lambda user: user.address)),
    Burn: st.builds(Burn, amount=AMOUNT, denomination=MONEY),
    Delegate: st.builds(
        Delegate,
        expires_ms=st.integers(0, 400_000).map(lambda ahead: START + ahead),
        key=ANYONE.map(lambda user: user.key),
        spend_per_day=AMOUNT,
        verbs=st.sampled_from([("*",), ("Transfer", "Deposit"), ("Rent",)]),
        version=st.integers(0, 2),
    ),
    Revoke: st.builds(Revoke, key=ANYONE.map(lambda user: user.key)),
    Deposit: st.builds(Deposit, amount=AMOUNT, purse=PURSE),
    Withdraw: st.builds(Withdraw, amount=AMOUNT, purse=PURSE),
    Settle: st.builds(Settle, purse=PURSE),
    SetParameter: st.builds(
        SetParameter,
        name=st.sampled_from(
            [
                "take_rate_ppm",
                "purse_grace_ms",
                "backdate_ms",
                "bucket_burst",
                "purse_max_deposits",
                "purse_reserve_ms",
                "no_such",
            ]
        ),
        value=st.sampled_from([0, 1, 3, 1000, 400_000]),
    ),
    Upgrade: st.builds(Upgrade, height=st.integers(1, 5), protocol=st.just(1)),
}
MESSAGE = st.one_of(*MESSAGES.values())


class Replicas(RuleBasedStateMachine):
    """Two machines get the same blocks; now and then one of them is replaced by a restored snapshot of the other."""

    @initialize()
    def begin(self) -> None:
        """Two machines from one genesis."""
        self.one = Machine(genesis(), (Renting(),))
        self.two = Machine(genesis(), (Renting(),))
        self.now, self.sent = START, 0
        self.pending: list[bytes] = []
        self.old: list[bytes] = []
        # Most of what can go wrong needs a purse with running meters: every history starts with one.
        steps = [("open", 250), ("add", 1), ("add", 29), ("start", 1), ("start", 29), ("hold", 28), ("post", 90)]
        self.sign(ADA, [Rent(name="a", payee=BOB.address, verb=verb, value=value) for verb, value in steps], ADA, 1, 100)
        self.block(1)
        assert self.one.store.count(METERS) == 2

    @rule(
        user=PERSON,
        messages=st.lists(MESSAGE, min_size=1, max_size=3),
        key=ANYONE,
        own=st.integers(0, 9),
        ahead=st.sampled_from([0, 90, 110, 120, 120, 125]),
    )
    def sign(self, user: User, messages: list[Message], key: User, own: int, ahead: int) -> None:
        """Somebody signs: mostly with his own key, sometimes with one that may or may not act for him."""
        signer = key if own == 0 else user
        self.sent += 1
        transaction = Transaction(
            chain_id=CHAIN,
            messages=tuple(messages),
            nonce=f"{self.sent:032x}",
            principal=user.address,
            sequence=0,
            signer=signer.key,
            valid_until=self.now + ahead * 1000,
        )
        self.pending.append(sign_transaction(transaction, signer.seed))

    @rule(user=PERSON, sequence=st.integers(1, 3), message=MESSAGE)
    def sign_offline(self, user: User, sequence: int, message: Message) -> None:
        """Somebody signs without a nonce."""
        transaction = Transaction(
            chain_id=CHAIN,
            messages=(message,),
            nonce="",
            principal=user.address,
            sequence=sequence,
            signer=user.key,
            valid_until=0,
        )
        self.pending.append(sign_transaction(transaction, user.seed))

    @rule(user=st.just(CAT), key=ANYONE)
    def rotate(self, user: User, key: User) -> None:
        """Somebody changes his key."""
        proof = keys.sign(key.seed, rotation_bytes(CHAIN, user.address)).hex()
        self.sign(user, [RotateKey(key=key.key, proof=proof)], user, 1, 100)

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def repeat(self, data: Any) -> None:
        """An old transaction comes again."""
        self.pending.append(data.draw(st.sampled_from(self.old)))

    @rule(wait=st.one_of(st.integers(1, 50), st.integers(1, 900), st.sampled_from([1, 10, 9_000, 200_000, 4_000_000])))
    def block(self, wait: int) -> None:
        """Both apply what is pending; receipts, events and roots are the same, byte for byte."""
        self.now += wait
        batch, self.pending = self.pending, []
        results = [
            machine.apply_block(self.now, [machine.codec.decode(raw) for raw in batch]) for machine in (self.one, self.two)
        ]
        assert encode(results[0]) == encode(results[1])
        self.old = (self.old + batch)[-6:]

    @rule()
    def snapshot(self) -> None:
        """The second is replaced by the first's snapshot; its own snapshot is then the same bytes."""
        data = self.one.snapshot()
        self.two = Machine.restore(self.one.genesis, (Renting(),), data)
        assert self.two.snapshot() == data
        assert self.two.head == self.one.head

    @invariant()
    def holds(self) -> None:
        """All invariants hold, over the whole state."""
        if self.one.head.height:
            self.one.invariants()


TestReplicas = Replicas.TestCase
TestReplicas.settings = settings(max_examples=150, stateful_step_count=40)


def test_every_message_of_the_ledger_is_sent() -> None:
    """The state machine knows the whole vocabulary."""
    assert set(MESSAGES) == {*LEDGER_MESSAGES, Rent} - {RotateKey}  # which needs a proof and has a rule of its own


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x81\xa6format\xa1x"], ids=["nothing", "nonsense", "another-format"])
def test_what_is_no_snapshot_is_refused(data: bytes) -> None:
    """ValueError, not a broken machine."""
    with pytest.raises(ValueError, match="snapshot"):
        Machine.restore(genesis(), (), data)


def test_a_changed_snapshot_is_refused() -> None:
    """Another balance, or an id left out, gives another root than the header's; another chain is refused too."""
    machine = Machine(genesis(), ())
    raw = sign_transaction(
        Transaction(
            chain_id=CHAIN, messages=(Transfer(amount="5", denomination=CREDIT, to=BOB.address),), nonce="1" * 32,
            principal=ADA.address, sequence=0, signer=ADA.key, valid_until=START + 1000,
        ),
        ADA.seed,
    )  # fmt: skip
    signed = machine.codec.decode(raw)
    assert machine.apply_block(START + 1, [signed]).receipts[0].ok
    data = machine.snapshot()
    assert Machine.restore(genesis(), (), data).head == machine.head
    for changed in (data.replace(bytes.fromhex(signed.id), bytes(32)), data.replace(CREDIT.encode(), b"udebits")):
        assert changed != data
        with pytest.raises((ValueError, AssertionError)):
            Machine.restore(genesis(), (), changed)
    with pytest.raises(ValueError, match="chain"):
        Machine.restore(genesis(chain_id="test-2"), (), data)
