"""Restart: the newest checkpoint and a replay of the tail; and the checkpoints themselves, made off the writer's way.

On SQLite a checkpoint is written by a forked child, which has the whole state as it was at the fork: the writer
pays for the fork alone. A checkpoint that is damaged or missing costs time, never state: the log is replayed.
"""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from ledger.engine.errors import LedgerDamaged, LedgerMissing, WrongChain
from ledger.engine.log import Log, head_mark
from ledger.machine.machine import Machine
from ledger.machine.module import Module
from ledger.protocol.encoding import encode
from ledger.protocol.errors import Rejected
from ledger.protocol.genesis import Genesis

TAIL_TRANSACTIONS: Final = 10_000
"""A checkpoint is due after so many transactions …"""

TAIL_BLOCKS: Final = 2_000
"""… or so many blocks, so that a restart replays little."""

_log = structlog.get_logger()


def open_machine(log: Log, genesis: Genesis | None, modules: Sequence[Module]) -> Machine:
    """The machine in the state of the newest committed block."""
    stored = log.meta("genesis")
    if stored is None:
        if log.height() or log.committed() is not None:
            raise LedgerDamaged(0, "there are blocks, but no genesis")
        if genesis is None:
            raise LedgerMissing(log.where)
        log.start(genesis)
        stored = encode(genesis)
    try:
        found = msgspec.json.decode(stored, type=Genesis)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LedgerDamaged(0, f"the genesis cannot be decoded: {error}") from None
    if log.meta("genesis_hash") != found.hash.encode() or encode(found) != stored:
        raise LedgerDamaged(0, "the genesis is not the one that was stored")
    if genesis is not None and genesis.hash != found.hash:
        raise WrongChain(log.where, found.chain_id, genesis.chain_id)
    machine = _from_checkpoint(log, found, modules) or Machine(found, modules)
    replay(machine, log)
    height = machine.head.height
    if log.committed() != head_mark(height, machine.head.hash if height else found.hash):
        raise LedgerDamaged(height, "the newest block is not the one that was committed last")
    owner = int.from_bytes(log.meta("owner") or b"\0", "big") + 1
    log.set_meta("owner", (owner % 2**63).to_bytes(8, "big"))
    return machine


def _from_checkpoint(log: Log, genesis: Genesis, modules: Sequence[Module]) -> Machine | None:
    data = log.load_checkpoint()
    if data is None or len(data) < 32:
        return None
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        _log.warning("the checkpoint is damaged; replaying the log")
        return None
    try:
        machine = Machine.restore(genesis, modules, data[32:])
    except (ValueError, AssertionError, Rejected) as error:
        _log.warning("the checkpoint cannot be used; replaying the log", error=str(error))
        return None
    height = machine.head.height
    block = log.block(height)
    if height and (block is None or block.header != machine.head):
        # Its hash and its root are good: the log has lost what was committed, or another chain's file was put here.
        raise LedgerDamaged(height, "the log does not have the block of the checkpoint beside it")
    return machine


def replay(machine: Machine, log: Log) -> None:
    """Apply every block after the machine's head; LedgerDamaged where one does not give what was committed."""
    for block in log.all_blocks(machine.head.height + 1):
        header = block.header
        if header.parent != machine.head.hash:
            raise LedgerDamaged(header.height, "the block does not follow the one before it")
        try:
            transactions = [machine.codec.decode(raw) for raw in block.raws]
            result = machine.apply_block(header.time_ms, transactions, verified=True)
        except (Rejected, AssertionError) as error:
            raise LedgerDamaged(header.height, f"the block cannot be applied: {error}") from None
        if result.header != header:
            raise LedgerDamaged(header.height, "replaying the block gives another result than was committed")


class Checkpoints:
    """Decides when a checkpoint is due and has it written. Used by the writer's thread."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._blocks = 0
        self._transactions = 0
        self._child = 0

    def after_block(self, machine: Machine, transactions: int) -> None:
        """Count a committed block; start a checkpoint where one is due."""
        self._blocks += 1
        self._transactions += transactions
        if self._blocks < TAIL_BLOCKS and self._transactions < TAIL_TRANSACTIONS:
            return
        if not self._reap(wait=False):
            return  # the last one is still being written
        self._blocks = self._transactions = 0
        path = self._log.checkpoint_path
        if path is None:
            self._log.save_checkpoint(machine.head.height, _sealed(machine))
        else:
            self._fork(machine, path)

    def _fork(self, machine: Machine, path: Path) -> None:
        child = os.fork()
        if child:
            self._child = child
            return
        # In the child: nothing but encoding and writing, then out, whatever happens. Neither the ledger's lock nor
        # a socket that listens may live on in here if the parent dies.
        status = 1
        try:
            os.closerange(3, 65_536)
            os.nice(10)
            write_durably(path, _sealed(machine))
            status = 0
        finally:
            os._exit(status)

    def _reap(self, *, wait: bool) -> bool:
        """True where no child is left."""
        if self._child:
            pid, status = os.waitpid(self._child, 0 if wait else os.WNOHANG)
            if pid == 0:
                return False
            self._child = 0
            if status:
                _log.warning("a checkpoint could not be written", status=status)
        return True

    def close(self, machine: Machine | None) -> None:
        """Wait for a checkpoint under way; write a last one where `machine` is given and blocks came since."""
        self._reap(wait=True)
        if machine is None or not self._blocks:
            return
        path = self._log.checkpoint_path
        try:
            if path is None:
                self._log.save_checkpoint(machine.head.height, _sealed(machine))
            else:
                write_durably(path, _sealed(machine))
        except OSError as error:
            # The log has everything: only the next start is slower.
            _log.warning("a checkpoint could not be written", error=str(error))


def _sealed(machine: Machine) -> bytes:
    data = machine.snapshot()
    return hashlib.sha256(data).digest() + data


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file in one step: after a crash it is the old one or the new one."""
    draft = path.with_name(path.name + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    finally:
        os.close(descriptor)
    draft.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
