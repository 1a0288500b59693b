"""A tenant in a test: deploys a file, sends its manifest, looks at what runs."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from ledger.protocol.keys import address_of, public_key
from ledger.protocol.messages import Message
from marketplace.client import NodeClient
from marketplace.protocol.messages import CloseDeployment, CreateDeployment
from provider.client import GatewayClient, make_token
from tenant.sdl import parse
from tests.processes import eventually

WEB = """
version: "2.0"
services:
  web:
    image: {image}
    command: ["/bin/sh", "-c", "echo started $GREETING; exec httpd -f -p 8080 -h /var/www"]
    env: ["GREETING=hello"]
    expose:
      - port: 8080
        as: 80
        to: [{{global: true}}]
profiles:
  compute:
    web:
      resources:
        cpu: {{units: 100m}}
        memory: {{size: 32Mi}}
        storage: {{size: 64Mi}}
  placement:
    here:
      pricing:
        web: {{denom: uact, amount: 100000}}
deployment:
  web:
    here: {{profile: web, count: 1}}
"""


class Tenant:
    """An account with money; use as a context manager."""

    def __init__(self, node: str, seed: bytes) -> None:
        self.node = NodeClient(node)
        self.seed = seed
        self.address = address_of(public_key(seed))
        self.dseq = 0
        self.node.faucet(self.address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.node.close()

    def send(self, *messages: Message) -> None:
        """Send one transaction."""
        self.node.sender(self.seed).send(*messages)

    def deploy(self, text: str, deposit: str = "50000000") -> tuple[str, list[Any]]:
        """Deploy a file; its one lease, once there is a match, and its manifest."""
        sdl = parse(text)
        self.dseq += 1
        self.send(
            CreateDeployment(denomination="ucredit", deposit=deposit, dseq=self.dseq, groups=sdl.market_groups(), hash=sdl.hash)
        )
        leases = eventually(lambda: self.node.deployment(self.address, self.dseq)["leases"], "a match")
        return str(leases[0]["id"]), sdl.manifest

    def close_deployment(self) -> None:
        """Close the last deployment."""
        self.send(CloseDeployment(dseq=self.dseq))

    @contextlib.contextmanager
    def gateway(self, lease: str) -> Iterator[GatewayClient]:
        """The gateway of the lease's provider."""
        provider = lease.rsplit("/", 1)[1]
        record = self.node.provider(provider)

        def token(of: str, scope: str) -> str:
            return make_token(self.seed, self.address, of, provider, scope, int(time.time()))

        with GatewayClient(record["endpoint"], record["gateway_key"], token) as client:
            yield client

    def state(self, lease: str) -> str:
        """State of the lease on the ledger."""
        return str(self.node.lease(lease)["state"])

    def until(self, lease: str, state: str) -> None:
        """Wait for a state of the lease."""
        eventually(lambda: self.state(lease) == state, f"the lease to be {state}")

    def until_running(self, lease: str) -> dict[str, Any]:
        """Wait until the gateway says running; its status."""

        def probe() -> dict[str, Any] | None:
            with self.gateway(lease) as client:
                status = client.status(lease)
            assert status["phase"] != "failed", status
            return status if status["phase"] == "running" else None

        return eventually(probe, "the lease to run")


def answer(status: dict[str, Any], service: str = "web") -> str:
    """What the first published port of a service answers."""
    port = status["services"][service]["ports"][0]
    url = f"http://{port['host']}:{port['host_port']}/"

    def probe() -> str | None:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(url, timeout=10, trust_env=False).text
        return None

    return eventually(probe, f"{url} to answer")


def seed_of(path: Path, name: str) -> bytes:
    """A seed of the test's own."""
    import hashlib

    return hashlib.sha256(f"{path}|{name}".encode()).digest()
