"""Exports: whoever has the file checks the chain by himself, and a history that was changed is found."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.engine.embedded import Engine
from ledger.engine.export import VerifyFailed, verify_export
from ledger.protocol import keys
from ledger.protocol.block import Header
from ledger.protocol.encoding import encode
from ledger.protocol.messages import Transfer
from ledger.protocol.receipts import sign_checkpoint
from tests.ledger.engine.ledgers import ManualClock, Remind, Reminders, send, signed, transfer
from tests.ledger.machine.chain import ADA, BOB, CREDIT, START, genesis

Opened = Callable[..., Engine]
NODE = b"\x07" * 32
NODE_KEY = keys.public_key(NODE).hex()


def attested(header: Header, seed: bytes = NODE) -> bytes:
    """A checkpoint of a block as a node signs it."""
    return encode(sign_checkpoint(header, seed, keys.public_key(seed).hex()))


def export_of(engine: Engine, path: Path, first: int = 1) -> Path:
    """A chain with transfers and something that fell due, exported; `first` is what the first transfer moves."""
    assert send(engine, signed(engine.now_ms(), ADA, Remind(due_ms=engine.now_ms() + 2, id="tea"))).ok
    for amount in (first, 2, 3, 10**15):
        send(engine, transfer(engine, amount))
    engine.export(path)
    return path


def test_an_export_verifies(url: str, opened: Opened, tmp_path: Path) -> None:
    """An export, also of an empty chain, gives the head's height, root and hash, with a node's checkpoint or without."""
    engine = opened(url)
    engine.export(tmp_path / "empty")
    assert verify_export(tmp_path / "empty", [Reminders()]).height == 0
    path = export_of(engine, tmp_path / "export")
    head = engine.block(json.loads(path.read_bytes().splitlines()[-1])["height"])
    assert head is not None
    header = head.header
    for checkpoint in (None, attested(header), attested(_header(engine, 2))):
        report = verify_export(path, [Reminders()], key=NODE_KEY, checkpoint=checkpoint)
        assert (report.height, report.state_root, report.hash) == (header.height, header.state_root, header.hash)
        assert report.transactions == 5


def _header(engine: Engine, height: int) -> Header:
    block = engine.block(height)
    assert block is not None
    return block.header


def test_a_changed_export_is_refused_at_its_line(opened: Opened, tmp_path: Path) -> None:
    """Every line that is changed, left out, doubled, or swapped with the next one is found, whatever it says."""
    path = export_of(opened(f"sqlite:///{tmp_path}/chain.db"), tmp_path / "export")
    lines = path.read_bytes().splitlines(keepends=True)
    changed: list[list[bytes]] = []
    for n, line in enumerate(lines):
        digits = [at for at, byte in enumerate(line) if chr(byte).isdigit()]
        for at in digits[:: max(1, len(digits) // 12)]:
            other = line[:at] + str((int(chr(line[at])) + 1) % 10).encode() + line[at + 1 :]
            changed.append([*lines[:n], other, *lines[n + 1 :]])
        changed.append([*lines[:n], *lines[n + 1 :]])
        changed.append([*lines[:n], line, line, *lines[n + 1 :]])
        changed.append([*lines[:n], line.rstrip(), *lines[n + 1 :]])
        if n + 1 < len(lines):
            changed.append([*lines[:n], lines[n + 1], line, *lines[n + 2 :]])
    for other_lines in changed:
        path.write_bytes(b"".join(other_lines))
        with pytest.raises(VerifyFailed) as refusal:
            verify_export(path, [Reminders()])
        assert refusal.value.what
    path.write_bytes(b"".join(lines))
    assert verify_export(path, [Reminders()]).transactions == 5


def test_a_fork_does_not_pass_for_the_chain_that_was_signed(opened: Opened, tmp_path: Path) -> None:
    """A history written anew, valid in itself, is refused where a checkpoint of the first one is at hand."""
    clock = ManualClock()
    honest = opened(f"sqlite:///{tmp_path}/a.db", clock=clock)
    export_of(honest, tmp_path / "honest")
    forged = opened(f"sqlite:///{tmp_path}/b.db", clock=clock)
    path = export_of(forged, tmp_path / "forged", first=7)
    assert verify_export(path, [Reminders()]).height == 5
    for height in (2, 5):
        with pytest.raises(VerifyFailed, match="history was changed"):
            verify_export(path, [Reminders()], key=NODE_KEY, checkpoint=attested(_header(honest, height)))
    send(honest, transfer(honest))
    with pytest.raises(VerifyFailed, match="missing"):
        verify_export(tmp_path / "honest", [Reminders()], key=NODE_KEY, checkpoint=attested(honest.head))
    with pytest.raises(VerifyFailed, match="not signed"):
        verify_export(path, [Reminders()], key=NODE_KEY, checkpoint=attested(_header(forged, 5), seed=b"\x08" * 32))


def test_a_bad_signature_is_found_though_the_log_took_it(opened: Opened, tmp_path: Path) -> None:
    """Whoever writes the log himself cannot spend for others: verification checks every signature."""
    engine = opened(f"sqlite:///{tmp_path}/chain.db", genesis=genesis(time_ms=START))
    steal = signed(engine.now_ms(), ADA, Transfer(amount="5", denomination=CREDIT, to=BOB.address))
    at = steal.index(b'"signature":"') + 13
    faulty = steal[:at] + b"0" * 128 + steal[at + 128 :]
    engine._verifying.finish = lambda: [b""]  # type: ignore[method-assign]
    assert send(engine, faulty).ok
    engine.export(tmp_path / "export")
    with pytest.raises(VerifyFailed, match="height 1"):
        verify_export(tmp_path / "export", [Reminders()])
