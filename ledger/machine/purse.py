"""Records of escrow and their arithmetic: what a meter costs, and the instant at which a purse runs dry."""

from collections.abc import Sequence
from typing import Final

import msgspec

from ledger.machine import params
from ledger.machine.store import Store, Table
from ledger.protocol.errors import Code
from ledger.protocol.money import MS_PER_HOUR, metered

OPEN: Final = "open"
DRY: Final = "dry"
CLOSED: Final = "closed"
_LAST_MS: Final = 2**53 - 1


class Meter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Metered time of one payee. `up_ms` sums the closed intervals; it runs since `since_ms` (0: it is stopped).

    `paid` micro-units left the purse for it, `fee` of them for the network, `credited` of them came back; time up to
    `settled_ms` is paid and can not be taken back. `take_ppm` is fixed when the meter is added. `least_ms` is the
    shortest time that its owner promised to pay for.
    """

    closed: bool
    fee: int
    id: str
    paid: int
    payee: str
    purse: str
    rate_per_hour: int
    settled_ms: int
    since_ms: int
    take_ppm: int
    up_ms: int
    credited: int = 0
    least_ms: int = 0


class Purse(msgspec.Struct, frozen=True):
    """Escrow shared by meters. `balance` = sum of `deposits`, (depositor, what is left) oldest first, in micro-units.

    deposited = paid (fees included, less what came back) + charged + withdrawn + refunded + balance, always. `dry_at_ms`
    is the last millisecond that the balance pays for (0: no end in sight); in a dry purse, when its meters stopped.
    """

    balance: int
    charged: int
    denomination: str
    deposited: int
    deposits: tuple[tuple[str, int], ...]
    dry_at_ms: int
    id: str
    meters: tuple[str, ...]
    """Ids of meters that are not closed, in order of adding."""
    owner: str
    paid: int
    refunded: int
    state: str
    warned: bool
    withdrawn: int


class PurseView(msgspec.Struct, frozen=True):
    """What a reader sees of a purse at an instant; `free` = `balance` − `accrued` − `dues` − `reserve`, at least 0.

    `dues` is what is left to pay of promised shortest terms, `reserve` what the running meters cost for a while more.
    All in micro-units.
    """

    balance: int
    accrued: int
    dues: int
    reserve: int
    free: int
    rate_per_hour: int
    dry_at_ms: int | None
    state: str


PURSES: Table[Purse] = Table("purse", Purse, lambda p: p.id)
METERS: Table[Meter] = Table("meter", Meter, lambda m: m.id)


def up_at(meter: Meter, now_ms: int) -> int:
    """Milliseconds the meter was up until `now_ms`."""
    return meter.up_ms + (max(0, now_ms - meter.since_ms) if meter.since_ms else 0)


def cost_at(meter: Meter, now_ms: int) -> int:
    """Cost in micro-units until `now_ms`: the closed form, rounded down."""
    return metered(meter.rate_per_hour, up_at(meter, now_ms))


def horizon(purse: Purse, now_ms: int) -> int:
    """`now_ms`, or the purse's dry instant where that lies before it: no meter runs beyond."""
    return min(now_ms, purse.dry_at_ms) if purse.dry_at_ms else now_ms


def meters_of(store: Store, purse: Purse) -> list[Meter]:
    """The meters of a purse that are not closed, in order of adding."""
    return [store.require(METERS, id, Code.PURSE_NOT_FOUND) for id in purse.meters]


def accrued_at(purse: Purse, meters: Sequence[Meter], now_ms: int) -> int:
    """What the meters cost until `now_ms` and were not paid yet, in micro-units."""
    until = horizon(purse, now_ms)
    return sum(cost_at(meter, until) - meter.paid for meter in meters)


def dues_at(purse: Purse, meters: Sequence[Meter], now_ms: int) -> int:
    """What is left of the shortest terms that were promised, beyond the cost until `now_ms`, in micro-units."""
    until = horizon(purse, now_ms)
    return sum(max(0, metered(m.rate_per_hour, m.least_ms) - cost_at(m, until)) for m in meters if m.least_ms)


def reserve_at(purse: Purse, meters: Sequence[Meter], now_ms: int, reserve_ms: int) -> int:
    """What the running meters will cost in `reserve_ms` from `now_ms` on, in micro-units."""
    until = horizon(purse, now_ms)
    return sum(cost_at(m, until + reserve_ms) - cost_at(m, until) for m in meters if m.since_ms) if reserve_ms else 0


def dry_instant(balance: int, meters: Sequence[Meter]) -> int:
    """Last ms at which the unpaid costs of all meters together do not exceed `balance`; 0 where that never ends.

    Each cost is rounded down on its own, so the sum lies less than one unit a meter under the exact line
    (R·t + A) / 3,600,000: the answer is sought between the two crossings that follow from that.
    """
    running = [meter for meter in meters if meter.since_ms and meter.rate_per_hour]
    rate = sum(meter.rate_per_hour for meter in running)
    if not rate:
        return 0
    # What may be spent in all by the running meters; stopped ones only have what is owed already.
    purse = balance + sum(meter.paid for meter in running)
    purse -= sum(cost_at(meter, 0) - meter.paid for meter in meters if not (meter.since_ms and meter.rate_per_hour))
    offset = sum(meter.rate_per_hour * (meter.up_ms - meter.since_ms) for meter in running)
    low = (purse * MS_PER_HOUR - offset) // rate
    high = ((purse + len(running)) * MS_PER_HOUR - offset - 1) // rate
    while low < high:
        middle = (low + high + 1) // 2
        if sum(cost_at(meter, middle) for meter in running) <= purse:
            low = middle
        else:
            high = middle - 1
    return low if low <= _LAST_MS else 0


def consume(deposits: tuple[tuple[str, int], ...], amount: int) -> tuple[tuple[str, int], ...]:
    """Deposits after `amount` is taken, oldest first."""
    rest = []
    for depositor, left in deposits:
        taken = min(left, amount)
        amount -= taken
        if left > taken:
            rest.append((depositor, left - taken))
    assert amount == 0, "more is taken than was deposited"
    return tuple(rest)


def purse_view(store: Store, purse_id: str, now_ms: int) -> PurseView:
    """What a reader sees of a purse at `now_ms`; PURSE_NOT_FOUND."""
    purse = store.require(PURSES, purse_id, Code.PURSE_NOT_FOUND)
    meters = meters_of(store, purse)
    accrued = accrued_at(purse, meters, now_ms)
    dues = dues_at(purse, meters, now_ms)
    reserve = reserve_at(purse, meters, now_ms, params.value(store, "purse_reserve_ms"))
    return PurseView(
        balance=purse.balance,
        accrued=accrued,
        dues=dues,
        reserve=reserve,
        free=max(0, purse.balance - accrued - dues - reserve),
        rate_per_hour=sum(meter.rate_per_hour for meter in meters if meter.since_ms),
        dry_at_ms=purse.dry_at_ms or None,
        state=purse.state,
    )


def total_cost(store: Store, meter_id: str, now_ms: int) -> int:
    """What a meter cost until `now_ms`, paid or not, in micro-units; PURSE_NOT_FOUND where there is no such meter."""
    meter = store.require(METERS, meter_id, Code.PURSE_NOT_FOUND)
    purse = store.require(PURSES, meter.purse, Code.PURSE_NOT_FOUND)
    return cost_at(meter, horizon(purse, now_ms))
