"""Keys in files are sealed, checked, and never lost."""

import json
import resource
from pathlib import Path

import pytest

from ledger import keystore as module
from ledger.keystore import Keystore, KeystoreError
from ledger.mnemonic import generate, seed_of, slip10
from ledger.protocol import keys

SEED = bytes(range(32))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keystore:
    """A keystore whose key derivation is cheap."""
    monkeypatch.setattr(module, "ARGON2", {"lanes": 1, "memory_kib": 64, "time": 1})
    return Keystore(tmp_path / "keys")


def test_a_key_opens_with_its_passphrase_alone(store: Keystore) -> None:
    """The right passphrase gives the seed back; another one, or none, is refused."""
    info = store.add("alice", seed=SEED, passphrase="correct horse")

    assert store.unlock("alice", "correct horse") == SEED
    assert info.address == keys.address_of(keys.public_key(SEED))
    for wrong in ("correct horse ", "", None):
        with pytest.raises(KeystoreError, match="passphrase"):
            store.unlock("alice", wrong)


def test_the_secret_is_not_in_the_file(store: Keystore) -> None:
    """Neither seed nor passphrase stand in a sealed file, and only its owner can read it."""
    store.add("alice", seed=SEED, passphrase="correct horse")
    path = store.folder / "alice.json"

    assert SEED.hex() not in path.read_text()
    assert "correct" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert store.folder.stat().st_mode & 0o777 == 0o700


def test_any_changed_character_is_found(store: Keystore) -> None:
    """A file with any one character changed is refused, whatever it says."""
    store.add("alice", seed=SEED, passphrase="p")
    path = store.folder / "alice.json"
    text = path.read_text()

    for position in range(0, len(text)):
        flipped = text[:position] + chr(ord(text[position]) ^ 1) + text[position + 1 :]
        path.write_text(flipped)
        try:
            same = json.loads(flipped) == json.loads(text)
        except ValueError:
            same = False
        if same:
            continue  # only the space between tokens changed
        with pytest.raises(KeystoreError):
            store.unlock("alice", "p")


def test_a_file_that_others_can_read_is_refused(store: Keystore) -> None:
    """A loose mode is an error that says how to mend it."""
    store.add("alice", seed=SEED, passphrase=None)
    (store.folder / "alice.json").chmod(0o640)

    with pytest.raises(KeystoreError) as caught:
        store.unlock("alice", None)
    assert caught.value.fix.startswith("chmod 600")


def test_an_existing_key_is_never_replaced(store: Keystore) -> None:
    """A second key of the same name is refused and the first one stays."""
    store.add("alice", seed=SEED, passphrase=None)

    with pytest.raises(KeystoreError, match="exists"):
        store.add("alice", passphrase=None)
    assert store.unlock("alice", None) == SEED


def test_a_new_passphrase_replaces_the_old_one(store: Keystore) -> None:
    """After the change only the new passphrase opens the key, and nothing else lies in the folder."""
    store.add("alice", seed=SEED, passphrase="old")

    store.replace_passphrase("alice", SEED, "new")

    assert store.unlock("alice", "new") == SEED
    with pytest.raises(KeystoreError):
        store.unlock("alice", "old")
    assert [path.name for path in store.folder.iterdir()] == ["alice.json"]


def test_costly_parameters_are_refused(store: Keystore) -> None:
    """A file that asks for more memory or time than the bound is refused before any work."""
    store.add("alice", seed=SEED, passphrase="p")
    path = store.folder / "alice.json"
    body = json.loads(path.read_text())
    body["kdf_parameters"]["memory_kib"] = 2**40
    path.write_text(json.dumps(body))

    with pytest.raises(KeystoreError, match="not a key file"):
        store.unlock("alice", "p")


@pytest.mark.parametrize("name", ["", "../x", "A", "a b", "x" * 33, "-x"])
def test_names_are_bounded(store: Keystore, name: str) -> None:
    """A name cannot leave the folder or grow without bound."""
    with pytest.raises(KeystoreError):
        store.add(name, passphrase=None)


def test_words_give_the_key_back() -> None:
    """24 words lead to the same key again, and a mistyped word is refused."""
    words = generate()

    assert seed_of(words) == seed_of(f"  {words}  ")
    with pytest.raises(KeystoreError):
        seed_of(words.rsplit(" ", 1)[0] + " gpubid")


def test_slip10_vectors() -> None:
    """Test vector 1 of SLIP-10 for Ed25519: master key and m/0'/1'."""
    seed = bytes.fromhex("000102030405060708090a0b0c0d0e0f")

    assert slip10(seed, ()).hex() == "2b4be7f19ee27bbf30c667b642d5f4aa69fd169872f8fc3059c08ebae2eb19e7"
    assert slip10(seed, (0,)).hex() == "68e0fe46dfb67e368c75379acec591dad19df3cde26e63b93a8e704f1dade7a3"
    assert slip10(seed, (0, 1)).hex() == "b1d0bad404bf35da785a64ca1ac54b2617211d2777696fbffaf208f746ae84f2"


def test_a_key_can_act_for_another_account(store: Keystore) -> None:
    """What it acts for is sealed with the key, survives a new passphrase, and is found where it was changed by hand."""
    store.add("alice", seed=SEED, passphrase="p")
    other = keys.address_of(keys.public_key(b"\x09" * 32))
    assert store.act_for("alice", "p", other).address == other
    store.replace_passphrase("alice", SEED, "q")
    assert store.info("alice").address == other
    assert store.unlock("alice", "q") == SEED
    path = store.folder / "alice.json"
    path.write_text(path.read_text().replace(other, keys.address_of(keys.public_key(SEED))))
    with pytest.raises(KeystoreError):
        store.unlock("alice", "q")


def test_an_open_key_leaves_no_core_file(store: Keystore) -> None:
    """A process that has opened a key writes no core file, which would hold the seed."""
    store.add("alice", seed=SEED, passphrase=None)
    store.unlock("alice", None)
    assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
