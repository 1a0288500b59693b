"""The application: routes, the bearer key before them, problems for every failure."""

import hmac
import secrets
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ledger.client import Unreachable as Unsettled
from ledger.protocol.errors import Rejected
from marketplace.client import ApiError, Unreachable
from provider.client import GatewayError, GatewayUnreachable, WrongGatewayKey
from tenant.api import deployments, leases
from tenant.api.documents import document, documented, page
from tenant.api.gateway import Gateway, Serving, answer
from tenant.api.problems import Problem, of_error
from tenant.deploy.failure import DeployFailed
from tenant.sdl import LoweringRefused, SdlRefused

EXPECTED: tuple[type[Exception], ...] = (
    Problem, SdlRefused, LoweringRefused, DeployFailed, Rejected, ApiError, Unreachable, Unsettled, GatewayError,
    GatewayUnreachable, WrongGatewayKey,
)  # fmt: skip
"""Failures that have a problem of their own; anything else is a bug."""


class Guard:
    """Lets nobody below /v1 without the bearer key, and names each request in its answer."""

    def __init__(self, inner: ASGIApp, key: str) -> None:
        self.inner = inner
        self.key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        named = [(b"x-request-id", secrets.token_hex(8).encode()), (b"x-content-type-options", b"nosniff")]

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *named]
            await send(message)

        if scope["path"].startswith("/v1") and not self._knows(scope["headers"]):
            fix = "send Authorization: Bearer KEY; gpubid tenant serve says where the key is kept"
            refused = Problem(401, "the key is missing or wrong", code="unauthorised", fix=fix)
            await refused.response()(scope, receive, marked)
            return
        await self.inner(scope, receive, marked)

    def _knows(self, headers: list[tuple[bytes, bytes]]) -> bool:
        given = next((value for name, value in headers if name == b"authorization"), b"")
        kind, _, key = given.partition(b" ")
        return hmac.compare_digest(key.strip(), self.key) and kind.lower() == b"bearer"


async def _expected(_request: Request, error: Exception) -> Response:
    problem = of_error(error)
    assert problem is not None, error
    return problem.response()


async def _plain(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = Problem(error.status_code, str(error.detail).lower(), fix="see /docs for what there is").response()
    response.headers.update(error.headers or {})
    return response


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors())
    return Problem(422, "the request is not valid", wrong[:500], code="invalid", fix="see /docs").response()


async def _bug(_request: Request, _error: Exception) -> Response:
    fix = "its log has the place; send the request again with the same Idempotency-Key"
    return Problem(500, "the gateway has a bug", code="bug", fix=fix).response()


def _add_service(app: FastAPI) -> None:
    """Routes about the gateway itself; open to all."""

    @app.get("/healthz", responses=documented({"type": "object"}, 200, guarded=False), tags=["service"])
    def healthz() -> Response:
        """The process is alive; nothing else is looked at."""
        return answer({"status": "ok"})

    @app.get("/readyz", responses=documented({"type": "object"}, 200, 503, guarded=False), tags=["service"])
    def readyz(gateway: Serving) -> Response:
        """The node answers, so that deployments can be made."""
        status = gateway.node.status()
        return answer({"status": "ready", "chain_id": status["chain_id"], "height": status["height"]})

    @app.get("/version", responses=documented({"type": "object"}, 200, guarded=False), tags=["service"])
    def show_version() -> Response:
        """Version of the software."""
        return answer({"version": version("gpubid")})

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        """The operations as a page that loads nothing."""
        headers = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return HTMLResponse(page(app.openapi()), headers=headers)


def create_app(gateway: Gateway) -> Guard:
    """The ASGI application of a gateway; bearer key on everything below /v1."""
    app = FastAPI(title="gpubid tenant gateway", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.gateway = gateway
    handlers: dict[Any, Any] = dict.fromkeys(EXPECTED, _expected)
    handlers |= {HTTPException: _plain, RequestValidationError: _invalid, Exception: _bug}
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    app.include_router(deployments.router)
    app.include_router(leases.router)
    _add_service(app)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    return Guard(app, gateway.key)
