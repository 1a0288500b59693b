"""What was fixed stays fixed: the product gives the golden bytes, and the independent code agrees with them."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.protocol import keys
from ledger.protocol.encoding import encode
from ledger.protocol.genesis import Genesis
from ledger.protocol.messages import LEDGER_MESSAGES
from ledger.protocol.proof import Proof, verify
from ledger.protocol.receipts import decode_statement, is_signed
from ledger.protocol.transaction import Codec
from tests.ledger import independent
from tests.vectors.generate import vectors

FOLDER = Path(__file__).resolve().parent
NAMES = ["accounts", "transactions", "state", "state-2", "upgrade", "proofs", "pledges", "log", "receipts", "market-2"]


def golden(name: str) -> Any:
    """A stored set."""
    return json.loads((FOLDER / f"{name}.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_the_product_still_gives_them(name: str) -> None:
    """Made anew, each set is the stored one. If this fails, consensus changed: gate it by height."""
    assert json.loads(json.dumps(vectors()[name])) == golden(name)


def test_stored_transactions_decode() -> None:
    """Stored bytes decode to their ids, with good signatures by stored keys."""
    codec = Codec(LEDGER_MESSAGES)
    for item in golden("transactions"):
        signed = codec.decode(item["raw"].encode())
        assert signed.id == item["id"]
        assert signed.signature_is_good()
    for item in golden("accounts")["accounts"]:
        assert keys.public_key(bytes.fromhex(item["seed"])).hex() == item["key"]
        assert keys.address_of(bytes.fromhex(item["key"])) == item["address"]


@pytest.mark.parametrize("name", ["state", "state-2"])
def test_stored_state_has_its_root(name: str) -> None:
    """The independent builder gets the head's root from the stored records and ids."""
    state = golden(name)
    records = {key: value.encode() for key, value in state["records"].items()}
    minutes = {int(minute): ids for minute, ids in state["ids"].items()}
    assert independent.state_root(records, minutes) == state["head"]["state_root"] == state["independent_root"]

    assert msgspec.json.decode(state["genesis"], type=Genesis).hash == state["genesis_hash"]


def test_stored_proofs_hold() -> None:
    """Both verifiers take each stored proof, and none under another root."""

    for item in golden("proofs"):
        assert independent.verify(item["proof"], item["root"])
        assert verify(msgspec.convert(item["proof"], Proof), item["root"])
        assert not independent.verify(item["proof"], "00" * 32)


def test_stored_receipts_are_signed() -> None:
    """Both verifiers take each stored statement, and none that says something else."""
    for item in golden("receipts"):
        assert independent.signed(item["statement"])
        assert is_signed(decode_statement(encode(item["statement"])))
        kind = "receipt" if "receipt" in item["statement"] else "checkpoint"
        other = item["statement"] | {kind: item["statement"][kind] | {"height": 8}}
        assert not independent.signed(other)
