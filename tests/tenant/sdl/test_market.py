"""From SDL to what is asked of this market."""

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from marketplace.protocol.resources import GpuModel, Volume
from tenant.sdl import LoweringRefused, SdlRefused, parse
from tenant.sdl.explain import facts, words
from tests.tenant.sdl.samples import ADDRESS, GPU, TWO, WEB

HOUR = 3_600_000
AUDITOR = "gpu1" + "q" * 38


def test_web() -> None:
    """A plain service becomes one unit with its replicas, port and container space; the limit is floored."""
    (group,) = parse(WEB).market_groups()
    assert group.name == "anywhere"
    assert group.limit_per_hour == str(2 * 1000 * 429_909 // 730)
    (unit,) = group.resources
    assert (unit.count, unit.cpu_milli, unit.memory, unit.gpu, unit.ports) == (2, 500, 512 * 2**20, None, 1)
    assert unit.volumes == (Volume(size=2**30),)
    assert parse(WEB).denomination == "ucredit"


def test_gpu() -> None:
    """GPU kinds, storage classes and placement attributes are asked."""
    (group,) = parse(GPU).market_groups()
    (unit,) = group.resources
    assert unit.gpu is not None
    assert unit.gpu.count == 2
    h100 = GpuModel(vendor="nvidia", model="h100", ram_mib=80 * 1024, interface="sxm")
    assert unit.gpu.models == (GpuModel(vendor="nvidia", model="a100"), h100)
    assert [(v.storage_class, v.size) for v in unit.volumes] == [
        ("ram", 8 * 2**30),
        ("ephemeral", 20 * 2**30),
        ("beta3", 100 * 2**30),
    ]
    assert group.attributes == {"region": "eu-west"}
    assert group.limit_per_hour == str(int(Fraction("120000.5") * 429_909 // 730))


def test_services_are_units() -> None:
    """Services that share a profile are units of their own, with their own ports; their prices add up."""
    (group,) = parse(TWO).market_groups()
    assert [(u.count, u.ports) for u in group.resources] == [(1, 1), (1, 0)]
    assert group.limit_per_hour == str(int(Fraction("24.5") * 429_909 // 730))


@given(st.decimals(min_value="0.000000000000000001", max_value=10_000_000, places=18), st.integers(1, 256))
def test_limit_is_exact(amount: object, count: int) -> None:
    """The limit is the exact product, floored, whatever the decimals."""
    text = WEB.replace("amount: 1000", f'amount: "{amount:f}"').replace("count: 2", f"count: {count}")
    (group,) = parse(text).market_groups()
    assert int(group.limit_per_hour) == Fraction(str(amount)) * count * 429_909 // 730


def test_auditors() -> None:
    """Auditors of this market are asked; others cannot attest here."""
    text = WEB.replace("      pricing:", f"      signedBy:\n        anyOf: [{AUDITOR}]\n      pricing:")
    (group,) = parse(text).market_groups()
    assert group.signed_by.any_of == (AUDITOR,)
    with pytest.raises(LoweringRefused) as caught:
        parse(text.replace("gpu1", "akash1")).market_groups()
    assert caught.value.code == "foreign_auditor"
    assert "--ignore-auditors" in caught.value.fix


def test_auditors_can_be_left_out() -> None:
    """Where the tenant says so, auditors are not asked for, and nothing else changes."""
    signed = WEB.replace("      pricing:", "      signedBy:\n        anyOf: [akash1xyz]\n      pricing:")
    assert parse(signed).market_groups(ignore_auditors=True) == parse(WEB).market_groups()


def test_any_model_and_vendors() -> None:
    """An empty list is any model of that vendor; AMD and Intel are asked like Nvidia."""
    start = GPU.index("              nvidia:")
    end = GPU.index("        storage:\n          - size")
    text = GPU[:start] + "              amd:\n              intel: [{model: max1550}]\n" + GPU[end:]
    (group,) = parse(text).market_groups()
    assert group.resources[0].gpu is not None
    assert group.resources[0].gpu.models == (GpuModel(vendor="amd"), GpuModel(vendor="intel", model="max1550"))


@pytest.mark.parametrize(
    ("source", "old", "new", "code"),
    [
        (ADDRESS, "", "", "no_ip_leases"),
        (WEB, "denom: uact", "denom: ibc/170C67", "foreign_denomination"),
        (WEB, "count: 2", "count: 257", "market_limit"),
        (GPU, "model: a100", "model: a100-80gb", "unknown_gpu_model"),
    ],
)
def test_what_this_market_cannot_serve(source: str, old: str, new: str, code: str) -> None:
    """A good SDL that this market cannot serve is refused when it is lowered, with what to do."""
    sdl = parse(source.replace(old, new) if old else source)
    with pytest.raises(LoweringRefused) as caught:
        sdl.market_groups()
    assert caught.value.code == code
    assert caught.value.fix


def test_other_denominations_pass() -> None:
    """A denomination in the market's own form passes through."""
    assert parse(WEB.replace("denom: uact", "denom: ueuro")).denomination == "ueuro"


def test_sdl_is_frozen() -> None:
    """What parse gives does not change."""
    sdl = parse(WEB)
    with pytest.raises(AttributeError):
        sdl.groups = []
    with pytest.raises(AttributeError):
        sdl.document.version = "3"  # type: ignore[misc]


def with_terms(terms: str) -> str:
    """The plain file with an addition of ours below its placement."""
    assert "      pricing:" in WEB
    return WEB.replace("      pricing:", f"      gpubid: {terms}\n      pricing:")


@pytest.mark.parametrize(
    ("terms", "duration_ms", "bound_ms"),
    [
        ("{needs: 24h, accepts: 90m}", 24 * HOUR, HOUR + HOUR // 2),
        ("{needs: 24h}", 24 * HOUR, 0),
        ("{needs: 24h, accepts: 24h}", 24 * HOUR, UNSET),
        ("{accepts: 1h}", 0, HOUR),
        ("{accepts: 0s}", 0, UNSET),
        ("{needs: , accepts: }", 0, UNSET),
        ("", 0, UNSET),
    ],
)
def test_terms_are_asked_of_the_market_alone(terms: str, duration_ms: int, bound_ms: object) -> None:
    """What a placement needs and accepts reaches the order; groups, manifest and hash are those of the plain file."""
    plain, ours = parse(WEB), parse(with_terms(terms), strict=bool(terms) and "needs: ," not in terms)
    (group,) = ours.market_groups()
    assert (group.duration_ms, group.bound_ms) == (duration_ms, bound_ms)
    assert (ours.groups, ours.canonical_manifest, ours.hash) == (plain.groups, plain.canonical_manifest, plain.hash)
    assert msgspec.structs.replace(group, duration_ms=0, bound_ms=UNSET) == plain.market_groups()[0]


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ("{needs: a day}", "bad_quantity"),
        ("{accepts: -1h}", "bad_quantity"),
        ("{neads: 24h}", "unknown_key"),
        ("24h", "wrong_type"),
    ],
)
def test_a_misspelt_term_is_refused(terms: str, code: str) -> None:
    """Nothing in our own section is ignored: it would be a promise that nobody keeps."""
    with pytest.raises(SdlRefused) as refused:
        parse(with_terms(terms))
    assert [problem.code for problem in refused.value.errors] == [code]


def test_terms_in_words() -> None:
    """`explain` says what a term means."""
    (group,) = facts(parse(with_terms("{needs: 24h, accepts: 90m}")))["groups"]
    said = " ".join(words(group))
    assert "A lease must be allowed to last 24h." in said
    assert "A shortest duration of up to 90m is accepted" in said
    assert "shortest" not in " ".join(words(facts(parse(WEB))["groups"][0]))
