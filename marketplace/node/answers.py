"""Answers of routes: JSON by msgspec, and the documentation that goes with each."""

from typing import Any, Final

import msgspec
from fastapi import Request
from fastapi.dependencies.models import Dependant
from starlette.responses import Response

from marketplace.node.problems import MEDIA_TYPE, Problem

PROBLEM: Final = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}

TEXTS: Final = {
    400: "The body is not what is expected",
    404: "There is no such thing",
    408: "The body came too slowly",
    413: "The body is too large",
    422: "A parameter is wrong or unknown",
    429: "Too many requests",
    503: "The node cannot serve this now",
}


def json(value: Any) -> Response:
    """200 with a JSON body."""
    return Response(msgspec.json.encode(value), media_type="application/json")


def documented(schema: dict[str, Any], *statuses: int, text: str = "The answer") -> dict[int | str, dict[str, Any]]:
    """What FastAPI is told of a route's answers: its schema at 200, and problems at 422 and `statuses`."""
    out: dict[int | str, dict[str, Any]] = {200: {"description": text, "content": {"application/json": {"schema": schema}}}}
    for status in (*statuses, 422):
        out[status] = {"description": TEXTS[status], "content": PROBLEM}
    return out


def ref(name: str) -> dict[str, str]:
    """A reference to a schema among the components."""
    return {"$ref": f"#/components/schemas/{name}"}


def listed(name: str) -> dict[str, Any]:
    """Schema of a page of a list."""
    items = {"type": "array", "items": ref(name)}
    following = {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "page_token of the next page"}
    return {"type": "object", "properties": {"items": items, "next": following}, "required": ["items", "next"]}


def body(name: str) -> dict[str, Any]:
    """What FastAPI is told of a JSON body that the route decodes itself."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": ref(name)}}}}


def _names(dependant: Dependant) -> set[str]:
    own = {field.alias for field in dependant.query_params}
    return own.union(*(_names(inner) for inner in dependant.dependencies)) if dependant.dependencies else own


async def known_parameters(request: Request) -> None:
    """Refuse a query parameter that the route does not have: a misspelt filter must not list everything."""
    known = _names(request.scope["route"].dependant)
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        fix = f"known here: {', '.join(sorted(known)) or 'none'}"
        raise Problem(422, "unknown query parameter", ", ".join(unknown)[:200], fix=fix)
    twice = sorted(name for name in known if len(request.query_params.getlist(name)) > 1)
    if twice:
        raise Problem(422, "a query parameter is given twice", ", ".join(twice), fix="give each once")
