"""The gateway as a process: key, socket, ready line, end."""

import asyncio
import os
import secrets
import socket
from pathlib import Path

import uvicorn

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.listen import bind, is_loopback, parse_listen, url_of
from ledger.cli.output import say
from marketplace.client import NodeClient
from tenant.api.app import Gateway, create_app
from tenant.api.store import Store
from tenant.api.work import Worker
from tenant.deploy.flow import Deployer


def bearer_key(path: Path) -> str:
    """The key in `path`, made at the first start; CommandFailed where others can read it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            raise CommandFailed(f"{path} can be read by others", Exit.FAILURE, fix=f"chmod 600 {path}") from None
        key = path.read_text().strip()
        if len(key) < 32:
            raise CommandFailed(f"{path} holds no key", Exit.FAILURE, fix="remove it: a new one is made") from None
        return key
    key = secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w") as out:
        out.write(key + "\n")
    return key


class _Server(uvicorn.Server):
    """uvicorn that says when it serves."""

    def __init__(self, config: uvicorn.Config, ready: str) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then print the line that others wait for."""
        await super().startup(sockets)
        if self.started:
            print(self._ready, flush=True)


def serve(listen: str, node_url: str, seed: bytes, home: Path, *, open_to_others: bool) -> None:
    """Serve until SIGTERM or SIGINT."""
    host, _ = parse_listen(listen)
    if not is_loopback(host) and not open_to_others:
        fix = "listen on 127.0.0.1 behind a proxy with TLS, or give --insecure-listen if you know what reaches it"
        raise CommandFailed(f"{listen} can be reached by others, without TLS", Exit.USAGE, fix=fix)
    key_path = home / "api.key"
    key = bearer_key(key_path)
    sock = bind(listen)
    try:
        with NodeClient(node_url) as node:
            flow = Deployer(node, seed, home)
            store = Store(home / "gateway.db")
            worker = Worker(store, node, flow)
            try:
                say(f"bearer key in {key_path}")
                worker.resume()
                app = create_app(Gateway(node, flow, store, worker, key))
                settings = uvicorn.Config(
                    app,
                    log_level="warning",
                    access_log=False,
                    server_header=False,
                    timeout_graceful_shutdown=5,
                    limit_concurrency=256,
                )
                asyncio.run(_Server(settings, f"ready {url_of(sock)} owner {flow.owner}").serve(sockets=[sock]))
            finally:
                worker.close()
                store.close()
    finally:
        sock.close()
