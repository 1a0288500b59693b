"""Which block a snapshot has to be of: named by hand, or by what a node signed that is trusted."""

from pathlib import Path
from typing import TYPE_CHECKING

from ledger.cli.failure import CommandFailed, Exit
from marketplace.cli.connect import notebook
from marketplace.cli.evidence import statements_of

if TYPE_CHECKING:
    from ledger.protocol.block import Header
    from ledger.protocol.receipts import Statement


def trusted_block(trust: str, key: str | None, snapshot: Path) -> tuple[int, str]:
    """(height, hash) of the block that is trusted: HEIGHT:HASH, or what a file with signed checkpoints says of the snapshot's.

    CommandFailed says what is wrong with the text or the file: signature, key, chain, or height.
    """
    height, colon, hash_ = trust.partition(":")
    if colon and height.isascii() and height.isdigit() and len(height) <= 16 and len(hash_) == 64:
        return int(height), hash_
    path = Path(trust)
    if not path.is_file():
        fix = "give HEIGHT:HASH as GET /v1/blocks/HEIGHT shows it, or a file of gpubid ledger checkpoint -o json"
        raise CommandFailed(f"--trust {trust} is neither HEIGHT:HASH nor a file", Exit.USAGE, fix=fix)
    from ledger.engine.snapshots import header_of

    return _of_file(path, key, header_of(snapshot))


def _of_file(path: Path, key: str | None, header: "Header") -> tuple[int, str]:
    from ledger.protocol.receipts import contradictions

    statements = statements_of(path)
    for statement in statements:
        _check_signer(path, statement, key)
        if statement.said.chain_id != header.chain_id:
            what = f"{path} is about chain {statement.said.chain_id}, the snapshot is of {header.chain_id}"
            raise CommandFailed(what, Exit.CONFLICT, fix="give a checkpoint of the snapshot's chain")
    if any(True for _ in contradictions(statements)):
        raise CommandFailed(
            f"{path} convicts the node that signed it: it contradicts itself", Exit.FORBIDDEN, fix="trust another"
        )
    found = {statement.said.hash for statement in statements if statement.said.height == header.height}
    if len(found) == 1:
        return header.height, found.pop()
    if found:
        raise CommandFailed(f"the nodes that signed {path} disagree about block {header.height}", Exit.FORBIDDEN, fix="ask more")
    there = ", ".join(str(height) for height in sorted({statement.said.height for statement in statements}))
    fix = f"ask a node that you trust: gpubid ledger checkpoint --height {header.height} -o json"
    if all(statement.said.height > header.height for statement in statements):
        what = f"the snapshot ends at height {header.height} and does not reach what {path} is about: {there}"
        raise CommandFailed(what, Exit.CONFLICT, fix=f"take a newer snapshot, or {fix}")
    raise CommandFailed(
        f"the snapshot is of height {header.height}, of which {path} does not speak: {there}", Exit.CONFLICT, fix=fix
    )


def _check_signer(path: Path, statement: "Statement", key: str | None) -> None:
    if key is not None:
        if statement.node_key != key:
            what = f"{path} is signed by {statement.node_key}, not by the key that was given"
            raise CommandFailed(what, Exit.FORBIDDEN, fix="give a file that the node of that key signed")
        return
    met = [node for node in notebook().nodes() if node.chain_id == statement.said.chain_id]
    if statement.node_key not in {node.key for node in met}:
        what = f"{path} is signed by {statement.node_key}, the key of no node that was met from this home"
        raise CommandFailed(what, Exit.FORBIDDEN, fix=f"if that is a node that you trust, give --key {statement.node_key}")
