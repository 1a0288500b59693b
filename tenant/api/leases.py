"""Routes about leases and what runs in them."""

import contextlib
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from tenant.api.deployments import Dseq
from tenant.api.documents import documented, listed, ref
from tenant.api.gateway import Serving, answer
from tenant.api.logs import LogResponse, open_logs
from tenant.api.paging import DEFAULT_PAGE, Limit, Token, lease_key, page_of
from tenant.api.problems import Problem

router = APIRouter(tags=["leases"])

Json = dict[str, Any]

Address = Annotated[str, Path(pattern=r"^gpu1[a-z0-9]{38}$", description="Address of an account.")]
Seq = Annotated[int, Path(ge=1, le=10**6)]
State = Annotated[str | None, Query(pattern=r"^(matched|active|down|paused|closed)$")]
Service = Annotated[str, Query(max_length=128, description="One service only.")]
Tail = Annotated[int | None, Query(ge=0, le=100_000, description="Begin with the last so many lines.")]

PATH = "/v1/leases/{owner}/{dseq}/{gseq}/{oseq}/{provider}"


def mine(gateway: Serving, owner: Address, dseq: Dseq, gseq: Seq, oseq: Seq, provider: Address) -> Json:
    """The lease of the path; 404 where it is not this account's, as where there is none."""
    if owner != gateway.flow.owner:
        raise Problem(404, "no such lease", code="lease_not_found", fix="list yours: GET /v1/leases")
    return gateway.node.lease(f"{owner}/{dseq}/{gseq}/{oseq}/{provider}")


Mine = Annotated[Json, Depends(mine)]


@router.get("/v1/leases", responses=documented(listed("Lease"), 200, 422))
def list_leases(gateway: Serving, limit: Limit = DEFAULT_PAGE, page_token: Token = None, state: State = None) -> Response:
    """List the account's leases with their cost until now."""
    query = {"state": state} if state else {}
    found = gateway.node.leases(owner=gateway.flow.owner, **query)
    return answer(page_of(found, lease_key, limit, page_token))


@router.get(PATH, responses=documented(ref("Lease"), 200, 404, 422))
def get_lease(lease: Mine) -> Response:
    """Show a lease with its cost until now."""
    return answer(lease)


@router.get(f"{PATH}/status", responses=documented({"type": "object"}, 200, 402, 404, 409, 422, 502))
def lease_status(gateway: Serving, lease: Mine) -> Response:
    """Show what the provider says: phase, services, published ports."""
    with gateway.flow.gateway(lease) as found:
        return answer(found.status(lease["id"]))


@router.get(
    f"{PATH}/logs",
    responses=documented({"type": "string"}, 200, 402, 404, 409, 422, 502, media="text/event-stream"),
    response_class=StreamingResponse,
)
async def lease_logs(
    gateway: Serving, lease: Mine, service: Service = "", follow: bool = False, tail: Tail = None
) -> StreamingResponse:
    """What the containers write, as server-sent events: `line` with service, replica, stream, time and text; `error` where
    the provider breaks off; `end`."""
    record = await run_in_threadpool(gateway.node.provider, lease["provider"])
    query = {"follow": "1" if follow else "0"} | ({"service": service} if service else {})
    query |= {} if tail is None else {"tail": str(tail)}
    async with contextlib.AsyncExitStack() as stack:
        token = gateway.token(lease, "logs")
        found = await open_logs(stack, record["endpoint"], record["gateway_key"], token, lease["id"], query)
        return LogResponse(found.aiter_lines(), stack.pop_all())
    raise AssertionError("the stack suppresses nothing")
