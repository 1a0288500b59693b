"""Servers to compare with, each in its own process: `python -m tests.bench.servers bare|edge [CORE]`.

`bare` is the limit: an ASGI application that reads the body, decodes it with msgspec and answers JSON of the size of a
receipt; uvicorn with uvloop and httptools, set as the node sets it. `edge` is all that the node does for a transaction
but for the ledger: the same edge and protocol class, with an engine that decodes and answers at once.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import uvicorn
import uvloop

from ledger.engine.asked import Done
from ledger.protocol.block import Receipt
from ledger.protocol.events import Transferred
from ledger.protocol.messages import Transfer
from ledger.protocol.transaction import Codec
from marketplace.node.edge import Edge
from marketplace.node.metrics import Metrics
from marketplace.node.quick import quick_protocol

EVENT = Transferred(amount="1", denomination="ucredit", source="gpu1" + "q" * 58, to="gpu1" + "p" * 58)
ANSWER = msgspec.json.encode(Receipt(id="a" * 64, height=1000, index=100, code=0, events=(EVENT,)))


async def bare(_scope: Any, receive: Any, send: Any) -> None:
    """The least that an ASGI application does for a transaction."""
    body = (await receive())["body"]
    if body:
        msgspec.json.decode(body)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


class AtOnce:
    """Decodes as the engine does, and answers without a ledger."""

    def __init__(self) -> None:
        self._codec = Codec((Transfer,))

    def submit_batch(self, raws: Sequence[bytes], done: Done) -> None:
        """Every transaction is applied."""
        ids = [self._codec.decode(raw).id for raw in raws]
        done([(n, Receipt(id=id, height=1000, index=n, code=0, events=(EVENT,))) for n, id in enumerate(ids)])


def serve(kind: str) -> None:
    """Serve on a free port until the process is ended."""
    edge = Edge(bare, AtOnce(), Metrics())  # type: ignore[arg-type]
    chosen: dict[str, Any] = {"app": bare, "http": "httptools"} if kind == "bare" else {"app": edge, "http": quick_protocol(edge)}
    sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
    sock.setblocking(False)
    print("ready", sock.getsockname()[1], flush=True)
    settings = uvicorn.Config(
        **chosen, log_config=None, access_log=False, lifespan="off", server_header=False, proxy_headers=False,
        limit_concurrency=2000, timeout_keep_alive=30,
    )  # fmt: skip
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(uvicorn.Server(settings).serve(sockets=[sock]))


@contextmanager
def running(kind: str, core: int | None = None) -> Iterator[int]:
    """Such a server in its own process, on one core where that is named: its port."""
    command = [sys.executable, "-m", "tests.bench.servers", kind, *([] if core is None else [str(core)])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline().split()[1])
        finally:
            process.terminate()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        os.sched_setaffinity(0, {int(sys.argv[2])})
    serve(sys.argv[1])
