"""The match, worked out the slow way: every bid, every set of devices, fractions instead of one denominator."""

from fractions import Fraction
from itertools import combinations
from math import ceil

from marketplace.protocol.records import Bid
from marketplace.protocol.resources import RAM, SIMULATED, Device, Group


def will_do(group: Group, index: int, device: Device) -> bool:
    """True where a device may serve a unit of the group."""
    ask = group.resources[index].gpu
    assert ask is not None
    if device.simulated != (group.attributes.get(SIMULATED) == "true"):
        return False
    for model in ask.models:
        memory = not model.ram_mib or Fraction(92, 100) <= Fraction(device.vram_mib, model.ram_mib) <= Fraction(101, 100)
        interface = model.interface in ("", device.interface, device.interface.rstrip("0123456789"))
        if model.vendor == device.vendor and model.model in ("", device.model) and memory and interface:
            return True
    return False


def gpu_price(bid: Bid, model: str) -> int:
    """Price of one GPU."""
    return int(bid.prices.gpu[model] if model in bid.prices.gpu else bid.prices.gpu["*"])


def cheapest_devices(group: Group, bid: Bid, free: list[Device]) -> int | None:
    """Least hourly cost of all GPUs, over every choice of devices; None where there is none."""
    replicas = [i for i, unit in enumerate(group.resources) if unit.gpu for _ in range(unit.count)]

    def search(left: list[int], pool: tuple[Device, ...]) -> int | None:
        if not left:
            return 0
        ask = group.resources[left[0]].gpu
        assert ask is not None
        best: int | None = None
        for chosen in combinations(pool, ask.count):
            if len({(d.vendor, d.model, d.vram_mib, d.interface) for d in chosen}) != 1:
                continue
            if not all(will_do(group, left[0], d) for d in chosen):
                continue
            rest = search(left[1:], tuple(d for d in pool if d not in chosen))
            if rest is not None:
                cost = rest + sum(gpu_price(bid, d.model) for d in chosen)
                best = cost if best is None else min(best, cost)
        return best

    return search(replicas, tuple(free))


def storage_price(bid: Bid, name: str) -> int | None:
    """Price of a GiB of a class."""
    text = bid.prices.storage.get(name, bid.prices.storage.get("*"))
    return None if text is None else int(text)


def rate(group: Group, bid: Bid, free: list[Device], attributes: dict[str, str]) -> int | None:
    """What a group costs an hour at an otherwise empty host with these free devices; None where it does not fit."""
    offer = bid.offer
    cost = Fraction(0)
    cpu = memory = ports = 0
    storage: dict[str, int] = {}
    for unit in group.resources:
        for _ in range(unit.count):
            cpu += unit.cpu_milli
            memory += unit.memory
            ports += unit.ports
            cost += Fraction(unit.cpu_milli * int(bid.prices.cpu), 1_000)
            cost += Fraction(unit.memory * int(bid.prices.memory), 2**30)
            cost += unit.ports * int(bid.prices.port)
            for volume in unit.volumes:
                price = storage_price(bid, volume.storage_class)
                if price is None:
                    return None
                cost += Fraction(volume.size * price, 2**30)
                if volume.storage_class == RAM:
                    memory += volume.size
                else:
                    storage[volume.storage_class] = storage.get(volume.storage_class, 0) + volume.size
    if cpu > offer.cpu_milli or memory > offer.memory or ports > offer.ports:
        return None
    if any(name not in offer.storage or size > offer.storage[name] for name, size in storage.items()):
        return None
    if any(attributes.get(key) != value for key, value in group.attributes.items() if key != SIMULATED):
        return None
    gpus = cheapest_devices(group, bid, free)
    if gpus is None:
        return None
    total = ceil(cost + gpus)
    return total if total <= int(group.limit_per_hour) else None
