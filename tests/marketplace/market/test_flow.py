"""From a bid and an order to a paid lease, and everything that can happen in between."""

from ledger.machine.accounts import balance
from marketplace.protocol import messages as m
from marketplace.protocol.events import LeaseEnded, LeaseMatched, OrderWaiting
from marketplace.protocol.records import DeploymentState, DeviceState, LeaseState, OrderState
from tests.marketplace.market.world import ADDRESS, CREDIT, HOUR, World, device, offer, prices

RICH = 10**6 * CREDIT


def test_from_bid_to_paid_lease() -> None:
    """An order takes the bid in its own block, is metered from ReportActive on, and closing pays and refunds to the unit."""
    world = World()
    world.provider()
    world.host()
    deployment = world.deploy()
    lease = world.leases(deployment)[0]
    id = world.id_of(lease)

    assert lease.state is LeaseState.MATCHED
    assert lease.rate_per_hour == 2 * CREDIT
    assert world.order(f"{deployment}/1/1").state is OrderState.MATCHED
    world.ok("pat", world.report(id))
    started = world.now
    world.live_until(started + HOUR + HOUR // 2 - 1_000, "pat")
    world.ok("ann", m.CloseDeployment(dseq=1))

    store = world.machine.store
    assert world.lease(id).state is LeaseState.CLOSED
    assert balance(store, ADDRESS["pat"], "ucredit") == RICH + 3 * CREDIT
    assert balance(store, ADDRESS["ann"], "ucredit") == RICH - 3 * CREDIT
    assert world.deployment(deployment).state is DeploymentState.CLOSED
    assert [event.paid for event in world.events(LeaseEnded)] == [str(3 * CREDIT)]
    world.ok("pat", world.released(id))
    assert world.lease(id).released
