"""Streams from the engine to a tenant, ended from either side; and the bridge between threads and the event loop."""

import heapq
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, TypeVar

import anyio
import msgspec
from anyio import to_thread

from provider.gateway.problem import Problem
from provider.runtime.port import Container, LogLine, Runtime, StartFailed, Stream, Unknown

T = TypeVar("T")

QUEUE: Final = 1_000
"""Lines that wait for a slow reader, before its stream waits too."""

STREAM_THREADS: Final = 256
"""Streams and shells at one time."""

_END: Final = object()


def engine_problem(error: Unknown | StartFailed) -> Problem:
    """What a tenant is told of the engine's refusal."""
    if isinstance(error, Unknown):
        return Problem(503, "ENGINE_UNREACHABLE", "the provider's container engine does not answer", fix="try again soon")
    return Problem(409, "NOT_RUNNING", "the container cannot do this now", error.detail, "see gpubid lease status")


class Lines:
    """Log lines of several containers as one stream of JSON-able dicts. `close()` ends it from any thread."""

    def __init__(self, runtime: Runtime, containers: list[Container], *, follow: bool, tail: int | None) -> None:
        self._streams: list[tuple[Container, Stream[LogLine]]] = []
        self._closed = False
        try:
            for container in containers:
                self._streams.append((container, runtime.logs(container.id, follow=follow, tail=tail)))
        except BaseException:
            self.close()
            raise
        self._items = self._followed() if follow else self._merged()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        return next(self._items)

    def close(self) -> None:
        """End it."""
        self._closed = True
        for _, stream in self._streams:
            stream.close()

    def _merged(self) -> Iterator[dict[str, Any]]:
        """All lines so far, by time."""
        rows = [(_row(container, line) for line in stream) for container, stream in self._streams]
        yield from heapq.merge(*rows, key=lambda row: str(row["time"]))

    def _followed(self) -> Iterator[dict[str, Any]]:
        """Lines as they come, until all containers have ended."""
        lines: queue.Queue[Any] = queue.Queue(QUEUE)

        def pump(container: Container, stream: Stream[LogLine]) -> None:
            try:
                for line in stream:
                    self._put(lines, _row(container, line))
            except (Unknown, StartFailed) as error:
                self._put(lines, {"error": engine_problem(error).code})
            finally:
                self._put(lines, _END)

        threads = [threading.Thread(target=pump, args=pair, name="logs", daemon=True) for pair in self._streams]
        for thread in threads:
            thread.start()
        open_streams = len(threads)
        while open_streams and not self._closed:
            try:
                line = lines.get(timeout=1)
            except queue.Empty:
                continue
            if line is _END:
                open_streams -= 1
            else:
                yield line

    def _put(self, lines: "queue.Queue[Any]", item: Any) -> None:
        while not self._closed:
            try:
                lines.put(item, timeout=1)
                return
            except queue.Full:
                continue


def _row(container: Container, line: LogLine) -> dict[str, Any]:
    return {
        "service": container.service, "replica": container.replica, "stream": line.stream, "time": line.time, "text": line.text,
    }  # fmt: skip


class Bridge:
    """Runs blocking calls beside the event loop, on threads of its own so that streams never starve other requests."""

    def __init__(self) -> None:
        self._limiter: anyio.CapacityLimiter | None = None

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """The result of a blocking call; where the request ends meanwhile, it is left to end by itself."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(STREAM_THREADS)
        return await to_thread.run_sync(function, *arguments, abandon_on_cancel=True, limiter=self._limiter)

    async def ndjson(self, items: Any, row: Callable[[Any], Any]) -> AsyncIterator[bytes]:
        """Each item as a line of JSON; closes `items` however it ends."""
        try:
            while True:
                try:
                    item = await self.call(next, items, _END)
                except (Unknown, StartFailed) as error:
                    problem = engine_problem(error)
                    yield msgspec.json.encode({"error": problem.code, "detail": problem.title}) + b"\n"
                    return
                if item is _END:
                    return
                yield msgspec.json.encode(row(item)) + b"\n"
        finally:
            items.close()
