"""An SDL in words: what will be asked of the market, group by group."""

from typing import Any, Final

from tenant.sdl.document import Compute, Gpu, Run
from tenant.sdl.market import HOURS_PER_MONTH, limit_per_hour
from tenant.sdl.problem import LoweringRefused
from tenant.sdl.sdl import Sdl

_UNITS: Final = ((2**40, "Ti"), (2**30, "Gi"), (2**20, "Mi"), (2**10, "Ki"))


def amount(value: int) -> str:
    """Micro-units as whole ones with six decimals."""
    return f"{value // 1_000_000}.{value % 1_000_000:06d}"


def human_size(value: int) -> str:
    """Bytes in the largest binary unit, cut to two decimals."""
    for unit, suffix in _UNITS:
        if value >= unit:
            whole, rest = divmod(value * 100 // unit, 100)
            return f"{whole}{suffix}" if not rest else f"{whole}.{rest:02d}{suffix}"
    return str(value)


def duration(ms: int) -> str:
    """Milliseconds in the largest unit that is exact: `24h`, `90m`."""
    for unit, suffix in ((3_600_000, "h"), (60_000, "m"), (1_000, "s")):
        if ms % unit == 0:
            return f"{ms // unit}{suffix}"
    return f"{ms}ms"


def gpus_in_words(gpu: Gpu | None) -> str:
    """GPUs of one replica: `2 × nvidia h100 80Gi sxm or nvidia a100`."""
    if gpu is None or not gpu.units:
        return "–"
    kinds = []
    for choice in gpu.choices:
        words = [choice.vendor, "any model" if choice.model == "*" else choice.model]
        if choice.has_ram:
            words.append(f"{choice.ram // 2**30}Gi")
        if choice.interface:
            words.append(choice.interface)
        kinds.append(" ".join(words))
    return f"{gpu.units} × " + " or ".join(kinds)


def _volumes(compute: Compute) -> str:
    return ", ".join(
        f"{v.name} {human_size(v.size)} {v.attribute('class') or ('default' if v.persistent else 'ephemeral')}"
        for v in compute.storage
    )


def _unit(sdl: Sdl, name: str, run: Run) -> dict[str, Any]:
    service, compute = sdl.document.services[name], sdl.document.compute[run.profile]
    assert compute.cpu is not None
    assert compute.memory is not None
    return {
        "service": name,
        "image": service.image,
        "count": run.count,
        "cpu_milli": compute.cpu.milli,
        "memory": compute.memory.size,
        "gpu": gpus_in_words(compute.gpu),
        "ports": sum(to.global_ for expose in service.expose for to in expose.to),
        "volumes": _volumes(compute),
    }


def group_facts(sdl: Sdl, where: str) -> dict[str, Any]:
    """What the group at one placement asks, JSON-able; limits in micro-units, as strings."""
    document = sdl.document
    runs = [(name, runs[where]) for name, runs in sorted(document.deployment.items()) if where in runs]
    placement = document.placement[where]
    price = placement.pricing[runs[0][1].profile]
    assert price is not None
    hour = limit_per_hour(document, where)
    return {
        "name": where,
        "units": [_unit(sdl, name, run) for name, run in runs],
        "attributes": dict(placement.attributes),
        "signed_by": {"all_of": list(placement.all_of or ()), "any_of": list(placement.any_of or ())},
        "denomination": price.denom,
        "limit_per_hour": str(hour),
        "needs_ms": placement.needs_ms,
        "accepts_ms": placement.accepts_ms or 0,
        "limit_per_month": str(hour * HOURS_PER_MONTH),
    }


def facts(sdl: Sdl) -> dict[str, Any]:
    """What a file asks of the market, JSON-able; `obstacle` is why this market cannot serve it, or None."""
    obstacle = None
    try:
        sdl.market_groups()
    except LoweringRefused as refused:
        obstacle = {"code": refused.code, "message": str(refused), "fix": refused.fix}
    places = sorted({where for runs in sdl.document.deployment.values() for where in runs})
    return {"hash": sdl.hash, "groups": [group_facts(sdl, where) for where in places], "obstacle": obstacle}


HEADERS: Final = ("SERVICE", "REPLICAS", "CPU", "MEMORY", "GPUS EACH", "PORTS", "VOLUMES")


def rows(group: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table of a group's units."""
    return [
        (
            unit["service"],
            str(unit["count"]),
            f"{unit['cpu_milli']}m",
            human_size(unit["memory"]),
            unit["gpu"],
            str(unit["ports"]),
            unit["volumes"],
        )
        for unit in group["units"]
    ]


def words(group: dict[str, Any]) -> list[str]:
    """The sentences about a group. One uact or uakt is one micro-credit."""
    denom = group["denomination"]
    unit = "credits" if denom in ("uact", "uakt", "ucredit") else f"million {denom}"
    out = [
        f"Group {group['name']}: one provider runs all of it, for at most {amount(int(group['limit_per_hour']))} {unit} an hour"
        f" ({amount(int(group['limit_per_month']))} a month of {HOURS_PER_MONTH} hours)."
    ]
    attributes = ", ".join(f"{k}={v}" for k, v in sorted(group["attributes"].items()))
    out.append(f"The provider must say: {attributes}." if attributes else "No attribute is asked of the provider.")
    signed = group["signed_by"]
    if signed["all_of"]:
        out.append("Attested by all of: " + ", ".join(signed["all_of"]) + ".")
    if signed["any_of"]:
        out.append("Attested by one of: " + ", ".join(signed["any_of"]) + ".")
    if group["needs_ms"]:
        out.append(f"A lease must be allowed to last {duration(group['needs_ms'])}.")
    if group["accepts_ms"]:
        out.append(
            f"A shortest duration of up to {duration(group['accepts_ms'])} is accepted: who ends a lease before pays for it."
        )
    return out
