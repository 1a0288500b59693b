"""Problems (RFC 9457): how the gateway says no, and what each expected failure of the rooms behind it becomes."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.responses import Response

from ledger.client import Unreachable as Unsettled
from ledger.protocol.errors import Rejected
from marketplace.client import ApiError, Unreachable
from marketplace.protocol.errors import MARKET_HTTP_STATUS
from provider.client import GatewayError, GatewayUnreachable, WrongGatewayKey
from tenant.deploy.failure import DeployFailed
from tenant.sdl import LoweringRefused, SdlRefused, problem_body

MEDIA_TYPE: Final = "application/problem+json"

_PASSED_ON: Final = frozenset({402, 404, 409, 422, 429})
"""What a node or provider says that is meant for the caller; anything else is between it and this gateway."""


class Problem(Exception):
    """A request cannot be served. `code` is a word for programs, `fix` says what to do."""

    def __init__(
        self, status: int, code: str, title: str, detail: str = "", *, fix: str = "", retry_after_s: int = 0, **more: Any
    ) -> None:
        super().__init__(title)
        self.status = status
        self.retry_after_s = retry_after_s
        self.body: dict[str, Any] = {
            "type": "about:blank", "title": title, "status": status, "detail": detail, "code": code, "fix": fix, **more
        }  # fmt: skip

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """The answer that says so."""
        extra = dict(headers or {}) | ({"retry-after": str(self.retry_after_s)} if self.retry_after_s else {})
        if self.status == 401:
            extra["www-authenticate"] = "Bearer"
        return Response(msgspec.json.encode(self.body), self.status, extra, MEDIA_TYPE)


def of_status(status: int, detail: str = "") -> Problem:
    """The problem for a plain HTTP status."""
    phrase = HTTPStatus(status)
    fix = "see /openapi.json for what there is" if status in (404, 405) else ""
    return Problem(status, phrase.name, phrase.phrase.lower(), detail, fix=fix)


def _of_ledger(error: Rejected, fix: str) -> Problem:
    status = MARKET_HTTP_STATUS.get(error.code, 422) if int(error.code) >= 400 else getattr(error, "status", 422)  # type: ignore[call-overload]
    status = status if status in _PASSED_ON else 422
    return Problem(status, error.code.name, error.code.name.lower().replace("_", " "), error.detail, fix=fix)


def problem_of(error: Exception) -> Problem | None:
    """The problem for an expected failure; None for a bug."""
    fix = str(getattr(error, "fix", "") or "")
    if isinstance(error, Problem):
        return error
    if isinstance(error, SdlRefused):
        body = problem_body(error)
        more = {"errors": body["errors"], "warnings": body["warnings"]}
        return Problem(422, "SDL_REFUSED", "the SDL is refused", str(error), fix=error.fix, **more)
    if isinstance(error, LoweringRefused):
        return Problem(422, error.code.upper(), "the market cannot serve this file", str(error), fix=fix)
    if isinstance(error, Rejected):
        return _of_ledger(error, fix)
    if isinstance(error, Unreachable | Unsettled):
        fix = fix or "send the same request again, with the same Idempotency-Key"
        return Problem(503, "NODE_UNREACHABLE", "the node does not answer", str(error), fix=fix, retry_after_s=2)
    if isinstance(error, GatewayUnreachable | WrongGatewayKey):
        return Problem(503, "PROVIDER_UNREACHABLE", "the provider does not answer", str(error), fix=fix, retry_after_s=5)
    if isinstance(error, GatewayError):
        status = error.status if error.status in _PASSED_ON else 502
        return Problem(status, error.code, error.title, error.detail, fix=error.fix)
    if isinstance(error, ApiError):
        status = error.status if error.status in _PASSED_ON else 503 if error.status in (502, 503, 504) else 502
        return Problem(status, "NODE_REFUSED", error.title, error.detail, fix=error.fix)
    if isinstance(error, DeployFailed):
        return Problem(404 if error.exit_code == 3 else 422, "DEPLOY_FAILED", "this cannot be done", str(error), fix=fix)
    return None
