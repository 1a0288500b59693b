"""The page at /docs: every operation of the OpenAPI document as plain HTML, rendered here, loading nothing."""

from html import escape
from typing import Any

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code{background:#8882;padding:0 .2em}"
    "h2{margin:1.6em 0 .2em;font-size:1.05rem}table{border-collapse:collapse}td{padding:0 1em 0 0;vertical-align:top}"
    ":root{color-scheme:light dark}"
)


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = [
        _row(f"<code>{escape(p['name'])}</code>", escape(p["in"]), escape(str(p.get("description", ""))))
        for p in operation.get("parameters", ())
    ]
    rows += [_row(escape(status), "", escape(str(found["description"]))) for status, found in operation["responses"].items()]
    text = escape(str(operation.get("description", operation.get("summary", ""))))
    return f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{text}</p><table>{''.join(rows)}</table>"


def page_of(document: dict[str, Any]) -> str:
    """The page for an OpenAPI document."""
    parts = [
        _operation(method, path, operation)
        for path, operations in sorted(document["paths"].items())
        for method, operation in operations.items()
    ]
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head>'
    intro = f"<p>{escape(document['info']['description'])}</p><p>Machine-readable: <a href='/openapi.json'>/openapi.json</a></p>"
    return f"{head}<body><h1>{title}</h1>{intro}{''.join(parts)}</body></html>"
