"""What must always hold about money: checked on every block for what changed, and in full on demand."""

from collections.abc import Iterable
from typing import Any

from ledger.machine import params
from ledger.machine.accounts import ACCOUNTS, SUPPLIES
from ledger.machine.bonds import BONDS
from ledger.machine.held import HELD, fee_of, held_of
from ledger.machine.purse import CLOSED, METERS, OPEN, PURSES, accrued_at, cost_at, dry_instant, meters_of
from ledger.machine.store import Store, Table
from ledger.protocol.errors import Code


def block_moves(changes: Iterable[tuple[Table[Any], str, Any, Any]]) -> None:
    """Assert that a block's changes keep, per denomination, holdings = minted − burned, and nothing negative."""
    moved: dict[str, int] = {}
    for table, key, old, new in changes:
        if table is ACCOUNTS:
            before: tuple[Any, ...] = old.money if old is not None else ()
            after = new.money
            if before is after:
                continue
            if len(before) == len(after) == 2 and before[0] == after[0]:
                assert after[1] > 0, f"account {key} holds {after[1]} {after[0]}"
                moved[after[0]] = moved.get(after[0], 0) + after[1] - before[1]
                continue
            for at in range(0, len(after), 2):
                assert after[at + 1] > 0, f"account {key} holds {after[at + 1]} {after[at]}"
                moved[after[at]] = moved.get(after[at], 0) + after[at + 1]
            for at in range(0, len(before), 2):
                moved[before[at]] = moved.get(before[at], 0) - before[at + 1]
        elif table is PURSES:
            assert new.balance >= 0, f"purse {key} holds {new.balance}"
            change = new.balance - (old.balance if old is not None else 0)
            moved[new.denomination] = moved.get(new.denomination, 0) + change
        elif table is BONDS:
            assert new.balance >= new.leaving >= 0, f"bond {key} holds {new.balance}, of which {new.leaving} leaves"
            change = new.balance - (old.balance if old is not None else 0)
            moved[new.denomination] = moved.get(new.denomination, 0) + change
        elif table is HELD:
            record = new or old
            assert record.amount >= 0, f"{record.amount} of the earnings of {key} are held back"
            change = (new.amount if new is not None else 0) - (old.amount if old is not None else 0)
            moved[record.denomination] = moved.get(record.denomination, 0) + change
        elif table is SUPPLIES:
            change = new.minted - new.burned - (old.minted - old.burned if old is not None else 0)
            moved[key] = moved.get(key, 0) - change
    for denomination, amount in moved.items():
        assert amount == 0, f"{amount} micro-units of {denomination} came from nowhere"


def check_all(store: Store) -> None:
    """Assert every invariant of the ledger's own records over the whole state."""
    held: dict[str, int] = {}
    for account in store.scan(ACCOUNTS):
        for denomination, amount in account.balances.items():
            assert amount > 0, f"account {account.address} holds {amount}"
            held[denomination] = held.get(denomination, 0) + amount
    now = params.chain(store).time_ms
    for purse in store.scan(PURSES):
        _check_purse(store, purse, now)
        held[purse.denomination] = held.get(purse.denomination, 0) + purse.balance
    for bond in store.scan(BONDS):
        name = f"bond {bond.address}/{bond.denomination}"
        assert bond.balance >= bond.leaving >= 0, f"{name} holds {bond.balance}, of which {bond.leaving} leaves"
        assert bond.posted == bond.balance + bond.cut + bond.returned, f"{name}: {bond.posted} in"
        held[bond.denomination] = held.get(bond.denomination, 0) + bond.balance
    for kept in store.scan(HELD):
        assert 0 <= kept.amount <= kept.most, f"{kept.amount} of at most {kept.most} are held of {kept.meter}"
        assert kept.amount == sum(part for _, part in kept.sources), f"what is held of {kept.meter} came from elsewhere"
        held[kept.denomination] = held.get(kept.denomination, 0) + kept.amount
    for supply in store.scan(SUPPLIES):
        exists = supply.minted - supply.burned
        assert held.pop(supply.denomination, 0) == exists, f"{supply.denomination}: {exists} should exist"
    assert not held, f"money of unknown denominations: {held}"
    for meter in store.scan(METERS):
        open_in_purse = meter.id in store.require(PURSES, meter.purse, Code.PURSE_NOT_FOUND).meters
        assert open_in_purse != meter.closed, f"meter {meter.id} and its purse disagree"
        if not meter.since_ms:
            assert meter.paid == cost_at(meter, 0), f"meter {meter.id} is stopped and not paid exactly"
        assert meter.fee == fee_of(meter, held_of(store, meter.id)), f"fee of meter {meter.id}"


def _check_purse(store: Store, purse: Any, now: int) -> None:
    name = f"purse {purse.id}"
    assert purse.balance == sum(left for _, left in purse.deposits) >= 0, f"{name}: deposits differ from the balance"
    assert all(left > 0 for _, left in purse.deposits), f"{name}: an empty deposit"
    spent = purse.paid + purse.charged + purse.withdrawn + purse.refunded
    assert purse.deposited == spent + purse.balance, f"{name}: {purse.deposited} in, {spent} out"
    meters = meters_of(store, purse)
    assert 0 <= accrued_at(purse, meters, now) <= purse.balance, f"{name}: more is due than is there"
    if purse.state == OPEN:
        assert purse.dry_at_ms == dry_instant(purse.balance, meters), f"{name}: wrong dry instant"
        assert not purse.dry_at_ms or purse.dry_at_ms >= now, f"{name}: dry since {purse.dry_at_ms}"
    else:
        assert not any(meter.since_ms for meter in meters), f"{name}: {purse.state} with a running meter"
    if purse.state == CLOSED:
        assert (purse.balance, purse.meters) == (0, ()), f"{name}: closed and not empty"
