"""The shell of a lease: a WebSocket on one side, a terminal in the container on the other."""

import asyncio
import contextlib
from typing import Any, Final

import msgspec
from fastapi import WebSocket, WebSocketDisconnect

from provider.gateway.problem import Problem
from provider.gateway.streams import Bridge, engine_problem
from provider.runtime.port import StartFailed, Terminal, Unknown

TOKEN_WAIT_S: Final = 10.0
MOST_ROWS: Final = 2_000


async def first_token(websocket: WebSocket) -> str:
    """The Authorization value from the first message `{"token": …}`; Problem where it is something else."""
    refused = Problem(401, "TOKEN_REFUSED", "the first message must be JSON with a token")
    try:
        text = await asyncio.wait_for(websocket.receive_text(), TOKEN_WAIT_S)
        token = msgspec.json.decode(text, type=dict[str, Any]).get("token")
    except (msgspec.MsgspecError, KeyError, TimeoutError):
        raise refused from None
    if not isinstance(token, str):
        raise refused
    return f"Bearer {token}"


async def refuse(websocket: WebSocket, problem: Problem) -> None:
    """Say why on an accepted connection, and close it."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await websocket.send_text(msgspec.json.encode({"error": problem.code, "detail": problem.title}).decode())
        await websocket.close(1008)


async def run(websocket: WebSocket, bridge: Bridge, terminal: Terminal) -> None:
    """Carry bytes both ways until the command or the connection ends."""
    typing = asyncio.ensure_future(_typed(websocket, bridge, terminal))
    showing = asyncio.ensure_future(_shown(websocket, bridge, terminal))
    try:
        await asyncio.wait((typing, showing), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await bridge.call(terminal.close)
        for task in (typing, showing):
            task.cancel()
        await asyncio.gather(typing, showing, return_exceptions=True)
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await websocket.close()


async def _typed(websocket: WebSocket, bridge: Bridge, terminal: Terminal) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("bytes"):
            await bridge.call(terminal.write, message["bytes"])
        elif message.get("text"):
            with contextlib.suppress(msgspec.MsgspecError, ValueError, TypeError):
                size = msgspec.json.decode(message["text"], type=dict[str, tuple[int, int]]).get("resize")
                if size and all(0 < n <= MOST_ROWS for n in size):
                    await bridge.call(terminal.resize, *size)


async def _shown(websocket: WebSocket, bridge: Bridge, terminal: Terminal) -> None:
    try:
        while data := await bridge.call(terminal.read):
            await websocket.send_bytes(data)
        code = await bridge.call(terminal.exit_code)
    except (Unknown, StartFailed) as error:
        await refuse(websocket, engine_problem(error))
        return
    await websocket.send_text(msgspec.json.encode({"exit_code": code if code is not None else -1}).decode())
