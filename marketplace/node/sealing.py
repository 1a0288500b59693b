"""Answers with a signed receipt: the same as without, and the node's signature beside it as `signed`.

A transaction that a block refused has a signed receipt too: it stands in the problem. One that no block took has none.
"""

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
from fastapi import Query

from ledger.protocol.block import Receipt
from marketplace.node.identity import Notary
from marketplace.node.problems import Problem, of_number

Signed = Annotated[bool, Query(description="Also give the receipt signed by the node's key, as `signed`")]
"""The query parameter of routes that answer with a receipt."""


def asks_signed(query: bytes) -> bool:
    """Whether a query string of the quick path asks for signed receipts; a Problem where it says anything else."""
    try:
        found = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=2)
    except (ValueError, UnicodeDecodeError):
        found = []
    if found == [("signed", "true")]:
        return True
    if found == [("signed", "false")]:
        return False
    raise Problem(422, "a parameter is wrong", query[:200].decode(errors="replace"), fix="known here: signed=true")


def sealed(notary: Notary, receipt: Receipt) -> dict[str, Any]:
    """A receipt with its signed form beside it, to be encoded."""
    return msgspec.structs.asdict(receipt) | {"signed": notary.receipt(receipt)}


def seal(notary: Notary, receipt: Receipt) -> dict[str, Any] | Problem:
    """The signed answer for a transaction of a block: its receipt, or the problem where it was refused."""
    if not receipt.code:
        return sealed(notary, receipt)
    problem = of_number(receipt.code, receipt.detail, receipt.id)
    problem.body["signed"] = notary.receipt(receipt)
    return problem


def seal_all(notary: Notary, outcomes: Sequence[Receipt | Exception | None], answers: Sequence[Any]) -> list[Any]:
    """The answers of a batch, with the signed receipt in each that a block has."""
    out = []
    for outcome, answer in zip(outcomes, answers, strict=True):
        found = seal(notary, outcome) if isinstance(outcome, Receipt) else answer
        out.append(found.body if isinstance(found, Problem) else found)
    return out
