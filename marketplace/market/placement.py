"""Whether a bid can serve a group, which test it fails, and what is free at a host: pure questions to the state."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ledger.machine.store import Store
from ledger.protocol.money import metered, parse_amount
from marketplace.market.devices import NO_CHOICE, Choice, any_accepts, choose, kind_of, wants_simulated
from marketplace.market.pricing import Need, PriceList, ask_per_hour, need_of, price_list
from marketplace.market.tables import ATTESTATIONS, BIDS, DEVICES, HOSTS, LEASES, ORDERS, PROVIDERS, host_key, order_of
from marketplace.protocol.records import Bid, DeviceState
from marketplace.protocol.resources import RAM, SIMULATED, Device, Group

TESTS: Final = (
    "gpu_model", "denomination", "silent", "not_yet", "avoided", "duration", "attributes", "signed_by", "cpu", "memory",
    "storage", "ports", "gpu", "price", "funds",
)  # fmt: skip
"""What a bid must pass, in this order: a bid that fails is counted under the first it fails."""

STEPS_A_TEST: Final = 32
"""Steps of the search over devices that take about as long as all other tests of a bid."""

RANK: Final[Mapping[str, int]] = {name: rank for rank, name in enumerate(TESTS)}


class Free(msgspec.Struct, frozen=True):
    """What of an offer no unreleased lease holds. Sizes in bytes, devices in ascending id order."""

    cpu_milli: int
    devices: tuple[Device, ...]
    memory: int
    ports: int
    storage: dict[str, int]


class Entry(msgspec.Struct, frozen=True):
    """A bid as the matching sees it: with what is free, its host's state, and prices as integers."""

    attributes: dict[str, str]
    bid: Bid
    free: Free
    key: str
    prices: PriceList
    silent: bool


class Ask(msgspec.Struct, frozen=True):
    """A group with what the tests need to know of it, worked out once."""

    attributes: dict[str, str]
    """Required of the provider; the reserved ones are left out."""
    avoid: tuple[str, ...]
    denomination: str
    funds: int | None
    """What is free in the purse, in micro-units; None where no purse is asked."""
    group: Group
    limit: int
    need: Need


class Fit(msgspec.Struct, frozen=True):
    """A bid that can serve a group, at which rate an hour, with which devices."""

    devices: tuple[str, ...]
    entry: Entry
    rate: int
    work: int
    """What finding out counts for in a block's budget: 1, and more for a long search over devices."""


class Miss(msgspec.Struct, frozen=True):
    """A bid that cannot: the first test it fails, and numbers to say by how much (what it has, what is asked)."""

    asked: int
    entry: Entry
    has: int
    test: str
    word: str = ""
    """Which attribute, storage class or auditor."""
    work: int = 1


def ask_of(group: Group, denomination: str, avoid: tuple[str, ...] = (), funds: int | None = None) -> Ask:
    """The question that a group puts to the book."""
    return Ask(
        attributes={key: value for key, value in group.attributes.items() if key != SIMULATED},
        avoid=avoid,
        denomination=denomination,
        funds=funds,
        group=group,
        limit=parse_amount(group.limit_per_hour),
        need=need_of(group),
    )


def free_capacity(store: Store, bid: Bid) -> Free:
    """The offer less the allotments of unreleased leases, floored at 0; devices neither leased nor cordoned."""
    offer = bid.offer
    cpu, memory, ports, storage = offer.cpu_milli, offer.memory, offer.ports, dict(offer.storage)
    for lease in store.find(LEASES, "host", host_key(bid.provider, bid.host)):
        order = store.get(ORDERS, order_of(lease))
        assert order is not None
        need = need_of(order.group)
        cpu -= need.cpu_milli
        memory -= need.memory
        ports -= need.ports
        for name, size in need.storage.items():
            storage[name] = storage.get(name, 0) - size
    devices = []
    for device in offer.devices:
        claim = store.get(DEVICES, device.id)
        if claim is not None and claim.state is DeviceState.FREE and (claim.provider, claim.host) == (bid.provider, bid.host):
            devices.append(device)
    devices.sort(key=lambda device: device.id)
    return Free(
        cpu_milli=max(cpu, 0),
        devices=tuple(devices),
        memory=max(memory, 0),
        ports=max(ports, 0),
        storage={name: max(size, 0) for name, size in storage.items()},
    )


def entry_of(store: Store, key: str) -> Entry | None:
    """The bid of a host with all that matching asks about it, or None where it has no bid."""
    bid = store.get(BIDS, key)
    if bid is None:
        return None
    host = store.get(HOSTS, key)
    provider = store.get(PROVIDERS, bid.provider)
    assert host is not None
    assert provider is not None
    return Entry(
        attributes={**provider.attributes, **bid.offer.attributes},
        bid=bid,
        free=free_capacity(store, bid),
        key=key,
        prices=price_list(bid.prices),
        silent=host.silent,
    )


def examine(store: Store, ask: Ask, entry: Entry, height: int | None) -> Fit | Miss:
    """Put a bid to all tests. `height` is the block's; None lets a bid of this block count (for quotes)."""
    bid, group = entry.bid, ask.group
    if not offers_models(group, bid.offer.devices):
        return Miss(0, entry, 0, "gpu_model")
    if bid.denomination != ask.denomination:
        return Miss(0, entry, 0, "denomination", bid.denomination)
    if entry.silent:
        return Miss(0, entry, 0, "silent")
    if height is not None and bid.height >= height:
        return Miss(0, entry, 0, "not_yet")
    if ask.avoid and f"{entry.key}/{bid.version}" in ask.avoid:
        return Miss(0, entry, 0, "avoided")
    if bid.terms.max_duration_ms and (bid.terms.max_duration_ms < group.duration_ms):
        return Miss(group.duration_ms, entry, bid.terms.max_duration_ms, "duration")
    if bid.terms.least_ms > group.most_bound_ms:
        return Miss(group.most_bound_ms, entry, bid.terms.least_ms, "duration", "least")
    for key, value in sorted(ask.attributes.items()):
        if entry.attributes.get(key) != value:
            return Miss(0, entry, 0, "attributes", f"{key}={value}")
    unsigned = _unsigned(store, ask, bid.provider)
    if unsigned:
        return Miss(0, entry, 0, "signed_by", unsigned)
    return _short_of(ask.need, entry) or _priced(ask, entry)


def offers_models(group: Group, devices: Sequence[Device]) -> bool:
    """True where each unit that wants GPUs finds a kind that will do on offer, free or not."""
    simulated = wants_simulated(group)
    return all(
        unit.gpu is None or any(d.simulated == simulated and any_accepts(unit.gpu, kind_of(d)) for d in devices)
        for unit in group.resources
    )


def _unsigned(store: Store, ask: Ask, provider: str) -> str:
    """The auditor whose word is missing, or "" where all that is asked is attested."""
    signed_by = ask.group.signed_by

    def attests(auditor: str) -> bool:
        found = store.get(ATTESTATIONS, f"{provider}/{auditor}")
        return found is not None and all(found.attributes.get(key) == value for key, value in ask.attributes.items())

    for auditor in signed_by.all_of:
        if not attests(auditor):
            return auditor
    if signed_by.any_of and not any(attests(auditor) for auditor in signed_by.any_of):
        return signed_by.any_of[0]
    return ""


def _short_of(need: Need, entry: Entry) -> Miss | None:
    """The first capacity that does not suffice."""
    free = entry.free
    if need.cpu_milli > free.cpu_milli:
        return Miss(need.cpu_milli, entry, free.cpu_milli, "cpu")
    if need.memory > free.memory:
        return Miss(need.memory, entry, free.memory, "memory")
    for name, size in sorted(need.storage.items()):
        if name not in free.storage or size > free.storage[name]:
            return Miss(size, entry, free.storage.get(name, 0), "storage", name)
    if need.ports > free.ports:
        return Miss(need.ports, entry, free.ports, "ports")
    return None


def _priced(ask: Ask, entry: Entry) -> Fit | Miss:
    """Choose devices and compare the ask with the limit."""
    chosen = Choice((), {})
    if ask.need.gpus:
        enough = ask.need.gpus <= len(entry.free.devices)
        chosen = choose(ask.group, entry.free.devices, entry.prices.of_gpu) if enough else NO_CHOICE
    work = 1 + chosen.steps // STEPS_A_TEST
    if not chosen.fits:
        return Miss(ask.need.gpus, entry, _usable(ask.group, entry.free.devices), "gpu", work=work)
    rate = ask_per_hour(ask.need, entry.prices, chosen.models)
    if rate is None:
        return Miss(ask.need.ram, entry, 0, "storage", RAM, work)
    if rate > ask.limit:
        return Miss(ask.limit, entry, rate, "price", work=work)
    term = metered(rate, entry.bid.terms.least_ms)
    if ask.funds is not None and term > ask.funds:
        return Miss(term, entry, ask.funds, "funds", work=work)
    return Fit(chosen.devices, entry, rate, work)


def _usable(group: Group, free: Sequence[Device]) -> int:
    """How many free devices some unit would take."""
    simulated = wants_simulated(group)
    asks = [unit.gpu for unit in group.resources if unit.gpu is not None]
    return sum(1 for d in free if d.simulated == simulated and any(any_accepts(ask, kind_of(d)) for ask in asks))
