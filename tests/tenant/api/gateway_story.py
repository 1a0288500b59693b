"""A REST gateway for tests: its application called in process, on a real node with a bid whose provider is far away."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.from_thread
import httpx

from ledger.protocol.keys import address_of, public_key
from marketplace.client import NodeClient
from marketplace.protocol.messages import Heartbeat, PutBid, RegisterHost, RegisterProvider
from marketplace.protocol.resources import Offer, Prices
from tenant.api.app import create_app
from tenant.api.gateway import Gateway
from tenant.api.store import Store
from tenant.api.work import Worker
from tenant.deploy.flow import Deployer

KEY = "k" * 43
GIB = 2**30

SDL = """\
version: "2.0"
services:
  web:
    image: gpubid/busybox:test
    expose:
      - port: 8080
        as: 80
        to:
          - global: true
profiles:
  compute:
    small:
      resources:
        cpu:
          units: 250m
        memory:
          size: 64Mi
        storage:
          size: 128Mi
  placement:
    anywhere:
      pricing:
        small:
          denom: uact
          amount: AMOUNT
deployment:
  web:
    anywhere:
      profile: small
      count: 1
"""


def sdl(amount: int = 100) -> str:
    """A deployment file that pays so much a block."""
    return SDL.replace("AMOUNT", str(amount))


def seed(number: int) -> bytes:
    """The seed (32 bytes) of a user of the tests."""
    return number.to_bytes(32, "big")


def address(number: int) -> str:
    """The address of that user."""
    return address_of(public_key(seed(number)))


def offer(node: NodeClient, number: int) -> None:
    """Register a provider that cannot be reached, with a bid for processors and memory."""
    node.faucet(address(number))
    sender = node.sender(seed(number))
    sender.send(RegisterProvider(endpoint="https://127.0.0.1:1", gateway_key="a" * 64), RegisterHost(host="h1"))
    sender.send(Heartbeat(hosts=("h1",)))
    _, now_ms = node.chain()
    bid = PutBid(
        denomination="ucredit",
        expires_ms=now_ms + 3_600_000,
        host="h1",
        offer=Offer(cpu_milli=64_000, memory=256 * GIB, storage={"ephemeral": 1000 * GIB}),
        prices=Prices(cpu="1000", gpu={}, memory="100", port="0", storage={"*": "1"}),
    )
    sender.send(bid)


@dataclass
class Desk:
    """A gateway, and a caller of its application."""

    gateway: Gateway
    portal: Any

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Make a request with the bearer key, unless other headers say otherwise; the whole answer."""
        headers = {"authorization": f"Bearer {KEY}"} | dict(options.pop("headers", None) or {})
        app = create_app(self.gateway)

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                return await client.request(method, path, headers=headers, **options)

        found: httpx.Response = self.portal.call(ask)
        return found

    def get(self, path: str, **query: Any) -> Any:
        """The body of a GET that must succeed."""
        answer = self.call("GET", path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, body: str, key: str = "", kind: str = "application/yaml", **query: Any) -> httpx.Response:
        """Ask for a deployment."""
        headers = {"content-type": kind} | ({"idempotency-key": key} if key else {})
        return self.call("POST", "/v1/deployments", content=body.encode(), headers=headers, params=query)

    def put(self, dseq: int, body: str, kind: str = "application/yaml") -> httpx.Response:
        """Ask for a change of a deployment."""
        return self.call("PUT", f"/v1/deployments/{dseq}", content=body.encode(), headers={"content-type": kind})

    def made(self, body: str, key: str = "", **query: Any) -> Any:
        """A deployment that must be made."""
        answer = self.post(body, key, **query)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def problem(self, answer: httpx.Response, status: int) -> Any:
        """The problem that an answer must be."""
        assert answer.status_code == status, (answer.status_code, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        found = answer.json()
        assert {"type", "title", "status", "detail", "code", "fix"} <= set(found)
        assert found["status"] == status
        return found


@contextmanager
def opened(url: str, home: Path, number: int = 1) -> Iterator[Desk]:
    """A gateway for the account of user `number` at the node `url`; its worker goes on with what its home has."""
    with NodeClient(url) as node, anyio.from_thread.start_blocking_portal() as portal:
        flow = Deployer(node, seed(number), home)
        store = Store(home / "gateway.db")
        worker = Worker(store, node, flow, threads=2)
        try:
            worker.resume()
            gateway = Gateway(node=node, flow=flow, store=store, worker=worker, key=KEY, seed=seed(number))
            yield Desk(gateway, portal)
        finally:
            worker.close()
            store.close()
