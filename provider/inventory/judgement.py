"""Which facts of a device are read, and which of them forbid to offer it: data, so that a rule is a line."""

from collections.abc import Callable
from typing import Any, Final

from provider.inventory.models import Missing

FACTS: Final[tuple[tuple[str, str, tuple[Any, ...]], ...]] = (
    ("architecture", "nvmlDeviceGetArchitecture", ()),
    ("brand", "nvmlDeviceGetBrand", ()),
    ("bus_width", "nvmlDeviceGetMemoryBusWidth", ()),
    ("clock_max_mhz", "nvmlDeviceGetMaxClockInfo", (1,)),
    ("compute_capability", "nvmlDeviceGetCudaComputeCapability", ()),
    ("compute_mode", "nvmlDeviceGetComputeMode", ()),
    ("cores", "nvmlDeviceGetNumGpuCores", ()),
    ("display_active", "nvmlDeviceGetDisplayActive", ()),
    ("ecc_mode", "nvmlDeviceGetEccMode", ()),
    ("ecc_uncorrected", "nvmlDeviceGetTotalEccErrors", (1, 0)),
    ("mig", "nvmlDeviceGetMigMode", ()),
    ("numa_node", "nvmlDeviceGetNumaNodeId", ()),
    ("pcie_generation_max", "nvmlDeviceGetMaxPcieLinkGeneration", ()),
    ("pcie_width", "nvmlDeviceGetCurrPcieLinkWidth", ()),
    ("pcie_width_max", "nvmlDeviceGetMaxPcieLinkWidth", ()),
    ("persistence", "nvmlDeviceGetPersistenceMode", ()),
    ("power_limit_mw", "nvmlDeviceGetEnforcedPowerLimit", ()),
    ("remapped_rows", "nvmlDeviceGetRemappedRows", ()),
    ("retired_pages_pending", "nvmlDeviceGetRetiredPagesPendingStatus", ()),
    ("serial", "nvmlDeviceGetSerial", ()),
    ("temperature", "nvmlDeviceGetTemperature", (0,)),
    ("temperature_slowdown", "nvmlDeviceGetTemperatureThreshold", (1,)),
    ("vbios", "nvmlDeviceGetVbiosVersion", ()),
    ("virtualization", "nvmlDeviceGetVirtualizationMode", ()),
)
"""Name of the fact, function of the binding, its arguments after the handle."""

RECOVERY: Final = {
    1: "a GPU reset", 2: "a reboot", 3: "a drain of its peers", 4: "a drain and a reset", 5: "a reset of its IMEX domain",
    6: "a bus reset", 7: "a reboot",
}  # fmt: skip


def _is(fact: str, value: Any) -> Callable[[dict[str, Any]], bool]:
    return lambda facts: bool(facts.get(fact) == value)


def _hot(facts: dict[str, Any]) -> bool:
    now, limit = facts.get("temperature"), facts.get("temperature_slowdown")
    return isinstance(now, int) and isinstance(limit, int) and 0 < limit <= now


def _row(position: int) -> Callable[[dict[str, Any]], bool]:
    def judge(facts: dict[str, Any]) -> bool:
        rows = facts.get("remapped_rows")
        return isinstance(rows, tuple | list) and bool(rows[position])

    return judge


def _mig_half_way(facts: dict[str, Any]) -> bool:
    mode = facts.get("mig")
    return isinstance(mode, tuple | list) and mode[0] != mode[1]


def _lost(facts: dict[str, Any]) -> bool:
    return any(isinstance(value, Missing) and value.missing == "gpu_lost" for value in facts.values())


def _uncorrected(facts: dict[str, Any]) -> bool:
    return isinstance(facts.get("ecc_uncorrected"), int) and facts["ecc_uncorrected"] > 0


RULES: Final[tuple[tuple[Callable[[dict[str, Any]], bool], str], ...]] = (
    (_lost, "lost: it does not answer; reset or reboot"),
    (_is("virtualization", 2), "a share of a card (vGPU) is not offered"),
    (_mig_half_way, "MIG is being switched: reset the GPU"),
    (_row(3), "a memory row could not be remapped: the card is broken"),
    (_row(2), "memory rows wait to be remapped: reset the GPU"),
    (_is("retired_pages_pending", 1), "memory pages wait to be retired: reboot"),
    (_uncorrected, "uncorrected memory errors since the last reset: reset the GPU"),
    (_is("compute_mode", 2), "compute mode is prohibited: nvidia-smi -c 0"),
    (_hot, "too hot: it is slowing itself down"),
)
"""Judged in this order; the first that holds is the reason."""


def refusal_of(facts: dict[str, Any]) -> str:
    """Why a device with these raw facts is not offered; empty where it may be."""
    for holds, reason in RULES:
        if holds(facts):
            return reason
    action = facts.get("recovery_action")
    if isinstance(action, int) and action:
        return f"the driver asks for {RECOVERY.get(action, 'a recovery')}"
    fabric = facts.get("fabric")
    if isinstance(fabric, str) and fabric in ("not_started", "in_progress"):
        return "the NVSwitch fabric is not ready: is the fabric manager running?"
    return ""
