"""`gpubid ledger`: check a chain without trusting the node that serves it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.home import home_option, home_path, node_option
from ledger.cli.output import describe, emit, output_option, say

if TYPE_CHECKING:
    from ledger.engine.export import VerifyReport


@click.group()
def ledger() -> None:
    """Verify, replay and prove; trust nobody's server."""


def _verify(path: Path) -> "VerifyReport":
    from ledger.engine.export import VerifyFailed, verify_export
    from marketplace.market.module import Market

    try:
        return verify_export(path, [Market()], key=None)
    except VerifyFailed as error:
        fix = "do not trust this chain's source: what it says is not what its transactions give"
        raise CommandFailed(f"the chain does not verify: {error}", Exit.FAILURE, fix=fix) from None


def _fetch(node: str, path: Path) -> None:
    from marketplace.client import NodeClient

    with NodeClient(node) as client:
        client.export(path)


def _report(found: "VerifyReport", output: str) -> None:
    data = {"height": found.height, "state_root": found.state_root, "transactions": found.transactions, "verified": True}
    emit(output, data, text=describe(data), names=[found.state_root])


@ledger.command("verify")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@node_option
@output_option
def verify(file: Path | None, node: str, output: str) -> None:
    """Replay an export in FILE, or the node's whole chain, from genesis and compare every root, receipt and hash."""
    import tempfile

    if file is not None:
        _report(_verify(file), output)
        return
    with tempfile.TemporaryDirectory(prefix="gpubid-verify-") as folder:
        path = Path(folder) / "chain.export"
        _fetch(node, path)
        found = _verify(path)
        _agree(node, found)
    _report(found, output)


def _agree(node: str, found: "VerifyReport") -> None:
    """What was replayed is what the node shows and signs."""
    from marketplace.client import NodeClient

    if found.height:
        with NodeClient(node) as client:
            shown = client.block(found.height)
        if shown["state_root"] != found.state_root:
            raise CommandFailed(f"the node shows another state root at height {found.height} than its export gives")


@ledger.command("replay")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@output_option
def replay(file: Path, output: str) -> None:
    """Replay an export in FILE and print the state root it ends with."""
    _report(_verify(file), output)


@ledger.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@node_option
def export(file: Path, node: str) -> None:
    """Write the node's whole chain to FILE, to verify it elsewhere."""
    if file.exists():
        raise CommandFailed(f"{file} exists", Exit.CONFLICT, fix="name another file")
    _fetch(node, file)
    say(f"wrote {file} ({file.stat().st_size} bytes)")


@ledger.command("snapshot")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--database", help="URL of the ledger; the one of the node in the home by default.  [env: GPUBID_NODE_DATABASE]")
@home_option
@output_option
def snapshot(file: Path, database: str | None, output: str) -> None:
    """Write the newest state in a node's database to FILE, for `gpubid node restore`; the node may run meanwhile."""
    from ledger.engine.snapshots import take
    from marketplace.node.config import load, node_home

    if file.exists():
        raise CommandFailed(f"{file} exists", Exit.CONFLICT, fix="name another file")
    found = take(load(node_home(home_path()), {"database": database}).url, file)
    facts = {"chain_id": found.chain_id, "genesis": found.genesis, "height": found.height, "hash": found.hash}
    facts |= {"state_root": found.state_root, "bytes": file.stat().st_size}
    emit(output, facts, text=describe(facts), names=[f"{found.height}:{found.hash}"])


def _signed(found: dict[str, Any]) -> None:
    """CommandFailed unless the checkpoint is signed by the key that it names."""
    from ledger.protocol.encoding import digest, encode
    from ledger.protocol.keys import verify as good

    key, signature = bytes.fromhex(found["node_key"]), bytes.fromhex(found["signature"])
    if not good(key, digest("checkpoint/v1", encode(found["checkpoint"])), signature):
        raise CommandFailed("the checkpoint's signature is not the node's", Exit.FORBIDDEN)


@ledger.command("prove")
@click.argument("key")
@node_option
@output_option
def prove(key: str, node: str, output: str) -> None:
    """Prove that the record KEY (table/key, such as lease/gpu1…/1/1/1/gpu1…) is in the state, or is not."""
    import msgspec

    from ledger.protocol.proof import Proof
    from ledger.protocol.proof import verify as holds
    from marketplace.client import NodeClient

    with NodeClient(node) as client:
        found = client.proof(key)
    proof = msgspec.convert(found["proof"], Proof)
    _signed(found)
    said = found["checkpoint"]
    if proof.key != key or not holds(proof, said["state_root"]):
        raise CommandFailed(f"the node's proof of {key} does not hold", fix="do not trust this node")
    facts = {"key": key, "present": proof.value is not None, "value": proof.value or "", "height": said["height"]}
    facts |= {"state_root": said["state_root"], "node_key": found["node_key"]}
    emit(output, found, text=describe(facts), names=[said["state_root"]])


@ledger.command("checkpoint")
@node_option
@output_option
def checkpoint(node: str, output: str) -> None:
    """Fetch the newest block's root, signed by the node, and check the signature. Keep it: two that differ prove a fork."""
    from marketplace.client import NodeClient

    with NodeClient(node) as client:
        found = client.checkpoint()
    _signed(found)
    emit(
        output, found, text=describe({**found["checkpoint"], "node_key": found["node_key"]}), names=[found["checkpoint"]["hash"]]
    )
