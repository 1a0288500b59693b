"""Commands inside a running container, with and without a terminal, and the stream of changes."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from provider.runtime.engine import Engine, Flow, asking, frames
from provider.runtime.naming import LABEL
from provider.runtime.port import Chunk, Unknown

ENDING_S: Final = 60
"""Seconds an engine may take to tell the exit code of a command whose output has ended."""


def _create(engine: Engine, container: str, command: tuple[str, ...], *, stdin: bool, tty: bool) -> str:
    with asking("start_failed"):
        made = engine.api.exec_create(container, list(command), stdin=stdin, tty=tty, stdout=True, stderr=True, privileged=False)
    return str(made["Id"])


def _start(engine: Engine, command: str, *, tty: bool) -> Flow:
    return engine.flow("POST", f"/exec/{command}/start", body={"Detach": False, "Tty": tty}, kind="start_failed")


def _exit_code(engine: Engine, command: str) -> int | None:
    with asking():
        found: dict[str, Any] = engine.api.exec_inspect(command)
    return None if found.get("Running") or found.get("ExitCode") is None else int(found["ExitCode"])


class CommandStream:
    """Output of a command as it comes; the last chunk has its exit code."""

    def __init__(self, engine: Engine, container: str, command: tuple[str, ...], stdin: bytes) -> None:
        self._engine = engine
        self._closed = False
        self._ended = False
        self._id = _create(engine, container, command, stdin=bool(stdin), tty=False)
        self._flow = _start(engine, self._id, tty=False)
        self._frames = frames(self._flow)
        self._feeder: threading.Thread | None = None
        if stdin:
            self._feeder = threading.Thread(target=self._feed, args=(stdin,), name="exec-stdin", daemon=True)
            self._feeder.start()

    def _feed(self, stdin: bytes) -> None:
        # A command that ends without reading all of it breaks the pipe: its exit code says what there is to say.
        with contextlib.suppress(OSError):
            self._flow.write(stdin)
        self._flow.end_input()

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        if self._ended or self._closed:
            raise StopIteration
        try:
            found = next(self._frames, None)
        except (OSError, http.client.HTTPException) as error:
            raise Unknown(f"the engine's stream broke: {error}") from error
        if found is not None:
            return Chunk(*found)
        if self._closed:
            raise StopIteration
        self._ended = True
        code = self._await_code()
        self.close()
        return Chunk("", b"", code)

    def _await_code(self) -> int:
        deadline = time.monotonic() + ENDING_S
        pause = 0.005
        while (code := _exit_code(self._engine, self._id)) is None:
            if time.monotonic() > deadline:
                raise Unknown("the engine does not tell the command's exit code")
            time.sleep(pause)
            pause = min(2 * pause, 0.5)
        return code

    def close(self) -> None:
        """End it; repeatable, from any thread."""
        self._closed = True
        self._flow.close()
        if self._feeder is not None and self._feeder is not threading.current_thread():
            self._feeder.join(ENDING_S)


class CommandTerminal:
    """A command with a terminal."""

    def __init__(self, engine: Engine, container: str, command: tuple[str, ...]) -> None:
        self._engine = engine
        self._id = _create(engine, container, command, stdin=True, tty=True)
        self._flow = _start(engine, self._id, tty=True)

    def read(self) -> bytes:
        """Next output; empty at the end."""
        with asking():
            return self._flow.read()

    def write(self, data: bytes) -> None:
        """Input; what comes after the end is dropped."""
        with contextlib.suppress(OSError):
            self._flow.write(data)

    def resize(self, rows: int, columns: int) -> None:
        """The window changed; of no matter once the command has ended."""
        with contextlib.suppress(Exception), asking("start_failed"):
            self._engine.api.exec_resize(self._id, height=rows, width=columns)

    def exit_code(self) -> int | None:
        """Code once the command ended."""
        return _exit_code(self._engine, self._id)

    def close(self) -> None:
        """Hang up: whatever reads the terminal sees its end."""
        if not self._flow.closed:
            with contextlib.suppress(OSError):
                self._flow.write(b"\x03\x04")
        self._flow.close()


class EventStream:
    """Lease ids of containers that changed; ends with the engine."""

    def __init__(self, engine: Engine, provider_id: str) -> None:
        filters = {"type": ["container"], "label": [f"{LABEL}provider={provider_id}"]}
        self._flow = engine.flow("GET", "/events", {"filters": json.dumps(filters)})
        self._pending = b""
        self._ready: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while not self._ready:
            try:
                more = self._flow.read()
            except (OSError, http.client.HTTPException):
                more = b""
            if not more:
                self._flow.close()
                raise StopIteration
            *lines, self._pending = (self._pending + more).split(b"\n")
            self._ready.extend(_lease_of(line) for line in lines if line.strip())
        return self._ready.pop(0)

    def close(self) -> None:
        """End it; repeatable, from any thread."""
        self._flow.close()


def _lease_of(line: bytes) -> str:
    attributes = json.loads(line).get("Actor", {}).get("Attributes", {})
    return str(attributes.get(f"{LABEL}lease", ""))
