"""Signatures checked off the writer's thread, in worker processes that start when there is first enough to do.

A batch is put into memory that all share, and cut into chunks whose places lie in one socket; whoever is free takes the
next one: a worker, or the writer itself while it would wait for answers. So no core is idle as long as there is a chunk.
"""

import mmap
import os
import select
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from typing import Final

import structlog

from ledger.engine.verifier import CONTENT, NOT_GOOD, NUMBER, answer_of, chunk_of
from ledger.protocol.transaction import signed_content

INLINE: Final = 8
"""Up to so many signatures are checked at once where they are: a hop to a worker would cost more."""

CHUNK: Final = 100
"""Signatures of a chunk: some milliseconds of work."""

LOOK_S: Final = 0.2
"""How often it is looked whether the workers live, while nothing comes from them."""

_QUESTION: Final = len(chunk_of(0, 0, [0] * CHUNK))
_ANSWER: Final = NUMBER + CHUNK * CONTENT
_BUFFER: Final = 1 << 20

_log = structlog.get_logger()


class _Batch:
    """A batch under way: the answers of its chunks as they come."""

    def __init__(self, raws: Sequence[bytes]) -> None:
        self.raws = raws
        self.chunks: list[int] = []
        self.missing: set[int] = set()
        self.answers: dict[int, bytes] = {}


class Verifying:
    """Checks batches: `begin` hands one over, `finish` waits for the answers of the oldest. Used by one thread.

    At most `depth` batches are under way, of `most_bytes` each.
    """

    def __init__(self, depth: int, most_bytes: int, workers: int = 2) -> None:
        self._count = workers
        self.processes: list[subprocess.Popen[bytes]] = []
        self._tasks: socket.socket | None = None
        """Where chunks are put in; `_taking` is its other end, which the workers have too."""
        self._taking: socket.socket | None = None
        self._answers: socket.socket | None = None
        self._memory: mmap.mmap | None = None
        """Batches take turns with its parts; pages that no batch was large enough for are never there."""
        self._part = most_bytes
        self._parts = depth
        self._turn = 0
        self._batches: deque[_Batch] = deque()
        self._unsent: deque[bytes] = deque()
        self._next = 0

    def begin(self, raws: Sequence[bytes]) -> None:
        """Hand over a batch of signed transactions; those before it need not be finished."""
        batch = _Batch(raws)
        self._batches.append(batch)
        assert len(self._batches) <= self._parts, "more is under way than there is room for"
        if len(raws) <= INLINE or not self._count:
            return
        self._look()
        if not self.processes:
            # A process takes a while to start, or cannot be had now: this batch is checked here.
            self._start()
            return
        assert self._memory is not None
        whole = b"".join(raws)
        assert len(whole) <= self._part, "the batch is too large"
        self._turn = (self._turn + 1) % self._parts
        at = self._turn * self._part
        self._memory[at : at + len(whole)] = whole
        for first in range(0, len(raws), CHUNK):
            lengths = [len(raw) for raw in raws[first : first + CHUNK]]
            self._next = (self._next + 1) & 0xFFFF_FFFF
            batch.chunks.append(self._next)
            batch.missing.add(self._next)
            self._unsent.append(chunk_of(self._next, at, lengths))
            at += sum(lengths)
        self._send()

    def finish(self) -> list[bytes]:
        """Wait for the answers of the oldest batch, in its order: what is signed, or `NOT_GOOD`, for each.

        What dead workers left is checked here.
        """
        batch = self._batches[0]
        while batch.missing:
            self._send()
            if not (self._receive(0) or self._take_one() or self._receive(LOOK_S)):
                self._look()
        self._batches.popleft()
        if not batch.answers:
            return [signed_content(raw) or NOT_GOOD for raw in batch.raws]
        whole = b"".join([batch.answers[number] for number in batch.chunks])
        return [whole[at : at + CONTENT] for at in range(0, len(whole), CONTENT)]

    def close(self) -> None:
        """End all workers."""
        for end in (self._tasks, self._taking, self._answers):
            if end is not None:
                end.close()  # a worker ends when there is nobody left who could give it something
        self._tasks = self._taking = self._answers = None
        if self._memory is not None:
            self._memory.close()
            self._memory = None
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
            memory = os.memfd_create("batches")
            try:
                os.truncate(memory, self._part * self._parts)
                self._memory = mmap.mmap(memory, 0)
                command = [sys.executable, "-m", "ledger.engine.verifier", str(memory)]
                streams = {"stdin": self._taking, "stdout": giving, "stderr": subprocess.DEVNULL, "pass_fds": (memory,)}
                for _ in range(self._count):
                    self.processes.append(subprocess.Popen(command, **streams))  # type: ignore[call-overload]
            finally:
                os.close(memory)
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
        """Take in a chunk's answer; False where none came in time."""
        if self._answers is None:
            return True
        if wait_s and not select.select([self._answers], [], [], wait_s)[0]:
            return False
        try:
            message = self._answers.recv(_ANSWER, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            message = b""
        if not message:
            self._give_up()
        else:
            self._answered(message)
        return True

    def _take_one(self) -> bool:
        """Check a chunk here that no worker has taken yet; False where there is none."""
        if self._taking is None:
            return True
        try:
            message = self._taking.recv(_QUESTION, socket.MSG_DONTWAIT)
        except OSError:
            return False
        assert self._memory is not None
        self._answered(answer_of(message, self._memory))
        return True

    def _answered(self, message: bytes) -> None:
        number = int.from_bytes(message[:NUMBER], "big")
        for batch in self._batches:
            if number in batch.missing:
                batch.missing.remove(number)
                first = batch.chunks.index(number) * CHUNK
                asked = min(CHUNK, len(batch.raws) - first)
                assert len(message) == NUMBER + asked * CONTENT, "a worker answers what it was asked"
                batch.answers[number] = message[NUMBER:]
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
            batch.answers.clear()


def _pair() -> tuple[socket.socket, socket.socket]:
    """Two ends between which messages keep their bounds, and each is received once."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return ends
