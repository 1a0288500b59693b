"""Signatures checked off the writer's thread, in worker processes that start when there is first enough to do."""

import contextlib
import fcntl
import subprocess
import sys
from collections import deque
from collections.abc import Sequence

from ledger.protocol.transaction import Signed

INLINE = 8
"""Up to so many signatures are checked at once where they are: a hop to a worker would cost more."""

_PIPE_BYTES = 1 << 20
"""A pipe that takes several batches: handing one over never waits for a worker to be done with the one before."""


class _Worker:
    """One verifying process and the chunks it works on, in order."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ledger.engine.verifier"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, AttributeError):  # a small pipe is slower, nothing else
            fcntl.fcntl(self.process.stdin, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def send(self, chunk: Sequence[Signed]) -> bool:
        """Hand over a chunk; False where the process is gone."""
        assert self.process.stdin is not None
        parts = [len(chunk).to_bytes(4, "big")]
        for signed in chunk:
            parts += (signed.key, signed.signed_bytes, signed.signature)
        left = memoryview(b"".join(parts))
        try:
            while left:
                left = left[self.process.stdin.write(left) :]
        except OSError:
            return False
        return True

    def receive(self, count: int) -> bytes | None:
        """The verdicts of the oldest chunk; None where the process is gone."""
        assert self.process.stdout is not None
        found = b""
        while len(found) < count:
            part = self.process.stdout.read(count - len(found))
            if not part:
                return None
            found += part
        return found

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Verifying:
    """Checks batches: `begin` hands one over, `finish` waits for the verdicts of the oldest. Used by one thread."""

    def __init__(self, workers: int = 2) -> None:
        self._count = workers
        self._workers: list[_Worker] = []
        self._sent: deque[list[tuple[_Worker | None, Sequence[Signed]]]] = deque()

    def begin(self, batch: Sequence[Signed]) -> None:
        """Hand over a batch; those before it need not be finished."""
        if len(batch) <= INLINE or not self._count:
            self._sent.append([(None, batch)])
            return
        if len(self._workers) < self._count:
            # A process takes a while to start, or cannot be had now: this batch is checked here.
            with contextlib.suppress(OSError):
                self._workers.extend(_Worker() for _ in range(self._count - len(self._workers)))
            self._sent.append([(None, batch)])
            return
        parts: list[tuple[_Worker | None, Sequence[Signed]]] = []
        size = -(-len(batch) // len(self._workers))
        for number, worker in enumerate(list(self._workers)):
            chunk = batch[number * size : (number + 1) * size]
            if worker.send(chunk):
                parts.append((worker, chunk))
            else:
                self._drop(worker)
                parts.append((None, chunk))
        self._sent.append(parts)

    def finish(self) -> list[bool]:
        """Wait for the verdicts of the oldest batch, in its order. What a dead worker left is checked here."""
        verdicts: list[bool] = []
        for worker, chunk in self._sent.popleft():
            found = worker.receive(len(chunk)) if worker is not None and worker in self._workers else None
            if found is None:
                if worker is not None:
                    self._drop(worker)
                verdicts.extend(signed.signature_is_good() for signed in chunk)
            else:
                verdicts.extend(byte == 1 for byte in found)
        return verdicts

    def _drop(self, worker: _Worker) -> None:
        if worker in self._workers:
            self._workers.remove(worker)
            worker.close()

    def close(self) -> None:
        """End all workers."""
        while self._workers:
            self._workers.pop().close()
