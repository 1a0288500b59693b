"""Reading what an engine says of itself and of a container."""

import shutil
from datetime import datetime
from typing import Any, Final

from provider.runtime.naming import label
from provider.runtime.port import Container, EngineInfo, PortMap

STATES: Final = {"created": "created", "running": "running", "paused": "running", "restarting": "running", "exited": "exited"}


def wall_ms(stamp: str) -> int:
    """An engine's time in milliseconds since 1970; 0 for never."""
    if not stamp or stamp.startswith("0001-"):
        return 0
    whole, _, rest = stamp.rstrip("Z").partition(".")
    fraction = "".join(c for c in rest[:3] if c.isdigit()).ljust(3, "0")
    return int(datetime.fromisoformat(f"{whole[:19]}+00:00").timestamp()) * 1000 + int(fraction)


def to_container(found: dict[str, Any]) -> Container:
    """A container from its inspection."""
    labels, state = found["Config"]["Labels"] or {}, found["State"]
    status = STATES.get(state.get("Status", ""), "dead")
    return Container(
        id=found["Id"],
        name=found["Name"].lstrip("/"),
        lease=label(labels, "lease"),
        generation=int(label(labels, "generation") or 0),
        service=label(labels, "service"),
        replica=int(label(labels, "replica") or 0),
        state=status,
        exit_code=int(state.get("ExitCode", 0)) if status in ("exited", "dead") else None,
        oom_killed=bool(state.get("OOMKilled")),
        started_ms=wall_ms(state.get("StartedAt", "")),
        finished_ms=wall_ms(state.get("FinishedAt", "")) if status != "running" else 0,
        devices=tuple(device for device in label(labels, "devices").split(",") if device),
        image_digest=label(labels, "image"),
        spec_hash=label(labels, "spec"),
        ports=_ports(found),
    )


def _ports(found: dict[str, Any]) -> tuple[PortMap, ...]:
    """Published ports: where they listen while it runs, else as asked."""
    bound = (found.get("NetworkSettings") or {}).get("Ports") or {}
    asked = (found.get("HostConfig") or {}).get("PortBindings") or {}
    ports = []
    for key in sorted(asked):
        number, _, protocol = key.partition("/")
        entry = (bound.get(key) or asked[key] or [{}])[0]
        ports.append(PortMap(int(number), protocol or "tcp", entry.get("HostIp", ""), int(entry.get("HostPort") or 0)))
    return tuple(ports)


def engine_info(facts: dict[str, Any], version: dict[str, Any], *, firewall_problem: str) -> EngineInfo:
    """Facts of an engine, with warnings on what this host cannot keep."""
    security = tuple(str(option) for option in facts.get("SecurityOptions") or [])
    runtimes = tuple(sorted(facts.get("Runtimes") or {}))
    warnings = [str(line) for line in facts.get("Warnings") or []]
    if firewall_problem:
        warnings.append(f"containers can reach this host and its network: {firewall_problem}")
    if not any("seccomp" in option for option in security):
        warnings.append("the engine has no seccomp filter")
    status = dict(facts.get("DriverStatus") or [])
    if facts.get("Driver") not in ("btrfs", "zfs") and status.get("Backing Filesystem") != "xfs":
        warnings.append(f"the engine does not bound a container's disk: storage driver {facts.get('Driver')} without quota")
    return EngineInfo(
        version=str(version.get("Version", "")),
        api_version=str(version.get("ApiVersion", "")),
        root=str(facts.get("DockerRootDir", "/")),
        storage_driver=str(facts.get("Driver", "")),
        cgroup_version=str(facts.get("CgroupVersion", "1")),
        runtimes=runtimes,
        security=security,
        warnings=tuple(warnings),
        gpu_support=_gpu_support(facts, runtimes),
    )


def _gpu_support(facts: dict[str, Any], runtimes: tuple[str, ...]) -> bool:
    """Whether the engine can give a GPU: the toolkit's runtime, its hook, or a CDI spec for NVIDIA."""
    discovered = [str(device.get("ID", "")) for device in facts.get("DiscoveredDevices") or []]
    return (
        "nvidia" in runtimes
        or any(device.startswith("nvidia.com/gpu") for device in discovered)
        or shutil.which("nvidia-container-runtime-hook") is not None
    )
