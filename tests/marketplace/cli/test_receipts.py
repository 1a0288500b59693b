"""`gpubid ledger verify` with what is kept: a node that cut off, forked or rewrote its chain is convicted, with both hashes."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ledger.engine.embedded import Engine
from ledger.notebook import Notebook
from ledger.protocol.encoding import encode
from ledger.protocol.genesis import Genesis
from ledger.protocol.keys import public_key
from ledger.protocol.messages import Mint
from ledger.protocol.receipts import SignedReceipt, sign_checkpoint, sign_receipt
from marketplace.market.module import Market
from marketplace.node import home as homes
from tests.ledger import independent
from tests.marketplace.cli.typist import Typist
from tests.marketplace.node.listening import listening
from tests.marketplace.node.serving import address, signed

NODE = b"\x07" * 32
KEY = public_key(NODE).hex()


@dataclass
class Forks:
    """Two chains of one genesis and one node's key, as exports, and what the node signed about each."""

    chain_id: str
    honest: Path
    forged: Path
    short: Path
    receipts: list[SignedReceipt]
    forged_receipts: list[SignedReceipt]


def _chain(folder: Path, name: str, genesis: Genesis, amounts: tuple[int, ...]) -> list[SignedReceipt]:
    """A chain that mints amounts, exported as `name`; its receipts."""
    engine = Engine.open(f"sqlite:///{folder}/{name}.db", genesis, [Market()])
    try:
        found = []
        for amount in amounts:
            message = Mint(amount=str(amount), denomination="ucredit", to=address(2))
            receipt = engine.submit(signed(genesis.chain_id, engine.now_ms(), 1, message)).result(60)
            assert receipt.ok, receipt
            found.append(sign_receipt(receipt, engine.head, NODE, KEY))
        engine.export(folder / name)
        (folder / f"{name}.checkpoint").write_bytes(encode(sign_checkpoint(engine.head, NODE, KEY)))
        return found
    finally:
        engine.close()


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Forks:
    """Made once."""
    folder = tmp_path_factory.mktemp("forks")
    made = homes.development_genesis(folder)
    genesis = Genesis(
        chain_id="fork-1",
        denominations=(type(made.denominations[0])(issuer=address(1), name="ucredit"),),
        governance=address(1),
        time_ms=made.time_ms,
        allocations=(type(made.allocations[0])(address=address(1), amount="1000", denomination="ucredit"),),
    )
    honest = _chain(folder, "honest", genesis, (1, 2, 3))
    forged = _chain(folder, "forged", genesis, (1, 2, 4))
    lines = (folder / "honest").read_bytes().splitlines(keepends=True)
    header = json.loads(lines[2])["header"]
    end = {"hash": honest[1].receipt.hash, "height": header["height"]}
    (folder / "short").write_bytes(b"".join([*lines[:3], encode(end) + b"\n"]))
    return Forks("fork-1", folder / "honest", folder / "forged", folder / "short", honest, forged)


def keeper(home: Path, receipts: list[SignedReceipt]) -> Typist:
    """A user who kept receipts."""
    book = Notebook(home)
    for receipt in receipts:
        book.keep(receipt)
    return Typist(home)


def test_the_honest_chain_is_borne_out(forks: Forks, tmp_path: Path) -> None:
    """Every kept receipt and a signed checkpoint stand in the chain: nothing to say."""
    user = keeper(tmp_path, forks.receipts)
    checkpoint = forks.honest.with_suffix(".checkpoint")
    found = user.json("ledger", "verify", str(forks.honest), "--key", KEY, "--checkpoint", str(checkpoint))
    assert (found["verified"], found["statements"], found["evidence"]) == (True, 4, [])


def test_a_chain_cut_short_is_found(forks: Forks, tmp_path: Path) -> None:
    """A chain without its last block verifies in itself; the kept receipt of that block is missing in it."""
    assert Typist(tmp_path / "stranger").json("ledger", "verify", str(forks.short))["height"] == 2
    user = keeper(tmp_path, forks.receipts)
    done = user.run("ledger", "verify", str(forks.short), "-o", "json")
    assert done.returncode == 1
    (item,) = json.loads(done.stdout)["evidence"]
    last = forks.receipts[2].receipt
    assert (item["transaction"], item["height"], item["signed_hash"], item["other_hash"]) == (last.id, 3, last.hash, "")
    assert "cut short" in done.stderr
    assert user.json("ledger", "verify", str(forks.short), "--older")["verified"] is True
    assert user.run("ledger", "verify", str(forks.short), "--key", "0" * 64).returncode == 0


def test_a_rewritten_chain_convicts_its_node(forks: Forks, tmp_path: Path) -> None:
    """A chain that was written anew verifies in itself; a receipt of the first one convicts: transaction and both hashes."""
    user = keeper(tmp_path, forks.receipts[:1])
    done = user.run("ledger", "verify", str(forks.forged), "--receipts", str(forks.forged.with_suffix(".checkpoint")))
    assert done.returncode == 1
    one, other = forks.receipts[0].receipt, forks.forged_receipts[0].receipt
    for words in (one.id, one.hash, other.hash, "the chain has another block at that height"):
        assert words in done.stdout
    assert f"convict the node of key {KEY}" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_statements_convict_without_any_chain(forks: Forks, tmp_path: Path) -> None:
    """Receipts of both chains by one key contradict each other, whichever chain is shown."""
    user = keeper(tmp_path, [*forks.receipts[:1], *forks.forged_receipts[:1]])
    for export in (forks.honest, forks.forged):
        done = user.run("ledger", "verify", str(export), "-o", "json")
        assert done.returncode == 1
        found = json.loads(done.stdout)["evidence"]
        assert sorted(len(item["statements"]) for item in found) == [1, 2]
        assert "two different blocks of one height" in {item["why"] for item in found}
    damaged = tmp_path / "damaged"
    damaged.write_bytes(forks.honest.read_bytes()[:-5])
    done = user.run("ledger", "verify", str(damaged))
    assert done.returncode == 1
    assert "cut short" in done.stderr
    assert "two different blocks of one height" in done.stdout


def test_wrong_words_are_answered(forks: Forks, tmp_path: Path) -> None:
    """A statement by another key or of another chain, a forged one and a file that is none are refused before anything else."""
    user = keeper(tmp_path, [])
    forged, none = tmp_path / "forged", tmp_path / "none"
    forged.write_bytes(encode(forks.receipts[0]).replace(b'"height":1', b'"height":2'))
    none.write_text("{}\n")
    checkpoint = str(forks.honest.with_suffix(".checkpoint"))
    for arguments, code, words in (
        (("--key", "0" * 64, "--checkpoint", checkpoint), 4, KEY),
        (("--receipts", str(forged)), 4, "forged"),
        (("--receipts", str(none)), 2, "no signed receipt"),
    ):
        done = user.run("ledger", "verify", str(forks.honest), *arguments)
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a node of a new development chain."""
    with listening(tmp_path_factory.mktemp("cli")) as live:
        yield live.url


def test_commands_keep_receipts(node: str, tmp_path: Path) -> None:
    """What a terminal sends leaves a receipt, which is listed, shown, checked offline, and accepted by a stranger's verifier."""
    user = Typist(tmp_path / "home", node)
    own = user.key()
    user.ok("account", "faucet")
    sent = user.ok("account", "transfer", address(2), "1", "-o", "name").strip()
    assert user.run("account", "transfer", address(2), "100000").returncode == 5
    listed = user.json("ledger", "receipt", "list")
    assert [s["receipt"]["code"] for s in listed] == [0, 0, 200]
    assert listed[1]["receipt"]["id"] == sent
    path = tmp_path / "receipt.json"
    path.write_text(user.ok("ledger", "receipt", "show", sent, "-o", "json"))
    assert independent.signed(json.loads(path.read_text()))
    assert "signature    good" in user.ok("ledger", "receipt", "verify", str(path))
    stranger = Typist(tmp_path / "stranger", node)
    assert stranger.run("ledger", "receipt", "verify", str(path)).returncode == 4
    assert stranger.ok("ledger", "receipt", "verify", str(path), "--key", listed[0]["node_key"])
    assert stranger.json("ledger", "receipt", "show", sent)["receipt"]["id"] == sent
    assert stranger.run("ledger", "receipt", "show", "0" * 64).returncode == 3
    found = user.json("ledger", "verify")
    assert found["verified"] is True
    assert found["statements"] == 4  # three receipts, and the checkpoint that it asked for
    assert user.json("ledger", "prove", "account", own)["proof"]["key"] == f"account/{own}"


def test_a_changed_key_is_refused_until_it_is_accepted(node: str, tmp_path: Path) -> None:
    """A node whose key is not that of the first meeting is refused by every command that sends; `node trust` accepts it."""
    user = Typist(tmp_path, node)
    user.key()
    user.ok("account", "faucet")
    (met,) = user.json("node", "known")
    path = tmp_path / "known_nodes"
    path.write_text(path.read_text().replace(met["key"], "a" * 64))
    for command in (
        ("account", "faucet"),
        ("account", "transfer", address(2), "1"),
        ("ledger", "checkpoint"),
        ("ledger", "verify"),
    ):
        done = user.run(*command)
        assert (done.returncode, "signs with another key" in done.stderr) == (4, True), done.stderr
    assert user.run("node", "trust", "b" * 64).returncode == 5
    user.ok("node", "trust", met["key"])
    user.ok("account", "transfer", address(2), "1")
