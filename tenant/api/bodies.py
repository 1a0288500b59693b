"""What comes in: bodies read within bounds, and the deployment file in any of the forms that are taken."""

import asyncio
from typing import Annotated, Final

import msgspec
from starlette.requests import ClientDisconnect, Request

from tenant.api.problems import Problem

MAX_BODY: Final = 256 * 1024
"""Largest body, in bytes."""

BODY_S: Final = 15.0
"""Longest time to send a body in."""

_YAML: Final = frozenset({"", "application/yaml", "text/yaml", "application/x-yaml", "text/x-yaml", "text/plain"})


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON body that wraps the file. `deposit` is in micro-units."""

    sdl: str
    strict: bool = False
    deposit: Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]{0,17}\Z")] | None = None


async def read_body(request: Request) -> bytes:
    """The body; Problem 413 where it is over `MAX_BODY` bytes, 408 where it comes too slowly."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    fix = "send a smaller file"
                    raise Problem(413, "the body is too large", f"at most {MAX_BODY} bytes", code="too_large", fix=fix)
    except TimeoutError:
        raise Problem(408, "the body came too slowly", f"within {BODY_S:.0f} s", code="slow", fix="send it again") from None
    except ClientDisconnect:
        raise Problem(408, "the body did not come whole", code="slow", fix="send it again") from None
    return bytes(body)


def ask_of(content_type: str, body: bytes, strict: bool = False, deposit: str | None = None) -> Ask:
    """What is asked for: the file itself as YAML or JSON, or a JSON object that wraps it."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json":
        try:
            found = msgspec.json.decode(body)
            if isinstance(found, dict) and "sdl" in found:
                return msgspec.convert(found, Ask)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            fix = 'send the file as JSON, or {"sdl": "…", "strict": true, "deposit": "…"}'
            raise Problem(422, "the body is not valid", str(error), code="malformed", fix=fix) from None
    elif kind not in _YAML:
        raise Problem(415, "unknown content type", kind[:80], code="content_type", fix="application/yaml or application/json")
    try:
        return Ask(sdl=body.decode(), strict=strict, deposit=deposit)
    except UnicodeDecodeError as error:
        raise Problem(422, "the body is not UTF-8", str(error), code="malformed", fix="save the file as UTF-8") from None
