"""The event stream: complete, in order, filtered, and resumable from any id."""

import socket
import threading
from collections.abc import Iterator
from itertools import islice
from typing import Any

import httpx
import pytest

from ledger.protocol.messages import Transfer
from marketplace.client import NodeClient
from marketplace.node.hub import Filter, Frame, Place, parse_place
from marketplace.node.problems import Problem
from marketplace.node.routes import live as routes
from tests.marketplace.node.listening import Listening, listening
from tests.marketplace.node.serving import address, signed
from tests.processes import eventually


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """A node behind a socket, with some history."""
    with listening(tmp_path_factory.mktemp("live")) as found:
        with NodeClient(found.url) as client:
            client.faucet(address(1))
            _pay(client, 10)
        yield found


def _pay(client: NodeClient, times: int) -> None:
    for _ in range(times):
        client.post(signed(*client.chain(), 1, Transfer(amount="1", denomination="ucredit", to=address(2))))


def _take(url: str, count: int, since: str, **filters: str) -> list[dict[str, Any]]:
    """The first events after a place."""
    with NodeClient(url) as client:
        events = client.events(since, **filters)
        try:
            return list(islice(events, count))
        finally:
            events.close()  # type: ignore[attr-defined]


def test_history_is_complete_and_in_order(live: Listening) -> None:
    """From 0 on, the stream gives exactly the events that the blocks hold, each once."""
    with NodeClient(live.url) as client:
        height = client.status()["height"]
        expected = []
        for at in range(1, height + 1):
            block = client.block(at)
            events = block["begin_events"] + [e for r in block["receipts"] for e in r["events"]] + block["end_events"]
            expected += [(f"{at}:{index}", event["kind"]) for index, event in enumerate(events)]
    got = [(e["id"], e["kind"]) for e in _take(live.url, len(expected), "0")]
    assert got == expected


def test_a_reader_resumes_after_any_id(live: Listening) -> None:
    """Wherever a reader stopped, `since` its last id gives the rest, no event twice and none missing."""
    whole = [e["id"] for e in _take(live.url, 12, "0")]
    for cut in (1, 2, 5, 11):
        rest = [e["id"] for e in _take(live.url, 12 - cut, whole[cut - 1])]
        assert whole[:cut] + rest == whole


def test_last_event_id_wins(live: Listening) -> None:
    """A browser that reconnects sends Last-Event-ID, which counts instead of the URL's `since`."""
    third = _take(live.url, 3, "0")[2]["id"]
    url = f"{live.url}/v1/events?since=0"
    with httpx.stream("GET", url, headers={"last-event-id": third}, timeout=60, trust_env=False) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        first = next(line for line in answer.iter_lines() if line.startswith("id: "))
    assert first == f"id: {_take(live.url, 4, '0')[3]['id']}"


def test_live_events_follow_history(live: Listening) -> None:
    """A reader that has caught up gets what happens afterwards, filtered by kind, without a gap."""
    with NodeClient(live.url) as client:
        height = client.status()["height"]
    got: list[dict[str, Any]] = []
    started = threading.Event()

    def read() -> None:
        started.set()
        got.extend(_take(live.url, 20, str(height), kind="Transferred,Nothing"))

    reader = threading.Thread(target=read)
    reader.start()
    started.wait(60)
    with NodeClient(live.url) as client:
        _pay(client, 20)
    reader.join(60)
    assert not reader.is_alive()
    assert [e["kind"] for e in got] == ["Transferred"] * 20
    heights = [e["height"] for e in got]
    assert heights == sorted(heights)
    assert heights[0] > height


def test_a_reader_that_stops_reading_is_cut_off(live: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that takes nothing in holds no stream for ever; another goes on from any id meanwhile."""
    monkeypatch.setattr(routes, "STALLED_S", 0.05)
    port = int(live.url.rsplit(":", 1)[1])
    with socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        stalled.connect(("127.0.0.1", port))
        stalled.sendall(b"GET /v1/events?since=0 HTTP/1.1\r\nhost: x\r\n\r\n")
        eventually(lambda: live.node.hub.streams > 0, "the stalled reader's stream")
        with NodeClient(live.url) as client:
            chain_id, now_ms = client.chain()

            def fill() -> bool:
                # Events of about 200 bytes each: enough of them fill every buffer on the way.
                move = Transfer(amount="1", denomination="ucredit", to=address(2))
                client.post_many([signed(chain_id, now_ms, 1, *[move] * 60) for _ in range(50)])
                return live.node.hub.streams == 0

            eventually(fill, "the stalled reader to be cut off")
    monkeypatch.undo()
    assert len(_take(live.url, 3, "0")) == 3


def test_places_are_parsed_strictly() -> None:
    """A place is HEIGHT or HEIGHT:INDEX in plain digits."""
    assert parse_place("7:3") == Place(7, 3)
    assert parse_place("7").height == 7
    for text in ("", ":", "1:", ":1", "-1", "1:-1", "x", "1:x", "１", "1" * 17, "1:2:3"):
        with pytest.raises(Problem):
            parse_place(text)


def test_filters_take_what_they_name() -> None:
    """A filter takes an event where every part that it names matches."""
    frame = Frame(0, "LeaseEnded", "o", "p", b"")
    for wanted in (Filter(), Filter("o"), Filter("o", "p"), Filter(kinds=frozenset({"LeaseEnded", "X"}))):
        assert wanted.takes(frame)
    for wanted in (Filter("x"), Filter("o", "x"), Filter(kinds=frozenset({"X"}))):
        assert not wanted.takes(frame)
