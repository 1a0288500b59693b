"""The node's outer edge, plain ASGI: limits on what comes in, and the quick path of transactions.

A transaction goes from here straight to the engine: no framework lies between, since this path sets how many a second
one core takes. Everything else passes on to the application with its body already read and bounded.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ledger.engine.embedded import Engine
from ledger.protocol.block import Receipt
from ledger.protocol.errors import Rejected
from marketplace.node.identity import Notary
from marketplace.node.intake import Intake, Ticket
from marketplace.node.metrics import Metrics
from marketplace.node.problems import MEDIA_TYPE, Problem, of_number, of_rejected
from marketplace.node.sealing import asks_signed, seal, seal_all

TRANSACTIONS: Final = "/v1/transactions"
BATCH: Final = "/v1/transactions/batch"
MAX_BODY: Final = 256 * 1024
MAX_BATCH_BODY: Final = 4 * 2**20
MAX_BATCH: Final = 1_000
BODY_S: Final = 10.0
"""Longest time to send a body in."""

_BATCH = msgspec.json.Decoder(Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=MAX_BATCH)])
_ENCODE = msgspec.json.Encoder().encode
_JSON: Final = (b"content-type", b"application/json")
PROBLEM: Final = (b"content-type", MEDIA_TYPE.encode())


class Gone(Exception):
    """The client left before its request was whole."""


def busy(detail: str) -> Problem:
    """503 while the node's queue is full or its ledger stands still."""
    return Problem(503, "busy", detail, fix="wait a second, then send the same bytes again", retry_after_s=1)


def problem_of(error: BaseException, id: str = "") -> Problem:
    """The problem for what a transaction's future raised; a bug is raised again."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Rejected):
        return of_rejected(error, id)
    if isinstance(error, TimeoutError):
        fix = "ask /v1/transactions/ID, or send the same bytes again: it is applied once"
        return Problem(504, "no result in time", "whether it is applied is not known yet", fix=fix)
    if getattr(error, "retry", False) or type(error).__name__ == "EngineBusy":
        return busy(str(error))
    raise error


def too_large(limit: int) -> Problem:
    """413 for a body over `limit` bytes."""
    return Problem(413, "the body is too large", f"at most {limit} bytes here", fix="send less at once")


async def read_body(receive: Receive, scope: Scope) -> bytes:
    """The whole body; a Problem where it is too large or too slow."""
    limit = MAX_BATCH_BODY if scope["path"] == BATCH else MAX_BODY
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and (len(value) > 12 or int(value) > limit):
            raise too_large(limit)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        whole: bytes = message.get("body", b"")
        if len(whole) > limit:
            raise too_large(limit)
        return whole
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                if message["type"] == "http.disconnect":
                    raise Gone
                body += message.get("body", b"")
                if len(body) > limit:
                    raise too_large(limit)
                if not message.get("more_body", False):
                    return bytes(body)
                message = await receive()
    except TimeoutError:
        raise Problem(408, "the body came too slowly", f"within {BODY_S:.0f} s") from None


class Answer(NamedTuple):
    """An answer ready to be sent."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (_JSON,)


class Edge:
    """The ASGI application that a server runs."""

    def __init__(self, inner: ASGIApp, engine: Engine, metrics: Metrics, notary: Notary | None = None) -> None:
        self.inner = inner
        self.notary = notary
        self.engine = engine
        self.metrics = metrics
        self.intake = Intake(engine)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        try:
            hot = path in (TRANSACTIONS, BATCH)
            if hot and method != "POST":
                refused = Problem(405, "method not allowed", f"{method} {path}", fix="POST signed transactions here")
                answer = _refusal(refused)
                await _send(send, answer._replace(headers=(*answer.headers, (b"allow", b"POST"))))
                return
            if method not in ("POST", "PUT", "PATCH", "DELETE"):
                await self.inner(scope, receive, send)
                return
            body = await read_body(receive, scope)
            if hot:
                notary = self.notary if scope.get("query_string") and asks_signed(scope["query_string"]) else None
                tickets = await self.intake.outcomes([body] if path == TRANSACTIONS else split(body))
                answer = self.answer(path, tickets) if notary is None else await self.signed_answer(path, tickets, notary)
                await _send(send, answer)
            else:
                await self.inner(scope, _replay(body, receive), send)
        except Problem as problem:
            await _send(send, _refusal(problem))
        except Gone:
            return

    def answer(self, path: str, tickets: Sequence[Ticket]) -> Answer:
        """The answer to a request whose transactions all have their outcome; counts them."""
        if path == BATCH:
            for ticket in tickets:
                if isinstance(ticket.outcome, TimeoutError):
                    return _refusal(problem_of(ticket.outcome))
            return Answer(200, _ENCODE({"results": [self._result(ticket) for ticket in tickets]}))
        ticket = tickets[0]
        receipt = ticket.outcome
        if isinstance(receipt, Receipt):
            self.metrics.transaction_seconds.observe(time.perf_counter() - ticket.since)
            if not receipt.code:
                self.metrics.transactions[0] += 1
                return Answer(200, _ENCODE(receipt))
        return _refusal(self._problem(ticket))

    async def signed_answer(self, path: str, tickets: Sequence[Ticket], notary: Notary) -> Answer:
        """`answer` with the node's signature on each receipt."""
        plain = self.answer(path, tickets)
        if plain.status != 200 and path == BATCH:
            return plain
        if path == BATCH:
            outcomes, bodies = [ticket.outcome for ticket in tickets], msgspec.json.decode(plain.body)["results"]
            return Answer(200, _ENCODE({"results": await asyncio.to_thread(seal_all, notary, outcomes, bodies)}))
        receipt = tickets[0].outcome
        if not isinstance(receipt, Receipt):
            return plain
        here = notary.is_at_hand(receipt.height)
        found = seal(notary, receipt) if here else await asyncio.to_thread(seal, notary, receipt)
        return _refusal(found) if isinstance(found, Problem) else Answer(200, _ENCODE(found))

    def _result(self, ticket: Ticket) -> Any:
        receipt = ticket.outcome
        if isinstance(receipt, Receipt) and not receipt.code:
            self.metrics.transactions[0] += 1
            return receipt
        return self._problem(ticket).body

    def _problem(self, ticket: Ticket) -> Problem:
        outcome = ticket.outcome
        assert outcome is not None, "it is answered once it has its outcome"
        if isinstance(outcome, Receipt):
            problem = of_number(outcome.code, outcome.detail, outcome.id)
        else:
            problem = problem_of(outcome, self._id(ticket.raw, outcome))
        self.metrics.transactions[problem.body["code"] or problem.status] += 1
        return problem

    def _id(self, raw: bytes, error: BaseException) -> str:
        """Id of a transaction that was refused before any block; empty where it has none."""
        if not isinstance(error, Rejected):
            return ""
        try:
            return self.engine.machine.codec.decode(raw).id
        except Rejected:
            return ""


def split(body: bytes) -> list[bytes]:
    """The transactions of a batch; a Problem where it is none."""
    try:
        return [bytes(raw) for raw in _BATCH.decode(body)]
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        fix = f"send a JSON array of 1 to {MAX_BATCH} signed transactions"
        raise Problem(400, "not a batch", str(error), fix=fix) from None


def _refusal(problem: Problem) -> Answer:
    extra = ((b"retry-after", str(problem.retry_after_s).encode()),) if problem.retry_after_s else ()
    return Answer(problem.status, problem.encoded(), (PROBLEM, *extra))


async def _send(send: Send, answer: Answer) -> None:
    headers = [*answer.headers, (b"content-length", str(len(answer.body)).encode())]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body that was read, then what the client does next."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
