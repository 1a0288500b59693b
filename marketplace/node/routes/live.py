"""Routes of a living node: events, faucet, health, metrics, version, documentation."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Annotated, Any, Final

import msgspec
import structlog
from fastapi import APIRouter, Header, Query, Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.types import Message, Send

from ledger.protocol.errors import Rejected
from ledger.protocol.money import Amount
from marketplace.node.answers import PROBLEM, TEXTS, body, documented, json, ref
from marketplace.node.composition import RawBody, Serving
from marketplace.node.docs import page_of
from marketplace.node.edge import problem_of
from marketplace.node.hub import Filter, parse_place
from marketplace.node.identity import version as installed
from marketplace.node.intake import RESULT_S
from marketplace.node.problems import Problem, missing, of_number, of_rejected, pruned
from marketplace.node.sealing import Signed, seal

router = APIRouter(tags=["node"])
_log = structlog.get_logger("gpubid.node")

KEEP_ALIVE_S: Final = 15.0
STALLED_S: Final = 30.0
"""A reader that takes nothing in for this long is cut off."""

MIN_FREE_BYTES: Final = 64 * 2**20
"""Below this much free space in its home a node says that it is not ready."""

_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Server-sent events", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
    404: {"description": TEXTS[404], "content": PROBLEM},
    422: {"description": TEXTS[422], "content": PROBLEM},
    503: {"description": TEXTS[503], "content": PROBLEM},
}


class EventStream(StreamingResponse):
    """A stream that lets go of a reader who stops reading; he resumes with his last id."""

    def __init__(self, first: bytes, reading: AsyncGenerator[bytes, None], headers: Mapping[str, str]) -> None:
        super().__init__(self._all(first, reading), media_type="text/event-stream", headers=headers)
        self._reading = reading

    @staticmethod
    async def _all(first: bytes, reading: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
        yield first
        async for chunk in reading:
            yield chunk

    async def stream_response(self, send: Send) -> None:
        """Send until the stream ends, or until the reader took nothing in for `STALLED_S`."""

        async def bounded(message: Message) -> None:
            async with asyncio.timeout(STALLED_S):
                await send(message)

        try:
            await super().stream_response(bounded)
        except TimeoutError:
            _log.info("cut off an event stream whose reader stalled")
        finally:
            await self._reading.aclose()


@router.get("/v1/events", responses=_STREAM, response_class=StreamingResponse)
async def events(
    node: Serving,
    since: Annotated[str | None, Query(max_length=32, description="HEIGHT or HEIGHT:INDEX: events after it; now without")] = None,
    owner: Annotated[str | None, Query(max_length=64)] = None,
    provider: Annotated[str | None, Query(max_length=64)] = None,
    kind: Annotated[str | None, Query(max_length=512, description="Kinds of events, separated by commas")] = None,
    last_event_id: Annotated[str | None, Header(max_length=32)] = None,
) -> StreamingResponse:
    """Events as they happen, without a gap from any place on. Ids are HEIGHT:INDEX; a reader that comes back with its
    last id (`Last-Event-ID`, or `since`) misses none. A comment is sent when there was nothing for 15 s."""
    text = last_event_id or since
    place = parse_place(text) if text else None
    oldest = node.engine.first_height
    if place is not None and oldest > 1 and place.height + (place.index >= 2**31) < oldest:
        raise pruned(oldest)
    kinds = frozenset(k for k in (kind or "").split(",") if k)
    wanted = Filter(owner or "", provider or "", kinds)
    reading = node.hub.read(place, wanted, KEEP_ALIVE_S)
    first = await anext(reading)
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return EventStream(first, reading, headers)


class FaucetRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who wants money, and how much in micro-units (1,000 credits where it is left out)."""

    address: Annotated[str, msgspec.Meta(max_length=64)]
    amount: Amount | None = None


@router.post(
    "/v1/faucet", responses=documented(ref("Receipt"), 400, 404, 408, 413, 429, 503), openapi_extra=body("FaucetRequest")
)
def faucet(node: Serving, raw: RawBody, signed: Signed = False) -> Response:
    """Money for tests, on development chains only."""
    if node.faucet is None:
        raise missing("faucet", "this is no development chain, or another node keeps its faucet")
    try:
        asked = msgspec.json.decode(raw, type=FaucetRequest)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Problem(400, "not a request to the faucet", str(error), fix='send {"address":"gpu1…"}') from None
    try:
        receipt = node.faucet.ask(asked.address, None if asked.amount is None else int(asked.amount)).result(RESULT_S)
    except Rejected as error:
        raise of_rejected(error) from None
    except Problem:
        raise
    except Exception as error:
        raise problem_of(error) from None
    if signed:
        found = seal(node.notary, receipt)
        if isinstance(found, Problem):
            raise found
        return json(found)
    if receipt.code:
        raise of_number(receipt.code, receipt.detail, receipt.id)
    return json(receipt)


@router.get("/healthz", responses=documented({"type": "object"}))
async def healthz() -> Response:
    """The process is alive; nothing else is looked at."""
    return json({"status": "ok"})


@router.get("/readyz", responses=documented({"type": "object"}, 503))
def readyz(node: Serving) -> Response:
    """The node can take transactions: its ledger is open and its home has space."""
    reasons = []
    free = shutil.disk_usage(node.home).free
    if free < MIN_FREE_BYTES:
        reasons.append(f"only {free} bytes are free in its home")
    if reasons:
        raise Problem(503, "not ready", "; ".join(reasons), fix="free space in GPUBID_HOME", retry_after_s=10)
    return json({"status": "ready", "height": node.engine.head.height})


@router.get("/version", responses=documented({"type": "object"}))
async def version(node: Serving) -> Response:
    """Version of the software and of the rules."""
    return json({"version": installed(), "protocol": node.engine.head.protocol})


@router.get("/metrics", responses={200: {"description": "Prometheus exposition", "content": {"text/plain": {}}}, **{
    k: v for k, v in documented({}).items() if k == 422}}, response_class=Response)  # fmt: skip
def metrics(node: Serving) -> Response:
    """Metrics for Prometheus."""
    return Response(node.metrics.text(), media_type="text/plain; version=1.0.0; charset=utf-8")


@router.get("/docs", include_in_schema=False)
def docs(request: Request) -> HTMLResponse:
    """Every operation on one page; loads nothing from anywhere."""
    headers = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return HTMLResponse(page_of(request.app.openapi()), headers=headers)
