"""Keeps the host's standing bid, its registration and its heartbeats on the ledger.

The bid follows facts that stay: devices, their health, sizes. What moves between two looks (free disk) is rounded down
and changed only when it has moved far, so that the book stays calm. A restart with the same facts changes nothing.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
import structlog

from ledger.protocol.errors import Rejected
from ledger.protocol.messages import Message
from marketplace.client import ApiError, Unreachable
from marketplace.protocol.messages import CancelBid, Heartbeat, PutBid, RegisterHost, RegisterProvider
from marketplace.protocol.resources import Device, Offer, device_id
from provider.inventory.models import Snapshot
from provider.leases.ledger import LedgerUnreachable, NodeLedger
from provider.pricing import PriceList

GIB: Final = 2**30

BEAT_S: Final = 60.0
"""Between heartbeats of a host, as the market expects them."""

BOOK_S: Final = 60.0
"""Between two looks at what the ledger says of us."""

BID_MS: Final = 24 * 3_600_000
"""A bid expires after this, and is renewed at half of it."""

log = structlog.get_logger("provider.bidder")


class Standing(msgspec.Struct, frozen=True):
    """What the ledger says of us. `bid` is our bid as the message that would make it; None where there is none."""

    endpoint: str = ""
    gateway_key: str = ""
    attributes: dict[str, str] = {}
    version: int = 0
    """Of the provider's record, 0: not registered."""
    host: bool = False
    bid: PutBid | None = None
    """Its `version` is the bid's own."""


class Book(Protocol):
    """The part of the ledger that a bidder reads and writes; LedgerUnreachable where there is no answer."""

    @property
    def chain_id(self) -> str:
        """Name of the chain."""
        ...

    def now_ms(self) -> int:
        """Block time."""
        ...

    def standing(self) -> Standing:
        """What the ledger says of us."""
        ...

    def send(self, *messages: Message) -> None:
        """Send one transaction; Rejected where it is refused."""
        ...


class NodeBook:
    """The book over a node."""

    def __init__(self, ledger: NodeLedger) -> None:
        self._ledger = ledger

    @property
    def chain_id(self) -> str:
        """Name of the chain."""
        return self._ledger.chain_id

    def now_ms(self) -> int:
        """Block time."""
        return self._ledger.now_ms()

    def send(self, *messages: Message) -> None:
        """Send one transaction."""
        self._ledger.send(*messages)

    def standing(self) -> Standing:
        """Provider, host and bid."""
        client = self._ledger.client()
        try:
            try:
                record = client.provider(self._ledger.provider)
            except ApiError as error:
                if error.status != 404:
                    raise
                return Standing()
            host = any(h["host"] == self._ledger.host for h in record["hosts"])
            bid = None
            if host:
                try:
                    view = client.bid(self._ledger.provider, self._ledger.host)
                    bid = msgspec.convert({k: view[k] for k in PutBid.__struct_fields__}, PutBid)
                except ApiError as error:
                    if error.status != 404:
                        raise
        except (Unreachable, ApiError) as error:
            raise LedgerUnreachable(str(error)) from None
        return Standing(record["endpoint"], record["gateway_key"], record["attributes"], record["version"], host, bid)


def round_down(size: int) -> int:
    """Bytes rounded down to a coarse step: 16 GiB, or 1 GiB where there is little."""
    step = 16 * GIB if size >= 64 * GIB else GIB
    return size - size % step


def steady(offered: int, found: int) -> int:
    """What to offer: what is offered already, unless what is found differs from it by more than a third."""
    return offered if offered and 2 * offered <= 3 * found and 2 * found <= 3 * offered else found


def offer_of(snapshot: Snapshot, prices: PriceList, chain_id: str, offered: Offer | None) -> Offer:
    """The offer that the host's facts and the price file make; `offered` is the one in the book."""
    memory = round_down(snapshot.memory * prices.memory_percent // 100) or snapshot.memory * prices.memory_percent // 100
    disk = snapshot.disk * prices.disk_percent // 100
    storage = {name: round_down(disk * percent // 100) for name, percent in prices.disk_classes.items() if percent}
    storage = {name: size for name, size in storage.items() if size}
    if offered is not None and set(offered.storage) == set(storage):
        kept = {name: steady(offered.storage[name], size) for name, size in storage.items()}
        # All move together or none: they are parts of one disk.
        storage = dict(offered.storage) if kept == offered.storage else storage
    if offered is not None:
        memory = steady(offered.memory, memory)
    devices = tuple(
        Device(
            id=device_id(chain_id, d.uuid),
            model=d.model,
            vendor=d.vendor,
            vram_mib=d.vram_mib,
            interface=d.interface,
            link=d.link,
            simulated=d.simulated,
        )
        for d in snapshot.offerable()
    )
    cpu = snapshot.cpu_milli * prices.cpu_percent // 100
    attributes = dict(sorted((snapshot.attributes | prices.attributes).items())[:64])
    return Offer(cpu_milli=cpu, memory=memory, storage=storage, attributes=attributes, devices=devices)


class Bidder:
    """`look` probes the host, `healthy` says whether leases can be started now. `tick` is called every few seconds."""

    def __init__(
        self,
        book: Book,
        *,
        host: str,
        endpoint: str,
        gateway_key: str,
        prices: PriceList,
        look: Callable[[], Snapshot],
        healthy: Callable[[], bool],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._book = book
        self._host = host
        self._endpoint = endpoint
        self._gateway_key = gateway_key
        self._prices = prices
        self._look = look
        self._healthy = healthy
        self._monotonic_s = monotonic_s
        self._beat_at = float("-inf")
        self._book_at = float("-inf")
        self._digest = ""
        self.standing: Standing | None = None
        """What the ledger last said of us."""

    def hurry(self) -> None:
        """Look at the book again at the next tick."""
        self._book_at = float("-inf")

    def tick(self) -> None:
        """One pass: register, bid and beat where it is due. LedgerUnreachable, or Rejected, is for the next pass to mend."""
        now = self._monotonic_s()
        snapshot = self._look()
        changed = snapshot.digest() != self._digest
        if changed or now - self._book_at >= BOOK_S or self.standing is None:
            standing = self.standing = self._book.standing()
            registering, bid = self._register(standing), self._bid(standing, snapshot)
            messages = registering + bid
            if messages:
                try:
                    self._book.send(*messages)
                except Rejected:
                    # A refused bid, as one without enough bond, must neither hide the gateway nor silence the host's leases.
                    if registering and bid:
                        self._book.send(*registering)
                    elif standing.host:
                        self._beat(now)
                    raise
                self._beat_at = now
                self.standing = self._book.standing()
                log.info("changed the book", messages=[type(m).__name__ for m in messages])
            self._digest, self._book_at = snapshot.digest(), now
        self._beat(now)

    def _beat(self, now: float) -> None:
        if now - self._beat_at >= BEAT_S:
            self._book.send(Heartbeat(hosts=(self._host,)))
            self._beat_at = now

    def _register(self, standing: Standing) -> list[Message]:
        messages: list[Message] = []
        attributes = self._prices.attributes
        if (standing.endpoint, standing.gateway_key, standing.attributes) != (self._endpoint, self._gateway_key, attributes):
            messages.append(
                RegisterProvider(
                    endpoint=self._endpoint, gateway_key=self._gateway_key, attributes=attributes, version=standing.version
                )
            )
        if not standing.host:
            messages.append(RegisterHost(host=self._host))
        return messages

    def _bid(self, standing: Standing, snapshot: Snapshot) -> list[Message]:
        old = standing.bid
        if not self._healthy():
            return [CancelBid(host=self._host, version=old.version)] if old else []
        now_ms = self._book.now_ms()
        bid = PutBid(
            denomination=self._prices.denomination,
            expires_ms=now_ms + BID_MS,
            host=self._host,
            offer=offer_of(snapshot, self._prices, self._book.chain_id, old.offer if old else None),
            prices=self._prices.prices,
            terms=self._prices.terms,
            version=old.version if old else 0,
        )
        if old is not None and old.expires_ms - now_ms > BID_MS // 2:
            same = msgspec.structs.replace(bid, expires_ms=old.expires_ms)
            if same == old:
                return []
        return [bid]
