"""The table of models and the reading of drivers' names."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.protocol.gpu import BY_PCI, MODELS, by_name, by_pci, kind_of, mig_slug, slug_of
from marketplace.protocol.resources import Device

AKASH = Path(__file__).resolve().parents[4] / "shared/vectors/gpu/akash-gpus.json"

NAMES = [
    ("NVIDIA A100-SXM4-80GB", "a100", "sxm4"),
    ("NVIDIA A100-SXM4-40GB", "a100", "sxm4"),
    ("NVIDIA A100-SXM-64GB", "a100", "sxm"),
    ("NVIDIA A100-PCIE-40GB", "a100", "pcie"),
    ("NVIDIA A100 80GB PCIe", "a100", "pcie"),
    ("A100-SXM4-40GB", "a100", "sxm4"),
    ("NVIDIA A800-SXM4-80GB", "a800", "sxm4"),
    ("NVIDIA A800 80GB PCIe", "a800", "pcie"),
    ("NVIDIA H100 80GB HBM3", "h100", "sxm5"),
    ("NVIDIA H100 PCIe", "h100", "pcie"),
    ("NVIDIA H100 NVL", "h100nvl", "pcie"),
    ("NVIDIA H800", "h800", "sxm5"),
    ("NVIDIA H200", "h200", "sxm5"),
    ("NVIDIA H200 NVL", "h200nvl", "pcie"),
    ("NVIDIA H20", "h20", "sxm5"),
    ("NVIDIA H20-3e", "h203e", "sxm5"),
    ("NVIDIA GH200 480GB", "gh200", "sxm5"),
    ("NVIDIA GB200", "gb200", "sxm6"),
    ("NVIDIA B200", "b200", "sxm6"),
    ("NVIDIA B300 SXM6 AC", "b300", "sxm6"),
    ("NVIDIA GB10", "gb10", "soc"),
    ("NVIDIA A40", "a40", "pcie"),
    ("NVIDIA A30", "a30", "pcie"),
    ("NVIDIA A16", "a16", "pcie"),
    ("NVIDIA A10", "a10", "pcie"),
    ("NVIDIA A10G", "a10g", "pcie"),
    ("NVIDIA A2", "a2", "pcie"),
    ("NVIDIA L40S", "l40s", "pcie"),
    ("NVIDIA L40", "l40", "pcie"),
    ("NVIDIA L4", "l4", "pcie"),
    ("Tesla T4", "t4", "pcie"),
    ("Tesla V100-SXM2-16GB", "v100", "sxm2"),
    ("Tesla V100-SXM3-32GB", "v100", "sxm3"),
    ("Tesla V100-PCIE-32GB", "v100", "pcie"),
    ("Tesla V100S-PCIE-32GB", "v100s", "pcie"),
    ("Tesla P100-PCIE-16GB", "p100", "pcie"),
    ("Tesla P100-SXM2-16GB", "p100", "sxm2"),
    ("Tesla P40", "p40", "pcie"),
    ("Tesla P4", "p4", "pcie"),
    ("Tesla K80", "k80", "pcie"),
    ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "pro6000se", "pcie"),
    ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "pro6000we", "pcie"),
    ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "pro6000mq", "pcie"),
    ("NVIDIA RTX PRO 5000 Blackwell", "pro5000", "pcie"),
    ("NVIDIA RTX 6000 Ada Generation", "rtx6000ada", "pcie"),
    ("NVIDIA RTX 5000 Ada Generation", "rtx5000ada", "pcie"),
    ("NVIDIA RTX 4000 SFF Ada Generation", "rtx4000sada", "pcie"),
    ("NVIDIA RTX 4000 Ada Generation", "rtx4000ada", "pcie"),
    ("NVIDIA RTX 2000E Ada Generation", "rtx2000eada", "pcie"),
    ("NVIDIA RTX A6000", "rtxa6000", "pcie"),
    ("NVIDIA RTX A5000", "a5000", "pcie"),
    ("NVIDIA RTX A4000", "rtxa4000", "pcie"),
    ("Quadro RTX 6000", "rtx6000", "pcie"),
    ("Quadro RTX 8000", "rtx8000", "pcie"),
    ("Quadro P5000", "p5000", "pcie"),
    ("Quadro M4000", "m4000", "pcie"),
    ("NVIDIA TITAN RTX", "titanrtx", "pcie"),
    ("NVIDIA TITAN Xp", "titanxp", "pcie"),
    ("NVIDIA GeForce RTX 5090", "rtx5090", "pcie"),
    ("NVIDIA GeForce RTX 5090 D", "rtx5090d", "pcie"),
    ("NVIDIA GeForce RTX 5090 Laptop GPU", "rtx5090m", "pcie"),
    ("NVIDIA GeForce RTX 4090", "rtx4090", "pcie"),
    ("NVIDIA GeForce RTX 4090 D", "rtx4090d", "pcie"),
    ("NVIDIA GeForce RTX 4090 Laptop GPU", "rtx4090m", "pcie"),
    ("NVIDIA GeForce RTX 4080 SUPER", "rtx4080s", "pcie"),
    ("NVIDIA GeForce RTX 4070 Ti SUPER", "rtx4070tis", "pcie"),
    ("NVIDIA GeForce RTX 4060 Ti", "rtx4060ti", "pcie"),
    ("NVIDIA GeForce RTX 3090", "rtx3090", "pcie"),
    ("NVIDIA GeForce RTX 3060 Laptop GPU", "rtx3060m", "pcie"),
    ("GeForce RTX 2080 Ti", "rtx2080ti", "pcie"),
    ("GeForce GTX 1080 Ti", "gtx1080ti", "pcie"),
    ("NVIDIA GeForce GT 1030", "gt1030", "pcie"),
    ("NVIDIA GeForce MX150", "mx150", "pcie"),
]

NO_CARDS = [
    ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "mig"),
    ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", "mig"),
    ("GRID A100-10C", "vgpu"),
    ("GRID T4-16Q", "vgpu"),
    ("NVIDIA A40-48Q", "vgpu"),
    ("NVIDIA A100-4-20C", "vgpu"),
    ("NVIDIA RTX6000-Ada-24Q", "vgpu"),
    ("NVIDIA Graphics Device", "card"),
    ("NVIDIA A100X", "card"),
    ("NVIDIA GeForce RTX 3050 Laptop GPU", "laptop"),
    ("NVIDIA T4 SXM4", "card"),
    ("", "card"),
]


@pytest.mark.parametrize(("name", "slug", "interface"), NAMES, ids=[row[0] for row in NAMES])
def test_a_drivers_name_gives_its_model(name: str, slug: str, interface: str) -> None:
    """Each name that drivers use gives its slug and interface, and no neighbour's."""
    facts = by_name(name)
    assert facts is not None
    assert (facts.slug, facts.interface) == (slug, interface)


@pytest.mark.parametrize(("name", "kind"), NO_CARDS, ids=[row[0] or "empty" for row in NO_CARDS])
def test_what_is_no_known_card_is_not_taken_for_one(name: str, kind: str) -> None:
    """Slices, shares, unknown parts and impossible interfaces give no model; their own slug is no known one."""
    assert by_name(name) is None
    assert kind_of(name) == kind
    assert slug_of(name) not in MODELS


def test_a_slice_has_a_slug_of_its_own() -> None:
    """A MIG slice is sold under its profile, never as the card."""
    assert mig_slug("NVIDIA A100-SXM4-40GB MIG 1g.5gb") == "a100mig1g5gb"
    assert mig_slug("NVIDIA H100 80GB HBM3 MIG 3g.40gb") == "h100mig3g40gb"
    assert mig_slug("NVIDIA A100-SXM4-40GB") is None
    assert mig_slug("Thing MIG 1g.5gb") is None


@pytest.mark.parametrize(
    ("slug", "mib", "nominal"),
    [
        ("h100", 81559, 81920), ("a100", 40536, 40960), ("t4", 15109, 16384), ("l40s", 46068, 49152), ("rtx4090", 24564, 24576),
        ("h200", 143771, 144384), ("b200", 183359, 184320), ("h100nvl", 95830, 96256), ("gb10", 122_000, 122_000),
        ("gtx1060", 6144, 6144), ("gtx1060", 3072, 3072), ("rtx4090", 8192, None), ("h100", 24564, None), ("a10", 49152, None),
    ],
)  # fmt: skip
def test_memory_is_checked_against_the_model(slug: str, mib: int, nominal: int | None) -> None:
    """A reading near a nominal size gives that size; one near none gives none."""
    assert MODELS[slug].nominal_mib(mib) == nominal


def test_pci_ids_are_read_in_every_spelling() -> None:
    """A number, hex with and without prefix, in either case, name the same card."""
    assert by_pci(0x2330) == by_pci("2330") == by_pci("0x2330")
    assert by_pci("20B2") == by_pci(0x20B2)
    assert by_pci("ffff") is None


def test_every_slug_can_stand_on_the_ledger() -> None:
    """Each model makes a valid device, and there are enough of them."""
    assert len(MODELS) >= 75
    for facts in MODELS.values():
        for interface in facts.interfaces:
            device = {"id": "0" * 64, "model": facts.slug, "vendor": "nvidia", "vram_mib": 1, "interface": interface}
            assert msgspec.convert(device, Device).model == facts.slug
    assert all(BY_PCI[i].slug in MODELS for i in BY_PCI)


@given(st.text(max_size=60))
def test_any_name_is_read(name: str) -> None:
    """No name makes the reader fail; what it finds is in the table, what it makes up is not."""
    facts = by_name(name)
    assert facts is None or facts.slug in MODELS
    assert slug_of(name) not in MODELS
    assert slug_of(name).isascii()
    assert 1 <= len(slug_of(name)) <= 32


@pytest.mark.skipif(not AKASH.exists(), reason="the vectors are not beside this checkout")
def test_every_akash_model_is_known() -> None:
    """Every NVIDIA id of Akash's list gives Akash's name and interface, and a size that fits."""
    devices = json.loads(AKASH.read_text())["10de"]["devices"]
    for pci, entry in devices.items():
        facts = by_pci(pci)
        assert facts is not None, pci
        assert facts.slug == entry["name"], pci
        assert facts.interface == entry["interface"].lower(), pci
        assert int(entry["memory_size"].removesuffix("Gi")) in MODELS[facts.slug].vram_gib, pci
