"""What the node tells of its state."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise

import msgspec
import pytest

from ledger.protocol.encoding import digest, encode
from ledger.protocol.genesis import PROTOCOL
from ledger.protocol.keys import verify as good
from ledger.protocol.proof import Proof
from ledger.protocol.proof import verify as holds
from marketplace.market.tables import TABLES
from marketplace.node.hub import frames_of
from marketplace.protocol.messages import PostBond
from tests.ledger import independent
from tests.marketplace.node.market_story import PROVIDER, TENANT, activate, deploy, group, offer
from tests.marketplace.node.serving import Served, address
from tests.processes import PATIENCE_S, eventually


@pytest.fixture(scope="module")
def story(served: Served) -> Served:
    """A provider with a bid, and a tenant with an active lease and an order that waits."""
    offer(served)
    deploy(served, 1)
    activate(served, served.get("/v1/leases", owner=address(TENANT))["items"][0])
    deploy(served, 2, group(limit_per_hour="1", name="poor"))
    return served


def test_a_lease_from_every_side(story: Served) -> None:
    """The lease shows in lists, alone and in its deployment, with money as strings and its cost now."""
    lease = story.get("/v1/leases", owner=address(TENANT))["items"][0]
    assert lease["state"] == "active"
    assert lease["simulated"] is True
    assert isinstance(lease["rate_per_hour"], str)
    assert int(lease["cost"]) >= 0
    assert lease["dry_at_ms"] > lease["time_ms"]
    same = story.get(f"/v1/leases/{lease['id']}")
    assert same["id"] == lease["id"]
    assert int(same["cost"]) >= int(lease["cost"])
    by_provider = story.get("/v1/leases", provider=address(PROVIDER), state="unreleased")["items"]
    assert [found["id"] for found in by_provider] == [lease["id"]]
    assert story.get("/v1/leases", state="closed")["items"] == []
    whole = story.get(f"/v1/deployments/{address(TENANT)}/1")
    assert whole["leases"][0]["id"] == lease["id"]
    assert whole["orders"][0]["state"] == "matched"
    purse = story.get(f"/v1/purses/{address(TENANT)}/1")
    assert int(purse["balance"]) == sum(int(purse[name]) for name in ("accrued", "dues", "reserve", "free"))
    assert (purse["dues"], purse["reserve"], lease["least_ms"]) == ("0", "0", 0)
    assert purse["rate_per_hour"] == lease["rate_per_hour"]


def test_bids_and_what_is_free(story: Served) -> None:
    """A bid says how many devices are free of all, and that they are simulated."""
    bid = story.get("/v1/bids", model="h100")["items"][0]
    assert bid["models"] == {"h100": 2}
    assert bid["free"] == {"h100": 1}
    assert bid["simulated"] is True
    assert story.get("/v1/bids", model="a100")["items"] == []
    assert story.get(f"/v1/bids/{bid['id']}")["version"] == bid["version"]
    assert story.get(f"/v1/providers/{address(PROVIDER)}")["open_leases"] == 1
    assert story.get("/v1/hosts", provider=address(PROVIDER))["items"][0]["host"] == "h1"


def test_a_bond_shows_with_its_provider(story: Served) -> None:
    """What a provider pledged is in its view, as strings; who follows the provider hears of it."""
    receipt = story.done(PROVIDER, PostBond(amount="7", denomination="ucredit"))
    (bond,) = story.get(f"/v1/providers/{address(PROVIDER)}")["bonds"]
    assert (bond["balance"], bond["needed"], bond["leaves_ms"]) == ("7", "0", 0)
    stored = story.node.engine.block(receipt["height"])
    assert stored is not None
    assert [frame.provider for frame in frames_of(stored.result) if frame.kind == "BondPosted"] == [address(PROVIDER)]


def test_an_open_order_keeps_its_limit_secret(story: Served) -> None:
    """The limit of an order that waits is nowhere in its view; what came closest is."""
    waiting = story.get("/v1/orders", state="open")["items"][0]
    assert "limit_per_hour" not in waiting["group"]
    assert waiting["refusals"]
    assert story.get(f"/v1/orders/{waiting['id']}")["nearest"] == waiting["nearest"]
    matched = story.get("/v1/orders", state="matched")["items"][0]
    assert matched["group"]["limit_per_hour"] == "9000000"


def test_quotes_name_a_price_or_a_reason(story: Served) -> None:
    """A quote gives the rate of the cheapest bid, or why nothing fits."""
    groups = [msgspec.to_builtins(group()), msgspec.to_builtins(group(limit_per_hour="1"))]
    quotes = story.call("POST", "/v1/quote", json={"denomination": "ucredit", "groups": groups}).json()["quotes"]
    assert int(quotes[0]["rate_per_hour"]) > 0
    assert quotes[1]["rate_per_hour"] == ""
    assert quotes[1]["refusals"]
    for body in (b"", b"[]", b'{"denomination":"ucredit","groups":[]}', b'{"denomination":"ucredit","groups":[{}]}'):
        story.problem("POST", "/v1/quote", 400, content=body)


def test_pages_give_everything_once(served: Served) -> None:
    """Following `next` visits each item once, in order; a page is never over its limit."""
    for host in ("p1", "p2", "p3", "p4", "p5"):
        offer(served, host)
    seen, token = [], None
    while True:
        found = served.get("/v1/bids", limit=2, **({"page_token": token} if token else {}))
        assert len(found["items"]) <= 2
        seen += [bid["id"] for bid in found["items"]]
        token = found["next"]
        if token is None:
            break
    assert seen == sorted(set(seen))
    assert {f"{address(PROVIDER)}/p{n}" for n in range(1, 6)} <= set(seen)


def test_queries_are_strict(served: Served) -> None:
    """Unknown, doubled and wrong parameters are refused: a misspelt filter must not list everything."""
    for path in (
        "/v1/leases?ownr=x", "/v1/leases?owner=a&owner=b", "/v1/leases?limit=0", "/v1/leases?limit=201", "/v1/status?x=1",
        "/v1/leases?page_token=%25", "/v1/deployments/x/0", "/v1/deployments/x/y", "/v1/events?since=x", "/v1/events?since=1:x",
        "/v1/blocks?before=0", "/v1/blocks/-1",
    ):  # fmt: skip
        served.problem("GET", path, 422)


def test_what_is_not_there(served: Served) -> None:
    """Everything that can be named and is not there is a 404 problem."""
    one = f"{address(99)}/1"
    for path in (
        f"/v1/accounts/{address(99)}", f"/v1/providers/{address(99)}", f"/v1/bids/{address(99)}/x", f"/v1/orders/{one}/1/1",
        f"/v1/deployments/{one}", f"/v1/leases/{one}/1/1/{address(98)}", f"/v1/purses/{one}", "/v1/blocks/0", "/v1/blocks/999999",
        "/v1/transactions/" + "0" * 64, "/v1/transactions/x",
    ):  # fmt: skip
        served.problem("GET", path, 404)


def test_blocks_chain_up(story: Served) -> None:
    """Headers link by hash down to block 1; a block carries its transactions and their receipts."""
    headers, before = [], None
    while True:
        found = story.get("/v1/blocks", limit=7, **({"before": before} if before else {}))
        headers += found["items"]
        before = found["next"]
        if before is None:
            break
    assert [h["height"] for h in headers] == list(range(headers[0]["height"], 0, -1))
    assert all(young["parent"] == old["hash"] for young, old in pairwise(headers))
    block = story.get("/v1/blocks/1")
    assert block["hash"] == headers[-1]["hash"]
    assert len(block["signed"]) == len(block["receipts"]) == 1
    assert story.get("/v1/genesis")["chain_id"] == story.get("/v1/status")["chain_id"] == block["chain_id"]


def test_proofs_hold_under_the_signed_root(story: Served) -> None:
    """A record is proven present and another absent, under a root that the node's key signed."""
    lease = story.get("/v1/leases", owner=address(TENANT))["items"][0]["id"]
    for key, present in ((f"lease/{lease}", True), (f"lease/{lease}x", False), ("nothing/at/all", False)):
        found = story.get(f"/v1/proofs/{key}")
        proof = msgspec.convert(found["proof"], Proof)
        said = found["checkpoint"]
        assert proof.key == key
        assert (proof.value is not None) is present
        assert holds(proof, said["state_root"])
        assert not holds(proof, "0" * 64)
        signature = bytes.fromhex(found["signature"])
        assert good(bytes.fromhex(found["node_key"]), digest("checkpoint/v1", encode(said)), signature)
    assert story.get("/v1/checkpoint")["node_key"] == story.get("/v1/status")["node_key"]


def test_a_stranger_can_check_every_kind_of_record(story: Served) -> None:
    """A verifier that shares no code accepts proofs of the lease, its owner, purse, meter, order, bid and more, and of absence.

    Each comes with a checkpoint that it accepts too; under another root, or with another value, it accepts none.
    """
    lease = story.get("/v1/leases", owner=address(TENANT))["items"][0]["id"]
    deployment, order = f"{address(TENANT)}/1", lease.rsplit("/", 1)[0]
    bid = story.get("/v1/bids", model="h100")["items"][0]["id"]
    present = [
        f"lease/{lease}", f"meter/{lease}", f"order/{order}", f"deployment/{deployment}", f"purse/{deployment}", f"bid/{bid}",
        f"host/{bid}", f"account/{address(TENANT)}", f"provider/{address(PROVIDER)}", "supply/ucredit", "chain/chain",
    ]  # fmt: skip
    absent = [f"lease/{lease}x", f"account/{address(99)}", f"delegation/{address(TENANT)}/{'0' * 64}"]
    for key in (*present, *absent):
        found = story.get(f"/v1/proofs/{key}")
        proof, root = found["proof"], found["checkpoint"]["state_root"]
        assert (proof["value"] is not None) is (key in present), key
        assert independent.verify(proof, root), key
        assert independent.signed({name: found[name] for name in ("checkpoint", "node_key", "signature")})
        assert not independent.verify(proof, "0" * 64)
        assert not independent.verify(proof | {"value": "{}"}, root)
        assert not independent.verify(proof | {"key": key + "y"}, root) or key in absent
    purse = json.loads(story.get(f"/v1/proofs/purse/{deployment}")["proof"]["value"])
    assert [depositor for depositor, _ in purse["deposits"]] == [address(TENANT)]


def test_the_operators_pages(served: Served) -> None:
    """Health, readiness, version, metrics and documentation answer; the page loads nothing from outside."""
    assert served.get("/healthz") == {"status": "ok"}
    assert served.get("/readyz")["status"] == "ready"
    assert served.get("/version")["protocol"] == PROTOCOL
    served.get("/v1/parameters")
    text = served.call("GET", "/metrics").text
    for name in ("gpubid_http_requests_total", "gpubid_transactions_total", "gpubid_block_height", "gpubid_lease_records"):
        assert name in text
    assert "gpu1" not in text
    page = served.call("GET", "/docs").text
    document = served.get("/openapi.json")
    assert all(f"{path}</code>" in page for path in document["paths"])
    assert "http://" not in page
    assert "src=" not in page
    refs = {r for r in json.dumps(document).split('"') if r.startswith("#/components/schemas/")}
    assert {r.rsplit("/", 1)[1] for r in refs} <= set(document["components"]["schemas"])


def test_what_needs_no_state_waits_for_no_block(served: Served) -> None:
    """While a block is under way and readers fill every thread, what looks at no state is answered; then the readers are."""
    with ThreadPoolExecutor(60) as pool:
        with served.node.engine.read():  # held by us, as by the writer through a block
            readers = [pool.submit(served.call, "GET", "/v1/parameters") for _ in range(50)]
            eventually(lambda: sum(t.name.startswith("AnyIO") for t in threading.enumerate()) >= 40, "threads full of readers")
            free = [pool.submit(served.call, "GET", path) for path in ("/healthz", "/version", "/v1/status", "/v1/checkpoint")]
            done, _ = wait(free, timeout=PATIENCE_S)
        assert len(done) == len(free)
        assert {answer.result().status_code for answer in (*free, *readers)} == {200}


def test_every_table_has_a_way_to_be_seen() -> None:
    """Tables of the market that people ask about each have a route."""
    assert {"provider", "host", "bid", "deployment", "order", "lease"} <= {table.name for table in TABLES}
