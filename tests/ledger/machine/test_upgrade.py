"""Rules that change at a height: a log that crosses it replays to the same end, from genesis and from any snapshot."""

import pytest

from ledger.machine.context import Context
from ledger.machine.machine import Machine
from ledger.machine.module import Plain
from ledger.protocol.errors import Code, require
from ledger.protocol.events import Transferred
from ledger.protocol.messages import Message, Upgrade
from tests.ledger.machine.chain import ADA, BOB, CREDIT, GOVERNOR, Chain


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


def test_a_log_that_crosses_an_upgrade_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the height the old rules hold, from it on the new ones: in the live chain, in a replay, after each snapshot."""
    monkeypatch.setattr("ledger.protocol.genesis.PROTOCOL", 2)
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
