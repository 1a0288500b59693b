"""Reading `profiles`: compute, storage, GPUs, placements, prices."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from tenant.sdl.document import Compute, Cpu, Gpu, GpuChoice, Memory, Placement, Price, Volume
from tenant.sdl.problem import Path, nearest
from tenant.sdl.quantity import BINARY_SUFFIXES, SUFFIXES, decimal18, duration_ns, milli_cpu, size
from tenant.sdl.scalars import BadScalar, unsigned
from tenant.sdl.tree import MAPPING, SEQUENCE, Node
from tenant.sdl.values import Field, Values

VENDORS: Final = ("nvidia", "amd", "intel")
CLASSES: Final = ("default", "beta1", "beta2", "beta3", "ram")
INTERFACES: Final = ("pcie", "sxm")
_ATTRIBUTE_KEY: Final = re.compile(r"[a-zA-Z][\w/.\-]{1,126}[\w*]?", re.ASCII)
_DENOM: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9/:._-]{2,127}")
_UNIFIED: Final = {"true": "true", "on": "true", "yes": "true", "false": "false", "off": "false", "no": "false"}
_SIZE: Final = "a size: a number with k, M, G, T, P, E (thousands) or Ki, Mi, Gi, Ti, Pi, Ei (1024s), or bare bytes"
_TWO_DIGITS: Final = re.compile(r"([0-9.]+) *([kKmMgGtTpPeE])[iI]?[bB]?")


def _size_fix(text: str) -> str:
    found = _TWO_DIGITS.fullmatch(text)
    if not found:
        return "size: 512Mi"
    letter = found[2].upper()
    return f"size: {found[1]}{letter}i"


def _bytes(v: Values, node: Node, path: Path) -> int:
    return v.raw(node, path, lambda t: size(t, SUFFIXES), 0, _SIZE, _size_fix(v.walk.follow(node).value))


def _cpu_units(v: Values, node: Node, path: Path) -> int:
    return v.raw(node, path, milli_cpu, 0, "processors: 0.5 or 500m", "units: 500m")


def _cpu_attributes(v: Values, node: Node, path: Path) -> tuple[tuple[str, str], ...]:
    if not v.present(node):
        return ()
    out = []
    for name, key, value in v.pairs(node, path):
        if name != "arch":
            v.report.error(
                "unknown_key",
                (*path, name),
                key.at,
                f"a cpu has no attribute {name!r}",
                found=name,
                allowed="arch",
                near=nearest(name, ("arch",)),
                fix="arch: amd64",
            )
            continue
        out.append((name, v.text(value, (*path, name))))
    return tuple(out)


def _cpu(v: Values, node: Node, path: Path) -> Cpu | None:
    got = v.fields(node, path, {"units": _cpu_units, "attributes": _cpu_attributes})
    return None if got is None else Cpu(at=node.at, milli=got.get("units", 0), attributes=got.get("attributes", ()))


def _memory(v: Values, node: Node, path: Path) -> Memory | None:
    got = v.fields(node, path, {"size": _bytes})
    return None if got is None else Memory(at=node.at, size=got.get("size", 0))


def _interface(v: Values, node: Node, path: Path) -> str:
    def read(text: str) -> str:
        if text not in INTERFACES:
            raise BadScalar("no such interface")
        return text

    return v.raw(node, path, read, "", "pcie or sxm", "interface: sxm")


def _gpu_ram(v: Values, node: Node, path: Path) -> int | None:
    read: Callable[[str], int | None] = lambda t: size(t, BINARY_SUFFIXES)  # noqa: E731  one line, one use
    return v.raw(node, path, read, None, "a size with Ki, Mi, Gi, Ti, Pi or Ei", "ram: 80Gi")


_GPU_MODEL: Final[dict[str, Field]] = {"model": Values.text, "ram": _gpu_ram, "interface": _interface}


def _vendor(v: Values, vendor: str, node: Node, path: Path) -> list[GpuChoice]:
    items = v.items(node, path, "a list of models, or nothing for any", "write - model: h100") or []
    out: list[GpuChoice] = []
    for index, item in items:
        got = v.fields(item, (*path, index), _GPU_MODEL) or {}
        ram = got.get("ram")
        choice = GpuChoice(vendor, got.get("model", ""), ram or 0, ram is not None, got.get("interface", ""))
        if not _ATTRIBUTE_KEY.fullmatch(choice.key):
            v.report.error(
                "bad_model",
                (*path, index, "model"),
                item.at,
                f"{choice.model[:60]!r} is no model name",
                found=choice.model,
                allowed="letters, digits, . - _ /",
                fix="model: rtx4090",
            )
        elif choice.key in {c.key for c in out}:
            v.report.error(
                "duplicate_model",
                (*path, index),
                item.at,
                f"{choice.key} is asked twice",
                found=choice.key,
                fix="keep one of them",
            )
        out.append(choice)
    return out or [GpuChoice(vendor, "*")]


def _vendors(v: Values, node: Node, path: Path) -> list[GpuChoice] | None:
    real = v.walk.follow(node)
    if real.null:
        return None
    if real.kind != MAPPING:
        v.wrong(real, path, "a mapping of vendors", "nvidia:\n  - model: h100")
        return []
    out: list[GpuChoice] = []
    for name, key, value in v.walk.entries(real, path):
        if name not in VENDORS:
            v.report.error(
                "unknown_vendor",
                (*path, name),
                key.at,
                f"there is no GPU vendor {name!r}",
                found=name,
                allowed=", ".join(VENDORS),
                near=nearest(name, VENDORS),
                fix="nvidia:\n  - model: h100",
            )
            continue
        out += _vendor(v, name, value, (*path, name))
    return out or [GpuChoice("nvidia", "*")]


def _gpu_attributes(v: Values, node: Node, path: Path) -> tuple[GpuChoice, ...]:
    if not v.present(node):
        return ()
    choices: list[GpuChoice] | None = None
    for name, key, value in v.pairs(node, path):
        if name == "vendor":
            choices = _vendors(v, value, (*path, name))
        else:
            v.report.error(
                "unknown_key",
                (*path, name),
                key.at,
                f"a GPU has no attribute {name!r}",
                found=name,
                allowed="vendor",
                near=nearest(name, ("vendor",)),
                fix="vendor:\n  nvidia:",
            )
    if choices is None:
        v.report.error(
            "no_vendor",
            path,
            node.at,
            "GPU attributes must name a vendor",
            allowed=", ".join(VENDORS),
            fix="vendor:\n  nvidia:",
        )
        return ()
    return tuple(sorted(choices, key=lambda c: c.key))


def _gpu(v: Values, node: Node, path: Path) -> Gpu | None:
    if not v.present(node):
        return None
    units = 0
    choices: tuple[GpuChoice, ...] = ()
    at_units, asked = node, False
    for name, key, value in v.pairs(node, path):
        if name == "units":
            at_units = value
            units = v.raw(value, (*path, name), lambda t: unsigned(t, 64), units, "a whole number of GPUs", "units: 1")
        elif name == "attributes":
            asked = v.present(value)
            choices = _gpu_attributes(v, value, (*path, name))
        else:
            v.report.error(
                "unknown_key",
                (*path, name),
                key.at,
                f"a GPU has no field {name!r}",
                found=name,
                allowed="units, attributes",
                near=nearest(name, ("units", "attributes")),
                fix="units: 1",
            )
    if units and not asked:
        v.report.error(
            "gpu_attributes",
            (*path, "attributes"),
            at_units.at,
            "GPUs are asked but not which",
            allowed="attributes.vendor",
            fix="attributes:\n  vendor:\n    nvidia:",
        )
    return Gpu(at=node.at, units=units, choices=choices)


def _volume_attributes(v: Values, node: Node, path: Path) -> tuple[tuple[str, str], ...]:
    if not v.present(node):
        return ()
    real = v.walk.follow(node)
    got = v.table(node, path, v.text)
    if real.kind != MAPPING:
        return ()
    got.setdefault("persistent", "false")
    persistent, kind = got["persistent"], got.get("class", "")

    def fail(code: str, where: str, message: str, allowed: str, fix: str) -> None:
        v.report.error(code, (*path, where), real.at, message, found=got.get(where, ""), allowed=allowed, fix=fix)

    if not kind and persistent == "true":
        got["class"] = "default"
    elif kind == "ram" and persistent != "false":
        fail("ram_persistent", "persistent", "memory-backed storage cannot be persistent", "false", "persistent: false")
    elif kind and kind != "ram" and persistent == "false":
        fail("class_ephemeral", "class", f"class {kind!r} is for persistent volumes", "persistent: true", "persistent: true")
    for name in sorted(got):
        if name not in ("persistent", "class"):
            near = nearest(name, ("persistent", "class"))
            v.report.error(
                "unknown_key",
                (*path, name),
                real.at,
                f"storage has no attribute {name!r}",
                found=name,
                allowed="persistent, class",
                near=near,
                fix=f"{near}: …" if near else "take it out",
            )
    if persistent not in _UNIFIED:
        fail("bad_flag", "persistent", "persistent must be a truth value", "true, false, yes, no, on, off", "persistent: true")
    if "class" in got and got["class"] not in CLASSES:
        fail("bad_class", "class", f"there is no storage class {kind[:40]!r}", ", ".join(CLASSES), "class: beta3")
    got["persistent"] = _UNIFIED.get(persistent, "false")
    return tuple(sorted(got.items()))


_VOLUME: Final[dict[str, Field]] = {"name": Values.text, "size": _bytes, "attributes": _volume_attributes}


def _volume(v: Values, node: Node, path: Path, name: str) -> Volume:
    got = v.fields(node, path, _VOLUME) or {}
    return Volume(
        at=node.at, name=name or got.get("name") or "default", size=got.get("size", 0), attributes=got.get("attributes", ())
    )


def _before(a: Volume, b: Volume) -> bool:
    # The reference's comparison, which is no order where two equal volumes are both ephemeral: the later goes first.
    if a.size != b.size:
        return a.size < b.size
    one, two = a.attribute("persistent"), b.attribute("persistent")
    if (not one and two) or (one and two and one < two):
        return True
    if one and not two:
        return False
    if not a.persistent:
        return True
    return b.persistent and a.name < b.name


def _sorted(volumes: list[Volume]) -> tuple[Volume, ...]:
    for i in range(1, len(volumes)):
        j = i
        while j > 0 and _before(volumes[j], volumes[j - 1]):
            volumes[j], volumes[j - 1] = volumes[j - 1], volumes[j]
            j -= 1
    return tuple(volumes)


def _storage(v: Values, node: Node, path: Path) -> tuple[Volume, ...]:
    node = v.walk.follow(node)
    if node.null:
        return ()
    if node.kind == MAPPING:
        return (_volume(v, node, path, "default"),)
    if node.kind != SEQUENCE:
        return ()
    if len(node.content) > 256:
        v.report.error("too_many_volumes", path, node.at, "more than 256 volumes", allowed="at most 16", fix="use fewer volumes")
        return ()
    volumes: list[Volume] = []
    names: set[str] = set()
    for index, item in enumerate(node.content):
        volume = _volume(v, item, (*path, index), "")
        if volume.name in names:
            v.report.error(
                "duplicate_volume",
                (*path, index, "name"),
                item.at,
                f"two volumes are named {volume.name!r}",
                found=volume.name,
                fix=f"name: {volume.name}2",
            )
        names.add(volume.name)
        volumes.append(volume)
    return _sorted(volumes)


_RESOURCES: Final[dict[str, Field]] = {"cpu": _cpu, "gpu": _gpu, "memory": _memory, "storage": _storage}


def _resources(v: Values, node: Node, path: Path) -> dict[str, Any] | None:
    return v.fields(node, path, _RESOURCES)


def compute(v: Values, node: Node, path: Path) -> Compute:
    """One compute profile."""
    got = v.fields(node, path, {"resources": _resources}) or {}
    return Compute(at=node.at, **(got.get("resources") or {}))


def _price(v: Values, node: Node, path: Path) -> Price | None:
    if not v.present(node):
        return None
    got = v.fields(node, path, {"amount": Values.text, "denom": Values.text})
    if got is None:
        return None
    text, denom = got.get("amount", ""), got.get("denom", "")
    try:
        amount = decimal18(text)
    except BadScalar:
        amount = Decimal(0)
        v.report.error(
            "bad_amount",
            (*path, "amount"),
            node.at,
            "the price is no decimal number",
            found=text,
            allowed="a number above 0 with at most 18 decimals",
            fix="amount: 1000",
        )
    else:
        if amount <= 0:
            v.report.error(
                "price_not_positive",
                (*path, "amount"),
                node.at,
                "the price must be above 0",
                found=text,
                allowed="above 0, at most 10000000",
                fix="amount: 1000",
            )
    if not _DENOM.fullmatch(denom):
        v.report.error(
            "bad_denom",
            (*path, "denom"),
            node.at,
            f"{denom[:40]!r} is no denomination",
            found=denom,
            allowed="uact",
            fix="denom: uact",
        )
    return Price(at=node.at, amount=amount, denom=denom)


def _pricing(v: Values, node: Node, path: Path) -> dict[str, Price | None]:
    return v.table(node, path, lambda n, p: _price(v, n, p))


def _placement_attributes(v: Values, node: Node, path: Path) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(v.table(node, path, v.text).items()))


def _signed_by(v: Values, node: Node, path: Path) -> dict[str, Any]:
    return v.fields(node, path, {"allOf": Values.texts, "anyOf": Values.texts}) or {}


def _duration_ms(text: str) -> int:
    """A duration in milliseconds, rounded up. Raises BadScalar."""
    found = duration_ns(text)
    if found < 0:
        raise BadScalar("below 0")
    return -(-found // 1_000_000)


def _term(v: Values, node: Node, path: Path) -> int | None:
    read: Callable[[str], int | None] = _duration_ms
    return v.raw(node, path, read, None, "a duration: 90m or 24h", f"{path[-1]}: 24h")


_OURS: Final[dict[str, Field]] = {"needs": _term, "accepts": _term}


def _ours(v: Values, node: Node, path: Path) -> dict[str, Any]:
    """What is asked of this market alone. The reference ignores the section, so nothing in it may be misspelt in silence."""
    out: dict[str, Any] = {}
    node = v.walk.follow(node)
    if node.null:
        return out
    if node.kind != MAPPING:
        v.wrong(node, path, "a mapping", "write needs: 24h, accepts: 1h")
        return out
    for name, key, value in v.walk.entries(node, path):
        if name in _OURS:
            out[name] = _OURS[name](v, value, (*path, name))
            continue
        v.report.error(
            "unknown_key",
            (*path, name),
            key.at,
            f"this market knows no {name!r} here",
            found=name,
            allowed=", ".join(_OURS),
            near=nearest(name, tuple(_OURS)),
            fix="needs: 24h",
        )
    return out


_PLACEMENT: Final[dict[str, Field]] = {
    "attributes": _placement_attributes,
    "signedBy": _signed_by,
    "pricing": _pricing,
    "gpubid": _ours,
}


def placement(v: Values, node: Node, path: Path) -> Placement:
    """One placement."""
    got = v.fields(node, path, _PLACEMENT) or {}
    signed = got.get("signedBy") or {}
    ours = got.get("gpubid") or {}
    return Placement(
        at=node.at,
        attributes=got.get("attributes", ()),
        all_of=signed.get("allOf"),
        any_of=signed.get("anyOf"),
        pricing=got.get("pricing", {}),
        needs_ms=ours.get("needs") or 0,
        accepts_ms=ours.get("accepts"),
    )
