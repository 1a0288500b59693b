"""Carrying on with what was asked for: match, manifest, running; goes on after a restart where it stopped."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from ledger.client import Unreachable as NoAnswer
from marketplace.client import NodeClient
from tenant.api.problems import Problem, of_error
from tenant.api.store import Asked, Store
from tenant.deploy.failure import DeployFailed, NoMatch, NotRunning
from tenant.deploy.flow import Deployer

LOOK_S: Final = 3.0
"""Seconds of one wait; between two the worker is free for another deployment, and can end."""

_STRIPES: Final = 64

_log = structlog.get_logger("gpubid.tenant")


class Worker:
    """Works on deployments in threads; one thread at a time for each."""

    def __init__(self, store: Store, node: NodeClient, flow: Deployer, threads: int = 8) -> None:
        self._store = store
        self._node = node
        self._flow = flow
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="deploy")
        self._busy: set[int] = set()
        self._lock = threading.Lock()
        self._creating = [threading.Lock() for _ in range(_STRIPES)]
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

    def create(self, dseq: int) -> None:
        """Open the deployment on the ledger, unless that is done; repeatable. What the market refuses is raised.

        One request at a time creates a deployment: the same one may come in twice at once, or while this goes on after
        a restart.
        """
        with self._creating[dseq % _STRIPES]:
            asked = self._store.get(dseq)
            if asked is None:
                fix = "send it again: the key is free"
                raise Problem(409, "the same request was refused a moment ago", code="refused", fix=fix)
            if asked.phase != "accepted":
                return
            try:
                self._create(asked)
            except Exception as error:
                problem = of_error(error)
                if problem is not None and problem.status != 503:
                    self._store.forget(dseq)
                elif asked.idempotency_key is None:
                    # Nobody can ask for it again, so nothing more is to come of it.
                    if isinstance(error, NoAnswer):
                        self._flow.abandon(error.raw)
                    self._store.move(dseq, "failed", f"the node did not answer: {error}")
                raise

    def _create(self, asked: Asked) -> None:
        plan = self._flow.prepare(asked.source, strict=asked.strict, deposit=asked.deposit, dseq=asked.dseq)
        self._flow.create(plan)
        self._store.move(asked.dseq, "created")

    def _carry(self, dseq: int) -> None:
        again = False
        try:
            again = self._steps(dseq)
        except Exception as error:
            problem = of_error(error)
            if problem is None and not self._ending.is_set():
                _log.exception("a deployment stopped", dseq=dseq)
            again = self._ending.is_set() or (problem is not None and problem.status == 503)
            if not again:
                self._store.move(dseq, "failed", str(error))
        finally:
            with self._lock:
                self._busy.discard(dseq)
        if again and not self._ending.wait(0.5):
            self.take(dseq)

    def _steps(self, dseq: int) -> bool:
        """Take the steps that are left; True where it is to be taken up again."""
        asked = self._store.get(dseq)
        if asked is None or self._ending.is_set():
            return False
        if asked.phase == "accepted":
            self.create(dseq)
        try:
            leases = self._flow.wait_matched(dseq, LOOK_S)
        except NoMatch as error:
            # An order waits as long as its owner likes; one that is closed is over.
            self._store.move(dseq, "created", str(error))
            return self._is_waiting(dseq)
        for lease in leases:
            self._flow.send_manifest(lease)
        self._store.move(dseq, "matched")
        for lease in leases:
            try:
                self._flow.wait_running(lease, LOOK_S)
            except NotRunning as error:
                if error.exit_code != 6:
                    raise
                return True
        self._store.move(dseq, "running")
        return False

    def _is_waiting(self, dseq: int) -> bool:
        found = self._node.deployment(self._flow.owner, dseq)
        if found["state"] == "active" and any(order["state"] == "open" for order in found["orders"]):
            return True
        # A lease may have come and gone between two looks: what ended it is the reason that its owner can act on.
        ended = [": ".join(filter(None, (lease["reason"], lease["detail"]))) for lease in found["leases"]]
        why = found["reason"] or "; ".join(filter(None, ended)) or "its orders were closed"
        raise DeployFailed(f"deployment {dseq} has no open order: {why}")

    def close(self) -> None:
        """Stop taking steps and wait for those under way; the next start takes up what is left."""
        with self._lock:
            self._ending.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
