"""Bugs of the engine, of clients and of what must be deterministic, each with the tests that must find it."""

import sqlite3
import time
from typing import Any

import pytest

from ledger import client
from ledger.engine.embedded import Engine
from ledger.engine.log import Log
from ledger.engine.repeats import Repeats
from ledger.engine.verifying import Verifying
from ledger.machine.machine import Machine
from ledger.protocol.encoding import encode
from ledger.protocol.errors import Rejected
from ledger.protocol.transaction import Codec
from marketplace.market import bids, book
from tests.selftest.bug import Bug

Patch = pytest.MonkeyPatch
CRASH = "tests/crash/test_crash.py"
DETERMINISM = "tests/acceptance/test_determinism.py"


def ack_before_commit(patch: Patch) -> None:
    """A block is committed together with the next one, its transactions acknowledged before."""
    real = Log.append
    waiting: list[Any] = []

    def append(self: Any, block: Any) -> None:
        if waiting:
            real(self, waiting.pop())
        waiting.append(block)

    patch.setattr(Log, "append", append)


def commit_error_ignored(patch: Patch) -> None:
    """A commit that fails is tried again, and then forgotten."""
    real = Log.append

    def append(self: Any, block: Any) -> None:
        for _ in range(2):
            try:
                real(self, block)
                return
            except sqlite3.Error:
                if self._writer.in_transaction:
                    self._writer.rollback()

    patch.setattr(Log, "append", append)


def signed_over_what_was_made_of_it(patch: Patch) -> None:
    """What is not canonical is written anew, and the signature is checked over that."""
    real = Codec.decode

    def decode(self: Any, raw: bytes, content: bytes = b"") -> Any:
        try:
            return real(self, raw, content)
        except Rejected:
            try:
                return real(self, encode(self._decoder.decode(raw)))
            except ValueError:
                raise Rejected(100, "") from None  # type: ignore[arg-type]

    patch.setattr(Codec, "decode", decode)


def wall_clock_in_a_block(patch: Patch) -> None:
    """The time of a block is read from the wall when it is applied."""
    real = Machine.apply_block

    def apply_block(self: Any, time_ms: int, *rest: Any, **named: Any) -> Any:
        return real(self, time_ms + time.time_ns() // 1_000 % 3, *rest, **named)

    patch.setattr(Machine, "apply_block", apply_block)


def order_of_a_set(patch: Patch) -> None:
    """Bids are looked at in the order of a set of texts."""
    real = book.Book.candidates

    def candidates(self: Any, group: Any) -> Any:
        found = {f"{entry.bid.provider}/{entry.bid.host}": (price, entry) for price, entry in real(self, group)}
        return iter([found[key] for key in set(found)])

    patch.setattr(book.Book, "candidates", candidates)


def expired_bid_matched(patch: Patch) -> None:
    """A bid stays in the book when its time is over."""
    patch.setattr(bids, "expire", lambda ctx, key: None)


def read_behind_the_receipt(patch: Patch) -> None:
    """The head that readers see is that of the block before."""
    seen: dict[int, list[Any]] = {}

    def head(self: Any) -> Any:
        known = seen.setdefault(id(self), [self._head])
        if known[-1] is not self._head:
            known.append(self._head)
        return known[-2] if len(known) > 1 else known[-1]

    patch.setattr(Engine, "head", property(head))


def outbox_cleared_too_early(patch: Patch) -> None:
    """A transaction leaves the outbox when it is sent, not when its result is known."""
    real = client.deliver

    def deliver(transport: Any, outbox: Any, id: str, raw: bytes, timeout_s: float) -> Any:
        if outbox is not None:
            outbox.done(id)
        return real(transport, outbox, id, raw, timeout_s)

    patch.setattr(client, "deliver", deliver)


def answers_in_another_order(patch: Patch) -> None:
    """What the verifying processes found in one chunk of a batch is taken for another's."""
    real = Verifying.finish

    def finish(self: Any) -> list[bytes]:
        self._batches[0].chunks.reverse()
        return real(self)

    patch.setattr(Verifying, "finish", finish)


def repeats_looked_up_by_the_writer(patch: Patch) -> None:
    """The writer itself looks into the log for first results."""

    def ask(self: Any, tx_id: str, refusal: Any, _asked: Any, _place: int) -> Any:
        return self._receipt_of(tx_id) or refusal

    patch.setattr(Repeats, "ask", ask)


def bug(plant: Any, *caught_by: str) -> Bug:
    """A bug whose docstring says what it is."""
    return Bug(plant=plant, caught_by=caught_by, why=(plant.__doc__ or "").strip())


BUGS: dict[str, Bug] = {
    "answers-in-another-order": bug(
        answers_in_another_order, "tests/ledger/engine/test_recovery.py::test_each_of_a_mixed_batch_gets_its_own_answer"
    ),
    "ack-before-commit": bug(ack_before_commit, f"{CRASH}::test_killed_under_load"),
    "commit-error-ignored": bug(commit_error_ignored, f"{CRASH}::test_a_commit_that_fails_is_not_tried_again"),
    "repeats-looked-up-by-the-writer": bug(
        repeats_looked_up_by_the_writer, "tests/ledger/engine/test_repeats.py::test_old_repeats_hold_nobody_up"
    ),
    "signed-over-re-encoded": bug(
        signed_over_what_was_made_of_it, "tests/ledger/protocol/test_transaction.py::test_hostile_bytes_are_refused"
    ),
    "wall-clock-in-a-block": bug(wall_clock_in_a_block, f"{DETERMINISM}::test_a_snapshot_anywhere_goes_on_alike"),
    "order-of-a-set": bug(order_of_a_set, f"{DETERMINISM}::test_twenty_surroundings_agree"),
    "expired-bid-matched": bug(
        expired_bid_matched, "tests/marketplace/market/test_leases.py::test_a_bid_expires_and_an_order_meets_its_deadline"
    ),
    "read-behind-the-receipt": bug(read_behind_the_receipt, "tests/acceptance/test_reads_after_receipts.py"),
    "outbox-cleared-too-early": bug(
        outbox_cleared_too_early, "tests/ledger/client/test_sender.py::test_silence_keeps_the_outbox"
    ),
}
