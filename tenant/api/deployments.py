"""Routes that make, show and end deployments."""

import hashlib
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Header, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tenant.api.bodies import Ask, ask_of, read_body
from tenant.api.documents import SDL_BODY, documented, listed, ref
from tenant.api.gateway import Gateway, Serving, answer
from tenant.api.paging import DEFAULT_PAGE, Limit, Token, deployment_key, page_of
from tenant.api.problems import Problem
from tenant.sdl import parse

router = APIRouter(tags=["deployments"])

Json = dict[str, Any]

Dseq = Annotated[int, Path(ge=1, le=10**15 - 1, description="Number of the deployment.")]
Deposit = Annotated[
    str | None, Query(pattern=r"^[1-9][0-9]{0,17}$", description="In micro-units; an hour of the limit by default.")
]
Strict = Annotated[bool, Query(description="Refuse what would be ignored.")]
State = Annotated[str | None, Query(pattern=r"^(active|closed)$")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[!-~]{1,255}$",
        description="A repeat of the same request under the same key makes no second deployment.",
    ),
]

_MADE: Final = documented(ref("Deployment"), 201, 402, 408, 409, 413, 415, 422) | {
    200: documented(ref("Deployment"), 200)[200] | {"description": "The deployment that an earlier request of this key made"}
}


def view(gateway: Gateway, dseq: int) -> Json:
    """A deployment with its orders, leases and purse, and how far this gateway has come with it."""
    found: Json = gateway.node.deployment(gateway.flow.owner, dseq)
    asked = gateway.store.get(dseq)
    if found["state"] == "closed" or asked is None:
        return found | {"phase": found["state"], "error": ""}
    return found | {"phase": asked.phase, "error": asked.error}


def _post(gateway: Gateway, ask: Ask, key: str | None) -> Response:
    source = ask.sdl.encode()
    body_hash = hashlib.sha256(msgspec.json.encode(ask)).hexdigest()
    warnings = [msgspec.to_builtins(w) for w in parse(source, strict=ask.strict).warnings]
    deposit = None if ask.deposit is None else int(ask.deposit)
    asked, new = gateway.store.accept(gateway.flow.owner, source, body_hash, key=key, strict=ask.strict, deposit=deposit)
    if asked.body_hash != body_hash:
        fix = "use a new key for another request"
        raise Problem(409, "the idempotency key was used with another request", code="idempotency_key", fix=fix)
    if asked.phase == "accepted":
        gateway.worker.create(asked.dseq)
    gateway.worker.take(asked.dseq)
    location = {"location": f"/v1/deployments/{asked.dseq}"}
    return answer(view(gateway, asked.dseq) | {"warnings": warnings}, 201 if new else 200, location)


@router.post("/v1/deployments", status_code=201, responses=_MADE, openapi_extra=SDL_BODY)
async def create_deployment(
    gateway: Serving, request: Request, strict: Strict = False, deposit: Deposit = None, key: Key = None
) -> Response:
    """Deploy the file in the body. Answers once the deployment is on the ledger; containers follow by themselves: look at
    `phase` (created, matched, running, failed, closed) and `error`. With `Idempotency-Key`, a repeat finds the first
    deployment, even after a crash."""
    ask = ask_of(request.headers.get("content-type", ""), await read_body(request), strict, deposit)
    return await run_in_threadpool(_post, gateway, ask, key)


@router.get("/v1/deployments", responses=documented(listed("Deployment"), 200, 422))
def list_deployments(gateway: Serving, limit: Limit = DEFAULT_PAGE, page_token: Token = None, state: State = None) -> Response:
    """List the account's deployments, oldest first."""
    query = {"state": state} if state else {}
    found = gateway.node.deployments(owner=gateway.flow.owner, **query)
    return answer(page_of(found, deployment_key, limit, page_token))


@router.get("/v1/deployments/{dseq}", responses=documented(ref("Deployment"), 200, 404, 422))
def get_deployment(gateway: Serving, dseq: Dseq) -> Response:
    """Show a deployment with its orders, leases and purse, and how far it has come."""
    return answer(view(gateway, dseq))


def _put(gateway: Gateway, dseq: int, ask: Ask) -> Response:
    sdl = parse(ask.sdl, strict=ask.strict)
    if ask.deposit is not None:
        raise Problem(422, "a deposit is for a new deployment", code="invalid", fix="leave it out")
    gateway.flow.update(gateway.flow.revise(dseq, sdl))
    if gateway.store.get(dseq) is not None:
        gateway.store.move(dseq, "created")
    gateway.worker.renew(dseq, anyway=True)
    return answer(view(gateway, dseq) | {"warnings": [msgspec.to_builtins(w) for w in sdl.warnings]})


@router.put(
    "/v1/deployments/{dseq}",
    responses=documented(ref("Deployment"), 200, 402, 404, 408, 409, 413, 415, 422),
    openapi_extra=SDL_BODY,
)
async def update_deployment(gateway: Serving, request: Request, dseq: Dseq, strict: Strict = False) -> Response:
    """Change a deployment to the file in the body: image, command, environment, fewer ports, counts of services of one
    shape. Its leases go on; containers follow by themselves, as `phase` tells. 409 where resources, placement or price would
    have to change. A repeat changes nothing more."""
    ask = ask_of(request.headers.get("content-type", ""), await read_body(request), strict)
    return await run_in_threadpool(_put, gateway, dseq, ask)


@router.delete("/v1/deployments/{dseq}", responses=documented(ref("Bill"), 200, 404, 409, 422))
def close_deployment(gateway: Serving, dseq: Dseq) -> Response:
    """End a deployment: its leases are paid to the millisecond, the rest is refunded. The bill, from the ledger's events."""
    bill = gateway.flow.close(dseq)
    gateway.store.move(dseq, "closed")
    return answer(bill)


@router.post("/v1/quote", responses=documented(ref("Quotes"), 200, 408, 413, 415, 422), openapi_extra=SDL_BODY)
async def quote(gateway: Serving, request: Request, strict: Strict = False) -> Response:
    """Say what the file in the body would cost now, group by group, or why nothing fits."""
    ask = ask_of(request.headers.get("content-type", ""), await read_body(request), strict)

    def asked() -> Response:
        sdl = parse(ask.sdl, strict=ask.strict)
        groups = [msgspec.to_builtins(group) for group in sdl.market_groups()]
        return answer({"quotes": gateway.node.quote(sdl.denomination, groups)})

    return await run_in_threadpool(asked)
