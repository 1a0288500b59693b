"""Snapshots, simulated devices, links and the table of Xids."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.protocol.resources import Attributes, Device
from provider.inventory.health import XIDS, XidClass, classify
from provider.inventory.host import memory_to_offer
from provider.inventory.links import Link, islands
from provider.inventory.models import DeviceFacts
from provider.inventory.snapshot import BadSimulation, probe


def none() -> tuple[tuple[DeviceFacts, ...], dict[str, str], tuple[str, ...]]:
    """A machine without devices."""
    return (), {}, ("no driver",)


def test_a_host_without_gpus_is_a_host() -> None:
    """Without a driver there are processors, memory and disk, and the reason why no device is offered."""
    snapshot = probe(nvml=none)
    assert snapshot.devices == ()
    assert snapshot.warnings == ("no driver",)
    assert snapshot.cpu_milli >= 1000
    assert 0 < snapshot.memory < snapshot.host.memory_total
    assert snapshot.disk > 0
    assert msgspec.convert(snapshot.attributes, Attributes) == snapshot.attributes


def test_simulated_devices_are_the_same_each_time_and_only_here() -> None:
    """The same seed gives the same UUIDs, another seed none of them, and all are marked."""
    one, again, other = (probe(["h100:2", "rtx4090"], none, seed=seed).devices for seed in ("a", "a", "b"))
    assert one == again
    assert not {d.uuid for d in one} & {d.uuid for d in other}
    assert [d.model for d in one] == ["h100", "h100", "rtx4090"]
    assert len({d.uuid for d in one}) == 3
    assert all(d.simulated and d.offerable for d in one)
    assert one[0].link == one[1].link != ""
    assert one[2].link == ""
    for device in one:
        Device("0" * 64, device.model, device.vendor, device.vram_mib, device.interface, device.link, simulated=True)


@pytest.mark.parametrize("item", ["", "h100:0", "h100:x", "h100:-1", "nothing:1", "h100:65", "h100:2:3"])
def test_a_wrong_simulation_is_refused(item: str) -> None:
    """What cannot be simulated is refused with the way to write it."""
    with pytest.raises(BadSimulation) as caught:
        probe([item], none)
    assert "h100:2" in caught.value.fix


def test_the_digest_follows_what_a_bid_promises() -> None:
    """A device that is withdrawn changes the digest; one that grows warm does not."""
    snapshot = probe(["h100:2"], none, seed="a")
    first, second = snapshot.devices
    warm = msgspec.structs.replace(snapshot, devices=(msgspec.structs.replace(first, facts={"temperature": 80}), second))
    gone = msgspec.structs.replace(snapshot, devices=(msgspec.structs.replace(first, offerable=False, reason="x"), second))
    assert snapshot.digest() == warm.digest()
    assert snapshot.digest() != gone.digest()
    assert gone.offerable() == (second,)


def test_every_xid_has_one_class() -> None:
    """No Xid stands in two rows; those that the device plugin ignores are no one's fault but the program's."""
    numbers = [xid for _, row in XIDS for xid in row]
    assert len(numbers) == len(set(numbers))
    assert {classify(xid) for xid in (13, 31, 43, 45, 68)} == {XidClass.APPLICATION}
    assert {classify(xid) for xid in (48, 79, 95, 119, 120)} == {XidClass.FATAL}
    assert classify(94) is XidClass.RECHECK
    assert classify(154) is XidClass.RECOVERY
    assert classify(74) is XidClass.LINK
    assert {classify(xid) for xid in (162, 999, 0)} == {XidClass.CORDON}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
def test_islands_do_not_depend_on_order(pairs: list[tuple[int, int]]) -> None:
    """Islands are a partition, the same however the links are told; their names fit the ledger's field."""
    links = [Link(f"GPU-{a}", f"GPU-{b}") for a, b in pairs]
    mirrored = [Link(link.other, link.one) for link in reversed(links)]
    found = islands(links)
    assert found == islands(mirrored)
    for link in links:
        if link.one != link.other:
            assert found[link.one] == found[link.other]
    assert all(len(name) <= 32 for name in found.values())


def test_the_host_keeps_a_reserve() -> None:
    """Some memory stays with the host, on a small machine as on a large one."""
    assert memory_to_offer(2**30) == 2**30 - 2**29
    assert memory_to_offer(2**40) == 2**40 - 2**36
    assert memory_to_offer(2**20) == 0
