"""Signatures checked off the writer's thread, in worker processes that start when there is first enough to do.

Batches are cut into chunks that lie in one socket; whoever is free takes the next one: a worker, or the writer itself
while it would wait for verdicts. So no core is idle as long as there is a chunk.
"""

import select
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from typing import Final

import structlog

from ledger.engine.verifier import HEAD, ITEM, verdicts_of
from ledger.protocol.transaction import Signed

INLINE: Final = 8
"""Up to so many signatures are checked at once where they are: a hop to a worker would cost more."""

CHUNK: Final = 100
"""Signatures of a chunk: some milliseconds of work."""

LOOK_S: Final = 0.2
"""How often it is looked whether the workers live, while nothing comes from them."""

_BUFFER: Final = 1 << 20

_log = structlog.get_logger()


class _Batch:
    """A batch under way: the verdicts of its chunks as they come."""

    def __init__(self, signed: Sequence[Signed]) -> None:
        self.signed = signed
        self.chunks: list[int] = []
        self.missing: dict[int, Sequence[Signed]] = {}
        self.verdicts: dict[int, bytes] = {}


class Verifying:
    """Checks batches: `begin` hands one over, `finish` waits for the verdicts of the oldest. Used by one thread."""

    def __init__(self, workers: int = 2) -> None:
        self._count = workers
        self.processes: list[subprocess.Popen[bytes]] = []
        self._tasks: socket.socket | None = None
        """Where chunks are put in; `_taking` is its other end, which the workers have too."""
        self._taking: socket.socket | None = None
        self._answers: socket.socket | None = None
        self._batches: deque[_Batch] = deque()
        self._unsent: deque[bytes] = deque()
        self._next = 0

    def begin(self, signed: Sequence[Signed]) -> None:
        """Hand over a batch; those before it need not be finished."""
        batch = _Batch(signed)
        self._batches.append(batch)
        if len(signed) <= INLINE or not self._count:
            return
        self._look()
        if not self.processes:
            # A process takes a while to start, or cannot be had now: this batch is checked here.
            self._start()
            return
        for at in range(0, len(signed), CHUNK):
            chunk = signed[at : at + CHUNK]
            self._next = (self._next + 1) & 0xFFFF_FFFF
            batch.chunks.append(self._next)
            batch.missing[self._next] = chunk
            parts = [self._next.to_bytes(HEAD, "big")]
            for one in chunk:
                parts += (one.signature, one.signed_bytes, one.key)
            self._unsent.append(b"".join(parts))
        self._send()

    def finish(self) -> list[bool]:
        """Wait for the verdicts of the oldest batch, in its order. What dead workers left is checked here."""
        batch = self._batches[0]
        while batch.missing:
            self._send()
            if not (self._receive(0) or self._take_one() or self._receive(LOOK_S)):
                self._look()
        self._batches.popleft()
        if not batch.verdicts:
            return [signed.signature_is_good() for signed in batch.signed]
        return [byte == 1 for number in batch.chunks for byte in batch.verdicts[number]]

    def close(self) -> None:
        """End all workers."""
        for end in (self._tasks, self._taking, self._answers):
            if end is not None:
                end.close()  # a worker ends when there is nobody left who could give it something
        self._tasks = self._taking = self._answers = None
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def _start(self) -> None:
        self._tasks, self._taking = _pair()
        self._answers, giving = _pair()
        try:
            for _ in range(self._count):
                command = [sys.executable, "-m", "ledger.engine.verifier"]
                streams = {"stdin": self._taking, "stdout": giving, "stderr": subprocess.DEVNULL}
                self.processes.append(subprocess.Popen(command, **streams))  # type: ignore[call-overload]
        except OSError as error:
            _log.warning("no process to check signatures could be started", error=str(error))
            self.close()
        finally:
            giving.close()

    def _send(self) -> None:
        """Put in as many chunks as fit."""
        while self._unsent:
            assert self._tasks is not None
            try:
                self._tasks.send(self._unsent[0], socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                self._give_up()
                return
            self._unsent.popleft()

    def _receive(self, wait_s: float) -> bool:
        """Take in a chunk's verdicts; False where none came in time."""
        if self._answers is None:
            return True
        if wait_s and not select.select([self._answers], [], [], wait_s)[0]:
            return False
        try:
            message = self._answers.recv(HEAD + CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            message = b""
        if not message:
            self._give_up()
        else:
            self._answered(int.from_bytes(message[:HEAD], "big"), message[HEAD:])
        return True

    def _take_one(self) -> bool:
        """Check a chunk here that no worker has taken yet; False where there is none."""
        if self._taking is None:
            return True
        try:
            message = self._taking.recv(HEAD + CHUNK * ITEM, socket.MSG_DONTWAIT)
        except OSError:
            return False
        self._answered(int.from_bytes(message[:HEAD], "big"), verdicts_of(message[HEAD:]))
        return True

    def _answered(self, number: int, verdicts: bytes) -> None:
        for batch in self._batches:
            chunk = batch.missing.pop(number, None)
            if chunk is not None:
                assert len(chunk) == len(verdicts), "a worker answers what it was asked"
                batch.verdicts[number] = verdicts
                return

    def _look(self) -> None:
        """Give the workers up where one has died: nobody knows which chunk it had."""
        if any(process.poll() is not None for process in self.processes):
            self._give_up()

    def _give_up(self) -> None:
        """Check everything here that is under way; the next batch starts new workers."""
        _log.warning("the processes that check signatures have ended; starting others")
        for process in self.processes:
            process.kill()
        self.close()
        self._unsent.clear()
        for batch in self._batches:
            batch.missing.clear()
            batch.verdicts.clear()


def _pair() -> tuple[socket.socket, socket.socket]:
    """Two ends between which messages keep their bounds, and each is received once."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return ends
