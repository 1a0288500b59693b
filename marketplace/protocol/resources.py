"""What is offered and what is asked: devices, processors, memory, storage, ports.

Sizes are bytes, processors thousandths of one, prices micro-units an hour. Field limits keep any product of
size, count and price well inside exact integer arithmetic.
"""

from typing import Annotated

import msgspec

from ledger.protocol.encoding import digest
from ledger.protocol.keys import Address, HashHex
from ledger.protocol.money import Amount

Slug = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]{1,32}\Z")]
Word = Annotated[str, msgspec.Meta(max_length=32, pattern=r"^[a-z0-9]*\Z")]
AttributeKey = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[!-~]+\Z")]
AttributeValue = Annotated[str, msgspec.Meta(max_length=256, pattern=r"^[ -~]*\Z")]
StorageClass = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_-]{1,32}\Z")]
PricedModel = Annotated[str, msgspec.Meta(pattern=r"^([a-z0-9]{1,32}|\*)\Z")]
PricedClass = Annotated[str, msgspec.Meta(pattern=r"^([a-zA-Z0-9_-]{1,32}|\*)\Z")]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**50)]
MilliCpu = Annotated[int, msgspec.Meta(ge=0, le=10**7)]
Count = Annotated[int, msgspec.Meta(ge=1, le=256)]
Attributes = Annotated[dict[AttributeKey, AttributeValue], msgspec.Meta(max_length=64)]

SIMULATED = "simulated"
"""Reserved attribute: a group that asks `simulated: "true"` is served by simulated devices, and by no real one."""

EPHEMERAL = "ephemeral"
"""Storage class of a container's own writable space."""

RAM = "ram"
"""Storage class of memory-backed files; counted inside memory at the host, priced as its own class."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Root of the parts of offers and asks."""


class Device(_Part, frozen=True):
    """One GPU on offer. `id` is H(chain id, uuid), see `device_id`; `link` names the NVLink island ("" none)."""

    id: HashHex
    model: Slug
    vendor: Slug
    vram_mib: Annotated[int, msgspec.Meta(ge=0, le=2**30)]
    interface: Word = ""
    link: Annotated[str, msgspec.Meta(max_length=32)] = ""
    simulated: bool = False


class Offer(_Part, frozen=True):
    """All that a host offers; free capacity is this less unreleased allotments."""

    cpu_milli: MilliCpu
    memory: Bytes
    storage: Annotated[dict[StorageClass, Bytes], msgspec.Meta(max_length=16)]
    attributes: Attributes = {}
    devices: Annotated[tuple[Device, ...], msgspec.Meta(max_length=64)] = ()
    ports: Annotated[int, msgspec.Meta(ge=0, le=60_000)] = 1024


class Prices(_Part, frozen=True):
    """Unit prices in micro-units an hour.

    `gpu` by model slug, `*` for any other model on offer; `cpu` for 1,000 mCPU; `memory` for a GiB; `storage` for
    a GiB by class, `*` for any other class; `port` for a published port.
    """

    cpu: Amount
    gpu: Annotated[dict[PricedModel, Amount], msgspec.Meta(max_length=64)]
    memory: Amount
    port: Amount
    storage: Annotated[dict[PricedClass, Amount], msgspec.Meta(max_length=17)]


class Terms(_Part, frozen=True):
    """Terms of a bid: what a pull longer than promised is billed at, the longest lease (0: no end), and the shortest.

    A tenant who ends an active lease before the shortest duration pays for the rest of it; only a group that says that it
    accepts that (`most_bound_ms`) takes such a bid. The field is left out where there is none.
    """

    hold_per_hour: Amount = "0"
    max_duration_ms: Annotated[int, msgspec.Meta(ge=0, le=2**50)] = 0
    min_duration_ms: Annotated[int, msgspec.Meta(ge=1, le=2**50)] | msgspec.UnsetType = msgspec.UNSET

    @property
    def least_ms(self) -> int:
        """The shortest duration that is paid for, 0 where there is none."""
        return 0 if self.min_duration_ms is msgspec.UNSET else self.min_duration_ms


class GpuModel(_Part, frozen=True):
    """One acceptable kind of GPU; an empty field accepts any. `ram_mib` is the exact size that is asked (0: any)."""

    vendor: Slug
    model: Annotated[str, msgspec.Meta(pattern=r"^([a-z0-9]{1,32})?\Z")] = ""
    ram_mib: Annotated[int, msgspec.Meta(ge=0, le=2**30)] = 0
    interface: Word = ""


class GpuAsk(_Part, frozen=True):
    """GPUs of one replica: how many, and the kinds that will do."""

    count: Annotated[int, msgspec.Meta(ge=1, le=64)]
    models: Annotated[tuple[GpuModel, ...], msgspec.Meta(min_length=1, max_length=32)]


class Volume(_Part, frozen=True):
    """Storage of one replica, in bytes."""

    size: Bytes
    storage_class: StorageClass = EPHEMERAL


class ResourceUnit(_Part, frozen=True):
    """What one replica needs, times `count`; `ports` are published by each replica."""

    count: Count
    cpu_milli: Annotated[int, msgspec.Meta(ge=1, le=10**7)]
    memory: Annotated[int, msgspec.Meta(ge=1, le=2**50)]
    gpu: GpuAsk | None = None
    ports: Annotated[int, msgspec.Meta(ge=0, le=256)] = 0
    volumes: Annotated[tuple[Volume, ...], msgspec.Meta(max_length=16)] = ()


class SignedBy(_Part, frozen=True):
    """Auditors whose attestation of the group's attributes is asked."""

    all_of: Annotated[tuple[Address, ...], msgspec.Meta(max_length=16)] = ()
    any_of: Annotated[tuple[Address, ...], msgspec.Meta(max_length=16)] = ()


class Group(_Part, frozen=True):
    """A part of a deployment that lands on one host of one provider: what an order asks of the market.

    `limit_per_hour` is the most the whole group may cost, in micro-units. `selection` is `automatic`, or `manual`:
    the tenant takes a bid by hand. `deadline_ms` is block time after which an open order is closed (0: none).
    `duration_ms` is how long a lease must be allowed to run (0: no promise asked). `bound_ms` is the longest shortest
    duration that is accepted of a bid; where it is left out, `duration_ms` is that too. Protocol 1 does not know the field.
    """

    limit_per_hour: Amount
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    resources: Annotated[tuple[ResourceUnit, ...], msgspec.Meta(min_length=1, max_length=64)]
    attributes: Attributes = {}
    deadline_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] = 0
    duration_ms: Annotated[int, msgspec.Meta(ge=0, le=2**50)] = 0
    selection: Annotated[str, msgspec.Meta(pattern=r"^(automatic|manual)\Z")] = "automatic"
    signed_by: SignedBy = SignedBy()
    bound_ms: Annotated[int, msgspec.Meta(ge=0, le=2**50)] | msgspec.UnsetType = msgspec.UNSET

    @property
    def most_bound_ms(self) -> int:
        """The longest shortest duration that the group lets itself be bound to."""
        return self.duration_ms if self.bound_ms is msgspec.UNSET else self.bound_ms


def device_id(chain_id: str, uuid: str) -> str:
    """Hex under which a device stands on the ledger: H(chain id, uuid), so that nobody can squat what he only read."""
    return digest("device/v1", chain_id.encode(), uuid.encode()).hex()
