"""From an Akash manifest to containers."""

import json
from pathlib import Path
from typing import Any

import pytest

from provider.leases.ledger import Terms
from provider.leases.manifest import ManifestRefused, accept, canonical_hash, container_spec, group_named
from provider.leases.model import Slot
from provider.runtime.port import Image, PortMap
from tests.provider.leases.worlds import UNIT, manifest, service

IMAGE = Image("sha256:0", "sha256:0", "img")
GOLDEN = Path(__file__).parents[3].parent / "shared/vectors/akash-sdl/fixtures/output-fixtures"


def spec_of(found: dict[str, Any], replica: int = 0, **ports: int) -> Any:
    """The container of a service given as Akash writes it."""
    group = group_named(manifest(found), "here")
    return container_spec(
        group.services[0], Slot(found["name"], replica), lease="l", generation=3, spec="s", image=IMAGE, devices=("GPU-1",),
        simulated=False, host_ip="127.0.0.1", ports={k.replace("_", "/"): v for k, v in ports.items()},
    )  # fmt: skip


def test_hash_is_akashs() -> None:
    """The hash is over sorted compact JSON with Go's escapes."""
    assert canonical_hash([{"b": "<&>", "a": 1}]) == canonical_hash([{"a": 1, "b": "<&>"}])
    assert canonical_hash([]) == "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden manifests are not beside this checkout")
def test_golden_manifest() -> None:
    """A manifest of the reference has the reference's hash, and every one can be read."""
    basic = json.loads((GOLDEN / "v2.0/gpu-basic/manifest.json").read_text())
    assert canonical_hash(basic) == "b388e6d97d15c37fc87ba0e9a555250941f7e1a04be768984cfa829a9500be47"
    found = sorted(GOLDEN.rglob("manifest.json"))
    assert len(found) == 15
    for path in found:
        for group in json.loads(path.read_text()):
            assert group_named([group], group["name"]).slots()


def test_container_gets_what_was_asked() -> None:
    """Sizes, environment, ports, volumes and memory-backed files reach the container's description."""
    found = service(
        command=["/bin/app"],
        args=["-v"],
        env=["A=1", "B=x=y", "EMPTY"],
        expose=[
            {"port": 80, "proto": "TCP", "global": True},
            {"port": 80, "proto": "TCP", "global": True},
            {"port": 53, "proto": "UDP", "global": True},
            {"port": 5432, "proto": "TCP", "global": False, "service": "other"},
        ],
        params={
            "storage": [
                {"name": "data", "mount": "/data", "readOnly": True},
                {"name": "fast", "mount": "/fast"},
                {"name": "shm", "mount": "/dev/shm"},
            ]
        },
    )
    found["resources"] = found["resources"] | {
        "storage": [
            {"name": "default", "size": {"val": "100"}},
            {"name": "data", "size": {"val": "200"}, "attributes": [{"key": "class", "value": "beta3"}]},
            {"name": "fast", "size": {"val": "300"}, "attributes": [{"key": "class", "value": "ram"}]},
            {"name": "shm", "size": {"val": "400"}, "attributes": [{"key": "class", "value": "ram"}]},
        ]
    }
    spec = spec_of(found, web_0_80_tcp=4000)

    assert (spec.cpu_milli, spec.memory, spec.disk, spec.shm) == (100, 1048576 + 700, 100, 400)
    assert spec.env == {"A": "1", "B": "x=y", "EMPTY": ""}
    assert (spec.command, spec.args) == (("/bin/app",), ("-v",))
    assert spec.ports == (PortMap(80, "tcp", "127.0.0.1", 4000), PortMap(53, "udp", "127.0.0.1", 0))
    assert spec.volumes == {"/data": ("web-0-data", True)}
    assert spec.tmpfs == {"/fast": 300}
    assert (spec.generation, spec.spec_hash, spec.devices, spec.hostname) == (3, "s", ("GPU-1",), "web")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (manifest(service(env=["A=2"])), "HASH_MISMATCH"),
        (manifest(name="elsewhere"), "GROUP_MISSING"),
        ([{"name": "here", "services": []}], "MANIFEST_MALFORMED"),
        ([{"name": "here", "services": [{"name": "x"}]}], "MANIFEST_MALFORMED"),
        (manifest(service(), service()), "MANIFEST_MALFORMED"),
        (manifest(service(count=2)), "DOES_NOT_FIT"),
        (manifest(service(count=300)), "MANIFEST_MALFORMED"),
        (manifest(service("a"), service("b")), "DOES_NOT_FIT"),
        (manifest(service(expose=[{"port": p, "global": True} for p in (1, 2)])), "DOES_NOT_FIT"),
        ([1, None, "x"], "GROUP_MISSING"),
        (manifest(service(count="1")), "MANIFEST_MALFORMED"),
    ],
)
def test_what_was_not_ordered_is_refused(body: list[Any], code: str) -> None:
    """A manifest that is not the ordered one is refused by name of the reason, before anything runs."""
    expected = canonical_hash(manifest()) if code == "HASH_MISMATCH" else canonical_hash(body)
    with pytest.raises(ManifestRefused) as refused:
        accept(body, None, Terms(expected, "0" * 64, "here", (UNIT,)))
    assert refused.value.code == code


def test_additions_are_hashed_too() -> None:
    """Our additions must be those of the deployment: neither missing nor others."""
    body, spec = manifest(), {"x": 1}
    terms = Terms(canonical_hash(body), canonical_hash(spec), "here", (UNIT,))

    assert accept(body, spec, terms).name == "here"
    for wrong in (None, {"x": 2}):
        with pytest.raises(ManifestRefused):
            accept(body, wrong, terms)
