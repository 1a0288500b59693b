"""Bugs of signed receipts and of the outbox that were made on purpose, each with the tests that must find it."""

from collections.abc import Callable
from typing import Any

import pytest

from ledger import client, notebook
from ledger.protocol import receipts
from ledger.protocol.encoding import digest, encode
from marketplace.node import sealing
from tests.selftest.bug import Bug

Patch = pytest.MonkeyPatch
PROTOCOL = "tests/ledger/protocol/test_receipts.py"
NOTEBOOK = "tests/ledger/test_notebook.py"
OUTBOX = "tests/marketplace/client/test_outbox.py"


def signature_not_checked(patch: Patch) -> None:
    """A statement passes whatever its signature is."""
    for module in (receipts, notebook):
        patch.setattr(module, "is_signed", lambda statement: True)


def one_tag_for_both(patch: Patch) -> None:
    """Receipts and checkpoints are signed under one tag, so that one could pass for the other."""
    patch.setattr(receipts, "statement_bytes", lambda said: digest("receipt/v1", encode(said)))


def missing_blocks_ignored(patch: Patch) -> None:
    """What was signed about blocks that the chain does not have is not missed: a chain may be cut short."""
    patch.setattr(receipts.Witness, "end", lambda self, height: None)


def only_the_hash_counts(patch: Patch) -> None:
    """A receipt is borne out by any transaction of its block."""
    real = receipts._differs
    patch.setattr(receipts, "_differs", lambda said, header, _found: real(said, header, ()) if said.said.height < 0 else "")


def results_convict_that_do_not(patch: Patch) -> None:
    """A refusal after which the same bytes may come again counts as a result, and convicts an honest node."""
    patch.setattr(receipts, "_OF_MESSAGES", 100)


def any_key_is_known(patch: Patch) -> None:
    """A node may come back with another key."""
    patch.setattr(notebook.Notebook, "meet", lambda self, url, chain_id, key: self.trust(url, chain_id, key))


def refusals_unsigned(patch: Patch) -> None:
    """What a block refused is answered without its signed receipt."""
    real = sealing.of_number
    patch.setattr(sealing, "seal", lambda notary, r: real(r.code, r.detail, r.id) if r.code else sealing.sealed(notary, r))


def outbox_never_read(patch: Patch) -> None:
    """What an earlier process left is never sent again."""
    patch.setattr(client.Outbox, "pending", lambda self: iter(()))


def strangers_sent(patch: Patch) -> None:
    """What was made for another chain is sent to this one, refused, and forgotten."""
    real = client.envelope_of

    def envelope_of(raw: bytes) -> Any:
        found = real(raw)
        return client.msgspec.structs.replace(found, chain_id=Everything(found.chain_id))

    patch.setattr(client, "envelope_of", envelope_of)


class Everything(str):
    """A chain's name that is every chain's."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


def bug(plant: Callable[[Patch], None], *caught_by: str) -> Bug:
    """A bug whose reason is its docstring."""
    return Bug(plant=plant, caught_by=caught_by, why=(plant.__doc__ or "").strip())


BUGS = {
    "receipt-signature-not-checked": bug(signature_not_checked, PROTOCOL, NOTEBOOK),
    "receipt-one-tag": bug(one_tag_for_both, PROTOCOL),
    "receipt-missing-blocks-ignored": bug(missing_blocks_ignored, PROTOCOL),
    "receipt-only-the-hash-counts": bug(only_the_hash_counts, PROTOCOL),
    "receipt-convicts-the-honest": bug(results_convict_that_do_not, PROTOCOL),
    "receipt-any-key": bug(any_key_is_known, NOTEBOOK),
    "receipt-refusals-unsigned": bug(refusals_unsigned, "tests/marketplace/node/test_signed.py"),
    "outbox-never-read": bug(outbox_never_read, OUTBOX),
    "outbox-strangers-sent": bug(strangers_sent, OUTBOX),
}
