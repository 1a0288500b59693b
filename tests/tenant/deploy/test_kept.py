"""The shelf of manifests, and plans."""

import stat
import threading
from pathlib import Path

import pytest

from tenant.deploy.failure import DeployFailed
from tenant.deploy.kept import Kept, Shelf
from tenant.deploy.plan import make_plan, new_dseq
from tenant.sdl import LoweringRefused, parse
from tests.tenant.deploy.scene import SDL, TWO_GROUPS

OWNER = "gpu1" + "q" * 38
KEPT = Kept(owner=OWNER, dseq=7, hash="a" * 64, manifest=[{"name": "here", "services": []}])


def test_what_is_kept_is_private(tmp_path: Path) -> None:
    """A kept manifest is readable by its owner alone, comes back as it was, and can be replaced and dropped."""
    shelf = Shelf(tmp_path / "deep" / "shelf")
    shelf.put(KEPT)
    (path,) = shelf.folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(shelf.folder.stat().st_mode) == 0o700
    assert Shelf(tmp_path / "deep" / "shelf").get(OWNER, 7) == KEPT
    other = Kept(owner=OWNER, dseq=7, hash="b" * 64, manifest=[])
    shelf.put(other)
    assert shelf.get(OWNER, 7) == other
    shelf.drop(OWNER, 7)
    shelf.drop(OWNER, 7)
    assert shelf.find(OWNER, 7) is None
    with pytest.raises(DeployFailed, match="not in this home") as missing:
        shelf.get(OWNER, 7)
    assert missing.value.exit_code == 3
    assert "gpubid lease manifest 7 --file" in missing.value.fix


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"owner": 7}', b'{"dseq": "7"}', b"[" * 100_000])
def test_damage_is_told(tmp_path: Path, damage: bytes) -> None:
    """A damaged file is a clear failure with a way on."""
    shelf = Shelf(tmp_path)
    shelf.put(KEPT)
    (path,) = shelf.folder.iterdir()
    path.write_bytes(damage)
    with pytest.raises(DeployFailed, match="cannot be read") as failed:
        shelf.get(OWNER, 7)
    assert "--file" in failed.value.fix


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    """Where nothing can be kept, nothing is ordered, and it says what to do."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(DeployFailed, match="cannot be kept") as failed:
        Shelf(blocked).put(KEPT)
    assert "nothing was sent" in failed.value.fix


def test_many_at_once(tmp_path: Path) -> None:
    """Threads that keep the same deployment at once do not hinder each other, and leave no drafts."""
    shelf = Shelf(tmp_path)
    failures: list[Exception] = []

    def keep() -> None:
        try:
            for _ in range(10):
                shelf.put(KEPT)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=keep) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert [path.name for path in tmp_path.iterdir()] == [f"{OWNER}-7.json"]


def test_the_default_deposit_is_an_hour_of_the_limit() -> None:
    """Limits of all groups add up; the deposit is an hour of them, or what is named, and never nothing."""
    one, two = (make_plan(parse(text), OWNER, deposit=None, dseq=None) for text in (SDL, TWO_GROUPS))
    assert one.limit_per_hour == 100_000 * 429_909 // 730 == one.deposit
    assert two.limit_per_hour == 2 * one.limit_per_hour == two.deposit
    assert make_plan(parse(SDL.replace("amount: 100000", "amount: 1")), OWNER, deposit=None, dseq=None).deposit == 1000
    named = make_plan(parse(SDL), OWNER, deposit=5, dseq=9)
    assert (named.deposit, named.dseq) == (5, 9)
    assert named.message().hash == parse(SDL).hash
    with pytest.raises(DeployFailed) as refused:
        make_plan(parse(SDL), OWNER, deposit=0, dseq=None)
    assert refused.value.exit_code == 2


def test_what_the_market_has_no_word_for() -> None:
    """A denomination of another chain is refused before anything is sent."""
    with pytest.raises(LoweringRefused):
        make_plan(parse(SDL.replace("denom: uact", "denom: ibc/0123456789ABCDEF")), OWNER, deposit=None, dseq=None)


def test_numbers_grow() -> None:
    """A new deployment's number is no less than one made before."""
    assert new_dseq() <= new_dseq()
