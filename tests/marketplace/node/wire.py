"""An edge behind a real socket, with an engine that does what it is told, and a client that sends raw bytes."""

import logging
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import uvicorn

from ledger.engine.asked import Done, Outcome
from ledger.protocol.block import Receipt
from ledger.protocol.errors import Code, Rejected
from marketplace.node.edge import Edge
from marketplace.node.metrics import Metrics
from marketplace.node.quick import quick_protocol
from tests.processes import eventually

PATIENCE_S = 60.0


@dataclass
class Told:
    """An engine whose receipt holds the transaction in its detail; a body tells it to refuse, to wait or to fail."""

    seen: list[bytes] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    kept: list[Callable[[Outcome], None]] = field(default_factory=list)
    """What answers the bodies that say "wait"."""

    def submit_batch(self, raws: Sequence[bytes], done: Done) -> None:
        """Do with each what its bytes say."""
        self.seen += raws
        self.calls.append(len(raws))
        for place, raw in enumerate(raws):
            if b"wait" in raw:
                self.kept.append(partial(self._later, done, place))
            else:
                done([(place, self.outcome(raw))])

    @staticmethod
    def _later(done: Done, place: int, outcome: Outcome) -> None:
        done([(place, outcome)])

    def outcome(self, raw: bytes) -> Outcome:
        """What comes of some bytes."""
        if b"bug" in raw:
            return ZeroDivisionError("a bug of the tests")
        if b"limited" in raw:
            return Rejected(Code.RATE_LIMITED, raw.decode())
        return self.receipt(raw, int(Code.INSUFFICIENT_FUNDS) if b"poor" in raw else 0)

    @staticmethod
    def receipt(raw: bytes, code: int = 0) -> Receipt:
        """The receipt for some bytes."""
        return Receipt(id="a" * 64, height=1, index=0, code=code, detail=raw.decode("latin-1"))

    @property
    def machine(self) -> Any:
        """Decodes nothing: no transaction of these tests has an id."""
        return self

    codec = machine

    def decode(self, _raw: bytes) -> Any:
        """Refuse."""
        raise Rejected(Code.MALFORMED, "not a transaction")


async def inner(scope: Any, receive: Any, send: Any) -> None:
    """An application that says what it was asked."""
    body = b""
    if scope["method"] in ("POST", "PUT"):
        body = (await receive())["body"]
    text = f"{scope['method']} {scope['path']} ".encode() + body
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


class CountingEdge(Edge):
    """An edge that counts the requests that came over the usual path."""

    usual = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one."""
        self.usual += 1
        await super().__call__(scope, receive, send)


@dataclass
class Wired:
    """A served edge."""

    engine: Told
    edge: CountingEdge
    server: uvicorn.Server
    port: int
    thread: threading.Thread

    def connect(self) -> socket.socket:
        """A new connection."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def ask(self, parts: Sequence[bytes]) -> list["Heard"]:
        """Send parts on a new connection, one after the other, and read answers until the server closes it."""
        with self.connect() as sock:
            data = bytearray()
            try:
                for part in parts:
                    sock.sendall(part)
                while chunk := sock.recv(65_536):
                    data += chunk
            except ConnectionError:
                pass  # closed while we were still sending: what it said before is what counts
        return heard(bytes(data))


@dataclass(frozen=True)
class Heard:
    """One answer: the date left out, since it may differ."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def heard(data: bytes) -> list[Heard]:
    """The answers in what a connection gave; what is not whole makes it fail."""
    out, at = [], 0
    while at < len(data):
        end = data.index(b"\r\n\r\n", at)
        first, *lines = data[at:end].decode().split("\r\n")
        pairs = [line.split(": ", 1) for line in lines if not line.startswith("date: ")]
        headers = tuple((name, value) for name, value in pairs)
        at = end + 4 + int(dict(headers).get("content-length", "0"))
        assert at <= len(data), "an answer was cut off"
        out.append(Heard(int(first.split()[1]), headers, data[end + 4 : at]))
    return out


def answer(sock: socket.socket) -> Heard:
    """The next answer on a connection that has one request under way."""
    data = b""
    while True:
        chunk = sock.recv(65_536)
        assert chunk, f"closed within an answer: {data!r}"
        data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        if body and len(body) >= int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]):
            (found,) = heard(data)
            return found


def told_edge() -> CountingEdge:
    """An edge before an engine that does what it is told."""
    return CountingEdge(inner, Told(), Metrics())  # type: ignore[arg-type]


@contextmanager
def wired(quick: bool = True, **settings: Any) -> Iterator[Wired]:
    """Serve an edge on a free port, by the quick protocol or by uvicorn's own."""
    edge = told_edge()
    sock = socket.create_server(("127.0.0.1", 0))
    http: Any = quick_protocol(edge) if quick else "httptools"
    usual: dict[str, Any] = {"lifespan": "off", "log_config": None, "proxy_headers": False, "server_header": False}
    server = uvicorn.Server(uvicorn.Config(edge, http=http, **(usual | {"timeout_graceful_shutdown": 30} | settings)))
    thread = threading.Thread(target=lambda: server.run(sockets=[sock]), name="wired")
    with quiet():
        thread.start()
        try:
            eventually(lambda: server.started, "the server to start")
            yield Wired(edge.engine, edge, server, sock.getsockname()[1], thread)  # type: ignore[arg-type]
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
            sock.close()


@contextmanager
def quiet() -> Iterator[None]:
    """Without uvicorn's words on requests that are meant to be wrong."""
    logger = logging.getLogger("uvicorn.error")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def post(body: bytes, path: str = "/v1/transactions", *extra: str) -> bytes:
    """A request with a plain head, but for extra lines."""
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}", *extra]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


LAST = b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
"""Ends a connection: whoever reads to the end has all answers."""
