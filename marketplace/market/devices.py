"""Which GPUs of a host serve a group: cheapest kinds first, whole replicas on one link island, lowest ids.

GPUs of one replica are of one kind (model, interface, memory). Different units take disjoint devices.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from marketplace.protocol.resources import SIMULATED, Device, GpuAsk, GpuModel, Group

SEARCH_STEPS: Final = 1_024
"""Most steps of the search over kinds on one host: what is not found within them does not fit."""

Kind = tuple[str, str, int, str]
"""Vendor, model, memory in MiB, interface."""


class Choice(NamedTuple):
    """Devices by unit and replica, one after another, how many there are of each model; and how long the search was."""

    devices: tuple[str, ...]
    models: dict[str, int]
    fits: bool = True
    """False where there is no choice; then there are no devices."""
    steps: int = 0


NO_CHOICE: Final = Choice((), {}, fits=False)


class _Replica(NamedTuple):
    """One replica that wants GPUs: its unit's index, how many, and the kinds that will do, cheapest first."""

    unit: int
    size: int
    kinds: tuple[Kind, ...]


def wants_simulated(group: Group) -> bool:
    """True where the group asks for simulated devices: then it gets only those, and otherwise none of them."""
    return group.attributes.get(SIMULATED) == "true"


def accepts(asked: GpuModel, kind: Kind) -> bool:
    """True where a kind of device will do.

    A card shows less memory than its nominal size (ECC and reserved memory take up to 8%); `sxm` takes any `sxm`
    generation.
    """
    vendor, model, vram_mib, interface = kind
    if asked.vendor != vendor or (asked.model and asked.model != model):
        return False
    if asked.ram_mib and not asked.ram_mib * 92 <= vram_mib * 100 <= asked.ram_mib * 101:
        return False
    return not asked.interface or asked.interface in (interface, interface.rstrip("0123456789"))


def kind_of(device: Device) -> Kind:
    """What makes devices interchangeable."""
    return (device.vendor, device.model, device.vram_mib, device.interface)


def any_accepts(ask: GpuAsk, kind: Kind) -> bool:
    """True where one of the models asked accepts the kind."""
    return any(accepts(model, kind) for model in ask.models)


def choose(group: Group, free: Sequence[Device], price_of: Callable[[str], int | None]) -> Choice:
    """The devices for all replicas at the least cost, if they fit. `free` is in ascending id order."""
    simulated = wants_simulated(group)
    pools: dict[Kind, list[Device]] = {}
    for device in free:
        if device.simulated == simulated and price_of(device.model) is not None:
            pools.setdefault(kind_of(device), []).append(device)
    by_price = sorted(pools, key=lambda kind: (price_of(kind[1]) or 0, kind))
    replicas = []
    for index, unit in enumerate(group.resources):
        if unit.gpu is not None:
            ask = unit.gpu
            kinds = tuple(kind for kind in by_price if any_accepts(ask, kind))
            if not kinds:
                return NO_CHOICE
            replicas += [_Replica(index, ask.count, kinds)] * unit.count
    left = {kind: len(pool) for kind, pool in pools.items()}
    if sum(replica.size for replica in replicas) > sum(left.values()):
        return NO_CHOICE
    # The most constrained first; replicas of one unit stay together.
    replicas.sort(key=lambda replica: (len(replica.kinds), -replica.size, replica.unit))
    kinds_chosen, steps = _assign(replicas, left, {kind: price_of(kind[1]) or 0 for kind in pools})
    chosen = NO_CHOICE if kinds_chosen is None else _pick(replicas, kinds_chosen, pools)
    return chosen._replace(steps=steps)


def _assign(replicas: Sequence[_Replica], left: dict[Kind, int], prices: Mapping[Kind, int]) -> tuple[list[Kind] | None, int]:
    """A kind for each replica at the least cost, and how many steps that took.

    Depth first, cheapest first, cut by cost and by `SEARCH_STEPS`.
    """
    if all(replica.kinds == replicas[0].kinds[:1] for replica in replicas):
        fits = not replicas or sum(replica.size for replica in replicas) <= left[replicas[0].kinds[0]]
        return ([replica.kinds[0] for replica in replicas] if fits else None), 1
    best: list[Kind] | None = None
    best_cost = 0
    steps = 0
    chosen: list[Kind] = []

    def search(index: int, cost: int) -> None:
        nonlocal best, best_cost, steps
        steps += 1
        if best is not None and cost >= best_cost:
            return
        if index == len(replicas):
            best, best_cost = list(chosen), cost
            return
        replica = replicas[index]
        # Replicas of one unit are alike: a later one starts at the kind of the one before.
        start = replica.kinds.index(chosen[-1]) if index and replicas[index - 1].unit == replica.unit else 0
        for kind in replica.kinds[start:]:
            if steps >= SEARCH_STEPS:
                return
            if left[kind] >= replica.size:
                left[kind] -= replica.size
                chosen.append(kind)
                search(index + 1, cost + replica.size * prices[kind])
                chosen.pop()
                left[kind] += replica.size

    search(0, 0)
    return best, steps


def _pick(replicas: Sequence[_Replica], kinds: Sequence[Kind], pools: dict[Kind, list[Device]]) -> Choice:
    """Devices for each replica, the largest first: they break the fewest islands."""
    order = sorted(range(len(replicas)), key=lambda i: (-replicas[i].size, replicas[i].unit, i))
    taken: dict[int, list[str]] = {}
    models: dict[str, int] = {}
    for i in order:
        pool = pools[kinds[i]]
        devices = _from_pool(pool, replicas[i].size)
        for device in devices:
            pool.remove(device)
            models[device.model] = models.get(device.model, 0) + 1
        taken[i] = [device.id for device in devices]
    by_unit = sorted(range(len(replicas)), key=lambda i: (replicas[i].unit, i))
    return Choice(tuple(id for i in by_unit for id in taken[i]), models)


def _from_pool(pool: Sequence[Device], count: int) -> list[Device]:
    """`count` devices: the smallest island that holds them all, else the lowest ids. A device without a link stands alone."""
    islands: dict[str, list[Device]] = {}
    for device in pool:
        islands.setdefault(device.link or device.id, []).append(device)
    enough = [island for island in islands.values() if len(island) >= count]
    if not enough:
        return list(pool[:count])
    return min(enough, key=lambda island: (len(island), island[0].id))[:count]
