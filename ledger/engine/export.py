"""A whole chain as a file of JSON lines, and its check by replay: nobody's server need be trusted.

The first line has the genesis, each further one a block (header and signed transactions), the last one the height.
Receipts, events and roots are not in it: whoever verifies computes them.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ledger.engine.errors import LedgerPruned
from ledger.engine.log import Log
from ledger.machine.machine import Machine, UpgradeRequired, check_protocol
from ledger.machine.module import Module
from ledger.protocol.block import BlockResult, Header, Receipt
from ledger.protocol.encoding import encode
from ledger.protocol.errors import Code, Rejected
from ledger.protocol.genesis import Genesis
from ledger.protocol.receipts import CheckpointStatement, SignedCheckpoint, decode_statement

FORMAT: Final = "gpubid/export/v1"


class VerifyFailed(Exception):
    """The export is not a chain that its transactions give: at which height, and what is wrong.

    `fix` is set where it may be one all the same, which only other software could tell.
    """

    def __init__(self, height: int, what: str, fix: str = "") -> None:
        super().__init__(f"height {height}: {what}")
        self.fix = fix
        self.height = height
        self.what = what


class VerifyReport(msgspec.Struct, frozen=True):
    """What a replay came to."""

    height: int
    state_root: str
    transactions: int
    hash: str


class _First(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    genesis: Genesis


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    header: Header
    transactions: list[msgspec.Raw]


class _Last(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    hash: str
    height: int


def write_export(log: Log, genesis: Genesis, height: int, path: Path) -> None:
    """Write the chain up to `height` to `path`; LedgerPruned where its first blocks are not there."""
    if (first := log.first_height()) > 1:
        raise LedgerPruned(first)
    last = genesis.hash
    with path.open("wb") as out:
        out.write(encode(_First(format=FORMAT, genesis=genesis)) + b"\n")
        for block in log.all_blocks(last=height):
            out.write(encode(_Line(header=block.header, transactions=[msgspec.Raw(raw) for raw in block.raws])) + b"\n")
            last = block.header.hash
        out.write(encode(_Last(hash=last, height=height)) + b"\n")


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as source:
        for line in source:
            if not line.endswith(b"\n"):
                raise VerifyFailed(0, "the file is cut short")
            yield line[:-1]


def verify_export(
    path: Path,
    modules: Sequence[Module],
    *,
    key: str | None = None,
    checkpoint: bytes | None = None,
    look: Callable[[Header, Sequence[Receipt]], None] | None = None,
) -> VerifyReport:
    """Replay the export from its genesis, every signature included, and compare every header, root and hash.

    With `checkpoint`, a signed checkpoint as the node serves it, the block it names must be in the chain and signed
    by `key` (hex). `look` sees each block once it is found right. VerifyFailed says at which height what is wrong.
    """
    lines = _lines(path)
    try:
        first = msgspec.json.decode(next(lines, b""), type=_First)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise VerifyFailed(0, f"the file does not begin with a genesis: {error}") from None
    if first.format != FORMAT:
        raise VerifyFailed(0, f"the file is of another kind: {first.format!r}")
    signed = None if checkpoint is None else _checkpoint(checkpoint, key, first.genesis)
    try:
        machine = Machine(first.genesis, modules)
    except UpgradeRequired as newer:
        raise VerifyFailed(0, str(newer), newer.fix) from None
    except (ValueError, Rejected, AssertionError, KeyError) as error:
        raise VerifyFailed(0, f"the genesis cannot be used: {error}") from None
    count = 0
    last: _Last | None = None
    for line in lines:
        if last is not None:
            raise VerifyFailed(machine.head.height, "there is something after the end")
        if line.startswith(b'{"hash"'):
            last = _end(line, machine)
            continue
        result = _apply(machine, line)
        count += len(result.receipts)
        if look is not None:
            look(result.header, result.receipts)
        if signed is not None and signed.height == machine.head.height and signed.hash != machine.head.hash:
            raise VerifyFailed(signed.height, "the signed checkpoint names another block: the history was changed")
    if last is None:
        raise VerifyFailed(machine.head.height, "the file is cut short")
    if signed is not None and signed.height > machine.head.height:
        raise VerifyFailed(machine.head.height, f"the signed checkpoint is of height {signed.height}, which is missing")
    hash_ = machine.head.hash if machine.head.height else first.genesis.hash
    return VerifyReport(height=machine.head.height, state_root=machine.head.state_root, transactions=count, hash=hash_)


def _end(line: bytes, machine: Machine) -> _Last:
    try:
        last = msgspec.json.decode(line, type=_Last)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise VerifyFailed(machine.head.height, f"the last line cannot be decoded: {error}") from None
    hash_ = machine.head.hash if machine.head.height else machine.genesis.hash
    if last.height != machine.head.height or last.hash != hash_ or encode(last) != line:
        raise VerifyFailed(machine.head.height, "the last line is not that of this chain")
    return last


def _apply(machine: Machine, line: bytes) -> BlockResult:
    """Apply the block of a line and compare."""
    height = machine.head.height + 1
    try:
        block = msgspec.json.decode(line, type=_Line)
        _check_rules(block.header.protocol, height)
        raws = [bytes(raw) for raw in block.transactions]
        transactions = [machine.codec.decode(raw) for raw in raws]
    except (msgspec.MsgspecError, UnicodeDecodeError, Rejected) as error:
        raise VerifyFailed(height, f"the block cannot be decoded: {error}") from None
    if encode(block) != line:
        raise VerifyFailed(height, "the block is not in canonical form")
    if block.header.parent != (machine.head.hash):
        raise VerifyFailed(height, "the block does not follow the one before it")
    if block.header.time_ms <= machine.head.time_ms:
        raise VerifyFailed(height, "block time does not advance")
    try:
        result = machine.apply_block(block.header.time_ms, transactions)
    except UpgradeRequired as newer:
        raise VerifyFailed(height, str(newer), newer.fix) from None
    except (Rejected, AssertionError) as error:
        raise VerifyFailed(height, f"the block cannot be applied: {error}") from None
    if result.header != block.header:
        names = [n for n in Header.__struct_fields__ if getattr(result.header, n) != getattr(block.header, n)]
        raise VerifyFailed(height, f"replaying the block gives another {', '.join(names)}")
    return result


def _check_rules(protocol: int, height: int) -> None:
    """Before anything of the block is read: older software may not even be able to decode what newer rules know."""
    try:
        check_protocol(protocol, height)
    except UpgradeRequired as newer:
        raise VerifyFailed(height, str(newer), "install a release that knows this protocol and verify again") from None


def _checkpoint(raw: bytes, key: str | None, genesis: Genesis) -> CheckpointStatement:
    """The checkpoint in `raw` once its signature was found good."""
    try:
        found = decode_statement(raw)
    except Rejected as error:
        if error.code == Code.BAD_SIGNATURE:
            raise VerifyFailed(0, "the checkpoint is not signed by the key that was given") from None
        raise VerifyFailed(0, f"the checkpoint cannot be decoded: {error.detail}") from None
    if not isinstance(found, SignedCheckpoint):
        raise VerifyFailed(0, "the checkpoint cannot be decoded: it is a receipt")
    if key is not None and key != found.node_key:
        raise VerifyFailed(0, "the checkpoint is not signed by the key that was given")
    if found.said.chain_id != genesis.chain_id:
        raise VerifyFailed(0, f"the checkpoint is of chain {found.said.chain_id}")
    return found.said
