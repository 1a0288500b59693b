"""The gateway's routes: what a tenant may do with a lease. Every route about a lease passes the one check of tokens."""

import base64
import binascii
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Annotated, Any, Final, TypeVar

import msgspec
import structlog
from fastapi import Depends, FastAPI, Header, Query, Request, WebSocket
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse

from ledger.protocol.encoding import too_deep
from marketplace.protocol.records import LeaseState
from provider.gateway import shell
from provider.gateway.auth import Gatekeeper
from provider.gateway.problem import Problem, no_such_lease
from provider.gateway.status import status as status_of
from provider.gateway.streams import Bridge, Lines, engine_problem
from provider.leases.executor import Executor
from provider.leases.journal import Journal, JournalFailed, Manifest
from provider.leases.ledger import Ledger, LedgerUnreachable
from provider.leases.manifest import ManifestRefused, accept
from provider.leases.model import Entry
from provider.leases.supervisor import Supervisor
from provider.runtime.port import Chunk, Container, Runtime, StartFailed, Unknown

MAX_MANIFEST: Final = 256 * 1024
MAX_EXEC: Final = 1024 * 1024
T = TypeVar("T")

NDJSON: Final = "application/x-ndjson"

log = structlog.get_logger("provider.gateway")


class Exec(msgspec.Struct, frozen=True):
    """A command to run in a container; `stdin` is base64."""

    command: Annotated[list[str], msgspec.Meta(min_length=1, max_length=256)]
    service: str = ""
    replica: int = 0
    stdin: str = ""


class Upload(msgspec.Struct, frozen=True):
    """The manifest, a list of groups exactly as hashed, and our additions."""

    manifest: list[Any]
    spec: dict[str, Any] | None = None


class Desk:
    """What the routes work with. `public_host` is the name under which published ports are reached."""

    def __init__(
        self,
        *,
        gatekeeper: Gatekeeper,
        journal: Journal,
        ledger: Ledger,
        runtime: Runtime,
        supervisor: Supervisor,
        executor: Executor,
        public_host: str,
    ) -> None:
        self.gatekeeper = gatekeeper
        self.journal = journal
        self.ledger = ledger
        self.runtime = runtime
        self.supervisor = supervisor
        self.executor = executor
        self.public_host = public_host
        self.bridge = Bridge()

    def entry(self, lease: str) -> Entry:
        """The lease, from the journal or the ledger; Problem where there is none."""
        try:
            found = self.supervisor.entry(lease)
        except LedgerUnreachable as error:
            raise _ledger_problem(error) from None
        if found is None:
            raise no_such_lease()
        return found

    def take_manifest(self, lease: str, body: bytes) -> dict[str, Any]:
        """Check a manifest and keep it; the executor is woken before the answer is written."""
        upload = _decoded(body, Upload)
        entry = self.entry(lease)
        if entry.wanted.state is LeaseState.CLOSED:
            raise Problem(409, "LEASE_CLOSED", "the lease is closed", entry.wanted.reason, "deploy anew")
        try:
            terms = self.ledger.terms(lease)
            group = accept(upload.manifest, upload.spec, terms)
        except LedgerUnreachable as error:
            raise _ledger_problem(error) from None
        except ManifestRefused as error:
            raise Problem(422, error.code, "the manifest was refused", error.detail, error.fix) from None
        if entry.spec != terms.hash:
            manifest = Manifest(lease, terms.hash, terms.group, terms.resources, msgspec.json.encode(upload.manifest))
            kept = self.journal.keep_manifest(manifest, group.slots())
            if kept is None:
                raise no_such_lease()
            entry = kept
            log.info("manifest accepted", lease=lease, spec=terms.hash[:16])
        self.supervisor.wake(lease)
        return status_of(entry, group, (), self.public_host)

    def status(self, lease: str) -> dict[str, Any]:
        """Phase, services, replicas and ports."""
        entry = self.entry(lease)
        return status_of(entry, self.executor.group(lease), self._containers(lease), self.public_host)

    def lines(self, lease: str, service: str, follow: bool, tail: int | None) -> Lines:
        """Log lines of the containers of one service or all."""
        self.entry(lease)
        chosen = [c for c in self._containers(lease) if service in ("", c.service) and c.state != "created"]
        if service and not chosen and not any(c.service == service for c in self._containers(lease)):
            raise Problem(404, "SERVICE_NOT_FOUND", f"nothing of a service {service!r} is there", fix="see gpubid lease status")
        return _asked(lambda: Lines(self.runtime, chosen, follow=follow, tail=tail))

    def container(self, lease: str, service: str, replica: int) -> Container:
        """The running container of a replica; the only service where none is named."""
        entry = self.entry(lease)
        mine = [c for c in self._containers(lease) if c.generation == entry.wanted.generation and service in ("", c.service)]
        names = {c.service for c in mine}
        if not service and len(names) > 1:
            raise Problem(400, "SERVICE_NEEDED", "the lease has several services", ", ".join(sorted(names)), "name one")
        found = next((c for c in mine if c.replica == replica and c.state == "running"), None)
        if found is None:
            raise Problem(409, "NOT_RUNNING", f"{service or 'the service'}/{replica} does not run", fix="see gpubid lease status")
        return found

    def _containers(self, lease: str) -> tuple[Container, ...]:
        return _asked(lambda: self.runtime.containers(lease))


def _asked(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except (Unknown, StartFailed) as error:
        raise engine_problem(error) from None


def _ledger_problem(error: LedgerUnreachable) -> Problem:
    return Problem(503, "LEDGER_UNREACHABLE", "the ledger does not answer", str(error), "try again soon")


def _decoded(body: bytes, kind: Any) -> Any:
    if too_deep(body):
        raise Problem(400, "MALFORMED", "the body is nested too deep")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Problem(400, "MALFORMED", "the body cannot be read", str(error)) from None


async def _body(request: Request, most: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise Problem(413, "TOO_LARGE", f"the body is over {most} bytes")
    return bytes(body)


def _guard(desk: Desk, scope: str) -> Callable[..., Awaitable[str]]:
    """A dependency: the lease id, once the token was found good for `scope` on it."""

    async def checked(
        owner: str, dseq: str, gseq: str, oseq: str, provider: str, authorization: Annotated[str, Header()] = ""
    ) -> str:
        lease = f"{owner}/{dseq}/{gseq}/{oseq}/{provider}"
        await run_in_threadpool(desk.gatekeeper.check, authorization, lease, scope)
        return lease

    checked.__dict__["scope"] = scope
    return checked


LEASE_PATH: Final = "/v1/leases/{owner}/{dseq}/{gseq}/{oseq}/{provider}"


def build(desk: Desk) -> FastAPI:
    """The gateway as an ASGI application."""
    app = FastAPI(title="gpubid gateway", version=version("gpubid"), docs_url=None, redoc_url=None)
    _handle_errors(app)
    _lease_routes(app, desk)
    _shell_route(app, desk)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The gateway answers."""
        return {"status": "ok"}

    @app.get("/version")
    async def version_() -> dict[str, str]:
        """Version of the program."""
        return {"version": version("gpubid")}

    return app


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        detail = "; ".join(f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors())
        return Problem(400, "MALFORMED", "the request cannot be read", detail).response()

    @app.exception_handler(404)
    async def missing(_: Request, _error: Any) -> Response:
        return Problem(404, "NOT_FOUND", "there is nothing here").response()

    @app.exception_handler(405)
    async def method(_: Request, _error: Any) -> Response:
        return Problem(405, "METHOD_NOT_ALLOWED", "this cannot be done here").response()

    @app.exception_handler(JournalFailed)
    async def disk(_: Request, error: JournalFailed) -> Response:
        log.error("journal failed", error=str(error))
        return Problem(507, "PROVIDER_DISK", "the provider's disk fails", fix="tell the provider, or deploy elsewhere").response()


def _lease_routes(app: FastAPI, desk: Desk) -> None:
    @app.put(f"{LEASE_PATH}/manifest", status_code=202)
    async def put_manifest(request: Request, lease: Annotated[str, Depends(_guard(desk, "manifest"))]) -> Response:
        """Send what to run; repeating it is harmless."""
        body = await _body(request, MAX_MANIFEST)
        return JSONResponse(await run_in_threadpool(desk.take_manifest, lease, body), 202)

    @app.get(f"{LEASE_PATH}/status")
    async def status(lease: Annotated[str, Depends(_guard(desk, "status"))]) -> dict[str, Any]:
        """What runs."""
        return await run_in_threadpool(desk.status, lease)

    @app.get(f"{LEASE_PATH}/logs")
    async def logs(
        lease: Annotated[str, Depends(_guard(desk, "logs"))],
        service: Annotated[str, Query(max_length=128)] = "",
        follow: bool = False,
        tail: Annotated[int | None, Query(ge=0, le=1_000_000)] = None,
    ) -> Response:
        """Log lines, one JSON object each."""
        lines = await run_in_threadpool(desk.lines, lease, service, follow, tail)
        return StreamingResponse(desk.bridge.ndjson(lines, lambda line: line), media_type=NDJSON)

    @app.post(f"{LEASE_PATH}/exec")
    async def exec_(request: Request, lease: Annotated[str, Depends(_guard(desk, "exec"))]) -> Response:
        """Run a command: its output as it comes, then its exit code."""
        asked = _decoded(await _body(request, MAX_EXEC), Exec)
        try:
            stdin = base64.b64decode(asked.stdin, validate=True)
        except binascii.Error:
            raise Problem(400, "MALFORMED", "stdin is not base64") from None

        def begin() -> Any:
            container = desk.container(lease, asked.service, asked.replica)
            return _asked(lambda: desk.runtime.execute(container.id, tuple(asked.command), stdin))

        chunks = await run_in_threadpool(begin)
        return StreamingResponse(desk.bridge.ndjson(chunks, _chunk), media_type=NDJSON)


def _chunk(chunk: Chunk) -> dict[str, Any]:
    if chunk.exit_code is not None:
        return {"exit_code": chunk.exit_code}
    return {"stream": chunk.stream, "data": base64.b64encode(chunk.data).decode()}


def _shell_route(app: FastAPI, desk: Desk) -> None:
    @app.websocket(f"{LEASE_PATH}/shell")
    async def shell_(
        websocket: WebSocket,
        owner: str,
        dseq: str,
        gseq: str,
        oseq: str,
        provider: str,
        command: Annotated[list[str] | None, Query()] = None,
        service: str = "",
        replica: int = 0,
    ) -> None:
        lease = f"{owner}/{dseq}/{gseq}/{oseq}/{provider}"
        authorization = websocket.headers.get("authorization", "")
        accepted = False
        try:
            if not authorization:
                # A browser cannot set headers: its token comes as the first message.
                await websocket.accept()
                accepted = True
                authorization = await shell.first_token(websocket)
            await run_in_threadpool(desk.gatekeeper.check, authorization, lease, "exec")
            container = await run_in_threadpool(desk.container, lease, service, replica)
            words = tuple(command or ("/bin/sh",))
            terminal = await run_in_threadpool(_asked, lambda: desk.runtime.terminal(container.id, words))
        except Problem as problem:
            if accepted:
                await shell.refuse(websocket, problem)
            else:
                await websocket.send_denial_response(problem.response())
            return
        if not accepted:
            await websocket.accept()
        await shell.run(websocket, desk.bridge, terminal)
