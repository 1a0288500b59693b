"""What the OpenAPI document says beyond the routes, and the page at /docs, which loads nothing."""

from html import escape
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

Json = dict[str, Any]

DESCRIPTION: Final = (
    "Deployments of one account over REST. Amounts are decimal strings in micro-units, times integers in milliseconds of "
    "block time. Errors are RFC 9457 problems with a code and what to do; those of a deployment file name path, line and "
    "column of everything that is wrong."
)

_TITLES: Final = {
    200: "The answer",
    201: "The deployment is on the ledger",
    401: "The key is missing or wrong",
    402: "Insufficient funds",
    404: "There is no such thing",
    408: "The body came too slowly",
    409: "Conflict with what is there",
    413: "The body is too large",
    415: "Unknown content type",
    422: "Refused: what is wrong, where, and how to mend it",
    502: "The provider refused",
    503: "The node or the provider cannot be reached",
}

SDL_BODY: Final[Json] = {
    "requestBody": {
        "required": True,
        "description": "The deployment file (Akash SDL): as YAML, as JSON, or wrapped in a JSON object.",
        "content": {
            "application/yaml": {"schema": {"type": "string"}},
            "application/json": {"schema": {"anyOf": [{"$ref": "#/components/schemas/Wrapped"}, {"type": "object"}]}},
        },
    }
}

_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_AMOUNT: Final = {"type": "string", "pattern": "^-?[0-9]+$"}


def ref(name: str) -> Json:
    """A reference to a schema among the components."""
    return {"$ref": f"#/components/schemas/{name}"}


def _array(of: Json) -> Json:
    return {"type": "array", "items": of}


def _object(properties: Json, *optional: str) -> Json:
    return {"type": "object", "properties": properties, "required": sorted(set(properties) - set(optional))}


def listed(name: str) -> Json:
    """Schema of a page of a list."""
    following = {"anyOf": [_TEXT, {"type": "null"}], "description": "page_token of the next page"}
    return _object({"items": _array(ref(name)), "next": following})


_ANY: Final = {"type": "object"}
_SCHEMAS: Final[Json] = {
    "Problem": _object(
        {"type": _TEXT, "title": _TEXT, "status": _COUNT, "detail": _TEXT, "code": _TEXT, "fix": _TEXT,
         "errors": _array(ref("SdlProblem")), "warnings": _array(ref("SdlProblem"))}, "errors", "warnings",
    ),
    "SdlProblem": _object(
        {"code": _TEXT, "severity": _TEXT, "path": _TEXT, "line": _COUNT, "column": _COUNT, "message": _TEXT, "found": _TEXT,
         "allowed": _TEXT, "nearest": _TEXT, "fix": _TEXT}, "found", "allowed", "nearest", "fix",
    ),
    "Wrapped": _object(
        {"sdl": _TEXT, "strict": {"type": "boolean"}, "deposit": {"type": "string", "pattern": "^[1-9][0-9]{0,17}$"}},
        "strict", "deposit",
    ),
    "Deployment": _object(
        {"id": _TEXT, "dseq": _COUNT, "owner": _TEXT, "state": _TEXT, "reason": _TEXT, "hash": _TEXT, "denomination": _TEXT,
         "groups": _COUNT, "created_ms": _COUNT, "closed_ms": _COUNT, "version": _COUNT, "orders": _array(_ANY),
         "leases": _array(ref("Lease")), "purse": {"anyOf": [_ANY, {"type": "null"}]}, "phase": _TEXT, "error": _TEXT,
         "warnings": _array(ref("SdlProblem"))},
        "orders", "leases", "purse", "phase", "error", "warnings",
    ),
    "Lease": _object(
        {"id": _TEXT, "owner": _TEXT, "dseq": _COUNT, "gseq": _COUNT, "oseq": _COUNT, "provider": _TEXT, "host": _TEXT,
         "state": _TEXT, "reason": _TEXT, "generation": _COUNT, "devices": _array(_TEXT), "simulated": {"type": "boolean"},
         "images": _ANY, "rate_per_hour": _AMOUNT, "cost": _AMOUNT, "paid": _AMOUNT, "up_ms": _COUNT, "time_ms": _COUNT},
    ),
    "Bill": _object(
        {"transaction": _TEXT, "height": _COUNT, "leases": _array(_ANY), "paid": _AMOUNT, "charged": _AMOUNT, "fees": _AMOUNT,
         "refunds": _array(_ANY), "refund": _AMOUNT},
    ),
    "Quotes": _object({"quotes": _array(_ANY)}),
}  # fmt: skip


def documented(schema: Json, *statuses: int, media: str = "application/json", guarded: bool = True) -> dict[int | str, Json]:
    """The responses of a route: its own, and those that every guarded route has. `schema` is that of success."""
    out: dict[int | str, Json] = {}
    for status in sorted({*statuses, 401, 503} if guarded else set(statuses)):
        kind, shape = (media, schema) if status < 400 else ("application/problem+json", ref("Problem"))
        out[status] = {"description": _TITLES[status], "content": {kind: {"schema": shape}}}
    return out


def document(app: FastAPI) -> Json:
    """The whole document; made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=version("gpubid"), description=DESCRIPTION, routes=app.routes)
        components = made.setdefault("components", {})
        components.setdefault("schemas", {}).update(_SCHEMAS)
        for unused in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(unused, None)
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        for path, operations in made["paths"].items():
            for operation in operations.values() if path.startswith("/v1") else ():
                operation["security"] = [{"bearer": []}]
        app.openapi_schema = made
    return app.openapi_schema


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
