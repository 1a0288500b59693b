"""A container's output as lines, over the engine's stream: it may end early, and that must not look like the end."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

from provider.runtime.engine import Engine, Flow, frames
from provider.runtime.port import LogLine, StartFailed, Unknown

LONGEST_LINE: Final = 65_536
"""Bytes after which an unfinished line is given as one."""


def unix_time(stamp: str) -> str:
    """An RFC 3339 time as seconds with nine decimals, the form engines take for `since`."""
    whole, _, rest = stamp.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole[:19]).replace(tzinfo=UTC).timestamp())
    return f"{seconds}.{(rest or '0')[:9].ljust(9, '0')}"


PAUSE_S: Final = 0.1
"""Between two openings of a stream that the engine keeps ending."""


class LogStream:
    """Lines of one container. Reopens where the engine ends a followed stream of a container that still runs."""

    def __init__(
        self, engine: Engine, container: str, running: Callable[[str], bool], *, follow: bool, tail: int | None, since: str
    ) -> None:
        self._engine = engine
        self._container = container
        self._running = running
        self._follow = follow
        self._lock = threading.Lock()
        self._closed = False
        self._last = ""
        self._at_last = 0
        self._drained = not follow
        self._flow = self._open("all" if tail is None else str(tail), since, follow)
        self._lines = self._read(self._flow, last=not follow)

    def _open(self, tail: str, since: str, follow: bool) -> Flow:
        query = {"stdout": "1", "stderr": "1", "timestamps": "1", "follow": "1" if follow else "0", "tail": tail}
        if since:
            query["since"] = unix_time(since)
        return self._engine.flow("GET", f"/containers/{self._container}/logs", query, kind="start_failed")

    def _read(self, flow: Flow, *, last: bool) -> Iterator[LogLine]:
        """Lines of one opened stream, whole ones."""
        pending: dict[str, tuple[str, bytes]] = {}
        for stream, data in frames(flow):
            stamp, _, text = data.partition(b" ")
            moment, start = pending.pop(stream, (stamp.decode(errors="replace"), b""))
            whole = start + text
            if not whole.endswith(b"\n") and len(whole) < LONGEST_LINE:
                pending[stream] = (moment, whole)
                continue
            yield LogLine(stream, whole.removesuffix(b"\n").decode(errors="replace"), moment)
        # The unfinished line of a followed stream is read again, whole, from what the engine keeps.
        for stream, (moment, whole) in sorted(pending.items()) if last else ():
            yield LogLine(stream, whole.decode(errors="replace"), moment)

    def __iter__(self) -> Iterator[LogLine]:
        return self

    def __next__(self) -> LogLine:
        while True:
            line = self._next_of_flow()
            if line is None:
                self._reopen()
                continue
            if line.time == self._last:
                self._at_last += 1
            else:
                self._last, self._at_last = line.time, 1
            return line

    def _next_of_flow(self) -> LogLine | None:
        try:
            return next(self._lines, None)
        except (OSError, http.client.HTTPException) as error:
            if self._closed:
                raise StopIteration from error
            if not self._follow:
                raise Unknown(f"the engine's stream broke: {error}") from error
            return None

    def _reopen(self) -> None:
        """Go on after the end of a stream: StopIteration where it is the container's, Unknown where nobody knows."""
        self._flow.close()
        if self._closed or self._drained:
            raise StopIteration
        # Asked before the rest is read: what a container wrote before it ended is in the files by then.
        running = self._running(self._container)
        self._drained = not running
        if running:
            time.sleep(PAUSE_S)
        try:
            flow = self._open("all", self._last, follow=running)
        except StartFailed as gone:
            raise StopIteration from gone
        with self._lock:
            self._flow = flow
            if self._closed:
                flow.close()
        self._lines = _skipping(self._read(flow, last=not running), self._last, self._at_last)

    def close(self) -> None:
        """End it; repeatable, from any thread."""
        with self._lock:
            self._closed = True
            self._flow.close()


def _skipping(lines: Iterator[LogLine], last: str, count: int) -> Iterator[LogLine]:
    """Lines after the `count` ones of time `last` that were given already."""
    for line in lines:
        if line.time < last or (line.time == last and count > 0):
            count -= 1 if line.time == last else 0
            continue
        yield line
