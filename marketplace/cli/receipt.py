"""`gpubid ledger receipt`: what a node signed about a transaction."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.home import home_option, node_option
from ledger.cli.output import columns, describe, emit, output_option
from marketplace.cli.connect import connect, notebook

if TYPE_CHECKING:
    from ledger.protocol.receipts import SignedReceipt, Statement


@click.group()
def receipt() -> None:
    """List, show and check signed receipts."""


def _plain(statement: "Statement") -> Any:
    import msgspec

    return json.loads(msgspec.json.encode(statement))


@receipt.command("list")
@click.option("--chain-id", help="Of this chain only.")
@home_option
@output_option
def list_(chain_id: str | None, output: str) -> None:
    """List the receipts that are kept in the home, oldest first."""
    from ledger.protocol.receipts import SignedReceipt

    book = notebook()
    chains = [chain_id] if chain_id else book.chains()
    found = [s for chain in chains for s in book.statements(chain)[0] if isinstance(s, SignedReceipt)]
    rows = [(s.receipt.id, s.receipt.chain_id, s.receipt.height, s.receipt.code, s.node_key[:16] + "…") for s in found]
    headers = ("TRANSACTION", "CHAIN", "HEIGHT", "CODE", "NODE KEY")
    text = columns(headers, rows) if rows else "no receipts are kept yet: commands that send keep them"
    emit(output, [_plain(s) for s in found], text=text, names=[s.receipt.id for s in found])


@receipt.command("show", short_help="Show the signed receipt of a transaction.")
@click.argument("id")
@node_option
@home_option
@output_option
def show(id: str, node: str, output: str) -> None:
    """Show the signed receipt of transaction ID: the kept one, or one that the node signs now; -o json is for others to check."""
    found = notebook().find(id)
    if found is None:
        with connect(node) as client:
            found = client.signed_receipt(id)
    emit(output, _plain(found), text=describe(_facts(found)), names=[found.receipt.id])


@receipt.command("verify", short_help="Check signed receipts or checkpoints in a file.")
@click.argument("file", default="-")
@click.option("--key", help="Key in hex that must have signed; otherwise one of a node that was met.")
@home_option
@output_option
def verify(file: str, key: str | None, output: str) -> None:
    """Check the signed receipts or checkpoints in FILE (standard input by default), without any network."""
    import tempfile

    from marketplace.cli.evidence import statements_of

    if file == "-":
        with tempfile.NamedTemporaryFile(prefix="gpubid-") as copy:
            copy.write(sys.stdin.buffer.read())
            copy.flush()
            found = statements_of(Path(copy.name))
    elif Path(file).is_file():
        found = statements_of(Path(file))
    else:
        raise CommandFailed(f"there is no file {file}", Exit.USAGE, fix="see gpubid ledger receipt show ID -o json")
    known = {(node.chain_id, node.key): node.url for node in notebook().nodes()}
    for statement in found:
        if key not in (None, statement.node_key):
            raise CommandFailed(f"it is signed by {statement.node_key}, not by the key that was given", Exit.FORBIDDEN)
        if key is None and (statement.said.chain_id, statement.node_key) not in known:
            raise CommandFailed(
                f"it is signed by {statement.node_key}, and no node with that key was ever met",
                Exit.FORBIDDEN,
                fix="ask the node's operator for its key, and give it with --key",
            )
    texts = [describe(_facts(statement) | {"signature": "good"}) for statement in found]
    emit(output, [_plain(s) for s in found], text="\n\n".join(texts), names=[s.said.hash for s in found])


def _facts(statement: "Statement | SignedReceipt") -> dict[str, object]:
    import msgspec

    facts: dict[str, object] = msgspec.to_builtins(statement.said)
    if "id" in facts:
        facts = {"transaction": facts.pop("id")} | facts
    facts["block"] = facts.pop("hash")
    return facts | {"node_key": statement.node_key}
