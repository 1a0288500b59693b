"""`gpubid provider start`: puts the parts together, and keeps them going until it is told to stop.

Start is recovery: lock, journal, engine, one look at everything that runs, then the gateway, and only then a bid. kill -9
is a way to stop like any other: leases run on, and the next start adopts them.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import structlog

from ledger.cli.failure import CommandFailed, Exit
from ledger.notebook import NodeKeyChanged, Notebook, NotebookError
from ledger.protocol.errors import Rejected
from marketplace.client import ApiError, NodeClient, Unreachable
from marketplace.protocol.resources import device_id
from provider.bidder import Bidder, NodeBook
from provider.config import Settings, host_name
from provider.gateway.app import Desk, build
from provider.gateway.auth import Gatekeeper
from provider.gateway.certificate import load_or_make
from provider.gateway.server import GatewayServer, listen
from provider.inventory.models import Snapshot
from provider.inventory.snapshot import BadSimulation, probe
from provider.leases.executor import Executor
from provider.leases.journal import HomeLock, Journal
from provider.leases.ledger import LedgerUnreachable, NodeLedger
from provider.leases.supervisor import Supervisor
from provider.pricing import load as load_prices
from provider.runtime.docker import DockerRuntime
from provider.runtime.engine import BadEngine
from provider.runtime.port import EngineInfo, Runtime, Unknown
from provider.runtime.profile import MAY_ADD, STANDARD

BIDDER_TICK_S: Final = 20.0
RETRY_LEAST_S: Final = 0.5
RETRY_MOST_S: Final = 10.0
CHECKPOINT_S: Final = 600.0
"""How often the node's newest block is kept as the node signs it."""

OFFSET_FACT: Final = "clock_offset_ms"

log = structlog.get_logger("provider")


class Inventory:
    """The host's devices, looked at again and again; keeps the last look."""

    def __init__(self, settings: Settings, seed: str, disk_path: Path) -> None:
        self._settings = settings
        self._seed = seed
        self._disk_path = disk_path
        self.chain_id = ""
        self.snapshot = self.look()

    def look(self) -> Snapshot:
        """Probe the host."""
        self.snapshot = probe(self._settings.simulate, disk_path=self._disk_path, seed=self._seed)
        return self.snapshot

    def devices(self) -> dict[str, str]:
        """Id on the ledger → UUID, of devices that can be used."""
        return {device_id(self.chain_id, d.uuid): d.uuid for d in self.snapshot.offerable()}


class Daemon:
    """The daemon of one host. `say` prints a line for people and programs."""

    def __init__(self, settings: Settings, seed: bytes, address: str, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.address = address
        self.host = host_name(settings.host)
        self._seed = seed
        self._say = say
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._bidder_wake = threading.Event()
        self._lost: dict[str, int] = {}
        self._joined = False
        self._notebook = Notebook(settings.home.parent)
        self._checkpoint_due_s = 0.0
        self.drained = True
        """False where it ended with an action under way, whose thread would hold the process."""

    def stop(self) -> None:
        """Ask it to end; leases run on."""
        self._stop.set()
        self._bidder_wake.set()

    def _end(self, supervisor: Supervisor) -> None:
        self.drained = supervisor.stop()

    def _fatal(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self.stop()

    def run(self) -> None:
        """Work until `stop`, or until a failure that must not be worked around."""
        with ExitStack() as stack:
            home = self.settings.home
            prices = load_prices(self.settings.price_file)
            lock = HomeLock(home)
            stack.callback(lock.release)
            journal = stack.enter_context(Journal(home / "journal.db"))
            certificate = load_or_make(home / "gateway.pem")
            bound = listen(self.settings.listen)
            stack.callback(bound.close)
            limits = STANDARD if self.settings.restricted else msgspec.structs.replace(STANDARD, capabilities=MAY_ADD)
            try:
                runtime = DockerRuntime(self.settings.docker, self.address, listen_ip=self.settings.publish_ip, limits=limits)
            except BadEngine as error:
                raise CommandFailed(str(error), Exit.USAGE, fix=error.fix) from None
            stack.callback(runtime.close)
            info = self._engine_info(runtime)
            try:
                inventory = Inventory(self.settings, f"{self.address}/{self.host}", Path(info.root))
            except BadSimulation as error:
                raise CommandFailed(str(error), Exit.USAGE, fix=error.fix) from None
            for warning in inventory.snapshot.warnings:
                log.warning("inventory", warning=warning)
            offset = int(journal.fact(OFFSET_FACT, "0"))
            ledger = NodeLedger(
                self.settings.node, self._seed, self.address, self.host, clock_offset_ms=offset, outbox=home / "outbox"
            )
            stack.callback(ledger.close)
            ledger.chain_id = inventory.chain_id = journal.fact("chain_id")
            executor = Executor(runtime, journal, ledger, devices=inventory.devices, publish_ip=self.settings.publish_ip)
            supervisor = Supervisor(
                runtime, journal, ledger, executor, lost=lambda: self._lost_devices(journal, inventory), on_fatal=self._fatal
            )
            stack.callback(lambda: self._end(supervisor))
            endpoint = self.settings.public_url.rstrip("/") or _url_of(bound.getsockname())
            desk = Desk(
                gatekeeper=Gatekeeper(ledger, self.address),
                journal=journal,
                ledger=ledger,
                runtime=runtime,
                supervisor=supervisor,
                executor=executor,
                public_host=urlsplit(endpoint).hostname or "127.0.0.1",
            )
            # Without the chain's name no device can be told; leases that run are stopped at their time all the same.
            if ledger.chain_id:
                supervisor.start()
            if not self._meet_chain(ledger, journal, inventory):
                return
            if not supervisor.started:
                supervisor.start()
            server = GatewayServer(build(desk), certificate, bound)
            server.start()
            stack.callback(server.stop)
            book = NodeBook(ledger)
            bidder = Bidder(
                book,
                host=self.host,
                endpoint=endpoint,
                gateway_key=certificate.key_hash,
                prices=prices,
                look=inventory.look,
                healthy=lambda: supervisor.engine_answers,
            )
            with self._threads(runtime, supervisor, bidder):
                self._bid_until_stopped(bidder, ledger, journal, inventory, endpoint)
        if self._failure is not None:
            raise self._failure

    def _engine_info(self, runtime: Runtime) -> EngineInfo:
        try:
            return runtime.info()
        except Unknown as error:
            raise CommandFailed(
                f"no Docker Engine answers at {self.settings.docker}: {error}",
                Exit.UNREACHABLE,
                fix="start it (systemctl start docker), see that this user may use its socket, or name another with --docker",
            ) from None

    def _lost_devices(self, journal: Journal, inventory: Inventory) -> frozenset[str]:
        """Devices of leases that two looks in a row did not find: one reading may err."""
        here = inventory.devices()
        leased = {device for entry in journal.entries().values() for device in entry.wanted.devices}
        look = id(inventory.snapshot)
        missing = leased - here.keys()
        lost = frozenset(device for device in missing if self._lost.get(device, look) != look)
        self._lost = {device: self._lost.get(device, look) for device in missing}
        return lost

    def _meet_chain(self, ledger: NodeLedger, journal: Journal, inventory: Inventory) -> bool:
        """Wait for the node; open our account on a development chain. False where it was stopped meanwhile."""
        pause_s = RETRY_LEAST_S
        told = False
        while not self._stop.is_set():
            try:
                self._join_chain(ledger, journal, inventory)
                return True
            except (LedgerUnreachable, Unreachable) as error:
                if not told:
                    log.warning("the node does not answer; trying again", node=self.settings.node, why=str(error))
                told = True
                self._stop.wait(pause_s)
                pause_s = min(pause_s * 2, RETRY_MOST_S)
        return False

    def _join_chain(self, ledger: NodeLedger, journal: Journal, inventory: Inventory) -> None:
        """Ask the chain for name and time; where it is another one than before, have an account there."""
        before = inventory.chain_id if self._joined else ""
        ledger.synchronise()
        self._check_chain(ledger, journal)
        if ledger.chain_id != before:
            self._open_account(ledger)
        ledger.settle()
        inventory.chain_id = ledger.chain_id
        self._joined = True

    def _check_chain(self, ledger: NodeLedger, journal: Journal) -> None:
        known = journal.fact("chain_id")
        if known and known != ledger.chain_id and journal.entries():
            raise CommandFailed(
                f"this home has leases of the chain {known}, the node is of {ledger.chain_id}",
                Exit.CONFLICT,
                fix="name the right node with --node; where that chain is gone, delete provider/journal.db in the home",
            )
        if known != ledger.chain_id:
            journal.keep_fact("chain_id", ledger.chain_id)

    def _open_account(self, ledger: NodeLedger) -> None:
        client = ledger.client()
        try:
            client.account(self.address)
            return
        except ApiError as error:
            if error.status != 404:
                raise LedgerUnreachable(str(error)) from None
        if not client.status().get("dev"):
            raise CommandFailed(
                f"the account {self.address} does not exist on this chain",
                Exit.NOT_FOUND,
                fix="an account opens with the first transfer to it: send it some credits",
            )
        client.faucet(self.address)
        log.info("opened our account at the faucet of the development chain", address=self.address)

    @contextmanager
    def _threads(self, runtime: Runtime, supervisor: Supervisor, bidder: Bidder) -> Iterator[None]:
        """Two threads that turn news into wake-ups: from the node, and from the engine."""
        closers: list[Callable[[], None]] = [lambda: None, lambda: None]

        def of_node() -> None:
            with NodeClient(self.settings.node) as client:
                closers[0] = client.close
                for event in client.events(provider=self.address):
                    if event["kind"] == "BidGone":
                        bidder.hurry()
                        self._bidder_wake.set()
                    else:
                        supervisor.wake(ask_ledger=True)

        def of_engine() -> None:
            with closing(runtime.events()) as stream:
                closers[1] = stream.close
                for lease in stream:
                    supervisor.wake(lease)

        threads = [
            threading.Thread(target=self._again, args=(of_node, supervisor), name="node-events", daemon=True),
            threading.Thread(target=self._again, args=(of_engine, supervisor), name="engine-events", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for close in closers:
                close()
            for thread in threads:
                thread.join(0.5)  # one that waits for news in a read does not hear of it; it holds nothing

    def _again(self, follow: Callable[[], None], supervisor: Supervisor) -> None:
        """Follow a stream; whenever it ends, look at everything and follow it anew."""
        pause_s = RETRY_LEAST_S
        while not self._stop.is_set():
            try:
                follow()
                pause_s = RETRY_LEAST_S
            except (Unreachable, ApiError, LedgerUnreachable, Unknown) as error:
                log.debug("stream ended", why=str(error))
            except Exception as error:
                if not self._stop.is_set():
                    self._fatal(error)
                return
            self._stop.wait(pause_s)
            pause_s = min(pause_s * 2, RETRY_MOST_S)
            supervisor.wake(ask_ledger=True)

    def _bid_until_stopped(
        self, bidder: Bidder, ledger: NodeLedger, journal: Journal, inventory: Inventory, endpoint: str
    ) -> None:
        ready = False
        pause_s = RETRY_LEAST_S
        while not self._stop.is_set():
            wait_s = BIDDER_TICK_S
            try:
                self._join_chain(ledger, journal, inventory)
                self._keep_offset(ledger, journal)
                self._keep_checkpoint(ledger)
                bidder.tick()
                pause_s = RETRY_LEAST_S
                if not ready and bidder.standing is not None and bidder.standing.bid is not None:
                    ready = True
                    self._say(f"ready {endpoint} provider {self.address} host {self.host}")
            except (LedgerUnreachable, Unreachable, Rejected) as error:
                log.warning("the bid is not up to date", why=str(error))
                bidder.hurry()
                wait_s = pause_s
                pause_s = min(pause_s * 2, RETRY_MOST_S)
            self._bidder_wake.wait(wait_s)
            self._bidder_wake.clear()

    def _keep_checkpoint(self, ledger: NodeLedger) -> None:
        """Now and then keep what the node signs about its chain, beside the receipts of the same home."""
        if time.monotonic() < self._checkpoint_due_s:
            return
        self._checkpoint_due_s = time.monotonic() + CHECKPOINT_S
        try:
            ledger.keep_checkpoint(self._notebook)
        except (Rejected, NodeKeyChanged, NotebookError) as error:
            log.warning("the node's checkpoint is not kept", why=str(error), fix=str(getattr(error, "fix", "")))

    def _keep_offset(self, ledger: NodeLedger, journal: Journal) -> None:
        """Keep what block time is by this machine's clock, for a start without a node."""
        if abs(ledger.clock_offset_ms - int(journal.fact(OFFSET_FACT, "0"))) > 2_000:
            journal.keep_fact(OFFSET_FACT, str(ledger.clock_offset_ms))


def _url_of(name: Any) -> str:
    host, port = name[0], name[1]
    if host in ("0.0.0.0", "::"):  # noqa: S104  (compared, not bound)
        raise CommandFailed(
            "the gateway listens on every address, and tenants must be told one",
            Exit.USAGE,
            fix="say where they reach it: --public-url https://HOST:PORT",
        )
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def serve(settings: Settings, seed: bytes, address: str, say: Callable[[str], None]) -> bool:
    """Run the daemon in this process until SIGTERM or SIGINT. False where a thread is still in an action that may be cut off."""
    daemon = Daemon(settings, seed, address, say)

    def end(_number: int, _frame: FrameType | None) -> None:
        daemon.stop()

    with contextlib.ExitStack() as stack:
        for number in (signal.SIGTERM, signal.SIGINT):
            stack.callback(signal.signal, number, signal.signal(number, end))
        daemon.run()
    return daemon.drained
