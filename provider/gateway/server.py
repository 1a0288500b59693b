"""The gateway's server: HTTPS on one socket, on a thread of its own."""

import errno
import socket
import threading
from typing import Final

import uvicorn
from fastapi import FastAPI

from provider.gateway.certificate import Certificate

CONCURRENCY: Final = 512
"""Connections beyond this are answered 503."""

STOP_S: Final = 3
"""How long open streams may go on when it stops."""


class ListenFailed(Exception):
    """The address cannot be listened on."""

    def __init__(self, address: str, error: OSError) -> None:
        taken = error.errno == errno.EADDRINUSE
        super().__init__(f"{address} is in use" if taken else f"cannot listen on {address}: {error.strerror or error}")
        self.exit_code = 2 if error.errno == errno.EINVAL else 5
        self.fix = "end what listens there, or give another address with --listen HOST:PORT"


def listen(address: str) -> socket.socket:
    """A listening socket for `HOST:PORT`; port 0 lets the system choose."""
    host, _, number = address.rpartition(":")
    host = host.strip("[]")
    try:
        port = int(number)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
    except ValueError:
        raise ListenFailed(address, OSError(errno.EINVAL, "it is not HOST:PORT")) from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(128)
    except (OSError, OverflowError) as error:
        bound.close()
        raise ListenFailed(address, error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error))) from None
    return bound


class GatewayServer:
    """Serves `app` on the socket from `start` to `stop`; the socket is closed at the end."""

    def __init__(self, app: FastAPI, certificate: Certificate, bound: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            ssl_certfile=certificate.path,
            ssl_keyfile=certificate.path,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="websockets-sansio",
            ws_max_size=1024 * 1024,
            limit_concurrency=CONCURRENCY,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=STOP_S,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._socket = bound
        self._thread = threading.Thread(target=self._server.run, args=([bound],), name="gateway", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def alive(self) -> bool:
        """True while it serves."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End it: no new connections, a short time for open ones."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(STOP_S * 4)
        self._socket.close()
