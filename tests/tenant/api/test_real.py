"""The REST gateway end to end: real node, real provider, real containers."""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests.marketplace.cli.typist import Typist
from tests.processes import Program, User, development_node, eventually, provider
from tests.tenant.api.gateway_story import sdl

pytestmark = [pytest.mark.docker, pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(900)]

SAYS = """command: ["/bin/sh", "-c"]
    args: ["echo hello from web; exec httpd -f -p 8080 -h /var/www"]
    expose:"""

YAML = {"content-type": "application/yaml"}


@dataclass
class Client:
    """A tenant's program: one HTTP client with the key, and the program that it talks to."""

    http: httpx.Client
    program: Program
    user: Typist
    node: str
    providers: dict[str, tuple[Program, str]] = field(default_factory=dict)
    """By address: the process, and the name of its home and key."""

    def post(self, body: str, key: str) -> httpx.Response:
        """Ask for a deployment."""
        headers = {"content-type": "application/yaml", "idempotency-key": key}
        return self.http.post("/v1/deployments", content=body, headers=headers)

    def running(self, dseq: int) -> Any:
        """Wait until a deployment runs; its view."""
        return eventually(lambda: self._look(dseq, "running"), f"deployment {dseq} to run")

    def failed(self, dseq: int) -> Any:
        """Wait until a deployment failed; its view."""
        return eventually(lambda: self._look(dseq, "failed"), f"deployment {dseq} to fail")

    def _look(self, dseq: int, phase: str) -> Any:
        found = self.http.get(f"/v1/deployments/{dseq}").json()
        assert found["phase"] in ("accepted", "created", "matched", phase), found
        return found if found["phase"] == phase else None


@contextlib.contextmanager
def serving(folder: Path, docker_url: str) -> Iterator[Client]:
    """A node, a provider and a gateway, each a process of its own."""
    with development_node(folder) as (_, node), provider(folder, node, docker_url) as (first, address):
        user = Typist(folder / "tenant", node)
        user.key()
        user.ok("account", "faucet")
        with Program(_command(node), folder / "tenant") as program:
            url = program.line("ready ").split()[1]
            with httpx.Client(base_url=url, headers=_headers(folder / "tenant"), timeout=60) as http:
                yield Client(http, program, user, node, {address: (first, "provider")})


def _command(node: str) -> list[str]:
    return ["tenant", "serve", "--node", node, "--listen", "127.0.0.1:0"]


def test_the_whole_road(tmp_path: Path, docker_url: str, test_image: str) -> None:
    """A request becomes an answering service and an exact bill; a bad image costs nothing; kill -9 loses nothing."""
    # One test, so that one market serves all of it wherever it runs.
    with serving(tmp_path, docker_url) as client:
        from_a_request_to_an_answering_service(client)
        an_image_that_does_not_exist(client)
        killed_and_started_again_it_goes_on(client, tmp_path / "other")
        a_killed_providers_lease_goes_on_elsewhere(client, tmp_path, docker_url)


def from_a_request_to_an_answering_service(client: Client) -> None:
    """POST makes a running container that answers; its log streams; DELETE gives the exact bill; a repeat makes nothing."""
    before = int(client.user.json("account", "show")["balances"]["ucredit"])
    made = client.post(sdl().replace("expose:", SAYS), "one")
    assert made.status_code == 201, made.text
    dseq = made.json()["dseq"]
    assert client.post(sdl().replace("expose:", SAYS), "one").json()["dseq"] == dseq
    lease = client.running(dseq)["leases"][0]
    path = f"/v1/leases/{lease['id']}"
    ports = client.http.get(f"{path}/status").json()["services"]["web"]["ports"]
    url = f"http://{ports[0]['host']}:{ports[0]['host_port']}/"
    eventually(lambda: _answers(url), f"{url} to answer")
    said = client.http.get(f"{path}/logs", params={"tail": 10})
    assert said.headers["content-type"].startswith("text/event-stream")
    assert "hello from web" in _texts(said.text)
    assert client.http.get(f"{path}/logs", params={"service": "nothing"}).status_code == 404
    with client.http.stream("GET", f"{path}/logs", params={"follow": "true"}) as stream:
        assert any("hello from web" in line for line in stream.iter_lines())  # returns at the first: it goes on without end
    bill = client.http.delete(f"/v1/deployments/{dseq}")
    assert bill.status_code == 200, bill.text
    after = int(client.user.json("account", "show")["balances"]["ucredit"])
    assert before - after == int(bill.json()["paid"]) + int(bill.json()["charged"])
    assert client.http.get(f"/v1/deployments/{dseq}").json()["phase"] == "closed"


def an_image_that_does_not_exist(client: Client) -> None:
    """A file whose image cannot be had fails with the provider's reason; the deployment can be closed and costs no time."""
    made = client.post(sdl().replace("gpubid/busybox:test", "gpubid/no-such-image:none"), "two")
    assert made.status_code == 201, made.text
    found = client.failed(made.json()["dseq"])
    assert "image" in found["error"]
    bill = client.http.delete(f"/v1/deployments/{found['dseq']}").json()
    assert int(bill["paid"]) == 0


def killed_and_started_again_it_goes_on(client: Client, home: Path) -> None:
    """A gateway killed right after it answered carries the deployment on when it comes back; it ends with a reader waiting."""
    user = Typist(home, client.node)
    user.key()
    user.ok("account", "faucet")
    command = _command(client.node)
    body = sdl().replace("expose:", SAYS)
    with Program(command, home) as first:
        dseq = _ask(first, home, body).json()["dseq"]
        first.kill()
    with Program(command, home) as second:
        url = second.line("ready ").split()[1]
        with httpx.Client(base_url=url, headers=_headers(home), timeout=60) as http:
            again = Client(http, second, user, client.node)
            lease = again.running(dseq)["leases"][0]
            assert _ask(second, home, body).json()["dseq"] == dseq
            with http.stream("GET", f"/v1/leases/{lease['id']}/logs", params={"follow": "true"}) as stream:
                assert any("hello from web" in line for line in stream.iter_lines())
                assert second.stop(signal.SIGTERM) == 0, second.stderr
    user.ok("lease", "close", str(dseq), "--yes")


def a_killed_providers_lease_goes_on_elsewhere(client: Client, folder: Path, docker_url: str) -> None:
    """A provider's daemon is killed and its operator ends the lease: the other one gets order and manifest, and runs it."""
    with provider(folder, client.node, docker_url, name="second") as (program, address):
        client.providers[address] = (program, "second")
        body = sdl().replace("expose:", SAYS)
        dseq = client.post(body, "three").json()["dseq"]
        lease = client.running(dseq)["leases"][0]
        killed, name = client.providers[lease["provider"]]
        killed.kill()
        User(folder / name, client.node).ok("provider", "release", lease["id"], "--close", "--from", name)

        def elsewhere() -> Any:
            found = client.http.get(f"/v1/deployments/{dseq}").json()
            live = [item for item in found["leases"] if item["state"] != "closed"]
            return live if found["phase"] == "running" and live and live[0]["id"] != lease["id"] else None

        (later,) = eventually(elsewhere, "the lease at the other provider")
        assert later["provider"] in client.providers.keys() - {lease["provider"]}
        ports = client.http.get(f"/v1/leases/{later['id']}/status").json()["services"]["web"]["ports"]
        url = f"http://{ports[0]['host']}:{ports[0]['host_port']}/"
        eventually(lambda: _answers(url), f"{url} to answer")
        changed = client.http.put(f"/v1/deployments/{dseq}", content=body.replace("hello", "changed"), headers=YAML)
        assert changed.status_code == 200, changed.text
        path = f"/v1/leases/{later['id']}/logs"
        eventually(lambda: "changed from web" in _texts(client.http.get(path).text), "the words of the new container")
        assert client.http.get(f"/v1/leases/{later['id']}").json()["devices"] == later["devices"]
        assert client.http.delete(f"/v1/deployments/{dseq}").status_code == 200


def _ask(program: Program, home: Path, body: str) -> httpx.Response:
    url = program.line("ready ").split()[1]
    headers = _headers(home) | {"content-type": "application/yaml", "idempotency-key": "k"}
    answer = httpx.post(f"{url}/v1/deployments", content=body, headers=headers, timeout=60)
    assert answer.status_code in (200, 201), answer.text
    return answer


def _headers(home: Path) -> dict[str, str]:
    return {"authorization": f"Bearer {(home / 'tenant' / 'api.key').read_text().strip()}"}


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10).status_code in (200, 404)
    except httpx.HTTPError:
        return False


def _texts(body: str) -> list[str]:
    data = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    return [str(msgspec.json.decode(line).get("text")) for line in data]
