"""The routes of the tenant's REST gateway."""

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import version
from typing import Annotated, Any, Final

import msgspec
from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response, StreamingResponse

from ledger.protocol.errors import Rejected
from marketplace.client import ApiError, NodeClient
from tenant.api.documents import DESCRIPTION, SDL_BODY, documented, page
from tenant.api.problems import Problem, of_error
from tenant.api.store import Asked, Store
from tenant.api.work import Worker
from tenant.deploy.flow import Deployer
from tenant.sdl import parse

Json = dict[str, Any]

MAX_BODY: Final = 256 * 1024
_KEY: Final = re.compile(r"^[!-~]{1,255}$")
_YAML: Final = frozenset({"", "application/yaml", "text/yaml", "application/x-yaml", "text/x-yaml", "text/plain"})

Dseq = Annotated[int, Path(ge=1, le=10**15 - 1, description="Number of the deployment.")]
Owner = Annotated[str, Path(pattern=r"^gpu1[a-z0-9]{38}$", description="Address of the owner.")]
Seq = Annotated[int, Path(ge=1, le=10**6)]
Deposit = Annotated[
    str | None, Query(pattern=r"^[1-9][0-9]{0,17}$", description="In micro-units; an hour of the limit by default.")
]
Limit = Annotated[int, Query(ge=1, le=200)]
Token = Annotated[str | None, Query(pattern=r"^[0-9]{1,20}$", description="`next` of the page before.")]
State = Annotated[str | None, Query(pattern=r"^(active|closed)$")]
LeaseStates = Annotated[str | None, Query(pattern=r"^(matched|active|down|paused|closed)$")]
Service = Annotated[str, Query(max_length=128)]
Tail = Annotated[int | None, Query(ge=0, le=100_000)]


class Gateway:
    """What the routes work with. `key` is the bearer key."""

    def __init__(self, node: NodeClient, flow: Deployer, store: Store, worker: Worker, key: str) -> None:
        self.node = node
        self.flow = flow
        self.store = store
        self.worker = worker
        self.key = key


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON body that wraps the file. `deposit` is in micro-units."""

    sdl: str
    strict: bool = False
    deposit: Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]{0,17}\Z")] | None = None


def answer(body: object, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(body), status, media_type="application/json")


async def read_body(request: Request) -> bytes:
    """The body, at most `MAX_BODY` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise Problem(413, "the body is too large", f"at most {MAX_BODY} bytes", code="too_large", fix="send a smaller file")
    return bytes(body)


def ask_of(request: Request, body: bytes, strict: bool, deposit: str | None) -> Ask:
    """What is asked for: the file itself as YAML or JSON, or a JSON object that wraps it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
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


def add_deployments(app: FastAPI, gateway: Gateway) -> None:
    """Routes that make, show and end deployments."""
    flow, node, store = gateway.flow, gateway.node, gateway.store

    def view(dseq: int) -> Json:
        found = node.deployment(flow.owner, dseq)
        asked = store.get(dseq)
        phase = found["state"] if found["state"] == "closed" else asked.phase if asked else found["state"]
        return found | {"phase": phase, "error": asked.error if asked else ""}

    def post(ask: Ask, key: str | None) -> Response:
        source = ask.sdl.encode()
        body_hash = hashlib.sha256(msgspec.json.encode(ask)).hexdigest()
        warnings = [msgspec.to_builtins(w) for w in parse(source, strict=ask.strict).warnings]
        deposit = None if ask.deposit is None else int(ask.deposit)
        asked, new = store.accept(flow.owner, source, body_hash, key=key, strict=ask.strict, deposit=deposit)
        if asked.body_hash != body_hash:
            fix = "use a new key for another request"
            raise Problem(409, "the idempotency key was used with another body", code="idempotency_key", fix=fix)
        if asked.phase == "accepted":
            create(asked)
        gateway.worker.take(asked.dseq)
        return answer(view(asked.dseq) | {"warnings": warnings}, 201 if new else 200)

    def create(asked: Asked) -> None:
        try:
            gateway.worker.create(asked)
        except Exception as error:
            refused = isinstance(error, Rejected) or (isinstance(error, ApiError) and error.status < 500)
            if refused or (of_error(error) is not None and getattr(error, "exit_code", 0) != 7):
                store.forget(asked.dseq)
            raise

    @app.post(
        "/v1/deployments", responses=documented(201, 200, 402, 409, 413, 415, 422), openapi_extra=SDL_BODY, tags=["deployments"]
    )
    async def create_deployment(request: Request, strict: bool = False, deposit: Deposit = None) -> Response:
        """Deploy the file in the body. With `Idempotency-Key`, a repeat gets the first deployment and makes no second one."""
        key = request.headers.get("idempotency-key")
        if key is not None and not _KEY.match(key):
            raise Problem(422, "Idempotency-Key is not valid", code="idempotency_key", fix="1 to 255 printable ASCII characters")
        ask = ask_of(request, await read_body(request), strict, deposit)
        return await run_in_threadpool(post, ask, key)

    @app.get("/v1/deployments", responses=documented(200, 422), tags=["deployments"])
    def list_deployments(limit: Limit = 50, page_token: Token = None, state: State = None) -> Response:
        """List the account's deployments, oldest first."""
        found = node.deployments(owner=flow.owner, **({"state": state} if state else {}))
        return answer(page_of(found, "dseq", limit, page_token))

    @app.get("/v1/deployments/{dseq}", responses=documented(200, 404, 422), tags=["deployments"])
    def get_deployment(dseq: Dseq) -> Response:
        """Show a deployment with its orders, leases and purse, and how far it has come."""
        return answer(view(dseq))

    @app.delete("/v1/deployments/{dseq}", responses=documented(200, 404, 409, 422), tags=["deployments"])
    def close_deployment(dseq: Dseq) -> Response:
        """End a deployment; the bill from the ledger's own events."""
        bill = flow.close(dseq)
        store.move(dseq, "closed")
        return answer(bill)

    @app.post("/v1/quote", responses=documented(200, 413, 415, 422), openapi_extra=SDL_BODY, tags=["deployments"])
    async def quote(request: Request, strict: bool = False) -> Response:
        """Say what the file in the body would cost now, group by group, or why nothing fits."""
        ask = ask_of(request, await read_body(request), strict, None)

        def asked() -> Response:
            sdl = parse(ask.sdl, strict=ask.strict)
            groups = [msgspec.to_builtins(group) for group in sdl.market_groups()]
            return answer({"quotes": node.quote(sdl.denomination, groups)})

        return await run_in_threadpool(asked)


def page_of(found: list[Json], order: str, limit: int, token: str | None) -> Json:
    """A page of a list that is complete, ordered by a number."""
    found = sorted(found, key=lambda item: int(item[order]))
    found = [item for item in found if token is None or int(item[order]) > int(token)]
    more = len(found) > limit
    return {"items": found[:limit], "next": str(found[limit - 1][order]) if more else None}


def add_leases(app: FastAPI, gateway: Gateway) -> None:
    """Routes about leases and what runs in them."""
    flow, node = gateway.flow, gateway.node

    def mine(owner: str, dseq: int, gseq: int, oseq: int, provider: str) -> Json:
        if owner != flow.owner:
            raise Problem(404, "no such lease", code="lease_not_found", fix="list yours: GET /v1/leases")
        return node.lease(f"{owner}/{dseq}/{gseq}/{oseq}/{provider}")

    @app.get("/v1/leases", responses=documented(200, 422), tags=["leases"])
    def list_leases(state: LeaseStates = None) -> Response:
        """List the account's leases with their cost until now."""
        found = node.leases(owner=flow.owner, **({"state": state} if state else {}))
        return answer({"items": found, "next": None})

    path = "/v1/leases/{owner}/{dseq}/{gseq}/{oseq}/{provider}"

    @app.get(path, responses=documented(200, 404, 422), tags=["leases"])
    def get_lease(owner: Owner, dseq: Dseq, gseq: Seq, oseq: Seq, provider: Owner) -> Response:
        """Show a lease with its cost until now."""
        return answer(mine(owner, dseq, gseq, oseq, provider))

    @app.get(path + "/status", responses=documented(200, 404, 422, 502), tags=["leases"])
    def lease_status(owner: Owner, dseq: Dseq, gseq: Seq, oseq: Seq, provider: Owner) -> Response:
        """Show what the provider says: phase, services, published ports."""
        lease = mine(owner, dseq, gseq, oseq, provider)
        with flow.gateway(lease) as found:
            return answer(found.status(lease["id"]))

    @app.get(path + "/logs", responses=documented(200, 404, 422, 502, media="text/event-stream"), tags=["leases"])
    def lease_logs(
        owner: Owner, dseq: Dseq, gseq: Seq, oseq: Seq, provider: Owner,
        service: Service = "", follow: bool = False, tail: Tail = None,
    ) -> StreamingResponse:  # fmt: skip
        """Follow what the containers write, as server-sent events `line`."""
        lease = mine(owner, dseq, gseq, oseq, provider)
        with flow.gateway(lease) as found:
            found.status(lease["id"])  # what is wrong is said before the stream begins

        def lines() -> Iterator[bytes]:
            with flow.gateway(lease) as opened:
                for line in opened.logs(lease["id"], service=service, follow=follow, tail=tail):
                    yield b"event: line\ndata: " + msgspec.json.encode(line) + b"\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


def add_service(app: FastAPI, gateway: Gateway) -> None:
    """Routes about the gateway itself; open to all."""

    @app.get("/healthz", responses=documented(200), tags=["service"])
    def healthz() -> Response:
        """Say that the process is alive."""
        return answer({"status": "alive"})

    @app.get("/readyz", responses=documented(200, 503), tags=["service"])
    def readyz() -> Response:
        """Say whether the node answers."""
        status = gateway.node.status()
        return answer({"status": "ready", "chain_id": status["chain_id"], "height": status["height"]})

    @app.get("/version", responses=documented(200), tags=["service"])
    def show_version() -> Response:
        """Say which version this is."""
        return answer({"version": version("gpubid")})

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        """The operations as a page that loads nothing."""
        return HTMLResponse(page(app.openapi()))


def create_app(gateway: Gateway) -> FastAPI:
    """The application; bearer key on everything below /v1."""
    app = FastAPI(
        title="gpubid tenant gateway",
        version=version("gpubid"),
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
    )
    bearer = HTTPBearer(auto_error=False, description="The key in the file that `gpubid tenant serve` names.")
    app.router.dependencies.append(Depends(bearer))

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.url.path.startswith("/v1"):
            kind, _, given = request.headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), gateway.key.encode()):
                fix = "send Authorization: Bearer KEY; gpubid tenant serve says where the key is kept"
                return Problem(401, "the key is missing or wrong", code="unauthorised", fix=fix).response()
        try:
            return await call_next(request)
        except Exception as error:
            problem = of_error(error)
            if problem is None:
                raise
            return problem.response()

    @app.exception_handler(HTTPException)
    def plain(_request: Request, error: HTTPException) -> Response:
        response = Problem(error.status_code, str(error.detail).lower(), fix="see /docs for what there is").response()
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> Response:
        wrong = "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors())
        return Problem(422, "the request is not valid", wrong, code="invalid", fix="see /docs").response()

    add_deployments(app, gateway)
    add_leases(app, gateway)
    add_service(app, gateway)
    return app
