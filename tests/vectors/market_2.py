"""What protocol 2 changes in the market, for a golden vector: a long pull, a term that is accepted, a part of a bond."""

import json
from typing import Any

import msgspec

from ledger.machine.machine import Machine
from ledger.protocol.encoding import encode
from ledger.protocol.messages import Upgrade
from marketplace.market import pulls
from marketplace.market.module import Market
from marketplace.protocol import messages as m
from tests.marketplace.market.world import ADDRESS, CREDIT, HOUR, World, genesis, group, offer


def story() -> dict[str, Any]:
    """A market that goes from protocol 1 to 2: the hashes of all blocks, and the records that are new in kind."""
    fields = {"bond_minimum": CREDIT, "bond_cooling_ms": 60_000, "take_rate_ppm": 10_000}
    world = World(Machine(msgspec.structs.replace(genesis(**fields), protocol=1), [Market()]), check=False)
    world.provider()
    world.ok("pat", m.PostBond(amount=str(5 * CREDIT), denomination="ucredit"))
    world.host(hold_per_hour="1234567", min_duration_ms=HOUR)
    world.ok("pat", m.WithdrawBond(amount=str(3 * CREDIT), denomination="ucredit"))
    world.live_until(world.now + 120_000, "pat")
    world.ok("lee", Upgrade(height=world.machine.head.height + 2, protocol=2))
    first = world.id_of(world.leases(world.deploy("ann", group(duration_ms=24 * HOUR, bound_ms=HOUR)))[0])
    world.ok("pat", m.ReportPulling(generation=1, lease=first))
    world.live_until(world.now + 200_007, "pat")
    pulled = encode(world.lease(first)).decode()
    world.ok("pat", world.report(first))
    world.bid(bid=offer())
    world.deploy("bob", group(duration_ms=HOUR, bound_ms=0))
    world.ok("ann", m.CloseDeployment(dseq=1))
    names = (f"lease/{first}", f"meter/{pulls.hold_of(first)}", f"order/{ADDRESS['bob']}/1/1/1", f"bond/{ADDRESS['pat']}/ucredit")
    return {
        "head": json.loads(encode(world.machine.head)),
        "blocks": [result.header.hash for result in world.results],
        "pulled": pulled,
        "records": {name: world.machine.prove(name).value for name in names},
    }
