"""A process that checks signatures: takes chunks from the socket it reads, answers on the one it writes.

A chunk is a message of its number (4 bytes) and items of signature 64 ‖ message 32 ‖ key 32; the answer is the number
and a byte each. It runs beside the writer so that both cores work: the writer holds the interpreter's lock while it
applies a block.
"""

import contextlib
import os
import signal
import socket
from typing import Final

from ledger.protocol.keys import opens

HEAD: Final = 4
ITEM: Final = 128
_LARGEST: Final = 1 << 16


def verdicts_of(items: bytes) -> bytes:
    """One byte an item: 1 where its signature is good."""
    return bytes([opens(items[at + 96 : at + ITEM], items[at : at + 96]) for at in range(0, len(items), ITEM)])


def serve(tasks: socket.socket, answers: socket.socket) -> None:
    """Answer until nobody is there any more."""
    while message := tasks.recv(_LARGEST):
        answers.send(message[:HEAD] + verdicts_of(message[HEAD:]))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the node, which ends us by closing its ends
    os.nice(5)  # the writer comes first: what it waits for is its own work more often than ours
    # An error of these sockets means that the node has ended.
    with socket.socket(fileno=0) as _tasks, socket.socket(fileno=1) as _answers, contextlib.suppress(OSError):
        serve(_tasks, _answers)
