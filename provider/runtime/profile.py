"""The one way a tenant's container is made: what it asks → the arguments given to the engine. Pure.

Nothing that a tenant writes reaches a field that could loosen it: no capability, no host namespace, no device, no mount
of the host, no runtime. What cannot be done is refused with `StartFailed`.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from docker.types import DeviceRequest, EndpointConfig, LogConfig, Ulimit

from provider.runtime.naming import container_labels, container_name, network_name, volume_name
from provider.runtime.port import ContainerSpec, StartFailed

MAY_ADD: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")
"""Capabilities an operator may give back for images that start as root; none is given by default."""

SIMULATED_DEVICES: Final = "GPUBID_SIMULATED_DEVICES"
"""Environment variable that names simulated devices inside a container."""

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_HOSTNAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")
_DEVICE = re.compile(r"(GPU|MIG)-[A-Za-z0-9/-]{1,100}")
_FORBIDDEN_MOUNTS = ("/proc", "/sys", "/dev")
_GIB = 2**30
_MINIMUM_MEMORY = 6 * 2**20


class Limits(msgspec.Struct, frozen=True):
    """What the operator allows every container, whatever is asked."""

    pids: int = 4096
    log_bytes: int = 10 * 2**20
    """Bytes of one log file; `log_files` of them are kept."""
    log_files: int = 3
    open_files: int = 65_536
    """0: as the engine has it, for an engine that may not raise its own."""
    capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """No capability that is not on the list."""
        assert set(self.capabilities) <= set(MAY_ADD), f"capabilities beyond {MAY_ADD}"


STANDARD: Final = Limits()


def create_arguments(
    provider_id: str, spec: ContainerSpec, *, api_version: str, limits: Limits = STANDARD, disk_quota: bool = False
) -> dict[str, Any]:
    """Arguments of `containers.create`. StartFailed where the spec asks what no container gets."""
    _check(spec)
    network = network_name(provider_id, spec.lease)
    aliases = [spec.service, f"{spec.service}-{spec.replica}"]
    arguments: dict[str, Any] = {
        "image": spec.image.id,
        "name": container_name(provider_id, spec),
        "labels": container_labels(provider_id, spec),
        "hostname": spec.hostname or _hostname(spec),
        "environment": environment(spec),
        "entrypoint": list(spec.command) or None,
        "command": list(spec.args) or None,
        "detach": True,
        "init": True,
        "use_config_proxy": False,
        "healthcheck": {"test": ["NONE"]},
        "restart_policy": {"Name": "no"},
        "runtime": "runc",
        # Isolation.
        "cap_drop": ["ALL"],
        "cap_add": list(limits.capabilities),
        "security_opt": ["no-new-privileges"],
        "privileged": False,
        "cgroupns": "private",
        "ipc_mode": "private",
        "network": network,
        "networking_config": {network: EndpointConfig(api_version, aliases=aliases)},
        # Bounds.
        "nano_cpus": spec.cpu_milli * 1_000_000,
        "mem_limit": spec.memory,
        "memswap_limit": spec.memory,
        "pids_limit": limits.pids,
        "shm_size": shm_bytes(spec),
        "ulimits": _ulimits(limits),
        "log_config": LogConfig(type="json-file", config={"max-size": str(limits.log_bytes), "max-file": str(limits.log_files)}),
        # What it has.
        "ports": {f"{p.container_port}/{p.protocol}": (p.host_ip, p.host_port or None) for p in spec.ports},
        "tmpfs": {path: f"rw,nosuid,nodev,size={size}" for path, size in spec.tmpfs.items()},
        "volumes": [
            f"{volume_name(provider_id, spec.lease, name)}:{path}:{'ro' if read_only else 'rw'}"
            for path, (name, read_only) in spec.volumes.items()
        ],
    }
    if disk_quota:
        arguments["storage_opt"] = {"size": str(spec.disk)}
    if spec.devices and not spec.simulated:
        arguments["device_requests"] = [
            DeviceRequest(device_ids=list(spec.devices), capabilities=[["gpu", "compute", "utility"]])
        ]
    return arguments


def environment(spec: ContainerSpec) -> dict[str, str]:
    """The tenant's variables without those that steer the GPU toolkit or its loader, and ours on top.

    CUDA images say NVIDIA_VISIBLE_DEVICES=all themselves: it is set here in every case, `void` without a device.
    """
    kept = {name: value for name, value in spec.env.items() if not name.upper().startswith(("NVIDIA_", "LD_", "GPUBID_"))}
    if spec.devices and not spec.simulated:
        return kept | {"NVIDIA_VISIBLE_DEVICES": ",".join(spec.devices), "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
    kept["NVIDIA_VISIBLE_DEVICES"] = "void"
    return kept | ({SIMULATED_DEVICES: ",".join(spec.devices)} if spec.devices else {})


def shm_bytes(spec: ContainerSpec) -> int:
    """Bytes of /dev/shm: as asked, else what frameworks need for the GPUs at hand, at most half the memory."""
    if spec.shm:
        return min(spec.shm, spec.memory)
    wanted = 64 * 2**20 if not spec.devices else (_GIB if len(spec.devices) == 1 else 8 * _GIB)
    return min(wanted, spec.memory // 2)


def _ulimits(limits: Limits) -> list[Ulimit]:
    bounds = [Ulimit(name="core", soft=0, hard=0)]
    if limits.open_files:
        bounds.append(Ulimit(name="nofile", soft=limits.open_files, hard=limits.open_files))
    return bounds


def _hostname(spec: ContainerSpec) -> str:
    plain = re.sub(r"[^a-zA-Z0-9-]", "-", f"{spec.service[:50]}-{spec.replica}").strip("-")
    return plain or "replica"


def _check(spec: ContainerSpec) -> None:
    """Refuse what an engine would not take or nobody may have."""
    _refuse(spec.memory < _MINIMUM_MEMORY, f"memory of {spec.memory} bytes: at least {_MINIMUM_MEMORY} are needed")
    _refuse(spec.cpu_milli < 10, f"{spec.cpu_milli} thousandths of a processor: at least 10 are needed")
    _refuse(bool(spec.hostname) and not _HOSTNAME.fullmatch(spec.hostname), f"hostname {spec.hostname!r}")
    texts = (*spec.command, *spec.args, *spec.env.keys(), *spec.env.values())
    _refuse(any("\0" in text for text in texts), "a zero byte in the command or environment")
    for name in spec.env:
        _refuse(not _ENV_NAME.fullmatch(name), f"environment variable {name!r}")
    for device in spec.devices:
        _refuse(not _DEVICE.fullmatch(device), f"device {device!r} is no UUID")
    _refuse(len(set(spec.devices)) != len(spec.devices), "a device is named twice")
    _check_mounts(spec.tmpfs, spec.volumes)
    for port in spec.ports:
        _refuse(port.protocol not in ("tcp", "udp"), f"protocol {port.protocol!r}")
        _refuse(not 0 < port.container_port < 65_536, f"port {port.container_port}")
        _refuse(not 0 <= port.host_port < 65_536, f"host port {port.host_port}")


def _check_mounts(tmpfs: Mapping[str, int], volumes: Mapping[str, tuple[str, bool]]) -> None:
    for path in (*tmpfs, *volumes):
        parts = path.split("/")
        bad = not path.startswith("/") or ".." in parts or not path.strip("/") or re.search(r"[:,\0\n]", path)
        _refuse(bool(bad), f"mount point {path!r}")
        # /dev/shm has a size of its own; all else there is the kernel's.
        clean = "/" + "/".join(part for part in parts if part not in ("", "."))
        _refuse(any(clean == top or clean.startswith(top + "/") for top in _FORBIDDEN_MOUNTS), f"mount point {path!r}")
    _refuse(bool(set(tmpfs) & set(volumes)), "a mount point is named twice")


def _refuse(condition: bool, what: str) -> None:
    if condition:
        raise StartFailed("start_failed", f"not allowed: {what}")
