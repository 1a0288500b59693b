"""Problems (RFC 9457): how the node says no. One shape for all: type, title, status, detail, code, fix."""

from collections.abc import Mapping
from enum import IntEnum
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

import msgspec
from starlette.responses import Response

from ledger.protocol.errors import HTTP_STATUS, Code, Rejected
from marketplace.protocol.errors import MARKET_HTTP_STATUS, MarketCode

MEDIA_TYPE: Final = "application/problem+json"

FIXES: Final[Mapping[IntEnum, str]] = MappingProxyType(
    {
        Code.MALFORMED: "send the canonical bytes: sorted keys, no spaces, each key once",
        Code.WRONG_CHAIN: "ask /v1/status for the chain id and sign again",
        Code.EXPIRED: "sign it again with a later valid_until, by block time of /v1/status",
        Code.VALID_TOO_LONG: "sign it again with an earlier valid_until: see max_validity_ms in /v1/parameters",
        Code.BAD_SIGNATURE: "sign the domain-tagged hash of the canonical transaction with the signer's key",
        Code.ACCOUNT_NOT_FOUND: "an account opens when it receives money: gpubid account faucet, or a transfer",
        Code.NOT_AUTHORISED: "sign with the account's own key, or delegate: gpubid account delegate",
        Code.ALREADY_APPLIED: "nothing to do: its result is at /v1/transactions/ID",
        Code.BAD_SEQUENCE: "ask /v1/accounts/ADDRESS for the sequence and sign with the next one",
        Code.RATE_LIMITED: "wait as long as retry-after says, then send the same bytes again",
        Code.UNKNOWN_MESSAGE: "wait until the chain follows the protocol that knows it: /v1/status tells which it follows",
        Code.INSUFFICIENT_FUNDS: "receive money first: a transfer, or gpubid account faucet on a development chain",
        Code.SPEND_LIMIT: "wait for the next day, or delegate with a higher limit",
        Code.VERSION_MISMATCH: "read the object again and name the version it has now",
        MarketCode.BID_NOT_FOUND: "see what is on offer: gpubid market bids",
        MarketCode.DEPOSIT_TOO_SMALL: "deposit more",
        MarketCode.LEASE_NOT_OPEN: "look at its state: gpubid lease show",
    }
)


class Problem(Exception):
    """A request cannot be served. `code` is the ledger's or market's number, 0 where it is none of theirs."""

    def __init__(
        self, status: int, title: str, detail: str = "", *, code: int = 0, fix: str = "", id: str = "", retry_after_s: int = 0
    ) -> None:
        super().__init__(title)
        self.status = status
        self.body: dict[str, Any] = {
            "type": "about:blank" if not code else f"urn:gpubid:code:{code}",
            "title": title,
            "status": status,
            "detail": detail,
            "code": code,
            "fix": fix,
        }
        if id:
            self.body["id"] = id
        self.retry_after_s = retry_after_s

    def encoded(self) -> bytes:
        """The body as JSON."""
        return msgspec.json.encode(self.body)

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """The answer that says so."""
        extra = dict(headers or {}) | ({"retry-after": str(self.retry_after_s)} if self.retry_after_s else {})
        return Response(self.encoded(), self.status, extra, MEDIA_TYPE)


def refusal(code: IntEnum, detail: str = "", id: str = "", retry_ms: int = 0) -> Problem:
    """The problem for a numbered code of the ledger or the market; the same may be accepted after `retry_ms`, where not 0."""
    status = HTTP_STATUS.get(code) if isinstance(code, Code) else MARKET_HTTP_STATUS.get(code)  # type: ignore[call-overload]
    title = code.name.lower().replace("_", " ")
    pause = max(1, -(-retry_ms // 1000)) if code is Code.RATE_LIMITED else 0
    return Problem(status or 422, title, detail, code=int(code), fix=FIXES.get(code, ""), id=id, retry_after_s=pause)


def of_rejected(error: Rejected, id: str = "") -> Problem:
    """The problem for an expected failure."""
    return refusal(error.code, error.detail, id, error.retry_ms)


def of_number(number: int, detail: str, id: str) -> Problem:
    """The problem for a receipt's code."""
    kind = Code if number in Code._value2member_map_ else MarketCode
    return refusal(kind(number), detail, id)


def of_status(status: int, detail: str = "") -> Problem:
    """The problem for a plain HTTP status."""
    fixes = {404: "see /docs for what there is", 405: "see /docs for what there is"}
    return Problem(status, HTTPStatus(status).phrase.lower(), detail, fix=fixes.get(status, ""))


def pruned(first: int) -> Problem:
    """404 for a block from before the snapshot that the node's log began with."""
    return Problem(404, "pruned", f"this node's blocks begin at height {first}", fix="ask a node that has the whole chain")


def missing(what: str, name: str, code: IntEnum | None = None) -> Problem:
    """404 for a thing that is not in the state."""
    return Problem(404, f"{what} not found", name, code=int(code or 0))
