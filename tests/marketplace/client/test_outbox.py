"""What a killed process left in its outbox is settled by the next one: applied once, refused or expired, then forgotten."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.client import Outbox, Sender, envelope_of, settle
from ledger.keystore import Keystore
from ledger.notebook import NodeKeyChanged, Notebook
from ledger.protocol.errors import Code, Rejected
from ledger.protocol.messages import Transfer
from marketplace.client import NodeClient
from provider.leases.ledger import NodeLedger
from tests.marketplace.cli.typist import Typist
from tests.marketplace.client.killed import leave
from tests.marketplace.node.listening import listening
from tests.marketplace.node.serving import address, seed
from tests.processes import Program, eventually

pytestmark = pytest.mark.process

numbers = itertools.count(50)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeClient]:
    """A client of a node behind a socket; user 1 has money."""
    with listening(tmp_path_factory.mktemp("node")) as live, NodeClient(live.url) as found:
        found.faucet(address(1))
        yield found


def balance(client: NodeClient, number: int) -> int:
    """Micro-credits of a user."""
    return int(client.account(address(number))["balances"]["ucredit"])


@pytest.mark.parametrize("moment", ["before", "after"])
def test_what_a_killed_process_left_is_applied_once(client: NodeClient, tmp_path: Path, moment: str) -> None:
    """Killed before it sent, or after the node had answered: settled twice over, the transfer is applied once."""
    to = next(numbers)
    raw = leave(client.base_url, tmp_path / "outbox", seed(1), address(to), 5, moment)
    outbox = Outbox(tmp_path / "outbox")
    (left,) = settle(client, outbox)
    assert left.receipt is not None
    assert left.receipt.ok
    assert left.envelope.id == left.receipt.id == client.post(raw).id
    assert balance(client, to) == 5
    assert settle(client, outbox) == []


def test_what_can_never_be_applied_is_forgotten(client: NodeClient, tmp_path: Path) -> None:
    """Refused and expired transactions are settled with their code; bytes cut short by a crash were never sent."""
    outbox = Outbox(tmp_path / "outbox")
    sender = Sender(client, seed(1), outbox=tmp_path / "outbox")
    poor, _ = sender.build(Transfer(amount=str(10**15), denomination="ucredit", to=address(2)))
    late, _ = sender.build(Transfer(amount="1", denomination="ucredit", to=address(2)), valid_ms=-1)
    outbox.put("cut", b'{"signature":"')
    codes = {left.envelope.id: left.refusal.code for left in settle(client, outbox) if isinstance(left.refusal, Rejected)}
    assert codes == {poor: Code.INSUFFICIENT_FUNDS, late: Code.EXPIRED}
    assert list(outbox.pending()) == []


def test_another_chain_is_not_asked(client: NodeClient, tmp_path: Path) -> None:
    """What was made for another chain stays for its own node, until a day after its validity."""

    class Elsewhere(NodeClient):
        def chain(self) -> tuple[str, int]:
            return "elsewhere-1", super().chain()[1]

    outbox = Outbox(tmp_path / "outbox")
    with Elsewhere(client.base_url) as elsewhere:
        sender = Sender(elsewhere, seed(1), outbox=tmp_path / "outbox")
        transfer = Transfer(amount="1", denomination="ucredit", to=address(2))
        kept, _ = sender.build(transfer)
        sender.build(transfer, valid_ms=-90_000_000)
    assert settle(client, outbox) == []
    assert [id for id, _ in outbox.pending()] == [kept]


def test_a_silent_node_settles_nothing(client: NodeClient, tmp_path: Path) -> None:
    """Without an answer everything stays, and the next attempt goes on."""

    class Deaf(NodeClient):
        def post(self, raw: bytes) -> None:  # type: ignore[override]
            raise OSError("no answer")

    to = next(numbers)
    id, _ = Sender(client, seed(1), outbox=tmp_path / "outbox").build(
        Transfer(amount="3", denomination="ucredit", to=address(to))
    )
    outbox = Outbox(tmp_path / "outbox")
    with Deaf(client.base_url) as deaf:
        (left,) = settle(deaf, outbox, timeout_s=0)
    assert (left.receipt, left.refusal) == (None, None)
    assert [kept for kept, _ in outbox.pending()] == [id]
    assert settle(client, outbox)[0].receipt is not None
    assert balance(client, to) == 3


def test_the_same_command_again_sends_nothing_more(client: NodeClient, tmp_path: Path) -> None:
    """A command repeated after a kill settles what the first one sent; another command settles it on its way."""
    user = Typist(tmp_path, client.base_url)
    client.faucet(user.key())
    own = Keystore(tmp_path / "keys").unlock("default", None)
    to = next(numbers)
    left = leave(client.base_url, tmp_path / "outbox" / "default", own, address(to), 1_500_000, "after")
    again = user.run("account", "transfer", address(to), "1.5", "-o", "name")
    assert again.returncode == 0
    assert again.stdout.strip() == envelope_of(left).id
    assert "nothing more is sent" in again.stderr
    assert balance(client, to) == 1_500_000
    leave(client.base_url, tmp_path / "outbox" / "default", own, address(to), 7, "before")
    other = user.run("account", "transfer", address(to), "1")
    assert "left by an earlier command" in other.stderr
    assert balance(client, to) == 2_500_007
    assert not list((tmp_path / "outbox" / "default").glob("*.json"))


def test_the_gateway_settles_at_its_start(client: NodeClient, tmp_path: Path) -> None:
    """`gpubid tenant serve` sends what the one before it left when it was killed."""
    user = Typist(tmp_path, client.base_url)
    client.faucet(user.key())
    own = Keystore(tmp_path / "keys").unlock("default", None)
    to = next(numbers)
    outbox = tmp_path / "tenant" / "outbox"
    leave(client.base_url, outbox, own, address(to), 9, "before")
    with Program(["tenant", "serve", "--node", client.base_url, "--listen", "127.0.0.1:0"], tmp_path) as program:
        program.line("ready ")
        eventually(lambda: not list(outbox.glob("*.json")), "the outbox to be settled")
        assert balance(client, to) == 9
        assert program.stop() == 0


def test_the_provider_settles(client: NodeClient, tmp_path: Path) -> None:
    """The provider's way to the ledger keeps what it sends until its result is known, and settles what was left."""
    to = next(numbers)
    leave(client.base_url, tmp_path / "outbox", seed(1), address(to), 4, "before")
    ledger = NodeLedger(client.base_url, seed(1), address(1), "h1", outbox=tmp_path / "outbox")
    try:
        ledger.settle()
        assert balance(client, to) == 4
        ledger.send(Transfer(amount="2", denomination="ucredit", to=address(to)))
        assert balance(client, to) == 6
        assert not list((tmp_path / "outbox").glob("*.json"))
    finally:
        ledger.close()


def test_the_provider_keeps_checkpoints(client: NodeClient, tmp_path: Path) -> None:
    """What the node signs about its newest block is kept under the key of the first meeting, and no other."""
    book = Notebook(tmp_path)
    ledger = NodeLedger(client.base_url, seed(1), address(1), "h1")
    try:
        ledger.keep_checkpoint(book)
        chain_id, _ = client.chain()
        (kept,), bad = book.statements(chain_id)
        assert (kept.said.height, kept.node_key, bad) == (client.status()["height"], client.key(), 0)
        book.trust(client.base_url, chain_id, "a" * 64)
        with pytest.raises(NodeKeyChanged):
            ledger.keep_checkpoint(book)
    finally:
        ledger.close()
