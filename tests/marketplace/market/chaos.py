"""Random markets: several tenants and providers act at random, rightly and wrongly, through many blocks."""

import random

from msgspec import UNSET

from ledger.machine.escrow import PURSES
from ledger.protocol.messages import Deposit, Message, SetParameter, Settle, Withdraw
from marketplace.market.tables import BIDS, DEPLOYMENTS, HOSTS, LEASES, ORDERS
from marketplace.protocol import messages as m
from marketplace.protocol.records import DeploymentState, LeaseState
from marketplace.protocol.resources import Group, SignedBy, Volume
from tests.marketplace.market.world import ADDRESS, CREDIT, GIB, NAME_OF, World, device, gpu, group, offer, prices, unit

TENANTS = ("ann", "bob", "cat")
PROVIDERS = ("pat", "pia", "pol")
STEPS_MS = (1, 7, 1_000, *[30_000] * 4, *[60_000] * 6, 149_000)
GAPS_MS = (160_000, 1_500_000)


class Chaos:
    """A seeded actor for everybody. What it sends may be refused; the world checks invariants after each block."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        bonded = self.rng.random() < 0.5
        self.world = World(
            match_tests_per_block=self.rng.choice((2, 200_000)),
            purse_grace_ms=600_000,
            purse_reserve_ms=self.rng.choice((0, 0, 60_000)),
            bond_minimum=bonded * CREDIT // 2,
            bond_cooling_ms=600_000,
            bond_cut_activation=CREDIT // 2,
            bond_cut_early=CREDIT // 3,
            bond_cut_silence=3 * CREDIT,
            pull_free_ms=self.rng.choice((0, 1, 120_000)),
            pull_most_ms=600_000,
        )
        for who in PROVIDERS:
            self.world.provider(who, region=self.rng.choice(("eu", "us")))
            self.world.ok(who, m.RegisterHost(host="h1"), m.RegisterHost(host="h2"))
            self.world.ok(who, m.PostBond(amount=str(4 * CREDIT), denomination="ucredit"))

    def run(self, blocks: int) -> World:
        """Go through a number of blocks."""
        away: list[str] = []
        for _ in range(blocks):
            if self.rng.random() < 0.1:
                away = self.rng.sample(PROVIDERS, self.rng.randrange(2))
            at = self.world.now + self.rng.choice(GAPS_MS if self.rng.random() < 0.04 else STEPS_MS)
            raws = []
            for who in PROVIDERS:
                if who not in away or self.rng.random() < 0.1:
                    raws.append(self.world.raw(who, self.world.beats(who), at=at))
            for _ in range(self.rng.randrange(6)):
                who, messages = self.act()
                raws.append(self.world.raw(who, *messages, at=at))
            self.world.block(*raws, at=at)
        return self.world

    def act(self) -> tuple[str, list[Message]]:
        """Somebody's transaction: mostly one message, now and then two of which the second may undo the first."""
        acts = (
            self.put, self.create, self.create, *[self.report] * 6, self.release, self.release,
            self.end, self.close, self.money, self.money, self.bond, self.other,
        )  # fmt: skip
        who, message = self.rng.choice(acts)()
        messages = [message]
        if self.rng.random() < 0.15:
            messages.append(self.rng.choice((m.CloseDeployment(dseq=999), m.Heartbeat(hosts=("h1",)))))
        return who, messages

    def put(self) -> tuple[str, Message]:
        """A bid, new, amended or cancelled; now and then of a device that somebody else has."""
        rng, who, name = self.rng, self.rng.choice(PROVIDERS), self.rng.choice(("h1", "h2"))
        bid = self.world.machine.store.get(BIDS, f"{ADDRESS[who]}/{name}")
        if bid is not None and rng.random() < 0.15:
            return who, m.CancelBid(host=name, version=bid.version)
        owner = who if rng.random() < 0.9 else rng.choice(PROVIDERS)
        devices = [
            device(f"{owner}/{name}/{i}", rng.choice(("h100", "l4")), link=rng.choice(("", "x")))
            for i in rng.sample(range(5), rng.randrange(5))
        ]
        return who, self.world.put(
            who,
            name,
            bid=offer(*devices, cpu_milli=rng.choice((1_500, 8_000)), memory=16 * GIB, ports=4, storage={"ephemeral": 20 * GIB}),
            price=prices(gpu=rng.randrange(1, 5) * CREDIT, cpu=rng.randrange(1_000)),
            expires_ms=self.world.now + rng.choice((60_000, 10**7, 10**7, 10**7)),
            max_duration_ms=rng.choice((0, 0, 900_000)),
            **rng.choice(({}, {}, {"min_duration_ms": 300_000})),
            hold_per_hour=str(rng.randrange(3) * CREDIT),
        )

    def bond(self) -> tuple[str, Message]:
        """A provider adds to its bond, or asks for some of it, or no longer."""
        rng, amount = self.rng, str(self.rng.choice((0, 1, CREDIT, CREDIT)))
        if rng.random() < 0.6:
            return rng.choice(PROVIDERS), m.PostBond(amount=amount, denomination=rng.choice(("ucredit", "ucredit", "uother")))
        return rng.choice(PROVIDERS), m.WithdrawBond(amount=amount, denomination="ucredit")

    def create(self) -> tuple[str, Message]:
        """A deployment with little money, so that purses run dry."""
        rng = self.rng
        groups = [self.group(f"g{i}") for i in range(rng.choice((1, 1, 2)))]
        return rng.choice(TENANTS), self.world.create(
            *groups, dseq=rng.randrange(1, 30), deposit=rng.choice((200_000, 300_000, 500_000, 5 * CREDIT))
        )

    def group(self, name: str) -> Group:
        """A group of some shape."""
        rng = self.rng
        ask = gpu(rng.choice((1, 1, 2)), *rng.choice((("h100",), ("l4",), ("h100", "l4"), ()))) if rng.random() < 0.8 else None
        return group(
            unit(ask, count=rng.choice((1, 1, 2)), ports=rng.randrange(2), volumes=(Volume(size=GIB),)),
            name=name,
            limit=rng.choice((2, 5, 9)) * CREDIT,
            attributes={"region": "eu"} if rng.random() < 0.2 else {},
            signed_by=SignedBy(any_of=(ADDRESS["aud"],)) if rng.random() < 0.1 else SignedBy(),
            duration_ms=rng.choice((0, 300_000, 300_000)),
            bound_ms=300_000 if rng.random() < 0.1 else UNSET,
            selection="manual" if rng.random() < 0.1 else "automatic",
            deadline_ms=self.world.now + 900_000 if rng.random() < 0.1 else 0,
        )

    def lease(self) -> str | None:
        """Some lease that is not released."""
        ids = [LEASES.key(lease) for lease in self.world.machine.store.scan(LEASES) if not lease.released]
        return self.rng.choice(ids) if ids else None

    def generation(self, id: str) -> int:
        """Mostly the right one."""
        return self.world.lease(id).generation + (self.rng.random() < 0.05)

    def report(self) -> tuple[str, Message]:
        """A report on some lease, mostly the next one that makes sense."""
        id = self.lease()
        if id is None:
            return self.create()
        lease = self.world.lease(id)
        who = NAME_OF[lease.provider]
        if lease.state is LeaseState.MATCHED:
            if self.rng.random() < (0.1 if lease.pulling_ms else 0.4):
                return who, m.ReportPulling(generation=self.generation(id), lease=id)
            return who, self.world.report(id, self.generation(id))
        if lease.state is LeaseState.ACTIVE and self.rng.random() < 0.3:
            since = self.world.now - self.rng.choice((0, 1, 30_000, 10**7))
            return who, m.ReportDown(generation=self.generation(id), lease=id, reason="xid", since_ms=since)
        return who, m.ReportUp(generation=self.generation(id), lease=id)

    def release(self) -> tuple[str, Message]:
        """A release of a closed lease, if there is one."""
        closed = [id for _ in range(5) if (id := self.lease()) and self.world.lease(id).state is LeaseState.CLOSED]
        id = closed[0] if closed else self.lease()
        if id is None:
            return self.create()
        return NAME_OF[self.world.lease(id).provider], self.world.released(id, clean=self.rng.random() < 0.9)

    def end(self) -> tuple[str, Message]:
        """A provider ends a lease."""
        id = self.lease()
        if id is None or self.rng.random() < 0.4:
            return self.report()
        pulled = self.world.machine.store.find(LEASES, "pulling", True)
        if pulled and self.rng.random() < 0.5:
            lease = self.rng.choice(pulled)
            return NAME_OF[lease.provider], self.world.end(LEASES.key(lease), self.rng.choice(("image_failed", "host_failed")))
        if self.world.lease(id).state is LeaseState.MATCHED:
            return NAME_OF[self.world.lease(id).provider], self.world.end(id, "manifest_missing")
        return NAME_OF[self.world.lease(id).provider], self.world.end(
            id, self.rng.choice(("policy", "image_failed", "host_failed"))
        )

    def close(self) -> tuple[str, Message]:
        """A tenant ends a deployment or a group."""
        open_ones = [d for d in self.world.machine.store.scan(DEPLOYMENTS) if d.state is DeploymentState.ACTIVE]
        if not open_ones:
            return self.create()
        chosen = self.rng.choice(open_ones)
        if self.rng.random() < 0.5:
            return NAME_OF[chosen.owner], m.CloseGroup(dseq=chosen.dseq, gseq=self.rng.randrange(1, 3))
        return NAME_OF[chosen.owner], m.CloseDeployment(dseq=chosen.dseq)

    def money(self) -> tuple[str, Message]:
        """Somebody adds to a purse or takes from it."""
        purses = [f"{d.owner}/{d.dseq}" for d in self.world.machine.store.scan(DEPLOYMENTS)]
        if not purses:
            return self.create()
        dry = [purse.id for purse in self.world.machine.store.scan(PURSES) if purse.state == "dry"]
        if dry and self.rng.random() < 0.7:
            purses = dry
        purse, amount = self.rng.choice(purses), str(self.rng.choice((1, 50_000, CREDIT)))
        if self.rng.random() < 0.2:
            return self.rng.choice(TENANTS + PROVIDERS), Settle(purse=purse)
        if self.rng.random() < 0.7:
            return self.rng.choice(TENANTS), Deposit(amount=amount, purse=purse)
        return NAME_OF[purse.split("/")[0]], Withdraw(amount=amount, purse=purse)

    def other(self) -> tuple[str, Message]:
        """Selection by hand, attestations, parameters, another manifest."""
        rng, store = self.rng, self.world.machine.store
        orders = [order for order in store.scan(ORDERS) if order.state == "open"]
        bids = list(store.scan(BIDS))
        provider = ADDRESS[rng.choice(PROVIDERS)]
        old = store.get(store.tables["attestation"], f"{provider}/{ADDRESS['aud']}")
        deployments = list(store.scan(DEPLOYMENTS))[:1]
        choices: list[tuple[str, Message]] = [
            ("lee", SetParameter(name="silence_ms", value=rng.choice((120_000, 150_000)))),
            ("aud", m.Attest(attributes={"region": "eu"}, provider=provider, version=old.version if old else 0)),  # type: ignore[attr-defined]
            ("aud", m.Retract(provider=provider)),
            *[(NAME_OF[d.owner], m.UpdateDeployment(dseq=d.dseq, hash="b" * 64, version=d.version)) for d in deployments],
        ]
        if orders and bids:
            # Only those of manual selection wait for their owner.
            order, bid = rng.choice([o for o in orders if o.group.selection == "manual"] or orders), rng.choice(bids)
            take = m.TakeBid(host=bid.host, order=ORDERS.key(order), provider=bid.provider, version=bid.version)
            choices += [(NAME_OF[order.owner], take)] * 3
        return rng.choice(choices)


def settle(world: World) -> None:
    """Faults stop: tenants close everything, providers release everything."""
    store = world.machine.store
    for deployment in list(store.scan(DEPLOYMENTS)):
        if deployment.state is DeploymentState.ACTIVE:
            world.ok(NAME_OF[deployment.owner], m.CloseDeployment(dseq=deployment.dseq))
    for lease in list(store.scan(LEASES)):
        if not lease.released:
            world.ok(NAME_OF[lease.provider], world.released(LEASES.key(lease)))


def hosts_of(world: World) -> list[str]:
    """Keys of all hosts."""
    return [HOSTS.key(host) for host in world.machine.store.scan(HOSTS)]
