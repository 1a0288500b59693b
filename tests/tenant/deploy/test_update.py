"""What a deployment can be changed to, and what is refused with the reason."""

from collections.abc import Callable
from typing import Any

import pytest

from ledger.client import Unreachable
from tenant.deploy.failure import DeployFailed
from tenant.deploy.flow import Deployer
from tenant.deploy.update import differences
from tenant.sdl import parse
from tests.tenant.deploy.scene import GPU, SDL, TWO_GROUPS, Gateway, Scene

NEWER = SDL.replace("SECRET=hush", "SECRET=louder").replace("nginx:1.27", "nginx:1.28")
TWINS = SDL.replace("  web:\n    image", "  api:\n    image: api\n  web:\n    image").replace(
    "deployment:\n", "deployment:\n  api:\n    here: {profile: web, count: 2}\n"
)

SWAPPED = TWINS.replace("count: 2}", "count: 0}").replace("count: 1}", "count: 2}").replace("count: 0}", "count: 1}")
TWO_PORTS = SDL.replace("      - port: 80\n", "      - port: 81\n        to: [{global: true}]\n      - port: 80\n")


@pytest.fixture
def flow(deployer: Callable[[int], Deployer], market: Scene) -> Deployer:
    """A tenant with money, and a host that has room."""
    made = deployer(next(NUMBERS))
    market.node.faucet(made.owner)
    return made


NUMBERS = iter(range(500, 600))


def opened(flow: Deployer, source: str = SDL) -> int:
    """A deployment on the ledger; its dseq."""
    plan = flow.prepare(source.encode())
    flow.create(plan)
    return plan.dseq


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (SDL, NEWER, []),
        (TWO_GROUPS, TWO_GROUPS.replace("nginx:1.27", "nginx:1.28"), []),
        (TWINS, SWAPPED, ["1 published ports ordered, 2"]),
        (SWAPPED, TWINS, []),
        (TWO_PORTS, SDL, []),
        (SDL, SDL.replace("units: 100m", "units: 200m"), ["cpu 100m", "cpu 200m"]),
        (SDL, SDL.replace("size: 32Mi", "size: 64Mi"), ["memory 32Mi", "memory 64Mi"]),
        (SDL, SDL.replace("count: 1", "count: 2"), ["1 × (", "2 in the file"]),
        (SDL, GPU, ["1 gpu nvidia/h100"]),
        (GPU, GPU.replace("h100", "a100"), ["nvidia/h100", "nvidia/a100"]),
        (SDL, SDL.replace("amount: 100000", "amount: 90000"), ["limit"]),
        (SDL, SDL.replace("  placement:\n    here:\n", "  placement:\n    here:\n      attributes: {region: eu}\n"), ["region"]),
        (SDL, TWO_GROUPS, ["group there was not ordered"]),
        (TWO_GROUPS, SDL, ["group there was ordered and is not in the file"]),
        (SDL, TWO_PORTS, ["1 published ports ordered, 2"]),
    ],
)  # fmt: skip
def test_what_differs_is_named(old: str, new: str, says: list[str]) -> None:
    """Image, environment, fewer ports, and counts of one shape may change; what was ordered may not, and is named."""
    found = differences(parse(old.encode()).market_groups(), parse(new.encode()).market_groups())
    assert bool(found) == bool(says), found
    assert all(text in "; ".join(found) for text in says), found


def test_an_update_keeps_the_lease(flow: Deployer, gateway: Gateway) -> None:
    """The ledger gets the new hash and version, the shelf the new manifest, the provider both; repeating changes nothing."""
    dseq = opened(flow)
    (lease,) = flow.wait_matched(dseq, 30)
    before = flow.node.deployment(flow.owner, dseq)
    revision = flow.revise(dseq, parse(NEWER.encode()))
    assert flow.update(revision) is not None
    after = flow.node.deployment(flow.owner, dseq)
    assert (after["version"], after["hash"]) == (before["version"] + 1, revision.kept.hash)
    assert [item["id"] for item in flow.leases(dseq)] == [lease["id"]]
    flow.send_manifest(lease)
    assert gateway.manifests[lease["id"]] == revision.kept.manifest
    again = flow.revise(dseq, parse(NEWER.encode()))
    assert again.message is None
    assert flow.update(again) is None
    assert len(list(flow.shelf.folder.iterdir())) == 1
    flow.close(dseq)
    assert list(flow.shelf.folder.iterdir()) == []
    with pytest.raises(DeployFailed, match="is closed"):
        flow.revise(dseq, parse(SDL.encode()))


def test_a_change_of_what_was_ordered_is_refused(flow: Deployer) -> None:
    """Nothing changes, and the refusal says what to do instead."""
    dseq = opened(flow)
    with pytest.raises(DeployFailed, match="cpu 200m") as refused:
        flow.revise(dseq, parse(SDL.replace("units: 100m", "units: 200m").encode()))
    assert (refused.value.exit_code, f"gpubid lease close {dseq}" in refused.value.fix) == (5, True)
    assert flow.node.deployment(flow.owner, dseq)["version"] == 1


@pytest.mark.parametrize("applied", [True, False], ids=["applied", "lost on the way"])
def test_an_update_without_an_answer(flow: Deployer, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, applied: bool) -> None:
    """Where it is not known whether the update was applied, the manifest that is sent is the one that the ledger names."""
    dseq = opened(flow)
    (lease,) = flow.wait_matched(dseq, 30)
    old = flow.shelf.get(flow.owner, dseq).manifest
    revision = flow.revise(dseq, parse(NEWER.encode()))
    real = flow._send

    def silent(*messages: Any) -> Any:
        if applied:
            real(*messages)
        raise Unreachable("no answer")

    monkeypatch.setattr(flow, "_send", silent)
    with pytest.raises(Unreachable):
        flow.update(revision)
    flow.send_manifest(lease)
    assert gateway.manifests[lease["id"]] == (revision.kept.manifest if applied else old)
    monkeypatch.setattr(flow, "_send", real)
    flow.update(flow.revise(dseq, parse(NEWER.encode())))
    flow.send_manifest(lease)
    assert gateway.manifests[lease["id"]] == revision.kept.manifest


def test_a_refused_update_leaves_the_manifest(flow: Deployer) -> None:
    """Two updates of one version: the second is refused, and what is kept is the first's."""
    dseq = opened(flow)
    first, second = (flow.revise(dseq, parse(text.encode())) for text in (NEWER, NEWER.replace("louder", "other")))
    flow.update(first)
    with pytest.raises(Exception, match="version"):
        flow.update(second)
    assert flow.shelf.get(flow.owner, dseq) == first.kept
    assert flow.shelf.proposed(flow.owner, dseq) is None
