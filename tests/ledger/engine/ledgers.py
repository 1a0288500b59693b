"""What the engine's tests share: a clock to move, a module with something that falls due, and signed transactions."""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ledger.engine import checkpoint
from ledger.engine.embedded import Engine
from ledger.machine.accounts import balance
from ledger.machine.context import Context
from ledger.machine.module import Plain
from ledger.protocol.block import Event, Receipt
from ledger.protocol.encoding import encode
from ledger.protocol.messages import Message, Transfer
from ledger.protocol.transaction import Transaction, sign_transaction, signing_bytes
from tests.ledger.machine.chain import ADA, BOB, CHAIN, CREDIT, START, User

T = TypeVar("T")
_numbers = itertools.count(1)


@dataclasses.dataclass
class ManualClock:
    """A clock that a test moves."""

    now: int = START + 1_000

    def wall_ms(self) -> int:
        """Milliseconds since 1970."""
        return self.now

    def monotonic_ms(self) -> int:
        """The same: this wall clock never jumps."""
        return self.now


class Remind(Message, frozen=True, tag="Remind"):
    """Asks for an event at `due_ms`."""

    due_ms: int
    id: str


class Reminded(Event, frozen=True):
    """Fell due."""

    id: str
    time_ms: int


class Reminders(Plain):
    """A module with one message and one kind of thing that falls due."""

    name = "reminders"

    def __init__(self) -> None:
        self.messages = {Remind: self._remind}
        self.kinds = {"remind": self._due}

    def _remind(self, ctx: Context, message: Remind) -> None:
        ctx.schedule(message.due_ms, "remind", message.id)

    def _due(self, ctx: Context, id: str) -> None:
        ctx.emit(Reminded(id=id, time_ms=ctx.time))


def signed(now_ms: int, user: User, *messages: Message, **changes: Any) -> bytes:
    """A signed transaction, valid for a minute from `now_ms`; `changes` override its fields."""
    fields: dict[str, Any] = {
        "chain_id": CHAIN,
        "messages": messages,
        "nonce": f"{next(_numbers):032x}",
        "principal": user.address,
        "sequence": 0,
        "signer": user.key,
        "valid_until": now_ms + 60_000,
    }
    return sign_transaction(Transaction(**(fields | changes)), user.seed)


def transfer(engine: Engine, amount: int = 1, source: User = ADA, to: User = BOB, **changes: Any) -> bytes:
    """A signed transfer."""
    message = Transfer(amount=str(amount), denomination=CREDIT, to=to.address)
    return signed(engine.now_ms(), source, message, **changes)


def id_of(engine: Engine, raw: bytes) -> str:
    """The id of signed bytes."""
    content = signing_bytes(encode(engine.machine.codec.decode(raw).transaction))
    return content.hex()


def send(engine: Engine, raw: bytes) -> Receipt:
    """Submit and wait."""
    return engine.submit(raw).result(60)


def balance_of(engine: Engine, user: User) -> int:
    """Committed balance."""
    with engine.read() as machine:
        return balance(machine.store, user.address, CREDIT)


def seen(engine: Engine) -> tuple[int, str, str, int, int]:
    """What must be the same before and after: height, hash, root and two balances."""
    head = engine.head
    return head.height, head.hash, head.state_root, balance_of(engine, ADA), balance_of(engine, BOB)


@contextlib.contextmanager
def shards_often() -> Iterator[None]:
    """Every block has dozens of shards written meanwhile: after a few blocks all have been."""
    before = checkpoint.ROUND_BYTES, checkpoint.SHARD_BYTES, checkpoint.CHANGED_BYTES
    checkpoint.ROUND_BYTES, checkpoint.SHARD_BYTES, checkpoint.CHANGED_BYTES = 1, 48, 1  # type: ignore[misc]
    try:
        yield
    finally:
        checkpoint.ROUND_BYTES, checkpoint.SHARD_BYTES, checkpoint.CHANGED_BYTES = before  # type: ignore[misc]


def eventually(probe: Callable[[], T | None], what: str, patience_s: float = 60) -> T:
    """The first true result of `probe`."""
    deadline = time.monotonic() + patience_s
    while not (found := probe()):
        assert time.monotonic() < deadline, f"not within {patience_s} s: {what}"
        time.sleep(0.01)
    return found
