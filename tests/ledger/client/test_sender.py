"""The Sender over a way that loses answers: each transaction is applied once, and what is not known stays in the outbox."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.client import Outbox, Sender, Unreachable
from ledger.engine.embedded import Engine
from ledger.engine.errors import EngineBusy
from ledger.protocol.block import Receipt
from ledger.protocol.errors import Code, Rejected
from ledger.protocol.messages import Transfer
from tests.ledger.engine.ledgers import balance_of
from tests.ledger.machine.chain import ADA, BOB, CHAIN, CREDIT, User, genesis


class Lost(Exception):
    """The answer, or the request, was lost."""

    exit_code = 7


class Transport:
    """The way to an engine; loses requests and answers with probability `lost`."""

    def __init__(self, engine: Engine, lost: float = 0.0, seed: int = 1) -> None:
        self._engine = engine
        self._chance = random.Random(seed)
        self.lost = lost
        self.posted: list[bytes] = []

    def chain(self) -> tuple[str, int]:
        """(chain id, time)."""
        if self._chance.random() < self.lost:
            raise Lost
        return CHAIN, self._engine.now_ms()

    def post(self, raw: bytes) -> Receipt:
        """Send; half of what is lost is lost on the way there, half on the way back."""
        self.posted.append(raw)
        draw = self._chance.random()
        if draw < self.lost / 2:
            raise Lost
        try:
            receipt = self._engine.submit(raw).result(60)
        except EngineBusy:
            raise Lost from None
        if draw < self.lost:
            raise Lost
        return receipt


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine on a new chain."""
    engine = Engine.open(f"sqlite:///{tmp_path}/chain.db", genesis(), [])
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between attempts take no time."""
    monkeypatch.setattr("ledger.client.time.sleep", lambda _s: None)


def pay(amount: int, to: User = BOB) -> Transfer:
    """A transfer to BOB."""
    return Transfer(amount=str(amount), denomination=CREDIT, to=to.address)


@pytest.mark.usefixtures("no_pause")
def test_lost_answers_change_no_balance(engine: Engine, tmp_path: Path) -> None:
    """Where 30 of 100 requests or answers are lost, balances are those of a way that loses nothing."""
    transport = Transport(engine, lost=0.3)
    sender = Sender(transport, ADA.seed, outbox=tmp_path / "outbox")
    amounts = range(1, 61)
    for amount in amounts:
        assert sender.send(pay(amount), timeout_s=600).ok
    assert len(transport.posted) > 60
    assert balance_of(engine, BOB) == 10**12 + sum(amounts)
    assert balance_of(engine, ADA) == 10**12 - sum(amounts)
    assert not list(Outbox(tmp_path / "outbox").pending())


def test_the_outbox_survives_a_crash(engine: Engine, tmp_path: Path) -> None:
    """What was sent before a crash, or only stored, is sent again byte for byte after it, and applied once."""
    folder = tmp_path / "outbox"
    before = Sender(Transport(engine), ADA.seed, outbox=folder)
    _, applied = before.build(pay(5))
    before.build(pay(7))
    assert engine.submit(applied).result(60).ok  # and then the process ended
    pending = list(Outbox(folder).pending())
    assert applied in [raw for _, raw in pending]
    assert len(pending) == 2
    after = Sender(Transport(engine), ADA.seed, outbox=folder)
    for id, raw in pending:
        receipt = after.deliver(id, raw, 60)
        assert receipt.ok
        assert receipt.id == id
    assert balance_of(engine, BOB) == 10**12 + 12
    assert not list(Outbox(folder).pending())


def test_a_refusal_is_final(engine: Engine, tmp_path: Path) -> None:
    """A refusal, before a block or in one, is raised with its code, sent once, and forgotten by the outbox."""
    folder = tmp_path / "outbox"
    for sender_of, message, code in (
        (ADA, pay(10**15), Code.INSUFFICIENT_FUNDS),
        (User("nobody"), pay(1), Code.ACCOUNT_NOT_FOUND),
    ):
        transport = Transport(engine)
        with pytest.raises(Rejected) as refusal:
            Sender(transport, sender_of.seed, outbox=folder).send(message)
        assert refusal.value.code == code
        assert len(transport.posted) == 1
        assert not list(Outbox(folder).pending())


@pytest.mark.usefixtures("no_pause")
def test_silence_keeps_the_outbox(engine: Engine, tmp_path: Path) -> None:
    """Without an answer in time the sender says so, and the same bytes are kept for later."""
    folder = tmp_path / "outbox"
    transport = Transport(engine)
    sender = Sender(transport, ADA.seed, outbox=folder)
    id, raw = sender.build(pay(3))
    transport.lost = 1.0
    with pytest.raises(Unreachable) as silence:
        sender.deliver(id, raw, 0.05)
    assert silence.value.raw == raw
    assert silence.value.exit_code == 7
    assert list(Outbox(folder).pending()) == [(id, raw)]
    assert set(transport.posted) == {raw}
    transport.lost = 0.0
    assert sender.deliver(id, raw, 60).ok
    assert balance_of(engine, BOB) == 10**12 + 3
    assert not list(Outbox(folder).pending())


def test_a_stranger_error_is_no_answer(engine: Engine, tmp_path: Path) -> None:
    """An error that is neither a refusal nor a silence is raised, and the outbox keeps the bytes: nothing is known."""

    class Broken(Transport):
        def post(self, raw: bytes) -> Receipt:
            raise KeyError("a bug on the way")

    folder = tmp_path / "outbox"
    with pytest.raises(KeyError):
        Sender(Broken(engine), ADA.seed, outbox=folder).send(pay(1))
    assert len(list(Outbox(folder).pending())) == 1
