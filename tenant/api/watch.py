"""What the gateway does by itself: it hears what the ledger says of its account, and finds out what became of lost answers."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Final

import structlog

from ledger.client import Outbox, Settled, settle
from marketplace.client import ApiError, NodeClient, Unreachable
from tenant.api.work import Worker
from tenant.deploy.flow import Deployer

PAUSE_S: Final = 0.5
"""Wait before the node is asked again; it doubles with each failure."""

PAUSE_MOST_S: Final = 10.0

OUTBOX_S: Final = 1.0
"""How often the outbox is looked into; an empty one costs no call."""

KINDS: Final = "LeaseMatched,LeaseEnded,DeploymentEnded"

_log = structlog.get_logger("gpubid.tenant")


class Watch:
    """Two threads beside the requests: one follows the node's events, one settles what is left in the outbox.

    Each connection to the node's events begins with a look at all deployments, so that nothing that happened while there
    was none is missed.
    """

    def __init__(self, node_url: str, flow: Deployer, worker: Worker) -> None:
        self._url = node_url
        self._flow = flow
        self._worker = worker
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._clients: list[NodeClient] = []
        self._threads = [
            threading.Thread(target=self._work, args=(work,), name=name, daemon=True)
            for name, work in (("events", self._follow), ("outbox", self._settle))
        ]

    def __enter__(self) -> "Watch":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._ending.set()
            clients = list(self._clients)
        for client in clients:
            client.close()  # a stream of events ends with that
        for thread in self._threads:
            thread.join(1)  # one that waits for the node holds nothing

    @contextlib.contextmanager
    def _node(self) -> Iterator[NodeClient]:
        with NodeClient(self._url) as client:
            with self._lock:
                self._clients.append(client)
            try:
                yield client
            finally:
                with self._lock:
                    self._clients.remove(client)

    def _work(self, work: Callable[[NodeClient, Callable[[], None]], None]) -> None:
        """Do `work` with a node again and again until the end; `work` is given what to call once the node has answered."""
        pause_s, told = PAUSE_S, False

        def answered() -> None:
            nonlocal pause_s, told
            pause_s, told = PAUSE_S, False

        while not self._ending.is_set():
            try:
                with self._node() as client:
                    work(client, answered)
            except (Unreachable, ApiError) as error:
                if not told and not self._ending.is_set():
                    _log.warning("the node does not answer; trying again", why=str(error))
                    told = True
            except Exception:
                if not self._ending.is_set():
                    _log.exception("a thread of the gateway stumbled; it goes on")
            self._ending.wait(pause_s)
            pause_s = min(pause_s * 2, PAUSE_MOST_S)

    def _follow(self, client: NodeClient, answered: Callable[[], None]) -> None:
        """Look at everything, then hear what happens, until the node ends the stream."""
        height = client.status()["height"]
        self._worker.review()
        for event in client.events(str(height), owner=self._flow.owner, kind=KINDS):
            answered()
            self._worker.hear(event)

    def _settle(self, client: NodeClient, answered: Callable[[], None]) -> None:
        outbox = Outbox(self._flow.outbox)
        while not self._ending.is_set():
            found = settle(client, outbox, timeout_s=0, attended=self._flow.attended)
            answered()
            known = [left for left in found if left.receipt is not None or left.refusal is not None]
            for left in known:
                _log.info("a transaction was left without a result", id=left.envelope.id, result=_result(left))
            if known:
                self._worker.resume()
            # What is still not known waits for a node that does not answer in time.
            self._ending.wait(OUTBOX_S if len(known) == len(found) else PAUSE_MOST_S / 2)


def _result(left: Settled) -> str:
    return "applied" if left.receipt is not None else str(left.refusal)
