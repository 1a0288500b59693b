"""A ledger in memory and a small world around it: leases that the tests open, pay and close."""

import threading
from typing import Any

import msgspec

from ledger.protocol.errors import Code, Rejected
from ledger.protocol.keys import address_of, public_key
from ledger.protocol.messages import Message
from marketplace.protocol.errors import MarketCode
from marketplace.protocol.messages import CloseLease, Release, ReportActive, ReportDown, ReportPulling, ReportUp
from marketplace.protocol.records import LeaseState
from marketplace.protocol.resources import ResourceUnit, Volume
from provider.leases.executor import Executor
from provider.leases.journal import Journal, Manifest
from provider.leases.ledger import LedgerUnreachable, Terms, TokenKeys
from provider.leases.manifest import canonical_hash, group_named
from provider.leases.model import Wanted
from provider.leases.plan import Policy
from provider.leases.supervisor import Supervisor
from provider.runtime.fake import FakeRuntime

PROVIDER_SEED = b"p" * 32
OWNER_SEED = b"o" * 32
OTHER_SEED = b"x" * 32
PROVIDER = address_of(public_key(PROVIDER_SEED))
OWNER = address_of(public_key(OWNER_SEED))
OTHER = address_of(public_key(OTHER_SEED))
QUICK = Policy(settle_ms=1, backoff_ms=5, backoff_most_ms=20, pull_report_ms=600_000)


def lease_id(dseq: int = 1, owner: str = OWNER) -> str:
    """Id of a lease of the provider."""
    return f"{owner}/{dseq}/1/1/{PROVIDER}"


def service(name: str = "web", **changes: Any) -> dict[str, Any]:
    """A service of a manifest as Akash writes it."""
    plain = {
        "name": name,
        "image": "img",
        "command": None,
        "args": None,
        "env": ["A=1"],
        "resources": {
            "id": 1,
            "cpu": {"units": {"val": "100"}},
            "memory": {"size": {"val": "1048576"}},
            "storage": [{"name": "default", "size": {"val": "1048576"}}],
            "gpu": {"units": {"val": "0"}},
            "endpoints": [{"sequence_number": 0}],
        },
        "count": 1,
        "expose": [
            {"port": 80, "externalPort": 80, "proto": "TCP", "service": "", "global": True, "hosts": None, "ip": ""},
        ],
        "credentials": None,
    }
    return plain | changes


def manifest(*services: dict[str, Any], name: str = "here") -> list[Any]:
    """A manifest of one group."""
    return [{"name": name, "services": list(services) or [service()]}]


UNIT = ResourceUnit(count=1, cpu_milli=100, memory=1048576, ports=1, volumes=(Volume(1048576),))


class FakeLedger:
    """The ledger in memory. `down` makes every call but `now_ms` fail; `sent` are the messages it took."""

    def __init__(self) -> None:
        self.chain_id = "test"
        self.down = False
        self.time_ms = 1_000_000
        self.leases: dict[str, Wanted] = {}
        self.terms_of: dict[str, Terms] = {}
        self.keys: dict[str, TokenKeys] = {
            OWNER: TokenKeys(public_key(OWNER_SEED).hex(), {}),
            OTHER: TokenKeys(public_key(OTHER_SEED).hex(), {}),
        }
        self.sent: list[Message] = []
        self.refused: list[Message] = []
        self.unknown: set[type[Message]] = set()
        """Messages that are of newer rules than the chain's."""
        self._lock = threading.Lock()

    def _ask(self) -> None:
        if self.down:
            raise LedgerUnreachable("the ledger is down")

    def now_ms(self) -> int:
        """A clock that moves a little with every look."""
        with self._lock:
            self.time_ms += 1
            return self.time_ms

    def synchronise(self) -> None:
        """Nothing to do."""
        self._ask()

    def open(self, lease: str, body: list[Any], resources: tuple[ResourceUnit, ...] = (UNIT,), **changes: Any) -> Wanted:
        """A match."""
        self.terms_of[lease] = Terms(canonical_hash(body), "0" * 64, body[0]["name"], resources)
        self.leases[lease] = Wanted(
            lease=lease, state=LeaseState.MATCHED, generation=1, host="h", created_ms=self.time_ms, **changes
        )
        return self.leases[lease]

    def change(self, lease: str, **changes: Any) -> None:
        """Something happened to a lease."""
        with self._lock:
            self.leases[lease] = msgspec.structs.replace(self.leases[lease], **changes)

    def unreleased(self) -> list[Wanted]:
        """All that hold capacity."""
        self._ask()
        return [w for w in self.leases.values() if not (w.state is LeaseState.CLOSED and w.released)]

    def lease(self, lease: str) -> Wanted | None:
        """One lease."""
        self._ask()
        return self.leases.get(lease)

    def terms(self, lease: str) -> Terms:
        """What its manifest must agree with."""
        self._ask()
        return self.terms_of[lease]

    def token_keys(self, address: str) -> TokenKeys:
        """Who signs for an account."""
        self._ask()
        return self.keys.get(address, TokenKeys("", {}))

    def send(self, *messages: Message) -> None:
        """Apply reports as the market does."""
        try:
            self._apply(*messages)
        except (Rejected, LedgerUnreachable):
            self.refused += messages
            raise

    def _apply(self, *messages: Message) -> None:
        self._ask()
        for message in messages:
            assert isinstance(message, ReportPulling | ReportActive | ReportUp | ReportDown | Release | CloseLease)
            if type(message) in self.unknown:
                raise Rejected(Code.UNKNOWN_MESSAGE)
            wanted = self.leases.get(message.lease)
            if wanted is None:
                raise Rejected(MarketCode.LEASE_NOT_FOUND)
            if wanted.generation != message.generation:
                raise Rejected(MarketCode.GENERATION_MISMATCH)
            self.sent.append(message)
            self.change(message.lease, **self._effect(message, wanted))

    @staticmethod
    def _effect(message: Message, wanted: Wanted) -> dict[str, Any]:
        match message:
            case Release():
                if wanted.state is not LeaseState.CLOSED:
                    raise Rejected(MarketCode.REPORT_REFUSED)
                return {"released": True}
            case _ if wanted.state in (LeaseState.CLOSED, LeaseState.PAUSED):
                raise Rejected(MarketCode.LEASE_NOT_OPEN)
            case ReportPulling():
                if wanted.pulling_ms or wanted.state is not LeaseState.MATCHED:
                    raise Rejected(MarketCode.REPORT_REFUSED)
                return {"pulling_ms": 1}
            case ReportDown():
                return {"state": LeaseState.DOWN}
            case CloseLease(reason=reason):
                return {"state": LeaseState.CLOSED, "reason": reason}
            case _:
                return {"state": LeaseState.ACTIVE, "pulling_ms": 0}

    def kinds(self) -> list[str]:
        """Names of the messages it took, in order."""
        return [type(message).__name__ for message in self.sent]


class World:
    """Ledger, engine and daemon's heart on one journal; close it."""

    def __init__(self, journal: Journal, policy: Policy = QUICK, devices: dict[str, str] | None = None) -> None:
        self.ledger = FakeLedger()
        self.runtime = FakeRuntime()
        self.journal = journal
        self.lost: frozenset[str] = frozenset()
        self.policy = policy
        self.devices = devices or {}
        self.failure: BaseException | None = None
        self.begin()

    def begin(self) -> None:
        """A new daemon over the same ledger, engine and journal."""
        self.executor = Executor(self.runtime, self.journal, self.ledger, devices=lambda: self.devices, policy=self.policy)
        self.supervisor = Supervisor(
            self.runtime,
            self.journal,
            self.ledger,
            self.executor,
            lost=lambda: self.lost,
            on_fatal=self._fatal,
            policy=self.policy,
            tick_s=0.05,
        )
        self.supervisor.start()

    def _fatal(self, error: BaseException) -> None:
        self.failure = error

    def end(self) -> None:
        """The daemon stops; all else goes on."""
        self.supervisor.stop()

    def give(self, lease: str, body: list[Any]) -> None:
        """What the gateway does with a good manifest."""
        terms = self.ledger.terms_of[lease]
        entry = self.supervisor.entry(lease)
        assert entry is not None
        group = group_named(body, terms.group)
        self.journal.keep_manifest(
            Manifest(lease, canonical_hash(body), terms.group, terms.resources, msgspec.json.encode(body)), group.slots()
        )
        self.supervisor.wake(lease)

    def running(self, lease: str) -> list[Any]:
        """Containers of the lease that run."""
        return [c for c in self.runtime.containers(lease) if c.state == "running"]
