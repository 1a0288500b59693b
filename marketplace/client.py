"""The door to a node for programs: a synchronous client of its REST interface.

Answers are decoded JSON: amounts are decimal strings in micro-units, times integers in milliseconds of block time.
Failures carry the exit code of a command that meets them, and what to do.
"""

import ipaddress
from collections.abc import Iterator
from contextlib import closing
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote as percent
from urllib.parse import urlsplit

import httpx
import msgspec

from ledger.cli.failure import Exit, exit_of_status
from ledger.protocol.block import Receipt
from ledger.protocol.errors import Code, Rejected
from marketplace.protocol.errors import MarketCode

if TYPE_CHECKING:
    from ledger.client import Sender
    from ledger.notebook import Notebook
    from ledger.protocol.receipts import SignedReceipt

Json = dict[str, Any]

TIMEOUT: Final = httpx.Timeout(connect=5.0, read=40.0, write=15.0, pool=5.0)
"""A node answers within 30 s; reading waits a little longer."""

EVENTS_READ_S: Final = 60.0
"""A stream that says nothing for this long, keep-alive comments included, is dead."""

MAX_ANSWER: Final = 64 * 2**20
"""Largest answer that is read, in bytes; an export is streamed to a file instead."""

PAGE: Final = 200


class Unreachable(Exception):
    """The node cannot be reached, or broke off: what was sent may or may not have arrived."""

    exit_code = int(Exit.UNREACHABLE)

    def __init__(
        self, message: str, fix: str = "is it running? gpubid node start; or name another with --node or GPUBID_NODE"
    ) -> None:
        super().__init__(message)
        self.fix = fix


class ApiError(Exception):
    """The node answered with a problem. `code` is the ledger's or market's number, 0 where it is none of theirs."""

    signed: Any = None
    """The signed receipt of a transaction that a block refused, as it came, where it was asked for."""

    def __init__(self, status: int, code: int, title: str, detail: str, fix: str = "", id: str = "") -> None:
        Exception.__init__(self, f"{title}{': ' if detail else ''}{detail}")
        self.status = status
        self.code: int = code
        self.title = title
        self.detail = detail
        self.fix = fix
        self.id = id
        """Id of the transaction, where the problem is about one."""
        self.exit_code = int(exit_of_status(status))


class TransactionRefused(ApiError, Rejected):  # type: ignore[misc]  # an IntEnum is an int
    """A transaction was refused for good; caught as ApiError or as the ledger's Rejected."""

    def __init__(self, status: int, code: IntEnum, title: str, detail: str, fix: str = "", id: str = "") -> None:
        ApiError.__init__(self, status, code, title, detail, fix, id)


def code_of(number: int) -> IntEnum | None:
    """The ledger's or the market's code of that number; None for a number that is neither's."""
    for kind in (Code, MarketCode):
        if number in kind._value2member_map_:
            return kind(number)
    return None


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class NodeClient:
    """A node at `base_url`; use as a context manager. Implements `ledger.client.Transport`; not for several threads at once.

    With a `notebook` every receipt is asked for signed, checked and kept, and the node must have the key that is known.
    """

    def __init__(self, base_url: str, notebook: "Notebook | None" = None) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ApiError(0, 0, "not the URL of a node", repr(base_url), "it looks like http://127.0.0.1:8080")
        self.base_url = base_url.rstrip("/")
        self._notebook = notebook
        self._met: tuple[str, str] | None = None
        # A proxy of the surroundings has no business between a program and its own machine.
        self._http = httpx.Client(
            base_url=self.base_url,
            timeout=TIMEOUT,
            follow_redirects=False,
            trust_env=not _loopback(parts.hostname),
            headers={"accept": "application/json"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; an event stream of another thread ends with Unreachable."""
        self._http.close()

    # What a node knows.

    def status(self) -> Json:
        """Chain id, height, block time now, state root, the node's key and version."""
        return self._object("/v1/status")

    def genesis(self) -> Json:
        """The chain's genesis."""
        return self._object("/v1/genesis")

    def parameters(self) -> Json:
        """Every protocol parameter in force, by name."""
        return self._object("/v1/parameters")

    def account(self, address: str) -> Json:
        """An account's balances, sequence and delegations; ApiError 404 where nothing was ever paid to it."""
        return self._object(f"/v1/accounts/{percent(address)}")

    def provider(self, address: str) -> Json:
        """A provider's record, with its hosts and attestations."""
        return self._object(f"/v1/providers/{percent(address)}")

    def providers(self, **query: Any) -> list[Json]:
        """All providers."""
        return self._all("/v1/providers", query)

    def hosts(self, **query: Any) -> list[Json]:
        """Hosts, of one `provider`."""
        return self._all("/v1/hosts", query)

    def bids(self, **query: Any) -> list[Json]:
        """Bids in the book, by `provider` and `model`."""
        return self._all("/v1/bids", query)

    def bid(self, provider: str, host: str) -> Json:
        """The bid of a host."""
        return self._object(f"/v1/bids/{percent(provider)}/{percent(host)}")

    def orders(self, **query: Any) -> list[Json]:
        """Orders, by `owner` and `state`."""
        return self._all("/v1/orders", query)

    def order(self, id: str) -> Json:
        """An order by its id."""
        return self._object(f"/v1/orders/{percent(id)}")

    def deployments(self, **query: Any) -> list[Json]:
        """Deployments, by `owner` and `state`."""
        return self._all("/v1/deployments", query)

    def deployment(self, owner: str, dseq: int) -> Json:
        """A deployment with its orders, leases and purse."""
        return self._object(f"/v1/deployments/{percent(owner)}/{dseq}")

    def leases(self, **query: Any) -> list[Json]:
        """Leases, by `owner`, `provider` and `state`; the state `unreleased` names all that still hold capacity."""
        return self._all("/v1/leases", query)

    def lease(self, id: str) -> Json:
        """A lease by its id, with its cost now."""
        return self._object(f"/v1/leases/{percent(id)}")

    def purse(self, id: str) -> Json:
        """A deployment's purse, by the deployment's id."""
        return self._object(f"/v1/purses/{percent(id)}")

    def blocks(self, *, before: int | None = None, limit: int = 20) -> list[Json]:
        """Headers of the newest blocks below `before`, newest first."""
        query = {"limit": limit} | ({} if before is None else {"before": before})
        return list(self._object("/v1/blocks", query)["items"])

    def block(self, height: int) -> Json:
        """A block with its transactions, receipts and events."""
        return self._object(f"/v1/blocks/{height}")

    def transaction(self, id: str) -> Json:
        """The receipt of a transaction of any age."""
        return self._object(f"/v1/transactions/{percent(id)}")

    def signed_receipt(self, id: str) -> "SignedReceipt":
        """The receipt of a transaction, signed now; with a notebook checked and kept. ApiError 404, ReceiptRefused."""
        found = self._object(f"/v1/transactions/{percent(id)}", {"signed": "true"})
        return self._checked(found, id, self.chain()[0])

    def proof(self, key: str) -> Json:
        """A proof about the record of full key `table/key`, with header and signed checkpoint."""
        return self._object(f"/v1/proofs/{percent(key)}")

    def checkpoint(self, height: int | None = None) -> Json:
        """Height, hash and root of a block, the newest by default, signed by the node's key."""
        return self._object("/v1/checkpoint" if height is None else f"/v1/blocks/{height}/checkpoint")

    def export(self, path: Path) -> None:
        """Write the whole chain to a new file at `path`, as `ledger verify` takes it."""
        with closing(self._stream("/v1/export")) as answer, path.open("wb") as file:
            try:
                for chunk in answer.iter_bytes():
                    file.write(chunk)
            except httpx.HTTPError as error:
                raise Unreachable(f"the export from {self.base_url} broke off: {error}") from None

    # What changes something.

    def quote(self, denomination: str, groups: list[Json]) -> list[Json]:
        """For each group what it would cost now, or why nothing fits."""
        return list(self._send("/v1/quote", {"denomination": denomination, "groups": groups})["quotes"])

    def faucet(self, address: str, amount: str | None = None) -> Json:
        """Ask the faucet of a development chain for `amount` micro-units; the receipt."""
        return self._receipted("/v1/faucet", {"address": address} | ({"amount": amount} if amount else {}))

    def post(self, raw: bytes) -> Receipt:
        """Send a signed transaction; its receipt once it is durable. TransactionRefused, ApiError or Unreachable.

        With a notebook also ReceiptRefused and NodeKeyChanged: then what the node answers is worth nothing.
        """
        return msgspec.convert(self._receipted("/v1/transactions", raw), Receipt)

    def post_many(self, raws: list[bytes]) -> list[Json]:
        """Send up to 1,000 signed transactions in one request; a receipt or problem for each, in order."""
        return list(self._send("/v1/transactions/batch", b"[" + b",".join(raws) + b"]")["results"])

    def chain(self) -> tuple[str, int]:
        """(chain id, block time now in ms): what a transaction needs to be valid. NodeKeyChanged where the key is not known."""
        status = self.status()
        chain_id = str(status["chain_id"])
        if self._notebook is not None and self._met is None:
            self._notebook.meet(self.base_url, chain_id, str(status["node_key"]))
            self._met = chain_id, str(status["node_key"])
        return chain_id, int(status["time_ms"])

    def key(self) -> str:
        """The node's key in hex: with a notebook the one that is known, otherwise what it says. NodeKeyChanged."""
        if self._notebook is None:
            return str(self.status()["node_key"])
        if self._met is None:
            self.chain()
        assert self._met is not None
        return self._met[1]

    def sender(self, seed: bytes, principal: str | None = None, outbox: Path | None = None) -> "Sender":
        """A sender of transactions through this node; see `ledger.client.Sender`."""
        from ledger.client import Sender

        return Sender(self, seed, principal=principal, outbox=outbox)

    def events(self, since: str = "", **filters: str) -> Iterator[Json]:
        """Events after `since` ("HEIGHT" or "HEIGHT:INDEX"; empty: from now), by `owner`, `provider` and `kind`.

        Each has its fields with `id` ("height:index"), `kind`, `height`, `index` and `time_ms`. Ends when the node
        ends the stream: resume after the last `id`. Unreachable where the connection fails.
        """
        query: dict[str, Any] = dict(filters) | ({"since": since} if since else {})
        patience = httpx.Timeout(connect=5.0, read=EVENTS_READ_S, write=15.0, pool=5.0)
        with closing(self._stream("/v1/events", query, patience)) as answer:
            try:
                for line in answer.iter_lines():
                    if line.startswith("data:"):
                        event: Json = msgspec.json.decode(line[5:])
                        yield {"id": f"{event['height']}:{event['index']}", **event}
            except (httpx.HTTPError, RuntimeError) as error:
                raise Unreachable(f"the event stream of {self.base_url} broke off: {error}") from None

    # How it is asked.

    def _object(self, path: str, query: Json | None = None) -> Json:
        return self._request("GET", path, query=query)

    def _all(self, path: str, query: Json) -> list[Json]:
        """Every item of a list, over all its pages; at most `limit` of them where that is asked."""
        query = {name: value for name, value in query.items() if value is not None}
        most = query.pop("limit", None)
        items: list[Json] = []
        token: str | None = None
        while most is None or len(items) < most:
            size = PAGE if most is None else min(PAGE, most - len(items))
            page = self._object(path, query | {"limit": size} | ({"page_token": token} if token else {}))
            items.extend(page["items"])
            token = page["next"]
            if not token:
                break
        return items

    def _send(self, path: str, body: bytes | Json) -> Json:
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return self._request("POST", path, content=content)

    def _receipted(self, path: str, body: bytes | Json) -> Json:
        """Send what is answered with a receipt; with a notebook the signed one, checked and kept."""
        if self._notebook is None:
            return self._send(path, body)
        from ledger.client import envelope_of

        chain_id, _ = self.chain()  # before anything is sent: a node whose key changed gets nothing
        own = envelope_of(body).id if isinstance(body, bytes) else ""
        try:
            found = self._send(f"{path}?signed=true", body)
        except TransactionRefused as refusal:
            if refusal.signed is not None:
                said = {"id": refusal.id, "code": int(refusal.code), "signed": refusal.signed}
                self._checked(said, own or refusal.id, chain_id)
            raise
        self._checked(found, own or str(found.get("id")), chain_id)
        found.pop("signed")
        return found

    def _checked(self, found: Json, id: str, chain_id: str) -> "SignedReceipt":
        """The signed receipt in an answer about transaction `id`, found good and kept. ReceiptRefused."""
        from ledger.notebook import ReceiptRefused, check_receipt
        from ledger.protocol.receipts import SignedReceipt

        try:
            signed = msgspec.convert(found.get("signed"), SignedReceipt)
            # A problem names no place: then the signed one stands for itself.
            receipt = msgspec.convert({"height": signed.receipt.height, "index": signed.receipt.index} | found, Receipt)
        except msgspec.ValidationError as error:
            raise ReceiptRefused(id, f"it is not signed, or not as it should be: {error}") from None
        check_receipt(signed, id, receipt, chain_id, self.key())
        if self._notebook is not None:
            self._notebook.keep(signed)
        return signed

    def _request(self, method: str, path: str, *, query: Json | None = None, content: bytes | None = None) -> Json:
        headers = {"content-type": "application/json"} if content is not None else {}
        request = self._http.build_request(method, path, params=query, content=content, headers=headers)
        with closing(self._open(request)) as answer:
            body = self._body(answer)
        try:
            found = msgspec.json.decode(body)
        except msgspec.MsgspecError:
            found = None
        if not isinstance(found, dict):
            raise Unreachable(f"{self.base_url} does not answer like a node", "check the URL")
        return found

    def _stream(self, path: str, query: Json | None = None, timeout: httpx.Timeout = TIMEOUT) -> httpx.Response:
        request = self._http.build_request("GET", path, params=query, timeout=timeout)
        return self._open(request)

    def _open(self, request: httpx.Request) -> httpx.Response:
        """Send, and return the answer with its body unread; problems are raised."""
        try:
            answer = self._http.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError) as error:
            raise Unreachable(f"no answer from {self.base_url}: {error}") from None
        if answer.status_code != httpx.codes.OK:
            with closing(answer):
                raise _problem(answer.status_code, self._body(answer))
        return answer

    def _body(self, answer: httpx.Response) -> bytes:
        body = bytearray()
        try:
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER:
                    raise Unreachable(f"{self.base_url} answers with more than {MAX_ANSWER} bytes", "ask for less at once")
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.base_url} broke off: {error}") from None
        return bytes(body)


def _problem(status: int, body: bytes) -> ApiError:
    """What a body that is no answer says."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.MsgspecError:
        found = None
    if not isinstance(found, dict) or "title" not in found:
        return ApiError(status, 0, f"HTTP {status}", body[:200].decode(errors="replace"), "check the URL of the node")
    number = found.get("code", 0)
    texts = {name: str(found.get(name, "")) for name in ("title", "detail", "fix", "id")}
    code = code_of(number) if isinstance(number, int) and number else None
    if code is not None and texts["id"]:
        refused = TransactionRefused(status, code, **texts)
        refused.signed = found.get("signed")
        return refused
    return ApiError(status, number if isinstance(number, int) else 0, **texts)
