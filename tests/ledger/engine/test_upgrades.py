"""The engine and rules that change at a height: before it, across it, and with software that does not know them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.engine.embedded import Engine
from ledger.engine.errors import Indeterminate
from ledger.engine.export import VerifyFailed, verify_export
from ledger.machine.machine import UpgradeRequired
from ledger.protocol.errors import Rejected
from ledger.protocol.messages import Upgrade
from tests.ledger.engine.ledgers import Reminders, balance_of, eventually, seen, send, signed, transfer
from tests.ledger.machine.chain import BOB, GOVERNOR, genesis

KNOWN = "ledger.protocol.genesis.PROTOCOL"
Opened = Callable[..., Engine]


def test_a_chain_goes_from_one_protocol_to_the_next(url: str, opened: Opened, tmp_path: Path) -> None:
    """The rules change at the height that governance names; a restart and an export see the same, retries change nothing."""
    engine = opened(url, genesis=genesis(protocol=1))
    assert engine.planned_upgrade is None
    first = send(engine, transfer(engine))
    send(engine, signed(engine.now_ms(), GOVERNOR, Upgrade(height=4, protocol=2)))
    assert engine.planned_upgrade == (4, 2)
    raw = transfer(engine)
    before = send(engine, raw)
    assert (first.ok, before.height, engine.head.protocol) == (True, 3, 1)
    assert send(engine, raw) == before
    after = send(engine, transfer(engine))
    assert (after.height, engine.head.protocol, engine.planned_upgrade) == (4, 2, None)
    assert send(engine, raw) == before
    assert balance_of(engine, BOB) == 10**12 + 3
    reached = seen(engine)
    engine.export(path := tmp_path / "chain.export")
    engine.close()
    assert seen(opened(url, genesis=genesis(protocol=1))) == reached
    assert verify_export(path, [Reminders()]).hash == reached[1]


def test_software_that_does_not_know_the_rules_stops(
    url: str, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It commits nothing at that height, says what to do, and does not start again; newer software goes on from there."""
    monkeypatch.setattr(KNOWN, 1)
    ended: list[BaseException] = []
    engine = opened(url, genesis=genesis(protocol=1), on_fatal=ended.append)
    send(engine, signed(engine.now_ms(), GOVERNOR, Upgrade(height=3, protocol=2)))
    assert send(engine, transfer(engine)).height == 2
    last = transfer(engine)
    with pytest.raises(Indeterminate):
        send(engine, last)
    eventually(lambda: ended, "the end")
    assert isinstance(ended[0], UpgradeRequired)
    engine.close()

    def refused() -> Any:
        with pytest.raises(UpgradeRequired) as why:
            opened(url, genesis=genesis(protocol=1))
        assert why.value.exit_code == 1
        assert "release" in why.value.fix
        return why.value

    assert (refused().height, refused().protocol) == (3, 2)
    monkeypatch.setattr(KNOWN, 2)
    engine = opened(url, genesis=genesis(protocol=1))
    assert send(engine, last).height == 3
    assert balance_of(engine, BOB) == 10**12 + 2
    engine.export(path := tmp_path / "chain.export")
    engine.close()
    monkeypatch.setattr(KNOWN, 1)
    assert (refused().height, refused().protocol) == (3, 2)  # what newer software committed is left alone
    with pytest.raises(VerifyFailed, match="follows protocol 2") as failed:
        verify_export(path, [Reminders()])
    assert "release" in failed.value.fix


def test_a_chain_of_unknown_rules_is_not_begun(url: str, opened: Opened) -> None:
    """Nor is one begun whose genesis names them."""
    with pytest.raises((UpgradeRequired, Rejected)):
        opened(url, genesis=genesis(protocol=99))
