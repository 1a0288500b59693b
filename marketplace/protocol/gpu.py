"""What a GPU is called: from a PCI device id or from the name its driver gives, to the slug that orders ask for.

A slice (MIG), a share (vGPU) and a laptop part are never taken for the card they are named after.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from marketplace.protocol.gpu_models import CARDS

VENDOR: Final = "nvidia"


class GpuFacts(msgspec.Struct, frozen=True):
    """A model: its slug, nominal sizes in GiB (0: shared with the processor) and interfaces, the usual one first."""

    slug: str
    vram_gib: tuple[int, ...]
    interfaces: tuple[str, ...]

    @property
    def interface(self) -> str:
        """The usual interface: pcie, sxm2 … sxm6, soc."""
        return self.interfaces[0]

    def nominal_mib(self, mib: int) -> int | None:
        """The nominal size in MiB that a driver's reading stands for; None where it fits none (a changed BIOS lies).

        Drivers show a little less than is printed on the box: ECC takes a sixteenth on GDDR, the driver its share.
        """
        fitting = [gib * 1024 for gib in self.vram_gib if gib * 1024 * 90 <= mib * 100 <= gib * 1024 * 102]
        if 0 in self.vram_gib:
            return mib
        return min(fitting, key=lambda nominal: (abs(nominal - mib), nominal)) if fitting else None


def _read_cards(table: str) -> tuple[dict[str, GpuFacts], dict[str, GpuFacts]]:
    models: dict[str, GpuFacts] = {}
    ids: dict[str, GpuFacts] = {}
    for line in table.split("\n"):
        if not line.strip():
            continue
        slug, sizes, interface, *pci = line.split()
        card = GpuFacts(slug, tuple(int(size) for size in sizes.split(",")), (interface,))
        known = models.get(slug, GpuFacts(slug, (), ()))
        models[slug] = GpuFacts(
            slug,
            known.vram_gib + tuple(size for size in card.vram_gib if size not in known.vram_gib),
            known.interfaces + tuple(i for i in card.interfaces if i not in known.interfaces),
        )
        for device in pci:
            assert device not in ids, f"PCI id {device} stands twice"
            ids[device] = card
    return models, ids


_MODELS, _IDS = _read_cards(CARDS)

MODELS: Final[Mapping[str, GpuFacts]] = MappingProxyType(_MODELS)
"""Every known model by slug."""

BY_PCI: Final[Mapping[str, GpuFacts]] = MappingProxyType(_IDS)
"""Kinds of card by PCI device id, four lower-case hex digits."""

_VGPU = re.compile(r"\bgrid\b|\bvgpu\b|-\d{1,3}[abcq]\b")
_MIG = re.compile(r"\bmig (?P<profile>\d+g\.\d+gb)")
_LAPTOP = re.compile(r"\blaptop\b|\bmobile\b|\bmax-q design\b|\bwith max-q\b")
_PRO = re.compile(r"\brtx pro (?P<number>\d{4})\b")
_ADA = re.compile(r"\brtx (?P<number>\d{4})(?P<extra>e| sff)? ada\b")
_RTX_A = re.compile(r"\brtx a(?P<number>\d{4})\b")
_QUADRO = re.compile(r"\bquadro (?P<kind>rtx |p|m)(?P<number>\d{4})\b")
_CONSUMER = re.compile(r"\b(?P<family>rtx|gtx|gt|mx) ?(?P<number>\d{3,4})(?P<ti> ?ti)?(?P<super> super)?(?P<d> ?d)?\b")
_TITAN = re.compile(r"\btitan (?P<kind>rtx|v|xp)\b")
_CENTRE = re.compile(
    r"\b(gb300|gb200|gb10|gh200|b300|b200|h200|h100|h800|h20-3e|h20|a100|a800|a40|a30|a16|a10g|a10|a2"
    r"|l40s|l40|l20|l4|l2|t4|v100s|v100|p100|p40|p4|m40|m60|k80)\b"
)
_INTERFACE = re.compile(r"\b(sxm\d?|pcie)")


def kind_of(name: str) -> str:
    """What a driver's name speaks of: `card`, `laptop`, `mig` (a slice of a card) or `vgpu` (a share in a guest)."""
    text = name.lower()
    if _MIG.search(text):
        return "mig"
    if _VGPU.search(text):
        return "vgpu"
    return "laptop" if _LAPTOP.search(text) else "card"


def by_pci(device_id: str | int) -> GpuFacts | None:
    """The kind of card with this PCI device id (`2330`, `0x2330` or the number); None where it is not known."""
    text = f"{device_id:04x}" if isinstance(device_id, int) else device_id.lower().removeprefix("0x").zfill(4)
    return BY_PCI.get(text)


def by_name(name: str) -> GpuFacts | None:
    """The model that a driver's name speaks of, its interface first where the name tells it; None: none that is known.

    A slice or a share gives None: it is no card.
    """
    if kind_of(name) in ("mig", "vgpu"):
        return None
    text = " ".join(re.sub(r"[()_]|\bnvidia\b|\btesla\b|\bgeforce\b|\(r\)", " ", name.lower()).split())
    facts = MODELS.get(_slug(text))
    told = _INTERFACE.search(text)
    if facts is None or told is None:
        return facts
    if not any(told[1] in (known, known.rstrip("0123456789")) for known in facts.interfaces):
        return None
    exact = tuple(i for i in facts.interfaces if i == told[1]) or tuple(i for i in facts.interfaces if i.startswith(told[1]))
    return GpuFacts(facts.slug, facts.vram_gib, exact)


def slug_of(name: str) -> str:
    """A slug made of the name itself, for a card no table knows: never equal to a known model's."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower().replace("nvidia", "").replace("geforce", ""))[:24] or "unknown"
    return plain if plain not in MODELS else f"{plain}unverified"[:32]


def mig_slug(name: str) -> str | None:
    """The slug of a slice from its driver's name: `a100mig1g5gb`; None where it is no slice of a known card."""
    profile = _MIG.search(name.lower())
    if profile is None:
        return None
    parent = by_name(name[: profile.start()])
    return None if parent is None else f"{parent.slug}mig{profile['profile'].replace('.', '')}"


def _slug(text: str) -> str:
    """The slug that a cleaned, lower-case name stands for; empty where no rule fits. Order matters: narrow rules first."""
    laptop = "m" if _LAPTOP.search(text) else ""
    if found := _PRO.search(text):
        return f"pro{found['number']}{_edition(text)}{laptop}"
    if found := _ADA.search(text):
        extra = {"e": "e", " sff": "s"}.get(found["extra"] or "", "")
        return f"rtx{found['number']}{extra}ada{laptop}"
    if found := _RTX_A.search(text):
        return f"{'a' if found['number'] == '5000' and not laptop else 'rtxa'}{found['number']}{laptop}"
    if found := _QUADRO.search(text):
        return f"{found['kind'].strip()}{found['number']}{laptop}"
    if found := _TITAN.search(text):
        return f"titan{found['kind']}"
    if found := _CONSUMER.search(text):
        marks = ("ti" if found["ti"] else "") + ("s" if found["super"] else "") + ("d" if found["d"] else "")
        return f"{found['family']}{found['number']}{marks}{laptop}"
    if found := _CENTRE.search(text):
        return found[1].replace("-", "") + ("nvl" if re.search(r"\bnvl\b", text) else "")
    return ""


def _edition(text: str) -> str:
    """Which RTX PRO 6000 it is; the smaller ones have one edition."""
    if "6000" not in text:
        return ""
    if "max-q" in text:
        return "mq"
    return "se" if "server" in text else "we"
