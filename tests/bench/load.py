"""A client that costs little beside the server it measures: one process, epoll, requests made beforehand.

Both sides of every ratio are driven by it, so what it costs itself (about 12 µs a request) is in both.
"""

import select
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Event

PATIENCE_S = 60.0
"""Longest wait for any answer."""


def request(path: str, body: bytes, method: str = "POST") -> bytes:
    """The bytes of a request on a keep-alive connection."""
    return b"%b %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (method.encode(), path.encode(), len(body)) + body


@dataclass
class Driven:
    """What came back: seconds from the first request to the last answer, and how many answers were 200."""

    seconds: float
    good: int


class Clients:
    """Keep-alive connections to one port, each with one request under way at a time."""

    def __init__(self, port: int, connections: int) -> None:
        self._poll = select.epoll(connections)
        self._socks: dict[int, socket.socket] = {}
        self._parts: dict[int, bytes] = {}
        for _ in range(connections):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Blocking, and read only when it is readable: saves a system call on each way.
            sock.settimeout(None)
            self._socks[sock.fileno()] = sock
            self._poll.register(sock, select.EPOLLIN)

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._socks.values():
            sock.close()
        self._poll.close()

    def _answer(self, fd: int) -> bytes | None:
        """The whole answer that has come on a connection, or None."""
        data = self._socks[fd].recv(262_144)
        if not data:
            raise ConnectionError("the server closed a connection")
        if fd in self._parts:
            data = self._parts.pop(fd) + data
        at = data.find(b"content-length: ")
        end = data.find(b"\r\n\r\n", at)
        if at < 0 or end < 0 or len(data) < end + 4 + int(data[at + 16 : data.find(b"\r", at)]):
            self._parts[fd] = data
            return None
        return data

    def all_of(self, requests: Sequence[bytes]) -> Driven:
        """Send every request as soon as a connection is free, and wait for all answers."""
        left = iter(requests)
        under_way = good = 0
        begun = time.perf_counter()
        for sock in self._socks.values():
            if (first := next(left, None)) is None:
                break
            sock.sendall(first)
            under_way += 1
        socks, poll, answer = self._socks, self._poll.poll, self._answer
        while under_way:
            ready = poll(PATIENCE_S)
            assert ready, f"no answer within {PATIENCE_S:.0f} s"
            for fd, _ in ready:
                data = answer(fd)
                if data is None:
                    continue
                good += data.startswith(b"HTTP/1.1 200")
                following = next(left, None)
                if following is None:
                    under_way -= 1
                else:
                    socks[fd].sendall(following)
        return Driven(time.perf_counter() - begun, good)

    def paced(self, requests: Sequence[bytes], each_s: float) -> list[float]:
        """Seconds from when each request was due to its answer, at a fixed pace whatever the answers do."""
        free = deque(self._socks)
        due_of: dict[int, float] = {}
        taken: list[float] = []
        sent = 0
        begun = time.perf_counter() + 0.05
        while len(taken) < len(requests):
            now = time.perf_counter()
            while sent < len(requests) and free and now >= begun + sent * each_s:
                fd = free.popleft()
                self._socks[fd].sendall(requests[sent])
                due_of[fd] = begun + sent * each_s
                sent += 1
            # A wait ends early rather than late: the last fraction of a millisecond is spent looking.
            pause = begun + sent * each_s - now if sent < len(requests) and free else PATIENCE_S
            for fd, _ in self._poll.poll(max(0.0, pause - 0.0005)):
                if (data := self._answer(fd)) is not None:
                    assert data.startswith(b"HTTP/1.1 200"), data[:500]
                    taken.append(time.perf_counter() - due_of.pop(fd))
                    free.append(fd)
        return taken


def _drive(port: int, requests: Sequence[bytes], connections: int, begun: Event) -> None:
    with Clients(port, connections) as clients:
        clients.all_of(requests[:connections])
        begun.set()
        clients.all_of(requests[connections:])


@contextmanager
def busy(port: int, requests: Sequence[bytes], connections: int) -> Iterator[None]:
    """While in it another process sends the requests as fast as they are answered; there must be enough of them."""
    context = get_context("spawn")
    begun = context.Event()
    process = context.Process(target=_drive, args=(port, requests, connections, begun))
    process.start()
    try:
        assert begun.wait(PATIENCE_S), "it does not begin"
        yield
        assert process.is_alive(), "there were too few requests"
    finally:
        process.terminate()
        process.join()
