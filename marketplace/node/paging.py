"""Pages of lists: in ascending order of keys, with an opaque cursor that says where the next page begins."""

import base64
import binascii
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final, TypeVar

import msgspec

from ledger.machine.store import Store, Table
from marketplace.node.problems import Problem

R = TypeVar("R", bound=msgspec.Struct)

MAX_PAGE: Final = 200
DEFAULT_PAGE: Final = 50


def cursor(key: str) -> str:
    """The token of the page that begins after `key`."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def key_of(token: str) -> str:
    """The key in a token; a Problem where it is none of ours."""
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        raise Problem(422, "page_token is not valid", "it is no token of this list", fix="begin without page_token") from None


def page(
    store: Store,
    table: Table[R],
    limit: int,
    token: str | None,
    *,
    index: tuple[str, Hashable] | None = None,
    keep: Callable[[R], bool] | None = None,
) -> tuple[list[R], str | None]:
    """(records, token of the next page or None): of an index's value, or of the whole table, that `keep` holds for."""
    records: Iterable[R] = store.find(table, *index) if index else store.scan(table)
    ordered = list(records)
    first = bisect_right(ordered, key_of(token), key=table.key) if token else 0
    out: list[R] = []
    for record in ordered[first:]:
        if keep is None or keep(record):
            if len(out) == limit:
                return out, cursor(table.key(out[-1]))
            out.append(record)
    return out, None


def answer(items: list[Any], following: str | None) -> dict[str, Any]:
    """The body of a list."""
    return {"items": items, "next": following}
