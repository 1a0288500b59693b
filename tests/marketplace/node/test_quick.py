"""The quick path beside uvicorn's own, which is the oracle: the same bytes, however cut, meet the same answers."""

import random
import select
from collections.abc import Iterator

import pytest

from marketplace.node import edge as edges
from marketplace.node import quick as quicks
from tests.marketplace.node.wire import LAST, PATIENCE_S, Wired, answer, heard, post, wired
from tests.processes import eventually

BATCH = "/v1/transactions/batch"
GET = b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n"
REQUESTS = [
    post(b'{"good":1}'),
    post(b'{"poor":1}'),
    post(b'{"limited":1}'),
    post(b"\xff\xfe\x00"),
    post(b"x" * 3000),
    post(b'[{"a":1}, {"poor":2} ,{"limited":3}]', BATCH),
    post(b"[]", BATCH),
    post(b'{"no":"batch"}', BATCH),
    post(b"[1" * 50, BATCH),
    post(b""),
    post(b"{}", "/v1/transactions?x=1"),
    post(b"{}", "/v1/transactions/"),
    post(b"{}", "/v1/transactions/other"),
    post(b"{}", "/%761/transactions"),
    post(b'{"good":2}', "/v1/transactions", "Connection: Keep-Alive", "User-Agent: y", "Accept: */*"),
    post(b'{"good":3}', "/v1/transactions", "te: trailers"),
    post(b'{"good":4}', BATCH, "x-folded: " + "y" * 1500),
    post(b'{"good":5}', "/v1/transactions", "x-long: " + "y" * 5000),
    post(b"x" * 300_000),
    b'POST /v1/transactions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{"c\r\n4\r\n":1}\r\n0\r\n\r\n',
    b"PUT /v1/transactions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}",
    post(b"quote", "/v1/quote"),
    post(b"{}", "/v1/transactions", "upgrade: websocket"),
    GET,
    b"HEAD /v1/transactions HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    b"\r\n\r\n" + post(b'{"good":6}'),
]
"""Each is answered, and the connection goes on."""

MALFORMED = [
    b"POST /v1/transactions\r\n\r\n",
    b"POST /v1/transactions HTTP/9.9\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}",
    b"POST /v1/transactions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    b"POST /v1/transactions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n{}",
    b"POST /v1/transactions HTTP/1.1\r\nhost: x\r\ncontent-length: -2\r\n\r\n{}",
    b"POST /v1/transactions HTTP/1.1\r\nhost: x\r\ncontent-length: +2\r\n\r\n{}",
    b"POST /v1/transactions HTTP/1.1\r\nhost: x\r\ncontent-length: 2 \r\n\r\n{}",
    b"POST /v1/transactions HTTP/1.1\r\nhost: x\r\ncontent-length: 0x2\r\n\r\n{}",
    b"POST /v1/transactions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/transactions HTTP/1.1\r\nhost: x\r\ncontent-length : 2\r\n\r\n{}",
    b"POST /v1/transactions HTTP/1.1\r\nhost: x\r\n folded\r\ncontent-length: 2\r\n\r\n{}",
    b"POST /v1/transactions HTTP/1.1\r\nhost: x\x00y\r\ncontent-length: 2\r\n\r\n{}",
    b"POST /v1/transactions HTTP/1.1\nhost: x\ncontent-length: 30\n\n{}\r\n\r\n",
    b"POST /v1/transactions HTTP/1.1\r\nhost: x\ncontent-length: 2\n\r\n{}",
    b"POST /v1/transactions HTTP/1.1\r\rhost: x\r\ncontent-length: 2\r\n\r\n{}",
    b"POST /v1/transactions HTTP/1.0\r\ncontent-length: 2\r\n\r\n{}",
    post(b"{}", "/v1/transactions", "connection: close"),
    post(b"{}", "/v1/transactions", "connection: keep-alive, close"),
    b"\x16\x03\x01\x02\x00",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]
"""Each ends the connection, or may."""


UPGRADES = [
    post(b"{}", "/v1/transactions", "connection: upgrade", "upgrade: h2c"),
    post(b"{}", "/v1/transactions", "connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: x"),
    b"CONNECT /v1/transactions HTTP/1.1\r\nhost: x\r\n\r\n",
]
"""Each is answered; what comes after it is no business of ours."""


@pytest.fixture(scope="module")
def quick() -> Iterator[Wired]:
    """An edge served by the quick protocol."""
    with wired() as found:
        yield found


@pytest.fixture(scope="module")
def usual() -> Iterator[Wired]:
    """The same, served by uvicorn's own."""
    with wired(quick=False) as found:
        yield found


def cut(data: bytes, chance: random.Random) -> list[bytes]:
    """The bytes in a few pieces."""
    marks = sorted(chance.randrange(len(data)) for _ in range(chance.randrange(6)))
    return [piece for first, last in zip([0, *marks], [*marks, len(data)], strict=True) if (piece := data[first:last])]


def test_each_request_is_answered_as_by_the_usual_path(quick: Wired, usual: Wired) -> None:
    """Every kind of request, alone and whole, gets the same status, headers and body on both."""
    for request in REQUESTS:
        if request.startswith(b"HEAD"):
            continue  # its answer has a length and no body: the reader of these tests cannot tell
        expected = usual.ask([request + LAST])
        assert quick.ask([request + LAST]) == expected, request[:200]
        assert len(expected) == 2
        assert expected[-1].body == b"GET /last "


def test_malformed_requests_are_answered_as_by_the_usual_path(quick: Wired, usual: Wired) -> None:
    """What is malformed, ambiguous or ends the connection is never read otherwise than the parser reads it, and harms nobody."""
    for request in MALFORMED:
        expected = usual.ask([request + LAST])
        assert quick.ask([request + LAST]) == expected, request
        assert quick.ask([post(b'{"good":1}') + request + LAST])[1:] == expected, request
    assert [h.status for h in quick.ask([post(b"{}") + LAST])] == [200, 200]


def test_other_protocols_are_not_spoken(quick: Wired, usual: Wired) -> None:
    """A request that asks for another protocol is answered as by the usual path, and the quick path takes nothing after it."""
    for request in UPGRADES:
        before, seen = quick.edge.usual, len(quick.engine.seen)
        with quick.connect() as ours, usual.connect() as theirs:
            ours.sendall(request)
            theirs.sendall(request)
            assert answer(ours) == answer(theirs)
            assert quick.edge.usual == before + 1
            ours.sendall(post(b'{"after":1}'))
            theirs.sendall(post(b'{"after":1}'))
            assert answer(ours) == answer(theirs)
            assert quick.edge.usual - before == 1 + (b'{"after":1}' in quick.engine.seen[seen:])


def test_pipelined_requests_cut_anywhere(quick: Wired, usual: Wired) -> None:
    """Requests of all kinds one after the other, cut at any place, are answered in order, each as it would be alone."""
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    asked = [r for r in REQUESTS if not r.startswith(b"HEAD") and len(r) < 100_000]
    for _ in range(25):
        chosen = chance.choices(asked[:6], k=4) + chance.choices(asked, k=6)
        chance.shuffle(chosen)
        data = b"".join(chosen) + LAST
        expected = [usual.ask([request + LAST])[0] for request in chosen]
        assert quick.ask(cut(data, chance))[:-1] == expected


def test_byte_by_byte(quick: Wired, usual: Wired) -> None:
    """Requests that come one byte at a time are answered like any other."""
    data = post(b'{"good":1}') + post(b'[{"a":1}]', BATCH) + LAST
    assert quick.ask([bytes([byte]) for byte in data]) == usual.ask([data])


def test_which_path_is_taken(quick: Wired) -> None:
    """Plain requests never reach the application, also with the body in a second piece; unusual ones do."""
    before = quick.edge.usual
    with quick.connect() as sock:
        for parts in ([post(b"{}")], [post(b"{}")[:-2], b"{}"], [post(b"{}")[:-1], b"}"], [post(b"[{}]", BATCH)]):
            for part in parts:
                sock.sendall(part)
            assert answer(sock).status == 200
        assert quick.edge.usual == before
        sock.sendall(post(b"{}", "/v1/transactions", "te: trailers"))
        assert answer(sock).status == 200
        assert quick.edge.usual == before + 1
        sock.sendall(post(b"{}"))
        assert answer(sock).status == 200
        assert quick.edge.usual == before + 1


def test_expect_continue(quick: Wired) -> None:
    """A client that asks before it sends its body is told to go on, and answered."""
    with quick.connect() as sock:
        head, _, body = post(b'{"good":1}', "/v1/transactions", "expect: 100-continue").partition(b"\r\n\r\n")
        sock.sendall(head + b"\r\n\r\n")
        assert sock.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert answer(sock).status == 200


def test_clients_that_leave(quick: Wired) -> None:
    """Clients that leave in the head, in the body or before the answer leave nothing behind; what was whole is applied."""
    for number in range(20):
        for data in (post(b"{}")[:30], post(b'{"good":1}')[:-3], post(b'{"left":%d}' % number), post(b"[{}]", BATCH)[:-1]):
            with quick.connect() as sock:
                sock.sendall(data)
    with quick.connect() as sock:
        sock.sendall(post(b'{"wait":"gone"}') + post(b'{"never":1}'))
        eventually(lambda: quick.engine.kept, "the engine to have it")
    eventually(lambda: not quick.server.server_state.connections, "the connections to be gone")
    quick.engine.kept.pop()(quick.engine.receipt(b"late"))
    eventually(lambda: not quick.edge.intake._waiting, "its outcome to be taken")
    for number in range(20):
        assert b'{"left":%d}' % number in quick.engine.seen
    assert b'{"never":1}' not in quick.engine.seen
    assert [h.status for h in quick.ask([post(b"{}") + LAST])] == [200, 200]


def test_a_slow_body_is_refused(quick: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not come is refused with 408 on the quick path too; one that is only late is not."""
    monkeypatch.setattr(quicks, "HOLD_S", 0.01)
    before = quick.edge.usual
    with quick.connect() as sock:
        sock.sendall(post(b'{"late":1}')[:-5])
        eventually(lambda: quick.edge.usual > before, "the usual path to have it")
        sock.sendall(post(b'{"late":1}')[-5:])
        assert answer(sock).status == 200
        monkeypatch.setattr(edges, "BODY_S", 0.05)
        sock.sendall(post(b"{}")[:-1])
        assert answer(sock).status == 408


def test_huge_heads(quick: Wired) -> None:
    """A head over 64 KiB is refused with 431 while it comes, whether of one header or of many."""
    for lines in (b"x: " + b"y" * 2_000_000, b"a: b\r\n" * 400_000):
        found = quick.ask([b"POST /v1/transactions HTTP/1.1\r\n" + lines])
        assert [h.status for h in found] in ([431], []), "an answer, unless it was lost as we were still sending"
    assert [h.status for h in quick.ask([post(b"{}") + LAST])] == [200, 200]


def test_heads_without_end_are_many(quick: Wired) -> None:
    """However many different heads come, what is remembered of them is bounded, and none is mistaken for another."""
    data = b"".join(post(b'{"n":%d}' % n, "/v1/transactions", f"x-n: {n}") for n in range(2_500))
    found = quick.ask([data + LAST])
    assert [h.status for h in found] == [200] * 2_501
    assert all(b'{\\"n\\":%d}' % n in h.body for n, h in enumerate(found[:-1]))


def test_too_many_connections() -> None:
    """At the limit of connections a quick request is refused with 503 like any other."""
    with wired(limit_concurrency=3) as full, full.connect(), full.connect():
        eventually(lambda: len(full.server.server_state.connections) == 2, "two connections")
        assert [h.status for h in full.ask([post(b"{}", "/v1/transactions", "connection: close")])] == [503]
        with full.connect() as sock:
            sock.sendall(post(b"{}"))
            assert b" 503 " in sock.recv(65_536)
        assert not full.engine.seen


def test_a_bug_is_said(quick: Wired) -> None:
    """An outcome that nobody expected is 500 and ends the connection, not the node."""
    found = quick.ask([post(b'{"bug":1}') + post(b"{}")])
    assert [h.status for h in found] == [500]
    assert ("connection", "close") in found[0].headers
    assert [h.status for h in quick.ask([post(b"{}") + LAST])] == [200, 200]


def test_the_end_of_the_server() -> None:
    """When the server ends, a request under way and one whose body is still coming are answered; then it closes."""
    with wired() as ending, ending.connect() as waiting, ending.connect() as sending, ending.connect() as idle:
        waiting.sendall(post(b'{"wait":1}') + post(b'{"behind":1}'))
        sending.sendall(post(b'{"half":1}')[:-3])
        eventually(lambda: ending.engine.kept, "the engine to have it")
        eventually(lambda: len(ending.server.server_state.connections) == 3, "all connections")
        eventually(lambda: any(p._held for p in ending.server.server_state.connections), "the half one")  # type: ignore[union-attr]
        ending.server.should_exit = True
        assert idle.recv(1) == b""
        ending.engine.kept.pop()(ending.engine.receipt(b"done"))
        found = answer(waiting)
        assert found.status == 200
        assert ("connection", "close") in found.headers
        assert waiting.recv(1) == b""
        sending.sendall(post(b'{"half":1}')[-3:])
        assert answer(sending).status == 200
        ending.thread.join(PATIENCE_S)
        assert not ending.thread.is_alive()


def test_silent_connections_are_closed() -> None:
    """A connection that asks nothing, or does not end its head, is closed after a while; one that waits for its result is not."""
    with wired(timeout_keep_alive=60) as node, node.connect() as waiting:
        waiting.sendall(post(b'{"wait":1}'))
        eventually(lambda: node.engine.kept, "the engine to have it")
        (connection,) = node.server.server_state.connections
        node.server.config.timeout_keep_alive = 1  # of connections from now on
        for beginning in (b"", b"POST /v1/transactions HTTP/1.1\r\nhost:", post(b"{}")):
            with node.connect() as sock:
                sock.sendall(beginning)
                data = b""
                while chunk := sock.recv(65_536):
                    data += chunk
                assert {h.status for h in heard(data)} <= {200}
        connection._quiet_since = 0.0  # type: ignore[union-attr]
        connection.loop.call_soon_threadsafe(connection._look)  # type: ignore[union-attr]
        node.engine.kept.pop()(node.engine.receipt(b"done"))
        assert answer(waiting).status == 200


def test_a_client_that_does_not_read(quick: Wired) -> None:
    """While a client does not read its answers no more of its requests are taken, and little of them is kept."""
    count = 30_000
    with quick.connect() as sock:
        before = len(quick.engine.seen)
        requests = memoryview(b"".join(post(b'{"n":%05d,"%b":1}' % (n, b"z" * 400)) for n in range(count)) + LAST)
        sock.setblocking(False)
        sent = 0
        while sent < len(requests) and select.select([], [sock], [], 1)[1]:
            sent += sock.send(requests[sent : sent + 65_536])
        taken = len(quick.engine.seen) - before
        (connection,) = quick.server.server_state.connections
        assert len(connection._later) < 2 * 2**20  # type: ignore[union-attr]
        assert sent == len(requests) or taken < count
        data = bytearray()
        while True:
            ready, free, _ = select.select([sock], [sock] if sent < len(requests) else [], [], PATIENCE_S)
            assert ready or free, "neither way goes on"
            if free:
                sent += sock.send(requests[sent : sent + 65_536])
            if ready:
                chunk = sock.recv(1_000_000)
                if not chunk:
                    break
                data += chunk
        found = heard(bytes(data))
        assert len(found) == count + 1
        assert all(b'n\\":%05d' % n in h.body for n, h in enumerate(found[:-1]))
        assert len(quick.engine.seen) - before == count
