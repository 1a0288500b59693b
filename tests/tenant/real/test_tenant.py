"""A tenant's commands against a real market: files in, containers out, exact bills; and every mistake answered."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.processes import Program, User, eventually
from tests.tenant.real.conftest import Market, Tenant

pytestmark = [pytest.mark.docker, pytest.mark.process, pytest.mark.timeout(600)]

EXAMPLES = Path(__file__).resolve().parents[3] / "tenant" / "examples"
WEB = str(EXAMPLES / "web.yaml")
SIMULATED = str(EXAMPLES / "gpu-simulated.yaml")
PATIENT = ("--timeout", "280")


def balance(user: User) -> int:
    """What a user has, in micro-credits."""
    return int(user.json("account", "show")["balances"]["ucredit"])


def fetch(status: dict[str, Any]) -> str:
    """What the first published port answers."""
    port = next(port for service in status["services"].values() for port in service["ports"])

    def probe() -> str | None:
        try:
            return httpx.get(f"http://{port['host']}:{port['host_port']}/", timeout=20, trust_env=False).text
        except httpx.HTTPError:
            return None

    return eventually(probe, "the service to answer")


def variant(folder: Path, name: str, *changes: tuple[str, str], of: str = WEB) -> str:
    """A file like the example, with some texts changed."""
    text = Path(of).read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text)
    return str(path)


def carried_on(user: User, dseq: str) -> bool:
    """`lease manifest` brings a deployment to run; False where this machine took longer than a manifest may take to come."""
    done = user.run("lease", "manifest", dseq, *PATIENT, "-o", "json", timeout_s=300)
    if done.returncode and re.search("manifest_missing|not_activated", done.stderr):
        return False
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["status"]["phase"] == "running"
    return True


def test_from_file_to_bill(market: Market) -> None:
    """Deploy, fetch, read logs, follow them until Ctrl-C, run a command, look in every form, close: the bill is exact."""
    user = market.tenant()
    before = balance(user)
    deployed = user.json("deploy", WEB, *PATIENT, timeout_s=300)
    (lease,) = deployed["leases"]
    id, dseq = lease["id"], str(deployed["dseq"])
    assert lease["status"]["phase"] == "running"
    assert "hello from gpubid" in fetch(lease["status"])

    assert "serving on port 8080" in user.ok("lease", "logs", dseq)
    settings = {"GPUBID_NODE": market.node}
    with Program(["lease", "logs", id, "--follow"], user.home, **settings) as following:
        following.line("serving on port 8080", 120)
        assert following.stop(signal.SIGINT) == 130
        assert "Traceback" not in following.stderr
    ran = user.run("lease", "exec", dseq, "-i", "--", "/bin/sh", "-c", "cat; echo oops >&2; exit 42", stdin="typed")
    assert (ran.returncode, ran.stdout, ran.stderr) == (42, "typed", "oops\n")
    shell = user.run("lease", "shell", dseq, stdin="echo $((40 + 2)) inside; exit 5\n")
    assert shell.returncode == 5, shell.stderr
    assert "42 inside" in shell.stdout

    assert [item["id"] for item in user.json("lease", "list")] == [id]
    assert user.ok("lease", "list", "-o", "name").split() == [id]
    assert [item["id"] for item in yaml.safe_load(user.ok("lease", "list", "-o", "yaml"))] == [id]
    table = user.ok("lease", "list")
    assert dseq in table
    assert market.provider in table
    assert user.json("lease", "show", dseq)["id"] == id
    assert yaml.safe_load(user.ok("lease", "status", dseq, "-o", "yaml"))["phase"] == "running"
    assert user.ok("lease", "show", id, "-o", "name").strip() == id
    assert "8080" in user.ok("lease", "status", id)
    assert "credits/h" in user.ok("lease", "show", id)
    eventually(lambda: int(user.json("lease", "show", id)["cost"]) > 0, "the cost to tick")

    bill = user.json("lease", "close", id, "--yes")
    after = balance(user)
    assert before - after == int(bill["paid"]) + int(bill["fees"]) > 0
    purse = bill["purse"]
    assert int(purse["deposited"]) == int(purse["paid"]) + int(purse["refunded"])
    assert int(purse["paid"]) == before - after
    assert int(user.json("lease", "show", id)["cost"]) == before - after
    assert user.json("lease", "list") == []
    again = user.run("lease", "close", dseq, "--yes")
    assert again.returncode == 5, again.stderr
    late = user.run("lease", "exec", id, "--", "true")
    assert late.returncode in (3, 5), late.stderr
    assert "Traceback" not in again.stderr + late.stderr


def test_simulated_devices_say_so(market: Market, tmp_path: Path) -> None:
    """Simulated GPUs go only to a file that asks for them, and are called so wherever they are seen."""
    user = market.tenant()
    market.until_released()
    assert "2/2×h100 (simulated)" in user.ok("market", "bids")
    plain = variant(tmp_path, "plain.yaml", ('      attributes:\n        simulated: "true"\n', ""), of=SIMULATED)
    waits = user.run("deploy", plain, "--timeout", "2")
    assert waits.returncode == 6, waits.stderr
    assert "h100" in waits.stderr
    dseq = re.search(r"gpubid lease close (\d+)", waits.stderr)
    assert dseq
    assert user.json("lease", "close", dseq[1], "--yes")["paid"] == "0"

    done = user.run("deploy", SIMULATED, *PATIENT, "-o", "json", timeout_s=300)
    assert done.returncode == 0, done.stderr
    assert "(simulated devices)" in done.stderr
    (lease,) = json.loads(done.stdout)["leases"]
    assert "2 simulated" in user.ok("lease", "list")
    assert "2 simulated" in user.ok("lease", "show", lease["id"])
    record = user.json("lease", "show", lease["id"])
    assert record["simulated"] is True
    assert len(record["devices"]) == 2
    assert "0/2×h100 (simulated)" in user.ok("market", "bids")
    log = eventually(lambda: user.ok("lease", "logs", lease["id"]), "the first line of its log")
    assert len(log.split("devices: ")[1].split()[0].split(",")) == 2
    user.ok("lease", "close", lease["id"], "--yes")


def test_bad_input_is_answered(market: Market, tmp_path: Path) -> None:
    """Wrong files, names and amounts: an exit code, what is wrong and where, what to do; nothing is ordered."""
    user, poor = market.tenant(), market.tenant(money=False)
    odd = variant(tmp_path, "odd.yaml", ("    image: ", "    imagine: x\n    image: "))
    cheap = variant(tmp_path, "cheap.yaml", ("amount: 100\n", "amount: 1\n"))
    away = Tenant(user.home, "http://127.0.0.1:9")
    cases: list[tuple[User, tuple[str, ...], int, tuple[str, ...]]] = [
        (user, ("deploy", odd, "--strict"), 1, (f"{odd}:5:5", "imagine")),
        (user, ("deploy", str(tmp_path / "none.yaml")), 2, ("none.yaml", "→")),
        (user, ("deploy", WEB, "--deposit", "-1"), 2, ("not an amount",)),
        (user, ("deploy", WEB, "--deposit", "100000"), 5, ("insufficient funds", "faucet")),
        (poor, ("deploy", WEB), 3, ("account not found", "faucet")),
        (user, ("quote", cheap), 1, ("nothing on offer fits",)),
        (user, ("deploy", cheap, "--timeout", "1"), 6, ("price: 1", "limit 0.000588", "raise the limit", "gpubid lease close")),
        (user, ("lease", "show", "12345"), 3, ("not found",)),
        (user, ("lease", "close", "12345", "--yes"), 3, ("not found",)),
        (user, ("lease", "logs", "nonsense"), 2, ("names no lease", "gpubid lease list")),
        (user, ("lease", "exec", "12345"), 2, ("COMMAND",)),
        (user, ("lease", "manifest", "0"), 2, ("DSEQ",)),
        (away, ("deploy", WEB), 7, ("127.0.0.1:9", "gpubid node start")),
        (away, ("lease", "list"), 7, ("127.0.0.1:9",)),
    ]
    for who, words, code, says in cases:
        done = who.run(*words)
        assert done.returncode == code, (words, done.returncode, done.stderr)
        assert all(text in done.stderr for text in says), (words, done.stderr)
        assert "Traceback" not in done.stderr
    assert len(user.json("market", "orders", "--owner", user.json("keys", "show", "default")["address"])) == 1


def test_containers_that_cannot_run(market: Market, tmp_path: Path) -> None:
    """An image that does not exist, and a container that exits at once: exit 1 with the cause; nothing is paid."""
    user = market.tenant()
    before = balance(user)
    ghost = variant(tmp_path, "ghost.yaml", ("gpubid/busybox:test", "127.0.0.1:9/ghost:none"))
    brief = variant(tmp_path, "brief.yaml", ("exec httpd -f -vv -p 8080 -h /var/www", "exit 9"))
    settings = {"GPUBID_NODE": market.node}
    with (
        Program(["deploy", *PATIENT, ghost], user.home, **settings) as missing,
        Program(["deploy", *PATIENT, brief], user.home, **settings) as exits,
    ):
        assert missing.wait(300) == 1, missing.stderr
        lasted = exits.wait(300) == 0
    if lasted:
        # On a machine that is busy enough even this one lasts the moment that counts as running; it is seen to fail all the same.
        failing = exits.stdout.split("lease ")[1].split()[0]
        eventually(lambda: "exited with 9" in user.ok("lease", "status", failing), "the end of the container to be told", 250)
        user.ok("lease", "close", failing, "--yes")
        return
    assert exits.wait() == 1, exits.stderr
    assert re.search(r"does not run: .*(image|ghost)", missing.stderr), missing.stderr
    assert re.search(r"does not run: .*exited with 9", exits.stderr), exits.stderr
    for program in (missing, exits):
        assert "Traceback" not in program.stderr
        dseq = re.search(r"gpubid lease close (\d+) settles", program.stderr)
        assert dseq, program.stderr
        bill = user.json("lease", "close", dseq[1], "--yes")
        assert bill["purse"]["paid"] == "0"
    assert balance(user) == before


def test_others_stay_out(market: Market) -> None:
    """What runs in a lease is its owner's alone: another account is refused by market and gateway alike."""
    owner, other = market.tenant(), market.tenant()
    deployed = owner.run("deploy", "-", *PATIENT, "-o", "json", stdin=Path(WEB).read_text(), timeout_s=300)
    assert deployed.returncode == 0, deployed.stderr
    id = json.loads(deployed.stdout)["leases"][0]["id"]
    for words in (("logs", id), ("status", id), ("exec", id, "--", "true"), ("shell", id), ("close", id, "--yes")):
        done = other.run("lease", *words)
        assert done.returncode in (3, 4), (words, done.returncode, done.stderr)
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
    assert other.json("lease", "show", id)["id"] == id
    owner.ok("lease", "close", id, "--yes")


def test_an_interrupted_deploy_goes_on(market: Market) -> None:
    """Ctrl-C in the middle of a deploy leaves what `lease manifest` carries to its end and `lease close` settles."""
    user = market.tenant()
    before = balance(user)
    with Program(["deploy", *PATIENT, WEB], user.home, GPUBID_NODE=market.node) as program:
        dseq = eventually(lambda: re.search(r"deployment (\d+): limit", program.stderr), "the deployment", 120)[1]
        code = program.stop(signal.SIGINT)
        assert code in (0, 130), program.stderr
        assert "Traceback" not in program.stderr
        if code == 130:
            assert f"gpubid lease manifest {dseq}" in program.stderr
    carried_on(user, dseq)
    assert user.run("lease", "manifest", dseq, "--file", SIMULATED).returncode == 1
    bill = user.json("lease", "close", dseq, "--yes")
    assert before - balance(user) == int(bill["purse"]["paid"])


def test_a_provider_that_is_down(market: Market) -> None:
    """With the provider's daemon killed a running lease is still shown, a new one says how to go on, and goes on."""
    user = market.tenant()
    market.kill_provider()
    try:
        done = user.run("deploy", WEB, "--timeout", "2")
        assert done.returncode == 7, done.stderr
        assert "does not answer" in done.stderr
        dseq = re.search(r"gpubid lease manifest (\d+)", done.stderr)
        assert dseq, done.stderr
        assert user.json("lease", "show", dseq[1])["state"] == "matched"
        assert user.run("lease", "logs", dseq[1]).returncode == 7
    finally:
        market.start_provider()
    carried_on(user, dseq[1])
    assert int(user.json("lease", "close", dseq[1], "--yes")["purse"]["refunded"]) > 0


def test_an_order_is_written_signed_and_sent_on_three_machines(market: Market, tmp_path: Path) -> None:
    """A desk without node or owner's key writes, a vault without a node signs, a courier sends; the desk's delegated key then
    gives the provider its manifest, the lease becomes active, and its end is signed in the same way."""
    nowhere = "http://127.0.0.1:9"
    desk, vault, courier = (Tenant(tmp_path / name, url) for name, url in (("d", nowhere), ("v", nowhere), ("c", market.node)))
    owner = vault.key()
    signer = ("--generate-only", "--signer", vault.json("keys", "show")["key"])
    chain = ("--chain-id", str(httpx.get(f"{market.node}/v1/status", timeout=30, trust_env=False).json()["chain_id"]))
    courier.ok("account", "faucet", "--to", owner)
    desk.key()
    may = ("account", "delegate", "default", "--verb", "gateway", *signer, *chain, "--sequence", "1")
    made = desk.run("deploy", WEB, *signer, *chain, "--sequence", "2")
    assert made.returncode == 0, made.stderr
    dseq = re.search(r"gpubid lease manifest (\d+)", made.stderr)
    assert dseq, made.stderr
    assert Path(re.search(r"kept in (\S+)", made.stderr)[1]).is_file()  # type: ignore[index]

    def carry(unsigned: str) -> None:
        (tmp_path / "unsigned").write_text(unsigned)
        (tmp_path / "signed").write_text(vault.ok("tx", "sign", str(tmp_path / "unsigned")))
        courier.ok("tx", "send", str(tmp_path / "signed"))

    desk.ok("keys", "act-for", "default", owner)
    online = Tenant(desk.home, market.node)
    with Program(["lease", "manifest", dseq[1], *PATIENT, "-o", "json"], desk.home, GPUBID_NODE=market.node) as sending:
        # It may be started first: it waits for the order, so that no minute is lost between the match and the manifest.
        eventually(lambda: "not on the ledger yet" in sending.stderr, "the wait for the order")
        carry(desk.ok(*may) + made.stdout)
        assert sending.wait(300) == 0, sending.stderr
    (lease,) = json.loads(sending.stdout)
    assert online.json("lease", "show", lease["id"])["state"] == "active"
    assert "hello from gpubid" in fetch(lease["status"])
    carry(online.ok("lease", "close", lease["id"], *signer))
    assert online.json("lease", "show", lease["id"])["reason"] == "owner"


def test_a_running_deployment_is_updated(market: Market, tmp_path: Path) -> None:
    """Another page, the same lease: new containers answer, devices and meter stay; what was ordered cannot change, and a
    missing image leaves running what runs."""
    user = market.tenant()
    market.until_released()
    deployed = user.json("deploy", SIMULATED, *PATIENT, timeout_s=300)
    dseq, (lease,) = str(deployed["dseq"]), deployed["leases"]
    before = user.json("lease", "show", dseq)
    old = user.ok("lease", "exec", dseq, "hostname")
    newer = variant(tmp_path, "newer.yaml", ("devices: ", "second devices: "), of=SIMULATED)
    done = user.run("deploy", newer, "--update", dseq, *PATIENT, "-o", "json", timeout_s=300)
    assert done.returncode == 0, done.stderr
    (again,) = json.loads(done.stdout)["leases"]
    assert again["id"] == lease["id"]
    eventually(lambda: "second devices: " in user.ok("lease", "logs", dseq), "the log of the new container")
    after = user.json("lease", "show", dseq)
    for name in ("id", "state", "generation", "devices", "rate_per_hour", "created_ms"):
        assert after[name] == before[name], name
    assert (after["state"], old) == ("active", user.ok("lease", "exec", dseq, "hostname"))
    assert int(after["up_ms"]) > int(before["up_ms"])
    ghost = variant(tmp_path, "ghost.yaml", ("gpubid/busybox:test", "127.0.0.1:9/ghost:none"), of=SIMULATED)
    missing = user.run("deploy", ghost, "--update", dseq, "--timeout", "2")
    assert missing.returncode == 6, missing.stderr
    eventually(lambda: "ghost" in user.ok("lease", "status", dseq), "the reason to be told")
    assert "second devices: " in user.ok("lease", "logs", dseq)
    bigger = variant(tmp_path, "bigger.yaml", ("units: 2", "units: 1"), of=SIMULATED)
    refused = user.run("deploy", bigger, "--update", dseq)
    assert (refused.returncode, "gpubid lease close" in refused.stderr) == (5, True), refused.stderr
    purse = user.json("lease", "close", dseq, "--yes")["purse"]
    assert int(purse["paid"]) > 0
