"""What a probe finds: devices and host, each fact a value or the reason why there is none."""

from typing import Any

import msgspec

from ledger.protocol.encoding import digest, encode


class Missing(msgspec.Struct, frozen=True):
    """A fact that could not be read: `not_supported`, `no_permission`, `gpu_lost`, `no_such_call`, `error_N`."""

    missing: str


class DeviceFacts(msgspec.Struct, frozen=True):
    """One GPU or MIG slice. `vram_mib` is the nominal size, the reading stands in `facts`.

    `link` names the NVLink island, empty for none. Where `offerable` is false, `reason` says why, for the operator.
    """

    uuid: str
    model: str
    vendor: str
    vram_mib: int
    interface: str = ""
    link: str = ""
    simulated: bool = False
    offerable: bool = True
    reason: str = ""
    name: str = ""
    facts: dict[str, Any] = {}


class HostFacts(msgspec.Struct, frozen=True):
    """The machine: bytes and thousandths of a processor, in all and free."""

    hostname: str
    architecture: str
    kernel: str
    cpu_model: str
    cpu_milli: int
    memory_total: int
    disk_total: int
    disk_free: int


class Snapshot(msgspec.Struct, frozen=True):
    """A host as a bid describes it. `memory` is less a reserve for the host, `disk` what was free, in bytes."""

    devices: tuple[DeviceFacts, ...]
    cpu_milli: int
    memory: int
    disk: int
    attributes: dict[str, str]
    host: HostFacts
    warnings: tuple[str, ...] = ()

    def offerable(self) -> tuple[DeviceFacts, ...]:
        """Devices that may be offered."""
        return tuple(device for device in self.devices if device.offerable)

    def digest(self) -> str:
        """Hex over what a bid promises of the devices: it changes when one of them does, not when one grows warm."""
        promised = tuple(msgspec.structs.replace(device, facts={}) for device in self.devices)
        return digest("snapshot/v1", encode(promised)).hex()
