"""The order book in memory: bids by GPU model and price, waiting orders by what they ask for.

It is a cache: built from state it must equal the live one, which follows the tables. What changed is only noted when
it changes, and looked up again when the book is next used, so a transaction that is rolled back leaves it true.
"""

from collections.abc import Iterator
from heapq import merge
from typing import Any, Final

from sortedcontainers import SortedList

from ledger.machine.store import Store
from marketplace.market.placement import Entry, entry_of
from marketplace.market.tables import (
    ATTESTATIONS,
    BIDS,
    DEVICES,
    HOSTS,
    LEASES,
    ORDERS,
    PROVIDERS,
    host_key,
    order_key,
)
from marketplace.protocol.records import (
    Attestation,
    Bid,
    DeviceClaim,
    DeviceState,
    Host,
    Lease,
    Order,
    OrderState,
    Provider,
)
from marketplace.protocol.resources import Device, Group

NO_GPU: Final = ""
ANY: Final = "*"
"""Classes of orders: a model's slug, any model, or no GPU at all."""


def classes_of(group: Group) -> tuple[str, ...]:
    """The classes of bids that could serve a group: it is looked at again when one of them gains."""
    names: set[str] = set()
    for unit in group.resources:
        for model in unit.gpu.models if unit.gpu else ():
            names.add(model.model or ANY)
    return tuple(sorted(names)) or (NO_GPU,)


class Book:
    """Bids and waiting orders, indexed."""

    def __init__(self, store: Store, *, follow: bool = True) -> None:
        self._store = store
        self.entries: dict[str, Entry] = {}
        self._offered: dict[str, Any] = {}
        self._free: dict[str, Any] = {}
        self._by_cpu: Any = SortedList()
        self._waiting: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._by_class: dict[str, Any] = {}
        self._stale: set[str] = set()
        self._gained: set[str] = set()
        self._stale_orders: set[str] = set()
        self._arrived: set[str] = set()
        for bid in store.scan(BIDS):
            self._stale.add(host_key(bid.provider, bid.host))
        for order in store.scan(ORDERS):
            if order.state is OrderState.OPEN:
                self._stale_orders.add(order_key(order))
        self.refresh()
        if follow:
            self._follow(store)

    def _follow(self, store: Store) -> None:
        """Note from now on what changes."""
        store.watch(BIDS, self._bid_changed)
        store.watch(HOSTS, self._host_changed)
        store.watch(PROVIDERS, self._provider_changed)
        store.watch(ATTESTATIONS, self._attestation_changed)
        store.watch(DEVICES, self._device_changed)
        store.watch(LEASES, self._lease_changed)
        store.watch(ORDERS, self._order_changed)

    # What changed

    def _bid_changed(self, old: Bid | None, new: Bid | None) -> None:
        bid = new or old
        assert bid is not None
        self._stale.add(host_key(bid.provider, bid.host))

    def _host_changed(self, old: Host | None, new: Host | None) -> None:
        if old is not None and new is not None and old.silent != new.silent:
            self.gained(host_key(new.provider, new.host))

    def _provider_changed(self, old: Provider | None, new: Provider | None) -> None:
        provider = new or old
        assert provider is not None
        if old is None or new is None or old.attributes != new.attributes:
            self._provider_gained(provider.address)

    def _attestation_changed(self, old: Attestation | None, new: Attestation | None) -> None:
        attestation = new or old
        assert attestation is not None
        self._provider_gained(attestation.provider)

    def _device_changed(self, old: DeviceClaim | None, new: DeviceClaim | None) -> None:
        claim = new or old
        assert claim is not None
        key = host_key(claim.provider, claim.host)
        self._stale.add(key)
        if new is not None and new.state is DeviceState.FREE:
            self._gained.add(key)

    def _lease_changed(self, old: Lease | None, new: Lease | None) -> None:
        lease = new or old
        assert lease is not None
        if old is None or new is None or old.released != new.released:
            self._stale.add(host_key(lease.provider, lease.host))
            if new is not None and new.released:
                self._gained.add(host_key(lease.provider, lease.host))

    def _order_changed(self, old: Order | None, new: Order | None) -> None:
        order = new or old
        assert order is not None
        if old is None or new is None or old.state is not new.state:
            self._stale_orders.add(order_key(order))
            if old is None:
                self._arrived.add(order_key(order))

    def _provider_gained(self, provider: str) -> None:
        for bid in self._store.find(BIDS, "provider", provider):
            self.gained(host_key(bid.provider, bid.host))

    def gained(self, key: str) -> None:
        """A host may serve what it could not before: orders of its classes are looked at again."""
        self._stale.add(key)
        self._gained.add(key)

    def look_again(self, order: str) -> None:
        """Look at an order once more in this block."""
        self._arrived.add(order)

    # Bringing it up to date

    def refresh(self) -> None:
        """Look up again whatever changed."""
        for key in sorted(self._stale):
            self.refresh_host(key)
        self._stale.clear()
        for id in sorted(self._stale_orders):
            self._refresh_order(id)
        self._stale_orders.clear()

    def refresh_host(self, key: str) -> None:
        """Look up one host's bid again."""
        old = self.entries.pop(key, None)
        if old is not None:
            self._by_cpu.remove((old.prices.cpu, key))
            _take(self._offered, old, old.bid.offer.devices)
            _take(self._free, old, _for_sale(old))
        new = entry_of(self._store, key)
        if new is not None:
            self.entries[key] = new
            self._by_cpu.add((new.prices.cpu, key))
            _put(self._offered, new, new.bid.offer.devices)
            _put(self._free, new, _for_sale(new))

    def _refresh_order(self, id: str) -> None:
        old = self._waiting.pop(id, None)
        if old is not None:
            for name in old[1]:
                self._by_class[name].remove((old[0], id))
                if not self._by_class[name]:
                    del self._by_class[name]
        order = self._store.get(ORDERS, id)
        if order is not None and order.state is OrderState.OPEN and order.group.selection == "automatic":
            classes = classes_of(order.group)
            self._waiting[id] = (order.arrival, classes)
            for name in classes:
                self._by_class.setdefault(name, SortedList()).add((order.arrival, id))

    def take_looks(self) -> list[tuple[int, str]]:
        """Bring the book up to date; the waiting orders to look at now, as (arrival, id) in order of arrival."""
        self.refresh()
        looks = {(self._waiting[id][0], id) for id in self._arrived if id in self._waiting}
        classes = {name for key in self._gained if key in self.entries for name in self._classes_at(key)}
        for name in classes:
            looks.update(self._by_class.get(name, ()))
        self._arrived.clear()
        self._gained.clear()
        return sorted(looks)

    def _classes_at(self, key: str) -> set[str]:
        return {NO_GPU, ANY, *(device.model for device in self.entries[key].bid.offer.devices)}

    def is_waiting(self, id: str) -> bool:
        """True where the order is open and to be matched by the market."""
        return id in self._waiting

    # Asking it

    def candidates(self, group: Group) -> Iterator[tuple[int, Entry]]:
        """Bids that might serve a group, with the least that they can cost in micro-units an hour, which never falls.

        A host with several models may come twice.
        """
        classes = classes_of(group)
        if classes == (NO_GPU,):
            cpu = sum(unit.count * unit.cpu_milli for unit in group.resources)
            for price, key in self._by_cpu:
                entry = self.entries[key]
                if not entry.silent:
                    yield price * cpu // 1_000, entry
            return
        gpus = sum(unit.count * unit.gpu.count for unit in group.resources if unit.gpu)
        names = sorted(self._free) if ANY in classes else classes
        for price, key in merge(*(self._free[name] for name in names if name in self._free)):
            yield price * gpus, self.entries[key]

    def breadth(self, group: Group) -> int:
        """How many bids `offering` goes through, at most."""
        classes = classes_of(group)
        if classes == (NO_GPU,) or ANY in classes:
            return len(self.entries)
        return sum(len(self._offered.get(name, ())) for name in classes)

    def offering(self, group: Group, most: int) -> list[Entry]:
        """Bids of hosts that offer a model that a group asks for, free or not: the cheapest `most` of them."""
        classes = classes_of(group)
        if classes == (NO_GPU,):
            return [self.entries[key] for _, key in self._by_cpu[:most]]
        names = sorted(self._offered) if ANY in classes else classes
        keys: dict[str, None] = {}
        for _, key in merge(*(self._offered[name] for name in names if name in self._offered)):
            if len(keys) == most:
                break
            keys[key] = None
        return [self.entries[key] for key in keys]

    def picture(self) -> object:
        """All that the book holds, for comparison with one built anew."""
        return (
            dict(sorted(self.entries.items())),
            {name: list(found) for name, found in sorted(self._offered.items())},
            {name: list(found) for name, found in sorted(self._free.items())},
            list(self._by_cpu),
            dict(sorted(self._waiting.items())),
            {name: list(found) for name, found in sorted(self._by_class.items())},
        )


def _for_sale(entry: Entry) -> tuple[Device, ...]:
    return () if entry.silent else entry.free.devices


def _rows(entry: Entry, devices: tuple[Device, ...]) -> list[tuple[str, tuple[int, str]]]:
    models = sorted({device.model for device in devices})
    return [(model, (entry.prices.of_gpu(model) or 0, entry.key)) for model in models]


def _put(index: dict[str, Any], entry: Entry, devices: tuple[Device, ...]) -> None:
    for model, row in _rows(entry, devices):
        index.setdefault(model, SortedList()).add(row)


def _take(index: dict[str, Any], entry: Entry, devices: tuple[Device, ...]) -> None:
    for model, row in _rows(entry, devices):
        index[model].remove(row)
        if not index[model]:
            del index[model]
