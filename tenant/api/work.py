"""Carrying on with what was asked for: match, manifest, running; goes on after a restart where it stopped."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog

from ledger.client import Unreachable as NoAnswer
from marketplace.client import NodeClient
from tenant.api.problems import Problem, of_error
from tenant.api.store import UNFINISHED, Asked, Store
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
        self._news: dict[int, bool] = {}
        """Deployments of which something was heard that is not looked at yet; True where they are to be sent anew anyway."""
        self._sent: set[str] = set()
        """Leases whose provider has the manifest."""
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

    def renew(self, dseq: int, *, anyway: bool = False) -> None:
        """Look at a deployment again, now or after what is under way: where a lease lacks its manifest, send it.

        With `anyway` it is sent to all of its leases.
        """
        with self._lock:
            self._news[dseq] = self._news.get(dseq, False) or anyway
        self.take(dseq)

    def review(self) -> None:
        """Look at all deployments that may have changed while nothing was heard of them. Unreachable, ApiError."""
        matched = {int(lease["dseq"]) for lease in self._node.leases(owner=self._flow.owner, state="matched")}
        for dseq in sorted(matched | set(self._store.finished())):
            self.renew(dseq)

    def hear(self, event: dict[str, Any]) -> None:
        """Take an event of the account's own from the node."""
        id = str(event.get("lease") or event.get("deployment") or "")
        _, _, rest = id.partition("/")
        dseq = rest.partition("/")[0]
        if event["kind"] == "LeaseEnded":
            with self._lock:
                self._sent.discard(id)
        if dseq.isdecimal():
            self.renew(int(dseq))

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
        with self._lock:
            news = self._news.pop(dseq, None)
        try:
            again = self._steps(dseq) if news is None or self._take_up(dseq, news) else False
        except Exception as error:
            problem = of_error(error)
            if problem is None and not self._ending.is_set():
                _log.exception("a deployment stopped", dseq=dseq)
            again = self._ending.is_set() or (problem is not None and problem.status == 503)
            if not again:
                self._store.move(dseq, "failed", str(error))
            elif news is not None:
                with self._lock:
                    self._news[dseq] = self._news.get(dseq, False) or news
        finally:
            with self._lock:
                self._busy.discard(dseq)
                heard = dseq in self._news
        if (again and not self._ending.wait(0.5)) or (heard and not again):
            self.take(dseq)

    def _take_up(self, dseq: int, anyway: bool) -> bool:
        """See what became of a deployment that was left alone; True where steps are to be taken that the store tells."""
        asked = self._store.get(dseq)
        if asked is not None and asked.phase in UNFINISHED:
            return True
        found = self._node.deployment(self._flow.owner, dseq)
        if found["state"] == "closed":
            self._store.move(dseq, "closed")
            self._flow.shelf.drop(self._flow.owner, dseq)
            return False
        live = [lease for lease in found["leases"] if lease["state"] != "closed"]
        waits = any(order["state"] == "open" for order in found["orders"])
        lacking = [lease for lease in live if anyway or (lease["state"] == "matched" and lease["id"] not in self._sent)]
        if asked is None:
            # Deployed by a command in this home, which may have left.
            if self._flow.shelf.find(self._flow.owner, dseq) is not None:
                self._send(lacking)
            return False
        if lacking or waits or (asked.phase == "running" and not live):
            self._store.move(dseq, "created")
            return True
        return False

    def _send(self, leases: list[dict[str, Any]]) -> None:
        for lease in leases:
            self._flow.send_manifest(lease)
            with self._lock:
                self._sent.add(lease["id"])

    def _steps(self, dseq: int) -> bool:
        """Take the steps that are left; True where it is to be taken up again."""
        asked = self._store.get(dseq)
        if asked is None or asked.phase in ("running", "closed") or self._ending.is_set():
            return False
        if asked.phase == "accepted":
            self.create(dseq)
        try:
            leases = self._flow.wait_matched(dseq, LOOK_S)
        except NoMatch as error:
            # An order waits as long as its owner likes; one that is closed is over.
            self._store.move(dseq, "created", str(error))
            return self._is_waiting(dseq)
        self._send(leases)
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
