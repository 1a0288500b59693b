"""Which bid an order takes, at what price, with which devices, and what it is told when it takes none."""

import random

import pytest

from ledger.protocol.messages import SetParameter
from marketplace.market.devices import SEARCH_STEPS, choose
from marketplace.market.placement import STEPS_A_TEST, ask_of, entry_of, examine, free_capacity
from marketplace.market.quote import quote
from marketplace.market.tables import BIDS
from marketplace.protocol import messages as m
from marketplace.protocol.events import OrderWaiting
from marketplace.protocol.records import OrderState
from marketplace.protocol.resources import Device, Group, SignedBy, Volume
from tests.marketplace.market import oracle
from tests.marketplace.market.world import ADDRESS, CREDIT, GIB, World, device, gpu, group, offer, prices, unit

MODELS = ("h100", "a100", "l4")


def random_offer(rng: random.Random, name: str) -> tuple[Device, ...]:
    """Up to five devices of few kinds."""
    return tuple(
        device(
            f"{name}/{i}",
            rng.choice(MODELS),
            vram_mib=rng.choice((81_559, 40_960)),
            interface=rng.choice(("sxm5", "pcie")),
            link=rng.choice(("", "x", "y")),
            simulated=rng.random() < 0.1,
        )
        for i in range(rng.randrange(5))
    )


def random_group(rng: random.Random) -> Group:
    """One or two units, of which most want GPUs."""
    units = []
    for _ in range(rng.choice((1, 1, 2))):
        ask = None
        if rng.random() < 0.85:
            names = rng.choice(((), ("h100",), ("l4",), ("a100", "h100"), ("l4", "a100")))
            ask = gpu(
                rng.choice((1, 1, 2)), *names, ram_mib=rng.choice((0, 0, 81_920)), interface=rng.choice(("", "", "sxm", "pcie"))
            )
        volumes = tuple(
            Volume(size=rng.choice((GIB, 7, 10 * GIB)), storage_class=name)
            for name in rng.sample(("ephemeral", "ssd", "ram"), rng.randrange(3))
        )
        units.append(
            unit(
                ask,
                count=rng.choice((1, 1, 2)),
                cpu_milli=rng.choice((1, 999, 4_000)),
                memory=rng.choice((1, 3 * GIB, 16 * GIB + 1)),
                ports=rng.randrange(3),
                volumes=volumes,
            )
        )
    attributes = {**({"region": "eu"} if rng.random() < 0.3 else {}), **({"simulated": "true"} if rng.random() < 0.1 else {})}
    return group(*units, limit=rng.choice((3_000_000, 12_000_000)), attributes=attributes)


def fill(world: World, rng: random.Random) -> None:
    """Two providers with hosts of all sorts."""
    for who in ("pat", "pol"):
        world.provider(who, **({"region": "eu"} if rng.random() < 0.5 else {}))
        for name in ("h1", "h2", "h3"):
            storage = {name: 20 * GIB for name in ("ephemeral", "ssd") if rng.random() < 0.9}
            bid = offer(
                *random_offer(rng, f"{who}/{name}"),
                cpu_milli=rng.choice((2_000, 16_000)),
                memory=rng.choice((16, 64)) * GIB,
                ports=rng.choice((1, 10)),
                storage=storage,
                attributes={"region": rng.choice(("eu", "us"))} if rng.random() < 0.3 else {},
            )
            world.ok(who, m.RegisterHost(host=name))
            world.ok(
                who,
                world.put(
                    who,
                    name,
                    bid=bid,
                    price=prices(
                        gpu=rng.choice((1, 2, 3)) * 700_000,
                        cpu=rng.choice((0, 1, 33_333)),
                        memory=rng.choice((0, 1, 7_777)),
                        storage=rng.choice((0, 1, 99)),
                        port=rng.choice((0, 5)),
                        h100=rng.choice((1, 2, 3)) * 1_000_000,
                    ),
                ),
            )


@pytest.mark.parametrize("part", range(6))
def test_matches_equal_the_oracle(part: int) -> None:
    """Each order takes the lowest ask of all bids over all sets of devices, and of equal asks the oldest bid; or none fits."""
    assert sum(orders_that_match(seed) for seed in range(part * 5, part * 5 + 5)) >= 5


def orders_that_match(seed: int) -> int:
    """Put twelve random orders to a random market, comparing each with the oracle; how many matched."""
    rng = random.Random(seed)
    world = World(check=False)
    fill(world, rng)
    world.block()
    store = world.machine.store
    found = 0
    for dseq in range(1, 13):
        wanted = random_group(rng)
        expected = []
        for bid in store.scan(BIDS):
            free = free_capacity(store, bid)
            left = m.Offer(
                cpu_milli=free.cpu_milli,
                memory=free.memory,
                storage=free.storage,
                attributes=bid.offer.attributes,
                devices=free.devices,
                ports=free.ports,
            )
            provider = store.get(store.tables["provider"], bid.provider)
            assert provider is not None
            attributes = {**provider.attributes, **bid.offer.attributes}  # type: ignore[attr-defined]
            seen = m.PutBid(**{f: getattr(bid, f) for f in ("denomination", "expires_ms", "host", "prices")}, offer=left)
            rate = oracle.rate(wanted, seen, list(free.devices), attributes)  # type: ignore[arg-type]
            if rate is not None:
                expected.append((rate, bid.height, bid.provider, bid.host))
        quoted = quote(store, [wanted], "ucredit", world.now)[0]
        deployment = world.deploy("ann", wanted, dseq=dseq)
        leases = world.leases(deployment)
        if not expected:
            assert not leases, f"seed {seed} dseq {dseq}: {leases}"
            assert quoted.rate_per_hour == ""
            order = world.orders(deployment)[0]
            assert sum(order.refusals.values()) == store.count(BIDS)
            assert order.nearest
            continue
        found += 1
        best = min(expected)
        lease = leases[0]
        assert (lease.rate_per_hour, lease.provider, lease.host) == (best[0], best[2], best[3]), f"seed {seed} dseq {dseq}"
        assert (quoted.rate_per_hour, quoted.host, quoted.devices) == (str(best[0]), best[3], lease.devices)
        assert quoted.fitting == len(expected)
    world.machine.invariants()
    return found


def test_equal_asks_go_to_the_bid_that_stands_longest() -> None:
    """Of equal asks the older bid wins; put in one block, the lower provider and host."""
    world = World()
    for who in ("pat", "pol"):
        world.provider(who)
        world.ok(who, m.RegisterHost(host="h1"))
    world.bid("pol")
    world.bid("pat")
    assert world.leases(world.deploy())[0].provider == ADDRESS["pol"]

    world = World()
    for who in ("pat", "pol"):
        world.provider(who)
        world.ok(who, m.RegisterHost(host="h1"))
    world.block(world.raw("pol", world.put("pol")), world.raw("pat", world.put("pat")))
    world.block()
    assert world.leases(world.deploy())[0].provider == min(ADDRESS["pat"], ADDRESS["pol"])


def test_a_bid_counts_from_the_block_after_its_own() -> None:
    """An order in the block of a bid does not take it; it does in the next block, which comes by itself."""
    world = World()
    world.provider()
    world.ok("pat", m.RegisterHost(host="h1"))
    world.block(world.raw("ann", world.create()), world.raw("pat", world.put()))
    assert not world.leases()
    assert world.machine.next_due() == world.now + 1
    world.block(at=world.now + 1)
    assert world.leases()


def test_orders_are_served_as_they_arrived() -> None:
    """When capacity comes, the oldest order that fits takes it, whatever the others would pay."""
    world = World()
    first = world.deploy("bob", group(limit=2 * CREDIT))
    second = world.deploy("ann", group(limit=9 * CREDIT))
    world.provider()
    world.host()

    assert world.leases(first)
    assert not world.leases(second)


def test_a_cheaper_bid_is_offered_to_waiting_orders() -> None:
    """An order that waits for its price is looked at again when a bid of its class gets cheaper."""
    world = World()
    world.provider()
    world.host()
    deployment = world.deploy("ann", group(limit=CREDIT))
    world.bid(price=prices(gpu=CREDIT))

    assert world.leases(deployment)[0].rate_per_hour == CREDIT


def test_an_order_that_waits_is_told_the_nearest_miss_once() -> None:
    """Refusals are counted by test, the nearest miss names the remedy, and it is an event only when it changes."""
    world = World()
    world.provider()
    world.host(price=prices(gpu=2_500_000))
    deployment = world.deploy("ann", group(limit=2 * CREDIT))

    order = world.orders(deployment)[0]
    assert order.refusals == {"price": 1}
    words = f"host h1 of {ADDRESS['pat']} fits but asks 2.500000 credits/h, limit 2.000000 credits/h: raise the limit"
    assert order.nearest == words
    world.bid()
    assert not world.leases(deployment)[1:]
    assert [event.nearest for event in world.events(OrderWaiting)].count(words) == 1


@pytest.mark.parametrize(
    ("test", "wanted", "mended"),
    [
        ("gpu_model", group(unit(gpu(1, "b200"))), group(unit(gpu(1, "h100")))),
        ("gpu_model", group(unit(gpu(1, "h100", ram_mib=40_960))), group(unit(gpu(1, "h100", ram_mib=81_920)))),
        ("gpu_model", group(unit(gpu(1, "h100", interface="pcie"))), group(unit(gpu(1, "h100", interface="sxm")))),
        ("gpu_model", group(attributes={"simulated": "true"}), group(attributes={"simulated": "false"})),
        ("attributes", group(attributes={"region": "us"}), group(attributes={"region": "eu"})),
        ("signed_by", group(signed_by=SignedBy(all_of=(ADDRESS["lee"],))), group(signed_by=SignedBy(all_of=(ADDRESS["aud"],)))),
        (
            "signed_by",
            group(attributes={"tier": "1"}, signed_by=SignedBy(any_of=(ADDRESS["aud"], ADDRESS["lee"]))),
            group(attributes={"region": "eu"}, signed_by=SignedBy(any_of=(ADDRESS["lee"], ADDRESS["aud"]))),
        ),
        ("cpu", group(unit(gpu(1, "h100"), cpu_milli=8_001)), group(unit(gpu(1, "h100"), cpu_milli=8_000))),
        ("cpu", group(unit(count=9)), group(unit(count=8))),
        ("memory", group(unit(memory=32 * GIB + 1)), group(unit(memory=32 * GIB))),
        (
            "memory",
            group(unit(memory=31 * GIB, volumes=(Volume(size=2 * GIB, storage_class="ram"),))),
            group(unit(memory=31 * GIB, volumes=(Volume(size=GIB, storage_class="ram"),))),
        ),
        ("storage", group(unit(volumes=(Volume(size=101 * GIB),))), group(unit(volumes=(Volume(size=100 * GIB),)))),
        ("storage", group(unit(volumes=(Volume(size=1, storage_class="beta3"),))), group(unit())),
        ("ports", group(unit(ports=3)), group(unit(ports=2))),
        ("gpu", group(unit(gpu(3, "h100"))), group(unit(gpu(2, "h100")))),
        ("gpu", group(unit(gpu(1), count=3)), group(unit(gpu(1), count=2))),
        ("price", group(limit=2 * CREDIT - 1), group(limit=2 * CREDIT)),
    ],
)
def test_each_test_of_a_bid(test: str, wanted: Group, mended: Group) -> None:
    """A group that just fails a test is refused by that one alone; what its remedy says makes it fit."""
    world = World()
    world.provider(region="eu", tier="1")
    world.ok("aud", m.Attest(attributes={"region": "eu"}, provider=ADDRESS["pat"]))
    room = offer(device("a"), device("b"), cpu_milli=8_000, memory=32 * GIB, ports=2, storage={"ephemeral": 100 * GIB})
    world.host(bid=room)
    refused = world.deploy("ann", wanted)
    assert world.orders(refused)[0].refusals == {test: 1}

    world.ok("ann", m.CloseDeployment(dseq=1))
    fits = world.deploy("ann", mended, dseq=2)
    assert world.orders(fits)[0].state is OrderState.MATCHED


def test_another_denomination_is_another_market() -> None:
    """A bid is matched only with orders that pay in its denomination."""
    world = World()
    world.provider()
    world.host()
    other = world.deploy("ann", denomination="uother")
    assert world.orders(other)[0].refusals == {"denomination": 1}
    world.bid(denomination="uother")
    assert world.leases(other)


def test_auditors_attest_and_retract() -> None:
    """An attestation makes a waiting order match; a retracted one does not serve the next."""
    world = World()
    world.provider(region="eu")
    world.host(bid=offer(device("a"), device("b")))
    asked = group(attributes={"region": "eu"}, signed_by=SignedBy(all_of=(ADDRESS["aud"],)))
    first = world.deploy("ann", asked)
    assert not world.leases(first)
    world.ok("aud", m.Attest(attributes={"region": "eu", "tier": "1"}, provider=ADDRESS["pat"]))
    assert world.leases(first)
    world.ok("aud", m.Retract(provider=ADDRESS["pat"]))
    assert world.orders(world.deploy("bob", asked))[0].refusals == {"signed_by": 1}


def test_an_order_by_hand_waits_for_its_owner() -> None:
    """Manual selection is not matched by the market; TakeBid takes the picked bid, dearer or not."""
    world = World()
    world.provider()
    world.host()
    world.host(name="h2", price=prices(gpu=3 * CREDIT))
    deployment = world.deploy("ann", group(selection="manual"))
    assert not world.leases(deployment)
    world.ok("ann", m.TakeBid(host="h2", order=f"{deployment}/1/1", provider=ADDRESS["pat"], version=1))

    (lease,) = world.leases(deployment)
    assert (lease.host, lease.rate_per_hour) == ("h2", 3 * CREDIT)


def test_devices_stay_on_one_island() -> None:
    """A replica's GPUs come from the smallest link island that holds them, with the lowest ids; else from the lowest ids."""
    devices = sorted(
        [device(f"a{i}", link="a") for i in range(4)] + [device(f"b{i}", link="b") for i in range(2)] + [device("c")],
        key=lambda d: d.id,
    )
    by_id = {d.id: d for d in devices}

    def links(count: int, replicas: int = 1) -> list[str]:
        found = choose(group(unit(gpu(count, "h100"), count=replicas)), devices, lambda _: 1)
        assert found.fits
        return [by_id[id].link for id in found.devices]

    assert links(1) == [""]
    assert links(2) == ["b", "b"]
    assert links(3) == ["a"] * 3
    assert links(2, replicas=2) == ["b", "b", "a", "a"]
    assert sorted(links(7)) == sorted(d.link for d in devices)
    assert not choose(group(unit(gpu(8, "h100"))), devices, lambda _: 1).fits
    island = choose(group(unit(gpu(3, "h100"))), devices, lambda _: 1)
    assert list(island.devices) == [d.id for d in devices if d.link == "a"][:3]


def test_the_work_of_a_block_is_bounded() -> None:
    """What the budget leaves is looked at in the next block, which comes by itself; order of arrival is kept."""
    world = World(match_tests_per_block=1)
    deployments = [world.deploy(who, dseq=dseq) for dseq, who in enumerate(("ann", "bob", "cat"), 1)]
    world.provider()
    world.ok("pat", m.RegisterHost(host="h1"))
    world.bid(bid=offer(device("a"), device("b")))
    assert [bool(world.leases(id)) for id in deployments] == [True, False, False]
    assert world.machine.next_due() == world.now + 1
    world.run_until(world.now + 10)
    assert [bool(world.leases(id)) for id in deployments] == [True, True, False]
    assert not list(world.machine.store.scan(world.machine.store.tables["look"]))


def test_parameters_are_changed_by_governance() -> None:
    """A parameter of the market holds from the next message on."""
    world = World()
    world.ok("lee", SetParameter(name="max_hosts", value=1))
    world.provider()
    world.host()
    assert world.code("pat", m.RegisterHost(host="h2")) == 407


def test_devices_of_every_replica_are_leased() -> None:
    """Units and replicas take disjoint devices: as many as are asked in all, in the order of units."""
    world = World()
    world.provider()
    world.host(bid=offer(*(device(f"h{i}") for i in range(4)), *(device(f"l{i}", "l4") for i in range(3))))
    deployment = world.deploy("ann", group(unit(gpu(1, "l4"), count=2), unit(), unit(gpu(2, "h100"), count=2), limit=99 * CREDIT))

    (lease,) = world.leases(deployment)
    models = {d.id: d.model for d in world.book_bid().offer.devices}
    assert [models[id] for id in lease.devices] == ["l4"] * 2 + ["h100"] * 4
    assert len(set(lease.devices)) == 6
    assert lease.rate_per_hour == 12 * CREDIT


def test_a_long_search_counts_as_work() -> None:
    """A host of many kinds can not make a block's matching long: the search is cut off, and what it took is in the budget."""
    world = World()
    world.provider()
    kinds = [device(f"k{i}", f"m{i}") for i in range(40)]
    world.host(bid=offer(*kinds), price=prices(**{f"m{i}": CREDIT + i for i in range(40)}))
    deployment = world.deploy("ann", group(*[unit(gpu(1)) for _ in range(20)], limit=CREDIT))

    order = world.orders(deployment)[0]
    assert order.refusals == {"price": 1}
    entry = entry_of(world.machine.store, f"{ADDRESS['pat']}/h1")
    assert entry is not None
    found = examine(world.machine.store, ask_of(order.group, "ucredit"), entry, None)
    assert found.work == 1 + SEARCH_STEPS // STEPS_A_TEST
