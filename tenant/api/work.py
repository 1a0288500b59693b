"""Carrying on with what was asked for: match, manifest, running; goes on after a restart where it stopped."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from marketplace.client import NodeClient
from tenant.api.problems import of_error
from tenant.api.store import Asked, Store
from tenant.deploy.failure import DeployFailed, NoMatch
from tenant.deploy.flow import Deployer

RUN_S: Final = 900.0
"""Seconds that a container may take to run, its image's pull included."""

LOOK_S: Final = 20.0
"""Seconds of one wait for a match; between two the worker is free for another deployment."""

_log = structlog.get_logger()


class Worker:
    """Works on deployments in threads; one thread at a time for each."""

    def __init__(self, store: Store, node: NodeClient, flow: Deployer, threads: int = 8) -> None:
        self._store = store
        self._node = node
        self._flow = flow
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="deploy")
        self._busy: set[int] = set()
        self._lock = threading.Lock()
        self._ending = threading.Event()

    def resume(self) -> None:
        """Take up everything that is unfinished."""
        for asked in self._store.unfinished():
            self.take(asked.dseq)

    def take(self, dseq: int) -> None:
        """Work on a deployment, unless somebody does."""
        with self._lock:
            if dseq in self._busy or self._ending.is_set():
                return
            self._busy.add(dseq)
        self._pool.submit(self._carry, dseq)

    def create(self, asked: Asked) -> None:
        """Open the deployment on the ledger; repeatable. What the market refuses is raised."""
        plan = self._flow.prepare(asked.source, strict=asked.strict, deposit=asked.deposit, dseq=asked.dseq)
        self._flow.create(plan)
        self._store.move(asked.dseq, "created")

    def _carry(self, dseq: int) -> None:
        again = False
        try:
            again = self._steps(dseq)
        except Exception as error:
            problem = of_error(error)
            if problem is None:
                _log.exception("a deployment stopped", dseq=dseq)
            again = problem is not None and problem.status == 503
            if not again:
                self._store.move(dseq, "failed", str(error))
        finally:
            with self._lock:
                self._busy.discard(dseq)
        if again and not self._ending.wait(1.0):
            self.take(dseq)

    def _steps(self, dseq: int) -> bool:
        """Take the steps that are left; True where it is to be taken up again."""
        asked = self._store.get(dseq)
        if asked is None or self._ending.is_set():
            return False
        if asked.phase == "accepted":
            self.create(asked)
        try:
            leases = self._flow.wait_matched(dseq, LOOK_S)
        except NoMatch as error:
            # An order waits as long as its owner likes; one that is closed is over.
            self._store.move(dseq, "created", str(error))
            return self._is_waiting(dseq)
        self._store.move(dseq, "matched")
        for lease in leases:
            self._flow.send_manifest(lease)
        for lease in leases:
            self._flow.wait_running(lease, RUN_S)
        self._store.move(dseq, "running")
        return False

    def _is_waiting(self, dseq: int) -> bool:
        found = self._node.deployment(self._flow.owner, dseq)
        if found["state"] == "active" and any(order["state"] == "open" for order in found["orders"]):
            return True
        raise DeployFailed(f"deployment {dseq} has no open order: {found['reason'] or 'its orders were closed'}")

    def close(self) -> None:
        """Stop taking steps; what is under way ends or is taken up at the next start."""
        self._ending.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
