"""Parts of a node's home that are gone or damaged: one clear line that says what to do, and never a second chain of one name."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from marketplace.client import NodeClient
from tests.marketplace.node.serving import address
from tests.processes import Program, User

pytestmark = [pytest.mark.process, pytest.mark.slow]

START = ("node", "start", "--dev", "--listen", "127.0.0.1:0")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose node was killed with a transaction acknowledged."""
    home = tmp_path_factory.mktemp("home")
    with Program(START, home) as program:
        with NodeClient(program.line("ready ").split()[1]) as client:
            client.faucet(address(1))
        program.kill()
    with sqlite3.connect(home / "node" / "chain.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return home


def _database_gone(node: Path) -> None:
    for path in node.glob("chain.db*"):
        path.unlink()


LOSSES: dict[str, tuple[Callable[[Path], None], str]] = {
    "its database": (_database_gone, "its database is gone"),
    "what is in it": (lambda node: (node / "chain.db").write_bytes(b""), "its database is gone"),
    "genesis": (lambda node: (node / "genesis.json").unlink(), "genesis.json is gone"),
    "sense of the genesis": (lambda node: (node / "genesis.json").write_text("{"), "is no genesis"),
    "head of the database": (lambda node: _overwrite(node / "chain.db"), "the ledger is damaged"),
}


def _overwrite(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(b"XXXX" + data[4:])


@pytest.mark.parametrize("what", sorted(LOSSES))
def test_what_is_lost_is_named(home: Path, tmp_path: Path, what: str) -> None:
    """The node does not start, says what is gone and to restore it, and leaves the home as it was."""
    shutil.copytree(home, tmp_path / "copy")
    node = tmp_path / "copy" / "node"
    change, words = LOSSES[what]
    change(node)
    before = (node / "genesis.json").exists()
    done = User(tmp_path / "copy").run(*START)
    assert done.returncode == 1, done.stderr
    assert words in done.stderr
    assert "restore" in done.stderr
    assert "Traceback" not in done.stderr
    assert (node / "genesis.json").exists() == before


def test_the_whole_home_starts_again(home: Path, tmp_path: Path) -> None:
    """With everything in its place the same chain goes on."""
    shutil.copytree(home, tmp_path / "copy")
    with Program(START, tmp_path / "copy") as program, NodeClient(program.line("ready ").split()[1]) as client:
        assert client.account(address(1))["balances"]["ucredit"] == "1000000000"
