"""Rules that change at a height: a log that crosses it replays to the same end, from genesis and from any snapshot."""

from collections.abc import Mapping

import msgspec
import pytest

from ledger.machine.context import Context
from ledger.machine.machine import Machine
from ledger.machine.module import Bounds, Plain, Since
from ledger.protocol.errors import Code, require
from ledger.protocol.events import Transferred
from ledger.protocol.messages import Message, SetParameter, Transfer, Upgrade
from tests.ledger.machine.chain import ADA, BOB, CREDIT, GOVERNOR, Chain, genesis, refused


class Wave(Message, frozen=True, tag="Wave"):
    """A message that newer rules know only."""


class Waving(Plain):
    """Refuses a wave under protocol 1; from protocol 2 on it is answered, and each block's end says so."""

    name = "waving"

    def __init__(self) -> None:
        self.messages = {Wave: self.wave}

    def wave(self, ctx: Context, message: Wave) -> None:
        """Answer under the new rules."""
        del message
        require(ctx.protocol >= 2, Code.NOT_AUTHORISED, "not yet")
        self.tell(ctx)

    def end_block(self, ctx: Context) -> None:
        """Say so under the new rules."""
        if ctx.protocol >= 2:
            self.tell(ctx)

    @staticmethod
    def tell(ctx: Context) -> None:
        """Some event."""
        ctx.emit(Transferred(amount="0", denomination=CREDIT, source=ADA.address, to=BOB.address))


def test_a_log_that_crosses_an_upgrade_replays() -> None:
    """Below the height the old rules hold, from it on the new ones: in the live chain, in a replay, after each snapshot."""
    chain = Chain((Waving(),), protocol=1)
    log: list[tuple[int, list[bytes]]] = []
    snapshots: list[bytes] = []
    told: list[tuple[int, int, int]] = []
    for height in range(1, 8):
        raws = [chain.raw(GOVERNOR, Upgrade(height=5, protocol=2))] if height == 2 else [chain.raw(ADA, Wave())]
        result = chain.block(*(chain.machine.codec.decode(raw) for raw in raws))
        log.append((chain.now, raws))
        snapshots.append(chain.machine.snapshot())
        told.append((result.header.protocol, result.receipts[0].code, len(result.end_events)))
    old, new = (1, int(Code.NOT_AUTHORISED), 0), (2, 0, 1)
    assert told == [old, (1, 0, 0), old, old, new, new, new]

    def replayed(machine: Machine) -> str:
        for time_ms, raws in log[machine.head.height :]:
            machine.apply_block(time_ms, [machine.codec.decode(raw) for raw in raws])
        return machine.head.hash

    modules = (Waving(), chain.probe)
    assert replayed(Machine(chain.machine.genesis, modules)) == chain.machine.head.hash
    for data in snapshots:
        assert replayed(Machine.restore(chain.machine.genesis, modules, data)) == chain.machine.head.hash


class Say(Message, frozen=True, tag="Say"):
    """A message with a field that newer rules know only."""

    text: str
    loud: bool | msgspec.UnsetType = msgspec.UNSET


class Gated(Plain):
    """Brings a message, a field and a parameter with protocol 2."""

    name = "gated"
    since: Mapping[type[Message], Since] = {Wave: 2, Say: lambda said: 1 if said.loud is msgspec.UNSET else 2}
    parameters: Mapping[str, Bounds] = {"waves": (3, 1, 9), "words": (1, 1, 9)}
    parameters_since: Mapping[str, int] = {"waves": 2}

    def __init__(self) -> None:
        self.messages = {Wave: self.count, Say: self.count}
        self.seen = 0

    def count(self, ctx: Context, message: Message) -> None:
        """Count what came through."""
        del ctx, message
        self.seen += 1


def test_newer_messages_are_unknown_until_their_height() -> None:
    """Under older rules a newer message or field leaves no trace, and the same bytes apply once the chain is there."""
    chain = Chain((module := Gated(),), protocol=1)
    newer = [chain.raw(ADA, Wave()), chain.raw(BOB, Say(text="a", loud=True)), chain.raw(ADA, Say(text="b"), Wave())]
    signed = [chain.machine.codec.decode(raw) for raw in newer]
    root = chain.block().header.state_root
    for one in signed:
        assert refused(chain.machine.check, one, chain.now) == refused(chain.machine.check, one) == Code.UNKNOWN_MESSAGE
    assert [r.code for r in chain.block(*signed).receipts] == [Code.UNKNOWN_MESSAGE] * 3
    empty = Chain((Gated(),), protocol=1)
    assert (root, chain.machine.head.state_root) == (empty.block().header.state_root, empty.block().header.state_root)
    _, left_out = chain.machine.propose_block(chain.now + 1, signed)
    assert [(one.id, int(why.code)) for one, why in left_out] == [(one.id, 114) for one in signed]
    chain.now += 1
    chain.ok(ADA, Say(text="c"))
    assert module.seen == 1

    chain.ok(GOVERNOR, Upgrade(height=chain.machine.head.height + 3, protocol=2))
    assert refused(chain.machine.check, signed[0], chain.now) == Code.UNKNOWN_MESSAGE
    chain.machine.check(signed[0])  # it may come while this is valid
    chain.block()
    for one in signed:
        chain.machine.check(one, chain.now)
    assert [r.code for r in chain.block(*signed).receipts] == [0, 0, 0]
    assert [r.code for r in chain.block(*signed).receipts] == [Code.ALREADY_APPLIED] * 3
    assert module.seen == 5


def test_a_newer_field_does_not_change_older_bytes() -> None:
    """What does not use it is the same canonical bytes as before there was such a field."""
    chain = Chain((Gated(),))
    raw = chain.raw(ADA, Say(text="a"))
    assert b"loud" not in raw
    assert chain.machine.codec.decode(raw).raw == raw


def test_newer_parameters_are_unknown_until_their_height() -> None:
    """Older rules neither show, nor take, nor begin with a parameter of newer ones."""
    chain = Chain((Gated(),), protocol=1)
    assert chain.send(GOVERNOR, SetParameter(name="waves", value=4)).code == Code.PARAMETER_REFUSED
    assert "waves" not in chain.machine.parameters()
    assert "words" in chain.machine.parameters()
    with pytest.raises(ValueError, match="waves"):
        Machine(genesis(protocol=1, parameters={"waves": 4}), (Gated(),))
    chain.ok(GOVERNOR, Upgrade(height=chain.machine.head.height + 2, protocol=2))
    assert chain.machine.parameters()["waves"] == 3
    chain.ok(GOVERNOR, SetParameter(name="waves", value=4))
    assert Chain((Gated(),), parameters={"waves": 5}).machine.parameters()["waves"] == 5


def test_what_is_sent_around_the_height_is_applied_once() -> None:
    """A transaction applied, or refused by a message, under the old rules keeps its result under the new ones."""
    chain = Chain((Gated(),), protocol=1)
    chain.ok(GOVERNOR, Upgrade(height=3, protocol=2))
    good = chain.sign(ADA, Transfer(amount="5", denomination=CREDIT, to=BOB.address))
    poor = chain.sign(ADA, Transfer(amount=str(10**15), denomination=CREDIT, to=BOB.address))
    assert [r.code for r in chain.block(good, poor).receipts] == [0, Code.INSUFFICIENT_FUNDS]
    result = chain.block(good, poor, chain.sign(ADA, Wave()))
    assert result.header.protocol == 2
    assert [r.code for r in result.receipts] == [Code.ALREADY_APPLIED, Code.ALREADY_APPLIED, 0]
    assert chain.balance(BOB) == 10**12 + 5
    chain.machine.invariants()
