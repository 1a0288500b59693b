"""Planted bugs of the market: each is a mistake that somebody has made somewhere, and each must be found."""

import pytest

from ledger.machine import escrow
from marketplace.market import (
    bonds,
    book,
    claims,
    devices,
    leases,
    liveness,
    matching,
    orders,
    placement,
    pricing,
    pulls,
    reports,
)
from marketplace.market.devices import Choice
from marketplace.market.placement import Free
from marketplace.protocol.resources import Group
from tests.selftest.bug import Bug

LEASES = "tests/marketplace/market/test_leases.py::"
MATCHING = "tests/marketplace/market/test_matching.py::"
PRICING = "tests/marketplace/market/test_pricing.py::"
BONDS = "tests/marketplace/market/test_bonds.py::"
PULLS = "tests/marketplace/market/test_pulls.py::"
CODES = "tests/marketplace/market/test_codes.py::"


def double_sold_device(patch: pytest.MonkeyPatch) -> None:
    """Free capacity forgets that devices are leased."""
    real = placement.free_capacity

    def wrong(store, bid):  # type: ignore[no-untyped-def]
        free = real(store, bid)
        return Free(
            cpu_milli=free.cpu_milli,
            devices=tuple(sorted(bid.offer.devices, key=lambda d: d.id)),
            memory=free.memory,
            ports=free.ports,
            storage=free.storage,
        )

    patch.setattr(placement, "free_capacity", wrong)


def capacity_freed_at_close(patch: pytest.MonkeyPatch) -> None:
    """Devices are freed when the lease closes, not when its provider says that they are clean."""
    real = leases.close

    def wrong(ctx, lease, reason, *, reopen, detail=""):  # type: ignore[no-untyped-def]
        real(ctx, lease, reason, reopen=reopen, detail=detail)
        claims.release(ctx, lease.devices, leases.lease_key(lease), clean=True)

    patch.setattr(leases, "close", wrong)


def generation_not_checked(patch: pytest.MonkeyPatch) -> None:
    """A report of an older generation is believed."""
    real = reports._own

    def wrong(ctx, id, generation):  # type: ignore[no-untyped-def]
        lease = ctx.store.get(reports.LEASES, id)
        return real(ctx, id, lease.generation if lease else generation)

    patch.setattr(reports, "_own", wrong)


def meter_runs_through_silence(patch: pytest.MonkeyPatch) -> None:
    """A silent host is paid until it was found silent."""
    real = leases.go_down

    def wrong(ctx, lease, reason, since_ms):  # type: ignore[no-untyped-def]
        real(ctx, lease, reason, ctx.time if reason == "silence" else since_ms)

    patch.setattr(leases, "go_down", wrong)


def gap_is_blamed(patch: pytest.MonkeyPatch) -> None:
    """When the chain stood still, hosts are judged as if they could have beaten."""
    real = liveness.clock

    def wrong(store):  # type: ignore[no-untyped-def]
        now = real(store)
        return type(now)(arrivals=now.arrivals, last_ms=now.last_ms, resumed_ms=0)

    patch.setattr(liveness, "clock", wrong)


def bid_counts_at_once(patch: pytest.MonkeyPatch) -> None:
    """An order may take a bid of its own block."""
    real = placement.examine

    def wrong(store, ask, entry, height):  # type: ignore[no-untyped-def]
        return real(store, ask, entry, None)

    patch.setattr(matching, "examine", wrong)


def price_rounded_per_unit(patch: pytest.MonkeyPatch) -> None:
    """The ask is rounded down."""
    patch.setattr(pricing, "ceil_div", lambda numerator, denominator: numerator // denominator)


def first_fit_is_not_cheapest(patch: pytest.MonkeyPatch) -> None:
    """The first bid that fits wins, though the GPU's price is not all of the ask."""
    real = matching.find

    def wrong(ctx, book_, ask):  # type: ignore[no-untyped-def]
        for _, entry in book_.candidates(ask.group):
            found = matching.examine(ctx.store, ask, entry, ctx.height)
            if isinstance(found, placement.Fit):
                return found, 1
        return real(ctx, book_, ask)

    patch.setattr(matching, "find", wrong)


def largest_card_counts(patch: pytest.MonkeyPatch) -> None:
    """GPUs of one replica may be of different kinds."""
    real = devices.kind_of
    patch.setattr(devices, "kind_of", lambda device: (*real(device)[:2], 81_920, "sxm"))


def island_ignored(patch: pytest.MonkeyPatch) -> None:
    """Devices are taken by id alone."""
    patch.setattr(devices, "_from_pool", lambda pool, count: list(pool[:count]))


def order_reopened_after_tenants_fault(patch: pytest.MonkeyPatch) -> None:
    """A broken image is offered to the market for ever."""
    patch.setattr(leases, "HOST_FAULTS", frozenset({"policy", "host_failed", "image_failed", "start_failed"}))


def ended_bid_gets_the_group_again(patch: pytest.MonkeyPatch) -> None:
    """A provider that ended a lease gets the same group at once."""
    real = orders.reopen
    patch.setattr(orders, "reopen", lambda ctx, order, *, avoid="": real(ctx, order))


def stale_book(patch: pytest.MonkeyPatch) -> None:
    """The book does not hear of released leases."""
    patch.setattr(book.Book, "_lease_changed", lambda self, old, new: None)
    patch.setattr(book.Book, "_device_changed", lambda self, old, new: None)


def memory_volumes_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Memory-backed volumes do not count as memory at the host."""
    real = pricing.need_of

    def wrong(group):  # type: ignore[no-untyped-def]
        need = real(group)
        return type(need)(
            cpu_milli=need.cpu_milli,
            gpus=need.gpus,
            memory=need.plain_memory,
            plain_memory=need.plain_memory,
            ports=need.ports,
            ram=need.ram,
            storage=need.storage,
        )

    patch.setattr(placement, "need_of", wrong)


def replicas_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A unit's GPUs are chosen for one replica, however many there are."""
    real = devices.choose

    def wrong(group, free, price_of):  # type: ignore[no-untyped-def]
        found = real(group, free, price_of)
        kept = sum(unit.gpu.count for unit in group.resources if unit.gpu)
        return Choice(found.devices[:kept], found.models, found.fits)

    patch.setattr(placement, "choose", wrong)


def hold_paid_to_provider(patch: pytest.MonkeyPatch) -> None:
    """The hold for a missing manifest goes to the provider, who then gains by losing manifests."""
    real = escrow.charge

    def wrong(ctx, purse, to, amount):  # type: ignore[no-untyped-def]
        return real(ctx, purse, ctx.principal, amount)

    patch.setattr(escrow, "charge", wrong)


def unclean_release_frees(patch: pytest.MonkeyPatch) -> None:
    """A device of an unclean release goes to the next tenant."""
    real = claims.release
    patch.setattr(claims, "release", lambda ctx, held, lease, *, clean: real(ctx, held, lease, clean=True))


def squatted_device(patch: pytest.MonkeyPatch) -> None:
    """Any host may offer a device that another has on offer."""
    patch.setattr(claims, "check", lambda ctx, host, offer: None)


def bond_of_the_first_host(patch: pytest.MonkeyPatch) -> None:
    """A bond is counted once for all hosts of a provider."""
    patch.setattr(bonds, "needed", lambda store, minimum, provider, denomination, besides="": 0)


def bond_leaves_under_leases(patch: pytest.MonkeyPatch) -> None:
    """A bond leaves after the cooling time, whatever stands on it."""
    patch.setattr(bonds, "stands", lambda store, provider: False)


def policy_is_cut(patch: pytest.MonkeyPatch) -> None:
    """A provider that refuses a workload by its policy loses bond."""
    patch.setattr(bonds, "CUTS", {**bonds.CUTS, "policy": "bond_cut_early"})


def term_owed_after_a_fault(patch: pytest.MonkeyPatch) -> None:
    """A tenant pays the rest of a term that the provider did not give."""
    real = escrow.close_meter
    patch.setattr(escrow, "close_meter", lambda ctx, id, *, early=False: real(ctx, id, early=True))


def failed_pull_billed(patch: pytest.MonkeyPatch) -> None:
    """Whoever ends a lease that is being pulled, its provider gets the hold."""
    real = pulls.close

    def wrong(ctx, lease, *, billed):  # type: ignore[no-untyped-def]
        del billed
        return real(ctx, lease, billed=True)

    patch.setattr(pulls, "close", wrong)


def hold_runs_through_a_gap(patch: pytest.MonkeyPatch) -> None:
    """The hold is billed for time in which the chain stood still."""
    patch.setattr(pulls, "stood_still", lambda ctx, last_ms: None)


def need_binds(patch: pytest.MonkeyPatch) -> None:
    """Who needs a machine for a day is bound to pay for a day."""
    patch.setattr(Group, "most_bound_ms", property(lambda group: group.duration_ms))


def leases_hold_no_bond(patch: pytest.MonkeyPatch) -> None:
    """A part of a bond leaves that a fault of an open lease could still cost."""

    def wrong(store, provider, denomination):  # type: ignore[no-untyped-def]
        return bonds.needed(store, bonds.minimum_of(store), provider, denomination)

    patch.setattr(bonds, "demanded", wrong)


BUGS: dict[str, Bug] = {
    "market-double-sold-device": Bug(
        double_sold_device, (LEASES + "test_capacity_is_free_only_after_release",), "a device is leased twice"
    ),
    "market-capacity-freed-at-close": Bug(
        capacity_freed_at_close, (LEASES + "test_capacity_is_free_only_after_release",), "containers of two tenants share a GPU"
    ),
    "market-generation-not-checked": Bug(
        generation_not_checked, (LEASES + "test_a_deposit_resumes_at_the_next_generation",), "an old daemon acts on a new lease"
    ),
    "market-meter-runs-through-silence": Bug(
        meter_runs_through_silence, (LEASES + "test_silent_host_is_not_paid_past_its_last_beat",), "a dead host is paid"
    ),
    "market-gap-is-blamed": Bug(
        gap_is_blamed, (LEASES + "test_a_gap_between_blocks_blames_nobody",), "a node's restart closes every lease"
    ),
    "market-bid-counts-at-once": Bug(
        bid_counts_at_once, (MATCHING + "test_a_bid_counts_from_the_block_after_its_own",), "an order is priced by who saw it"
    ),
    "market-price-rounded-down": Bug(
        price_rounded_per_unit, (PRICING + "test_the_ask_is_rounded_up_once",), "rounding goes to the other side"
    ),
    "market-first-fit-wins": Bug(
        first_fit_is_not_cheapest, (MATCHING + "test_matches_equal_the_oracle",), "a dearer bid wins"
    ),
    "market-mixed-cards": Bug(
        largest_card_counts, (MATCHING + "test_matches_equal_the_oracle",), "2 × 80 GB is served by 80 + 40"
    ),
    "market-island-ignored": Bug(
        island_ignored, (MATCHING + "test_devices_stay_on_one_island",), "a gang's GPUs are not linked"
    ),
    "market-tenants-fault-reopened": Bug(
        order_reopened_after_tenants_fault,
        (LEASES + "test_who_caused_the_end_decides_what_becomes_of_the_order",),
        "a broken image goes round the market",
    ),
    "market-ended-bid-again": Bug(
        ended_bid_gets_the_group_again,
        (LEASES + "test_who_caused_the_end_decides_what_becomes_of_the_order",),
        "a failing host takes the same group block after block",
    ),
    "market-stale-book": Bug(
        stale_book, (LEASES + "test_capacity_is_free_only_after_release",), "the cache and the state disagree"
    ),
    "market-memory-volumes-forgotten": Bug(
        memory_volumes_forgotten, (MATCHING + "test_each_test_of_a_bid",), "a host's memory is sold twice"
    ),
    "market-replicas-forgotten": Bug(
        replicas_forgotten, (MATCHING + "test_devices_of_every_replica_are_leased",), "replicas share GPUs"
    ),
    "market-hold-paid-to-provider": Bug(
        hold_paid_to_provider, (LEASES + "test_missing_manifest_costs_the_tenant_the_hold",), "losing a manifest pays"
    ),
    "market-unclean-release-frees": Bug(
        unclean_release_frees, (LEASES + "test_unclean_release_cordons_the_devices",), "a tenant meets the last one's memory"
    ),
    "market-bond-of-the-first-host": Bug(
        bond_of_the_first_host,
        (BONDS + "test_a_bid_needs_a_bond_for_each_gpu_of_the_provider",),
        "one bond backs a thousand GPUs",
    ),
    "market-bond-leaves-under-leases": Bug(
        bond_leaves_under_leases, (BONDS + "test_a_bond_waits_for_the_last_bid_and_lease",), "nothing is left to cut"
    ),
    "market-policy-is-cut": Bug(
        policy_is_cut, (BONDS + "test_what_each_end_costs_the_provider",), "refusing a workload costs money"
    ),
    "market-term-owed-after-a-fault": Bug(
        term_owed_after_a_fault, (BONDS + "test_nothing_is_owed_for_what_the_provider_does_not_give",), "a fault pays"
    ),
    "market-squatted-device": Bug(
        squatted_device, (CODES + "test_two_hosts_do_not_offer_one_device",), "one GPU is on offer twice"
    ),
    "market-failed-pull-billed": Bug(
        failed_pull_billed, (PULLS + "test_a_pull_that_comes_to_nothing_costs_nothing",), "a pull that never ends pays"
    ),
    "market-hold-runs-through-a-gap": Bug(
        hold_runs_through_a_gap, (PULLS + "test_a_gap_between_blocks_is_not_billed",), "a chain that stood still costs tenants"
    ),
    "market-need-binds": Bug(
        need_binds, (BONDS + "test_a_group_says_what_it_lets_itself_be_bound_to",), "a term binds who did not see it"
    ),
    "market-leases-hold-no-bond": Bug(
        leases_hold_no_bond, (BONDS + "test_an_open_lease_holds_its_dearest_cut",), "nothing is left to cut"
    ),
}  # fmt: skip
