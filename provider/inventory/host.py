"""Processors, memory and disk of the machine, through psutil."""

import os
import platform
import shutil
import socket
from pathlib import Path

import psutil

from provider.inventory.models import HostFacts

CPU_INFO = Path("/proc/cpuinfo")


def probe_host(disk_path: Path = Path("/")) -> HostFacts:
    """Facts of this machine; `disk_path` lies on the disk that containers write to (the nearest folder that exists)."""
    folder = disk_path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    disk = shutil.disk_usage(folder)
    return HostFacts(
        hostname=socket.gethostname(),
        architecture={"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        kernel=platform.release(),
        cpu_model=_cpu_model(),
        cpu_milli=1000 * len(os.sched_getaffinity(0)),
        memory_total=psutil.virtual_memory().total,
        disk_total=disk.total,
        disk_free=disk.free,
    )


def memory_to_offer(total: int) -> int:
    """Bytes to offer of `total`: a sixteenth, at least 512 MiB, stays with the host and its daemons."""
    return max(0, total - max(total // 16, 512 * 2**20))


def _cpu_model() -> str:
    """What the processor calls itself; the architecture where it does not say."""
    try:
        for line in CPU_INFO.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
