"""A node for tests: a real engine on a database of the test's own, its application called in process."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.from_thread
import httpx

from ledger.engine.embedded import Engine
from ledger.protocol.keys import address_of, public_key
from ledger.protocol.messages import Message, Transfer
from ledger.protocol.transaction import Transaction, sign_transaction
from marketplace.market.module import Market
from marketplace.node import home as homes
from marketplace.node.app import create_app
from marketplace.node.composition import Node
from marketplace.node.config import NodeConfig
from marketplace.node.daemon import compose
from marketplace.node.edge import Edge


def seed(number: int) -> bytes:
    """The seed (32 bytes) of a user of the tests."""
    return number.to_bytes(32, "big")


def address(number: int) -> str:
    """The address of that user."""
    return address_of(public_key(seed(number)))


def signed(chain_id: str, now_ms: int, by: int, /, *messages: Message, **changed: Any) -> bytes:
    """Signed bytes of a transaction of a user, valid for a minute."""
    fields: dict[str, Any] = {
        "chain_id": chain_id,
        "messages": messages,
        "nonce": secrets.token_hex(16),
        "principal": address(by),
        "sequence": 0,
        "signer": public_key(seed(by)).hex(),
        "valid_until": now_ms + 60_000,
    }
    return sign_transaction(Transaction(**(fields | changed)), seed(by))


@dataclass
class Served:
    """A node in process, and a caller of its application."""

    node: Node
    edge: Edge
    portal: Any

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Make a request and return the whole answer."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.edge, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
                return await client.request(method, path, **options)

        found: httpx.Response = self.portal.call(ask)
        return found

    def get(self, path: str, **query: Any) -> Any:
        """The body of a GET that must succeed."""
        answer = self.call("GET", path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def problem(self, method: str, path: str, status: int, **options: Any) -> Any:
        """The problem that a request must meet."""
        answer = self.call(method, path, **options)
        assert answer.status_code == status, (answer.status_code, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        found = answer.json()
        assert {"type", "title", "status", "detail", "code", "fix"} <= set(found)
        assert found["status"] == status
        return found

    def sign(self, by: int, *messages: Message, **changed: Any) -> bytes:
        """Signed bytes of a transaction of a user."""
        engine = self.node.engine
        return signed(engine.genesis.chain_id, engine.now_ms(), by, *messages, **changed)

    def post(self, raw: bytes) -> httpx.Response:
        """Post a signed transaction."""
        return self.call("POST", "/v1/transactions", content=raw)

    def done(self, by: int, *messages: Message) -> Any:
        """The receipt of a transaction that must succeed."""
        answer = self.post(self.sign(by, *messages))
        assert answer.status_code == 200, answer.text
        return answer.json()

    def fund(self, number: int, amount: str = "1000000000") -> None:
        """Money from the faucet."""
        answer = self.call("POST", "/v1/faucet", json={"address": address(number), "amount": amount})
        assert answer.status_code == 200, answer.text

    def transfer(self, by: int, to: int, amount: int = 1, **changed: Any) -> bytes:
        """Signed bytes of a transfer."""
        return self.sign(by, Transfer(amount=str(amount), denomination="ucredit", to=address(to)), **changed)


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """A node of a new development chain in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = NodeConfig(home=folder, dev=True)
    genesis = homes.development_genesis(folder)
    engine = Engine.open(config.url, genesis, [Market()])
    try:
        node = compose(config, engine, genesis)
        edge = create_app(node)
        with anyio.from_thread.start_blocking_portal() as portal:
            portal.call(_start, node)
            unsubscribe = engine.subscribe(node.hub.tell)
            try:
                yield Served(node, edge, portal)
            finally:
                unsubscribe()
                portal.call(node.hub.close)
    finally:
        engine.close()


async def _start(node: Node) -> None:
    node.hub.start()
