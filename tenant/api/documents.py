"""What the OpenAPI document says beyond the routes, and the page at /docs, which loads nothing."""

from html import escape
from typing import Any, Final

DESCRIPTION: Final = (
    "Deployments of one account over REST. Amounts are decimal strings in micro-units, times integers in milliseconds. "
    "Errors are RFC 9457 problems with a code and what to do."
)

_PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "fix"],
    "properties": {
        "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"}, "detail": {"type": "string"},
        "code": {"type": "string"}, "fix": {"type": "string"},
    },
}  # fmt: skip

_TITLES: Final = {
    200: "the answer",
    201: "created",
    401: "the key is missing or wrong",
    402: "insufficient funds",
    404: "not found",
    409: "conflict",
    413: "too large",
    415: "unknown content type",
    422: "refused: what is wrong, where, and how to mend it",
    502: "the provider refused",
    503: "the node or provider cannot be reached",
}

SDL_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The deployment file (Akash SDL): as YAML, as JSON, or wrapped in a JSON object.",
        "content": {
            "application/yaml": {"schema": {"type": "string"}},
            "application/json": {"schema": {"type": "object"}},
        },
    }
}


def documented(*statuses: int, media: str = "application/json") -> dict[int | str, dict[str, Any]]:
    """The responses of a route: its own, and those that every route has."""
    out: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*statuses, 401, 503} if statuses != (200,) else set(statuses)):
        good = status < 400
        schema = {"type": "object"} if good and media == "application/json" else {} if good else _PROBLEM
        out[status] = {
            "description": _TITLES[status],
            "content": {media if good else "application/problem+json": {"schema": schema}},
        }
    return out


def page(document: dict[str, Any]) -> str:
    """The operations of the document as plain HTML."""
    parts = []
    for path, operations in sorted(document["paths"].items()):
        for method, operation in operations.items():
            said = escape(str(operation.get("description", "")))
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{said}</p>")
    title = escape(str(document["info"]["title"]))
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}:root{color-scheme:light dark}"
    )
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>'
    link = "<p>Machine-readable: <a href='/openapi.json'>/openapi.json</a></p>"
    return f"{head}<body><h1>{title}</h1><p>{escape(DESCRIPTION)}</p>{link}{''.join(parts)}</body></html>"
