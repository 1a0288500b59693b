"""The door to a provider's gateway: manifests, status, logs, commands and shells of a lease.

The gateway proves itself with the TLS key that stands on the ledger, not with a certificate authority: its certificate
is fetched, its key compared with the pinned hash, and only then trusted, alone, for the connections that carry tokens.
A token never reaches a wrong key.
"""

import base64
import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import Any, Final, Self, cast
from urllib.parse import urlencode, urlsplit

import httpx
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import OKPKey
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_websocket

from ledger.protocol.keys import public_key

MAX_TOKEN_S: Final = 300
"""Longest life of a token, in seconds."""

MAX_ANSWER: Final = 4 * 1024 * 1024
"""Most bytes of an answer that is not a stream."""

TokenFactory = Callable[[str, str], str]
"""(lease id, scope) → token."""


class GatewayError(Exception):
    """The gateway refused: `status` is HTTP's, `code` names the reason, `fix` says what to do."""

    def __init__(self, status: int, code: str, title: str, detail: str = "", fix: str = "") -> None:
        super().__init__(f"{title}{': ' if detail else ''}{detail}")
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.fix = fix

    @property
    def exit_code(self) -> int:
        """The command line's exit code for it."""
        table = {401: 4, 403: 4, 404: 3, 409: 5, 408: 6, 504: 6, 502: 7, 503: 7}
        return table.get(self.status, 1)


class GatewayUnreachable(Exception):
    """No answer from the gateway."""

    exit_code = 7
    fix = "check that the provider is online: gpubid market bids"


class WrongGatewayKey(Exception):
    """Something else answers at the gateway's address: its key is not the one on the ledger. No token was sent."""

    exit_code = 4
    fix = "try again later; if it stays so, close the lease: the provider, or the way to it, is not to be trusted"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def make_token(seed: bytes, owner: str, lease: str, provider: str, scope: str, now_s: int, ttl_s: int = 120) -> str:
    """A token for one lease, signed by the key of `seed` (32 bytes): JWT, Ed25519, header `kid` the public key in hex.

    `scope` names what it allows, by words of `manifest logs exec status`; it is good for `ttl_s` (at most 300) seconds
    from `now_s` (Unix time).
    """
    assert 0 < ttl_s <= MAX_TOKEN_S, ttl_s
    key = public_key(seed)
    jwk = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": _base64url(key), "d": _base64url(seed)})
    claims = {"iss": owner, "sub": lease, "aud": provider, "scope": scope, "iat": now_s, "exp": now_s + ttl_s}
    return jwt.encode({"alg": "Ed25519", "kid": key.hex()}, claims, jwk, algorithms=["Ed25519"])


def spki_hash(certificate: x509.Certificate) -> str:
    """Hex of SHA-256 over the DER SubjectPublicKeyInfo of a certificate: what stands on the ledger."""
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).hexdigest()


def pinned_context(host: str, port: int, key: str, timeout_s: float) -> ssl.SSLContext:
    """A TLS context that trusts only the certificate at host:port whose key has the hash `key`.

    WrongGatewayKey where another key answers, GatewayUnreachable where nothing does. Nothing secret is sent here.
    """
    probe = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    probe.check_hostname = False
    probe.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=timeout_s) as plain,
            probe.wrap_socket(plain, server_hostname=host) as secured,
        ):
            der = secured.getpeercert(binary_form=True)
    except (OSError, ssl.SSLError) as error:
        raise GatewayUnreachable(f"the gateway {host}:{port} does not answer: {error}") from None
    try:
        found = spki_hash(x509.load_der_x509_certificate(der or b""))
    except ValueError as error:
        raise WrongGatewayKey(f"the gateway {host}:{port} shows no certificate that can be read: {error}") from None
    if found != key:
        raise WrongGatewayKey(f"the gateway {host}:{port} has the key {found[:16]}…, the ledger says {key[:16]}…")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the key is the identity; the name in the certificate says nothing
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(der or b""))
    return context


class Shell:
    """A terminal in a container: bytes both ways. Read on one thread, write on any."""

    def __init__(self, opened: AbstractContextManager[ClientConnection]) -> None:
        self._opened = ExitStack()
        self._connection = self._opened.enter_context(opened)
        self._ended: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def read(self, timeout_s: float | None = None) -> bytes:
        """Next output, empty at the end; TimeoutError where nothing came within `timeout_s`."""
        while self._ended is None:
            try:
                frame = self._connection.recv(timeout=timeout_s)
            except ConnectionClosed:
                return b""
            if isinstance(frame, bytes):
                if frame:
                    return frame
                continue
            end = msgspec.json.decode(frame, type=dict[str, Any])
            if "exit_code" in end:
                self._ended = int(end["exit_code"])
            elif "error" in end:
                raise GatewayError(409, str(end["error"]), str(end.get("detail") or end["error"]))
        return b""

    def write(self, data: bytes) -> None:
        """Input for the command."""
        try:
            self._connection.send(data)
        except ConnectionClosed:
            raise GatewayUnreachable("the shell has ended") from None

    def resize(self, rows: int, columns: int) -> None:
        """The window changed."""
        self._connection.send(msgspec.json.encode({"resize": [rows, columns]}).decode())

    def exit_code(self) -> int | None:
        """Code of the command once `read` gave its end; None where the connection broke before."""
        return self._ended

    def close(self) -> None:
        """End the command and the connection."""
        self._opened.close()


class GatewayClient:
    """Talks to one gateway. `endpoint` and `gateway_key` are the provider's, from the ledger. Close it, or use `with`."""

    def __init__(self, endpoint: str, gateway_key: str, token_factory: TokenFactory, *, timeout_s: float = 30) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme != "https" or not parts.hostname:
            raise GatewayError(400, "BAD_ENDPOINT", f"{endpoint!r} is not an https address")
        self.endpoint = endpoint.rstrip("/")
        self._host = parts.hostname
        self._port = parts.port or 443
        self._key = gateway_key
        self._token = token_factory
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._http: httpx.Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            http, self._http, self._context = self._http, None, None
        if http is not None:
            http.close()

    def put_manifest(self, lease: str, manifest: Sequence[Any], spec: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send the manifest (the list of groups exactly as hashed); returns the lease's status. Repeating it is harmless."""
        body: dict[str, Any] = {"manifest": list(manifest)}
        if spec is not None:
            body["spec"] = dict(spec)
        return self._json("PUT", lease, "manifest", "manifest", content=msgspec.json.encode(body))

    def status(self, lease: str) -> dict[str, Any]:
        """What runs: phase, services, replicas, published ports."""
        return self._json("GET", lease, "status", "status")

    def logs(self, lease: str, *, service: str = "", follow: bool = False, tail: int | None = None) -> Iterator[dict[str, Any]]:
        """Lines of all services or one, oldest first; with `follow` as they come. Close the iterator to stop early."""
        query: dict[str, str] = {"follow": "1" if follow else "0"}
        if service:
            query["service"] = service
        if tail is not None:
            query["tail"] = str(tail)
        yield from self._lines("GET", lease, f"logs?{urlencode(query)}", "logs", quiet=follow)

    def exec(
        self, lease: str, service: str, command: Sequence[str], *, replica: int = 0, stdin: bytes = b""
    ) -> Iterator[dict[str, Any]]:
        """Run a command: {"stream", "data": bytes} as it comes, then {"exit_code": n}."""
        body = {"service": service, "replica": replica, "command": list(command), "stdin": base64.b64encode(stdin).decode()}
        for line in self._lines("POST", lease, "exec", "exec", content=msgspec.json.encode(body), quiet=True):
            if "data" in line:
                line["data"] = base64.b64decode(line["data"])
            yield line

    def shell(self, lease: str, service: str, command: Sequence[str], *, replica: int = 0) -> Shell:
        """A terminal running `command` in a container."""
        query = urlencode([("service", service), ("replica", str(replica)), *(("command", word) for word in command)])
        url = f"wss://{self._host if ':' not in self._host else f'[{self._host}]'}:{self._port}/v1/leases/{lease}/shell?{query}"
        try:
            return Shell(
                connect_websocket(
                    url,
                    ssl=self._pinned(),
                    additional_headers={"Authorization": f"Bearer {self._token(lease, 'exec')}"},
                    open_timeout=self._timeout_s,
                    proxy=None,
                )
            )
        except InvalidStatus as refused:
            raise _error_of(refused.response.status_code, bytes(refused.response.body or b"")) from None
        except (OSError, WebSocketException, TimeoutError) as error:
            raise GatewayUnreachable(f"the gateway {self.endpoint} does not answer: {error}") from None

    def _pinned(self) -> ssl.SSLContext:
        with self._lock:
            if self._context is None:
                self._context = pinned_context(self._host, self._port, self._key, self._timeout_s)
            return self._context

    def _client(self) -> httpx.Client:
        context = self._pinned()
        with self._lock:
            if self._http is None:
                # Proxies of the environment and redirects are left alone: the pinned key is at this address or nowhere.
                self._http = httpx.Client(verify=context, timeout=self._timeout_s, follow_redirects=False, trust_env=False)
            return self._http

    @contextmanager
    def _open(
        self, method: str, lease: str, path: str, scope: str, content: bytes | None, quiet: bool
    ) -> Iterator[httpx.Response]:
        """An answer of the gateway whose body is not read yet; GatewayError where it refused."""
        headers = {"Authorization": f"Bearer {self._token(lease, scope)}", "Content-Type": "application/json"}
        # A stream may say nothing for as long as the container says nothing.
        timeout = httpx.Timeout(self._timeout_s, read=None if quiet else self._timeout_s)
        url = f"{self.endpoint}/v1/leases/{lease}/{path}"
        try:
            with self._client().stream(method, url, headers=headers, content=content, timeout=timeout) as answer:
                if answer.status_code >= 300:
                    raise _error_of(answer.status_code, _bounded(answer))
                yield answer
        except httpx.HTTPError as error:
            self.close()  # the gateway may come back with a new certificate of the same key
            raise GatewayUnreachable(f"the gateway {self.endpoint} does not answer: {error or type(error).__name__}") from None

    def _json(self, method: str, lease: str, path: str, scope: str, content: bytes | None = None) -> dict[str, Any]:
        with self._open(method, lease, path, scope, content, quiet=False) as answer:
            return cast(dict[str, Any], msgspec.json.decode(_bounded(answer)))

    def _lines(
        self, method: str, lease: str, path: str, scope: str, *, content: bytes | None = None, quiet: bool
    ) -> Iterator[dict[str, Any]]:
        with self._open(method, lease, path, scope, content, quiet) as answer:
            for line in answer.iter_lines():
                if not line:
                    continue
                found = msgspec.json.decode(line, type=dict[str, Any])
                if "error" in found and "stream" not in found:
                    raise GatewayError(502, str(found["error"]), str(found.get("detail") or found["error"]))
                yield found


def _bounded(answer: httpx.Response) -> bytes:
    body = b""
    for part in answer.iter_bytes():
        body += part
        if len(body) > MAX_ANSWER:
            raise GatewayError(502, "ANSWER_TOO_LARGE", f"the gateway sent more than {MAX_ANSWER} bytes")
    return body


def _error_of(status: int, body: bytes) -> GatewayError:
    try:
        problem = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError:
        return GatewayError(status, "REFUSED", f"the gateway answered {status}")
    texts = {name: str(problem.get(name) or "") for name in ("code", "title", "detail", "fix")}
    return GatewayError(
        status, texts["code"] or "REFUSED", texts["title"] or f"the gateway answered {status}", texts["detail"], texts["fix"]
    )
