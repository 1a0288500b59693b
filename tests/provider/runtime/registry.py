"""A small registry on 127.0.0.1, from which an engine takes images without TLS."""

import base64
import contextlib
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOGIN = ("alice", "open sesame")


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Registry(ThreadingHTTPServer):
    """Serves one image under any name but `absent/…`; the layer of `stuck/…` comes when `released`. `closed`: only for LOGIN.

    The image holds a file with `seed`, or is made of the tar `layer`.
    """

    daemon_threads = True

    def __init__(self, architecture: str, seed: str, layer: bytes = b"") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.closed = False
        self.logins: list[str] = []
        self.released = threading.Event()
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as archive:
            member = tarfile.TarInfo("seed")
            member.size = len(seed)
            archive.addfile(member, io.BytesIO(seed.encode()))
        layer = layer or raw.getvalue()
        self.layer = gzip.compress(layer, mtime=0)
        rootfs = {"type": "layers", "diff_ids": [_digest(layer)]}
        config = {"architecture": architecture, "os": "linux", "config": {"Cmd": ["true"]}, "rootfs": rootfs, "history": []}
        self.config = json.dumps(config).encode()
        kind = "application/vnd.docker."
        manifest = {
            "schemaVersion": 2, "mediaType": kind + "distribution.manifest.v2+json",
            "config": {"mediaType": kind + "container.image.v1+json", "size": len(self.config), "digest": _digest(self.config)},
            "layers": [
                {"mediaType": kind + "image.rootfs.diff.tar.gzip", "size": len(self.layer), "digest": _digest(self.layer)}
            ],
        }  # fmt: skip
        self.manifest = json.dumps(manifest).encode()
        self.digest = _digest(self.manifest)

    @property
    def host(self) -> str:
        """Where it listens, as a reference begins."""
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Registry
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _answer(self, status: int, data: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Docker-Content-Digest", _digest(data))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_GET(self) -> None:
        """One request."""
        registry, path = self.server, self.path
        login = self.headers.get("Authorization", "")
        if login:
            registry.logins.append(base64.b64decode(login.removeprefix("Basic ")).decode())
        if registry.closed and login != "Basic " + base64.b64encode(":".join(LOGIN).encode()).decode():
            error = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
            self._answer(401, error, WWW_Authenticate='Basic realm="test"')
            return
        if path.rstrip("/") == "/v2":
            self._answer(200, b"{}")
            return
        if "/manifests/" in path and not path.startswith("/v2/absent/"):
            self._answer(200, registry.manifest, "application/vnd.docker.distribution.manifest.v2+json")
        elif path.endswith(_digest(registry.config)):
            self._answer(200, registry.config, "application/octet-stream")
        elif path.endswith(_digest(registry.layer)):
            if path.startswith("/v2/stuck/"):
                registry.released.wait(240)
            with contextlib.suppress(OSError):
                self._answer(200, registry.layer, "application/octet-stream")
        else:
            self._answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')

    do_HEAD = do_GET


@contextlib.contextmanager
def registry(architecture: str, seed: str, layer: bytes = b"") -> Iterator[Registry]:
    """A registry that serves until the end of the block."""
    with Registry(architecture, seed, layer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()
