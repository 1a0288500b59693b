"""A process that checks signatures: reads (count, count × key 32 ‖ message 32 ‖ signature 64), writes one byte each.

It runs beside the writer so that both cores work: the writer holds the interpreter's lock while it applies a block.
"""

import os
import signal
import sys
from typing import BinaryIO

from ledger.protocol.keys import verify

ITEM = 128


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer until the source ends."""
    while True:
        head = source.read(4)
        if len(head) < 4:
            return
        data = source.read(int.from_bytes(head, "big") * ITEM)
        sink.write(
            bytes(
                [
                    verify(data[at : at + 32], data[at + 32 : at + 64], data[at + 64 : at + ITEM])
                    for at in range(0, len(data), ITEM)
                ]
            )
        )
        sink.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the node, which ends us by closing the pipe
    os.nice(5)  # the writer comes first: what it waits for is its own work more often than ours
    serve(sys.stdin.buffer, sys.stdout.buffer)
