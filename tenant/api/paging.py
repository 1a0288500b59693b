"""Pages of lists that are complete, in ascending order of a key that is the cursor too."""

from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import Query

Json = dict[str, Any]

MAX_PAGE: Final = 200
DEFAULT_PAGE: Final = 50

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Token = Annotated[str | None, Query(pattern=r"^[0-9a-z/]{1,100}$", description="`next` of the page before.")]


def deployment_key(item: Json) -> str:
    """Order of deployments: oldest first."""
    return f"{item['dseq']:015d}"


def lease_key(item: Json) -> str:
    """Order of leases: by deployment, group, order."""
    return f"{item['dseq']:015d}/{item['gseq']:07d}/{item['oseq']:07d}/{item['provider']}"


def page_of(found: list[Json], key: Callable[[Json], str], limit: int, token: str | None) -> Json:
    """{"items", "next"}: at most `limit` items after `token`, and the token of the next page or None."""
    after = sorted((item for item in found if token is None or key(item) > token), key=key)
    return {"items": after[:limit], "next": key(after[limit - 1]) if len(after) > limit else None}
