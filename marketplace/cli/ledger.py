"""`gpubid ledger`: check a chain without trusting the node that serves it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.home import home_option, home_path, node_option
from ledger.cli.output import describe, emit, output_option, say
from marketplace.cli.connect import connect, notebook
from marketplace.cli.receipt import receipt

if TYPE_CHECKING:
    from ledger.engine.export import VerifyReport
    from ledger.protocol.receipts import SignedCheckpoint, Statement, Witness
    from marketplace.client import NodeClient

DISTRUST = "do not trust this chain's source: what it says is not what its transactions give"


@click.group()
def ledger() -> None:
    """Verify, replay and prove; trust nobody's server."""


ledger.add_command(receipt)


def _verify(path: Path, witness: "Witness | None" = None) -> "VerifyReport":
    from ledger.engine.export import VerifyFailed, verify_export
    from marketplace.market.module import Market

    try:
        return verify_export(path, [Market()], look=None if witness is None else witness.look)
    except VerifyFailed as error:
        raise CommandFailed(f"the chain does not verify: {error}", Exit.FAILURE, fix=error.fix or DISTRUST) from None


def _fetch(node: str, path: Path) -> None:
    from marketplace.client import NodeClient

    with NodeClient(node) as client:
        client.export(path)


def _chain_of(path: Path) -> str:
    """Name of an export's chain; empty where its first line does not say."""
    import msgspec

    with path.open("rb") as file:
        try:
            return str(msgspec.json.decode(file.readline())["genesis"]["chain_id"])
        except (msgspec.MsgspecError, UnicodeError, RecursionError, KeyError, TypeError):
            return ""


def _judge(path: Path, statements: "Sequence[Statement]", output: str, *, older: bool, fix: str, late: str = "") -> None:
    """Replay an export, hold statements against it and against each other, and print what that came to."""
    from ledger.protocol.receipts import Witness, contradictions
    from marketplace.cli.evidence import conclude

    witness = Witness(statements)
    said = list(contradictions(statements))
    try:
        found = _verify(path, witness)
    except CommandFailed as failure:
        if said or witness.evidence:
            # Both are told: what the node signed convicts it, and what its export says is no chain.
            say(f"gpubid: {failure}")
            conclude(None, witness.borne_out, [*said, *witness.evidence], output, fix=fix)
        raise
    if not older:
        witness.end(found.height)
    conclude(found, witness.borne_out, [*said, *witness.evidence], output, fix=fix, late=late)


@ledger.command("verify", short_help="Replay a chain, and hold what is kept against it.")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--key", help="Key of a node in hex: only what it signed counts.")
@click.option(
    "--checkpoint", "--receipts", "files", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with signed checkpoints or receipts, beside those that are kept in the home. Repeatable.",
)  # fmt: skip
@click.option("--older", is_flag=True, help="FILE is older than what is kept: leave out what was signed about later blocks.")
@node_option
@home_option
@output_option
def verify(file: Path | None, key: str | None, files: tuple[Path, ...], older: bool, node: str, output: str) -> None:
    """Replay an export in FILE, or the node's whole chain, and hold against it every receipt and checkpoint that is kept.

    Every root, receipt and hash is computed anew from genesis. What a node signed and its chain does not bear out, or what
    contradicts something else that it signed, convicts the node: a chain that was cut short, rewritten or forked is found.
    """
    import tempfile

    from marketplace.cli.evidence import gather

    if file is not None:
        fix = "keep the receipts and this file as evidence; a file older than the receipts: fetch a newer one, or give --older"
        late = ", or the file is older than they are"
        _judge(file, gather(_chain_of(file), files, key), output, older=older, fix=fix, late=late)
        return
    with tempfile.TemporaryDirectory(prefix="gpubid-verify-") as folder:
        path = Path(folder) / "chain.export"
        with connect(node) as client:
            _checkpoint(client)  # what it says now must be in what it gives next
        _fetch(node, path)
        fix = "do not trust this node; keep the receipts, and its chain by gpubid ledger export, as evidence"
        _judge(path, gather(_chain_of(path), files, key), output, older=False, fix=fix)


@ledger.command("replay")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@output_option
def replay(file: Path, output: str) -> None:
    """Replay an export in FILE and print the state root it ends with."""
    found = _verify(file)
    data = {"height": found.height, "state_root": found.state_root, "transactions": found.transactions, "verified": True}
    emit(output, data, text=describe(data), names=[found.state_root])


def _new(file: Path) -> None:
    """CommandFailed where a file cannot be made anew: it exists, or its folder does not."""
    if file.exists():
        raise CommandFailed(f"{file} exists", Exit.CONFLICT, fix="name another file")
    if not file.parent.is_dir():
        raise CommandFailed(f"there is no folder {file.parent}", Exit.USAGE, fix="make it first, or name another file")


@ledger.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@node_option
def export(file: Path, node: str) -> None:
    """Write the node's whole chain to FILE, to verify it elsewhere."""
    _new(file)
    _fetch(node, file)
    say(f"wrote {file} ({file.stat().st_size} bytes)")


@ledger.command("snapshot", short_help="Write a node's newest state to a file.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--database", help="URL of the ledger; the one of the node in the home by default.  [env: GPUBID_NODE_DATABASE]")
@home_option
@output_option
def snapshot(file: Path, database: str | None, output: str) -> None:
    """Write the newest state in a node's database to FILE, for `gpubid node restore`; the node may run meanwhile."""
    from ledger.engine.snapshots import take
    from marketplace.node.config import load, node_home

    _new(file)
    found = take(load(node_home(home_path()), {"database": database}).url, file)
    facts = {"chain_id": found.chain_id, "genesis": found.genesis, "height": found.height, "hash": found.hash}
    facts |= {"state_root": found.state_root, "bytes": file.stat().st_size}
    emit(output, facts, text=describe(facts), names=[f"{found.height}:{found.hash}"])


def _kept(client: "NodeClient", found: dict[str, Any]) -> "SignedCheckpoint":
    """The checkpoint in a node's answer, found to be signed by the key that the node is known by, and kept."""
    from ledger.notebook import statement_in
    from ledger.protocol.errors import Rejected
    from ledger.protocol.receipts import SignedCheckpoint

    try:
        statement = statement_in(found)
    except Rejected as error:
        raise CommandFailed(f"the checkpoint is not good: {error}", Exit.FORBIDDEN, fix="do not trust this node") from None
    if not isinstance(statement, SignedCheckpoint) or statement.node_key != client.key():
        raise CommandFailed("the checkpoint is not signed by the node's key", Exit.FORBIDDEN, fix="do not trust this node")
    if statement.checkpoint.height:
        notebook().keep(statement)
    return statement


def _checkpoint(client: "NodeClient", height: int | None = None) -> dict[str, Any]:
    found = client.checkpoint(height)
    _kept(client, found)
    return found


ALIASES = {"deposit": "purse", "escrow": "purse"}
"""What people call a part of a record: deposits stand in their purse."""


def _tables() -> list[str]:
    from ledger.machine.accounts import Accounts
    from ledger.machine.delegation import Delegations
    from ledger.machine.escrow import Escrow
    from ledger.machine.params import CHAIN, PARAMETERS
    from ledger.machine.schedule import SCHEDULE
    from ledger.machine.store import Table
    from marketplace.market.module import Market

    tables: list[Table[Any]] = [
        *Accounts().tables,
        *Delegations().tables,
        *Escrow().tables,
        PARAMETERS,
        CHAIN,
        SCHEDULE,
        *Market().tables,
    ]
    return sorted(table.name for table in tables)


def _record(table: str, name: str | None) -> str:
    """The full key of a record, from `TABLE KEY` or `TABLE/KEY`."""
    if name is None:
        table, slash, name = table.partition("/")
        if not slash:
            raise CommandFailed(f"which {table}?", Exit.USAGE, fix=f"give its key: gpubid ledger prove {table} KEY")
    table = ALIASES.get(table, table)
    known = _tables()
    if table not in known:
        # A table that does not exist is proven absent at once: a misspelt word must not pass for that.
        raise CommandFailed(f"there is no table {table!r}", Exit.USAGE, fix=f"known: {', '.join(known)}")
    return f"{table}/{name}"


@ledger.command("prove", short_help="Prove that a record is in the state, or is not.")
@click.argument("table")
@click.argument("key", required=False)
@node_option
@home_option
@output_option
def prove(table: str, key: str | None, node: str, output: str) -> None:
    """Prove that a record is in the state, or is not: prove lease OWNER/DSEQ/GSEQ/OSEQ/PROVIDER, account ADDRESS,
    purse OWNER/DSEQ (its deposits are in it), delegation ADDRESS/KEY, bid PROVIDER/HOST, supply DENOMINATION, …

    The proof is checked here against a root that the node signed; -o json prints it for others to check.
    """
    import msgspec

    from ledger.protocol.proof import Proof
    from ledger.protocol.proof import verify as holds

    name = _record(table, key)
    with connect(node) as client:
        found = client.proof(name)
        said = _kept(client, found).checkpoint
    try:
        proof = msgspec.convert(found["proof"], Proof)
    except (msgspec.ValidationError, KeyError) as error:
        raise CommandFailed(f"the node's proof of {name} is none: {error}", fix="do not trust this node") from None
    if proof.key != name or not holds(proof, said.state_root):
        raise CommandFailed(f"the node's proof of {name} does not hold", fix="do not trust this node")
    facts = {"key": name, "present": proof.value is not None, "value": proof.value or "", "height": said.height}
    facts |= {"state_root": said.state_root, "node_key": found["node_key"]}
    emit(output, found, text=describe(facts), names=[said.state_root])


@ledger.command("checkpoint", short_help="Fetch, check and keep the newest block's signed root.")
@click.option("--height", type=click.IntRange(1), help="Of this block instead of the newest.")
@node_option
@home_option
@output_option
def checkpoint(height: int | None, node: str, output: str) -> None:
    """Fetch the newest block's root, signed by the node, check the signature and keep it: two that differ prove a fork."""
    with connect(node) as client:
        found = _checkpoint(client, height)
    emit(
        output, found, text=describe({**found["checkpoint"], "node_key": found["node_key"]}), names=[found["checkpoint"]["hash"]]
    )
