"""What a group costs at a bid: unit prices times quantities, rounded up once, in integers.

Quantities come in thousandths of a processor and in bytes; everything is brought to one denominator, so that the
only rounding is the last step.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from ledger.protocol.money import ceil_div, parse_amount
from marketplace.protocol.resources import RAM, Group, Prices

_GIB: Final = 2**30
_MILLI: Final = 1_000
# The least common multiple of 1,000 and 2^30.
_DENOMINATOR: Final = _GIB * 125
_PER_MILLI: Final = _DENOMINATOR // _MILLI
_PER_BYTE: Final = _DENOMINATOR // _GIB


class PriceList(msgspec.Struct, frozen=True):
    """Unit prices as integers, in micro-units an hour."""

    cpu: int
    gpu: dict[str, int]
    memory: int
    port: int
    storage: dict[str, int]

    def of_gpu(self, model: str) -> int | None:
        """Price of one GPU of a model, or None where it has none."""
        return self.gpu.get(model, self.gpu.get("*"))

    def of_storage(self, storage_class: str) -> int | None:
        """Price of a GiB of a class, or None where it has none."""
        return self.storage.get(storage_class, self.storage.get("*"))


class Need(msgspec.Struct, frozen=True):
    """What all replicas of a group take together; memory includes memory-backed volumes."""

    cpu_milli: int
    gpus: int
    memory: int
    plain_memory: int
    """Memory without memory-backed volumes: those are priced as storage of class `ram`."""
    ports: int
    ram: int
    storage: dict[str, int]
    """Bytes by class, without class `ram`."""


def price_list(prices: Prices) -> PriceList:
    """The integers in a bid's prices; AMOUNT_REFUSED where one is over the largest amount."""
    return PriceList(
        cpu=parse_amount(prices.cpu),
        gpu={model: parse_amount(amount) for model, amount in prices.gpu.items()},
        memory=parse_amount(prices.memory),
        port=parse_amount(prices.port),
        storage={name: parse_amount(amount) for name, amount in prices.storage.items()},
    )


def need_of(group: Group) -> Need:
    """The sum over units and replicas."""
    cpu = gpus = memory = ports = 0
    storage: dict[str, int] = {}
    for unit in group.resources:
        cpu += unit.count * unit.cpu_milli
        memory += unit.count * unit.memory
        ports += unit.count * unit.ports
        gpus += unit.count * (unit.gpu.count if unit.gpu else 0)
        for volume in unit.volumes:
            storage[volume.storage_class] = storage.get(volume.storage_class, 0) + unit.count * volume.size
    ram = storage.pop(RAM, 0)
    return Need(cpu_milli=cpu, gpus=gpus, memory=memory + ram, plain_memory=memory, ports=ports, ram=ram, storage=storage)


def ask_per_hour(need: Need, prices: PriceList, gpu_models: Mapping[str, int]) -> int | None:
    """The ask in micro-units an hour, rounded up once; `gpu_models` counts the chosen GPUs by model.

    None where the bid has no price for something that is asked.
    """
    numerator = need.cpu_milli * prices.cpu * _PER_MILLI + need.plain_memory * prices.memory * _PER_BYTE
    for storage_class, size in (*need.storage.items(), (RAM, need.ram)):
        if size:
            price = prices.of_storage(storage_class)
            if price is None:
                return None
            numerator += size * price * _PER_BYTE
    whole = need.ports * prices.port
    for model, count in gpu_models.items():
        price = prices.of_gpu(model)
        if price is None:
            return None
        whole += count * price
    return ceil_div(numerator + whole * _DENOMINATOR, _DENOMINATOR)
