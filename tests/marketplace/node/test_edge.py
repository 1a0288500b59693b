"""The edge against clients that are slow and an engine that is busy, silent or gone."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from ledger.engine.asked import Done, Outcome
from ledger.engine.errors import EngineBusy, Indeterminate
from ledger.protocol.block import Receipt
from marketplace.node import edge as edges
from marketplace.node import intake
from marketplace.node.edge import Edge
from marketplace.node.metrics import Metrics


class Stub:
    """An engine that answers every transaction with what it is told, or not at all."""

    def __init__(self, act: Callable[[], Outcome | None]) -> None:
        self.act = act
        self.calls: list[int] = []

    def submit_batch(self, raws: list[bytes], done: Done) -> None:
        """Answer at once."""
        self.calls.append(len(raws))
        outcomes = [(place, self.act()) for place, _ in enumerate(raws)]
        done([(place, outcome) for place, outcome in outcomes if outcome is not None])


async def _inner(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inner"})


async def _call(
    edge: Edge, path: str, messages: list[dict[str, Any]], *, stalls: bool = False
) -> tuple[int, Any, dict[str, str]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        if stalls:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await edge({"type": "http", "method": "POST", "path": path, "headers": []}, receive, send)
    if not sent:
        return 0, None, {}
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], json.loads(sent[1]["body"]), headers


def _post(stub: Stub, path: str = edges.TRANSACTIONS, body: bytes = b"{}") -> tuple[int, Any, dict[str, str]]:
    edge = Edge(_inner, stub, Metrics())  # type: ignore[arg-type]
    return asyncio.run(_call(edge, path, [{"type": "http.request", "body": body, "more_body": False}]))


def test_a_slow_body_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not come to its end in time is refused with 408, and one that is broken off is left alone."""
    monkeypatch.setattr(edges, "BODY_S", 0.01)
    edge = Edge(_inner, Stub(lambda: None), Metrics())  # type: ignore[arg-type]
    part = {"type": "http.request", "body": b"{", "more_body": True}
    assert asyncio.run(_call(edge, edges.TRANSACTIONS, [dict(part)], stalls=True))[0] == 408
    assert asyncio.run(_call(edge, edges.TRANSACTIONS, [dict(part)]))[0] == 0


def test_a_silent_engine_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a result in time the answer is 504: whether it is applied is not known, and the fix says what to do."""
    monkeypatch.setattr(intake, "RESULT_S", 0.01)
    for path, body in ((edges.TRANSACTIONS, b"{}"), (edges.BATCH, b"[{}]")):
        status, problem, _ = _post(Stub(lambda: None), path, body)
        assert status == 504
        assert "same bytes" in problem["fix"]


def test_a_busy_or_stopped_engine_says_so() -> None:
    """A full queue and a ledger that has stopped are 503 with Retry-After, alone and in a batch."""
    for error in (EngineBusy("20000 transactions wait"), Indeterminate("the ledger has stopped")):
        status, problem, headers = _post(Stub(lambda error=error: error))  # type: ignore[misc]
        assert (status, headers["retry-after"]) == (503, "1")
        assert str(error) in problem["detail"]
        status, found, _ = _post(Stub(lambda error=error: error), edges.BATCH, b"[{}]")  # type: ignore[misc]
        assert (status, found["results"][0]["status"]) == (200, 503)


def test_requests_of_one_turn_go_in_together() -> None:
    """Transactions that arrive in the same turn of the loop reach the engine in one call; each gets its own receipt."""
    numbers = iter(range(100))
    stub = Stub(lambda: Receipt(id="a" * 64, height=1, index=next(numbers), code=0))
    edge = Edge(_inner, stub, Metrics())  # type: ignore[arg-type]

    async def many() -> list[int]:
        request = {"type": "http.request", "body": b"{}", "more_body": False}
        found = await asyncio.gather(*(_call(edge, edges.TRANSACTIONS, [dict(request)]) for _ in range(20)))
        return [answer["index"] for _, answer, _ in found]

    assert asyncio.run(many()) == list(range(20))
    assert stub.calls == [20]
