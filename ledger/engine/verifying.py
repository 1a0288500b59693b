"""Signatures checked off the writer's thread, in worker processes that start when there is first enough to do."""

import contextlib
import subprocess
import sys
from collections.abc import Sequence

from ledger.protocol.transaction import Signed

INLINE = 8
"""Up to so many signatures are checked at once where they are: a hop to a worker would cost more."""


class _Worker:
    """One verifying process and the chunk it works on."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ledger.engine.verifier"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def send(self, chunk: Sequence[Signed]) -> bool:
        """Hand over a chunk; False where the process is gone."""
        data = b"".join(bytes.fromhex(s.transaction.signer) + s.signed_bytes + s.signature for s in chunk)
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(len(chunk).to_bytes(4, "big") + data)
            self.process.stdin.flush()
        except OSError:
            return False
        return True

    def receive(self, count: int) -> bytes | None:
        """The verdicts; None where the process is gone."""
        assert self.process.stdout is not None
        found = self.process.stdout.read(count)
        return found if len(found) == count else None

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
    """Checks batches: `begin` hands one over, `finish` waits for the verdicts. Used by one thread."""

    def __init__(self, workers: int = 2) -> None:
        self._count = workers
        self._workers: list[_Worker] = []
        self._sent: list[tuple[_Worker | None, Sequence[Signed]]] = []

    def begin(self, batch: Sequence[Signed]) -> None:
        """Hand over a batch; one at a time."""
        assert not self._sent, "the last batch is not finished"
        if len(batch) <= INLINE or not self._count:
            self._sent = [(None, batch)]
            return
        if len(self._workers) < self._count:
            # A process takes a while to start, or cannot be had now: this batch is checked here.
            with contextlib.suppress(OSError):
                self._workers.extend(_Worker() for _ in range(self._count - len(self._workers)))
            self._sent = [(None, batch)]
            return
        size = -(-len(batch) // len(self._workers))
        for number, worker in enumerate(list(self._workers)):
            chunk = batch[number * size : (number + 1) * size]
            if worker.send(chunk):
                self._sent.append((worker, chunk))
            else:
                self._drop(worker)
                self._sent.append((None, chunk))

    def finish(self) -> list[bool]:
        """Wait for the verdicts of the batch, in its order. What a dead worker left is checked here."""
        verdicts: list[bool] = []
        for worker, chunk in self._sent:
            found = worker.receive(len(chunk)) if worker is not None else None
            if found is None:
                if worker is not None:
                    self._drop(worker)
                verdicts.extend(signed.signature_is_good() for signed in chunk)
            else:
                verdicts.extend(byte == 1 for byte in found)
        self._sent = []
        return verdicts

    def _drop(self, worker: _Worker) -> None:
        if worker in self._workers:
            self._workers.remove(worker)
            worker.close()

    def close(self) -> None:
        """End all workers."""
        while self._workers:
            self._workers.pop().close()
