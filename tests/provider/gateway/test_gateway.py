"""The gateway over real HTTPS, with an engine and a ledger in memory."""

import base64
import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey
from starlette.routing import Route, WebSocketRoute

from ledger.protocol.keys import public_key
from marketplace.protocol.records import LeaseState
from provider.client import GatewayClient, GatewayError, make_token, pinned_context
from provider.gateway.app import Desk, build
from provider.gateway.auth import Gatekeeper
from provider.gateway.certificate import Certificate, load_or_make
from provider.gateway.server import GatewayServer, listen
from provider.leases.journal import Journal
from provider.leases.ledger import TokenKeys
from tests.processes import eventually
from tests.provider.leases.worlds import (
    OTHER,
    OTHER_SEED,
    OWNER,
    OWNER_SEED,
    PROVIDER,
    World,
    lease_id,
    manifest,
    service,
)

LEASE = lease_id()
NOW = int(time.time())
ALL = "manifest logs exec status"


class Gate:
    """A gateway that serves a world."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / "journal.db")
        self.world = World(self.journal)
        self.certificate: Certificate = load_or_make(folder / "gateway.pem")
        bound = listen("127.0.0.1:0")
        self.port = int(bound.getsockname()[1])
        self.url = f"https://127.0.0.1:{self.port}"
        self.keeper = Gatekeeper(self.world.ledger, PROVIDER, now_s=lambda: NOW)
        self.app = build(
            Desk(
                gatekeeper=self.keeper,
                journal=self.journal,
                ledger=self.world.ledger,
                runtime=self.world.runtime,
                supervisor=self.world.supervisor,
                executor=self.world.executor,
                public_host="127.0.0.1",
            )
        )
        self.server = GatewayServer(self.app, self.certificate, bound)
        self.server.start()

    def close(self) -> None:
        """End it."""
        self.server.stop()
        self.world.end()
        self.journal.close()
        assert self.world.failure is None, self.world.failure

    def client(self, seed: bytes = OWNER_SEED, owner: str = OWNER) -> GatewayClient:
        """A tenant's client."""
        return GatewayClient(
            self.url, self.certificate.key_hash, lambda lease, scope: make_token(seed, owner, lease, PROVIDER, scope, NOW)
        )

    def http(self) -> httpx.Client:
        """A plain HTTPS client, its trust pinned."""
        context = pinned_context("127.0.0.1", self.port, self.certificate.key_hash, 60)
        return httpx.Client(base_url=self.url, verify=context, timeout=60, trust_env=False)

    def run(self, body: list[Any] | None = None) -> None:
        """The lease runs, its manifest sent through the gateway."""
        body = body or manifest()
        self.world.ledger.open(LEASE, body)
        with self.client() as client:
            client.put_manifest(LEASE, body)
        eventually(lambda: self.world.ledger.leases[LEASE].state is LeaseState.ACTIVE, "the lease to be active")


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gateway of the test's own."""
    found = Gate(tmp_path)
    yield found
    found.close()


def test_manifest_to_answers(gate: Gate) -> None:
    """A manifest is accepted once and again; status, logs and commands of the lease answer."""
    gate.run(manifest(service(command=["sleep", "100"])))
    with gate.client() as client:
        again = client.put_manifest(LEASE, manifest(service(command=["sleep", "100"])))
        (container,) = gate.world.running(LEASE)
        gate.world.runtime.say(container.id, "one")
        gate.world.runtime.say(container.id, "two", "stderr")
        status = client.status(LEASE)
        lines = list(client.logs(LEASE))
        last = list(client.logs(LEASE, service="web", tail=1))
        ran = list(client.exec(LEASE, "web", ["cat"], stdin=b"abc"))

    assert again["phase"] == status["phase"] == "running"
    replica = status["services"]["web"]["replicas"][0]
    assert (replica["state"], replica["replica"]) == ("running", 0)
    assert status["services"]["web"]["ports"][0]["host_port"] == container.ports[0].host_port
    assert [(x["text"], x["stream"], x["service"]) for x in lines] == [("one", "stdout", "web"), ("two", "stderr", "web")]
    assert [x["text"] for x in last] == ["two"]
    assert ran == [{"stream": "stdout", "data": b"abc"}, {"exit_code": 0}]
    assert gate.world.runtime.started == 1


def test_logs_follow_until_the_container_ends(gate: Gate) -> None:
    """Followed lines come as they are written, and the stream ends with the container."""
    gate.run()
    (container,) = gate.world.running(LEASE)
    gate.world.runtime.say(container.id, "first")
    with gate.client() as client:
        lines = client.logs(LEASE, follow=True)
        assert next(lines)["text"] == "first"
        gate.world.runtime.say(container.id, "second")
        assert next(lines)["text"] == "second"
        gate.world.runtime.finish(container.id, 0)
        assert list(lines) == []
    with gate.client() as client:
        abandoned = client.logs(LEASE, follow=True)
        next(abandoned)
        abandoned.close()


def test_shell_carries_bytes_both_ways(gate: Gate) -> None:
    """What is typed reaches the terminal, what it shows comes back, and its end has a code."""
    gate.run()
    with gate.client() as client, client.shell(LEASE, "web", ["/bin/sh"]) as shell:
        shell.resize(40, 120)
        shell.write(b"hello")
        assert shell.read(60) == b"hello"
        shell.write(b"exit")
        assert shell.read(60) == b""
        assert shell.exit_code() == 0


def test_shell_of_another_is_refused(gate: Gate) -> None:
    """A stranger's shell ends before it begins, and says why."""
    gate.run()
    with gate.client(OTHER_SEED, OTHER) as stranger, pytest.raises(GatewayError) as refused:
        stranger.shell(LEASE, "web", ["/bin/sh"])
    assert (refused.value.status, refused.value.code) == (404, "LEASE_NOT_FOUND")


def test_refusals_name_reason_and_remedy(gate: Gate) -> None:
    """A manifest that was not ordered, a lease that is closed, a service that is not there: each has its code."""
    gate.world.ledger.open(LEASE, manifest())
    with gate.client() as client:
        cases: list[tuple[str, Any]] = [
            ("HASH_MISMATCH", lambda: client.put_manifest(LEASE, manifest(service(env=[])))),
            ("NOT_RUNNING", lambda: list(client.exec(LEASE, "web", ["true"]))),
            ("LEASE_NOT_FOUND", lambda: client.status(lease_id(9))),
            ("SERVICE_NOT_FOUND", lambda: list(client.logs(LEASE, service="nothing"))),
            ("TOO_LARGE", lambda: client.put_manifest(LEASE, manifest(service(env=["A=" + "x" * 300_000])))),
        ]
        for code, call in cases:
            with pytest.raises(GatewayError) as refused:
                call()
            assert refused.value.code == code
        gate.world.ledger.change(LEASE, state=LeaseState.CLOSED)
        eventually(lambda: "Release" in gate.world.ledger.kinds(), "the release")
        with pytest.raises(GatewayError):
            client.put_manifest(LEASE, manifest())


def test_broken_bodies_are_answered(gate: Gate) -> None:
    """Bodies that are no JSON, nested without end, or of the wrong kind get 400 and run nothing."""
    gate.world.ledger.open(LEASE, manifest())
    token = make_token(OWNER_SEED, OWNER, LEASE, PROVIDER, ALL, NOW)
    with gate.http() as http:
        for body in (b"", b"{", b"[" * 100_000, b'{"manifest":1}', b'{"manifest":[],"spec":3}', b"\xff\xfe"):
            answer = http.put(f"/v1/leases/{LEASE}/manifest", content=body, headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 400, body[:20]
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == "MALFORMED"
    assert gate.world.runtime.started == 0


def odd_token(seed: bytes = OWNER_SEED, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A token with claims of choice."""
    key = public_key(seed)
    encode = lambda b: base64.urlsafe_b64encode(b).rstrip(b"=").decode()  # noqa: E731
    jwk = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": encode(key), "d": encode(seed)})
    plain = {"iss": OWNER, "sub": LEASE, "aud": PROVIDER, "scope": ALL, "iat": NOW, "exp": NOW + 120}
    body = {name: value for name, value in (plain | claims).items() if value is not None}
    return jwt.encode({"alg": "Ed25519", "kid": key.hex()} | (header or {}), body, jwk, algorithms=["Ed25519"])


def unsigned_token() -> str:
    """A token that says it needs no signature."""
    part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()  # noqa: E731
    claims = {"iss": OWNER, "sub": LEASE, "aud": PROVIDER, "scope": ALL, "iat": NOW, "exp": NOW + 120}
    return f"{part({'alg': 'none', 'kid': public_key(OWNER_SEED).hex()})}.{part(claims)}."


BAD_TOKENS: dict[str, tuple[str, int]] = {
    "none": ("", 401),
    "rubbish": ("a.b.c", 401),
    "expired": (odd_token(iat=NOW - 500, exp=NOW - 400), 401),
    "of the future": (odd_token(iat=NOW + 100, exp=NOW + 200), 401),
    "too long a life": (odd_token(exp=NOW + 301), 401),
    "no expiry": (odd_token(exp=None), 401),
    "a float for infinity": (odd_token(exp="9"), 401),
    "other audience": (odd_token(aud=OTHER), 401),
    "other key": (odd_token(OTHER_SEED), 401),
    "key of another, kid of the owner": (odd_token(OTHER_SEED, {"kid": public_key(OWNER_SEED).hex()}), 401),
    "small-order key": (odd_token(header={"kid": "01" + "00" * 31}), 401),
    "unsigned": (unsigned_token(), 401),
    "other lease": (odd_token(sub=lease_id(2)), 403),
    "no scope": (odd_token(scope=""), 403),
    "other owner": (odd_token(OTHER_SEED, iss=OTHER), 404),
}


def lease_routes(gate: Gate) -> list[tuple[str, str]]:
    """(method, path) of every route about a lease, as the application lists them."""
    found = []
    for route in gate.app.routes:
        if isinstance(route, Route) and route.path.startswith("/v1/"):
            found += [(method, route.path) for method in sorted((route.methods or set()) - {"HEAD"})]
        elif isinstance(route, WebSocketRoute):
            found.append(("GET", route.path))
        else:
            assert getattr(route, "path", "") in ("/healthz", "/version", "/openapi.json"), (
                "a route outside /v1 is checked by nobody"
            )
    return found


def test_every_route_checks_the_token(gate: Gate) -> None:
    """No route about a lease answers without a good token: each bad one is refused, on each route."""
    gate.run()
    owner, dseq, gseq, oseq, provider = LEASE.split("/")
    routes = lease_routes(gate)
    assert len(routes) == 5
    with gate.http() as http:
        for method, pattern in routes:
            path = pattern.format(owner=owner, dseq=dseq, gseq=gseq, oseq=oseq, provider=provider)
            upgrade = (
                {
                    "Connection": "Upgrade",
                    "Upgrade": "websocket",
                    "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": "a" * 22 + "==",
                }
                if path.endswith("/shell")
                else {}
            )
            for name, (token, status) in BAD_TOKENS.items():
                if path.endswith("/shell") and not token:
                    continue  # its token may come as the first message
                headers = ({"Authorization": f"Bearer {token}"} if token else {}) | upgrade
                answer = http.request(method, path, headers=headers, content=b"{}" if method != "GET" else None)
                assert answer.status_code == status, (name, method, path, answer.text)
                assert answer.json()["code"], (name, path)


def test_a_scope_opens_its_own_door_alone(gate: Gate) -> None:
    """A token for logs reads logs, and does nothing else."""
    gate.run()
    token = odd_token(scope="logs")
    with gate.http() as http:
        headers = {"Authorization": f"Bearer {token}"}
        assert http.get(f"/v1/leases/{LEASE}/logs", headers=headers).status_code == 200
        assert http.get(f"/v1/leases/{LEASE}/status", headers=headers).status_code == 403
        assert http.post(f"/v1/leases/{LEASE}/exec", headers=headers, json={"command": ["true"]}).status_code == 403


def test_delegated_keys_open_the_gateway_until_they_end(gate: Gate) -> None:
    """A key delegated with the verb gateway signs tokens for the owner; an expired one does not."""
    gate.run()
    helper = public_key(OTHER_SEED).hex()
    good = TokenKeys(public_key(OWNER_SEED).hex(), {helper: gate.world.ledger.time_ms + 10_000_000})
    for keys, status in ((msgspec.structs.replace(good, delegated={helper: 1}), 401), (good, 200)):
        gate.world.ledger.keys[OWNER] = keys
        gate.keeper._keys.clear()
        with gate.http() as http:
            headers = {"Authorization": f"Bearer {odd_token(OTHER_SEED)}"}
            assert http.get(f"/v1/leases/{LEASE}/status", headers=headers).status_code == status


def test_the_ledger_out_of_reach_is_said(gate: Gate) -> None:
    """With the ledger gone a known tenant is still served, an unknown lease is answered 503, not 404."""
    gate.run()
    gate.world.ledger.down = True
    with gate.client() as client:
        assert client.status(LEASE)["phase"] == "running"
        with pytest.raises(GatewayError) as refused:
            client.status(lease_id(7))
    assert (refused.value.status, refused.value.exit_code) == (503, 7)


def test_an_engine_out_of_reach_is_said(gate: Gate) -> None:
    """With the engine gone the tenant is told so."""
    gate.run()
    gate.world.runtime.go_down()
    with gate.client() as client, pytest.raises(GatewayError) as refused:
        client.status(LEASE)
    assert refused.value.code == "ENGINE_UNREACHABLE"
    gate.world.runtime.down = False


def test_the_certificate_is_kept(tmp_path: Path) -> None:
    """The key that the ledger names outlives restarts, and nobody else may read it."""
    first = load_or_make(tmp_path / "gateway.pem")
    second = load_or_make(tmp_path / "gateway.pem")

    assert first == second
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o600


def test_plain_answers_need_no_token(gate: Gate) -> None:
    """Health and version are open; what is not there is a problem like any other."""
    with gate.http() as http:
        assert http.get("/healthz").json() == {"status": "ok"}
        assert http.get("/version").json()["version"]
        assert http.get("/nothing").json()["code"] == "NOT_FOUND"
        assert http.get(f"/v1/leases/{LEASE}/manifest").status_code == 405
