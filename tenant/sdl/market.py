"""From an accepted SDL to what is asked of this market: a group of units for each placement."""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final, TypeVar

import msgspec

from ledger.protocol.keys import Address
from marketplace.protocol.resources import EPHEMERAL, RAM, GpuAsk, GpuModel, Group, ResourceUnit, SignedBy, Volume
from tenant.sdl.document import Compute, Document, Gpu, Placement, Run, Service
from tenant.sdl.problem import LoweringRefused

CREDITS: Final = "ucredit"
"""Micro-credits of this market; one is worth one uact or uakt of an SDL."""

BLOCKS_PER_MONTH: Final = 429_909
HOURS_PER_MONTH: Final = 730
_DENOMINATION: Final = re.compile(r"[a-z][a-z0-9]{2,15}")
_SLUG: Final = re.compile(r"[a-z0-9]{1,32}")

T = TypeVar("T")


def denomination(document: Document) -> str:
    """The denomination that the deployment pays in. Raises LoweringRefused."""
    prices = [
        document.placement[where].pricing[run.profile]
        for name in sorted(document.deployment)
        for where, run in sorted(document.deployment[name].items())
    ]
    denom = prices[0].denom if prices and prices[0] else ""
    if denom in ("uact", "uakt"):
        return CREDITS
    if not _DENOMINATION.fullmatch(denom):
        raise LoweringRefused(
            "foreign_denomination", f"this market has no denomination {denom[:60]!r}", "write denom: uact, worth one micro-credit"
        )
    return denom


def _model(vendor: str, model: str, ram: int, interface: str) -> GpuModel:
    slug = "" if model == "*" else model.lower()
    if model != "*" and not _SLUG.fullmatch(slug):
        raise LoweringRefused(
            "unknown_gpu_model",
            f"no GPU model of this market can be called {model[:60]!r}",
            "write the short name, as h100 or rtx4090, or leave the list empty for any model",
        )
    # A manifest asks for whole GiB.
    return GpuModel(vendor=vendor, model=slug, ram_mib=ram // 2**30 * 1024, interface=interface)


def _gpu(gpu: Gpu | None) -> GpuAsk | None:
    if gpu is None or not gpu.units:
        return None
    models = tuple(_model(c.vendor, c.model, c.ram, c.interface) for c in gpu.choices)
    return GpuAsk(count=gpu.units, models=models)


def _volumes(compute: Compute) -> tuple[Volume, ...]:
    out = []
    for volume in compute.storage:
        kind = volume.attribute("class")
        where = RAM if kind == RAM else (kind or "default") if volume.persistent else EPHEMERAL
        out.append(Volume(size=volume.size, storage_class=where))
    return tuple(out)


def _ports(name: str, service: Service) -> int:
    ports = 0
    for expose in service.expose:
        for to in expose.to:
            if to.ip:
                raise LoweringRefused(
                    "no_ip_leases",
                    f"service {name!r} asks for an address of its own, and providers here lease none",
                    "take ip: and the endpoint out; the port is then published at the provider's address",
                )
            ports += to.global_
    return ports


def _unit(name: str, service: Service, compute: Compute, run: Run) -> ResourceUnit:
    assert compute.cpu is not None
    assert compute.memory is not None
    return ResourceUnit(
        count=run.count,
        cpu_milli=compute.cpu.milli,
        memory=compute.memory.size,
        gpu=_gpu(compute.gpu),
        ports=_ports(name, service),
        volumes=_volumes(compute),
    )


def _auditors(names: tuple[str, ...] | None) -> tuple[str, ...]:
    for name in names or ():
        try:
            msgspec.convert(name, Address)
        except msgspec.ValidationError:
            raise LoweringRefused(
                "foreign_auditor",
                f"{name[:60]!r} is no account of this market, so it attests nothing here",
                "name an auditor of this market (gpu1…) below signedBy; or give --ignore-auditors: any provider will do then",
            ) from None
    return tuple(names or ())


def _attributes(placement: Placement, tee: str) -> dict[str, str]:
    attributes = dict(placement.attributes)
    if tee:
        attributes.setdefault("tee/type", tee)
    return attributes


def _checked(make: Callable[[], T], what: str) -> T:
    """Build and hold to the market's own limits, which are not the reference's."""
    try:
        built: Any = make()
        converted: T = msgspec.convert(msgspec.to_builtins(built), type(built))
        return converted
    except msgspec.ValidationError as error:
        raise LoweringRefused(
            "market_limit", f"{what} is past a limit of this market: {error}", "ask for less, or split it into more services"
        ) from None


def limit_per_hour(document: Document, where: str) -> int:
    """The most that the group at a placement may cost, in micro-units an hour: floor(Σ amount × count × 429,909 / 730)."""
    total = Fraction(0)
    for runs in document.deployment.values():
        run = runs.get(where)
        price = document.placement[where].pricing[run.profile] if run else None
        if run and price:
            total += Fraction(price.amount) * run.count
    return int(total * BLOCKS_PER_MONTH // HOURS_PER_MONTH)


def _bound(placement: Placement) -> int | msgspec.UnsetType:
    """The longest shortest duration that is accepted; left out where that means the same, as for a plain file.

    To need a machine for a while is no promise to pay for all of it.
    """
    accepts = placement.accepts_ms or 0
    return msgspec.UNSET if accepts == placement.needs_ms else accepts


def _group(document: Document, where: str, runs: list[tuple[str, Run]], ignore_auditors: bool) -> Group:
    placement = document.placement[where]
    units = []
    tee = ""
    for name, run in runs:
        service = document.services[name]
        tee = tee or (service.params.tee if service.params else "")
        if run.count:
            units.append(_unit(name, service, document.compute[run.profile], run))
    signed_by = SignedBy()
    if not ignore_auditors:
        signed_by = SignedBy(all_of=_auditors(placement.all_of), any_of=_auditors(placement.any_of))
    return _checked(
        lambda: Group(
            limit_per_hour=str(limit_per_hour(document, where)),
            name=where,
            resources=tuple(units),
            attributes=_attributes(placement, tee),
            signed_by=signed_by,
            duration_ms=placement.needs_ms,
            bound_ms=_bound(placement),
        ),
        f"the group {where[:60]!r}",
    )


def market_groups(document: Document, *, ignore_auditors: bool = False) -> tuple[Group, ...]:
    """What to ask of the market, a group for each placement in order of name. Raises LoweringRefused.

    A unit is a service; its replicas are the unit's count. The limit of a group is the SDL's price a block, a replica,
    over a month of 429,909 blocks and 730 hours, cut to whole micro-units an hour.
    With `ignore_auditors` what stands below signedBy is not asked.
    """
    denomination(document)
    runs: dict[str, list[tuple[str, Run]]] = {}
    for name in sorted(document.deployment):
        for where, run in document.deployment[name].items():
            runs.setdefault(where, []).append((name, run))
    return tuple(_group(document, where, runs[where], ignore_auditors) for where in sorted(runs))
