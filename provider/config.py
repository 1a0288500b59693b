"""Settings of the daemon, as the command line and the environment give them."""

import re
import socket
from pathlib import Path
from typing import Final

import msgspec

DEFAULT_LISTEN: Final = "127.0.0.1:8443"
DEFAULT_DOCKER: Final = "unix:///var/run/docker.sock"


class Settings(msgspec.Struct, frozen=True):
    """What `gpubid provider start` was told."""

    node: str
    key_name: str
    home: Path
    """Folder of the daemon: journal, certificate, lock."""
    docker: str = DEFAULT_DOCKER
    listen: str = DEFAULT_LISTEN
    public_url: str = ""
    """Where tenants reach the gateway; empty: where it listens."""
    publish_ip: str = "127.0.0.1"
    """Where published ports of leases listen."""
    price_file: Path | None = None
    simulate: tuple[str, ...] = ()
    host: str = ""
    restricted: bool = False
    """No capability at all for containers."""


def host_name(asked: str) -> str:
    """The host's name on the ledger: the one asked for, or the machine's, in the form the ledger takes."""
    name = re.sub(r"[^a-z0-9.-]", "-", (asked or socket.gethostname() or "host").lower()).strip(".-")[:63].rstrip(".-")
    return name or "host"
