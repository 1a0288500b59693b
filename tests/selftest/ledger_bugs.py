"""Bugs of the ledger that were made on purpose, each with the tests that must find it."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ledger.machine import (
    accounts,
    admission,
    bonds,
    buckets,
    crowding,
    delegation,
    escrow,
    held,
    machine,
    purse,
    remembered,
    snapshot,
    tree,
)
from ledger.machine.context import Context
from ledger.machine.store import Store
from ledger.protocol import keys, proof, transaction
from ledger.protocol.errors import Code, require
from ledger.protocol.money import ceil_div, metered
from tests.selftest.bug import Bug

Patch = pytest.MonkeyPatch
replace: Any = msgspec.structs.replace
MACHINE = "tests/ledger/machine"
PROTOCOL = "tests/ledger/protocol"


def refund_off_by_one(patch: Patch) -> None:
    """A refund keeps one unit back."""
    real = escrow.close_purse

    def close(ctx: Context, purse_id: str) -> None:
        found = ctx.store.get(purse.PURSES, purse_id)
        if found is not None and found.deposits:
            (who, left), *rest = found.deposits
            shorter = ((who, left - 1), *rest) if left > 1 else tuple(rest)
            ctx.store.put(purse.PURSES, replace(found, deposits=shorter))
        real(ctx, purse_id)

    patch.setattr(escrow, "close_purse", close)


def interval_paid_twice(patch: Patch) -> None:
    """What was paid for a meter is forgotten, so that the next payment pays it again."""
    real = escrow._pay

    def pay(ctx: Context, box: Any, meter: Any, until_ms: int) -> Any:
        box, paid = real(ctx, box, meter, until_ms)
        return box, replace(paid, paid=0) if paid.since_ms else paid

    patch.setattr(escrow, "_pay", pay)


def rounded_up(patch: Patch) -> None:
    """Costs are rounded to the payee's side."""
    patch.setattr(purse, "metered", lambda rate, up_ms: ceil_div(rate * up_ms, 3_600_000))


def dry_a_millisecond_late(patch: Patch) -> None:
    """A purse pays for one millisecond more than it can."""
    real = purse.dry_instant
    patch.setattr(escrow, "dry_instant", lambda balance, meters: real(balance, meters) and real(balance, meters) + 1)


def dry_by_the_line(patch: Patch) -> None:
    """The dry instant ignores that each meter's cost is rounded down on its own."""

    def instant(balance: int, meters: Any) -> int:
        rate = sum(meter.rate_per_hour for meter in meters if meter.since_ms)
        since = max((meter.since_ms for meter in meters), default=0)
        return since + balance * 3_600_000 // rate if rate else 0

    patch.setattr(escrow, "dry_instant", instant)


def dues_withdrawn(patch: Patch) -> None:
    """What is owed to meters can be withdrawn."""
    patch.setattr(escrow, "accrued_at", lambda purse, meters, now_ms: 0)


def newest_deposit_first(patch: Patch) -> None:
    """Costs are taken from the newest deposit."""
    real = purse.consume
    patch.setattr(escrow, "consume", lambda deposits, amount: tuple(reversed(real(tuple(reversed(deposits)), amount))))


def fee_rounded_each_time(patch: Patch) -> None:
    """A fee is rounded up, and so over its closed form."""
    real = escrow._pay

    def pay(ctx: Context, box: Any, meter: Any, until_ms: int) -> Any:
        return real(ctx, box, replace(meter, fee=max(0, meter.fee - 1)) if meter.fee else meter, until_ms)

    patch.setattr(escrow, "_pay", pay)


def sequence_at_least(patch: Patch) -> None:
    """An offline sequence may be any that is not below the next."""

    def check(account: Any, tx: Any) -> int:
        if tx.nonce:
            return int(account.sequence)
        require(tx.sequence >= account.sequence, Code.BAD_SEQUENCE)
        return int(tx.sequence)

    patch.setattr(admission, "check_sequence", check)


def id_includes_signature(patch: Patch) -> None:
    """The id changes with the signature."""
    real = transaction.Codec.decode

    def decode(self: Any, raw: bytes) -> Any:
        signed = real(self, raw)
        return replace(signed, id=transaction.digest("transaction/v1", raw).hex())

    patch.setattr(transaction.Codec, "decode", decode)


def refusals_forgotten(patch: Patch) -> None:
    """Only applied transactions are remembered."""
    real = remembered.Remembered.add

    def add(self: Any, id: str, valid_until: int, receipt: Any) -> None:
        if receipt is None or receipt.ok:
            real(self, id, valid_until, receipt)

    patch.setattr(remembered.Remembered, "add", add)


def forgotten_too_early(patch: Patch) -> None:
    """A minute of ids is dropped while some are still valid."""
    real = remembered.Remembered.forget
    patch.setattr(remembered.Remembered, "forget", lambda self, now_ms: real(self, now_ms + 60_000))


def half_applied(patch: Patch) -> None:
    """A refused transaction's first messages stay."""
    patch.setattr(Store, "rollback", lambda self, mark: None)


def indexes_not_undone(patch: Patch) -> None:
    """A rollback restores rows and forgets indexes and watchers."""

    def rollback(self: Any, mark: int) -> None:
        while len(self._log) > mark:
            table, key, old = self._log.pop()
            if old is None:
                del self._rows[table.name][key]
            else:
                self._rows[table.name][key] = old

    patch.setattr(Store, "rollback", rollback)


def root_skips_a_table(patch: Patch) -> None:
    """Delegations are not in the state root."""
    real = Store.changes
    patch.setattr(Store, "changes", lambda self: (c for c in real(self) if c[0].name != "delegation"))


def snapshot_omits_escrow(patch: Patch) -> None:
    """Purses are not in a snapshot."""
    real = snapshot.Shards.dump

    def dump(self: Any, number: int, store: Store) -> bytes:
        rows = store._rows
        store._rows = rows | {"purse": {}, "meter": {}}
        try:
            return real(self, number, store)
        finally:
            store._rows = rows

    patch.setattr(snapshot.Shards, "dump", dump)


def rested_record_is_stale(patch: Patch) -> None:
    """A record that rested once rests with the bytes of that time ever after."""
    real, first = Store.shelved, {}  # type: ignore[var-annotated]

    def shelved(self: Any, table: Any, keys: Any) -> list[bytes | None]:
        lines = real(self, table, keys)
        for at, (key, line) in enumerate(zip(keys, lines, strict=True)):
            if line is not None and self.rests(table):
                lines[at] = self._rows[table.name][key] = first.setdefault((id(self), table.name, key), line)
        return lines

    patch.setattr(Store, "shelved", shelved)


def first_find_is_taken(patch: Patch) -> None:
    """A key's hash is looked for anywhere in a bucket."""
    real = tree._place

    def place(bucket: bytearray, kh: bytes, vh: bytes | None) -> None:
        at = bucket.find(kh)
        if at >= 0 and vh is not None:
            bucket[at + 32 : at + 64] = vh
            return
        real(bucket, kh, vh)

    patch.setattr(tree, "_place", place)


def absence_not_checked(patch: Patch) -> None:
    """A proof's bucket need not show what the proof says."""
    real = proof._bucket_digest

    def digest(entries: bytes, kh: bytes, vh: bytes | None) -> bytes | None:
        there = {entries[at : at + 32]: entries[at + 32 : at + 64] for at in range(0, len(entries), 64)}
        return real(entries, kh, there.get(kh))

    patch.setattr(proof, "_bucket_digest", digest)


def small_order_keys(patch: Patch) -> None:
    """Points of small order are taken."""
    patch.setattr(keys, "is_refused_point", lambda encoded: False)


def any_first_key(patch: Patch) -> None:
    """An account without a key takes any."""
    real = admission.check_key

    def check(store: Store, tx: Any, now_ms: int) -> Any:
        account = store.get(accounts.ACCOUNTS, tx.principal)
        return (account, False) if account is not None and not account.key else real(store, tx, now_ms)

    patch.setattr(admission, "check_key", check)


def verbs_ignored(patch: Patch) -> None:
    """A delegated key may send anything."""
    patch.setattr(admission, "allows", lambda found, kinds, now_ms: found is not None and found.expires_ms > now_ms)


def delegates_change_keys(patch: Patch) -> None:
    """A delegate for everything may change keys and delegations."""
    patch.setattr(delegation, "OWN_KEY_ONLY", frozenset())


def spent_never_forgotten(patch: Patch) -> None:
    """The limit of a day holds for ever."""
    patch.setattr(delegation, "DAY_MS", 10**15)


def bucket_never_empty(patch: Patch) -> None:
    """The rate bucket is always full."""
    patch.setattr(admission, "bucket_at", lambda account, now_ms, burst, refill_per_s: burst * 1000)
    patch.setattr(buckets.Buckets, "level", staticmethod(lambda account, limits, now_ms: limits[0]))


def holdings_count_backwards(patch: Patch) -> None:
    """Money that comes in fills the rate bucket as if it had always been there."""
    patch.setattr(buckets.Buckets, "settled", lambda self, account, denomination, gained, now_ms: account)


def opening_is_free(patch: Patch) -> None:
    """A new account's first transactions come from nowhere."""
    patch.setattr(buckets, "_OPENING", frozenset())


def newer_rules_at_once(patch: Patch) -> None:
    """Messages of newer rules are taken before their height."""
    patch.setattr(machine.Machine, "_check_known", lambda self, transaction, protocol: None)


def another_chain(patch: Patch) -> None:
    """A new key's word for another chain is taken."""
    patch.setattr(accounts, "rotation_bytes", lambda chain_id, address: transaction.rotation_bytes("test-2", address))


def settle_counts_from_now(patch: Patch) -> None:
    """A settlement drops the fraction of a unit that was not paid."""
    real = escrow.settle

    def settle(ctx: Context, purse_id: str) -> None:
        real(ctx, purse_id)
        for meter in list(ctx.store.scan(purse.METERS)):
            if meter.settled_ms and meter.since_ms:
                part = metered(meter.rate_per_hour, ctx.time - meter.since_ms)
                whole = ceil_div(part * 3_600_000, meter.rate_per_hour) if meter.rate_per_hour else 0
                lost = ctx.time - meter.since_ms - whole
                ctx.store.put(purse.METERS, replace(meter, since_ms=meter.since_ms + max(0, lost)))

    patch.setattr(escrow, "settle", settle)


def refund_to_the_owner(patch: Patch) -> None:
    """Earnings that come back go to the purse's owner, whoever paid them."""
    real = escrow.split

    def wrong(parts: Any, amount: int) -> Any:
        kept, last = real(parts, amount)
        return kept, ((last[0][0], amount),) if last else ()

    patch.setattr(escrow, "split", wrong)


def held_is_paid_too(patch: Patch) -> None:
    """What is held back is paid to the payee as well: money from nowhere."""
    patch.setattr(escrow, "put_aside", lambda *given: held.put_aside(*given) and 0)


def term_withdrawn(patch: Patch) -> None:
    """What a shortest term will cost can be withdrawn."""
    patch.setattr(escrow, "dues_at", lambda purse, meters, now_ms: 0)


def bond_below_zero(patch: Patch) -> None:
    """A cut takes more than the bond holds."""
    # The module's own `min` hides the builtin one.
    patch.setattr(bonds, "min", lambda *given: given[0], raising=False)


def bonds_outside_the_supply(patch: Patch) -> None:
    """A cut is given to the network and not taken from the bond."""
    real = bonds.cut

    def wrong(ctx: Context, address: str, denomination: str, *rest: Any) -> int:
        before = ctx.store.get(bonds.BONDS, f"{address}/{denomination}")
        taken = real(ctx, address, denomination, *rest)
        if before is not None:
            ctx.store.put(bonds.BONDS, before)
        return taken

    patch.setattr(bonds, "cut", wrong)


def buckets_without_end(patch: Patch) -> None:
    """Whoever grinds keys fills one bucket of the tree."""
    patch.setattr(crowding.Crowding, "admit", lambda self, made, most: None)


def block_not_counted(patch: Patch) -> None:
    """Records of the same block are not counted: a block of a thousand stuffs a bucket at once."""
    real = crowding.Crowding.admit

    def wrong(self: Any, made: Any, most: int) -> None:
        self._made.clear()
        real(self, made, most)

    patch.setattr(crowding.Crowding, "admit", wrong)


def held_without_its_time(patch: Patch) -> None:
    """Earnings that wait are paid out when they are held, not at their time."""
    real = escrow.hold_back

    def wrong(ctx: Context, meter_id: str, amount: int, until_ms: int) -> None:
        real(ctx, meter_id, amount, ctx.time)

    patch.setattr(escrow, "hold_back", wrong)


def bug(plant: Callable[[Patch], None], *caught_by: str) -> Bug:
    """A bug whose docstring says what it is."""
    return Bug(plant=plant, caught_by=caught_by, why=(plant.__doc__ or "").strip())


BUCKETS = f"{MACHINE}/test_buckets.py"
ESCROW = f"{MACHINE}/test_escrow.py"
HELD = f"{MACHINE}/test_held.py"
BONDS = "tests/marketplace/market/test_bonds.py"
TRANSACTIONS, ROOTS, STORE = f"{MACHINE}/test_transactions.py", f"{MACHINE}/test_roots.py", f"{MACHINE}/test_store.py"
BUGS: dict[str, Bug] = {
    "refund-off-by-one": bug(refund_off_by_one, f"{ESCROW}::test_refunds_go_back_in_deposit_order"),
    "interval-paid-twice": bug(interval_paid_twice, f"{ESCROW}::test_payout_waits_until_a_report_can_not_take_it_back"),
    "rounded-up": bug(rounded_up, f"{ESCROW}::test_dry_with_several_remainders"),
    "dry-a-millisecond-late": bug(dry_a_millisecond_late, f"{ESCROW}::test_dry_to_the_millisecond"),
    "dry-by-the-line": bug(dry_by_the_line, f"{ESCROW}::test_dry_with_several_remainders"),
    "dues-withdrawn": bug(dues_withdrawn, f"{ESCROW}::test_withdraw_what_is_free"),
    "newest-deposit-first": bug(newest_deposit_first, f"{ESCROW}::test_refunds_go_back_in_deposit_order"),
    "fee-rounded-each-time": bug(fee_rounded_each_time, f"{ESCROW}::test_take_rate_is_a_closed_form"),
    "settle-counts-from-now": bug(settle_counts_from_now, f"{ESCROW}::test_settling_every_millisecond_loses_nothing"),
    "refund-to-the-owner": bug(refund_to_the_owner, f"{HELD}::test_what_is_held_outlives_its_purse"),
    "held-is-paid-too": bug(held_is_paid_too, f"{HELD}::test_a_slice_waits_and_goes_back"),
    "held-without-its-time": bug(held_without_its_time, f"{HELD}::test_what_is_held_outlives_its_purse"),
    "term-withdrawn": bug(term_withdrawn, f"{HELD}::test_the_shortest_term_is_owed"),
    "bond-below-zero": bug(bond_below_zero, f"{BONDS}::test_a_cut_counts_the_gpus_and_takes_no_more_than_there_is"),
    "bonds-outside-the-supply": bug(bonds_outside_the_supply, f"{BONDS}::test_what_each_end_costs_the_provider"),
    "buckets-without-end": bug(buckets_without_end, f"{MACHINE}/test_crowding.py"),
    "block-not-counted": bug(
        block_not_counted, f"{MACHINE}/test_crowding.py::test_the_cap_holds_within_a_block_and_a_transaction"
    ),
    "sequence-at-least": bug(sequence_at_least, f"{TRANSACTIONS}::test_offline_sequence"),
    "id-includes-signature": bug(id_includes_signature, f"{PROTOCOL}/test_transaction.py::test_the_good_one_is_taken"),
    "refusals-forgotten": bug(refusals_forgotten, f"{TRANSACTIONS}::test_a_repeat_is_refused_and_the_first_result_is_known"),
    "forgotten-too-early": bug(forgotten_too_early, f"{TRANSACTIONS}::test_a_repeat_is_refused_and_the_first_result_is_known"),
    "half-applied": bug(half_applied, f"{TRANSACTIONS}::test_all_messages_or_none"),
    "indexes-not-undone": bug(indexes_not_undone, f"{STORE}::test_rollback_restores_everything"),
    "root-skips-a-table": bug(root_skips_a_table, "tests/vectors/test_golden.py"),
    "rested-record-is-stale": bug(rested_record_is_stale, STORE),
    "snapshot-omits-escrow": bug(snapshot_omits_escrow, f"{MACHINE}/test_replicas.py"),
    "first-find-is-taken": bug(first_find_is_taken, f"{ROOTS}::test_crowded_buckets_and_misleading_bytes"),
    "absence-not-checked": bug(absence_not_checked, f"{ROOTS}::test_tampered_proofs_are_refused"),
    "small-order-keys": bug(small_order_keys, f"{PROTOCOL}/test_keys.py::test_small_order_and_non_canonical_points_are_refused"),
    "any-first-key": bug(any_first_key, f"{MACHINE}/test_codes.py"),
    "verbs-ignored": bug(verbs_ignored, f"{MACHINE}/test_codes.py"),
    "delegates-change-keys": bug(delegates_change_keys, f"{TRANSACTIONS}::test_own_keys_stay_with_the_owner"),
    "spent-never-forgotten": bug(spent_never_forgotten, f"{TRANSACTIONS}::test_delegation_holds_for_its_verbs_time_and_day"),
    "bucket-never-empty": bug(bucket_never_empty, f"{TRANSACTIONS}::test_rate_bucket_refills_by_the_millisecond"),
    "holdings-count-backwards": bug(holdings_count_backwards, f"{BUCKETS}::test_moving_money_gains_nothing"),
    "opening-is-free": bug(opening_is_free, f"{BUCKETS}::test_who_opens_an_account_pays_for_its_first_transactions"),
    "newer-rules-at-once": bug(newer_rules_at_once, f"{MACHINE}/test_upgrade.py"),
    "another-chain": bug(another_chain, f"{MACHINE}/test_codes.py::test_rotation_is_for_one_chain"),
}
