"""A node on PostgreSQL, as an operator runs it: transactions, a lease, kill -9 under load, a second node."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psycopg
import pytest

from ledger.engine.embedded import Engine
from ledger.engine.errors import Indeterminate
from ledger.protocol.messages import Message
from marketplace.client import ApiError, NodeClient, Unreachable
from marketplace.protocol.messages import CloseDeployment, Release
from tests.crash.nodes import Rig
from tests.ledger.engine.ledgers import send, transfer
from tests.ledger.machine.chain import genesis
from tests.marketplace.node.market_story import PROVIDER, TENANT, activate, deploy, offer
from tests.marketplace.node.serving import address, signed
from tests.processes import Program, User

pytestmark = [pytest.mark.postgres, pytest.mark.process, pytest.mark.slow]


class Remote:
    """The small market of the node's tests, played against a node at a URL."""

    def __init__(self, client: NodeClient) -> None:
        self.client = client
        chain_id, _ = client.chain()
        self.node = SimpleNamespace(
            engine=SimpleNamespace(genesis=SimpleNamespace(chain_id=chain_id), now_ms=lambda: client.chain()[1])
        )

    def call(self, method: str, path: str) -> httpx.Response:
        """The answer to a request without a body."""
        return httpx.request(method, self.client.base_url + path, trust_env=False, timeout=60)

    def fund(self, number: int) -> None:
        """Money from the faucet."""
        self.client.faucet(address(number))

    def done(self, by: int, *messages: Message) -> Any:
        """A transaction that must succeed."""
        receipt = self.client.post(signed(*self.client.chain(), by, *messages))
        assert receipt.code == 0, receipt
        return receipt


def test_a_node_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    """Transactions by command, kill -9 under load, restart: nothing is lost; a lease from order to exact bill; it verifies."""
    rig = Rig(tmp_path, seed=5, clients=2, arguments=("--database", postgres_url))
    with rig.running() as program:
        user = User(tmp_path / "user", rig.url)
        mine = user.key()
        user.ok("account", "faucet")
        user.ok("account", "transfer", address(1), "1")
        _refused(tmp_path / "second", postgres_url, f"process {program.process.pid}")
        rig.begin()
        rig.kill_under_load(program, 20)
    with rig.running() as program:
        assert user.json("account", "show")["balances"] == {"ucredit": "999000000"}
        with NodeClient(rig.url) as client:
            market = Remote(client)
            offer(market)  # type: ignore[arg-type]
            deploy(market, 1)  # type: ignore[arg-type]
            (lease,) = client.leases(owner=address(TENANT))
            activate(market, lease)  # type: ignore[arg-type]
            assert client.lease(lease["id"])["state"] == "active"
            rig.kill_under_load(program, 20)
    with rig.running(), NodeClient(rig.url) as client:
        rig.finish()
        market = Remote(client)
        assert client.lease(lease["id"])["state"] == "active"
        market.done(TENANT, CloseDeployment(dseq=1))
        market.done(PROVIDER, Release(clean=True, generation=1, lease=lease["id"]))
        closed, purse = client.lease(lease["id"]), client.purse(f"{address(TENANT)}/1")
        rate, up_ms = int(closed["rate_per_hour"]), int(closed["up_ms"])
        assert int(closed["paid"]) == rate * up_ms // 3_600_000
        assert int(purse["paid"]) + int(purse["refunded"]) == 5_000_000
        assert user.json("ledger", "verify")["verified"] is True
        assert mine in user.ok("ledger", "prove", f"account/{mine}")


def _refused(home: Path, url: str, words: str) -> None:
    """A second node on the same database gives one clear line: who has it, and what to do."""
    second = User(home).run("node", "start", "--dev", "--listen", "127.0.0.1:0", "--database", url)
    assert second.returncode == 5
    assert "is in use by" in second.stderr
    assert words in second.stderr
    assert "stop the other node" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_writer_that_lost_its_lock_cannot_fork_the_chain(postgres_url: str) -> None:
    """Where only the lock's connection breaks another node may begin; the first one's next block ends it, and adds nothing."""
    first = Engine.open(postgres_url, genesis(), [])
    assert send(first, transfer(first)).ok
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted")
    second = Engine.open(postgres_url, None, [])
    try:
        assert send(second, transfer(second)).ok
        with pytest.raises(Indeterminate):
            send(first, transfer(first))
        first.close()
        assert send(second, transfer(second)).ok
        heights = [block.header.height for block in second.blocks(1, 10)]
        parents = [block.header.parent for block in second.blocks(1, 10)]
        hashes = [block.header.hash for block in second.blocks(1, 10)]
        assert heights == [1, 2, 3]
        assert parents[1:] == hashes[:-1]
    finally:
        second.close()


@pytest.mark.parametrize(
    "url", ["mysql://someone:hidden@host/name", "sqlite:///relative.db", "/tmp/chain.db", "postgresql://u:hidden@host:port/x"]
)
def test_what_is_no_database_is_refused(tmp_path: Path, url: str) -> None:
    """Another kind of database, a relative file, a misspelt URL: one line that says what it may be, without the password."""
    done = User(tmp_path).run("node", "start", "--dev", "--listen", "127.0.0.1:0", "--database", url)
    assert done.returncode == 2
    assert "postgresql://" in done.stderr
    assert "hidden" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "node" / "genesis.json").exists()


def test_a_server_that_goes_away_ends_the_node(tmp_path: Path, postgres_url: str) -> None:
    """Where the database server ends its connections the node leaves with 1 and says so; it starts again where it was."""
    start = ("node", "start", "--dev", "--listen", "127.0.0.1:0", "--database", postgres_url)
    with Program(start, tmp_path) as program:
        url = program.line("ready ").split()[1]
        with NodeClient(url) as client:
            receipt = client.faucet(address(1))
            with psycopg.connect(postgres_url, autocommit=True) as connection:
                others = "pid <> pg_backend_pid() AND datname = current_database()"
                connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
            with pytest.raises((ApiError, Unreachable)):
                client.faucet(address(2))
        assert program.wait() == 1
        assert "the ledger stopped" in program.stderr
        assert "the database" in program.stderr
    with Program(start, tmp_path) as program, NodeClient(program.line("ready ").split()[1]) as client:
        assert client.transaction(receipt["id"])["code"] == 0
