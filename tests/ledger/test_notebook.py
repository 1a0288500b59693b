"""The notebook: keys of nodes as ssh keeps those of hosts, and receipts on disk."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

import ledger.notebook
from ledger.notebook import KnownNode, NodeKeyChanged, Notebook, NotebookError, ReceiptRefused, check_receipt
from ledger.protocol import keys
from ledger.protocol.block import Header, Receipt
from ledger.protocol.receipts import SignedReceipt, sign_checkpoint, sign_receipt

SEED, OTHER = b"\x07" * 32, b"\x08" * 32
KEY, OTHER_KEY = keys.public_key(SEED).hex(), keys.public_key(OTHER).hex()
URL = "http://127.0.0.1:8080"


def header(height: int = 1) -> Header:
    """A header; only its hash and place matter here."""
    zero = "0" * 64
    return Header(
        chain_id="test-1", height=height, parent=zero, protocol=1, results=zero, state_root=zero, time_ms=9, transactions=zero
    )


def receipt(number: int, **changes: Any) -> Receipt:
    """The receipt of transaction `number` in a block of its own."""
    return Receipt(**({"id": f"{number:064x}", "height": number, "index": 0, "code": 0} | changes))


def signed(number: int) -> SignedReceipt:
    """The same, signed."""
    return sign_receipt(receipt(number), header(number), SEED, KEY)


def test_a_node_is_known_by_its_first_key(tmp_path: Path) -> None:
    """The first key counts until another is accepted; each URL and chain has its own; the file is the owner's alone."""
    said: list[str] = []
    book = Notebook(tmp_path, tell=said.append)
    book.meet(URL, "test-1", KEY)
    book.meet(URL + "/", "test-1", KEY)
    assert len(said) == 1
    with pytest.raises(NodeKeyChanged) as changed:
        book.meet(URL, "test-1", OTHER_KEY)
    assert f"gpubid node trust {OTHER_KEY}" in changed.value.fix
    book.meet(URL, "test-2", OTHER_KEY)
    book.meet("http://user:secret@LOCALHOST:1", "test-1", OTHER_KEY)
    book.trust(URL, "test-1", OTHER_KEY)
    book.meet(URL, "test-1", OTHER_KEY)
    assert {(n.url, n.chain_id): n.key for n in Notebook(tmp_path).nodes()} == {
        (URL, "test-1"): OTHER_KEY,
        (URL, "test-2"): OTHER_KEY,
        ("http://localhost:1", "test-1"): OTHER_KEY,
    }
    assert (tmp_path / "known_nodes").stat().st_mode & 0o777 == 0o600
    assert "secret" not in (tmp_path / "known_nodes").read_text()


def test_a_bad_file_of_keys_is_refused(tmp_path: Path) -> None:
    """A damaged file, one that others may write to, and a node that says nonsense are refused with what to do."""
    book = Notebook(tmp_path)
    for chain_id, key in (("../x", KEY), ("test-1", "a"), ("", KEY)):
        with pytest.raises(NotebookError):
            book.meet(URL, chain_id, key)
    book.meet(URL, "test-1", KEY)
    path = tmp_path / "known_nodes"
    path.chmod(0o622)
    with pytest.raises(NotebookError) as refusal:
        book.meet(URL, "test-1", KEY)
    assert "chmod 600" in refusal.value.fix
    path.chmod(0o600)
    path.write_text("nonsense\n")
    with pytest.raises(NotebookError, match="damaged"):
        book.meet(URL, "test-1", KEY)
    assert Notebook(tmp_path / "empty").nodes() == list[KnownNode]()


def test_statements_are_kept_in_order_and_found(tmp_path: Path) -> None:
    """What is kept comes back in order, each once; a line that was damaged or cut short takes no other with it."""
    book = Notebook(tmp_path)
    book.keep(signed(1))
    book.keep(sign_checkpoint(header(5), SEED, KEY))
    path = tmp_path / "receipts" / "test-1.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open("ab") as file:
        file.write(b'{"node_key":"cut sho')
    book.keep(signed(2))
    book.keep(signed(2))
    found, bad = book.statements("test-1")
    assert (found, bad) == ([signed(1), sign_checkpoint(header(5), SEED, KEY), signed(2)], 1)
    assert book.find(signed(2).receipt.id) == signed(2)
    assert book.find("0" * 64) is None
    assert book.chains() == ["test-1"]
    assert book.statements("../../etc") == ([], 0)


def test_the_notebook_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full files are put aside, and beyond the fifth the oldest is dropped; what is left is in order."""
    monkeypatch.setattr(ledger.notebook, "FILE_BYTES", 1000)
    book = Notebook(tmp_path)
    for number in range(1, 31):
        book.keep(signed(number))
    files = sorted(path.name for path in (tmp_path / "receipts").glob("*.jsonl"))
    assert files == ["test-1.1.jsonl", "test-1.2.jsonl", "test-1.3.jsonl", "test-1.4.jsonl", "test-1.jsonl"]
    heights = [s.said.height for s in book.statements("test-1")[0]]
    assert heights == list(range(heights[0], 31))
    assert heights[0] > 1
    assert book.chains() == ["test-1"]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"id": "1" * 64}, "about"),
        ({"chain_id": "test-2"}, "about"),
        ({"key": OTHER_KEY}, "the node's key"),
        ({"receipt": receipt(1, code=200)}, "beside"),
        ({"receipt": receipt(1, height=2)}, "beside"),
        ({"receipt": receipt(1, index=1)}, "beside"),
        ({"signed": msgspec.structs.replace(signed(1), signature=signed(2).signature)}, "does not match"),
    ],
)
def test_a_receipt_must_say_what_the_answer_says(changed: dict[str, Any], why: str) -> None:
    """A receipt about something else, by another key, or with a signature of something else is refused with the reason."""
    right = {"signed": signed(1), "id": signed(1).receipt.id, "receipt": receipt(1), "chain_id": "test-1", "key": KEY}
    check_receipt(**right)
    with pytest.raises(ReceiptRefused, match=why):
        check_receipt(**(right | changed))
