"""A lease's logs as server-sent events: every line in order, comments while there is nothing, an end that is told."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from tenant.api import logs


async def _all(lines: AsyncIterator[str]) -> list[bytes]:
    return [chunk async for chunk in logs.events(lines)]


def _row(text: str) -> str:
    row: dict[str, Any] = {"service": "web", "replica": 0, "stream": "stdout", "time": "t", "text": text}
    return msgspec.json.encode(row).decode()


def test_lines_become_events() -> None:
    """Each line is one event `line` whose data is one line of JSON, then comes `end`; newlines in a text change nothing."""

    async def source() -> AsyncIterator[str]:
        yield _row("one")
        yield ""
        yield _row("two\nevent: line")

    chunks = asyncio.run(_all(source()))
    assert len(chunks) == 3
    assert all(chunk.count(b"\n") == 3 and chunk.endswith(b"\n\n") for chunk in chunks)
    texts = [msgspec.json.decode(chunk.split(b"data: ", 1)[1]).get("text") for chunk in chunks]
    assert texts == ["one", "two\nevent: line", None]
    assert chunks[-1].startswith(b"event: end")


def test_a_break_is_told() -> None:
    """Where the provider breaks off, or says an error, the last event says so."""

    async def broken() -> AsyncIterator[str]:
        yield _row("one")
        raise httpx.ReadError("reset")

    async def failing() -> AsyncIterator[str]:
        yield '{"error": "ENGINE_UNREACHABLE", "detail": "…"}'

    assert asyncio.run(_all(broken()))[-1].startswith(b"event: error")
    assert asyncio.run(_all(failing()))[0].startswith(b"event: error")


def test_silence_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the containers say nothing, comments come, and no line is lost."""
    monkeypatch.setattr(logs, "KEEP_ALIVE_S", 0.01)

    async def run() -> list[bytes]:
        more = asyncio.Event()

        async def quiet() -> AsyncIterator[str]:
            await more.wait()
            yield _row("late")

        seen: list[bytes] = []
        async for chunk in logs.events(quiet()):
            seen.append(chunk)
            if len(seen) == 3:
                more.set()
        return seen

    seen = asyncio.run(run())
    assert seen[:3] == [b": keep-alive\n\n"] * 3
    assert [c for c in seen if c.startswith(b"event: line")]


def test_a_reader_who_leaves_ends_the_source() -> None:
    """Closing the events closes what they are read from."""
    ended = []

    async def run() -> None:
        async def endless() -> AsyncIterator[str]:
            try:
                yield _row("one")
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        source = endless()
        events = logs.events(source)
        await anext(events)
        await events.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        await source.aclose()  # type: ignore[attr-defined]

    asyncio.run(run())
    assert ended == [True]


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b'{"code": 5, "title": null}'])
def test_a_refusal_that_cannot_be_read_is_a_refusal(body: bytes) -> None:
    """Whatever a gateway says no with, there is a title and a code."""
    error = logs.refusal(404, body)
    assert error.status == 404
    assert error.title
    assert error.code
