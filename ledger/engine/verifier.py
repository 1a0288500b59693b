"""A process that checks signatures: takes chunks from the socket it reads, answers on the one it writes.

The transactions lie in memory that it shares with the writer. A chunk is a message that says where: its number, where
it begins, the length of each transaction. The answer is the number and 32 bytes for each. It runs beside the writer so
that both cores work: the writer holds the interpreter's lock while it applies a block.
"""

import contextlib
import mmap
import os
import signal
import socket
import sys
from struct import Struct
from typing import Final

from ledger.protocol.transaction import signed_content

NUMBER: Final = 4
CONTENT: Final = 32
"""Bytes of a chunk's number and of what a transaction signs, in an answer."""

NOT_GOOD: Final = bytes(CONTENT)
"""Stands for a transaction that is not canonical, or whose signature is not good; no hash is ever this."""

HEAD: Final = Struct(">IQ")
"""Of a chunk: its number, where its first transaction begins."""

_LARGEST: Final = 1 << 16


def chunk_of(number: int, start: int, lengths: list[int]) -> bytes:
    """The message that asks for a chunk: transactions of these lengths, one behind the other."""
    return HEAD.pack(number, start) + Struct(f">{len(lengths)}I").pack(*lengths)


def answer_of(message: bytes, memory: mmap.mmap) -> bytes:
    """The answer to a chunk: its number, and for each transaction what it signs, or `NOT_GOOD`."""
    number, at = HEAD.unpack_from(message)
    answer = [number.to_bytes(NUMBER, "big")]
    for (length,) in Struct(">I").iter_unpack(message[HEAD.size :]):
        answer.append(signed_content(memory[at : at + length]) or NOT_GOOD)
        at += length
    return b"".join(answer)


def serve(tasks: socket.socket, answers: socket.socket, memory: mmap.mmap) -> None:
    """Answer until nobody is there any more."""
    while message := tasks.recv(_LARGEST):
        answers.send(answer_of(message, memory))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the node, which ends us by closing its ends
    os.nice(5)  # the writer comes first: what it waits for is its own work more often than ours
    # An error of these sockets means that the node has ended.
    with (
        mmap.mmap(int(sys.argv[1]), 0, access=mmap.ACCESS_READ) as _memory,
        socket.socket(fileno=0) as _tasks,
        socket.socket(fileno=1) as _answers,
        contextlib.suppress(OSError),
    ):
        serve(_tasks, _answers, _memory)
