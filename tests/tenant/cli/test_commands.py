"""The tenant's commands, typed in this process: a real node, and a gateway played by the test."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import tenant.deploy.flow
from marketplace.protocol.messages import ReportPulling
from provider.client import GatewayError
from tenant.cli.deploy import deploy
from tenant.cli.lease import lease
from tests.marketplace.cli.typist import Typist
from tests.tenant.deploy.scene import GPU, SDL, TWO_GROUPS, Gateway, Scene, line, scene

numbers = itertools.count(1)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A market with one host on offer."""
    with scene(tmp_path_factory.mktemp("market")) as found:
        found.offer()
        yield found


@pytest.fixture
def gateway(market: Scene, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """The gateway of every provider, played by the test."""
    played = Gateway(market.activate)
    monkeypatch.setattr(tenant.deploy.flow, "GatewayClient", played)
    return played


@pytest.fixture
def user(market: Scene, tmp_path: Path) -> Typist:
    """A tenant with a thousand credits."""
    found = Typist(tmp_path / "home", market.url)
    market.node.faucet(found.key())
    return found


def file(folder: Path, text: str) -> str:
    """A deployment file."""
    path = folder / f"app-{next(numbers)}.yaml"
    path.write_text(text)
    return str(path)


def deployed(user: Typist, folder: Path, text: str = SDL) -> tuple[str, list[str]]:
    """Deploy a file: (dseq, ids of its leases)."""
    found = user.json("deploy", file(folder, text))
    return str(found["dseq"]), [item["id"] for item in found["leases"]]


def test_deploy_prints_in_every_form(user: Typist, gateway: Gateway, tmp_path: Path) -> None:
    """What runs and where it is reached, for people and programs; progress goes to standard error."""
    gateway.phases = ["preparing", "starting", "running"]
    done = user.run("deploy", file(tmp_path, SDL))
    assert done.returncode == 0
    assert "runs\n  web: tcp 127.0.0.1:32000 → 80" in done.stdout
    for words in ("limit 58.891643 credits/h, deposit 58.891643", "matched: gpu1", "preparing …", "starting …"):
        assert words in done.stderr
    found = yaml.safe_load(user.ok("deploy", file(tmp_path, SDL), "-o", "yaml", "--deposit", "2.5"))
    assert found["leases"][0]["status"]["phase"] == "running"
    assert user.json("lease", "show", str(found["dseq"]))["id"] == found["leases"][0]["id"]
    assert user.ok("deploy", file(tmp_path, SDL), "-o", "name").strip().count("/") == 4


def test_deploy_without_waiting(user: Typist, gateway: Gateway, tmp_path: Path) -> None:
    """--no-wait sends the manifest of what matched at once, and otherwise says how to go on; both end with 0."""
    gateway.phases = ["preparing"]
    done = user.run("deploy", file(tmp_path, SDL), "--no-wait")
    assert (done.returncode, "is preparing" in done.stdout) == (0, True)
    assert gateway.calls == ["manifest"]
    done = user.run("deploy", file(tmp_path, GPU), "--no-wait", "-o", "json")
    dseq = json.loads(done.stdout)["dseq"]
    assert done.returncode == 0
    assert f"gpubid lease manifest {dseq}" in done.stderr
    assert user.run("lease", "manifest", str(dseq), "--timeout", "1").returncode == 6


def test_a_provider_that_refuses(user: Typist, gateway: Gateway, tmp_path: Path) -> None:
    """Where the provider refuses the manifest, its reason and how to settle are said; where the market does, only its reason."""
    gateway.refusal = GatewayError(422, "MANIFEST_REFUSED", "the manifest was refused", "too many processes")
    done = user.run("deploy", file(tmp_path, SDL))
    assert done.returncode == 1
    assert "too many processes" in done.stderr
    dseq = str(user.json("lease", "list")[0]["dseq"])
    assert f"gpubid lease close {dseq}" in done.stderr
    assert user.json("lease", "close", dseq, "--yes")["paid"] == "0"
    refused = user.run("deploy", file(tmp_path, SDL), "--deposit", "100000")
    assert refused.returncode == 5
    assert "lease close" not in refused.stderr


def test_a_deployment_is_updated(user: Typist, gateway: Gateway, tmp_path: Path) -> None:
    """By dseq or id: the manifest is replaced at the provider, the lease stays; what cannot change is refused with what to do."""
    dseq, (id,) = deployed(user, tmp_path)
    newer = file(tmp_path, SDL.replace("hush", "louder"))
    old = gateway.manifests[id]
    done = user.json("deploy", newer, "--update", dseq)
    assert [item["id"] for item in done["leases"]] == [id]
    assert gateway.manifests[id] != old
    again = user.run("deploy", newer, "--update", id, "-o", "name")
    assert (again.returncode, again.stdout.strip(), "sent again" in again.stderr) == (0, id, True)
    bigger = file(tmp_path, SDL.replace("units: 100m", "units: 200m"))
    for words, code, says in (
        ((bigger, "--update", dseq), 5, f"gpubid lease close {dseq}"),
        ((bigger, "--update", dseq, "--generate-only"), 5, "cpu 200m"),
        ((newer, "--update", dseq, "--generate-only"), 5, f"gpubid lease manifest {dseq}"),
        ((newer, "--update", dseq, "--deposit", "1"), 2, "gpubid account deposit"),
        ((newer, "--update", "999"), 3, "not found"),
        ((newer, "--update", "web"), 2, "names no deployment"),
        ((newer, "--update", f"gpu1other/{dseq}"), 4, "another account"),
    ):
        refused = user.run("deploy", *words)
        assert (refused.returncode, says in refused.stderr, refused.stdout) == (code, True, ""), (words, refused.stderr)
    signed = tmp_path / "signed"
    unsigned = user.ok("deploy", file(tmp_path, SDL.replace("hush", "offline")), "--update", dseq, "--generate-only")
    (tmp_path / "unsigned").write_text(unsigned)
    signed.write_text(user.ok("tx", "sign", str(tmp_path / "unsigned")))
    user.ok("tx", "send", str(signed))
    user.ok("lease", "manifest", dseq)
    assert "offline" in json.dumps(gateway.manifests[id])
    user.ok("lease", "close", dseq, "--yes")


def test_quote(user: Typist, tmp_path: Path) -> None:
    """A price where something fits, and exit 1 with the nearest miss where nothing does; nothing is ordered."""
    assert "here" in user.ok("quote", file(tmp_path, SDL))
    assert user.json("quote", file(tmp_path, TWO_GROUPS))[1]["fitting"] == 1
    none = user.run("quote", file(tmp_path, GPU))
    assert none.returncode == 1
    assert "no " in none.stdout
    assert "an order would wait" in none.stderr
    assert user.json("lease", "list", "--all") == []


def test_a_lease_is_found_by_what_says_enough(user: Typist, gateway: Gateway, tmp_path: Path) -> None:
    """A whole id, or the dseq where one lease is its; otherwise the candidates are named."""
    dseq, (id,) = deployed(user, tmp_path)
    assert user.json("lease", "show", dseq)["id"] == user.json("lease", "show", id)["id"] == id
    both, ids = deployed(user, tmp_path, TWO_GROUPS)
    several = user.run("lease", "show", both)
    assert several.returncode == 2
    assert all(id in several.stderr for id in ids)
    waiting = user.json("deploy", file(tmp_path, GPU), "--no-wait")["dseq"]
    none = user.run("lease", "show", str(waiting))
    assert none.returncode == 3
    assert f"gpubid lease close {waiting}" in none.stderr
    assert user.run("lease", "show", f"{id}x").returncode in (1, 2, 3)


def test_a_pull_is_shown(user: Typist, gateway: Gateway, market: Scene, tmp_path: Path) -> None:
    """While the provider pulls the image, `lease show` says for how long and at what rate; quotes and bids tell terms."""
    gateway.phases = ["preparing"]
    made = user.json("deploy", file(tmp_path, SDL), "--no-wait")
    (id,) = (found["id"] for found in made["leases"])
    assert "pulling" not in user.ok("lease", "show", id)
    market.send(ReportPulling(generation=1, lease=id))
    assert "s, held at 0.000000 credits/h" in user.ok("lease", "show", id)
    market.activate(id)
    assert "pulling" not in user.ok("lease", "show", id)
    assert user.json("lease", "close", id)["leases"][0]["hold"] == "0"
    assert "TERMS" in user.ok("quote", file(tmp_path, SDL))
    assert "TERMS" in user.ok("market", "bids")


def test_logs(user: Typist, gateway: Gateway, tmp_path: Path) -> None:
    """Lines as they are; with the name once there are several writers, with the time where it is asked."""
    dseq, _ = deployed(user, tmp_path)
    assert user.ok("lease", "logs", dseq) == "hello\nagain\n"
    assert user.ok("lease", "logs", dseq, "--timestamps").startswith("2026-01-01T00:00:01Z hello\n")
    gateway.lines = [line(1, "one"), line(2, "two", replica=1), line(3, "bad", "stderr")]
    done = user.run("lease", "logs", dseq, "--tail", "3", "--service", "web", "-f")
    assert done.stdout == "one\n[web-1] two\n"
    assert done.stderr == "[web-0] bad\n"
    assert gateway.calls[-1] == "logs [('follow', True), ('service', 'web'), ('tail', 3)]"
    gateway.refusal = GatewayError(503, "ENGINE_UNREACHABLE", "the engine does not answer", fix="try again soon")
    away = user.run("lease", "logs", dseq)
    assert (away.returncode, "try again soon" in away.stderr) == (7, True)


def test_status(user: Typist, gateway: Gateway, tmp_path: Path) -> None:
    """Phase, services and ports, and what went wrong."""
    dseq, _ = deployed(user, tmp_path)
    text = user.ok("lease", "status", dseq)
    assert "running" in text
    assert "web: tcp 127.0.0.1:32000 → 80" in text
    gateway.phases = ["failed"]
    assert "failed: it broke" in user.ok("lease", "status", dseq)
    assert user.json("lease", "status", dseq)["services"]["web"]["image"] == "nginx:1.27"
    gateway.replicas = 2
    text = user.ok("lease", "status", dseq)
    assert "2 replicas" in text
    assert "web-1: tcp 127.0.0.1:32001 → 80" in text


def test_close_names_what_it_closes(user: Typist, gateway: Gateway, market: Scene, tmp_path: Path) -> None:
    """A lease of two closes its group; the last closes the deployment; what is closed is closed."""
    dseq, (first, second) = deployed(user, tmp_path, TWO_GROUPS)
    bill = user.json("lease", "close", first, "--yes")
    assert [item["id"] for item in bill["leases"]] == [first]
    assert bill["refund"] == "0"
    again = user.run("lease", "close", first, "--yes")
    assert (again.returncode, "closed already" in again.stderr) == (5, True)
    assert user.json("lease", "show", dseq)["id"] in (first, second)
    text = user.ok("lease", "close", second, "--yes")
    assert "refunded" in text
    assert "deposited" in text
    gone = user.run("lease", "close", dseq, "--yes")
    assert gone.returncode == 5
    assert user.json("lease", "list") == []
    assert {item["id"] for item in user.json("lease", "list", "--all")} == {first, second}
    assert user.run("lease", "close", f"{first[:-1]}q", "--yes").returncode == 3


def test_another_accounts_lease(user: Typist, gateway: Gateway, market: Scene, tmp_path: Path) -> None:
    """Closing another account's lease is refused before anything is sent."""
    _, (id,) = deployed(user, tmp_path)
    other = Typist(tmp_path / "other", market.url)
    other.key()
    done = other.run("lease", "close", id, "--yes")
    assert (done.returncode, "--from" in done.stderr) == (4, True)


def test_a_manifest_that_is_not_here(user: Typist, gateway: Gateway, tmp_path: Path) -> None:
    """A home without the manifest says so; with --file it is sent from there."""
    dseq, (id,) = deployed(user, tmp_path)
    for kept in (tmp_path / "home" / "tenant" / "deployments").iterdir():
        kept.unlink()
    lost = user.run("lease", "manifest", dseq)
    assert (lost.returncode, "--file" in lost.stderr) == (3, True)
    gateway.manifests.clear()
    assert user.json("lease", "manifest", dseq, "--file", file(tmp_path, SDL))[0]["id"] == id
    assert set(gateway.manifests) == {id}


def test_errors_as_json(user: Typist, tmp_path: Path) -> None:
    """With -o json a failure is one JSON line on standard error."""
    done = user.run("deploy", file(tmp_path, SDL), "--deposit", "100000", "-o", "json")
    assert done.returncode == 5
    last = json.loads(done.stderr.splitlines()[-1])
    assert "insufficient funds" in last["error"]
    assert last["fix"]


@pytest.mark.parametrize("words", [(), ("x", "y"), ("--timeout", "0", "x"), ("--deposit",), ("-o", "xml", "x")])
def test_usage_of_deploy(words: tuple[str, ...]) -> None:
    """Wrong words are a usage error."""
    assert CliRunner().invoke(deploy, list(words)).exit_code == 2


def test_every_command_has_help() -> None:
    """Each command says in a line what it does."""
    for name, command in lease.commands.items():
        assert command.get_short_help_str(), name
        assert CliRunner().invoke(lease, [name, "--help"]).exit_code == 0
    assert {"list", "show", "status", "logs", "exec", "shell", "manifest", "close"} == set(lease.commands)
