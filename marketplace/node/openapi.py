"""The OpenAPI document: FastAPI's routes, the quick path's two, and schemas of the records that msgspec knows."""

from typing import Any, Final

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ledger.protocol.block import Header, Receipt
from ledger.protocol.genesis import Genesis
from ledger.protocol.proof import Proof
from ledger.protocol.receipts import SignedCheckpoint, SignedReceipt
from marketplace.market.quote import Quote
from marketplace.node.answers import PROBLEM, TEXTS, ref
from marketplace.node.identity import version
from marketplace.node.routes.live import FaucetRequest
from marketplace.node.routes.market import QuoteRequest
from marketplace.node.views import MONEY
from marketplace.protocol import records

Json = dict[str, Any]

DESCRIPTION: Final = (
    "A node of a gpubid chain. Amounts are decimal strings in micro-units of a denomination, times integers in milliseconds "
    "of block time. Errors are RFC 9457 problems; `code` is the ledger's or market's number. Everything here is public."
)

_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_AMOUNT: Final = {"type": "string", "pattern": "^-?[0-9]+$"}

_EXTRA: Final[dict[str, Json]] = {
    "Provider": {
        "bonds": {"type": "array"},
        "hosts": {"type": "array", "items": ref("Host")},
        "attestations": {"type": "array"},
        "open_leases": _COUNT,
    },
    "Host": {"id": _TEXT},
    "Bid": {
        "id": _TEXT,
        "models": {"type": "object"},
        "free": {"type": "object"},
        "simulated": {"type": "boolean"},
        "silent": {"type": "boolean"},
    },
    "Order": {"id": _TEXT, "group": {"type": "object"}},
    "Deployment": {"id": _TEXT},
    "Lease": {
        "id": _TEXT,
        "order": _TEXT,
        "deployment": _TEXT,
        "cost": _AMOUNT,
        "paid": _AMOUNT,
        "up_ms": _COUNT,
        "least_ms": _COUNT,
        "pulling_ms": _COUNT,
        "hold_cost": _AMOUNT,
        "hold_ms": _COUNT,
        "time_ms": _COUNT,
        "dry_at_ms": {"anyOf": [_COUNT, {"type": "null"}]},
    },
}
"""What views add to records."""

_STATUS: Final = {
    "chain_id": _TEXT, "height": _COUNT, "time_ms": _COUNT, "state_root": _TEXT, "hash": _TEXT, "protocol": _COUNT,
    "protocol_known": _COUNT, "upgrade_height": _COUNT, "upgrade_protocol": _COUNT,
    "node_key": _TEXT, "dev": {"type": "boolean"}, "faucet": {"type": "boolean"}, "version": _TEXT,
}  # fmt: skip


def _object(properties: Json, *, required: bool = True) -> Json:
    return {"type": "object", "properties": properties} | ({"required": sorted(properties)} if required else {})


def _components() -> Json:
    kinds = [records.Provider, records.Host, records.Bid, records.Order, records.Deployment, records.Lease]
    own = [Receipt, SignedReceipt, SignedCheckpoint, Genesis, Proof, Quote, Header, QuoteRequest, FaucetRequest, *kinds]
    _, schemas = msgspec.json.schema_components(own, ref_template="#/components/schemas/{name}")
    for name, extra in _EXTRA.items():
        properties = {k: (_AMOUNT if k in MONEY else v) for k, v in schemas[name]["properties"].items()} | extra
        schemas[name] = _object(properties) | {"description": schemas[name].get("description", "")}
    header = schemas["Header"]["properties"] | {"hash": _TEXT}
    signed = schemas["SignedCheckpoint"]["properties"]
    # Only where it was asked for.
    schemas["Receipt"]["properties"]["signed"] = ref("SignedReceipt")
    problem = {"type": _TEXT, "title": _TEXT, "status": _COUNT, "detail": _TEXT, "code": _COUNT, "fix": _TEXT}
    return dict(schemas) | {
        "Problem": {**_object(problem), "properties": problem | {"id": _TEXT, "signed": ref("SignedReceipt")}},
        "Status": _object(_STATUS),
        "Account": _object({"address": _TEXT, "balances": {"type": "object"}, "key": _TEXT, "sequence": _COUNT, "version": _COUNT,
                            "bonds": {"type": "array"}, "delegations": {"type": "array"},
                            "bucket": _object({"left": _COUNT, "at_once": _COUNT, "per_minute": _COUNT})}),
        "Purse": _object({"id": _TEXT, "owner": _TEXT, "denomination": _TEXT, "state": _TEXT, "balance": _AMOUNT,
                          "accrued": _AMOUNT, "dues": _AMOUNT, "reserve": _AMOUNT, "free": _AMOUNT, "rate_per_hour": _AMOUNT}),
        "Header": _object(header),
        "Headers": _object({"items": {"type": "array", "items": ref("Header")}, "next": {"anyOf": [_TEXT, {"type": "null"}]}}),
        "Block": _object(header | {"signed": {"type": "array"}, "receipts": {"type": "array", "items": ref("Receipt")},
                                   "begin_events": {"type": "array"}, "end_events": {"type": "array"}}),
        "Checkpoint": ref("SignedCheckpoint"),
        "Proved": _object(signed | {"proof": ref("Proof"), "header": ref("Header")}),
        "Quotes": _object({"quotes": {"type": "array", "items": ref("Quote")}}),
        "SignedTransaction": _object({"signature": _TEXT, "transaction": {"type": "object"}}),
    }  # fmt: skip


def _problems(*statuses: int) -> Json:
    texts = TEXTS | {
        401: "The signature or key is not good",
        402: "There is not enough money",
        403: "The key may not do this",
        405: "Only POST",
        409: "It is in conflict with the state",
        504: "No result in time; it may still be applied",
    }
    return {str(status): {"description": texts[status], "content": PROBLEM} for status in statuses}


def _quick() -> Json:
    """The operations that the edge serves itself."""

    def operation(name: str, summary: str, text: str, schema: Json, answer: Json, *statuses: int) -> Json:
        content = {"application/json": {"schema": schema}}
        signed = "Also give each receipt signed by the node's key, as `signed`; in the problem where a block refused it"
        query = {"name": "signed", "in": "query", "description": signed, "schema": {"type": "boolean", "default": False}}
        answers = {"200": {"description": "Durable", "content": {"application/json": {"schema": answer}}}}
        return {"post": {
            "operationId": name, "summary": summary, "description": text, "tags": ["transactions"],
            "parameters": [query],
            "requestBody": {"required": True, "content": content}, "responses": answers | _problems(*statuses),
        }}  # fmt: skip

    results = {"type": "array", "items": {"anyOf": [ref("Receipt"), ref("Problem")]}}
    batch = {"type": "array", "minItems": 1, "maxItems": 1000, "items": ref("SignedTransaction")}
    return {
        "/v1/transactions": operation(
            "post_transaction", "Send a signed transaction",
            "Answers once the transaction is durable. Repeating the same bytes is harmless: the first result is given again.",
            ref("SignedTransaction"), ref("Receipt"), 400, 401, 402, 403, 404, 405, 408, 409, 413, 422, 429, 503, 504,
        ),
        "/v1/transactions/batch": operation(
            "post_transactions", "Send up to 1,000 signed transactions",
            "Each succeeds or fails for itself; results are in the order sent.",
            batch, _object({"results": results}), 400, 405, 408, 413, 422, 503, 504,
        ),
    }  # fmt: skip


def document(app: FastAPI) -> Json:
    """The whole document; made once."""
    if app.openapi_schema is None:
        made = get_openapi(title="gpubid node", version=version(), description=DESCRIPTION, routes=app.routes)
        made["paths"].update(_quick())
        made.setdefault("components", {}).setdefault("schemas", {}).update(_components())
        app.openapi_schema = made
    return app.openapi_schema
