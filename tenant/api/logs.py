"""Logs of a lease as server-sent events: read from the provider's gateway without a thread, ended from either side."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import httpx
import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from provider.client import GatewayError, GatewayUnreachable, pinned_context

CONNECT_S: Final = 30.0
KEEP_ALIVE_S: Final = 15.0
"""A comment is sent where there was nothing for so long."""
MAX_PROBLEM: Final = 64 * 1024

Json = dict[str, Any]


async def open_logs(
    stack: contextlib.AsyncExitStack, endpoint: str, key: str, token: str, lease: str, query: dict[str, str]
) -> httpx.Response:
    """The gateway's open answer, closed with `stack`. GatewayError where it refused, GatewayUnreachable without an answer."""
    parts = urlsplit(endpoint)
    context = await run_in_threadpool(pinned_context, parts.hostname or "", parts.port or 443, key, CONNECT_S)
    # A stream may say nothing for as long as the container says nothing.
    timeout = httpx.Timeout(CONNECT_S, read=None)
    client = httpx.AsyncClient(verify=context, timeout=timeout, follow_redirects=False, trust_env=False)
    await stack.enter_async_context(client)
    url = f"{endpoint.rstrip('/')}/v1/leases/{lease}/logs"
    try:
        with anyio.fail_after(CONNECT_S):
            headers = {"authorization": f"Bearer {token}"}
            answer = await stack.enter_async_context(client.stream("GET", url, params=query, headers=headers))
            if answer.status_code != httpx.codes.OK:
                raise refusal(answer.status_code, await _bounded(answer))
    except (httpx.HTTPError, TimeoutError) as error:
        raise GatewayUnreachable(f"the gateway {endpoint} does not answer: {error or type(error).__name__}") from None
    return answer


async def _bounded(answer: httpx.Response) -> bytes:
    body = b""
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > MAX_PROBLEM:
            break
    return body


def refusal(status: int, body: bytes) -> GatewayError:
    """What the gateway said no with."""
    try:
        found = msgspec.json.decode(body, type=Json)
    except msgspec.MsgspecError:
        found = {}
    texts = {name: str(found.get(name) or "") for name in ("code", "title", "detail", "fix")}
    title = texts["title"] or f"the provider answered {status}"
    return GatewayError(status, texts["code"] or "REFUSED", title, texts["detail"], texts["fix"])


async def events(lines: AsyncIterator[str]) -> AsyncIterator[bytes]:
    """Each line as an event `line`, then one `end`; an event `error` where the provider breaks off."""
    pending: asyncio.Future[str | None] = asyncio.ensure_future(_next(lines))
    try:
        while True:
            done, _ = await asyncio.wait({pending}, timeout=KEEP_ALIVE_S)
            if not done:
                yield b": keep-alive\n\n"
                continue
            try:
                line = pending.result()
            except httpx.HTTPError as error:
                yield _event("error", {"title": "the provider broke off", "detail": str(error) or type(error).__name__})
                return
            if line is None:
                yield b"event: end\ndata: {}\n\n"
                return
            pending = asyncio.ensure_future(_next(lines))
            if line:
                found = msgspec.json.decode(line, type=Json)
                yield _event("line" if "text" in found else "error", found)
    finally:
        pending.cancel()


async def _next(lines: AsyncIterator[str]) -> str | None:
    """The next line; None at the end (StopAsyncIteration may not leave a task)."""
    return await anext(lines, None)


def _event(name: str, data: Json) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))


class LogResponse(StreamingResponse):
    """An event stream that closes its source however it ends."""

    def __init__(self, lines: AsyncIterator[str], stack: contextlib.AsyncExitStack) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(events(lines), media_type="text/event-stream", headers=headers)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, then close the connection to the provider."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._stack.aclose()
