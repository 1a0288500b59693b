"""Expected failures are numbered: a code is part of consensus and is never renumbered.

The ledger owns 100-399; a module brings its own numbers from 400 on. The text beside a code is for people
and is not part of consensus.
"""

from enum import IntEnum, unique
from types import MappingProxyType
from typing import Final


@unique
class Code(IntEnum):
    """Why a transaction, or a request about one, was refused."""

    OK = 0
    # The transaction itself.
    MALFORMED = 100
    WRONG_CHAIN = 101
    EXPIRED = 102
    VALID_TOO_LONG = 103
    BAD_SIGNATURE = 104
    KEY_REFUSED = 105
    ACCOUNT_NOT_FOUND = 106
    NOT_AUTHORISED = 107
    ALREADY_APPLIED = 108
    BAD_SEQUENCE = 109
    RATE_LIMITED = 110
    TOO_LARGE = 111
    ID_CONFLICT = 112
    BUCKET_FULL = 113
    UNKNOWN_MESSAGE = 114
    # Accounts and money.
    INSUFFICIENT_FUNDS = 200
    AMOUNT_REFUSED = 201
    DENOMINATION_NOT_FOUND = 202
    SPEND_LIMIT = 203
    DELEGATION_NOT_FOUND = 204
    NOT_ISSUER = 205
    NOT_GOVERNANCE = 206
    PARAMETER_REFUSED = 207
    VERSION_MISMATCH = 208
    ADDRESS_REFUSED = 209
    UPGRADE_REFUSED = 210
    # Escrow.
    PURSE_NOT_FOUND = 300
    PURSE_CLOSED = 301
    PURSE_LOCKED = 302
    DEPOSITORS_FULL = 303


# How an HTTP edge answers a code; what is not named here is 422.
HTTP_STATUS: Final = MappingProxyType(
    {
        Code.MALFORMED: 400,
        Code.WRONG_CHAIN: 400,
        Code.BAD_SIGNATURE: 401,
        Code.KEY_REFUSED: 401,
        Code.ACCOUNT_NOT_FOUND: 404,
        Code.NOT_AUTHORISED: 403,
        Code.ALREADY_APPLIED: 409,
        Code.BAD_SEQUENCE: 409,
        Code.ID_CONFLICT: 409,
        Code.RATE_LIMITED: 429,
        Code.TOO_LARGE: 413,
        Code.UNKNOWN_MESSAGE: 400,
        Code.INSUFFICIENT_FUNDS: 402,
        Code.SPEND_LIMIT: 402,
        Code.DELEGATION_NOT_FOUND: 404,
        Code.NOT_ISSUER: 403,
        Code.NOT_GOVERNANCE: 403,
        Code.VERSION_MISMATCH: 409,
        Code.DENOMINATION_NOT_FOUND: 404,
        Code.PURSE_NOT_FOUND: 404,
    }
)


_NOT_FINAL: Final = frozenset(
    {
        Code.MALFORMED, Code.WRONG_CHAIN, Code.EXPIRED, Code.VALID_TOO_LONG, Code.BAD_SIGNATURE, Code.ALREADY_APPLIED,
        Code.BAD_SEQUENCE, Code.TOO_LARGE, Code.UNKNOWN_MESSAGE,
    }
)  # fmt: skip


def is_last_word(code: int) -> bool:
    """True where a block's receipt of this code uses up the transaction: the same bytes never come to anything else.

    `is_final` but for an empty bucket, which refuses without using the id.
    """
    return is_final(code) and code != Code.RATE_LIMITED


def is_final(code: int) -> bool:
    """True where a receipt of this code is the lasting result of its transaction's id.

    The others say nothing about the id: the same content may still be applied, or was applied before.
    """
    return code not in _NOT_FINAL


class Rejected(Exception):
    """An expected failure: `code` is consensus, `detail` is for people.

    `retry_ms` says after how long the same may be accepted, 0 where that is not known. Anything else that escapes from the
    pure rooms is a bug.
    """

    def __init__(self, code: IntEnum, detail: str = "", retry_ms: int = 0) -> None:
        super().__init__(f"{code.name} ({int(code)}){': ' if detail else ''}{detail}")
        self.code = code
        self.detail = detail
        self.retry_ms = retry_ms


def require(condition: object, code: IntEnum, detail: str = "") -> None:
    """Refuse with `code` unless `condition` holds."""
    if not condition:
        raise Rejected(code, detail)
