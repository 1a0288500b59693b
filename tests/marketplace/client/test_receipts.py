"""A client with a notebook: every receipt is signed, checked and kept, and a node that signs wrongly is found at once."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ledger.client import Outbox
from ledger.notebook import NodeKeyChanged, Notebook, ReceiptRefused
from ledger.protocol import keys
from ledger.protocol.block import Receipt
from ledger.protocol.errors import Code
from ledger.protocol.messages import Transfer
from ledger.protocol.receipts import SignedReceipt
from marketplace.client import NodeClient, TransactionRefused
from marketplace.node.identity import Notary
from tests.marketplace.node.listening import Listening, listening
from tests.marketplace.node.serving import address, seed


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """A node behind a socket; user 1 has money."""
    with listening(tmp_path_factory.mktemp("node")) as found:
        with NodeClient(found.url) as client:
            client.faucet(address(1))
        yield found


def pay(amount: int = 1) -> Transfer:
    """A transfer to user 2."""
    return Transfer(amount=str(amount), denomination="ucredit", to=address(2))


def test_every_receipt_is_kept(live: Listening, tmp_path: Path) -> None:
    """Of what is applied, of what a block refuses, and of the faucet's; the answers are those of a client without a notebook."""
    book = Notebook(tmp_path)
    with NodeClient(live.url, book) as client:
        sent = client.sender(seed(1)).send(pay())
        with pytest.raises(TransactionRefused) as poor:
            client.sender(seed(1)).send(pay(10**15))
        given = client.faucet(address(3))
        assert "signed" not in given
        kept, _ = book.statements(client.chain()[0])
        assert book.key_of(live.url, client.chain()[0]) == client.key()
        found = client.signed_receipt(sent.id)
    codes = {s.receipt.id: s.receipt.code for s in kept if isinstance(s, SignedReceipt)}
    assert codes == {sent.id: 0, poor.value.id: Code.INSUFFICIENT_FUNDS, given["id"]: 0}
    assert found == book.find(sent.id)
    assert found.receipt.height == sent.height


def test_a_node_with_another_key_gets_nothing(live: Listening, tmp_path: Path) -> None:
    """Where the key is not the one of the first meeting nothing is signed and nothing is sent, until it is accepted."""
    book = Notebook(tmp_path)
    with NodeClient(live.url) as client:
        chain_id, right = client.chain()[0], client.key()
    book.trust(live.url, chain_id, keys.public_key(b"\x09" * 32).hex())
    height = live.node.engine.head.height
    with NodeClient(live.url, book) as client:
        for send in (lambda: client.faucet(address(2)), lambda: client.sender(seed(1), outbox=tmp_path / "o").send(pay())):
            with pytest.raises(NodeKeyChanged):
                send()
    assert live.node.engine.head.height == height
    assert list(Outbox(tmp_path / "o").pending()) == []
    book.trust(live.url, chain_id, right)
    with NodeClient(live.url, book) as client:
        assert client.sender(seed(1)).send(pay()).ok


class Liar(Notary):
    """Signs something else than what happened."""

    def __init__(self, notary: Notary, **changes: object) -> None:
        self.notary = notary
        self.changes = changes

    def is_at_hand(self, height: int) -> bool:
        """As the honest one says."""
        return self.notary.is_at_hand(height)

    def receipt(self, receipt: Receipt) -> SignedReceipt:
        """A receipt that is not true, or not signed."""
        signed = self.notary.receipt(receipt)
        if "node_key" in self.changes:
            return msgspec.structs.replace(signed, **self.changes)
        return msgspec.structs.replace(signed, receipt=msgspec.structs.replace(signed.receipt, **self.changes))


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"height": 1, "hash": "1" * 64}, "beside"), ({"hash": "1" * 64}, "signature"), ({"node_key": "1" * 64}, "the node's key")],
)
def test_a_wrong_receipt_is_found_at_once(
    live: Listening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], why: str
) -> None:
    """A receipt that is not the answer's, or badly signed, is refused and not kept; the transaction stays in the outbox."""
    monkeypatch.setattr(live.edge, "notary", Liar(live.node.notary, **changes))
    book = Notebook(tmp_path)
    with NodeClient(live.url, book) as client:
        with pytest.raises(ReceiptRefused, match=why) as refusal:
            client.sender(seed(1), outbox=tmp_path / "o").send(pay())
        assert book.statements(client.chain()[0]) == ([], 0)
    assert refusal.value.fix
    assert len(list(Outbox(tmp_path / "o").pending())) == 1


def test_a_node_that_signs_nothing_is_refused(live: Listening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer without a signed receipt proves nothing."""
    monkeypatch.setattr(live.edge, "notary", None)
    with NodeClient(live.url, Notebook(tmp_path)) as client, pytest.raises(ReceiptRefused, match="not signed"):
        client.sender(seed(1)).send(pay())
