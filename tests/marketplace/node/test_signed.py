"""Signed receipts over REST: given where they are asked for, true, and nothing else changes."""

import msgspec
import pytest

from ledger.protocol.errors import Code
from ledger.protocol.receipts import SignedReceipt, is_signed
from tests.ledger import independent
from tests.marketplace.node.serving import Served, address


@pytest.fixture(autouse=True)
def money(served: Served) -> None:
    """User 1 has money."""
    if served.call("GET", f"/v1/accounts/{address(1)}").status_code == 404:
        served.fund(1)


def holds(served: Served, found: dict[str, object], code: int = 0) -> SignedReceipt:
    """Check a signed receipt against the node's own block; it as a record."""
    signed = msgspec.convert(found["signed"], SignedReceipt)
    said = signed.receipt
    block = served.get(f"/v1/blocks/{said.height}")
    assert is_signed(signed)
    assert independent.signed(found["signed"])  # type: ignore[arg-type]
    assert signed.node_key == served.get("/v1/status")["node_key"]
    assert (said.hash, said.state_root, said.time_ms) == (block["hash"], block["state_root"], block["time_ms"])
    assert said.chain_id == block["chain_id"]
    assert (said.id, said.code) == (found["id"], code)
    assert block["receipts"][said.index]["id"] == said.id
    return signed


def test_a_receipt_is_signed_where_that_is_asked(served: Served) -> None:
    """With `signed=true` the same receipt comes with its signed form; without, and with `signed=false`, it has none."""
    raw = served.transfer(1, 2)
    plain = served.post(raw).json()
    asked = served.call("POST", "/v1/transactions?signed=true", content=raw).json()
    assert asked | {"signed": None} == plain | {"signed": None}
    first = holds(served, asked)
    assert "signed" not in plain
    assert "signed" not in served.call("POST", "/v1/transactions?signed=false", content=raw).json()
    later = served.get(f"/v1/transactions/{asked['id']}", signed="true")
    assert holds(served, later) == first
    assert "signed" not in served.get(f"/v1/transactions/{asked['id']}")
    got = served.call("POST", "/v1/faucet", params={"signed": "true"}, json={"address": address(31)}).json()
    holds(served, got)


def test_old_blocks_are_signed_too(served: Served) -> None:
    """A receipt of a block that is not the newest is signed with that block's hash."""
    old = served.call("POST", "/v1/transactions", content=served.transfer(1, 2)).json()
    served.post(served.transfer(1, 2))
    assert holds(served, served.get(f"/v1/transactions/{old['id']}", signed="true")).receipt.height == old["height"]


def test_a_refusal_of_a_block_is_signed_in_its_problem(served: Served) -> None:
    """What a block refused has a signed receipt with its code; what no block took has none."""
    poor = served.transfer(1, 2, 10**15)
    found = served.problem("POST", "/v1/transactions?signed=true", 402, content=poor)
    holds(served, found, Code.INSUFFICIENT_FUNDS)
    stranger = served.problem("POST", "/v1/transactions?signed=true", 400, content=served.transfer(1, 2, chain_id="other"))
    assert "signed" not in stranger


def test_a_batch_is_signed_whole(served: Served) -> None:
    """In a batch each receipt is signed, and each refusal of a block."""
    raws = [served.transfer(1, 3), b'{"x":1}', served.transfer(1, 3, 10**15)]
    answer = served.call("POST", "/v1/transactions/batch?signed=true", content=b"[" + b",".join(raws) + b"]")
    good, malformed, poor = answer.json()["results"]
    holds(served, good)
    assert "signed" not in malformed
    holds(served, poor, Code.INSUFFICIENT_FUNDS)


def test_the_quick_path_knows_one_parameter(served: Served) -> None:
    """Any other query of the quick path is refused, and the transaction is not taken."""
    for query in ("signed=yes", "signed", "sigend=true", "signed=true&signed=true", "signed=true&x=1", "%ff", "="):
        raw = served.transfer(1, 2)
        served.problem("POST", f"/v1/transactions?{query}", 422, content=raw)
        id = served.node.engine.machine.codec.decode(raw).id
        served.problem("GET", f"/v1/transactions/{id}", 404)
