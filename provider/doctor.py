"""What a host needs to be a provider, checked one by one: what is wrong, and how to mend it.

A check never changes the host and never raises. `fail` means that leases cannot run or are not safe here.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from provider.inventory.models import DeviceFacts
from provider.inventory.nvml import read
from provider.runtime.engine import BadEngine, Engine, asking, socket_path
from provider.runtime.network import Firewall
from provider.runtime.port import Unknown

COMMAND_TIMEOUT_S: Final = 30
LITTLE_DISK: Final = 10 * 2**30
"""Bytes free under which a host is of little use."""


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at. `result`: ok, warn or fail; `found` what is so, `mend` what to do where it is not ok."""

    name: str
    result: str
    found: str
    mend: str = ""


class Floor(msgspec.Struct, frozen=True):
    """The oldest version of a program without a known way out of its containers. `gpu`: matters only where there are GPUs."""

    program: str
    version: tuple[int, int, int]
    branches: tuple[tuple[int, int, int], ...]
    """First mended versions of older branches."""
    why: str
    gpu: bool = False


FLOORS: Final = (
    Floor("runc", (1, 1, 12), (), "CVE-2024-21626: a container's working directory leads to the host"),
    Floor("runc", (1, 3, 3), ((1, 2, 8),), "CVE-2025-31133: masked paths lead to the host"),
    Floor("containerd", (2, 0, 4), ((1, 7, 27), (1, 6, 38)), "CVE-2024-40635: a large user id is taken for root"),
    Floor("docker", (27, 1, 1), ((26, 1, 5), (25, 0, 6)), "CVE-2024-41110: an authorization plugin is bypassed"),
    Floor("nvidia-container-toolkit", (1, 17, 8), (), "CVE-2025-23266: an image's LD_PRELOAD runs as root on the host", gpu=True),
)
"""Versions that are refused for GPUs' sake (the toolkit) or warned of: distributions mend older numbers without changing them."""


def version_of(text: str) -> tuple[int, int, int] | None:
    """The first `1.2.3` in a program's words."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def below(floor: Floor, version: tuple[int, int, int]) -> bool:
    """Whether a version lacks the mend: older than the floor, and not a mended one of an older branch."""
    return version < floor.version and not any(b[:2] == version[:2] and b <= version for b in floor.branches)


def run_checks(
    docker_url: str,
    *,
    simulate: bool = False,
    read_devices: Callable[[], tuple[tuple[DeviceFacts, ...], dict[str, str], tuple[str, ...]]] | None = None,
    firewall: Firewall | None = None,
) -> list[Check]:
    """All checks, in the order an operator mends them. `simulate`: devices are simulated, so none is looked for."""
    try:
        socket_path(docker_url)
    except BadEngine as error:
        return [Check("engine", "fail", str(error), error.fix)]
    facts, version, failed = _ask_engine(docker_url)
    if failed is not None:
        return [failed, *_devices(simulate, read_devices)]
    devices = list(_devices(simulate, read_devices))
    gpus = any(check.name == "devices" and check.result == "ok" for check in devices) and not simulate
    return [
        Check("engine", "ok", f"Docker Engine {version.get('Version', '?')} at {docker_url}"),
        *_isolation(facts),
        *_versions(version, gpus=gpus),
        *_firewall(firewall or Firewall()),
        *_disk(facts),
        *devices,
        *_gpu_path(facts, gpus=gpus),
    ]


def _ask_engine(docker_url: str) -> tuple[dict[str, Any], dict[str, Any], Check | None]:
    engine = Engine(docker_url)
    try:
        with asking():
            return dict(engine.api.info()), dict(engine.api.version()), None
    except Unknown as error:
        mend = "install Docker Engine and start it, and let this user reach its socket (group docker, or root)"
        return {}, {}, Check("engine", "fail", str(error), mend)
    finally:
        engine.close()


def _isolation(facts: dict[str, Any]) -> Iterator[Check]:
    security = " ".join(str(option) for option in facts.get("SecurityOptions") or [])
    if "seccomp" in security:
        yield Check("seccomp", "ok", "system calls are filtered")
    else:
        yield Check("seccomp", "fail", "the engine filters no system calls", "use a kernel and an engine built with seccomp")
    cgroup = str(facts.get("CgroupVersion", "1"))
    lacking = [
        limit for limit, key in (("memory", "MemoryLimit"), ("pids", "PidsLimit"), ("cpu", "CpuCfsQuota")) if not facts.get(key)
    ]
    if lacking:
        yield Check("cgroup", "fail", f"the kernel does not bound {', '.join(lacking)}", "enable these cgroup controllers")
    elif cgroup == "1":
        yield Check("cgroup", "warn", "cgroup v1", "boot with systemd.unified_cgroup_hierarchy=1 for cgroup v2")
    else:
        yield Check("cgroup", "ok", f"cgroup v{cgroup}")
    if facts.get("DefaultRuntime", "runc") != "runc":
        mend = 'set "default-runtime": "runc" in daemon.json: containers beside leases see every GPU otherwise'
        yield Check("runtime", "warn", f"the engine's default runtime is {facts['DefaultRuntime']}", mend)


def _versions(version: dict[str, Any], *, gpus: bool) -> Iterator[Check]:
    parts = {str(part.get("Name", "")).lower(): str(part.get("Version", "")) for part in version.get("Components") or []}
    said = {
        "docker": str(version.get("Version", "")),
        "containerd": parts.get("containerd", ""),
        "runc": parts.get("runc", ""),
        "nvidia-container-toolkit": _output(("nvidia-container-cli", "--version")) if gpus else "",
    }
    for program, text in said.items():
        if program != "nvidia-container-toolkit" or gpus:
            yield _version(program, text.strip())


def _version(program: str, text: str) -> Check:
    """One program against its floors: the first that it lies below is told."""
    floors = [floor for floor in FLOORS if floor.program == program]
    found = version_of(text)
    if found is None:
        return Check(f"version {program}", "warn", "it does not tell its version", f"check it by hand: {floors[0].why}")
    for floor in floors:
        if below(floor, found):
            newest = ".".join(str(number) for number in max(each.version for each in floors))
            mend = f"install {program} {newest} or newer, or a build of your distribution that has the mend"
            return Check(f"version {program}", "fail" if floor.gpu else "warn", f"{text}: {floor.why}", mend)
    return Check(f"version {program}", "ok", ".".join(str(number) for number in found))


def _output(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _firewall(firewall: Firewall) -> Iterator[Check]:
    if firewall.usable():
        yield Check("firewall", "ok", "containers are kept from this host and its network")
    else:
        mend = "install iptables, and run the provider as root or with CAP_NET_ADMIN"
        yield Check("firewall", "warn", f"containers can reach this host and its network: {firewall.problem}", mend)


def _disk(facts: dict[str, Any]) -> Iterator[Check]:
    root = Path(str(facts.get("DockerRootDir", "/")))
    try:
        free = shutil.disk_usage(root).free
    except OSError as error:
        yield Check("disk", "warn", f"{root}: {error}", "run the provider on the engine's own machine")
        return
    if free < LITTLE_DISK:
        yield Check("disk", "warn", f"{free >> 30} GiB free under {root}", "free some: images and leases live there")
    else:
        yield Check("disk", "ok", f"{free >> 30} GiB free under {root}")
    status = dict(facts.get("DriverStatus") or [])
    bounded = facts.get("Driver") in ("btrfs", "zfs") or status.get("Backing Filesystem") == "xfs"
    if not bounded:
        mend = "keep the engine's data on XFS mounted with pquota"
        yield Check("disk quota", "warn", f"storage driver {facts.get('Driver')} does not bound a container's disk", mend)


def _devices(
    simulate: bool, read_devices: Callable[[], tuple[tuple[DeviceFacts, ...], dict[str, str], tuple[str, ...]]] | None
) -> Iterator[Check]:
    if simulate:
        yield Check("devices", "ok", "simulated")
        return
    devices, _, warnings = (read_devices or read)()
    offered = [device for device in devices if device.offerable]
    for device in devices:
        if not device.offerable:
            yield Check(
                f"device {device.uuid or '?'}", "warn", f"{device.name or device.model}: {device.reason}", "see the reason"
            )
    for warning in warnings:
        yield Check("nvml", "warn", warning, "install NVIDIA's driver; without one the host offers processors only")
    if offered:
        yield Check("devices", "ok", ", ".join(sorted(device.model for device in offered)))
    else:
        yield Check("devices", "warn", "no GPU to offer", "the host offers processors and memory only")


def _gpu_path(facts: dict[str, Any], *, gpus: bool) -> Iterator[Check]:
    if not gpus:
        return
    discovered = [str(device.get("ID", "")) for device in facts.get("DiscoveredDevices") or []]
    if shutil.which("nvidia-container-runtime-hook") or any(name.startswith("nvidia.com/gpu") for name in discovered):
        yield Check("gpu toolkit", "ok", "the engine can give GPUs to containers")
    else:
        yield Check("gpu toolkit", "fail", "the engine cannot give GPUs to containers", "install nvidia-container-toolkit")
    params = Path("/proc/driver/nvidia/params")
    try:
        text = params.read_text(errors="replace")
    except OSError:
        return
    if re.search(r"RMDisableScrubOnFree\D+[1-9]", text):
        mend = "remove RMDisableScrubOnFree from the driver's registry keys: a tenant's data stays in memory for the next"
        yield Check("gpu memory", "fail", "freed GPU memory is not cleared", mend)
