"""Transactions over REST: accepted once, and every bad one refused with its own problem."""

import json
import threading

import pytest

from ledger.protocol.errors import Code
from tests.marketplace.node.serving import Served, address


@pytest.fixture(autouse=True)
def money(served: Served) -> None:
    """User 1 has money."""
    if served.call("GET", f"/v1/accounts/{address(1)}").status_code == 404:
        served.fund(1)


def test_a_transfer_is_durable_and_repeatable(served: Served) -> None:
    """A transfer answers with its receipt; the same bytes again give the same receipt and move nothing."""
    raw = served.transfer(1, 2, 5)
    first = served.post(raw)
    assert first.status_code == 200
    receipt = first.json()
    assert receipt["code"] == 0
    assert {"Transferred"} <= {e["kind"] for e in receipt["events"]}
    again = served.post(raw)
    assert again.status_code == 200
    assert again.json()["id"] == receipt["id"]
    assert again.json()["height"] == receipt["height"]
    assert served.get(f"/v1/transactions/{receipt['id']}")["height"] == receipt["height"]
    assert served.get(f"/v1/accounts/{address(2)}")["balances"]["ucredit"] == "5"


def test_bad_bytes_are_refused(served: Served) -> None:
    """Tampered, foreign, stale, doubled and misspelt transactions each meet their own code."""
    good = served.transfer(1, 2)
    table = [
        (good.replace(b'"amount":"1"', b'"amount":"9"'), 401, Code.BAD_SIGNATURE),
        (served.transfer(1, 2, chain_id="other-chain"), 400, Code.WRONG_CHAIN),
        (served.transfer(1, 2, valid_until=1), 422, Code.EXPIRED),
        (served.transfer(1, 2, valid_until=2**52), 422, Code.VALID_TOO_LONG),
        (good.replace(b'{"signature"', b'{"signature":"","signature"', 1), 400, Code.MALFORMED),
        (good.replace(b":", b": ", 1), 400, Code.MALFORMED),
        (b"", 400, Code.MALFORMED),
        (b"[" * 5000, 400, Code.MALFORMED),
        (b"\xff\xfe", 400, Code.MALFORMED),
        (served.transfer(1, 2, 10**15), 402, Code.INSUFFICIENT_FUNDS),
        (served.transfer(9, 2), 404, Code.ACCOUNT_NOT_FOUND),
        (served.transfer(9, 2, principal=address(1)), 403, Code.NOT_AUTHORISED),
    ]
    for raw, status, code in table:
        found = served.problem("POST", "/v1/transactions", status, content=raw)
        assert found["code"] == code, (raw[:80], found)


def test_bodies_are_bounded(served: Served) -> None:
    """A body over the limit is refused before it is read whole, on every route."""
    served.problem("POST", "/v1/transactions", 413, content=b"x" * (256 * 1024 + 1))
    served.problem("POST", "/v1/quote", 413, content=b"x" * (256 * 1024 + 1))
    served.problem("POST", "/v1/transactions/batch", 413, content=b"x" * (4 * 2**20 + 1))


def test_a_batch_answers_each(served: Served) -> None:
    """A batch gives a receipt or a problem for each transaction, in the order sent."""
    good, bad, other = served.transfer(1, 3, 1), b'{"x":1}', served.transfer(1, 3, 2)
    answer = served.call("POST", "/v1/transactions/batch", content=b"[" + b" , ".join((good, bad, other)) + b"]")
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [r["code"] for r in results] == [0, Code.MALFORMED, 0]
    assert results[0]["id"] != results[2]["id"]
    for body in (b"", b"{}", b"[]", b"[1", b"[" + b",".join([b"1"] * 1001) + b"]"):
        served.problem("POST", "/v1/transactions/batch", 400, content=body)


def test_other_methods_and_paths(served: Served) -> None:
    """Unknown paths are 404, wrong methods 405 with Allow, all as problems."""
    served.problem("GET", "/v1/nothing", 404)
    served.problem("GET", "/v1/status/", 404)
    served.problem("POST", "/v1/status", 405)
    served.problem("GET", "/v1/transactions", 405)
    assert served.call("PUT", "/v1/transactions").headers["allow"] == "POST"
    assert "access-control-allow-origin" not in served.call("GET", "/v1/status", headers={"origin": "http://x"}).headers


def test_many_clients_at_once(served: Served) -> None:
    """Clients that post at the same time all get their own receipt, and the money adds up."""
    before = int(served.get(f"/v1/accounts/{address(1)}")["balances"]["ucredit"])
    codes: list[int] = []

    def client() -> None:
        for _ in range(10):
            codes.append(served.post(served.transfer(1, 4, 3)).status_code)

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [200] * 40
    assert served.get(f"/v1/accounts/{address(4)}")["balances"]["ucredit"] == "120"
    assert int(served.get(f"/v1/accounts/{address(1)}")["balances"]["ucredit"]) == before - 120


def test_the_faucet_has_limits(served: Served) -> None:
    """The faucet gives 1,000 credits by default, refuses nonsense, and stops giving to one address for a while."""
    receipt = served.call("POST", "/v1/faucet", json={"address": address(20)}).json()
    assert [e["amount"] for e in receipt["events"] if e["kind"] == "Minted"] == ["1000000000"]
    for body, status in (
        ({"address": "gpu1nonsense"}, 422),
        ({"address": address(20), "amount": "0"}, 422),
        ({"address": address(20), "amount": "1.5"}, 400),
        ({"address": address(20), "amount": str(10**18)}, 422),
        ({"address": address(20), "more": 1}, 400),
    ):
        served.problem("POST", "/v1/faucet", status, content=json.dumps(body).encode())
    statuses = [served.call("POST", "/v1/faucet", json={"address": address(20)}).status_code for _ in range(21)]
    assert statuses[0] == 200
    assert statuses[-1] == 429
    assert served.call("POST", "/v1/faucet", json={"address": address(21)}).status_code == 200
