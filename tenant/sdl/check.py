"""What the reference checks across the parts of a file: names that must exist, ports, volumes, limits, the manifest's rules."""

from typing import Final

from tenant.sdl.document import Compute, Credentials, Document, Expose, Params, Price, Run, Service
from tenant.sdl.hosts import is_endpoint_name, is_env_name, is_service_name, is_subdomain
from tenant.sdl.problem import At, Path, Report, nearest

MOST_MILLI: Final = 384_000
MOST_GPUS: Final = 24
MOST_MEMORY: Final = 2 * 1024**4
MOST_STORAGE: Final = 32 * 1024**4
MOST_PRICE: Final = 10_000_000
MOST_REPLICAS: Final = 50
"""A group may have this many times the most of one unit."""

NEXT_CASES: Final = ("error", "timeout", "500", "502", "503", "504", "403", "404", "429", "off")
TEES: Final = ("cpu", "cpu-gpu")
_HTTP_LIMITS: Final = (
    ("max_body_size", 104_857_600, "bytes"),
    ("proxy_buffer_size", 1_048_576, "bytes"),
    ("read_timeout", 60_000, "ms"),
    ("send_timeout", 60_000, "ms"),
)


class Checker:
    """Checks a document; everything that is wrong goes into the report."""

    def __init__(self, document: Document, report: Report) -> None:
        self.document = document
        self.report = report
        self.hosts: dict[str, str] = {}
        self.ip_ports: dict[tuple[str, int, str], str] = {}
        self.ips_used: set[str] = set()
        self.globals = 0
        self.denoms: dict[str, Price] = {}
        self.tees: dict[str, str] = {}

    def check(self) -> None:
        """Check everything."""
        self._endpoints()
        for name in sorted(self.document.deployment):
            for placement, run in sorted(self.document.deployment[name].items()):
                self._run(name, placement, run)
        for name, endpoint in self.document.endpoints.items():
            if name not in self.ips_used:
                self.report.error(
                    "endpoint_unused",
                    ("endpoints", name),
                    endpoint.at,
                    f"no service uses the endpoint {name!r}",
                    fix=f"ip: {name} below to: of an exposed port, or take the endpoint out",
                )
        placed = any(self.document.deployment.values())
        if not placed:
            self.report.error(
                "nothing_deployed",
                ("deployment",),
                At(1, 1),
                "nothing is deployed",
                fix="deployment:\n  web:\n    anywhere:\n      profile: web\n      count: 1",
            )
        elif not self.globals:
            self.report.error(
                "no_global",
                ("services",),
                At(1, 1),
                "no deployed service has a port that the world can reach",
                allowed="at least one global port",
                fix="expose:\n  - port: 80\n    to:\n      - global: true",
            )
        if len(self.denoms) > 1:
            last = self.denoms[sorted(self.denoms)[-1]]
            self.report.error(
                "mixed_denoms",
                ("profiles", "placement"),
                last.at,
                "one deployment pays in one denomination",
                found=", ".join(sorted(self.denoms)),
                fix="use the same denom in every price",
            )
        self._totals()

    def _endpoints(self) -> None:
        for name, endpoint in self.document.endpoints.items():
            path = ("endpoints", name)
            if not is_endpoint_name(name):
                self.report.error(
                    "bad_endpoint_name",
                    path,
                    endpoint.at,
                    f"{name[:60]!r} is no name for an endpoint",
                    found=name,
                    allowed="two or more of a–z, 0–9, - and _, a letter first",
                    fix="endpoints:\n  myendpoint:\n    kind: ip",
                )
            if endpoint.kind != "ip":
                self.report.error(
                    "bad_endpoint_kind",
                    (*path, "kind"),
                    endpoint.at,
                    "the only kind of endpoint is ip",
                    found=endpoint.kind,
                    allowed="ip",
                    fix="kind: ip",
                )

    def _missing(self, kind: str, name: str, known: object, path: Path, at: At) -> None:
        names = sorted(known) if isinstance(known, dict) else []
        self.report.error(
            f"no_{kind}",
            path,
            at,
            f"there is no {kind.replace('_', ' ')} {name[:60]!r}",
            found=name,
            allowed=", ".join(names[:20]),
            near=nearest(name, names),
            fix=f"use one of the names above, or define {name!r}",
        )

    def _run(self, name: str, placement: str, run: Run) -> None:
        path: Path = ("deployment", name, placement)
        document = self.document
        if placement == "":
            self.report.error("empty_name", path, run.at, "a placement must have a name", fix="anywhere:")
        compute = document.compute.get(run.profile)
        if compute is None:
            self._missing("compute_profile", run.profile, document.compute, (*path, "profile"), run.at)
        else:
            self._compute(("profiles", "compute", run.profile), compute)
        where = document.placement.get(placement)
        if where is None:
            self._missing("placement", placement, document.placement, path, run.at)
        elif run.profile not in where.pricing:
            self._missing("price", run.profile, where.pricing, ("profiles", "placement", placement, "pricing"), where.at)
        else:
            self._price(("profiles", "placement", placement, "pricing", run.profile), where.pricing[run.profile], where.at)
        service = document.services.get(name)
        if service is None:
            self._missing("service", name, document.services, ("deployment", name), run.at)
            return
        self._service(name, service)
        if compute is not None:
            self._volumes(name, service, compute)
            self._tee(name, placement, service, compute)

    def _price(self, path: Path, price: Price | None, at: At) -> None:
        if price is None:
            self.report.error("no_price", path, at, "the price is empty", fix="denom: uact\namount: 1000")
            return
        self.denoms.setdefault(price.denom, price)
        if price.amount > MOST_PRICE:
            self.report.error(
                "price_too_high",
                (*path, "amount"),
                price.at,
                "the price is above the most that is allowed",
                found=price.amount,
                allowed=f"above 0, at most {MOST_PRICE} a block",
                fix=f"amount: {MOST_PRICE}",
            )

    def _limit(self, path: Path, at: At, what: str, value: int, low: int, high: int, fix: str) -> None:
        if not low <= value <= high:
            self.report.error(
                "out_of_range", path, at, f"{what} is out of range", found=value, allowed=f"{low} to {high}", fix=fix
            )

    def _compute(self, path: Path, compute: Compute) -> None:
        path = (*path, "resources")
        if compute.cpu is None:
            self.report.error("no_cpu", (*path, "cpu"), compute.at, "the profile has no cpu", fix="cpu:\n  units: 1")
        else:
            at = compute.cpu.at
            self._limit((*path, "cpu", "units"), at, "cpu (in thousandths)", compute.cpu.milli, 10, MOST_MILLI, "units: 500m")
            if len(compute.cpu.attributes) > 1:
                self.report.error("duplicate_key", (*path, "cpu", "attributes"), at, "arch stands twice", fix="keep one")
        if compute.memory is None:
            self.report.error(
                "no_memory", (*path, "memory"), compute.at, "the profile has no memory", fix="memory:\n  size: 512Mi"
            )
        else:
            where = (*path, "memory", "size")
            self._limit(where, compute.memory.at, "memory (bytes)", compute.memory.size, 2**20, MOST_MEMORY, "size: 512Mi")
        if not compute.storage:
            self.report.error(
                "no_storage", (*path, "storage"), compute.at, "the profile has no storage", fix="storage:\n  size: 1Gi"
            )
        for volume in compute.storage:
            where = (*path, "storage", volume.name, "size")
            self._limit(where, volume.at, "a volume (bytes)", volume.size, 5 * 2**20, MOST_STORAGE, "size: 1Gi")
        if compute.gpu is not None:
            where = (*path, "gpu", "units")
            self._limit(where, compute.gpu.at, "the number of GPUs", compute.gpu.units, 0, MOST_GPUS, "units: 1")
            if compute.gpu.choices and not compute.gpu.units:
                self.report.error(
                    "gpu_units", where, compute.gpu.at, "GPU attributes without GPUs", allowed="1 to 24", fix="units: 1"
                )

    def _service(self, name: str, service: Service) -> None:
        path: Path = ("services", name)
        if not is_service_name(name):
            self.report.error(
                "bad_service_name",
                path,
                service.at,
                f"{name[:60]!r} is no name for a service",
                found=name,
                allowed="a–z, 0–9 and -, a letter first, no - last",
                fix="web:",
            )
        if not service.image:
            self.report.error("no_image", (*path, "image"), service.at, "the service has no image", fix="image: nginx:1.27")
        for index, variable in enumerate(service.env or ()):
            word = variable.split("=", 1)[0]
            if not is_env_name(word):
                self.report.error(
                    "bad_env",
                    (*path, "env", index),
                    service.at,
                    f"{word[:60]!r} is no name for a variable",
                    found=word,
                    allowed="NAME=value; letters, digits, - . _, no digit first",
                    fix='- "NAME=value"',
                )
        if service.credentials is not None:
            self._credentials((*path, "credentials"), service.credentials)
        for index, expose in enumerate(service.expose):
            self._expose(name, (*path, "expose", index), expose)

    def _credentials(self, path: Path, credentials: Credentials) -> None:
        for key, value in (
            ("host", credentials.host),
            ("username", credentials.username),
            ("password", credentials.password),
        ):
            if not value.strip():
                self.report.error("credentials", (*path, key), credentials.at, f"the credentials have no {key}", fix=f"{key}: …")

    def _expose(self, name: str, path: Path, expose: Expose) -> None:
        if not 0 < expose.port <= 65535:
            self.report.error(
                "bad_port", (*path, "port"), expose.at, "this is no port", found=expose.port, allowed="1 to 65535", fix="port: 80"
            )
        if expose.proto.upper() not in ("", "TCP", "UDP"):
            self.report.error(
                "bad_proto",
                (*path, "proto"),
                expose.at,
                f"there is no protocol {expose.proto[:40]!r}",
                found=expose.proto,
                allowed="TCP, UDP",
                near=nearest(expose.proto.upper(), ("TCP", "UDP")),
                fix="proto: TCP",
            )
        self._http((*path, "http_options"), expose)
        for index, to in enumerate(expose.to):
            where = (*path, "to", index)
            self.globals += to.global_
            if to.ip:
                self._ip(name, where, expose, index)
        for host in expose.accept or ():
            where = (*path, "accept")
            if not is_subdomain(host):
                self.report.error(
                    "bad_hostname",
                    where,
                    expose.at,
                    f"{host[:60]!r} is no host name",
                    found=host,
                    allowed="lower-case letters, digits, - and .",
                    fix="- app.example.com",
                )
        # Each direction of a port carries all of its host names, and a host name stands once in a manifest.
        for _ in expose.to or (None,):
            for host in expose.accept or ():
                self._host(name, (*path, "accept"), expose, host)

    def _host(self, name: str, path: Path, expose: Expose, host: str) -> None:
        if host in self.hosts:
            self.report.error(
                "duplicate_hostname",
                path,
                expose.at,
                f"the host name {host[:60]!r} is used twice",
                found=host,
                allowed="a host name once, at a port with one `to` and one placement",
                fix="give each port its own host name",
            )
        self.hosts.setdefault(host, name)

    def _ip(self, name: str, path: Path, expose: Expose, index: int) -> None:
        to = expose.to[index]
        if not to.global_:
            self.report.error(
                "ip_not_global",
                (*path, "global"),
                to.at,
                "an address of its own is for global ports",
                allowed="true",
                fix=f"- global: true\n  ip: {to.ip}",
            )
        if to.ip not in self.document.endpoints:
            self._missing("endpoint", to.ip, self.document.endpoints, (*path, "ip"), to.at)
        self.ips_used.add(to.ip)
        key = (to.ip, expose.as_, expose.proto)
        if key in self.ip_ports:
            self.report.error(
                "ip_port_taken",
                (*path, "ip"),
                to.at,
                f"{to.ip!r} already has this port, for {self.ip_ports[key]!r}",
                found=expose.as_ or expose.port,
                fix="as: another port",
            )
        self.ip_ports.setdefault(key, name)

    def _http(self, path: Path, expose: Expose) -> None:
        options = expose.http_options
        for key, most, unit in _HTTP_LIMITS:
            value = getattr(options, key)
            if value > most:
                self.report.error(
                    "http_limit",
                    (*path, key),
                    options.at,
                    f"{key} is above its limit",
                    found=value,
                    allowed=f"at most {most} {unit}",
                    fix=f"{key}: {most}",
                )
        for case in options.next_cases:
            if case not in NEXT_CASES:
                self.report.error(
                    "bad_next_case",
                    (*path, "next_cases"),
                    options.at,
                    f"there is no case {case[:40]!r}",
                    found=case,
                    allowed=", ".join(NEXT_CASES),
                    near=nearest(case, NEXT_CASES),
                    fix="next_cases: [error, timeout]",
                )
        if "off" in options.next_cases and len(options.next_cases) > 1:
            self.report.error(
                "off_alone", (*path, "next_cases"), options.at, "off must stand alone", allowed="[off]", fix="next_cases: [off]"
            )

    def _volumes(self, name: str, service: Service, compute: Compute) -> None:
        params = service.params or Params(at=service.at)
        path: Path = ("services", name, "params", "storage")
        volumes = {volume.name: volume for volume in compute.storage}
        mounts: dict[str, str] = {}
        for key, mount in params.storage.items():
            volume = volumes.get(key)
            if volume is None:
                self._missing("volume", key, volumes, (*path, key), mount.at)
            if not mount.mount.startswith("/"):
                self.report.error(
                    "bad_mount",
                    (*path, key, "mount"),
                    mount.at,
                    "a mount must be an absolute path",
                    found=mount.mount,
                    allowed="a path from /",
                    fix=f"mount: /{mount.mount or 'data'}",
                )
            if mount.mount in mounts:
                self.report.error(
                    "duplicate_mount",
                    (*path, key, "mount"),
                    mount.at,
                    f"{mounts[mount.mount]!r} is mounted there already",
                    found=mount.mount,
                    fix=f"mount: {mount.mount}2",
                )
            mounts[mount.mount] = key
            ram = volume is not None and volume.attribute("class") == "ram"
            if ram and mount.read_only and self.document.version == "2.1":
                self.report.error(
                    "ram_read_only",
                    (*path, key, "readOnly"),
                    mount.at,
                    "memory-backed storage cannot be read-only",
                    found="true",
                    allowed="false",
                    fix="readOnly: false",
                )
        # 2.0 asks of a persistent volume only that its service mounts something; 2.1 does not ask at all.
        for volume in compute.storage:
            if self.document.version == "2.0" and volume.persistent and not params.storage:
                self.report.error(
                    "not_mounted",
                    (*path, volume.name),
                    service.at,
                    f"the persistent volume {volume.name!r} is not mounted",
                    allowed="a mount in params.storage",
                    fix=f"params:\n  storage:\n    {volume.name}:\n      mount: /data",
                )

    def _tee(self, name: str, placement: str, service: Service, compute: Compute) -> None:
        tee = service.params.tee if service.params else ""
        if not tee:
            return
        at = service.params.at if service.params else service.at
        path: Path = ("services", name, "params", "tee")
        if tee not in TEES:
            self.report.error(
                "bad_tee",
                path,
                at,
                f"there is no tee {tee[:40]!r}",
                found=tee,
                allowed=", ".join(TEES),
                near=nearest(tee, TEES),
                fix="tee: cpu",
            )
        elif tee == "cpu-gpu" and not (compute.gpu and compute.gpu.units):
            self.report.error("tee_gpu", path, at, "cpu-gpu needs a GPU", found=tee, allowed="cpu", fix="tee: cpu")
        if self.tees.setdefault(placement, tee) != tee:
            self.report.error(
                "mixed_tees",
                path,
                at,
                "the services of one placement have one tee",
                found=tee,
                allowed=self.tees[placement],
                fix=f"tee: {self.tees[placement]}",
            )

    def _totals(self) -> None:
        totals: dict[str, list[int]] = {}
        places: dict[str, str] = {}
        for name, runs in sorted(self.document.deployment.items()):
            for placement, run in runs.items():
                compute = self.document.compute.get(run.profile)
                if compute is None:
                    continue
                total = totals.setdefault(placement, [0, 0, 0])
                places.setdefault(placement, name)
                total[0] += run.count * (compute.cpu.milli if compute.cpu else 0)
                total[1] += run.count * (compute.gpu.units if compute.gpu else 0)
                total[2] += run.count * (compute.memory.size if compute.memory else 0)
        for placement, (cpu, gpu, memory) in sorted(totals.items()):
            limits = (
                ("cpu", cpu, 1, MOST_MILLI * MOST_REPLICAS),
                ("gpu", gpu, 0, MOST_GPUS * MOST_REPLICAS),
                ("memory", memory, 1, MOST_MEMORY * MOST_REPLICAS),
            )
            for what, value, low, high in limits:
                if not low <= value <= high:
                    self.report.error(
                        f"total_{what}",
                        ("deployment", places[placement], placement, "count"),
                        At(1, 1),
                        f"all {what} of {placement[:60]!r} together is out of range",
                        found=value,
                        allowed=f"{low} to {high}",
                        fix="count: 1",
                    )
