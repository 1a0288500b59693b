"""The node as a process: ready line, kill -9, restart, second node, taken port, full disk, clean end."""

import json
import resource
import signal
import socket
import subprocess
import threading
from pathlib import Path

import httpx
import pytest

from ledger.protocol.messages import Transfer
from marketplace.client import ApiError, NodeClient, Unreachable
from tests.marketplace.node.serving import address, signed
from tests.processes import GPUBID, Program, User, development_node, environment, eventually

pytestmark = pytest.mark.process

START = ("node", "start", "--dev", "--listen", "127.0.0.1:0")


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Clients post while the node is killed: after a restart every acknowledged transaction is there, and applied once."""
    acknowledged: list[tuple[str, int]] = []
    sent: list[bytes] = []
    with development_node(tmp_path) as (program, url):
        with NodeClient(url) as client:
            client.faucet(address(1))

        def post() -> None:
            with NodeClient(url) as client:
                chain_id, now_ms = client.chain()
                for _ in range(100_000):
                    raw = signed(chain_id, now_ms, 1, Transfer(amount="1", denomination="ucredit", to=address(2)))
                    sent.append(raw)
                    try:
                        receipt = client.post(raw)
                    except (Unreachable, ApiError):
                        return
                    acknowledged.append((receipt.id, receipt.height))

        threads = [threading.Thread(target=post) for _ in range(3)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(acknowledged) > 100, "a hundred acknowledged transfers")
        program.kill()
        for thread in threads:
            thread.join(60)
    with development_node(tmp_path) as (_, url), NodeClient(url) as client:
        for id, height in acknowledged:
            found = client.transaction(id)
            assert (found["height"], found["code"]) == (height, 0)
        for raw in sent[-3:]:
            client.post(raw)
        count = int(client.account(address(2))["balances"]["ucredit"])
        assert len(acknowledged) <= count <= len(sent)
        for raw in sent[-3:]:
            client.post(raw)
        assert int(client.account(address(2))["balances"]["ucredit"]) == count


def test_restart_second_node_and_clean_end(tmp_path: Path) -> None:
    """A second node on the same home is refused by the pid of the first; SIGTERM and SIGINT end it with 0; state stays."""
    with development_node(tmp_path) as (program, url):
        with NodeClient(url) as client:
            client.faucet(address(5))
            before = client.status()
        second = User(tmp_path / "node").run(*START)
        assert second.returncode == 5
        assert str(program.process.pid) in second.stderr
        assert "Traceback" not in second.stderr
        status = User(tmp_path / "other", url).json("node", "status")
        assert status["chain_id"] == before["chain_id"]
        assert program.stop() == 0
    with Program(["node", "start", "--listen", "127.0.0.1:0"], tmp_path / "node") as again:
        url = again.line("ready ").split()[1]
        with NodeClient(url) as client:
            assert client.account(address(5))["balances"]["ucredit"] == "1000000000"
            after = client.status()
            assert (after["chain_id"], after["node_key"]) == (before["chain_id"], before["node_key"])
            assert after["height"] >= before["height"]
        with NodeClient(url) as client:
            events = client.events("0")
            assert next(events)["id"] == "1:0"
            assert again.stop(signal.SIGINT) == 0
            assert all(event["kind"] for event in events)  # the node ends its streams before it leaves


def test_it_says_why_it_cannot_start(tmp_path: Path) -> None:
    """A taken port and a home without a chain each get one clear line and a way out."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        taken = User(tmp_path / "a").run("node", "start", "--dev", "--listen", f"127.0.0.1:{sock.getsockname()[1]}")
    assert taken.returncode == 5
    assert "is taken" in taken.stderr
    empty = User(tmp_path / "b").run("node", "start", "--listen", "127.0.0.1:0")
    assert empty.returncode == 3
    assert "--dev" in empty.stderr
    for done in (taken, empty):
        assert "Traceback" not in done.stderr
        assert "→" in done.stderr


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """Where nothing more can be written the node says so in one line, or at once stops: it never acknowledges."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = subprocess.run(
        [GPUBID, *START], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment(tmp_path),
        timeout=120, check=False, preexec_fn=small_files,
    )  # fmt: skip
    # 1 where a file of the home met it first, 7 where the database did.
    assert done.returncode in (1, 7)
    assert "ready" not in done.stdout
    assert "full" in done.stderr or "room" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_disk_that_fills_up_stops_it(tmp_path: Path) -> None:
    """When a write fails the node ends at once with 1; after a restart with space all that it acknowledged is there."""
    limited = ("prlimit", f"--fsize={3 * 2**20}")
    acknowledged: list[str] = []
    with Program(START, tmp_path, prefix=limited) as program:
        url = program.line("ready ").split()[1]
        with NodeClient(url) as client:
            client.faucet(address(1))
            chain_id, now_ms = client.chain()

            def post() -> bool:
                move = Transfer(amount="1", denomination="ucredit", to=address(2))
                try:
                    results = client.post_many([signed(chain_id, now_ms, 1, *[move] * 30) for _ in range(40)])
                except (Unreachable, ApiError):
                    return program.process.poll() is not None
                acknowledged.extend(r["id"] for r in results if "height" in r)
                return False

            eventually(post, "the node to stop on a full disk")
        assert program.wait() == 1
        assert "the ledger stopped" in program.stderr
    with Program(START, tmp_path) as program, NodeClient(program.line("ready ").split()[1]) as client:
        assert acknowledged
        for id in acknowledged[-50:]:
            assert client.transaction(id)["code"] == 0
        assert int(client.account(address(2))["balances"]["ucredit"]) >= 30 * len(acknowledged)


def test_another_chain_by_init(tmp_path: Path) -> None:
    """`node init` writes a genesis that `node start` runs, without a faucet."""
    user = User(tmp_path)
    issuer = user.key()
    given = (
        "node",
        "init",
        "--chain-id",
        "test-1",
        "--issuer",
        issuer,
        "--governance",
        issuer,
        "--allocate",
        f"{issuer}=5000000",
    )
    user.ok(*given)
    with Program(["node", "start", "--listen", "127.0.0.1:0"], tmp_path) as program:
        user.settings = {"GPUBID_NODE": program.line("ready ").split()[1]}
        assert user.json("account", "show")["balances"] == {"ucredit": "5000000"}
        assert user.run("account", "faucet").returncode == 3
        assert json.loads(program.stderr.splitlines()[0])["event"] == "serving"


def test_another_node_begins_with_a_snapshot(tmp_path: Path) -> None:
    """A snapshot of a running node's database, checked against block and genesis, starts another one; it says what it lacks."""
    snapshot = tmp_path / "snapshot"
    with development_node(tmp_path) as (program, url):
        user = User(tmp_path / "user", url)
        own = user.key()
        for _ in range(2):
            user.ok("account", "faucet")
        operator = User(program.home)
        taken = operator.json("ledger", "snapshot", str(snapshot))
        assert operator.run("ledger", "snapshot", str(snapshot)).returncode == 5
        shown = httpx.get(f"{url}/v1/blocks/{taken['height']}").json()
        assert shown["hash"] == taken["hash"]
        program.kill()
    other = User(tmp_path / "other")
    trust = f"{taken['height']}:{taken['hash']}"
    for arguments, status in (
        (("--trust", "7", "--genesis", taken["genesis"]), 2),
        (("--trust", trust, "--genesis", "0" * 64), 1),
        (("--trust", f"{taken['height']}:{'0' * 64}", "--genesis", taken["genesis"]), 1),
    ):
        refused = other.run("node", "restore", str(snapshot), *arguments)
        assert refused.returncode == status, refused.stderr
        assert "→" in refused.stderr
    arguments = ("--trust", trust, "--genesis", taken["genesis"])
    assert other.ok("node", "restore", str(snapshot), *arguments).strip() == taken["state_root"]
    assert other.run("node", "restore", str(snapshot), *arguments).returncode == 5
    with Program(["node", "start", "--listen", "127.0.0.1:0"], tmp_path / "other") as program:
        line = program.line("ready ").split()
        assert line[line.index("height") + 1] == str(taken["height"])
        url = line[1]
        user = User(tmp_path / "user", url)
        assert user.json("account", "show", own)["balances"] == {"ucredit": "2000000000"}
        for path in ("blocks/1", "export", "events?since=0"):
            answer = httpx.get(f"{url}/v1/{path}")
            assert answer.status_code == 404, path
            assert answer.json()["title"] == "pruned"
        assert httpx.get(f"{url}/v1/blocks/{taken['height']}").json()["hash"] == taken["hash"]
        assert len(httpx.get(f"{url}/v1/blocks").json()["items"]) == 1
        verified = user.run("ledger", "verify")
        assert verified.returncode != 0
        assert "Traceback" not in verified.stderr
        user.ok("account", "transfer", "gpu1" + own[4:], "1")
    with Program(["node", "start", "--listen", "127.0.0.1:0"], tmp_path / "other") as program:
        line = program.line("ready ").split()
        assert line[line.index("height") + 1] == str(taken["height"] + 1)
