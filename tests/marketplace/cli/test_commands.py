"""The commands of the market's package, as a user types them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.marketplace.cli.typist import Typist
from tests.marketplace.node.listening import listening
from tests.marketplace.node.serving import address


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a node of a new development chain."""
    with listening(tmp_path_factory.mktemp("cli")) as live:
        yield live.url


def test_money_moves(node: str, tmp_path: Path) -> None:
    """Faucet, show, transfer, delegate and revoke do what they say; mistakes have their exit codes and a fix."""
    user = Typist(tmp_path, node)
    own, other = user.key(), user.key("other")
    missing = user.run("account", "show")
    assert missing.returncode == 3
    assert "faucet" in missing.stderr
    user.ok("account", "faucet")
    assert user.json("account", "show")["balances"] == {"ucredit": "1000000000"}
    user.ok("account", "transfer", other, "1.5")
    assert user.json("account", "show", other)["balances"] == {"ucredit": "1500000"}
    assert "998.500000" in user.ok("account", "show")
    assert "2000 at most), 12000 a minute" in user.ok("account", "show")
    poor = user.run("account", "transfer", own, "2", "--from", "other")
    assert poor.returncode == 5
    assert "→" in poor.stderr
    for bad in ("x", "-1", "1.0000001", "1e3"):
        assert user.run("account", "transfer", "--", other, bad).returncode == 2
    user.ok("account", "delegate", "other", "--verb", "Transfer", "--per-day", "1")
    assert user.json("account", "show")["delegations"][0]["verbs"] == ["Transfer"]
    user.ok("account", "revoke", "other")
    assert user.json("account", "show")["delegations"] == []
    assert user.run("account", "deposit", "1", "1").returncode == 3


def test_an_upgrade_is_planned_by_hand(tmp_path: Path) -> None:
    """Governance plans it with `tx`; the status tells of it, and an older message goes on until then."""
    with listening(tmp_path / "chain") as live:
        operator, user = Typist(tmp_path / "chain", live.url), Typist(tmp_path, live.url)
        known = user.json("node", "status")
        assert (known["protocol"], known["upgrade_height"]) == (known["protocol_known"], 0)
        plan = json.dumps({"type": "Upgrade", "height": 10**6, "protocol": known["protocol"] + 1})
        (tmp_path / "plan").write_text(operator.ok("tx", "create", plan, "--from", "faucet"))
        (tmp_path / "signed").write_text(operator.ok("tx", "sign", str(tmp_path / "plan"), "--from", "faucet"))
        user.ok("tx", "send", str(tmp_path / "signed"))
        found = user.json("node", "status")
        assert (found["upgrade_height"], found["upgrade_protocol"]) == (10**6, known["protocol"] + 1)
        assert found["protocol"] == known["protocol"]
        user.key()
        assert user.run("tx", "create", plan).returncode == 0
        user.ok("account", "faucet")


def test_the_market_lists(node: str, tmp_path: Path) -> None:
    """Every list prints as a table and as JSON, empty too."""
    user = Typist(tmp_path, node)
    for what in ("bids", "orders", "leases", "providers", "hosts"):
        assert user.json("market", what) == []
        assert user.ok("market", what).isupper()


def test_the_chain_verifies(node: str, tmp_path: Path) -> None:
    """The node's chain replays from genesis; an export does too, and a changed one does not; proofs and checkpoints hold."""
    user = Typist(tmp_path, node)
    own = user.key()
    user.ok("account", "faucet")
    found = user.json("ledger", "verify")
    assert found["verified"] is True
    export = tmp_path / "chain.export"
    user.ok("ledger", "export", str(export))
    assert user.run("ledger", "export", str(export)).returncode == 5
    assert user.json("ledger", "replay", str(export))["height"] >= found["height"]
    data = bytearray(export.read_bytes())
    data[len(data) // 2] ^= 1
    export.write_bytes(data)
    changed = user.run("ledger", "verify", str(export))
    assert changed.returncode == 1
    assert "Traceback" not in changed.stderr
    proved = user.json("ledger", "prove", f"account/{own}")
    assert json.loads(proved["proof"]["value"])["address"] == own
    assert user.json("ledger", "prove", "account/nobody")["proof"]["value"] is None
    assert user.json("ledger", "checkpoint")["checkpoint"]["height"] >= 1


def test_no_node(tmp_path: Path) -> None:
    """Without a node every command says so with exit code 7."""
    user = Typist(tmp_path, "http://127.0.0.1:1")
    for command in (("node", "status"), ("market", "bids"), ("ledger", "checkpoint"), ("account", "show", address(1))):
        done = user.run(*command)
        assert done.returncode == 7, done.stderr
        assert "Traceback" not in done.stderr


def test_slips_are_named(node: str, tmp_path: Path) -> None:
    """What is no address, deployment, message or transaction is told from its form, with what to give instead: exit code 2."""
    user = Typist(tmp_path, node)
    user.key()
    user.ok("account", "faucet")
    (tmp_path / "bad").write_text("not a transaction")
    for words, says in (
        (("account", "transfer", "abc", "1"), "'abc' is no address"),
        (("account", "show", "abc"), "'abc' is no address"),
        (("account", "faucet", "--to", "abc"), "'abc' is no address"),
        (("account", "transfer", address(1), "1", "--principal", "abc"), "'abc' is no address"),
        (("provider", "bond", "show", "abc"), "'abc' is no address"),
        (("account", "deposit", "x", "1"), "'x' names no deployment"),
        (("account", "withdraw", "abc/5", "1"), "'abc' is no address"),
        (("account", "delegate", "default", "--verb", "Transfre"), "perhaps Transfer"),
        (("provider", "release", "abc"), "'abc' names no lease"),
        (("lease", "show", "a/1/1/1/b"), "names no lease"),
        (("lease", "show", "9" * 20), "names no lease"),
        (("lease", "close", "9" * 20), "names no deployment"),
        (("tx", "send", str(tmp_path / "bad")), "not a signed transaction"),
        (("ledger", "export", str(tmp_path / "none" / "x")), "there is no folder"),
        (("ledger", "snapshot", str(tmp_path / "none" / "x")), "there is no folder"),
        (("market", "bids", "--node", "nowhere"), "not the URL of a node"),
    ):
        done = user.run(*words)
        assert (done.returncode, says in done.stderr, "→" in done.stderr) == (2, True, True), (words, done)
    assert user.run("lease", "show", "77").stderr.count("→ see gpubid lease list") == 1
    assert "nothing is to be paid" in user.run("provider", "payout").stderr


def test_a_node_needs_right_settings(tmp_path: Path) -> None:
    """A wrong setting, an unknown variable, a bad file and a bad genesis are refused before anything is started."""
    wrong = Typist(tmp_path).run("node", "start", "--dev", "--listen", "nowhere")
    unknown = Typist(tmp_path, GPUBID_NODE_LISTNE="127.0.0.1:0").run("node", "start", "--dev")
    assert "GPUBID_NODE_LISTNE" in unknown.stderr
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "node.toml").write_text("listn = 1")
    file = Typist(tmp_path).run("node", "start", "--dev")
    for done in (wrong, unknown, file):
        assert done.returncode == 2
        assert "→" in done.stderr


def test_a_chain_by_init(tmp_path: Path) -> None:
    """`node init` writes a genesis once, and only one that a machine can start from."""
    user = Typist(tmp_path)
    issuer = user.key()
    given = ("--issuer", issuer, "--governance", issuer, "--allocate", f"{issuer}=5000000")
    assert user.run("node", "init", "--chain-id", "UPPER", *given).returncode == 2
    assert user.run("node", "init", "--chain-id", "test-1", *given[:-1], f"{issuer}=x").returncode == 2
    user.ok("node", "init", "--chain-id", "test-1", *given)
    assert (tmp_path / "node" / "genesis.json").exists()
    assert user.run("node", "init", "--chain-id", "test-1", *given).returncode == 5
