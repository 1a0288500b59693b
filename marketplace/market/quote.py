"""What a group would cost now, and why where nothing fits: for readers, from state alone."""

from collections.abc import Sequence

import msgspec

from ledger.machine import params
from ledger.machine.store import Store
from ledger.protocol.money import parse_amount
from marketplace.market.placement import Fit, Miss, ask_of, entry_of, examine, offers_models
from marketplace.market.tables import BIDS, host_key
from marketplace.market.words import closeness, nearest
from marketplace.protocol.resources import Group


class Quote(msgspec.Struct, frozen=True):
    """The cheapest bid for a group now; or none, with how many bids fail which test and the nearest miss.

    `rate_per_hour` is a decimal string in micro-units, "" where nothing fits. Each group is quoted alone.
    """

    bid_version: int
    denomination: str
    devices: tuple[str, ...]
    fitting: int
    """How many bids fit."""
    group: str
    hold_per_hour: str
    """What a pull beyond the free time costs, in micro-units, as a decimal string ("" where nothing fits)."""
    host: str
    least_ms: int
    """The bid's shortest duration: who ends the lease before pays for all of it (0: it has none)."""
    models: dict[str, int]
    most_ms: int
    """The bid's longest duration (0: no end)."""
    nearest: str
    provider: str
    rate_per_hour: str
    refusals: dict[str, int]


def quote(store: Store, groups: Sequence[Group], denomination: str, now_ms: int) -> list[Quote]:
    """A quote for each group at `now_ms` (block time); bids that start to count with the next block are included.

    AMOUNT_REFUSED where a limit is no amount.
    """
    return [_quote(store, group, denomination, now_ms) for group in groups]


def _quote(store: Store, group: Group, denomination: str, now_ms: int) -> Quote:
    ask = ask_of(group, denomination)
    best: Fit | None = None
    closest: Miss | None = None
    refusals: dict[str, int] = {}
    fitting = bids = 0
    for bid in store.scan(BIDS):
        if bid.expires_ms <= now_ms:
            continue
        bids += 1
        if not offers_models(group, bid.offer.devices):
            # The first test; a book has many bids of other models, and their capacity need not be worked out.
            refusals["gpu_model"] = refusals.get("gpu_model", 0) + 1
            continue
        entry = entry_of(store, host_key(bid.provider, bid.host))
        assert entry is not None
        found = examine(store, ask, entry, None)
        if isinstance(found, Fit):
            fitting += 1
            if best is None or _rank(found) < _rank(best):
                best = found
        else:
            refusals[found.test] = refusals.get(found.test, 0) + 1
            if closest is None or closeness(found) < closeness(closest):
                closest = found
    return Quote(
        bid_version=best.entry.bid.version if best else 0,
        denomination=denomination,
        devices=best.devices if best else (),
        fitting=fitting,
        group=group.name,
        hold_per_hour=str(min(parse_amount(best.entry.bid.terms.hold_per_hour), best.rate)) if best else "",
        host=best.entry.bid.host if best else "",
        least_ms=best.entry.bid.terms.least_ms if best else 0,
        models=_models(best) if best else {},
        most_ms=best.entry.bid.terms.max_duration_ms if best else 0,
        nearest="" if best else nearest(closest, group, denomination, bids, params.chain(store).protocol),
        provider=best.entry.bid.provider if best else "",
        rate_per_hour=str(best.rate) if best else "",
        refusals=dict(sorted(refusals.items())),
    )


def _rank(fit: Fit) -> tuple[int, int, str]:
    return (fit.rate, fit.entry.bid.height, fit.entry.key)


def _models(fit: Fit) -> dict[str, int]:
    by_id = {device.id: device.model for device in fit.entry.bid.offer.devices}
    models: dict[str, int] = {}
    for id in fit.devices:
        models[by_id[id]] = models.get(by_id[id], 0) + 1
    return models
