"""Where a daemon listens: HOST:PORT on the command line, a bound socket, and the URL that people type."""

import errno
import ipaddress
import socket

from ledger.cli.failure import CommandFailed, Exit


def parse_listen(text: str) -> tuple[str, int]:
    """(host, port) of "HOST:PORT", an IPv6 host in brackets; CommandFailed where it is neither."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
            raise ValueError
        if host != "localhost":
            ipaddress.ip_address(host)
    except ValueError:
        raise CommandFailed(
            f"{text!r} is not an address to listen on", Exit.USAGE, fix="give HOST:PORT, such as 127.0.0.1:8090"
        ) from None
    return host, int(port)


def is_loopback(host: str) -> bool:
    """True for an address that only this machine reaches."""
    return host == "localhost" or ipaddress.ip_address(host).is_loopback


def bind(listen: str) -> socket.socket:
    """A bound socket that listens; CommandFailed where the address is taken or not ours."""
    host, port = parse_listen(listen)
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(2048)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            fix = "stop the other program, or give --listen another port (0 picks a free one)"
            raise CommandFailed(f"{listen} is taken", Exit.CONFLICT, fix=fix) from None
        raise CommandFailed(f"cannot listen on {listen}: {error.strerror}", Exit.FAILURE, fix="give another --listen") from None
    sock.setblocking(False)
    return sock


def url_of(sock: socket.socket, scheme: str = "http") -> str:
    """The URL that a bound socket is reached at."""
    host, port = sock.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
