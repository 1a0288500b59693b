"""A node under load over HTTP that is killed again and again, and clients that keep what they sign until they know.

Each client moves money with amounts of its own, through an outbox, over a connection that loses answers. Now and then a
client forgets all but its outbox, as a process that died would. After each answer it reads its own account, which
must show exactly what was acknowledged (I18). At the end each transfer is in the log once and the money adds up.
"""

import contextlib
import itertools
import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ledger.client import Outbox, Sender
from ledger.engine.export import verify_export
from ledger.protocol.block import Receipt
from ledger.protocol.keys import address_of, public_key
from ledger.protocol.messages import Transfer
from marketplace.client import NodeClient, Unreachable
from marketplace.market.module import Market
from tests.processes import PATIENCE_S, Program, eventually

FUNDS = 10**9
SINK = address_of(public_key(bytes([7]) * 32))


class Lossy:
    """A way to a node that loses some requests and some answers, each as a broken connection."""

    def __init__(self, inner: NodeClient, chance: random.Random, loss: float) -> None:
        self.inner, self.chance, self.loss = inner, chance, loss

    def chain(self) -> tuple[str, int]:
        """(chain id, block time now in ms)."""
        return self.inner.chain()

    def post(self, raw: bytes) -> Receipt:
        """Send, unless it is lost on the way there or back."""
        if self.chance.random() < self.loss:
            raise Unreachable("the request was lost")
        receipt = self.inner.post(raw)
        if self.chance.random() < self.loss:
            raise Unreachable("the answer was lost")
        return receipt


class Client(threading.Thread):
    """Sends 1, 2, 3 … micro-credits to the sink until it is stopped; `acknowledged` holds (id, height, amount)."""

    def __init__(self, number: int, url: str, folder: Path, seed: int) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self.seed = bytes([100 + number]) * 32
        self.address = address_of(public_key(self.seed))
        self.url, self.outbox = url, folder / f"client-{number}"
        self.chance = random.Random(f"{seed} client {number}")
        self.acknowledged: list[tuple[str, int, int]] = []
        self.signed: dict[str, bytes] = {}
        self.forgot = 0
        self.failure: BaseException | None = None
        self.over = threading.Event()

    def run(self) -> None:
        """Until it is told to stop, and then until nothing is left in doubt."""
        try:
            for number in itertools.count(1):
                if self.over.is_set():
                    return
                with NodeClient(self.url) as node:
                    self.move(node, number)
                    if self.chance.random() < 0.2:
                        self.read_back(node)
        except BaseException as error:
            self.failure = error

    def move(self, node: NodeClient, amount: int) -> None:
        """Move `amount` exactly once, whatever is lost."""
        sender = Sender(Lossy(node, self.chance, 0.1), self.seed, outbox=self.outbox)
        message = Transfer(amount=str(amount), denomination="ucredit", to=SINK)
        with contextlib.suppress(Unreachable):  # while no node runs nothing can be made; what was made is in the outbox
            id, raw = self._built(sender, message)
            self.signed[id] = raw
            if self.chance.random() < 0.9:
                self._noted(id, amount, sender.deliver(id, raw, PATIENCE_S))
                return
            self.forgot += 1
        # As after a crash of the client: the outbox is all that it has.
        for id, raw in list(Outbox(self.outbox).pending()):
            again = Sender(Lossy(node, self.chance, 0.1), self.seed, outbox=self.outbox)
            self._noted(id, amount, again.deliver(id, raw, PATIENCE_S))

    def _built(self, sender: Sender, message: Transfer) -> tuple[str, bytes]:
        def build() -> tuple[str, bytes] | None:
            with contextlib.suppress(Unreachable):
                return sender.build(message)
            return None

        return eventually(build, "a node that says its chain")

    def _noted(self, id: str, amount: int, receipt: Receipt) -> None:
        assert (receipt.id, receipt.code) == (id, 0)
        self.acknowledged.append((id, receipt.height, amount))

    def read_back(self, node: NodeClient) -> None:
        """What was acknowledged is read at once, all of it and nothing else; the sink never goes back."""
        with contextlib.suppress(Unreachable):
            status = node.status()
            assert status["height"] >= max(height for _, height, _ in self.acknowledged), "a read from before the receipt"
            moved = sum(amount for _, _, amount in self.acknowledged)
            assert int(node.account(self.address)["balances"]["ucredit"]) == FUNDS - moved, "not what was acknowledged"
            assert int(node.account(SINK)["balances"]["ucredit"]) >= moved, "the other side is older than the receipt"


class Rig:
    """A node that can be killed and started again at the same address, and its clients."""

    def __init__(self, folder: Path, *, seed: int, clients: int = 3, arguments: tuple[str, ...] = ()) -> None:
        self.folder, self.seed, self.arguments = folder, seed, arguments
        self.count = clients
        self.clients: list[Client] = []
        self.listen = "127.0.0.1:0"
        self.url = ""
        self.kills = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[Program]:
        """A node, new or in the state that the last one left."""
        with Program(["node", "start", "--dev", "--listen", self.listen, *self.arguments], self.folder / "node") as program:
            self.url = program.line("ready ").split()[1]
            self.listen = self.url.removeprefix("http://")
            yield program

    def begin(self) -> None:
        """Fund the clients and let them begin."""
        with NodeClient(self.url) as node:
            for number in range(self.count):
                client = Client(number, self.url, self.folder, self.seed)
                node.faucet(client.address, str(FUNDS))
                self.clients.append(client)
        for client in self.clients:
            client.start()

    def acknowledged(self) -> list[tuple[str, int, int]]:
        """All that clients were told is applied."""
        return [entry for client in self.clients for entry in list(client.acknowledged)]

    def kill_under_load(self, program: Program, more: int) -> None:
        """kill -9 once `more` transfers were acknowledged since now."""
        target = len(self.acknowledged()) + more

        def enough() -> bool:
            for client in self.clients:
                if client.failure is not None:
                    raise client.failure
            assert program.process.poll() is None, program.stderr[-2000:]
            return len(self.acknowledged()) >= target

        eventually(enough, f"{more} more acknowledged transfers")
        program.kill()
        self.kills += 1

    def check_acknowledged(self, latest: int = 200) -> None:
        """Everything acknowledged before a kill is there after it, where it was said to be."""
        with NodeClient(self.url) as node:
            for id, height, _ in self.acknowledged()[-latest:]:
                found = node.transaction(id)
                assert (found["height"], found["code"]) == (height, 0), "acknowledged and lost"

    def finish(self) -> None:
        """Stop the clients, which first clear what is in doubt; then everything was applied exactly once."""
        for client in self.clients:
            client.over.set()
        for client in self.clients:
            client.join(PATIENCE_S)
            assert not client.is_alive(), "a client does not come to its end"
            if client.failure is not None:
                raise client.failure
            assert not list(Outbox(client.outbox).pending()), "something is left in doubt"
            assert sorted(amount for _, _, amount in client.acknowledged) == list(range(1, len(client.acknowledged) + 1))
        self.check_acknowledged(10**9)
        self.check_log()

    def check_log(self) -> None:
        """Each transaction that a client signed is in the log once; the chain verifies; money went nowhere else."""
        export = self.folder / "chain.export"
        with NodeClient(self.url) as node:
            node.export(export)
            balances = [int(node.account(client.address)["balances"]["ucredit"]) for client in self.clients]
            sink = int(node.account(SINK)["balances"]["ucredit"])
        for client, balance in zip(self.clients, balances, strict=True):
            assert balance == FUNDS - sum(amount for _, _, amount in client.acknowledged), "applied twice, or half"
        assert sink == sum(amount for _, _, amount in self.acknowledged()), "money went elsewhere"
        signed = {raw for client in self.clients for raw in client.signed.values()}
        logged = Counter(raw for raw in transactions_of(export) if raw in signed)
        assert set(logged) == signed, "acknowledged and not in the log"
        assert set(logged.values()) == {1}, "in the log twice"
        assert verify_export(export, [Market()]).transactions >= len(signed)


class _Line(msgspec.Struct):
    transactions: list[msgspec.Raw]


def transactions_of(export: Path) -> Iterator[bytes]:
    """Signed bytes in an export, block by block."""
    for line in export.read_bytes().splitlines()[1:-1]:
        yield from map(bytes, msgspec.json.decode(line, type=_Line).transactions)
