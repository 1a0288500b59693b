"""One look at the whole host: what a bid is made of."""

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from marketplace.protocol.gpu import MODELS, VENDOR
from provider.inventory.host import memory_to_offer, probe_host
from provider.inventory.models import DeviceFacts, HostFacts, Snapshot

Reading = tuple[tuple[DeviceFacts, ...], dict[str, str], tuple[str, ...]]
"""Devices, attributes that follow from the driver, warnings."""

MACHINE_ID = Path("/etc/machine-id")


class BadSimulation(ValueError):
    """`--simulate-gpus` names something that cannot be simulated; `fix` says how it is written."""

    fix = "write MODEL:COUNT with a known model, such as h100:2 or rtx4090:1"


def probe(
    simulate: Sequence[str] = (),
    nvml: Callable[[], Reading] | None = None,
    *,
    disk_path: Path = Path("/"),
    seed: str = "",
) -> Snapshot:
    """Look at the host. Nothing that a GPU does makes this fail.

    `simulate` holds items like `h100:2`; their made-up UUIDs depend on `seed` alone, or on the machine where it is
    empty. `nvml` reads the real devices (default: `provider.inventory.nvml.read`) and is not asked when simulating.
    BadSimulation where an item is wrong.
    """
    host = probe_host(disk_path)
    if simulate:
        found: Reading = (simulated_devices(simulate, seed or machine_seed(host)), {}, ())
    else:
        found = (nvml or _read_nvml)()
    devices, facts, warnings = found
    return Snapshot(
        devices=devices,
        cpu_milli=host.cpu_milli,
        memory=memory_to_offer(host.memory_total),
        disk=host.disk_free,
        attributes=attributes(host, facts),
        host=host,
        warnings=warnings,
    )


def _read_nvml() -> Reading:
    from provider.inventory.nvml import read

    return read()


def simulated_devices(items: Sequence[str], seed: str) -> tuple[DeviceFacts, ...]:
    """Devices for rehearsal: marked as simulated, sold only to who asks for such. All of an item share one link."""
    devices: list[DeviceFacts] = []
    for item in items:
        slug, _, count = item.partition(":")
        facts = MODELS.get(slug)
        if facts is None or not re.fullmatch(r"[1-9]\d?", count or "1") or len(devices) + int(count or "1") > 64:
            raise BadSimulation(f"cannot simulate {item!r}")
        linked = facts.interface.startswith("sxm") and int(count or "1") > 1
        for _ in range(int(count or "1")):
            number = len(devices)
            raw = hashlib.sha256(f"simulated|{seed}|{slug}|{number}".encode()).hexdigest()
            devices.append(
                DeviceFacts(
                    uuid=f"GPU-{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:32]}",
                    model=slug,
                    vendor=VENDOR,
                    vram_mib=facts.vram_gib[0] * 1024 or 128 * 1024,
                    interface=facts.interface,
                    link=f"simulated-{slug}" if linked else "",
                    simulated=True,
                    name=f"simulated {slug}",
                )
            )
    return tuple(devices)


def machine_seed(host: HostFacts) -> str:
    """What tells this machine from others: its machine id, or its name where it has none."""
    try:
        return MACHINE_ID.read_text().strip() or host.hostname
    except OSError:
        return host.hostname


def attributes(host: HostFacts, gpu: dict[str, Any]) -> dict[str, str]:
    """Attributes of a bid that follow from facts; printable ASCII as the ledger wants it."""
    found = {"arch": host.architecture, "cpu-model": host.cpu_model, "kernel": host.kernel} | {k: str(v) for k, v in gpu.items()}
    return {key: re.sub(r"[^ -~]", "?", value)[:256] for key, value in sorted(found.items())}
