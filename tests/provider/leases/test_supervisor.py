"""Ledger, plan, executor and engine together, in memory."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from marketplace.protocol.messages import CloseLease, ReportActive, ReportDown, ReportPulling
from marketplace.protocol.records import LeaseState
from marketplace.protocol.resources import GpuAsk, GpuModel, ResourceUnit
from provider.leases.journal import Journal
from provider.leases.plan import Policy
from tests.processes import eventually
from tests.provider.leases.worlds import QUICK, UNIT, World, lease_id, manifest, service

LEASE = lease_id()


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds, and ends them."""
    made: list[World] = []

    def make(**options: Any) -> World:
        world = World(Journal(tmp_path / f"{len(made)}.db"), **options)
        made.append(world)
        return world

    yield make
    for world in made:
        world.end()
        world.journal.close()
        assert world.failure is None, world.failure


def run_one(world: World, body: list[Any] | None = None) -> None:
    """A lease is matched, gets its manifest, and is active."""
    body = body or manifest()
    world.ledger.open(LEASE, body)
    world.supervisor.wake(ask_ledger=True)
    world.give(LEASE, body)
    eventually(lambda: world.ledger.leases[LEASE].state is LeaseState.ACTIVE, "the lease to be active")


def test_a_lease_from_match_to_release(worlds: Callable[..., World]) -> None:
    """Match, manifest, containers, active; closed, removed, released, forgotten."""
    world = worlds()
    run_one(world)
    (container,) = world.running(LEASE)
    assert container.ports[0].host_port > 0

    world.ledger.change(LEASE, state=LeaseState.CLOSED)
    world.supervisor.wake(ask_ledger=True)

    eventually(lambda: world.journal.get(LEASE) is None, "the lease to be forgotten")
    assert world.ledger.kinds() == ["ReportActive", "Release"]
    assert world.runtime.leases() == frozenset()


def test_devices_go_to_replicas_in_the_ledgers_order(worlds: Callable[..., World]) -> None:
    """The lease's devices are dealt to replicas unit by unit, as their UUIDs."""
    world = worlds(devices={"d0": "GPU-0", "d1": "GPU-1", "d2": "GPU-2"})
    gpu = GpuAsk(count=1, models=(GpuModel(vendor="nvidia"),))
    units = (msgspec.structs.replace(UNIT, gpu=gpu, count=2), msgspec.structs.replace(UNIT, cpu_milli=200, gpu=gpu))
    one = service("a", count=2)
    one["resources"] = one["resources"] | {"gpu": {"units": {"val": "1"}}}
    two = service("b")
    two["resources"] = one["resources"] | {"cpu": {"units": {"val": "200"}}}
    body = manifest(one, two)
    world.ledger.open(LEASE, body, units, devices=("d2", "d0", "d1"))
    world.give(LEASE, body)
    eventually(lambda: world.ledger.leases[LEASE].state is LeaseState.ACTIVE, "the lease to be active")

    dealt = {(c.service, c.replica): c.devices for c in world.running(LEASE)}
    assert dealt == {("a", 0): ("GPU-2",), ("a", 1): ("GPU-0",), ("b", 0): ("GPU-1",)}
    report = world.ledger.sent[0]
    assert isinstance(report, ReportActive)
    assert report.devices == ("d2", "d0", "d1")
    assert set(report.images) == {"a", "b"}


def test_a_container_that_always_ends_closes_the_lease(worlds: Callable[..., World]) -> None:
    """Before it was ever active, repeated exits end the lease, with the last words of the container."""
    world = worlds(policy=msgspec.structs.replace(QUICK, settle_ms=10_000_000))
    body = manifest(service(command=["echo", "no such model"]))
    world.ledger.open(LEASE, body)
    world.give(LEASE, body)

    eventually(lambda: world.ledger.leases[LEASE].state is LeaseState.CLOSED, "the lease to be closed")
    close = next(m for m in world.ledger.sent if isinstance(m, CloseLease))
    assert close.reason == "start_failed"
    assert "no such model" not in close.detail, "what a container wrote is its tenant's, not the ledger's"
    eventually(lambda: "Release" in world.ledger.kinds(), "the lease to be released")
    remembered = world.journal.get(LEASE)
    assert remembered is not None
    assert "no such model" in remembered.error
    assert world.runtime.started == QUICK.start_failures


def test_an_image_that_is_not_there_closes_the_lease(worlds: Callable[..., World]) -> None:
    """An image that cannot be had ends the lease with its own reason."""
    world = worlds()
    world.runtime.missing_images.add("img")
    world.ledger.open(LEASE, manifest())
    world.give(LEASE, manifest())

    eventually(lambda: "Release" in world.ledger.kinds(), "the lease to be released")
    assert world.ledger.leases[LEASE].reason == "image_failed"


def test_an_active_lease_is_restarted_not_closed(worlds: Callable[..., World]) -> None:
    """After activation a container that ends is started again, on the same host port, and stays billed."""
    world = worlds()
    run_one(world)
    (before,) = world.running(LEASE)
    for round_ in range(8):
        container = world.running(LEASE)[0]
        world.runtime.finish(container.id, 1)
        eventually(lambda r=round_: world.runtime.started == r + 2 and world.running(LEASE), "the restart")

    (after,) = world.running(LEASE)
    assert [p.host_port for p in after.ports] == [p.host_port for p in before.ports]
    assert world.ledger.kinds() == ["ReportActive"]


def test_containers_that_vanish_stop_the_meter(worlds: Callable[..., World]) -> None:
    """What the host lost is not billed: down, started anew, up."""
    world = worlds()
    run_one(world)
    world.runtime.remove(LEASE, keep_generation=0)
    world.supervisor.wake(LEASE)

    eventually(lambda: world.ledger.kinds()[-1] == "ReportUp", "the lease to be up again")
    down = world.ledger.sent[1]
    assert isinstance(down, ReportDown)
    assert down.reason == "host_stop"
    assert len(world.running(LEASE)) == 1


def test_a_dry_lease_stops_without_the_node(worlds: Callable[..., World]) -> None:
    """With the ledger out of reach a lease runs on to the end of its money, and no longer."""
    world = worlds()
    run_one(world)
    world.ledger.change(LEASE, funded_until_ms=10_000_000)
    world.supervisor.wake(ask_ledger=True)
    eventually(lambda: (e := world.journal.get(LEASE)) and e.wanted.funded_until_ms == 10_000_000, "the news")
    world.ledger.down = True
    seen = world.supervisor.passes
    world.supervisor.wake(ask_ledger=True)
    eventually(lambda: world.supervisor.passes > seen + 1, "another pass")
    assert world.running(LEASE)

    world.ledger.time_ms = 10_000_000
    eventually(lambda: not world.running(LEASE), "the containers to be stopped")
    assert len(world.runtime.containers(LEASE)) == 1


def test_a_paused_lease_resumes_at_its_next_generation(worlds: Callable[..., World]) -> None:
    """A deposit resumes a paused lease: old containers go, new ones come, with the manifest that is here."""
    world = worlds()
    run_one(world)
    world.ledger.change(LEASE, state=LeaseState.PAUSED)
    world.supervisor.wake(ask_ledger=True)
    eventually(lambda: not world.running(LEASE), "the containers to be stopped")

    world.ledger.change(LEASE, state=LeaseState.MATCHED, generation=2)
    world.supervisor.wake(ask_ledger=True)
    eventually(lambda: world.ledger.leases[LEASE].state is LeaseState.ACTIVE, "the lease to be active again")
    assert [c.generation for c in world.runtime.containers(LEASE)] == [2]


def test_unknown_changes_nothing(worlds: Callable[..., World]) -> None:
    """An engine that does not answer is not an empty one: nothing is reported, and all goes on when it is back."""
    world = worlds()
    run_one(world)
    world.runtime.go_down()
    eventually(lambda: not world.supervisor.engine_answers, "the engine to be missed")
    world.supervisor.wake(LEASE)
    assert world.ledger.kinds() == ["ReportActive"]

    world.runtime.down = False
    world.ledger.change(LEASE, state=LeaseState.CLOSED)
    eventually(lambda: world.journal.get(LEASE) is None, "the lease to be forgotten")
    assert world.ledger.kinds() == ["ReportActive", "Release"]


def test_a_new_daemon_adopts_what_runs(worlds: Callable[..., World]) -> None:
    """A daemon that ends and begins anew closes nothing and starts nothing twice."""
    world = worlds()
    run_one(world)
    (before,) = world.running(LEASE)
    world.end()
    world.begin()
    eventually(lambda: world.supervisor.passes > 1, "two passes")

    assert [c.id for c in world.running(LEASE)] == [before.id]
    assert world.ledger.kinds() == ["ReportActive"]


def test_containers_of_no_lease_go_after_a_grace(worlds: Callable[..., World]) -> None:
    """Containers whose lease the ledger does not know are removed, and nothing is reported of them."""
    world = worlds(policy=msgspec.structs.replace(QUICK, orphan_ms=50))
    run_one(world)
    del world.ledger.leases[LEASE]

    eventually(lambda: world.journal.get(LEASE) is None, "the orphan to be gone")
    assert world.runtime.leases() == frozenset()
    assert world.ledger.kinds() == ["ReportActive"]


def test_another_manifest_replaces_the_containers(worlds: Callable[..., World]) -> None:
    """After an update of the deployment the new manifest runs, under the same lease and meter."""
    world = worlds()
    run_one(world)
    body = manifest(service(env=["A=2"]))
    world.ledger.terms_of[LEASE] = msgspec.structs.replace(world.ledger.terms_of[LEASE], hash="f" * 64)
    world.give(LEASE, body)

    entry = world.journal.get(LEASE)
    assert entry is not None
    eventually(lambda: [c.spec_hash for c in world.running(LEASE)] == [entry.spec], "the new manifest to run")
    assert world.ledger.kinds() == ["ReportActive"]


def test_an_update_whose_image_is_missing_ends_nothing(worlds: Callable[..., World]) -> None:
    """Until the new image can be had the old containers run on, and the reason is told; the next manifest replaces them."""
    world = worlds()
    run_one(world)
    (old,) = world.running(LEASE)
    world.runtime.missing_images.add("gone")
    world.give(LEASE, manifest(service(image="gone")))

    def told() -> bool:
        entry = world.journal.get(LEASE)
        return entry is not None and "gone" in entry.error and entry.failures > 1

    eventually(told, "the image to be tried again")
    assert [c.id for c in world.running(LEASE)] == [old.id]
    world.give(LEASE, manifest(service(env=["A=3"])))
    eventually(lambda: [c.id for c in world.running(LEASE)] not in ([old.id], []), "the container to be replaced")
    assert world.ledger.kinds() == ["ReportActive"]


def test_a_manifest_that_comes_back_is_no_failure(worlds: Callable[..., World]) -> None:
    """There and back again while the engine is slow: containers taken away for the one between never count as vanished."""
    world = worlds()
    first, second = manifest(), manifest(service(env=["A=2"]))
    run_one(world, first)
    for body in (second, first) * 5:
        world.give(LEASE, body)
    entry = world.journal.get(LEASE)
    assert entry is not None

    def settled() -> bool:
        found = world.journal.get(LEASE)
        return (
            found is not None and found.started_spec == entry.spec and [c.spec_hash for c in world.running(LEASE)] == [entry.spec]
        )

    eventually(settled, "the first manifest to run again")
    assert world.ledger.kinds() == ["ReportActive"]


def test_a_taken_port_is_replaced(worlds: Callable[..., World]) -> None:
    """A host port that somebody took meanwhile is replaced by another, and the lease runs."""
    world = worlds()
    run_one(world)
    container = world.running(LEASE)[0]
    taken = container.ports[0].host_port
    world.runtime.taken_ports.add(taken)
    world.runtime.finish(container.id, 1)

    eventually(lambda: [c for c in world.running(LEASE) if c.ports[0].host_port != taken], "another port")


def test_no_manifest_closes_the_lease(worlds: Callable[..., World]) -> None:
    """A lease whose manifest does not come is closed, and released."""
    world = worlds(policy=Policy(manifest_ms=1))
    world.ledger.open(LEASE, manifest())

    eventually(lambda: world.ledger.kinds() == ["CloseLease", "Release"], "the lease to be closed")
    assert world.ledger.leases[LEASE].reason == "manifest_missing"


def test_many_leases_at_once(worlds: Callable[..., World]) -> None:
    """Forty leases come, run and go together; each is started once and released once."""
    world = worlds()
    ids = [lease_id(n) for n in range(1, 41)]
    for lease in ids:
        world.ledger.open(lease, manifest())
        world.give(lease, manifest())
    eventually(lambda: all(w.state is LeaseState.ACTIVE for w in world.ledger.leases.values()), "all to be active")
    assert world.runtime.started == len(ids)
    for lease in ids:
        world.ledger.change(lease, state=LeaseState.CLOSED)
    world.supervisor.wake(ask_ledger=True)

    eventually(lambda: not world.journal.entries(), "all to be forgotten")
    assert world.ledger.kinds().count("Release") == len(ids)


def test_units_are_used_exactly(worlds: Callable[..., World]) -> None:
    """A unit of two replicas is not filled by a service of one."""
    from provider.leases.manifest import ManifestRefused, check_fit, group_named

    group = group_named(manifest(), "here")
    check_fit(group, (UNIT,))
    for wrong in (msgspec.structs.replace(UNIT, count=2), msgspec.structs.replace(UNIT, memory=5), ResourceUnit(1, 100, 1048576)):
        with pytest.raises(ManifestRefused):
            check_fit(group, (wrong,))


PULLS = msgspec.structs.replace(QUICK, pull_report_ms=1)


def test_a_pull_that_lasts_is_reported_once(worlds: Callable[..., World]) -> None:
    """While the image is on its way the ledger is told so, once even over a restart of the daemon; then the lease starts."""
    world = worlds(policy=PULLS)
    come = world.runtime.slow_images["img"] = threading.Event()
    world.ledger.open(LEASE, manifest())
    world.supervisor.wake(ask_ledger=True)
    world.give(LEASE, manifest())
    eventually(lambda: world.ledger.kinds() == ["ReportPulling"], "the pull to be reported")
    world.supervisor.stop(patience_s=0)
    world.begin()
    eventually(lambda: world.supervisor.passes > 2, "the new daemon to have looked")
    assert not world.running(LEASE)
    come.set()
    eventually(lambda: world.ledger.leases[LEASE].state is LeaseState.ACTIVE, "the lease to be active")
    assert world.ledger.kinds() == ["ReportPulling", "ReportActive"]


@pytest.mark.parametrize("why", ["older-rules", "away"])
def test_a_pull_that_can_not_be_reported_goes_on(worlds: Callable[..., World], why: str) -> None:
    """A chain of older rules, or a node that does not answer, does not hinder the start."""
    world = worlds(policy=PULLS)
    come = world.runtime.slow_images["img"] = threading.Event()
    world.ledger.open(LEASE, manifest())
    world.supervisor.wake(ask_ledger=True)
    eventually(lambda: world.supervisor.entry(LEASE) is not None, "the lease to be known")
    asked = len(world.ledger.refused)
    if why == "away":
        world.ledger.down = True
    else:
        world.ledger.unknown.add(ReportPulling)
    world.give(LEASE, manifest())
    eventually(lambda: len(world.ledger.refused) > asked, "the report to be refused")
    world.ledger.down = False
    come.set()
    eventually(lambda: world.ledger.leases[LEASE].state is LeaseState.ACTIVE, "the lease to be active")
    assert world.ledger.kinds()[-1] == "ReportActive"
