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
    size = shutil.get_terminal_size()
    opened.resize(size.lines, size.columns)


def attach(opened: "Shell") -> int:
    """Join this terminal and the remote one until the command ends; its exit code."""
    descriptor = sys.stdin.fileno()

    def forward() -> None:
        with contextlib.suppress(OSError, ValueError):
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
    code = opened.exit_code()
    return 1 if code is None else int(code)
