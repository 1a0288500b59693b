"""What the daemon asks of the ledger, behind a port, and the same over a node's REST interface.

No answer is `LedgerUnreachable`: nothing is known, and nothing is concluded from it. It never means "no such lease".
"""

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import structlog

from ledger.protocol.errors import Rejected
from ledger.protocol.messages import Message
from marketplace.client import ApiError, NodeClient, Unreachable
from marketplace.protocol.ids import parse_lease
from marketplace.protocol.records import LeaseState
from marketplace.protocol.resources import ResourceUnit
from provider.leases.model import Wanted

if TYPE_CHECKING:
    from ledger.notebook import Notebook

SEND_S: Final = 60

log = structlog.get_logger("provider")


class LedgerUnreachable(Exception):
    """The ledger did not answer: nothing is known."""

    exit_code = 7
    fix = "is the node running? gpubid node start; or name another with --node or GPUBID_NODE"


class Terms(msgspec.Struct, frozen=True):
    """What a manifest must agree with: its hash, that of our additions (64 zeros for none), and the order's group."""

    hash: str
    spec_hash: str
    group: str
    resources: tuple[ResourceUnit, ...]


class TokenKeys(msgspec.Struct, frozen=True):
    """Keys, in hex, that may sign tokens for an account: its own, and delegated ones with their last ms of block time."""

    key: str
    delegated: dict[str, int]


class Ledger(Protocol):
    """The ledger as the daemon sees it. Every method but `now_ms` raises LedgerUnreachable where it gets no answer."""

    chain_id: str

    def now_ms(self) -> int:
        """Block time by our own estimate; always answers."""
        ...

    def synchronise(self) -> None:
        """Compare the estimate with the chain."""
        ...

    def unreleased(self) -> list[Wanted]:
        """Every lease of this host that still holds capacity."""
        ...

    def lease(self, lease: str) -> Wanted | None:
        """One lease; None where the ledger knows no such lease."""
        ...

    def terms(self, lease: str) -> Terms:
        """What the manifest of a lease must agree with."""
        ...

    def token_keys(self, address: str) -> TokenKeys:
        """Who may sign tokens for an account."""
        ...

    def send(self, *messages: Message) -> None:
        """Send one transaction and wait for its result; Rejected where it is refused."""
        ...


def wanted_of(view: dict[str, Any]) -> Wanted:
    """A lease from a node's answer about it."""
    return Wanted(
        lease=view["id"],
        state=LeaseState(view["state"]),
        generation=view["generation"],
        host=view["host"],
        devices=tuple(view["devices"]),
        simulated=view["simulated"],
        created_ms=view["created_ms"],
        funded_until_ms=view["dry_at_ms"],
        released=view["released"],
        reason=view["reason"],
        pulling_ms=view.get("pulling_ms", 0),
    )


class NodeLedger:
    """The ledger over a node's REST interface; safe from any thread.

    `clock_offset_ms` is the last known one, of a journal; `outbox` keeps what is sent until its result is known.
    """

    def __init__(
        self, url: str, seed: bytes, provider: str, host: str, *, clock_offset_ms: int = 0, outbox: Path | None = None
    ) -> None:
        self.chain_id = ""
        self.provider = provider
        self.host = host
        self.url = url
        self._seed = seed
        self._outbox = outbox
        self._local = threading.local()
        self._clients: list[NodeClient] = []
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self.clock_offset_ms = clock_offset_ms
        """Block time less the machine's own clock, which must be right to within a tenant's patience when no node answers."""
        self._base = (self._wall_ms() + clock_offset_ms, time.monotonic_ns())

    @staticmethod
    def _wall_ms() -> int:
        return time.time_ns() // 1_000_000

    def client(self) -> NodeClient:
        """This thread's own client."""
        found: NodeClient | None = getattr(self._local, "client", None)
        if found is None:
            found = self._local.client = NodeClient(self.url)
            with self._lock:
                self._clients.append(found)
        return found

    def close(self) -> None:
        """Close all connections; calls under way end with LedgerUnreachable."""
        with self._lock:
            clients, self._clients = self._clients, []
        for client in clients:
            client.close()

    def now_ms(self) -> int:
        """Block time: the last that the chain said, moved on by the monotonic clock."""
        time_ms, at_ns = self._base
        return time_ms + (time.monotonic_ns() - at_ns) // 1_000_000

    def synchronise(self) -> None:
        """Ask the chain for its name and time."""
        try:
            status = self.client().status()
        except (Unreachable, ApiError) as error:
            raise LedgerUnreachable(str(error)) from None
        self.chain_id = str(status["chain_id"])
        self._base = (int(status["time_ms"]), time.monotonic_ns())
        self.clock_offset_ms = int(status["time_ms"]) - self._wall_ms()

    def unreleased(self) -> list[Wanted]:
        """Every lease of this host that is not closed, or closed and not released."""
        try:
            found = self.client().leases(provider=self.provider, state="unreleased")
        except (Unreachable, ApiError) as error:
            raise LedgerUnreachable(str(error)) from None
        return [wanted_of(view) for view in found if view["host"] == self.host]

    def lease(self, lease: str) -> Wanted | None:
        """One lease; None only where a node of our chain answers that there is none."""
        try:
            return wanted_of(self.client().lease(lease))
        except ApiError as error:
            if error.status == 404:
                return None
            raise LedgerUnreachable(str(error)) from None
        except Unreachable as error:
            raise LedgerUnreachable(str(error)) from None

    def terms(self, lease: str) -> Terms:
        """Hashes of the deployment and the order's group."""
        parts = parse_lease(lease)
        try:
            deployment = self.client().deployment(parts.owner, parts.dseq)
            order = next((o for o in deployment["orders"] if o["id"] == parts.order), None) or self.client().order(parts.order)
        except (Unreachable, ApiError) as error:
            raise LedgerUnreachable(str(error)) from None
        resources = msgspec.convert(order["group"]["resources"], tuple[ResourceUnit, ...])
        return Terms(deployment["hash"], deployment["spec_hash"], order["group"]["name"], resources)

    def token_keys(self, address: str) -> TokenKeys:
        """The account's own key and those delegated with the verb `gateway` or `*`."""
        try:
            account = self.client().account(address)
        except ApiError as error:
            if error.status == 404:
                return TokenKeys("", {})
            raise LedgerUnreachable(str(error)) from None
        except Unreachable as error:
            raise LedgerUnreachable(str(error)) from None
        delegated = {d["key"]: int(d["expires_ms"]) for d in account["delegations"] if {"gateway", "*"} & set(d["verbs"])}
        return TokenKeys(account["key"], delegated)

    def send(self, *messages: Message) -> None:
        """One transaction at a time. Reports name lease and generation, so that one sent twice changes nothing."""
        from ledger.client import Unreachable as NoAnswer

        with self._sending:
            try:
                self.client().sender(self._seed, self.provider, outbox=self._outbox).send(*messages, timeout_s=SEND_S)
            except Rejected:
                raise
            except (NoAnswer, Unreachable, ApiError) as error:
                raise LedgerUnreachable(str(error)) from None

    def keep_checkpoint(self, notebook: "Notebook") -> None:
        """Keep what the node signs about its newest block: it convicts a node that shows another history later.

        Rejected where it is not signed, NodeKeyChanged where by another key than at the first meeting; NotebookError.
        """
        from ledger.notebook import statement_in

        try:
            found = self.client().checkpoint()
        except (Unreachable, ApiError) as error:
            raise LedgerUnreachable(str(error)) from None
        statement = statement_in(found)
        notebook.meet(self.url, statement.said.chain_id, statement.node_key)
        if statement.said.height:
            notebook.keep(statement)

    def settle(self) -> None:
        """Send again what an earlier process, or a silence, left without a known result; what is unknown still stays."""
        from ledger.client import Outbox, settle

        if self._outbox is None:
            return
        with self._sending:
            try:
                found = settle(self.client(), Outbox(self._outbox), timeout_s=0)
            except (Unreachable, ApiError) as error:
                raise LedgerUnreachable(str(error)) from None
        for left in found:
            result = "applied" if left.receipt is not None else str(left.refusal or "not known yet")
            log.info("a transaction was left without a result", id=left.envelope.id, result=result)
