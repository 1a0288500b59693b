"""The client of a node: answers, problems with exit codes and fixes, and nodes that are no nodes."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ledger.cli.failure import Exit
from ledger.protocol.errors import Code, Rejected
from ledger.protocol.messages import Transfer
from marketplace.client import ApiError, NodeClient, TransactionRefused, Unreachable, code_of
from marketplace.protocol.errors import MarketCode
from tests.marketplace.node.listening import listening
from tests.marketplace.node.serving import address, seed, signed


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeClient]:
    """A client of a node behind a socket; user 1 has money."""
    with listening(tmp_path_factory.mktemp("node")) as live, NodeClient(live.url) as found:
        found.faucet(address(1))
        yield found


def _transfer(client: NodeClient, amount: int) -> bytes:
    return signed(*client.chain(), 1, Transfer(amount=str(amount), denomination="ucredit", to=address(2)))


def test_a_transaction_gives_its_receipt(client: NodeClient) -> None:
    """Posting gives a receipt; posting again the same one; the transaction can be asked for later."""
    raw = _transfer(client, 5)
    receipt = client.post(raw)
    assert receipt.ok
    assert client.post(raw).height == receipt.height
    assert client.transaction(receipt.id)["height"] == receipt.height
    assert client.block(receipt.height)["height"] == receipt.height
    assert [r["code"] for r in client.post_many([_transfer(client, 1), b'{"x":1}'])] == [0, Code.MALFORMED]


def test_a_refusal_is_typed(client: NodeClient) -> None:
    """A refused transaction is Rejected with the ledger's code, and ApiError with status, fix and exit code."""
    with pytest.raises(TransactionRefused) as caught:
        client.post(_transfer(client, 10**15))
    assert isinstance(caught.value, Rejected)
    assert caught.value.code is Code.INSUFFICIENT_FUNDS
    assert caught.value.status == 402
    assert caught.value.fix
    assert len(caught.value.id) == 64
    assert caught.value.exit_code == Exit.CONFLICT


def test_what_is_not_there_says_so(client: NodeClient) -> None:
    """A missing thing is an ApiError with status 404 and exit code 3."""
    for ask in (
        lambda: client.account(address(9)),
        lambda: client.lease(f"{address(1)}/1/1/1/{address(2)}"),
        lambda: client.deployment(address(1), 1),
        lambda: client.transaction("0" * 64),
    ):
        with pytest.raises(ApiError) as caught:
            ask()
        assert caught.value.status == 404
        assert caught.value.exit_code == Exit.NOT_FOUND


def test_lists_and_the_rest(client: NodeClient, tmp_path: Path) -> None:
    """Lists come whole; status, genesis, parameters, checkpoint and export answer."""
    assert client.leases(owner=address(1), state=None) == client.bids() == client.orders(state="open") == []
    assert client.providers() == client.hosts() == client.deployments() == []
    assert client.genesis()["chain_id"] == client.chain()[0] == client.status()["chain_id"]
    assert client.parameters()["max_validity_ms"] > 0
    assert client.checkpoint()["node_key"] == client.status()["node_key"]
    assert client.blocks(limit=1)[0]["height"] >= 1
    client.export(tmp_path / "chain.export")
    assert (tmp_path / "chain.export").stat().st_size > 0


def test_a_sender_sends(client: NodeClient, tmp_path: Path) -> None:
    """The sender of a client signs, stores and sends a message."""
    sender = client.sender(seed(1), outbox=tmp_path / "outbox")
    assert sender.send(Transfer(amount="1", denomination="ucredit", to=address(3))).ok
    with pytest.raises(Rejected):
        sender.send(Transfer(amount=str(10**15), denomination="ucredit", to=address(3)))


def test_no_node_there() -> None:
    """A closed port is Unreachable with exit code 7 and a fix; a bad URL says what one looks like."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with NodeClient(f"http://127.0.0.1:{port}") as client, pytest.raises(Unreachable) as caught:
            client.status()
    assert caught.value.exit_code == Exit.UNREACHABLE
    assert caught.value.fix
    for url in ("", "127.0.0.1:8080", "ftp://x", "http://"):
        with pytest.raises(ApiError):
            NodeClient(url)


class _Other(BaseHTTPRequestHandler):
    """Something that is no node."""

    def do_GET(self) -> None:
        """Answer with a page, or an error that is no problem, or break off."""
        status, body = {"/v1/status": (200, b"<html>"), "/v1/genesis": (502, b"bad gateway")}.get(self.path, (200, b"[]"))
        self.send_response(status)
        self.send_header("content-length", str(len(body) + (5 if self.path == "/v1/checkpoint" else 0)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_something_else_answers() -> None:
    """Pages, gateways' errors and answers that break off are expected failures, never a traceback."""
    server = HTTPServer(("127.0.0.1", 0), _Other)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with NodeClient(f"http://127.0.0.1:{server.server_address[1]}") as client:
            for ask in (client.status, client.parameters, client.checkpoint):
                with pytest.raises(Unreachable):
                    ask()
            with pytest.raises(ApiError) as caught:
                client.genesis()
            assert caught.value.exit_code == Exit.UNREACHABLE
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()


def test_codes_are_found_by_number() -> None:
    """A number is the ledger's code, the market's, or nobody's."""
    assert code_of(200) is Code.INSUFFICIENT_FUNDS
    assert code_of(500) is MarketCode.LEASE_NOT_FOUND
    assert code_of(99_999) is None
