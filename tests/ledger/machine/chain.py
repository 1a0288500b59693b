"""A small chain for tests: named users with money, and a way to send what they sign."""

import hashlib
from collections.abc import Callable
from typing import Any

from ledger.machine.accounts import balance
from ledger.machine.context import Context
from ledger.machine.machine import Machine
from ledger.machine.module import Plain
from ledger.protocol import keys
from ledger.protocol.block import BlockResult, Receipt
from ledger.protocol.errors import Rejected
from ledger.protocol.genesis import Allocation, DenominationSpec, Genesis
from ledger.protocol.messages import Message
from ledger.protocol.transaction import Signed, Transaction, sign_transaction

START = 1_700_000_000_000
CREDIT = "ucredit"
CHAIN = "test-1"


class User:
    """A key and its address, the same for the same name."""

    def __init__(self, name: str) -> None:
        self.seed = hashlib.sha256(name.encode()).digest()
        self.key = keys.public_key(self.seed).hex()
        self.address = keys.address_of(bytes.fromhex(self.key))


ADA, BOB, CAT = User("ada"), User("bob"), User("cat")
GOVERNOR, ISSUER = User("governor"), User("issuer")


class Probe(Plain):
    """A module that does at the end (or beginning) of a block what a test asks, and notes what it hears of purses."""

    name = "probe"

    def __init__(self) -> None:
        self.first: list[Callable[[Context], Any]] = []
        self.last: list[Callable[[Context], Any]] = []
        self.heard: list[tuple[str, str, int]] = []
        self.on_funded: Callable[[Context, str], Any] | None = None

    def begin_block(self, ctx: Context) -> None:
        """Run what was asked for the beginning."""
        while self.first:
            self.first.pop(0)(ctx)

    def end_block(self, ctx: Context) -> None:
        """Run what was asked for the end."""
        while self.last:
            self.last.pop(0)(ctx)

    def on_purse(self, ctx: Context, purse: str, what: str) -> None:
        """Note it with its time, but for plain deposits."""
        if what == "deposited":
            return
        self.heard.append((purse, what, ctx.time))
        if what == "funded" and self.on_funded:
            self.on_funded(ctx, purse)


def genesis(**changes: Any) -> Genesis:
    """A genesis with 10^12 micro-units for each user."""
    people = (ADA, BOB, CAT, GOVERNOR, ISSUER)
    fields: dict[str, Any] = {
        "chain_id": CHAIN,
        "denominations": tuple(DenominationSpec(issuer=ISSUER.address, name=name) for name in (CREDIT, "uother")),
        "governance": GOVERNOR.address,
        "time_ms": START,
        "allocations": tuple(Allocation(address=u.address, amount=str(10**12), denomination=CREDIT) for u in people),
    }
    return Genesis(**(fields | changes))


class Chain:
    """A machine with what tests do to it. `now` is the time of the last block."""

    def __init__(self, modules: tuple[Any, ...] = (), **changes: Any) -> None:
        self.probe = Probe()
        self.machine = Machine(genesis(**changes), (*modules, self.probe))
        self.now = START
        self.sent = 0

    def sign(self, user: User, *messages: Message, **changes: Any) -> Signed:
        """A signed transaction of `messages`; `changes` override its fields."""
        return self.machine.codec.decode(self.raw(user, *messages, **changes))

    def raw(self, user: User, *messages: Message, **changes: Any) -> bytes:
        """The bytes of a signed transaction."""
        self.sent += 1
        fields: dict[str, Any] = {
            "chain_id": CHAIN,
            "messages": messages,
            "nonce": f"{self.sent:032x}",
            "principal": user.address,
            "sequence": 0,
            "signer": user.key,
            "valid_until": self.now + 60_000,
        }
        return sign_transaction(Transaction(**(fields | changes)), user.seed)

    def block(self, *signed: Signed, at: int | None = None) -> BlockResult:
        """Apply a block, 1 ms after the last one unless told."""
        self.now = self.now + 1 if at is None else at
        return self.machine.apply_block(self.now, list(signed))

    def send(self, user: User, *messages: Message, at: int | None = None, **changes: Any) -> Receipt:
        """One transaction in a block of its own."""
        if at is not None:
            changes = {"valid_until": at + 60_000} | changes
        return self.block(self.sign(user, *messages, **changes), at=at).receipts[0]

    def ok(self, user: User, *messages: Message, at: int | None = None, **changes: Any) -> Receipt:
        """The same; it must be applied."""
        receipt = self.send(user, *messages, at=at, **changes)
        assert receipt.ok, receipt
        return receipt

    def act(self, *steps: Callable[[Context], Any], at: int | None = None) -> BlockResult:
        """A block without transactions at whose end `steps` are called."""
        self.probe.last.extend(steps)
        return self.block(at=at)

    def balance(self, user: User | str, denomination: str = CREDIT) -> int:
        """Micro-units in an account."""
        return balance(self.machine.store, user if isinstance(user, str) else user.address, denomination)


def refused(call: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """The code with which a call is refused; 0 where it is not."""
    try:
        call(*args, **kwargs)
    except Rejected as error:
        return int(error.code)
    return 0
