"""The gateway as a process: key, socket, ready line, end."""

import asyncio
import contextlib
import fcntl
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvicorn

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.listen import bind, is_loopback, parse_listen, url_of
from ledger.cli.output import say
from marketplace.client import NodeClient
from tenant.api.app import create_app
from tenant.api.gateway import Gateway
from tenant.api.store import Store
from tenant.api.watch import Watch
from tenant.api.work import Worker
from tenant.deploy.flow import Deployer

DRAIN_S: Final = 3
"""Longest wait at the end for requests under way."""


def bearer_key(path: Path) -> str:
    """The key in `path`, made at the first start; CommandFailed where others can read it, or it is damaged."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            raise CommandFailed(f"{path} can be read by others", Exit.FAILURE, fix=f"chmod 600 {path}") from None
        key = path.read_text(errors="replace").strip()
        if len(key) < 32 or not key.isascii():
            raise CommandFailed(f"{path} holds no key", Exit.FAILURE, fix="remove it: a new one is made") from None
        return key
    key = secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w") as out:
        out.write(key + "\n")
        out.flush()
        os.fsync(out.fileno())
    return key


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; CommandFailed where another process does."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fix = "stop it, or give this one another GPUBID_HOME"
            raise CommandFailed(f"another gateway serves {path.parent}", Exit.CONFLICT, fix=fix) from None
        yield


class _Server(uvicorn.Server):
    """uvicorn that says when it serves, and leaves with status 0 when it is asked to end."""

    def __init__(self, config: uvicorn.Config, ready: str) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then print the line that others wait for."""
        await super().startup(sockets)
        if self.started:
            print(self._ready, flush=True)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT ask for the end; a second one does not wait for requests."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def serve(listen: str, node_url: str, seed: bytes, home: Path, *, principal: str, open_to_others: bool) -> None:
    """Serve the account `principal` until SIGTERM or SIGINT. CommandFailed where it cannot start."""
    host, _ = parse_listen(listen)
    if not is_loopback(host) and not open_to_others:
        fix = "listen on 127.0.0.1 behind a proxy with TLS, or give --insecure-listen if you know what reaches it"
        raise CommandFailed(f"{listen} can be reached by others, without TLS", Exit.USAGE, fix=fix)
    key_path = home / "api.key"
    with _alone(home / "gateway.lock"), NodeClient(node_url) as node:
        key = bearer_key(key_path)
        flow = Deployer(node, seed, home, principal=principal)
        sock = bind(listen)
        try:
            # One file an account: what one asked for is never carried out in the name of another.
            store = Store(home / f"gateway-{flow.owner}.db")
            worker = Worker(store, node, flow)
            try:
                say(f"the bearer key is in {key_path}")
                app = create_app(Gateway(node=node, flow=flow, store=store, worker=worker, key=key, seed=seed))
                settings = uvicorn.Config(
                    app,
                    log_level="warning",
                    access_log=False,
                    server_header=False,
                    timeout_graceful_shutdown=DRAIN_S,
                    limit_concurrency=256,
                )
                worker.resume()
                with Watch(node_url, flow, worker):
                    asyncio.run(_Server(settings, f"ready {url_of(sock)} owner {flow.owner}").serve(sockets=[sock]))
            finally:
                worker.close()
                store.close()
        finally:
            sock.close()
