"""How the gateway says no: RFC 9457 problems with a code and what to do."""

from typing import Any, Final

import msgspec
from starlette.responses import Response

from ledger.protocol.errors import Rejected
from marketplace.client import ApiError, Unreachable
from provider.client import GatewayError, GatewayUnreachable, WrongGatewayKey
from tenant.deploy.failure import DeployFailed
from tenant.sdl import LoweringRefused, SdlRefused, problem_body

MEDIA_TYPE: Final = "application/problem+json"

_PASSED_ON: Final = frozenset({402, 404, 409, 422})
"""What node and provider say that is meant for the caller; anything else is between them and this gateway."""


class Problem(Exception):
    """A request cannot be served."""

    def __init__(self, status: int, title: str, detail: str = "", *, code: str = "", fix: str = "", **more: Any) -> None:
        super().__init__(title)
        self.status = status
        kind = f"urn:gpubid:tenant:{code}" if code else "about:blank"
        self.body = {"type": kind, "title": title, "status": status, "detail": detail, "code": code, "fix": fix} | more

    def response(self) -> Response:
        """The answer that says so."""
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        if self.status in (429, 503):
            headers["Retry-After"] = "5"
        return Response(msgspec.json.encode(self.body), self.status, headers, MEDIA_TYPE)


def of_error(error: Exception) -> Problem | None:
    """The problem for an expected failure of the flow; None for a bug."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, SdlRefused):
        body = problem_body(error)
        named = {name: body[name] for name in body if name not in ("type", "title", "status", "detail", "code", "fix")}
        return Problem(422, "the deployment file is refused", str(error), code="sdl_refused", fix=error.fix, **named)
    if isinstance(error, LoweringRefused):
        return Problem(422, "this market cannot serve the file", str(error), code=error.code, fix=error.fix)
    if isinstance(error, ApiError):
        status = error.status if error.status in _PASSED_ON else 503 if error.status in (429, 502, 503, 504) else 422
        return Problem(status, error.title, error.detail, code=str(int(error.code) or ""), fix=error.fix)
    if isinstance(error, Rejected):
        return Problem(422, error.code.name.lower().replace("_", " "), error.detail, code=str(int(error.code)))
    if isinstance(error, GatewayError):
        status = error.status if error.status in _PASSED_ON else 503 if error.status in (429, 503, 504) else 502
        return Problem(status, error.title, error.detail, code=str(error.code), fix=error.fix)
    if isinstance(error, Unreachable | GatewayUnreachable | WrongGatewayKey) or getattr(error, "exit_code", None) == 7:
        return Problem(
            503, "the node or the provider cannot be reached", str(error), code="unreachable", fix=getattr(error, "fix", "")
        )
    if isinstance(error, DeployFailed):
        status = {2: 422, 3: 404}.get(error.exit_code, 409)
        return Problem(status, "the deployment cannot go on", str(error), code="deploy_failed", fix=error.fix)
    return None
