"""How the gateway says no: RFC 9457 problems with a code and what to do."""

from typing import Any, Final

from fastapi.responses import JSONResponse

MEDIA_TYPE: Final = "application/problem+json"


class Problem(Exception):
    """An expected refusal: HTTP status, code, one-line title, detail, and what mends it."""

    def __init__(self, status: int, code: str, title: str, detail: str = "", fix: str = "") -> None:
        super().__init__(title)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.fix = fix

    def body(self) -> dict[str, Any]:
        """The problem as JSON."""
        kind = f"urn:gpubid:gateway:{self.code.lower()}"
        named = {
            "type": kind,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "fix": self.fix,
        }
        return {name: value for name, value in named.items() if value != ""}

    def response(self) -> JSONResponse:
        """The problem as an answer."""
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        if self.status == 503:
            headers["Retry-After"] = "5"
        return JSONResponse(self.body(), self.status, headers, media_type=MEDIA_TYPE)


def no_such_lease() -> Problem:
    """The one answer about leases that are not there and about those of others."""
    return Problem(404, "LEASE_NOT_FOUND", "no such lease", fix="list yours: gpubid lease list")


def unauthorised(detail: str) -> Problem:
    """The token is missing, expired, or not good."""
    return Problem(
        401, "TOKEN_REFUSED", "the token is not good", detail, "make a new one; gpubid lease commands do it by themselves"
    )
