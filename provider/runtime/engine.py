"""The way to a Docker Engine: one client for short calls, a connection of its own for each long stream.

Errors are told apart here and nowhere else: an engine that did not answer is `Unknown`, one that said no is `StartFailed`.
"""

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlencode

import docker
import docker.errors
import requests.exceptions
import urllib3.exceptions

from provider.runtime.port import StartFailed, Unknown

CALL_TIMEOUT_S: Final = 120
"""Seconds a short call may take: disks under load make engines slow."""

NOT_ANSWERING: Final = (
    "connection error: desc",
    "context deadline exceeded",
    "context canceled",
    "shutting down",
    "is not running",
)
"""Words in an engine's error that speak of the engine itself, not of what was asked: containerd is away, or it is ending."""

PORT_TAKEN: Final = ("port is already allocated", "address already in use", "ports are not available")


class BadEngine(ValueError):
    """The engine's URL is not acceptable; `fix` says which are."""

    fix = "use the engine's unix socket, such as unix:///var/run/docker.sock; put ssh in front of a remote one"


def socket_path(base_url: str) -> str:
    """The path of a `unix://` URL. BadEngine for any other: an engine on TCP gives root to who reaches it."""
    if not base_url.startswith("unix://") or not base_url.removeprefix("unix://").startswith("/"):
        raise BadEngine(f"{base_url!r} is not a unix socket")
    return base_url.removeprefix("unix://")


def refusal(error: docker.errors.APIError, kind: str = "start_failed") -> Exception:
    """What an engine's error means: `StartFailed` where it says no to what was asked, else `Unknown`."""
    text = (error.explanation or "").strip()
    return judged(error.status_code or 0, text if isinstance(text, str) else str(text), kind)


def judged(status: int, text: str, kind: str = "start_failed") -> Exception:
    """As `refusal`, from an HTTP status and the engine's own words."""
    if status >= 500 and (not text or any(words in text for words in NOT_ANSWERING)):
        return Unknown(f"the engine answered {status}: {text or 'nothing'}")
    if any(words in text for words in PORT_TAKEN):
        return StartFailed("port_taken", text)
    return StartFailed(kind, text or f"the engine answered {status}")


@contextlib.contextmanager
def asking(kind: str | None = None) -> Iterator[None]:
    """Turn every failure of the engine into `Unknown`, or a refusal into `StartFailed(kind)` where a kind is given."""
    try:
        yield
    except docker.errors.APIError as error:
        if kind is None:
            raise Unknown(f"the engine answered {error.status_code}: {error.explanation}") from error
        raise refusal(error, kind) from error
    except (
        docker.errors.DockerException,
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
        http.client.HTTPException,
        OSError,
    ) as error:
        raise Unknown(f"the engine does not answer: {error}") from error


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("engine", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


class Flow:
    """An answer that comes bit by bit, and may be written to. `close()` from another thread ends a waiting read."""

    def __init__(self, connection: _SocketConnection, sock: socket.socket, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._socket = sock
        self._response = response
        self._lock = threading.Lock()
        self._reading = False
        self.closed = False

    def read(self, size: int = 65_536) -> bytes:
        """What is there, waiting for at least one byte; empty at the end. Raises OSError, HTTPException."""
        with self._lock:
            if self.closed:
                return b""
            self._reading = True
        try:
            return self._response.read1(size)
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            if self.closed:
                return b""
            raise
        finally:
            with self._lock:
                self._reading = False
                if self.closed:
                    self._release()

    def write(self, data: bytes) -> None:
        """Send to the other side. Raises OSError."""
        self._socket.sendall(data)

    def end_input(self) -> None:
        """Say that no more is sent."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End it; repeatable, from any thread."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            if not self._reading:
                self._release()

    def _release(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._response.close()
        self._connection.close()
        self._socket.close()


class Engine:
    """A Docker Engine at a unix socket. Nothing is asked before the first call."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.path = socket_path(base_url)
        self._client: docker.DockerClient | None = None
        self._lock = threading.Lock()

    def client(self) -> docker.DockerClient:
        """The client for short calls; `Unknown` where nobody listens.

        That is looked at first: docker-py leaves a socket open where a connection is refused.
        """
        with asking(), contextlib.closing(_SocketConnection(self.path, CALL_TIMEOUT_S)) as knock:
            knock.connect()
        with self._lock:
            if self._client is None:
                # A client that asks for the version itself leaves its connection open where nobody answers.
                self._client = docker.DockerClient(
                    base_url=self.base_url, version=self._api_version(), timeout=CALL_TIMEOUT_S, max_pool_size=16
                )
            return self._client

    def _api_version(self) -> str:
        """The newest version of the API that the engine speaks."""
        with asking(), contextlib.closing(_SocketConnection(self.path, CALL_TIMEOUT_S)) as connection:
            connection.request("GET", "/version")
            with connection.getresponse() as response:
                body = response.read()
                if response.status != 200:
                    raise Unknown(f"the engine answered {response.status}")
        try:
            return str(json.loads(body)["ApiVersion"])
        except (ValueError, KeyError, TypeError) as error:
            raise Unknown(f"{self.base_url} is no Docker Engine") from error

    @property
    def api(self) -> docker.APIClient:
        """The low-level client."""
        return self.client().api

    def flow(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        silence_s: float | None = None,
        kind: str | None = None,
    ) -> Flow:
        """Ask for a stream. `silence_s` seconds without a byte raise TimeoutError in `read` (None: wait for ever).

        `Unknown` where the engine does not answer; a refusal is `StartFailed(kind)`, `Unknown` without a kind.
        """
        version = self.api.api_version
        target = f"/v{version}{path}" + (f"?{urlencode(query)}" if query else "")
        data = json.dumps(body).encode() if body is not None else b""
        connection = _SocketConnection(self.path, CALL_TIMEOUT_S)
        with asking(), contextlib.ExitStack() as undo:
            undo.callback(connection.close)
            connection.connect()
            sock = connection.sock
            assert sock is not None
            undo.callback(sock.close)
            connection.request(method, target, body=data, headers={"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            undo.callback(response.close)
            if response.status >= 400:
                raise _refused(response.status, response.read(), kind)
            sock.settimeout(silence_s)
            undo.pop_all()
            return Flow(connection, sock, response)

    def close(self) -> None:
        """Give the client's connections back."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None


def _refused(status: int, body: bytes, kind: str | None) -> Exception:
    try:
        text = str(json.loads(body).get("message", ""))
    except (ValueError, AttributeError):
        text = body.decode(errors="replace").strip()
    return Unknown(f"the engine answered {status}: {text}") if kind is None else judged(status, text, kind)


def frames(flow: Flow) -> Iterator[tuple[str, bytes]]:
    """Pieces of a multiplexed stream: (stdout or stderr, data). Raises as `Flow.read`."""
    pending = b""
    while True:
        while len(pending) >= 8 and len(pending) >= 8 + (size := int.from_bytes(pending[4:8], "big")):
            yield ("stderr" if pending[0] == 2 else "stdout"), pending[8 : 8 + size]
            pending = pending[8 + size :]
        more = flow.read()
        if not more:
            return
        pending += more
