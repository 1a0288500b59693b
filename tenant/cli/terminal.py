"""A terminal on this side of a shell: raw mode, window size, bytes both ways."""

import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from provider.client import Shell


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Raw mode while it lasts, where the descriptor is a terminal."""
    if not os.isatty(descriptor):
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _size(opened: "Shell") -> None:
    from websockets.exceptions import ConnectionClosed

    size = shutil.get_terminal_size()
    with contextlib.suppress(ConnectionClosed):
        opened.resize(size.lines, size.columns)


def attach(opened: "Shell") -> int | None:
    """Join this terminal and the remote one until the command ends; its exit code, None where the connection broke."""
    from provider.client import GatewayUnreachable

    descriptor = sys.stdin.fileno()

    def forward() -> None:
        # Writing to a shell that has just ended is no failure: the reading side knows its exit code.
        with contextlib.suppress(OSError, ValueError, GatewayUnreachable):
            while data := os.read(descriptor, 4096):
                opened.write(data)
            if not os.isatty(descriptor):
                opened.write(b"\x04")

    with _raw(descriptor):
        _size(opened)
        before = signal.signal(signal.SIGWINCH, lambda *_: _size(opened))
        try:
            threading.Thread(target=forward, name="keys", daemon=True).start()
            while data := opened.read():
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
        finally:
            signal.signal(signal.SIGWINCH, before)
    return opened.exit_code()
