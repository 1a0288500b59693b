"""The node of the tests behind a real socket, served by a thread."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from ledger.cli.listen import bind, url_of
from ledger.engine.embedded import Engine
from marketplace.market.module import Market
from marketplace.node import home as homes
from marketplace.node.app import create_app
from marketplace.node.composition import Node
from marketplace.node.config import NodeConfig
from marketplace.node.daemon import compose
from marketplace.node.edge import Edge
from marketplace.node.quick import quick_protocol
from tests.processes import eventually


@dataclass
class Listening:
    """A node at a URL."""

    node: Node
    edge: Edge
    url: str
    server: uvicorn.Server


@contextmanager
def listening(folder: Path) -> Iterator[Listening]:
    """A node of a new development chain in `folder`, on a free port of loopback."""
    folder.mkdir(parents=True, exist_ok=True)
    genesis = homes.development_genesis(folder)
    config = NodeConfig(home=folder, dev=True)
    engine = Engine.open(config.url, genesis, [Market()])
    try:
        node = compose(config, engine, genesis)
        edge = create_app(node)
        sock = bind("127.0.0.1:0")
        settings = uvicorn.Config(
            edge,
            http=quick_protocol(edge),
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=5,
        )
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=_run, args=(server, sock), name="node")
        url = url_of(sock)
        thread.start()
        try:
            eventually(lambda: server.started, "the server to start")
            yield Listening(node, edge, url, server)
        finally:
            node.hub._loop and node.hub._loop.call_soon_threadsafe(node.hub.close)
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()
            sock.close()
    finally:
        engine.close()


def _run(server: uvicorn.Server, sock: socket.socket) -> None:
    server.run(sockets=[sock])
