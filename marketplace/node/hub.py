"""Events as a stream: from any height on, without a gap, at each reader's own pace.

A reader pulls: it stands at a place and takes the next block's events from a window of recent blocks, or from the log
where it lags behind it. The writer only says that there is a new block. So no queue can grow, and a reader that stops
reading is cut off after a while and resumes with its last id.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from ledger.protocol.block import BlockResult, Event
from marketplace.node.problems import Problem

WINDOW: Final = 256
"""Blocks whose events are kept encoded, for readers who are up to date."""

MAX_STREAMS: Final = 512


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the chain's events: everything up to event `index` of block `height` was seen."""

    height: int
    index: int


@dataclass(frozen=True, slots=True)
class Frame:
    """An event ready to send, with what it is filtered by."""

    index: int
    kind: str
    owner: str
    provider: str
    text: bytes


@dataclass(frozen=True)
class Filter:
    """Which events a reader wants; empty means any."""

    owner: str = ""
    provider: str = ""
    kinds: frozenset[str] = frozenset()

    def takes(self, frame: Frame) -> bool:
        """True for an event that is wanted."""
        return (
            (not self.owner or frame.owner == self.owner)
            and (not self.provider or frame.provider == self.provider)
            and (not self.kinds or frame.kind in self.kinds)
        )


class Block(Protocol):
    """What the hub needs of a stored block."""

    @property
    def result(self) -> BlockResult:
        """Header, receipts and events."""


class Log(Protocol):
    """Where blocks come from that have left the window."""

    def block(self, height: int) -> Block | None:
        """A committed block, or None."""


def parse_place(text: str) -> Place:
    """The place that "HEIGHT" (all of that block was seen) or "HEIGHT:INDEX" names; a Problem where it is neither."""
    height, colon, index = text.partition(":")
    digits = height.isascii() and height.isdigit() and len(height) <= 16
    if not digits or (colon and not (index.isascii() and index.isdigit() and len(index) <= 9)):
        raise Problem(422, "since is not valid", f"{text[:40]!r}", fix="it is HEIGHT or HEIGHT:INDEX, as in the ids of events")
    return Place(int(height), int(index) if colon else 2**31)


def _of(fields: dict[str, Any], *names: str) -> str:
    for name in names:
        value = fields.get(name)
        if isinstance(value, str):
            return value
    return ""


def frames_of(result: BlockResult) -> list[Frame]:
    """The events of a block, encoded once for all readers."""
    header = result.header
    frames = []
    for index, event in enumerate(result.events()):
        fields: dict[str, Any] = msgspec.to_builtins(event) if isinstance(event, Event) else dict(event)
        kind = str(fields["kind"])
        body = fields | {"height": header.height, "index": index, "time_ms": header.time_ms}
        purse = _of(fields, "purse")
        owner = _of(fields, "owner", "address") or purse.partition("/")[0]
        provider = _of(fields, "provider", "payee") or (_of(fields, "address") if kind.startswith("Bond") else "")
        text = b"id: %d:%d\nevent: %b\ndata: %b\n\n" % (header.height, index, kind.encode(), msgspec.json.encode(body))
        frames.append(Frame(index, kind, owner, provider, text))
    return frames


class Hub:
    """Hands the events of new blocks to readers. `tell` may be called from any thread, all else from the loop's."""

    def __init__(self, log: Log, head: int) -> None:
        self.log = log
        self.head = head
        self.streams = 0
        self._window: OrderedDict[int, list[Frame]] = OrderedDict()
        self._news: asyncio.Event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def start(self) -> None:
        """Belong to the running loop from now on."""
        self._loop = asyncio.get_running_loop()

    def tell(self, block: Block) -> None:
        """Take in a committed block."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._take, block)

    def close(self) -> None:
        """End all streams; their readers resume elsewhere or later."""
        self._closed = True
        self._wake()

    def _take(self, block: Block) -> None:
        self.head = max(self.head, block.result.header.height)
        if self.streams:
            # Only when someone listens: an idle node encodes nothing.
            self._keep(block.result.header.height, frames_of(block.result))
            self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _keep(self, height: int, frames: list[Frame]) -> None:
        self._window[height] = frames
        if len(self._window) > WINDOW:
            self._window.popitem(last=False)

    async def _frames(self, height: int) -> list[Frame]:
        found = self._window.get(height)
        if found is None:
            block = await asyncio.to_thread(self.log.block, height)
            assert block is not None, f"block {height} is below the head and not in the log"
            found = await asyncio.to_thread(frames_of, block.result)
        return found

    async def read(self, place: Place | None, wanted: Filter, keep_alive_s: float) -> AsyncGenerator[bytes, None]:
        """Yield encoded events after `place` (None: from now), and a comment whenever there was none for a while."""
        if self.streams >= MAX_STREAMS:
            raise Problem(503, "too many event streams", f"at most {MAX_STREAMS}", fix="try again later", retry_after_s=5)
        self.streams += 1
        try:
            place = place or Place(self.head, 2**31)
            height, index = place.height, place.index
            yield b": events of the chain follow\n\n"
            while not self._closed:
                news = self._news
                if index < 2**31 and height <= self.head:
                    for chunk in self._after(await self._frames(height), index, wanted):
                        yield chunk
                index = 2**31 if height <= self.head else index
                while height < self.head and not self._closed:
                    height += 1
                    for chunk in self._after(await self._frames(height), -1, wanted):
                        yield chunk
                if news.is_set() or self._closed:
                    continue
                try:
                    await asyncio.wait_for(news.wait(), keep_alive_s)
                except TimeoutError:
                    yield b": alive\n\n"
        finally:
            self.streams -= 1

    @staticmethod
    def _after(frames: list[Frame], index: int, wanted: Filter) -> list[bytes]:
        chunk = b"".join(f.text for f in frames if f.index > index and wanted.takes(f))
        return [chunk] if chunk else []
