"""Keys that are kept elsewhere, delegated, or replaced: what a user types, on a real node."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger import keystore
from tests.marketplace.cli.typist import Typist
from tests.marketplace.node.listening import listening
from tests.marketplace.node.serving import address
from tests.tenant.deploy.scene import SDL

NOWHERE = "http://127.0.0.1:1"
WORD = "a word of the tests"


@pytest.fixture(autouse=True)
def cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deriving a key from a passphrase costs little."""
    monkeypatch.setattr(keystore, "ARGON2", {"lanes": 1, "memory_kib": 64, "time": 1})


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a node of a new development chain."""
    with listening(tmp_path_factory.mktemp("node")) as live:
        yield live.url


def file(path: Path, *texts: str) -> str:
    """A file of the texts one after the other."""
    path.write_text("".join(texts))
    return str(path)


def test_an_offline_key_signs_several_in_order(node: str, tmp_path: Path) -> None:
    """Written where there is no key, signed where there is no node, sent in order: each is applied once, however often sent."""
    online, vault = Typist(tmp_path / "online", node), Typist(tmp_path / "vault", NOWHERE)
    own = vault.key()
    key = vault.json("keys", "show")["key"]
    online.ok("account", "faucet", "--to", own)
    pay = ("account", "transfer", address(3), "--generate-only", "--signer", key)
    transfer = json.dumps({"type": "Transfer", "amount": "4", "denomination": "ucredit", "to": address(3)})
    lines = [
        online.ok(*pay, "1"),
        online.ok(*pay, "2", "--sequence", "2"),
        online.ok("tx", "create", "--offline", "--each", "--sequence", "3", "--signer", key, transfer, transfer),
    ]
    assert json.loads(lines[0])["sequence"] == 1
    assert json.loads(lines[0])["principal"] == own
    unsigned = file(tmp_path / "unsigned", *lines)
    assert vault.ok("tx", "show", unsigned).count('"signed": false') == 4
    signed = file(tmp_path / "signed", vault.ok("tx", "sign", unsigned))
    assert vault.ok("tx", "show", signed).count('"signature_is_good": true') == 4
    texts = Path(signed).read_text().splitlines(keepends=True)
    early = online.run("tx", "send", file(tmp_path / "early", texts[3]))
    assert early.returncode == 5
    assert "bad sequence: the next sequence is 1" in early.stderr
    partly = online.run("tx", "send", file(tmp_path / "partly", texts[0], texts[2], texts[1]), "-o", "name")
    assert partly.returncode == 5
    assert len(partly.stdout.splitlines()) == 1
    assert "1 of 3" in partly.stderr
    sent = online.json("tx", "send", signed)
    assert [receipt["code"] for receipt in sent] == [0, 0, 0, 0]
    assert online.json("tx", "send", signed) == sent
    assert online.json("account", "show", address(3))["balances"] == {"ucredit": "3000008"}
    assert online.json("account", "show", own)["sequence"] == 4
    kept = {receipt["receipt"]["id"] for receipt in online.json("ledger", "receipt", "list")}
    assert {receipt["id"] for receipt in sent} <= kept
    assert online.json("ledger", "verify")["verified"] is True


def test_wrong_words_offline_are_answered(node: str, tmp_path: Path) -> None:
    """A signer that is no key, one that cannot sign here, the wrong key, and an empty file are each refused with what to do."""
    user = Typist(tmp_path, node)
    user.key()
    user.key("other")
    user.ok("account", "faucet")
    made = file(tmp_path / "made", user.ok("account", "transfer", address(3), "1", "--generate-only"))
    for arguments, code in (
        (("account", "transfer", address(3), "1", "--generate-only", "--signer", "x"), 2),
        (("account", "transfer", address(3), "1", "--signer", "a" * 64), 2),
        (("tx", "sign", made, "--from", "other"), 2),
        (("tx", "sign", file(tmp_path / "empty", "\n")), 2),
        (("tx", "send", made), 2),
        (("tx", "sign", str(tmp_path / "missing")), 2),
    ):
        done = user.run(*arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_a_delegated_key_does_what_it_may(node: str, tmp_path: Path) -> None:
    """It acts for the account within its verbs and its spend a day, by --principal or for good by act-for, until revoked."""
    user = Typist(tmp_path, node)
    own = user.key()
    host = user.key("host")
    user.ok("account", "faucet")
    user.ok("account", "delegate", "host", "--verb", "Transfer", "--per-day", "1", "--days", "1")
    user.ok("account", "transfer", address(4), "0.6", "--from", "host", "--principal", own)
    assert user.json("keys", "act-for", "host", own)["address"] == own
    user.ok("account", "transfer", address(4), "0.3", "--from", "host")
    assert user.json("account", "show", "--from", "host")["address"] == own
    over = user.run("account", "transfer", address(4), "0.3", "--from", "host")
    assert (over.returncode, "spend limit" in over.stderr) == (5, True)
    assert user.run("account", "delegate", "other" * 8 + "a" * 24, "--verb", "*", "--from", "host").returncode != 0
    assert user.run("account", "withdraw", "1", "1", "--from", "host").returncode == 4
    user.ok("account", "revoke", "host")
    assert user.run("account", "transfer", address(4), "0.01", "--from", "host").returncode == 4
    assert user.json("account", "show", address(4))["balances"] == {"ucredit": "900000"}
    assert user.json("keys", "act-for", "host", host)["address"] == host
    assert user.run("keys", "act-for", "host", "gpu1nonsense").returncode == 2


def test_an_account_gets_a_new_key(node: str, tmp_path: Path) -> None:
    """After the rotation the new key acts for the same address, under its passphrase, and the old one may do nothing."""
    word = tmp_path / "word"
    word.write_text(WORD + "\n")
    word.chmod(0o600)
    user = Typist(tmp_path / "home", node, GPUBID_PASSPHRASE_FILE=str(word))
    own = user.key()
    user.ok("account", "faucet")
    user.ok("keys", "add", "new")
    rotated = user.run("account", "rotate", "new")
    assert rotated.returncode == 0, rotated.stderr
    assert "--from new" in rotated.stderr
    assert user.run("account", "transfer", address(5), "1").returncode == 4
    user.ok("account", "transfer", address(5), "1", "--from", "new")
    shown = user.json("keys", "show", "new")
    assert (shown["address"], shown["encrypted"]) == (own, True)
    assert user.json("account", "show", "--from", "new")["key"] == shown["key"]


def test_a_passphrase_comes_from_a_systemd_credential(tmp_path: Path) -> None:
    """The credential opens the key, also with the group's right that an access list shows as; never one that all may read."""
    credential = tmp_path / "credentials" / "gpubid-passphrase"
    credential.parent.mkdir()
    credential.write_text(WORD)
    user = Typist(tmp_path / "home", NOWHERE, CREDENTIALS_DIRECTORY=str(credential.parent))
    for mode, code in ((0o400, 0), (0o440, 0), (0o444, 2), (0o460, 2)):
        credential.chmod(mode)
        done = user.run("keys", "add", f"key-{mode:o}")
        assert done.returncode == code, done.stderr
    named = Typist(tmp_path / "home", NOWHERE, GPUBID_PASSPHRASE_FILE=str(credential))
    credential.chmod(0o440)
    assert named.run("keys", "add", "named").returncode == 2
    new = tmp_path / "new"
    new.write_text("another word\n")
    credential.chmod(0o400)
    assert user.run("keys", "passphrase", "key-400", "--new-passphrase-file", str(new)).returncode == 2
    new.chmod(0o600)
    user.ok("keys", "passphrase", "key-400", "--new-passphrase-file", str(new))


def test_every_command_that_signs_can_be_written_elsewhere(node: str, tmp_path: Path) -> None:
    """With sequence and chain given no node is asked, nothing is sent, and standard output has the transaction alone."""
    user = Typist(tmp_path / "home", NOWHERE)
    own = user.key()
    user.key("next")
    given = ("--generate-only", "--sequence", "7", "--chain-id", "chain-1")
    money = ("--denomination", "ucredit")
    sdl = file(tmp_path / "app.yaml", SDL)
    for words, kind in (
        (("account", "transfer", address(3), "1", *money), "Transfer"),
        (("account", "deposit", "5", "1"), "Deposit"),
        (("account", "withdraw", "5", "1"), "Withdraw"),
        (("account", "delegate", "next", "--verb", "*"), "Delegate"),
        (("account", "revoke", "next"), "Revoke"),
        (("account", "rotate", "next"), "RotateKey"),
        (("provider", "bond", "post", "1", *money), "PostBond"),
        (("provider", "bond", "withdraw", "1", *money), "WithdrawBond"),
        (("deploy", sdl), "CreateDeployment"),
        (("lease", "close", "5"), "CloseDeployment"),
        (("lease", "close", f"{own}/5/1/1/{address(3)}"), "CloseGroup"),
    ):
        made = json.loads(user.ok(*words, *given))
        assert (made["chain_id"], made["sequence"], made["principal"]) == ("chain-1", 7, own), words
        assert [message["type"] for message in made["messages"]] == [kind]
    assert user.json("keys", "show", "next")["address"] != own
    unknown = user.run("account", "transfer", address(3), "1", *given)
    assert (unknown.returncode, "--denomination" in unknown.stderr) == (2, True)
    online = Typist(tmp_path / "home", node)
    online.ok("account", "faucet")
    for words in (("account", "rotate", "next"), ("provider", "bond", "post", "1"), ("deploy", sdl), ("lease", "close", "5")):
        done = online.run(*words, "--signer", "a" * 64)
        assert (done.returncode, "--generate-only" in done.stderr) == (2, True), (words, done.stderr)
    assert online.json("account", "show")["sequence"] == 0
