"""Routes about the market: providers, hosts, bids, orders, deployments, leases, purses, accounts, quotes."""

from collections.abc import Callable, Hashable
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from ledger.machine.accounts import ACCOUNTS, Account
from ledger.machine.purse import PURSES
from ledger.machine.store import Store, Table
from ledger.protocol.errors import Code, Rejected
from ledger.protocol.money import Denomination
from marketplace.market import quote as quoting
from marketplace.market.tables import BIDS, DEPLOYMENTS, HOSTS, LEASES, ORDERS, PROVIDERS
from marketplace.node import views
from marketplace.node.answers import body, documented, json, listed, ref
from marketplace.node.composition import Node, RawBody, Serving
from marketplace.node.paging import DEFAULT_PAGE, MAX_PAGE, answer, page
from marketplace.node.problems import Problem, missing, of_rejected
from marketplace.protocol.errors import MarketCode
from marketplace.protocol.ids import deployment_id, order_id
from marketplace.protocol.records import Lease, LeaseState
from marketplace.protocol.resources import Group

router = APIRouter(tags=["market"])

R = TypeVar("R", bound=msgspec.Struct)

Address = Annotated[str, Path(max_length=64, description="Address of an account, gpu1…")]
Dseq = Annotated[int, Path(ge=1, le=10**15 - 1)]
Seq = Annotated[int, Path(ge=1, le=10**6)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Most items of a page")]
Token = Annotated[str | None, Query(max_length=512, description="`next` of the page before")]
By = Annotated[str | None, Query(max_length=64)]


def _page(
    node: Node,
    table: Table[R],
    view: Callable[[Store, R, int], Any],
    limit: int,
    token: str | None,
    index: tuple[str, Hashable] | None = None,
    keep: Callable[[R], bool] | None = None,
) -> Response:
    now_ms = node.engine.now_ms()
    with node.engine.read() as machine:
        store = machine.store
        records, following = page(store, table, limit, token, index=index, keep=keep)
        items = [view(store, record, max(now_ms, machine.head.time_ms)) for record in records]
    return json(answer(items, following))


def _one(node: Node, table: Table[R], key: str, view: Callable[[Store, R, int], Any], what: str, code: Any) -> Response:
    now_ms = node.engine.now_ms()
    with node.engine.read() as machine:
        record = machine.store.get(table, key)
        if record is None:
            raise missing(what, key, code)
        found = view(machine.store, record, max(now_ms, machine.head.time_ms))
    return json(found)


@router.get("/v1/accounts/{address}", responses=documented(ref("Account"), 404))
def account(node: Serving, address: Address) -> Response:
    """An account: balances, sequence, the keys that may act for it, and how many transactions it may send."""
    machine = node.engine.machine

    def view(store: Store, record: Account, now_ms: int) -> Any:
        return views.account(store, record, machine.allowance(record, now_ms))

    return _one(node, ACCOUNTS, address, view, "account", Code.ACCOUNT_NOT_FOUND)


@router.get("/v1/providers", responses=documented(listed("Provider")))
def providers(node: Serving, limit: Limit = DEFAULT_PAGE, page_token: Token = None) -> Response:
    """All providers."""
    return _page(node, PROVIDERS, lambda s, r, _: views.provider(s, r), limit, page_token)


@router.get("/v1/providers/{address}", responses=documented(ref("Provider"), 404))
def provider(node: Serving, address: Address) -> Response:
    """A provider with its hosts and attestations."""
    return _one(node, PROVIDERS, address, lambda s, r, _: views.provider(s, r), "provider", MarketCode.PROVIDER_NOT_FOUND)


@router.get("/v1/hosts", responses=documented(listed("Host")))
def hosts(node: Serving, provider: By = None, limit: Limit = DEFAULT_PAGE, page_token: Token = None) -> Response:
    """Hosts, of all or one provider."""
    index = ("provider", provider) if provider else None
    return _page(node, HOSTS, lambda _s, r, _n: views.host(r), limit, page_token, index)


@router.get("/v1/bids", responses=documented(listed("Bid")))
def bids(node: Serving, provider: By = None, model: By = None, limit: Limit = DEFAULT_PAGE, page_token: Token = None) -> Response:
    """Bids in the book, of all or one provider, with a GPU model (slug) or of any."""
    index = ("provider", provider) if provider else None
    keep = (lambda r: any(d.model == model for d in r.offer.devices)) if model else None
    return _page(node, BIDS, lambda s, r, _: views.bid(s, r), limit, page_token, index, keep)


@router.get("/v1/bids/{provider}/{host}", responses=documented(ref("Bid"), 404))
def bid(node: Serving, provider: Address, host: Annotated[str, Path(max_length=64)]) -> Response:
    """The bid of a host."""
    return _one(node, BIDS, f"{provider}/{host}", lambda s, r, _: views.bid(s, r), "bid", MarketCode.BID_NOT_FOUND)


@router.get("/v1/orders", responses=documented(listed("Order")))
def orders(node: Serving, owner: By = None, state: By = None, limit: Limit = DEFAULT_PAGE, page_token: Token = None) -> Response:
    """Orders, by owner and state (open, matched, closed). The limit of an open order is not shown."""
    index = ("owner", owner) if owner else None
    keep = (lambda r: r.state == state) if state else None
    return _page(node, ORDERS, lambda _s, r, _n: views.order(r), limit, page_token, index, keep)


@router.get("/v1/orders/{owner}/{dseq}/{gseq}/{oseq}", responses=documented(ref("Order"), 404))
def order(node: Serving, owner: Address, dseq: Dseq, gseq: Seq, oseq: Seq) -> Response:
    """An order; while it waits, what failed and what would mend it."""
    key = order_id(owner, dseq, gseq, oseq)
    return _one(node, ORDERS, key, lambda _s, r, _n: views.order(r), "order", MarketCode.ORDER_NOT_FOUND)


@router.get("/v1/deployments", responses=documented(listed("Deployment")))
def deployments(
    node: Serving, owner: By = None, state: By = None, limit: Limit = DEFAULT_PAGE, page_token: Token = None
) -> Response:
    """Deployments, by owner and state (active, closed)."""
    index = ("owner", owner) if owner else None
    keep = (lambda r: r.state == state) if state else None
    return _page(node, DEPLOYMENTS, lambda _s, r, _n: views.deployment(r), limit, page_token, index, keep)


@router.get("/v1/deployments/{owner}/{dseq}", responses=documented(ref("Deployment"), 404))
def deployment(node: Serving, owner: Address, dseq: Dseq) -> Response:
    """A deployment with its orders, leases and purse."""
    key = deployment_id(owner, dseq)
    return _one(node, DEPLOYMENTS, key, views.deployment_whole, "deployment", MarketCode.DEPLOYMENT_NOT_FOUND)


@router.get("/v1/leases", responses=documented(listed("Lease")))
def leases(
    node: Serving,
    owner: By = None,
    provider: By = None,
    state: By = None,
    limit: Limit = DEFAULT_PAGE,
    page_token: Token = None,
) -> Response:
    """Leases, by owner, provider and state (matched, active, down, paused, closed).

    The state `unreleased` names all that still hold capacity: not closed, or closed and not released by the provider.
    """

    def keep(record: Lease) -> bool:
        right = state is None or (not _free(record) if state == "unreleased" else record.state == state)
        return right and (owner is None or record.owner == owner) and (provider is None or record.provider == provider)

    index = ("provider", provider) if provider else ("owner", owner) if owner else None
    return _page(node, LEASES, views.lease, limit, page_token, index, keep)


def _free(record: Lease) -> bool:
    return record.state is LeaseState.CLOSED and record.released


@router.get("/v1/leases/{owner}/{dseq}/{gseq}/{oseq}/{provider}", responses=documented(ref("Lease"), 404))
def lease(node: Serving, owner: Address, dseq: Dseq, gseq: Seq, oseq: Seq, provider: Address) -> Response:
    """A lease with its cost until now."""
    key = f"{order_id(owner, dseq, gseq, oseq)}/{provider}"
    return _one(node, LEASES, key, views.lease, "lease", MarketCode.LEASE_NOT_FOUND)


@router.get("/v1/purses/{owner}/{dseq}", responses=documented(ref("Purse"), 404))
def purse(node: Serving, owner: Address, dseq: Dseq) -> Response:
    """The purse of a deployment: what is in it, what is owed, and when it runs dry."""
    return _one(node, PURSES, deployment_id(owner, dseq), views.purse, "purse", Code.PURSE_NOT_FOUND)


class QuoteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Groups, as in CreateDeployment, to be priced in a denomination."""

    denomination: Denomination
    groups: Annotated[tuple[Group, ...], msgspec.Meta(min_length=1, max_length=20)]


@router.post("/v1/quote", responses=documented(ref("Quotes"), 400, 408, 413), openapi_extra=body("QuoteRequest"))
def quote(node: Serving, raw: RawBody) -> Response:
    """For each group what it would cost now, or how many bids failed which test and the nearest miss. Nothing is ordered."""
    try:
        asked = msgspec.json.decode(raw, type=QuoteRequest)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Problem(400, "not a request for a quote", str(error), fix="see QuoteRequest in /openapi.json") from None
    now_ms = node.engine.now_ms()
    try:
        with node.engine.read() as machine:
            found = quoting.quote(machine.store, asked.groups, asked.denomination, max(now_ms, machine.head.time_ms))
    except Rejected as error:
        raise of_rejected(error) from None
    return json({"quotes": [views.plain(q) for q in found]})
