"""NVIDIA devices through NVML, each fact a value or the reason why there is none: one bad call never hides a device.

A device is known by its UUID; index and minor number change when a card falls off. MIG slices are devices of their own,
their card is then none. Nothing here writes to a device.
"""

import ctypes
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import psutil
import pynvml

from marketplace.protocol.gpu import VENDOR, by_name, by_pci, kind_of, mig_slug, slug_of
from provider.inventory.judgement import FACTS, refusal_of
from provider.inventory.links import Link, islands
from provider.inventory.models import DeviceFacts, Missing

REASONS: Final = {
    1: "uninitialized", 2: "not_found", 3: "not_supported", 4: "no_permission", 6: "not_found", 9: "driver_not_loaded",
    12: "library_not_found", 13: "no_such_call", 15: "gpu_lost", 18: "driver_version_mismatch", 28: "gpu_lost",
}  # fmt: skip
"""NVML's return codes in words."""

LOST: Final = Missing("gpu_lost")
MOST_LINKS: Final = 36
RECOVERY_ACTION_FIELD: Final = 230
FABRIC_STATES: Final = {0: "not_supported", 1: "not_started", 2: "in_progress", 3: "completed"}


class NoNvml(Exception):
    """NVML cannot be used on this machine; the text says why and `code` is its return code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@contextmanager
def session() -> Iterator[None]:
    """NVML ready to be asked. NoNvml where there is no driver or it does not fit its library."""
    try:
        pynvml.nvmlInitWithFlags(0)
    except Exception as error:
        code = int(getattr(error, "value", 0))
        raise NoNvml(code, f"no NVIDIA device can be read: {REASONS.get(code, str(error))}") from error
    try:
        yield
    finally:
        ask(pynvml.nvmlShutdown)


def ask(call: Any, *arguments: Any) -> Any:
    """What an NVML call answers, or `Missing`. The binding itself fails in more ways than NVML does; none gets out."""
    try:
        return _text(call(*arguments))
    except pynvml.NVMLError as error:
        code = int(getattr(error, "value", 0))
        return Missing(REASONS.get(code, f"error_{code}"))
    except Exception as error:
        return Missing(f"error_{type(error).__name__}")


def call(name: str) -> Any:
    """A function of the binding by name; one that gives `no_such_call` where this binding lacks it."""
    return getattr(pynvml, name, _lacking)


def _lacking(*_: Any) -> Any:
    return Missing("no_such_call")


def _text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def read() -> tuple[tuple[DeviceFacts, ...], dict[str, str], tuple[str, ...]]:
    """All devices of this machine, facts about the driver, and warnings. Never fails."""
    try:
        with session():
            devices, lost = _devices()
            return devices, _driver(), tuple(f"device {index} is lost: {why}" for index, why in lost)
    except NoNvml as error:
        return (), {}, (str(error),)


def _driver() -> dict[str, str]:
    """Versions as attributes of a bid."""
    version, cuda = ask(pynvml.nvmlSystemGetDriverVersion), ask(call("nvmlSystemGetCudaDriverVersion_v2"))
    found: dict[str, str] = {}
    if isinstance(version, str):
        found["nvidia-driver"] = version
    if isinstance(cuda, int):
        found["cuda"] = f"{cuda // 1000}.{cuda % 1000 // 10}"
    return found


def _devices() -> tuple[tuple[DeviceFacts, ...], list[tuple[int, str]]]:
    count = ask(pynvml.nvmlDeviceGetCount)
    found: list[tuple[Any, DeviceFacts]] = []
    lost: list[tuple[int, str]] = []
    for index in range(count if isinstance(count, int) else 0):
        handle = ask(pynvml.nvmlDeviceGetHandleByIndex, index)
        uuid = handle if isinstance(handle, Missing) else ask(pynvml.nvmlDeviceGetUUID, handle)
        if isinstance(uuid, Missing) or not isinstance(uuid, str):
            why = uuid.missing if isinstance(uuid, Missing) else "no UUID"
            lost.append((index, why))
            found.append((None, DeviceFacts("", "unknown", VENDOR, 0, offerable=False, reason=f"lost: {why}")))
            continue
        found.append((handle, _card(handle, uuid)))
    linked = _with_links(found)
    return tuple(device for handle, card in linked for device in _or_slices(handle, card)), lost


def _card(handle: Any, uuid: str) -> DeviceFacts:
    """A whole card."""
    name = ask(pynvml.nvmlDeviceGetName, handle)
    name = name if isinstance(name, str) else ""
    facts = facts_of(handle)
    raw_mib = facts["memory_mib"] if isinstance(facts["memory_mib"], int) else 0
    by_id = by_pci(facts["pci_device"]) if isinstance(facts["pci_device"], int) else None
    named = by_name(name)
    model = by_id or named
    unified = facts["unified_memory"] is True
    nominal = model.nominal_mib(raw_mib) if model and raw_mib else None
    reason = refusal_of(facts)
    if not reason and kind_of(name) == "vgpu":
        reason = "a share of a card (vGPU) is not offered"
    if not reason and by_id and named and by_id.slug != named.slug:
        reason = f"its PCI id says {by_id.slug}, its name {named.slug}: the card's firmware was changed"
    if not reason and model and raw_mib and nominal is None:
        reason = f"{raw_mib} MiB is no size of a {model.slug}: the card's firmware was changed"
    if not reason and not raw_mib:
        reason = "its memory cannot be read"
    return DeviceFacts(
        uuid=uuid,
        model=model.slug if model else slug_of(name),
        vendor=VENDOR,
        vram_mib=raw_mib if unified else nominal or raw_mib,
        interface=model.interface if model else "",
        offerable=not reason,
        reason=reason,
        name=name,
        facts=_plain(facts | {"model_verified": by_id is not None}),
    )


def facts_of(handle: Any) -> dict[str, Any]:
    """Every fact of a device, raw: a value or `Missing`."""
    facts: dict[str, Any] = {name: ask(call(function), handle, *arguments) for name, function, arguments in FACTS}
    facts |= _memory(handle) | _pci(handle)
    facts["recovery_action"] = _field(handle, RECOVERY_ACTION_FIELD)
    facts["fabric"] = _fabric(handle)
    serial = facts.pop("serial")
    # Two hosts that show one serial number are one liar; the number itself is nobody's business.
    facts["serial_hash"] = hashlib.sha256(serial.encode()).hexdigest() if isinstance(serial, str) else serial
    return facts


def _memory(handle: Any) -> dict[str, Any]:
    """Total and used MiB; on parts that share the processor's memory, that of the machine."""
    info = ask(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)
    if isinstance(info, Missing):
        info = ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    if not isinstance(info, Missing):
        return {"memory_mib": int(info.total) >> 20, "memory_used_mib": int(info.used) >> 20, "unified_memory": False}
    model = by_name(str(ask(pynvml.nvmlDeviceGetName, handle)))
    if model is not None and 0 in model.vram_gib and info == Missing("not_supported"):
        host = psutil.virtual_memory()
        return {"memory_mib": host.total >> 20, "memory_used_mib": host.used >> 20, "unified_memory": True}
    return {"memory_mib": info, "memory_used_mib": info, "unified_memory": False}


def _pci(handle: Any) -> dict[str, Any]:
    info = ask(pynvml.nvmlDeviceGetPciInfo, handle)
    if isinstance(info, Missing):
        return {"pci_bus": info, "pci_device": info}
    return {"pci_bus": bus_id(_text(info.busId)), "pci_device": int(info.pciDeviceId) >> 16}


def bus_id(text: str) -> str:
    """A PCI address with a domain of four digits, as /sys has it; NVML writes eight."""
    domain, _, rest = text.lower().partition(":")
    return f"{domain[-4:].zfill(4)}:{rest}" if rest.count(":") == 1 else text.lower()


def _field(handle: Any, field: int) -> Any:
    values = ask(call("nvmlDeviceGetFieldValues"), handle, [field])
    if isinstance(values, Missing):
        return values
    code = int(values[0].nvmlReturn)
    return int(values[0].value.uiVal) if code == 0 else Missing(REASONS.get(code, f"error_{code}"))


def _fabric(handle: Any) -> Any:
    """State of the NVSwitch fabric with the clique of GPUs that share it: `completed/<cluster>/<clique>`."""
    make = getattr(pynvml, "c_nvmlGpuFabricInfoV_t", None)
    if make is None:
        return Missing("no_such_call")
    info = make()
    failed = ask(call("nvmlDeviceGetGpuFabricInfoV"), handle, ctypes.byref(info))
    if isinstance(failed, Missing):
        return failed
    state = FABRIC_STATES.get(int(info.state), "unknown")
    return f"{state}/{bytes(info.clusterUuid).hex()}/{int(info.cliqueId)}" if state == "completed" else state


def _with_links(found: Sequence[tuple[Any, DeviceFacts]]) -> list[tuple[Any, DeviceFacts]]:
    """Name the NVLink island of each card."""
    buses = {str(card.facts.get("pci_bus")): card.uuid for handle, card in found if handle is not None}
    links = [link for handle, card in found if handle is not None for link in _links_of(handle, card, buses)]
    names = islands(links)
    return [(handle, _linked(card, names.get(card.uuid, ""))) for handle, card in found]


def _linked(card: DeviceFacts, link: str) -> DeviceFacts:
    return msgspec.structs.replace(card, link=link)


def _links_of(handle: Any, card: DeviceFacts, buses: dict[str, str]) -> Iterator[Link]:
    """Active links of a card: to another card, or to the switch all share."""
    for number in range(MOST_LINKS):
        state = ask(call("nvmlDeviceGetNvLinkState"), handle, number)
        if isinstance(state, Missing):
            if state == LOST or (number == 0 and state.missing in ("not_supported", "no_such_call")):
                return
            continue
        if state != 1:
            continue
        if ask(call("nvmlDeviceGetNvLinkRemoteDeviceType"), handle, number) == 2:
            yield Link(card.uuid, f"switch {card.facts.get('fabric', '')}")
            continue
        remote = ask(call("nvmlDeviceGetNvLinkRemotePciInfo"), handle, number)
        other = buses.get(bus_id(str(_text(remote.busId)))) if not isinstance(remote, Missing) else None
        if other is not None:
            yield Link(card.uuid, other)


def _or_slices(handle: Any, card: DeviceFacts) -> Iterator[DeviceFacts]:
    """The card, or its slices where it is cut into some."""
    mode = card.facts.get("mig")
    if handle is None or not isinstance(mode, list) or mode[:1] != [1]:
        yield card
        return
    most = ask(call("nvmlDeviceGetMaxMigDeviceCount"), handle)
    for number in range(most if isinstance(most, int) else 0):
        piece = ask(call("nvmlDeviceGetMigDeviceHandleByIndex"), handle, number)
        if not isinstance(piece, Missing):
            yield _slice(piece, card)


def _slice(handle: Any, card: DeviceFacts) -> DeviceFacts:
    """A MIG slice: what ails its card ails it."""
    uuid, name = ask(pynvml.nvmlDeviceGetUUID, handle), ask(pynvml.nvmlDeviceGetName, handle)
    shape = ask(call("nvmlDeviceGetAttributes"), handle)
    mib = 0 if isinstance(shape, Missing) else int(shape.memorySizeMB)
    model = mig_slug(str(name))
    reason = card.reason or ("" if isinstance(uuid, str) and model and mib else "its shape cannot be read")
    return DeviceFacts(
        uuid=uuid if isinstance(uuid, str) else "",
        model=model or slug_of(str(name)),
        vendor=VENDOR,
        vram_mib=mib,
        interface=card.interface,
        offerable=not reason,
        reason=reason,
        name=str(name),
        facts=_plain(
            {
                "card": card.uuid,
                "gpu_instance": ask(call("nvmlDeviceGetGpuInstanceId"), handle),
                "compute_instance": ask(call("nvmlDeviceGetComputeInstanceId"), handle),
            }
        ),
    )


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts as JSON knows them."""
    return {
        key: list(value) if isinstance(value, tuple | list) else msgspec.to_builtins(value)
        for key, value in sorted(facts.items())
    }
