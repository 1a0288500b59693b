"""Deployments over REST: made once, shown, ended with the exact bill; every mistake has its problem."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenant.api.bodies import MAX_BODY
from tests.processes import eventually
from tests.tenant.api.gateway_story import KEY, Desk, address, opened, sdl

USERS = count(2)


def test_a_file_becomes_a_deployment_and_a_bill(desk: Desk) -> None:
    """The file makes a matched lease; it is shown alone and in lists; at its end deposit = paid + charged + refund."""
    answer = desk.post(sdl())
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert answer.headers["location"] == f"/v1/deployments/{made['dseq']}"
    assert made["owner"] == address(1)
    assert made["state"] == "active"
    assert [lease["state"] for lease in made["leases"]] == ["matched"]
    found = desk.get(f"/v1/deployments/{made['dseq']}")
    lease = found["leases"][0]
    assert desk.get(f"/v1/leases/{lease['id']}")["rate_per_hour"] == lease["rate_per_hour"]
    assert made["dseq"] in [item["dseq"] for item in desk.get("/v1/deployments", state="active")["items"]]
    assert lease["id"] in [item["id"] for item in desk.get("/v1/leases")["items"]]
    deposited = int(found["purse"]["deposited"])
    closed = desk.call("DELETE", f"/v1/deployments/{made['dseq']}")
    assert closed.status_code == 200, closed.text
    bill = closed.json()
    assert deposited == int(bill["paid"]) + int(bill["charged"]) + int(bill["refund"])
    assert desk.get(f"/v1/deployments/{made['dseq']}")["phase"] == "closed"
    desk.problem(desk.call("DELETE", f"/v1/deployments/{made['dseq']}"), 409)


def test_every_form_of_the_file_is_the_same(desk: Desk) -> None:
    """YAML, JSON and the wrapped form give one manifest hash; a deposit is taken as asked, in micro-units."""
    tree = json.dumps(yaml.safe_load(sdl()))
    wrapped = json.dumps({"sdl": sdl(), "strict": True, "deposit": "777777"})
    made = [
        desk.made(sdl(), deposit="777777"),
        desk.post(tree, kind="application/json", deposit="777777").json(),
        desk.post(wrapped, kind="application/json; charset=utf-8").json(),
    ]
    assert len({item["hash"] for item in made}) == 1
    assert len({item["dseq"] for item in made}) == 3
    assert {item["purse"]["deposited"] for item in made} == {"777777"}


def test_a_key_makes_one_deployment(desk: Desk) -> None:
    """The same key and request find the first deployment; another request under that key is refused."""
    first = desk.made(sdl(), "order 1".replace(" ", "-"))
    again = desk.post(sdl(), "order-1")
    assert again.status_code == 200
    assert again.json()["dseq"] == first["dseq"]
    assert desk.problem(desk.post(sdl(101), "order-1"), 409)["code"] == "idempotency_key"
    assert desk.problem(desk.post(sdl(), "order-1", deposit="5000000"), 409)["code"] == "idempotency_key"
    desk.problem(desk.post(sdl(), "with space"), 422)


def test_a_key_used_by_many_at_once_makes_one_deployment(market: str, home: Path) -> None:
    """Eight requests of one key at the same time are all answered with one deployment."""
    with opened(market, home, next(USERS)) as desk:
        desk.gateway.node.faucet(desk.gateway.flow.owner)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: desk.post(sdl(), "same"), range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
        assert len({answer.json()["dseq"] for answer in answers}) == 1
        assert len(desk.get("/v1/deployments")["items"]) == 1


@pytest.mark.parametrize("sent", [False, True], ids=["before sending", "after sending"])
def test_a_crash_makes_no_second_deployment(market: str, home: Path, sent: bool) -> None:
    """A gateway that died between storing and answering goes on with the same deployment when it comes back."""
    number = next(USERS)
    body: dict[str, Any] = {"key": "crash", "strict": False, "deposit": None}
    with opened(market, home, number) as desk:
        desk.gateway.node.faucet(desk.gateway.flow.owner)
        first = desk.made(sdl(), "other")
        with desk.gateway.store._engine.begin() as connection:  # what the disk holds when it dies at that point
            connection.exec_driver_sql("UPDATE asked SET phase='accepted', idempotency_key='crash'")
        if not sent:
            desk.gateway.flow.close(first["dseq"])
            with desk.gateway.store._engine.begin() as connection:
                connection.exec_driver_sql("UPDATE asked SET dseq = dseq + 1")
    expected = first["dseq"] if sent else first["dseq"] + 1
    with opened(market, home, number) as desk:
        again = desk.post(sdl(), body["key"])
        assert again.status_code == 200, again.text
        assert again.json()["dseq"] == expected
        active = desk.get("/v1/deployments", state="active")["items"]
        assert [item["dseq"] for item in active] == [expected]


def test_nobody_comes_in_without_the_key(desk: Desk) -> None:
    """Below /v1 a missing, wrong or half key is 401, on routes that exist and on others; health is open to all."""
    for given in ("", "Bearer", f"Bearer {KEY[:-1]}", f"Basic {KEY}", "Bearer é"):
        for path in ("/v1/deployments", "/v1/leases", "/v1/nothing"):
            answer = desk.call("GET", path, headers={"authorization": given.encode()})
            assert desk.problem(answer, 401)["fix"]
            assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/healthz", "/readyz", "/version", "/openapi.json", "/docs"):
        assert desk.call("GET", path, headers={"authorization": ""}).status_code == 200
    assert "Authorization" not in desk.call("GET", "/healthz").text


def test_a_bad_file_says_where_and_what(desk: Desk) -> None:
    """Each error of a file comes with path, line, column and fix; nothing is made."""
    before = len(desk.get("/v1/deployments", limit=200)["items"])
    found = desk.problem(desk.post(sdl().replace("image:", "imagee:"), strict=True), 422)
    assert found["code"] == "sdl_refused"
    assert {("services.web.imagee", 4)} <= {(e["path"], e["line"]) for e in found["errors"]}
    assert all(e["column"] > 0 and e["message"] for e in found["errors"])
    desk.problem(desk.post("{", kind="application/json"), 422)
    desk.problem(desk.post('{"sdl": 5}', kind="application/json"), 422)
    desk.problem(desk.post("a" * (MAX_BODY + 1)), 413)
    desk.problem(desk.post(sdl(), kind="text/html"), 415)
    desk.problem(desk.post(""), 422)
    desk.problem(desk.post(sdl(), deposit="-1"), 422)
    desk.problem(desk.post(sdl(), deposit="1"), 422)
    answer = desk.call("POST", "/v1/deployments", content=b"\xff\xfe\x00", headers={"content-type": "text/yaml"})
    desk.problem(answer, 422)
    assert len(desk.get("/v1/deployments", limit=200)["items"]) == before


def test_without_money_nothing_is_made_and_the_key_stays_free(market: str, home: Path) -> None:
    """An account without money gets 402; once it has some, the same request under the same key is served."""
    with opened(market, home, next(USERS)) as desk:
        refused = desk.post(sdl(), "first")
        assert refused.status_code in (402, 404), refused.text
        assert desk.problem(refused, refused.status_code)["fix"]
        desk.gateway.node.faucet(desk.gateway.flow.owner, "1000")
        assert desk.problem(desk.post(sdl(), "first"), 402)["code"] == "200"
        desk.gateway.node.faucet(desk.gateway.flow.owner)
        assert desk.made(sdl(), "first")["state"] == "active"


def test_a_limit_too_low_waits_and_says_why(desk: Desk) -> None:
    """An order that no bid fits is made, waits, and its view tells the nearest miss."""
    dseq = desk.made(sdl(1), deposit="100000")["dseq"]

    def waits() -> str:
        found = desk.get(f"/v1/deployments/{dseq}")
        assert found["phase"] in ("accepted", "created")
        return str(found["error"])

    if not desk.get(f"/v1/deployments/{dseq}")["leases"]:
        assert "waits" in eventually(waits, "the reason of the wait")
    assert desk.call("DELETE", f"/v1/deployments/{dseq}").status_code == 200


def test_an_update_that_cannot_be_is_refused(desk: Desk) -> None:
    """What was ordered cannot change: 409 says what and what to do; a file or dseq that is wrong has its problem too."""
    dseq = desk.made(sdl())["dseq"]
    found = desk.problem(desk.put(dseq, sdl().replace("250m", "500m")), 409)
    assert ("cpu 500m" in found["detail"], f"close {dseq}" in found["fix"]) == (True, True), found
    desk.problem(desk.put(dseq, sdl(101)), 409)
    desk.problem(desk.put(dseq, json.dumps({"sdl": sdl(), "deposit": "5"}), "application/json"), 422)
    assert desk.problem(desk.put(dseq, sdl().replace("image:", "imagee:")), 422)["errors"]
    desk.problem(desk.put(dseq, sdl(), "text/html"), 415)
    desk.problem(desk.put(10**14, sdl()), 404)
    assert desk.get(f"/v1/deployments/{dseq}")["version"] == 1
    assert desk.call("DELETE", f"/v1/deployments/{dseq}").status_code == 200
    desk.problem(desk.put(dseq, sdl()), 409)


def test_a_quote_tells_the_price(desk: Desk) -> None:
    """The quote of a file is the rate that its lease then has."""
    answer = desk.call("POST", "/v1/quote", content=sdl().encode(), headers={"content-type": "application/yaml"})
    assert answer.status_code == 200, answer.text
    rate = answer.json()["quotes"][0]["rate_per_hour"]
    assert desk.made(sdl())["leases"][0]["rate_per_hour"] == rate


def test_lists_come_in_pages(market: str, home: Path) -> None:
    """Pages of one give every deployment and lease once, in order."""
    with opened(market, home, next(USERS)) as desk:
        desk.gateway.node.faucet(desk.gateway.flow.owner)
        made = [desk.made(sdl())["dseq"] for _ in range(3)]
        for path in ("/v1/deployments", "/v1/leases"):
            seen: list[int] = []
            token: str | None = None
            for _ in range(5):
                page = desk.get(path, limit=1, **({"page_token": token} if token else {}))
                seen += [item["dseq"] for item in page["items"]]
                token = page["next"]
                if token is None:
                    break
            assert seen == made


def test_what_is_not_mine_is_not_there(desk: Desk) -> None:
    """Another account's lease, a lease or deployment that never was, and an id that is none are refused alike."""
    other = f"/v1/leases/{address(100)}/1/1/1/{address(100)}"
    for path in (other, f"{other}/status", f"{other}/logs", f"/v1/leases/{address(1)}/1/1/1/{address(100)}", "/v1/deployments/1"):
        desk.problem(desk.call("GET", path), 404)
    desk.problem(desk.call("GET", "/v1/deployments/0"), 422)
    desk.problem(desk.call("PUT", "/v1/deployments"), 405)


def test_a_provider_out_of_reach_is_503(desk: Desk) -> None:
    """Status and logs of a lease whose provider does not answer say so, and the deployment keeps trying."""
    made = desk.made(sdl())
    lease = made["leases"][0]["id"]
    for path in ("status", "logs"):
        assert desk.problem(desk.call("GET", f"/v1/leases/{lease}/{path}"), 503)["code"] == "unreachable"
    assert desk.get(f"/v1/deployments/{made['dseq']}")["phase"] in ("created", "matched")
