"""From an Akash manifest to containers: its hash, whether it fits the order, and what each replica gets.

Nothing here trusts the manifest: it comes from the tenant, and is checked against the hash and the group that stand on
the ledger before anything runs.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec

from marketplace.protocol.resources import EPHEMERAL, RAM, ResourceUnit
from provider.leases.ledger import Terms
from provider.leases.model import Slot
from provider.runtime.port import ContainerSpec, Credentials, Image, PortMap

SHM: Final = "/dev/shm"  # noqa: S108  (a mount point inside the container)
GIB: Final = 2**30


class ManifestRefused(Exception):
    """The manifest is not the one that was ordered; `code` names the reason."""

    def __init__(self, code: str, detail: str, fix: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.fix = fix


class _Val(msgspec.Struct, frozen=True):
    val: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,18}\Z")]

    @property
    def number(self) -> int:
        return int(self.val)


class _Attribute(msgspec.Struct, frozen=True):
    key: str
    value: str


class _Units(msgspec.Struct, frozen=True):
    units: _Val
    attributes: list[_Attribute] | None = None


class _Memory(msgspec.Struct, frozen=True):
    size: _Val


class _Storage(msgspec.Struct, frozen=True):
    name: str
    size: _Val
    attributes: list[_Attribute] | None = None

    @property
    def storage_class(self) -> str:
        return next((a.value for a in self.attributes or () if a.key == "class"), EPHEMERAL)


class _Resources(msgspec.Struct, frozen=True):
    cpu: _Units
    memory: _Memory
    storage: list[_Storage] | None = None
    gpu: _Units | None = None


class _Expose(msgspec.Struct, frozen=True):
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    proto: str = "TCP"
    is_global: bool = msgspec.field(default=False, name="global")


class _Mount(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    mount: str = ""
    read_only: bool = False


class _Params(msgspec.Struct, frozen=True):
    storage: list[_Mount] | None = None
    credentials: dict[str, str] | None = None


class Service(msgspec.Struct, frozen=True):
    """A service of the manifest; fields as Akash writes them."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    image: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    resources: _Resources
    count: Annotated[int, msgspec.Meta(ge=1, le=256)]
    command: list[str] | None = None
    args: list[str] | None = None
    env: list[str] | None = None
    expose: list[_Expose] | None = None
    params: _Params | None = None
    credentials: dict[str, str] | None = None

    @property
    def login(self) -> Credentials | None:
        """The tenant's own registry login."""
        found = self.credentials or (self.params.credentials if self.params else None)
        return Credentials(found.get("host", ""), found.get("username", ""), found.get("password", "")) if found else None

    @property
    def gpus(self) -> int:
        """Devices that each replica gets."""
        return self.resources.gpu.units.number if self.resources.gpu else 0

    @property
    def published(self) -> tuple[tuple[int, str], ...]:
        """(container port, tcp or udp) that each replica publishes on the host, once each."""
        found = ((e.port, e.proto.lower()) for e in self.expose or () if e.is_global)
        return tuple(dict.fromkeys(found))

    @property
    def volumes(self) -> tuple[tuple[str, int], ...]:
        """(class, bytes) of each volume, sorted."""
        return tuple(sorted((s.storage_class, s.size.number) for s in self.resources.storage or ()))


class ManifestGroup(msgspec.Struct, frozen=True):
    """A group of the manifest: what one lease runs."""

    name: str
    services: Annotated[tuple[Service, ...], msgspec.Meta(min_length=1, max_length=64)]

    def slots(self) -> tuple[Slot, ...]:
        """Every container that should run, in order."""
        return tuple(Slot(service.name, replica) for service in self.services for replica in range(service.count))


def canonical_hash(value: Any) -> str:
    """Akash's hash, in hex: SHA-256 over sorted compact JSON as Go writes it."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for char in ("&", "<", ">", "\u2028", "\u2029"):
        text = text.replace(char, f"\\u{ord(char):04x}")
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def accept(manifest: Sequence[Any], spec: Any, terms: Terms) -> ManifestGroup:
    """The group to run, once both hashes and the fit are checked; ManifestRefused says what differs."""
    found = canonical_hash(manifest)
    if found != terms.hash:
        raise ManifestRefused(
            "HASH_MISMATCH",
            f"the manifest's hash is {found[:16]}…, the deployment's {terms.hash[:16]}…",
            "send the manifest of the file that was deployed, or update the deployment first",
        )
    spec_hash = "0" * 64 if spec is None else canonical_hash(spec)
    if spec_hash != terms.spec_hash:
        raise ManifestRefused("HASH_MISMATCH", "the additions beside the manifest are not those of the deployment", "send both")
    group = group_named(manifest, terms.group)
    check_fit(group, terms.resources)
    return group


def group_named(manifest: Sequence[Any], name: str) -> ManifestGroup:
    """The group of that name, decoded; ManifestRefused where there is none or it cannot be read."""
    fix = "send the list of groups exactly as it was hashed"
    chosen = next((g for g in manifest if isinstance(g, dict) and g.get("name") == name), None)
    if chosen is None:
        raise ManifestRefused("GROUP_MISSING", f"the manifest has no group {name!r}", fix)
    try:
        group = msgspec.convert(chosen, ManifestGroup)
    except (msgspec.ValidationError, UnicodeError) as error:
        raise ManifestRefused("MANIFEST_MALFORMED", str(error), fix) from None
    if len({service.name for service in group.services}) != len(group.services):
        raise ManifestRefused("MANIFEST_MALFORMED", "two services share a name", fix)
    return group


def check_fit(group: ManifestGroup, resources: Sequence[ResourceUnit]) -> None:
    """ManifestRefused unless the services use exactly what was ordered: no more, no less."""
    deal(group, resources)
    ordered = sum(unit.ports * unit.count for unit in resources)
    published = sum(len(service.published) * service.count for service in group.services)
    if published > ordered:
        raise ManifestRefused("DOES_NOT_FIT", f"{published} published ports, {ordered} were ordered", "deploy the file anew")


def deal(group: ManifestGroup, resources: Sequence[ResourceUnit]) -> dict[Slot, tuple[int, int]]:
    """Which of the lease's devices each replica gets: (first, end) in the lease's list, which is in the order of the units.

    Each service takes replicas of the first units of its shape that have any left; ManifestRefused where a service finds
    none, or some are left over.
    """
    starts: list[int] = []
    total = 0
    for unit in resources:
        starts.append(total)
        total += unit.count * _gpus(unit)
    used = [0] * len(resources)
    dealt: dict[Slot, tuple[int, int]] = {}
    for service in group.services:
        for replica in range(service.count):
            place = next((i for i, u in enumerate(resources) if used[i] < u.count and _same_shape(service, u)), None)
            if place is None:
                detail = f"{service.name}, replica {replica}: the order has no (more) such resources"
                raise ManifestRefused("DOES_NOT_FIT", detail, "deploy the file anew")
            first = starts[place] + used[place] * service.gpus
            dealt[Slot(service.name, replica)] = (first, first + service.gpus)
            used[place] += 1
    if any(count < unit.count for count, unit in zip(used, resources, strict=True)):
        raise ManifestRefused("DOES_NOT_FIT", "the manifest uses less than was ordered", "deploy the file anew")
    return dealt


def _gpus(unit: ResourceUnit) -> int:
    return unit.gpu.count if unit.gpu else 0


def _same_shape(service: Service, unit: ResourceUnit) -> bool:
    mine = (service.resources.cpu.units.number, service.resources.memory.size.number, service.gpus, service.volumes)
    return mine == (unit.cpu_milli, unit.memory, _gpus(unit), tuple(sorted((v.storage_class, v.size) for v in unit.volumes)))


def port_key(slot: Slot, port: int, protocol: str) -> str:
    """Name of a published port in the journal."""
    return f"{slot.service}/{slot.replica}/{port}/{protocol}"


def container_spec(
    service: Service,
    slot: Slot,
    *,
    lease: str,
    generation: int,
    spec: str,
    image: Image,
    devices: tuple[str, ...],
    simulated: bool,
    host_ip: str,
    ports: Mapping[str, int],
) -> ContainerSpec:
    """The container of one replica. `ports` gives host ports by `port_key`."""
    resources = service.resources
    mounts = {m.name: m for m in (service.params.storage if service.params else None) or ()}
    tmpfs: dict[str, int] = {}
    volumes: dict[str, tuple[str, bool]] = {}
    disk = ram = 0
    # Shared memory of the size that training needs, inside the container's own memory.
    wanted_shm = (8 if service.gpus > 1 else 1) * GIB if service.gpus else 64 * 2**20
    shm = min(wanted_shm, resources.memory.size.number // 2)
    for volume in resources.storage or ():
        mount = mounts.get(volume.name)
        size = volume.size.number
        if volume.storage_class == RAM:
            ram += size
            if mount and mount.mount == SHM:
                shm = size
            elif mount:
                tmpfs[mount.mount] = size
        elif mount and mount.mount:
            volumes[mount.mount] = (f"{slot.service}-{slot.replica}-{volume.name}", mount.read_only)
        else:
            disk += size
    env = dict(item.partition("=")[::2] for item in service.env or ())
    return ContainerSpec(
        lease=lease,
        generation=generation,
        service=service.name,
        replica=slot.replica,
        image=image,
        cpu_milli=resources.cpu.units.number,
        memory=resources.memory.size.number + ram,
        disk=disk,
        command=tuple(service.command or ()),
        args=tuple(service.args or ()),
        env=env,
        ports=tuple(PortMap(p, proto, host_ip, ports.get(port_key(slot, p, proto), 0)) for p, proto in service.published),
        devices=devices,
        simulated=simulated,
        shm=shm,
        tmpfs=tmpfs,
        volumes=volumes,
        hostname=service.name if service.count == 1 else f"{service.name}-{slot.replica}",
        spec_hash=spec,
    )
