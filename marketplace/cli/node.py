"""`gpubid node`: run a node, or ask one how it is."""

from pathlib import Path

import click

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.home import home_option, home_path, node_option
from ledger.cli.output import describe, emit, output_option, say


@click.group()
def node() -> None:
    """Run a node, or ask one how it is."""


@node.command("start", short_help="Run a node until it is told to stop.")
@click.option("--listen", help="HOST:PORT to serve on; port 0 picks a free one.  [env: GPUBID_NODE_LISTEN; 127.0.0.1:8080]")
@click.option("--database", help="URL of the ledger; SQLite in the home by default.  [env: GPUBID_NODE_DATABASE]")
@click.option("--dev", is_flag=True, default=None, help="Make a development chain with a faucet where there is none yet.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[env: GPUBID_NODE_LOG_LEVEL]")
@home_option
def start(listen: str | None, database: str | None, dev: bool | None, log_level: str | None) -> None:
    """Run a node until it is told to stop; prints one line `ready URL …` when it serves."""
    from marketplace.node.config import load, node_home

    flags = {"listen": listen, "database": database, "dev": dev, "log_level": log_level}
    config = load(node_home(home_path()), flags)
    # What serves is heavy to load; a wrong setting is said before it.
    from marketplace.node.daemon import run

    run(config)


@node.command("init", short_help="Write the genesis of a new chain into the home.")
@click.option("--chain-id", required=True, help="Name of the chain: a-z, 0-9 and -.")
@click.option("--denomination", default="ucredit", show_default=True, help="Its money, in micro-units.")
@click.option("--issuer", required=True, help="Address that mints and burns it.")
@click.option("--governance", required=True, help="Address that sets parameters.")
@click.option("--allocate", multiple=True, metavar="ADDRESS=AMOUNT", help="Money that exists from the start, in micro-units.")
@home_option
def init(chain_id: str, denomination: str, issuer: str, governance: str, allocate: tuple[str, ...]) -> None:
    """Write the genesis of a new chain into the home; `node start` then runs it."""
    import time

    import msgspec

    from ledger.machine.machine import Machine
    from ledger.protocol.encoding import encode
    from ledger.protocol.genesis import Allocation, DenominationSpec, Genesis
    from marketplace.market.module import Market
    from marketplace.node.config import node_home
    from marketplace.node.home import write_genesis

    shares = [text.partition("=") for text in allocate]
    made = Genesis(
        chain_id=chain_id,
        denominations=(DenominationSpec(issuer=issuer, name=denomination),),
        governance=governance,
        time_ms=time.time_ns() // 1_000_000,
        allocations=tuple(Allocation(address=a, amount=v, denomination=denomination) for a, _, v in shares),
    )
    try:
        checked = msgspec.json.decode(encode(made), type=Genesis)
        Machine(checked, [Market()])
    except (msgspec.MsgspecError, ValueError) as error:
        raise CommandFailed(f"this is no genesis: {error}", Exit.USAGE) from None
    home = node_home(home_path())
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_genesis(home, checked)
    click.echo(checked.hash)
    say(f"chain {chain_id} is in {home}; run it with gpubid node start")


@node.command("restore", short_help="Begin a node's chain with a snapshot.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--trust",
    required=True,
    metavar="HEIGHT:HASH|FILE",
    help="The snapshot's block as a node that you trust shows it, or a file with that node's signed checkpoint of it.",
)
@click.option("--key", help="Key (hex) that signed the checkpoint; one of a node that was met from this home by default.")
@click.option("--genesis", required=True, metavar="HASH", help="Hash of the chain's genesis, as `node init` printed it.")
@click.option("--database", help="URL of the ledger; SQLite in the home by default.  [env: GPUBID_NODE_DATABASE]")
@home_option
def restore(file: Path, trust: str, key: str | None, genesis: str, database: str | None) -> None:
    """Begin a node's chain with the snapshot in FILE, checked against the block and genesis named; `node start` then runs it.

    The node has no older blocks: it cannot serve, export or replay them.
    """
    from ledger.engine.snapshots import begin
    from marketplace.cli.trust import trusted_block
    from marketplace.market.module import Market
    from marketplace.node.config import load, node_home
    from marketplace.node.home import locked, read_genesis, write_genesis

    height, hash_ = trusted_block(trust, key, file)
    config = load(node_home(home_path()), {"database": database})
    config.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(config.home):
        known = read_genesis(config.home)
        if known is not None and known.hash != genesis:
            raise CommandFailed(f"the home is of genesis {known.hash}", Exit.CONFLICT, fix="give another GPUBID_HOME")
        first, found = begin(file, config.url, [Market()], genesis=genesis, height=height, hash_=hash_)
        if known is None:
            write_genesis(config.home, first)
    click.echo(found.state_root)
    say(f"chain {found.chain_id} is in {config.home} from height {found.height} on; run it with gpubid node start")


@node.command("status")
@node_option
@output_option
def status(node: str, output: str) -> None:
    """Show where a node's chain stands."""
    from marketplace.client import NodeClient

    with NodeClient(node) as client:
        found = client.status()
    emit(output, found, text=describe(found), names=[str(found["chain_id"])])


@node.command("known")
@home_option
@output_option
def known(output: str) -> None:
    """List the nodes that were met, and the key that is accepted of each."""
    from marketplace.cli.connect import notebook

    found = notebook().nodes()
    data = [{"url": n.url, "chain_id": n.chain_id, "key": n.key} for n in found]
    rows = [(n.url, n.chain_id, n.key) for n in found]
    emit(output, data, headers=("NODE", "CHAIN", "KEY"), rows=rows, names=[n.key for n in found])


@node.command("trust", short_help="Accept another key as the node's from now on.")
@click.argument("key")
@node_option
@home_option
def trust(key: str, node: str) -> None:
    """Accept KEY as the node's from now on: the one that it has, and that its operator told by another way."""
    from marketplace.cli.connect import notebook
    from marketplace.client import NodeClient

    with NodeClient(node) as client:
        found = client.status()
        url = client.base_url
    if found["node_key"] != key:
        raise CommandFailed(f"the node's key is {found['node_key']}", Exit.CONFLICT, fix="ask its operator which one is right")
    notebook().trust(url, str(found["chain_id"]), key)
    say(f"the key of {url} for chain {found['chain_id']} is {key} from now on")
