"""`gpubid node start`: opens the ledger, binds, serves until it is told to stop."""

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
import uvicorn
import uvloop

from ledger.cli.failure import CommandFailed, Exit, exit_code_of
from ledger.cli.listen import bind, url_of
from ledger.engine.embedded import Engine
from ledger.engine.errors import LedgerMissing, WrongChain
from ledger.machine.machine import UpgradeRequired
from ledger.protocol.genesis import Genesis
from ledger.protocol.keys import address_of, public_key
from marketplace.market.module import Market
from marketplace.node import home as homes
from marketplace.node.app import create_app
from marketplace.node.composition import Node
from marketplace.node.config import NodeConfig
from marketplace.node.edge import Edge
from marketplace.node.faucet import Faucet
from marketplace.node.hub import Hub
from marketplace.node.logs import configure
from marketplace.node.metrics import Metrics
from marketplace.node.quick import quick_protocol

DRAIN_S: Final = 5
"""Longest wait at the end for requests under way."""

SWITCH_S: Final = 0.001
"""How long a thread computes while another wants to."""

_log = structlog.get_logger("gpubid.node")


def fatal(error: BaseException) -> None:
    """The ledger's writer failed: what it acknowledged is durable, nothing more may be said. Leaves the process at once."""
    _log.critical("the ledger stopped", error=f"{type(error).__name__}: {error}", fix=_advice(error))
    sys.stderr.flush()
    os._exit(int(Exit.FAILURE))


def _advice(error: BaseException) -> str:
    if isinstance(error, UpgradeRequired):
        return error.fix
    if _is_full(error):
        return "free space where the chain is kept, or mend its disk; then start again"
    if any(kind.__name__ == "OperationalError" for kind in type(error).__mro__):  # psycopg's, which may not be installed
        return "see that the database runs and can be reached, then start again: the ledger recovers from its log"
    return "start again: the ledger recovers from its log; tell the developers if it happens twice"


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if "disk is full" in str(error) or "disk I/O error" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


class Server(uvicorn.Server):
    """uvicorn that says when it serves, ends event streams before it waits for requests, and leaves with status 0."""

    def __init__(self, config: uvicorn.Config, ready: str, edge: Edge, hub: Hub) -> None:
        super().__init__(config)
        self.ready = ready
        self.edge = edge
        self.hub = hub

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then print the line that others wait for."""
        await super().startup(sockets)
        if self.started:
            print(self.ready, flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End event streams first: they would never end by themselves."""
        self.hub.close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT ask for the end; a second one does not wait for requests."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def _genesis(config: NodeConfig) -> Genesis:
    found = homes.read_genesis(config.home)
    if found is None:
        if homes.has_begun(config.home):
            raise homes.lost(config.home, "genesis.json")
        if not config.dev:
            raise CommandFailed(
                f"there is no chain in {config.home}",
                Exit.NOT_FOUND,
                fix="gpubid node start --dev makes a development chain; gpubid node init makes another",
            )
        found = homes.development_genesis(config.home)
        homes.write_genesis(config.home, found)
    if config.dev and not found.dev:
        raise CommandFailed(f"the chain in {config.home} is no development chain", Exit.CONFLICT, fix="start without --dev")
    return found


def _faucet(config: NodeConfig, engine: Engine, genesis: Genesis) -> Faucet | None:
    seed = homes.seed_of(config.home, "faucet", make=False) if genesis.dev else None
    if seed is None:
        return None
    issuer = address_of(public_key(seed))
    for spec in genesis.denominations:
        if spec.issuer == issuer:
            return Faucet(engine, seed, spec.name)
    return None


def compose(config: NodeConfig, engine: Engine, genesis: Genesis) -> Node:
    """Put a node together around an open engine."""
    seed = homes.seed_of(config.home, "node", make=True)
    assert seed is not None
    return Node(
        engine=engine,
        hub=Hub(engine, engine.head.height),
        metrics=Metrics(),
        home=config.home,
        key_seed=seed,
        key_hex=public_key(seed).hex(),
        faucet=_faucet(config, engine, genesis),
    )


async def _serve(config: NodeConfig, node: Node, sock: socket.socket) -> None:
    edge = create_app(node)
    ready = f"ready {url_of(sock)} chain {node.engine.genesis.chain_id} height {node.engine.head.height} key {node.key_hex}"
    settings = uvicorn.Config(
        edge,
        log_config=None,
        access_log=False,
        lifespan="on",
        http=quick_protocol(edge),
        proxy_headers=False,
        server_header=False,
        limit_concurrency=config.max_connections,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=DRAIN_S,
    )
    await Server(settings, ready, edge, node.hub).serve(sockets=[sock])


def run(config: NodeConfig) -> None:
    """Run a node until SIGTERM or SIGINT; CommandFailed where it cannot start."""
    configure(config.log_level)
    # The loop and the ledger's writer are threads of one interpreter: neither may wait 5 ms for the other to pause.
    sys.setswitchinterval(SWITCH_S)
    try:
        config.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with homes.locked(config.home):
            _run(config)
    except Exception as error:
        # First of all: the engine's own words for a failed write do not say that it is the disk.
        if _is_full(error):
            fix = "free space there (or lift the limit on file sizes), or give another GPUBID_HOME"
            raise CommandFailed(f"{config.home} cannot be written: the disk is full ({error})", Exit.FAILURE, fix=fix) from None
        if exit_code_of(error) is not None:
            raise
        if isinstance(error, OSError):
            raise CommandFailed(f"{config.home} cannot be used: {error}", Exit.FAILURE, fix="see its permissions") from None
        raise


def _open(config: NodeConfig, genesis: Genesis) -> Engine:
    """The engine on the node's database; a chain that had begun is never begun again."""
    begun = homes.has_begun(config.home)
    try:
        engine = Engine.open(config.url, None if begun else genesis, [Market()], on_fatal=fatal)
    except LedgerMissing:
        raise homes.lost(config.home, "its database") from None
    if engine.genesis.hash != genesis.hash:
        engine.close()
        raise WrongChain("its database", engine.genesis.chain_id, genesis.chain_id)
    return engine


def _run(config: NodeConfig) -> None:
    genesis = _genesis(config)
    engine = _open(config, genesis)
    try:
        homes.mark_begun(config.home)
        sock = bind(config.listen)
        try:
            node = compose(config, engine, genesis)
            _log.info("serving", url=url_of(sock), chain_id=genesis.chain_id, height=engine.head.height)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_serve(config, node, sock))
        finally:
            sock.close()
    finally:
        engine.close()
