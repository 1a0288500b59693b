"""The application: routes, problems for every failure, metrics; the edge around it."""

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ledger.engine.errors import Indeterminate
from marketplace.node.answers import known_parameters
from marketplace.node.composition import Node
from marketplace.node.edge import Edge, busy
from marketplace.node.openapi import document
from marketplace.node.problems import Problem, of_status
from marketplace.node.routes import chain, live, market

Next = Callable[[Request], Awaitable[Response]]


async def _on_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _on_status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return of_status(error.status_code, f"{request.method} {request.url.path}"[:200]).response(error.headers)


async def _on_parameter(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = "; ".join(f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors())
    return Problem(422, "a parameter is wrong", wrong[:500], fix="see /docs").response()


async def _on_stopped(_request: Request, _error: Exception) -> Response:
    return busy("the ledger has stopped").response()


async def _on_bug(_request: Request, _error: Exception) -> Response:
    return Problem(500, "the node has a bug", fix="its log has the place; tell its operator").response()


class Observed:
    """Counts requests by route and status, and names each in its answer (`x-request-id`)."""

    def __init__(self, inner: ASGIApp, node: Node) -> None:
        self.inner = inner
        self.metrics = node.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        begun = time.perf_counter()
        request_id = secrets.token_hex(8).encode()

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id), (b"x-content-type-options", b"nosniff")]
                route = getattr(scope.get("route"), "path", "unknown")
                self.metrics.requests.labels(route, str(message["status"])).inc()
                self.metrics.request_seconds.observe(time.perf_counter() - begun)
            await send(message)

        await self.inner(scope, receive, observed)


def _gauges(node: Node) -> None:
    engine, hub = node.engine, node.hub
    node.metrics.gauges += [
        ("gpubid_block_height", "Height of the newest block.", lambda: engine.head.height),
        ("gpubid_block_time_seconds", "Block time of the newest block.", lambda: engine.head.time_ms / 1000),
        ("gpubid_wall_ahead_seconds", "How far the wall clock is ahead of block time.", lambda: engine.wall_ahead_ms() / 1000),
        ("gpubid_event_streams", "Open event streams.", lambda: hub.streams),
    ]
    for name in ("account", "provider", "host", "bid", "order", "lease", "purse"):
        node.metrics.gauges.append((f"gpubid_{name}_records", f"Records of {name} in the state.", partial(_count, node, name)))


def _count(node: Node, name: str) -> int:
    with node.engine.read() as machine:
        return machine.store.count(machine.store.tables[name])


def create_app(node: Node) -> Edge:
    """The ASGI application of a node; its hub lives as long as the server's lifespan."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        node.hub.start()
        unsubscribe = node.engine.subscribe(node.hub.tell)
        try:
            yield
        finally:
            unsubscribe()
            node.hub.close()

    app = FastAPI(
        title="gpubid node",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
        lifespan=lifespan,
        dependencies=[Depends(known_parameters)],
    )
    app.state.node = node
    handlers: dict[Any, Any] = {
        Problem: _on_problem, Indeterminate: _on_stopped, HTTPException: _on_status,
        RequestValidationError: _on_parameter, Exception: _on_bug,
    }  # fmt: skip
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    for router in (chain.router, market.router, live.router):
        app.include_router(router)
    app.openapi = partial(document, app)  # type: ignore[method-assign]
    _gauges(node)
    return Edge(Observed(app, node), node.engine, node.metrics, node.notary)
