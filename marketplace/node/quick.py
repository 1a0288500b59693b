"""The quick path of transactions: from the bytes of a connection to the engine, and back, without a framework between.

A request for one of the two hot routes whose head is plain and whose body is there is taken here: no scope, task or
cycle is made for it. Everything else goes to uvicorn's own protocol, which sees every byte of it, and none of what was
taken: both change over between whole requests only. What is plain is decided by the same parser, once for each
different head: clients that keep their connection send the same head again and again.
"""

from asyncio import Protocol, TimerHandle, Transport
from functools import partial
from typing import Any, Final, NamedTuple, cast

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from marketplace.node.edge import BATCH, MAX_BATCH_BODY, MAX_BODY, PROBLEM, TRANSACTIONS, Answer, Edge, split
from marketplace.node.intake import Ticket
from marketplace.node.problems import Problem

PLAIN_HEAD: Final = 2048
"""Longest head, in bytes, that the quick path looks at."""

MAX_HEAD: Final = 64 * 1024
"""Longest head of any request, in bytes."""

MAX_LATER: Final = 64 * 1024
"""Bytes kept of requests behind the one that is being answered; then no more are read."""

HOLD_S: Final = 1.0
"""Longest wait here for the rest of a body; then the usual path waits for it."""

_UNUSUAL: Final = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"trailer", b"te"))
_KNOWN_HEADS: Final = 1024
_START: Final = b"POST /v1/transactions"
_TOO_LARGE: Final = Problem(431, "the head is too large", f"at most {MAX_HEAD} bytes", fix="send fewer headers")
_BUG: Final = Problem(500, "the node has a bug", fix="its log has the place; tell its operator")

_log = structlog.get_logger("gpubid.node")


class Plan(NamedTuple):
    """What a plain head says."""

    path: str
    length: int
    """Bytes of the body."""


class _Head:
    """Reads one head by the server's parser; `plan` is None where anything about it is unusual."""

    def __init__(self, head: bytes) -> None:
        self._url = b""
        self._lengths: list[bytes] = []
        self._unusual = False
        self._whole = False
        self._parser: Any = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._unusual = True
        self.plan = self._plan()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-length":
            self._lengths.append(value)
        elif name in _UNUSUAL or (name == b"connection" and value.lower() != b"keep-alive"):
            self._unusual = True

    def on_headers_complete(self) -> None:
        self._whole = True

    def on_body(self, _body: bytes) -> None:
        self._unusual = True  # the head ended before its end: a bare line feed

    def on_message_complete(self) -> None:
        self._unusual = True

    def _plan(self) -> Plan | None:
        if self._unusual or not self._whole or len(self._lengths) != 1:
            return None
        if self._parser.get_method() != b"POST" or self._parser.get_http_version() != "1.1":
            return None
        length = self._lengths[0]
        limit = {TRANSACTIONS.encode(): MAX_BODY, BATCH.encode(): MAX_BATCH_BODY}.get(self._url, 0)
        if not (length.isdigit() and len(length) < 9 and 0 < int(length) <= limit):
            return None
        return Plan(self._url.decode(), int(length))


class Lane:
    """What the connections of one server share."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self._plans: dict[bytes, Plan | None] = {}
        self._common: list[tuple[bytes, bytes]] | None = None
        self._receipt = b""

    def plan(self, head: bytes) -> Plan | None:
        """The plan of a head with the empty line that ends it; None where the usual path is to have it."""
        try:
            return self._plans[head]
        except KeyError:
            if len(self._plans) >= _KNOWN_HEADS:
                self._plans.clear()
            found = self._plans[head] = _Head(head).plan
            return found

    def encoded(self, answer: Answer, common: list[tuple[bytes, bytes]], *, last: bool) -> bytes:
        """The bytes of an answer; `common` are the headers of every answer, `last` says that the connection ends."""
        if answer.status == 200 and not last:
            if common is not self._common:  # the server makes a new list every second, for the date
                self._common = common
                self._receipt = _head_of(200, [*common, *answer.headers])
            head = self._receipt
        else:
            head = _head_of(answer.status, [*common, *answer.headers, *([(b"connection", b"close")] if last else [])])
        return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(answer.body), answer.body)


def _head_of(status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
    return STATUS_LINE[status] + b"".join(b"%b: %b\r\n" % header for header in headers)


class QuickProtocol(HttpToolsProtocol):
    """One connection. At most one request of it is being answered at a time, on whichever path."""

    transport: Transport

    def __init__(self, lane: Lane, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._lane = lane
        # The usual path.
        self._parsing = False
        """True while its parser is inside a request."""
        self._in_head = False
        self._head_is_new = False
        self._head_bytes = 0
        # The quick path.
        self._held = bytearray()
        """The beginning of a plain request whose body is not whole yet."""
        self._needed = 0
        self._hold_timer: TimerHandle | None = None
        self._busy = False
        """True from a request until its answer is written and the client keeps up with reading."""
        self._stuck = False
        self._path = ""
        self._tickets: list[Ticket] = []
        self._left = 0
        self._later = b""
        """What the client sent behind the request that is being answered, from `_at` on."""
        self._at = 0
        self._ending = False
        # Both.
        self._quiet_since = 0.0
        self._quiet_timer: TimerHandle | None = None

    # The transport.

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """A client has connected; one that asks nothing is not kept for ever."""
        super().connection_made(transport)
        self._quiet_since = self.loop.time()
        self._quiet_timer = self.loop.call_later(self.timeout_keep_alive, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over; what was taken is applied all the same."""
        super().connection_lost(exc)
        for timer in (self._hold_timer, self._quiet_timer, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()
        self._held.clear()
        self._later = b""

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._busy:
            self._later = self._later[self._at :] + data
            self._at = 0
            if len(self._later) > MAX_LATER:
                self.flow.pause_reading()
            return
        if self._held:
            self._held += data
            if len(self._held) >= self._needed:
                self._serve(self._unheld())
            return
        self._serve(data)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if self._stuck and not self.transport.is_closing():
            self._stuck = False
            self._next()

    def shutdown(self) -> None:
        """The server ends: answer what is under way, then close."""
        if self._busy and not self._stuck:
            self._ending = True
            return
        if self._held:
            self._usual(self._unheld())
        super().shutdown()

    def _look(self) -> None:
        """Close a connection on which nothing is under way, and has not been for a while."""
        if self.transport.is_closing():
            return
        pause: float = self.timeout_keep_alive
        if not self._busy and (self.cycle is None or self.cycle.response_complete):
            pause = self._quiet_since + self.timeout_keep_alive - self.loop.time()
            if pause <= 0:
                self.transport.close()
                return
        self._quiet_timer = self.loop.call_later(pause, self._look)

    # Which path.

    def _serve(self, data: bytes, at: int = 0) -> None:
        """Take a request, from `at` on, that is plain and whole; give anything else to the usual path."""
        if not data.startswith(_START, at) or self._parsing or not (self.cycle is None or self.cycle.response_complete):
            self._usual(data[at:])
            return
        body = data.find(b"\r\n\r\n", at, at + PLAIN_HEAD) + 4
        plan = self._lane.plan(data[at:body]) if body > 4 else None
        if plan is None or (self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency):
            self._usual(data[at:])
            return
        end = body + plan.length
        if len(data) < end:
            self._held += data[at:]
            self._needed = end - at
            self._hold_timer = self.loop.call_later(HOLD_S, self._give_up_holding)
        elif not self._take(plan.path, data[body:end]):
            self._usual(data[at:])
        elif len(data) > end:
            self._later, self._at = data, end

    def _unheld(self) -> bytes:
        data = bytes(self._held)
        self._held.clear()
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
        return data

    def _give_up_holding(self) -> None:
        if self._held:
            self._usual(self._unheld())

    # The quick path.

    def _take(self, path: str, body: bytes) -> bool:
        """Hand the transactions of a request to the engine; False where the body is not what it should be."""
        if path == TRANSACTIONS:
            raws = [body]
        else:
            try:
                raws = split(body)
            except Problem:
                return False
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self._busy = True
        self._path = path
        self._left = len(raws)
        self._tickets = self._lane.edge.intake.put(raws, self._outcome)
        return True

    def _outcome(self, _ticket: Ticket) -> None:
        self._left -= 1
        if self._left:
            return
        tickets, self._tickets = self._tickets, []
        try:
            answer = self._lane.edge.answer(self._path, tickets)
        except Exception:
            _log.exception("a transaction could not be answered", path=self._path)
            answer = Answer(500, _BUG.encoded(), (PROBLEM,))
            self._ending = True
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.transport.write(self._lane.encoded(answer, self.server_state.default_headers, last=self._ending))
        if self._ending:
            self.transport.close()
            return
        self._quiet_since = self.loop.time()
        if self.flow.write_paused:
            self._stuck = True
        else:
            self._next()

    def _next(self) -> None:
        """Go on with what the client sent meanwhile."""
        self._busy = False
        self.flow.resume_reading()
        if self._later:
            data, self._later = self._later, b""
            at, self._at = self._at, 0
            self._serve(data, at)
            if self._busy and len(self._later) - self._at > MAX_LATER:
                self.flow.pause_reading()

    # The usual path.

    def _usual(self, data: bytes) -> None:
        was_in_head, self._head_is_new = self._in_head, False
        super().data_received(data)
        if self._in_head and was_in_head and not self._head_is_new:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD:
                self._refuse_head()

    def _refuse_head(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            answer = Answer(431, _TOO_LARGE.encoded(), (PROBLEM,))
            self.transport.write(self._lane.encoded(answer, self.server_state.default_headers, last=True))
        self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._parsing = self._in_head = self._head_is_new = True
        self._head_bytes = 0
        self._quiet_since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its head is whole."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """It is whole. After one that asks for another protocol the quick path takes nothing any more."""
        self._parsing = self.parser.should_upgrade()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """It is answered."""
        self._quiet_since = self.loop.time()
        super().on_response_complete()


def quick_protocol(edge: Edge) -> type[Protocol]:
    """What uvicorn takes as its `http`: makes the protocol of each connection to an edge."""
    return cast("type[Protocol]", partial(QuickProtocol, Lane(edge)))
