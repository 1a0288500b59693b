"""A small market on a real machine, driven message by message: actors, blocks, and shapes of offers and groups."""

import hashlib
from typing import Any

from ledger.machine.escrow import PURSES, Purse
from ledger.machine.machine import Machine
from ledger.protocol.block import BlockResult, Event, Receipt
from ledger.protocol.genesis import Allocation, DenominationSpec, Genesis
from ledger.protocol.keys import address_of, public_key
from ledger.protocol.messages import Message
from ledger.protocol.transaction import Transaction, sign_transaction
from marketplace.market.module import Market
from marketplace.market.tables import BIDS, DEPLOYMENTS, DEVICES, HOSTS, LEASES, ORDERS
from marketplace.protocol import messages as m
from marketplace.protocol.records import Bid, Deployment, DeviceClaim, Host, Lease, Order
from marketplace.protocol.resources import (
    Device,
    GpuAsk,
    GpuModel,
    Group,
    Offer,
    Prices,
    ResourceUnit,
    Terms,
    device_id,
)

CHAIN = "gpubid-test"
START = 1_700_000_000_000
CREDIT = 10**6
GIB = 2**30
HOUR = 3_600_000
NAMES = ("ann", "bob", "cat", "pat", "pia", "pol", "aud", "lee")
SEEDS = {name: hashlib.sha256(name.encode()).digest() for name in NAMES}
ADDRESS = {name: address_of(public_key(seed)) for name, seed in SEEDS.items()}
NAME_OF = {address: name for name, address in ADDRESS.items()}


def genesis(**parameters: int) -> Genesis:
    """A chain on which every actor holds 1,000,000 credits."""
    return Genesis(
        chain_id=CHAIN,
        denominations=(
            DenominationSpec(issuer=ADDRESS["lee"], name="ucredit"),
            DenominationSpec(issuer=ADDRESS["lee"], name="uother"),
        ),
        governance=ADDRESS["lee"],
        time_ms=START,
        allocations=tuple(
            Allocation(address=ADDRESS[name], amount=str(10**6 * CREDIT), denomination=denomination)
            for name in NAMES
            for denomination in ("ucredit", "uother")
        ),
        dev=True,
        parameters={"bucket_burst": 1_000_000, **parameters},
    )


def device(name: str, model: str = "h100", **fields: Any) -> Device:
    """A device whose id comes from its name."""
    facts = {"vendor": "nvidia", "vram_mib": 81_920, "interface": "sxm", **fields}
    return Device(id=device_id(CHAIN, name), model=model, **facts)


def offer(*devices: Device, **fields: Any) -> Offer:
    """A roomy host with these devices."""
    room = {"cpu_milli": 64_000, "memory": 512 * GIB, "storage": {"ephemeral": 4_096 * GIB}, "ports": 100, **fields}
    return Offer(devices=devices, **room)


def prices(gpu: int = 2 * CREDIT, cpu: int = 0, memory: int = 0, storage: int = 0, port: int = 0, **models: int) -> Prices:
    """Unit prices in micro-units an hour; further models by name."""
    return Prices(
        cpu=str(cpu),
        gpu={"*": str(gpu), **{model: str(price) for model, price in models.items()}},
        memory=str(memory),
        port=str(port),
        storage={"*": str(storage)},
    )


def gpu(count: int = 1, *models: str, **fields: Any) -> GpuAsk:
    """GPUs of one replica; any NVIDIA model where none is named."""
    return GpuAsk(count=count, models=tuple(GpuModel(vendor="nvidia", model=model, **fields) for model in models or ("",)))


def unit(ask: GpuAsk | None = None, count: int = 1, **fields: Any) -> ResourceUnit:
    """What one replica needs."""
    room = {"cpu_milli": 1_000, "memory": GIB, **fields}
    return ResourceUnit(count=count, gpu=ask, **room)


def group(*units: ResourceUnit, limit: int = 4 * CREDIT, name: str = "g", **fields: Any) -> Group:
    """A group; one H100 where no unit is named."""
    return Group(limit_per_hour=str(limit), name=name, resources=units or (unit(gpu(1, "h100")),), **fields)


class World:
    """A machine with the market, and short ways to act on it. Every block is followed by a full check of invariants."""

    def __init__(self, machine: Machine | None = None, check: bool = True, **parameters: int) -> None:
        self.machine = machine or Machine(genesis(**parameters), [Market()])
        self.check = check
        self.blocks: list[tuple[int, list[bytes]]] = []
        self.results: list[BlockResult] = []
        self._nonce = 0

    # Blocks

    @property
    def now(self) -> int:
        """Time of the newest block, in ms."""
        return self.machine.head.time_ms

    def raw(self, who: str, *messages: Message, at: int | None = None) -> bytes:
        """A signed transaction of an actor."""
        self._nonce += 1
        return sign_transaction(
            Transaction(
                chain_id=CHAIN,
                messages=messages,
                nonce=f"{self._nonce:032x}",
                principal=ADDRESS[who],
                sequence=0,
                signer=public_key(SEEDS[who]).hex(),
                valid_until=(self.now if at is None else at) + 60_000,
            ),
            SEEDS[who],
        )

    def block(self, *raws: bytes, at: int | None = None) -> BlockResult:
        """Apply a block a second after the last one, or at `at`."""
        time = self.now + 1_000 if at is None else at
        self.blocks.append((time, list(raws)))
        result = self.machine.apply_block(time, [self.machine.codec.decode(raw) for raw in raws])
        self.results.append(result)
        if self.check:
            self.machine.invariants()
        return result

    def send(self, who: str, *messages: Message, at: int | None = None) -> Receipt:
        """One transaction in a block of its own."""
        time = self.now + 1_000 if at is None else at
        return self.block(self.raw(who, *messages, at=time), at=time).receipts[0]

    def ok(self, who: str, *messages: Message, at: int | None = None) -> Receipt:
        """The same; it must be applied."""
        receipt = self.send(who, *messages, at=at)
        assert receipt.ok, f"{receipt.code}: {receipt.detail}"
        return receipt

    def code(self, who: str, *messages: Message, at: int | None = None) -> int:
        """The code of one transaction in a block of its own."""
        return self.send(who, *messages, at=at).code

    def run_until(self, time: int) -> None:
        """Cut a block at each instant at which something falls due, and one at `time`; no heartbeats meanwhile."""
        while (due := self.machine.next_due()) is not None and due < time:
            self.block(at=max(due, self.now + 1))
        if self.now < time:
            self.block(at=time)

    def live_until(self, time: int, *providers: str, step: int = 60_000) -> None:
        """The same, while every host of these providers beats."""
        while self.now < time:
            beats = [self.raw(who, self.beats(who), at=min(self.now + step, time)) for who in providers]
            self.block(*beats, at=min(self.now + step, time))

    def beats(self, who: str) -> m.Heartbeat:
        """A heartbeat of all hosts of a provider."""
        return m.Heartbeat(hosts=tuple(host.host for host in self.machine.store.find(HOSTS, "provider", ADDRESS[who])))

    # Acts

    def provider(self, who: str = "pat", **attributes: str) -> None:
        """Register a provider."""
        self.ok(who, m.RegisterProvider(endpoint="https://127.0.0.1:8443", gateway_key="0" * 64, attributes=attributes))

    def host(
        self, who: str = "pat", name: str = "h1", *, bid: Offer | None = None, price: Prices | None = None, **terms: Any
    ) -> None:
        """Register a host with a bid on it, which counts by the time this returns. One H100 where nothing is said."""
        self.ok(who, m.RegisterHost(host=name))
        self.bid(who, name, bid=bid or offer(device(f"{who}/{name}/0")), price=price, **terms)

    def bid(self, who: str = "pat", name: str = "h1", **fields: Any) -> Receipt:
        """Put the bid of a host and let it count."""
        receipt = self.ok(who, self.put(who, name, **fields))
        self.block()
        return receipt

    def put(
        self,
        who: str = "pat",
        name: str = "h1",
        *,
        bid: Offer | None = None,
        price: Prices | None = None,
        denomination: str = "ucredit",
        expires_ms: int = START + 10**9,
        version: int | None = None,
        **terms: Any,
    ) -> m.PutBid:
        """A PutBid in place of what stands."""
        old = self.machine.store.get(BIDS, f"{ADDRESS[who]}/{name}")
        return m.PutBid(
            denomination=denomination,
            expires_ms=expires_ms,
            host=name,
            offer=bid or (old.offer if old else offer(device(f"{who}/{name}/0"))),
            prices=price or prices(),
            terms=Terms(**terms),
            version=(old.version if old else 0) if version is None else version,
        )

    def create(
        self, *groups: Group, dseq: int = 1, deposit: int = 100 * CREDIT, denomination: str = "ucredit"
    ) -> m.CreateDeployment:
        """A CreateDeployment."""
        return m.CreateDeployment(
            denomination=denomination, deposit=str(deposit), dseq=dseq, groups=groups or (group(),), hash="a" * 64
        )

    def deploy(self, who: str = "ann", *groups: Group, **fields: Any) -> str:
        """Open a deployment; its id."""
        self.ok(who, self.create(*groups, **fields))
        return f"{ADDRESS[who]}/{fields.get('dseq', 1)}"

    def active(self, who: str = "ann", *groups: Group, **fields: Any) -> str:
        """Open a deployment of one group that matches, and let its provider start it; the lease's id."""
        lease = self.leases(self.deploy(who, *groups, **fields))[-1]
        return self.start(lease)

    def start(self, lease: Lease) -> str:
        """Let the provider of a lease report it active; the lease's id."""
        id = self.id_of(lease)
        self.ok(NAME_OF[lease.provider], self.report(id))
        return id

    def report(self, id: str, generation: int | None = None) -> m.ReportActive:
        """A ReportActive that is right."""
        lease = self.lease(id)
        return m.ReportActive(
            devices=lease.devices, generation=generation or lease.generation, images={"web": "sha256:" + "0" * 64}, lease=id
        )

    def down(self, id: str, since_ms: int, reason: str = "xid") -> m.ReportDown:
        """A ReportDown."""
        return m.ReportDown(generation=self.lease(id).generation, lease=id, reason=reason, since_ms=since_ms)

    def up(self, id: str) -> m.ReportUp:
        """A ReportUp."""
        return m.ReportUp(generation=self.lease(id).generation, lease=id)

    def end(self, id: str, reason: str = "policy") -> m.CloseLease:
        """A CloseLease."""
        return m.CloseLease(detail=f"because of {reason}", generation=self.lease(id).generation, lease=id, reason=reason)

    def released(self, id: str, clean: bool = True) -> m.Release:
        """A Release."""
        return m.Release(clean=clean, generation=self.lease(id).generation, lease=id)

    # Looks

    @staticmethod
    def id_of(lease: Lease) -> str:
        """A lease's id."""
        return LEASES.key(lease)

    def lease(self, id: str) -> Lease:
        """A lease that exists."""
        return self._there(self.machine.store.get(LEASES, id))

    def leases(self, deployment: str | None = None) -> list[Lease]:
        """All leases, or those of a deployment, in order of id."""
        if deployment is None:
            return list(self.machine.store.scan(LEASES))
        return self.machine.store.find(LEASES, "deployment", deployment)

    def claims(self) -> list[DeviceClaim]:
        """All device claims, in order of id."""
        return list(self.machine.store.scan(DEVICES))

    def order(self, id: str) -> Order:
        """An order that exists."""
        return self._there(self.machine.store.get(ORDERS, id))

    def orders(self, deployment: str) -> list[Order]:
        """Orders of a deployment, in order of id."""
        return self.machine.store.find(ORDERS, "deployment", deployment)

    def deployment(self, id: str) -> Deployment:
        """A deployment that exists."""
        return self._there(self.machine.store.get(DEPLOYMENTS, id))

    def purse(self, id: str) -> Purse:
        """A purse that exists."""
        return self._there(self.machine.store.get(PURSES, id))

    def book_bid(self, who: str = "pat", name: str = "h1") -> Bid:
        """A bid that exists."""
        return self._there(self.machine.store.get(BIDS, f"{ADDRESS[who]}/{name}"))

    def host_of(self, who: str = "pat", name: str = "h1") -> Host:
        """A host that exists."""
        return self._there(self.machine.store.get(HOSTS, f"{ADDRESS[who]}/{name}"))

    def events(self, kind: type[Event]) -> list[Any]:
        """All events of a kind so far."""
        return [event for result in self.results for event in result.events() if isinstance(event, kind)]

    @staticmethod
    def _there(record: Any) -> Any:
        assert record is not None
        return record
