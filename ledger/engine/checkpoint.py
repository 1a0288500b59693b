"""Restart: the state in pieces out of the log, or a replay of all blocks; and the pieces themselves.

The state is kept as 256 shards. Each block's commit has what it changed; after the answers, in proportion to that,
shards are written anew, the oldest first, and what no shard needs any more is dropped. So a restart reads the shards,
lays what changed since the oldest over them, and compares the root: at any moment, not only after an orderly end.
Pieces that are damaged or missing cost time, never state: the blocks are replayed.
"""

import gc
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from ledger.engine.errors import LedgerDamaged, LedgerMissing, WrongChain
from ledger.engine.log import Log, StoredBlock, head_mark
from ledger.machine.machine import Machine
from ledger.machine.module import Module
from ledger.machine.remembered import MINUTE_MS
from ledger.machine.snapshot import SHARDS
from ledger.protocol.block import Header
from ledger.protocol.encoding import encode
from ledger.protocol.errors import Rejected
from ledger.protocol.genesis import Genesis

CHANGED_BYTES: Final = 24 * 1024 * 1024
"""So much of what blocks changed may lie beside the shards, or half of what they have where that is more."""

BLOCK_BYTES: Final = 512
"""What a block counts beside its bytes."""

SHARD_BYTES: Final = 16 * 1024
"""What a shard counts at least."""

ROUND_BYTES: Final = 256 * 1024
"""Shards are written when so much is due: a few small ones at a time, or one large one."""

FIRST_SHARDS: Final = 16
"""Shards of a commit where all are written."""

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
    found = stored_genesis(stored, (log.meta("genesis_hash") or b"").decode(errors="replace"))
    if genesis is not None and genesis.hash != found.hash:
        raise WrongChain(log.where, found.chain_id, genesis.chain_id)
    gc.disable()  # nothing that is loaded is garbage
    try:
        machine = _loaded(log, found, modules) or _replayed(log, found, modules)
    finally:
        gc.enable()
    owner = int.from_bytes(log.meta("owner") or b"\0", "big") + 1
    log.set_meta("owner", (owner % 2**63).to_bytes(8, "big"))
    return machine


def stored_genesis(stored: bytes, hash_: str) -> Genesis:
    """The genesis in canonical bytes; LedgerDamaged where it is not the one of that hash (hex)."""
    try:
        found = msgspec.json.decode(stored, type=Genesis)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LedgerDamaged(0, f"the genesis cannot be decoded: {error}") from None
    if hash_ != found.hash or encode(found) != stored:
        raise LedgerDamaged(0, "the genesis is not the one that was stored")
    return found


def _loaded(log: Log, genesis: Genesis, modules: Sequence[Module]) -> Machine | None:
    """The machine from its pieces; None where they are missing, or are not those of the newest block."""
    head = _newest(log, genesis)
    if head is None or not log.shards_at():
        return None
    try:
        parts = log.parts(head.height)
        if parts is None:
            raise ValueError("a piece is missing")
        return Machine.load(genesis, modules, head, parts)
    except (ValueError, AssertionError, Rejected) as error:
        _log.warning("the checkpoint cannot be used; replaying the log", error=str(error))
        return None


def _newest(log: Log, genesis: Genesis) -> Header | None:
    """Header of the newest block, if it is the one that was committed last."""
    height = log.height()
    if height:
        block = log.block(height)
        head, hash_ = None if block is None else block.header, None if block is None else block.header.hash
    else:
        stored = log.meta("first")
        try:
            head = None if stored is None else msgspec.json.decode(stored, type=Header)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            head = None
        hash_ = None if head is None or head.parent != genesis.hash else genesis.hash
    return head if hash_ is not None and log.committed() == head_mark(height, hash_) else None


def _replayed(log: Log, genesis: Genesis, modules: Sequence[Module]) -> Machine:
    if log.first_height() > 1:
        raise LedgerDamaged(log.height(), "the state cannot be read, and the log began with a snapshot: nothing to replay")
    machine = Machine(genesis, modules)
    replay(machine, log)
    height = machine.head.height
    if log.committed() != head_mark(height, machine.head.hash if height else genesis.hash):
        raise LedgerDamaged(height, "the newest block is not the one that was committed last")
    # Pieces that were no good are written anew; none may be left.
    log.drop_shards()
    return machine


def replay(machine: Machine, log: Log) -> None:
    """Apply every block after the machine's head; LedgerDamaged where one does not give what was committed."""
    for block in log.all_blocks(machine.head.height + 1):
        header = block.header
        if header.parent != machine.head.hash:
            raise LedgerDamaged(header.height, "the block does not follow the one before it")
        try:
            result = machine.apply_block(header.time_ms, map(machine.codec.decode, block.raws), verified=True)
        except (Rejected, AssertionError) as error:
            raise LedgerDamaged(header.height, f"the block cannot be applied: {error}") from None
        if result.header != header:
            raise LedgerDamaged(header.height, "replaying the block gives another result than was committed")


class Checkpoints:
    """Writes shards, as many as what changed calls for. Used by the thread that writes blocks."""

    def __init__(self, log: Log, machine: Machine) -> None:
        """Write the first shards where there are none: of a new chain, or of one that was replayed."""
        self._log = log
        self._due = 0
        if not log.shards_at():
            self._write_all(machine)
        self._heights = [height for _, height in log.shards_at()]
        self._sizes = [max(size, SHARD_BYTES) for size in log.shard_sizes()]
        assert len(self._heights) == SHARDS
        # From here on they take turns.
        self._next = self._heights.index(min(self._heights))

    def _write_all(self, machine: Machine) -> None:
        head = machine.head
        if head.height == 0:
            self._log.set_meta("first", encode(head))
        for start in range(0, SHARDS, FIRST_SHARDS):
            shards = {number: machine.shard(number) for number in range(start, start + FIRST_SHARDS)}
            self._log.keep_shards(head.height, shards, -1, 0)
        self._log.restart_shards(head.height, machine.remembered_ids())

    def after_block(self, machine: Machine, block: StoredBlock) -> None:
        """Count a block that is committed; write shards where they are due. `machine` is as that block left it."""
        assert machine.head == block.header, "shards are written of what is committed"
        whole = sum(self._sizes)
        # All shards have had their turn when the most has changed that may lie beside them.
        self._due += (len(block.change.records) + BLOCK_BYTES) * whole // max(CHANGED_BYTES, whole // 2)
        if self._due < ROUND_BYTES:
            return
        shards: dict[int, bytes] = {}
        while self._due > 0 and len(shards) < SHARDS:
            number = self._next
            data = shards[number] = machine.shard(number)
            self._heights[number] = block.header.height
            self._sizes[number] = max(len(data), SHARD_BYTES)
            self._due -= self._sizes[number]
            self._next = (number + 1) % SHARDS
        minute = block.header.time_ms // MINUTE_MS
        self._log.keep_shards(block.header.height, shards, min(self._heights), minute)
