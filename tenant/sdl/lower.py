"""From a checked document to groups, manifest and hash: what goes on the chain and what the provider gets."""

import hashlib
from typing import Any, Final

import msgspec

from tenant.sdl.document import Compute, Document, HttpOptions, Placement, Price, Service, Volume
from tenant.sdl.quantity import fixed18

Json = dict[str, Any]

_SHARED_HTTP: Final = 0
_RANDOM_PORT: Final = 1
_LEASED_IP: Final = 2
_ESCAPES: Final = (
    (b"&", b"\\u0026"),
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)
_encode = msgspec.json.Encoder(order="sorted").encode


def canonical(manifest: list[Json]) -> bytes:
    """The bytes that are hashed: sorted keys, no spaces, Go's escapes."""
    data = _encode(manifest)
    for char, escape in _ESCAPES:
        data = data.replace(char, escape)
    return data


def digest(data: bytes) -> str:
    """The deployment hash of canonical manifest bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def _attributes(pairs: tuple[tuple[str, str], ...]) -> list[Json]:
    out = []
    for key, value in pairs:
        entry = {}
        if key:
            entry["key"] = key
        if value:
            entry["value"] = value
        out.append(entry)
    return out


def _with_attributes(entry: Json, pairs: tuple[tuple[str, str], ...]) -> Json:
    if pairs:
        entry["attributes"] = _attributes(pairs)
    return entry


def _volume(volume: Volume) -> Json:
    return _with_attributes({"name": volume.name, "size": {"val": str(volume.size)}}, volume.attributes)


def _resources(compute: Compute, id_: int, endpoints: list[Json]) -> Json:
    assert compute.cpu is not None
    assert compute.memory is not None
    gpu: Json = {"units": {"val": str(compute.gpu.units if compute.gpu else 0)}}
    if compute.gpu and compute.gpu.choices:
        gpu["attributes"] = [{"key": choice.key, "value": "true"} for choice in compute.gpu.choices]
    return {
        "id": id_,
        "cpu": _with_attributes({"units": {"val": str(compute.cpu.milli)}}, compute.cpu.attributes),
        "memory": {"size": {"val": str(compute.memory.size)}},
        "storage": [_volume(volume) for volume in compute.storage],
        "gpu": gpu,
        "endpoints": endpoints,
    }


def _http(options: HttpOptions) -> Json:
    out: Json = {
        "maxBodySize": options.max_body_size or 1_048_576,
        "readTimeout": options.read_timeout or 60_000,
        "sendTimeout": options.send_timeout or 60_000,
        "nextTries": options.next_tries or 3,
        "nextTimeout": options.next_timeout,
        "nextCases": list(options.next_cases) or ["error", "timeout"],
    }
    if options.proxy_buffer_size:
        out["proxyBufferSize"] = options.proxy_buffer_size
    return out


def _listed(items: tuple[str, ...] | None) -> list[str] | None:
    return None if items is None else list(items)


def _exposes(service: Service, numbers: dict[str, int]) -> list[Json]:
    out = []
    for expose in service.expose:
        base = {
            "port": expose.port,
            "externalPort": expose.as_,
            "proto": expose.proto.upper() or "TCP",
            "service": "",
            "global": False,
            "hosts": _listed(expose.accept),
            "httpOptions": _http(expose.http_options),
            "ip": "",
            "endpointSequenceNumber": 0,
        }
        for to in expose.to:
            number = numbers.get(to.ip, 0) if to.global_ and to.ip else 0
            out.append(base | {"service": to.service, "global": to.global_, "ip": to.ip, "endpointSequenceNumber": number})
        if not expose.to:
            out.append(base)
    out.sort(key=lambda e: (e["service"], e["port"], e["proto"], not e["global"]))
    return out


def _endpoint(kind: int, number: int) -> Json:
    return {"kind": kind, "sequence_number": number} if kind else {"sequence_number": number}


def _endpoints(exposes: list[Json]) -> list[Json]:
    out = []
    for e in exposes:
        if not e["global"]:
            continue
        ingress = e["proto"] == "TCP" and (e["externalPort"] or e["port"]) == 80
        port = _endpoint(_SHARED_HTTP if ingress else _RANDOM_PORT, 0)
        out.append(port)
        if e["ip"]:
            out.append(_endpoint(_LEASED_IP, e["endpointSequenceNumber"]))
    return out


def _params(service: Service) -> Json | None:
    params = service.params
    if params is None:
        return None
    mounts = [{"name": name, "mount": mount.mount, "readOnly": mount.read_only} for name, mount in sorted(params.storage.items())]
    out: Json = {"storage": mounts or None}
    if params.has_permissions:
        out["permissions"] = {"read": list(params.permissions)} if params.permissions else {}
    if params.tee:
        out["tee"] = {"type": params.tee, "attestation": True}
    return out


def _credentials(service: Service, version: str) -> Json | None:
    given = service.credentials
    if given is None:
        return None
    if version == "2.0":
        # The reference forgets the address and keeps the blanks in 2.0.
        return {"host": given.host, "email": "", "username": given.username, "password": given.password}
    return {
        "host": given.host.strip(),
        "email": given.email.strip(),
        "username": given.username.strip(),
        "password": given.password.strip(),
    }


def _sequence_numbers(document: Document) -> dict[str, int]:
    names = [
        to.ip
        for name in sorted(document.deployment)
        if name in document.services  # a service without a placement need not exist
        for expose in document.services[name].expose
        for to in expose.to
        if not (to.global_ and not to.ip)
    ]
    return {name: number for number, name in enumerate(sorted(names), 1)}


def _service(name: str, service: Service, resources: Json, count: int, exposes: list[Json], version: str) -> Json:
    out: Json = {
        "name": name,
        "image": service.image,
        "command": _listed(service.command),
        "args": _listed(service.args),
        "env": _listed(service.env),
        "resources": resources,
        "count": count,
        "expose": exposes,
    }
    params = _params(service)
    if params is not None:
        out["params"] = params
    out["credentials"] = _credentials(service, version)
    return out


def _requirements(placement: Placement) -> Json:
    return {
        "signed_by": {"all_of": _listed(placement.all_of), "any_of": _listed(placement.any_of)},
        "attributes": _attributes(placement.attributes) or None,
    }


def _price(price: Price | None) -> Json:
    assert price is not None
    return {"denom": price.denom, "amount": fixed18(price.amount)}


class _Group:
    """A group while it is built."""

    def __init__(self, name: str, placement: Placement) -> None:
        self.spec: Json = {"name": name, "requirements": _requirements(placement), "resources": []}
        self.services: list[Json] = []
        self.bound: dict[str, Json] = {}
        self.tee = ""

    def add_tee(self, tee: str) -> None:
        """Ask for providers with this kind of confidential computing."""
        if tee and not self.tee:
            self.tee = tee
            asked = self.spec["requirements"]["attributes"] or []
            asked.append({"key": "tee/type", "value": tee})
            self.spec["requirements"]["attributes"] = sorted(asked, key=lambda a: str(a.get("key", "")))

    def unit(self, profile: str, compute: Compute, price: Price | None, count: int, ends: list[Json], shared: bool) -> int:
        """Add a resource unit, or to the one of the same profile; its id."""
        unit = self.bound.get(profile) if shared else None
        if unit is not None:
            unit["count"] += count
            unit["resource"]["endpoints"].extend(ends)
            unit["resource"]["endpoints"].sort(key=lambda e: e["sequence_number"])
            return int(unit["resource"]["id"])
        units = self.spec["resources"]
        unit = {"resource": _resources(compute, len(units) + 1, list(ends)), "count": count, "price": _price(price)}
        units.append(unit)
        self.bound[profile] = unit
        return len(units)


def build(document: Document) -> tuple[list[Json], list[Json]]:
    """Groups and manifest of a checked document, as JSON-able lists."""
    numbers = _sequence_numbers(document)
    groups: dict[str, _Group] = {}
    shared = document.version != "2.0"
    for name in sorted(document.deployment):
        for where, run in sorted(document.deployment[name].items()):
            service, placement = document.services[name], document.placement[where]
            group = groups.get(where)
            if group is None:
                group = groups[where] = _Group(where, placement)
            group.add_tee(service.params.tee if service.params else "")
            exposes = _exposes(service, numbers)
            ends = _endpoints(exposes)
            compute = document.compute[run.profile]
            id_ = group.unit(run.profile, compute, placement.pricing[run.profile], run.count, ends, shared)
            resources = _resources(compute, id_, ends)
            group.services.append(_service(name, service, resources, run.count, exposes, document.version))
    ordered = [groups[name] for name in sorted(groups)]
    return [g.spec for g in ordered], [{"name": g.spec["name"], "services": g.services} for g in ordered]
