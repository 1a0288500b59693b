"""`node restore --trust FILE`: a snapshot is held against what a node signed; every way in which that can be wrong is named."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from ledger.protocol.encoding import encode
from ledger.protocol.receipts import CheckpointStatement, SignedCheckpoint, statement_bytes
from tests.ledger.machine.chain import CAT
from tests.marketplace.cli.typist import Done, Typist
from tests.marketplace.node.listening import listening


@dataclass(frozen=True)
class Scene:
    """A snapshot, the genesis' hash, the signed checkpoints of three blocks about it, and the key that signed them."""

    folder: Path
    url: str
    genesis: str
    height: int
    key: str
    signed: dict[int, dict[str, object]]

    def restore(self, home: Path, statement: object, *more: str) -> Done:
        """Restore in a home with what a file says."""
        home.mkdir(exist_ok=True)
        path = home / "checkpoint"
        path.write_bytes(statement if isinstance(statement, bytes) else json.dumps(statement).encode())
        arguments = ("--trust", str(path), "--genesis", self.genesis, *more)
        return Typist(home).run("node", "restore", str(self.folder / "snapshot"), *arguments)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A chain of which a snapshot was taken before it went on."""
    folder = tmp_path_factory.mktemp("restore")
    with listening(folder / "node") as live:
        user = Typist(folder / "user", live.url)
        user.key()
        user.ok("account", "faucet")
        user.ok("account", "transfer", user.key("other"), "1")
        database = f"sqlite:///{folder / 'node' / 'chain.db'}"
        taken = user.json("ledger", "snapshot", str(folder / "snapshot"), "--database", database)
        height = int(taken["height"])
        user.ok("account", "transfer", user.json("keys", "show", "other")["address"], "1")
        signed = {at: user.json("ledger", "checkpoint", "--height", str(at)) for at in (height - 1, height, height + 1)}
        yield Scene(folder, live.url, taken["genesis"], height, str(signed[height]["node_key"]), signed)


def test_a_signed_checkpoint_is_trusted(scene: Scene, tmp_path: Path) -> None:
    """One of the snapshot's block, by the key that is given, will do; so it will among others, of a node that was met."""
    done = scene.restore(tmp_path / "one", scene.signed[scene.height], "--key", scene.key)
    assert done.returncode == 0, done.stderr
    assert scene.restore(tmp_path / "one", scene.signed[scene.height], "--key", scene.key).returncode == 5
    lines = b"".join(json.dumps(signed).encode() + b"\n" for signed in scene.signed.values())
    unknown = scene.restore(tmp_path / "two", lines)
    assert unknown.returncode == 4
    assert f"--key {scene.key}" in unknown.stderr
    Typist(tmp_path / "two", scene.url).ok("ledger", "checkpoint")  # now it was met
    assert scene.restore(tmp_path / "two", lines).returncode == 0


def test_what_cannot_be_trusted_is_named(scene: Scene, tmp_path: Path) -> None:
    """Another key, a changed byte, another chain, a height before or after the snapshot's, another block: each is said."""
    good = scene.signed[scene.height]
    said = msgspec.convert(good["checkpoint"], CheckpointStatement)

    def by_cat(**changes: object) -> bytes:
        other = msgspec.structs.replace(said, **changes)
        from ledger.protocol.keys import sign

        return encode(SignedCheckpoint(other, CAT.key, sign(CAT.seed, statement_bytes(other)).hex()))

    key = ("--key", scene.key)
    for number, (statement, more, status, words) in enumerate(
        (
            (good, ("--key", CAT.key), 4, "not by the key that was given"),
            (good | {"checkpoint": {**good["checkpoint"], "height": 9}}, key, 4, "not good"),  # type: ignore[dict-item]
            (by_cat(chain_id="another-chain"), ("--key", CAT.key), 5, "about chain another-chain"),
            (by_cat(hash="0" * 64), ("--key", CAT.key), 1, "the snapshot cannot be used"),
            (scene.signed[scene.height + 1], key, 5, f"ends at height {scene.height} and does not reach"),
            (scene.signed[scene.height - 1], key, 5, f"is of height {scene.height}, of which"),
            (by_cat() + b"\n" + by_cat(hash="1" * 64), ("--key", CAT.key), 4, "contradicts itself"),
            (b"nonsense", key, 2, "holds no signed"),
        )
    ):
        done = scene.restore(tmp_path / str(number), statement, *more)
        assert done.returncode == status, done.stderr
        assert words in done.stderr
        assert "→" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / str(number) / "node" / "genesis.json").exists()
    missing = Typist(tmp_path / "none").run("node", "restore", str(scene.folder / "snapshot"), "--trust", "x", "--genesis", "0")
    assert missing.returncode == 2
