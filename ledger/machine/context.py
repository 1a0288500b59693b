"""What a handler knows and may do: time, who acts, state, events, the schedule, parameters."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ledger.machine import schedule
from ledger.machine.store import Store
from ledger.protocol.block import Event

if TYPE_CHECKING:
    from ledger.machine.buckets import Buckets


class Context:
    """One step of a block: a transaction, a scheduled event, or a block's beginning or end.

    `time` is ms: block time, or the due time of a scheduled event. `principal`, `signer` and `tx_id` are empty
    outside transactions; `delegated` is true where the signer acts by a delegation.
    """

    __slots__ = (
        "_notify", "_parameters", "buckets", "chain_id", "delegated", "events", "governance", "height", "principal", "protocol",
        "signer", "store", "time", "tx_id",
    )  # fmt: skip

    def __init__(
        self,
        store: Store,
        parameters: Mapping[str, int],
        notify: Callable[["Context", str, str], None],
        buckets: "Buckets",
        *,
        chain_id: str,
        governance: str,
        height: int,
        protocol: int,
        time: int,
    ) -> None:
        self.store = store
        self.buckets = buckets
        self.chain_id = chain_id
        self.governance = governance
        self.height = height
        self.protocol = protocol
        self.time = time
        self.principal = ""
        self.signer = ""
        self.tx_id = ""
        self.delegated = False
        self.events: list[Any] = []
        self._parameters = parameters
        self._notify = notify

    def emit(self, event: Event) -> None:
        """Tell what happened; a refused transaction's events are dropped."""
        self.events.append(event)

    def schedule(self, due_ms: int, kind: str, id: str) -> None:
        """Let the module that declares `kind` be called at `due_ms`, or now where that is past.

        An earlier due time of the same (kind, id) is replaced.
        """
        schedule.put(self.store, max(due_ms, self.time), kind, id)

    def cancel(self, kind: str, id: str) -> None:
        """Take back what was scheduled; nothing where nothing was."""
        schedule.drop(self.store, kind, id)

    def parameter(self, name: str) -> int:
        """Return a parameter's value now."""
        return self._parameters[name]

    def notify(self, purse: str, what: str) -> None:
        """Tell every module about a purse: `warning`, `dry`, `funded` (after it was dry), `deposited` or `grace_over`."""
        self._notify(self, purse, what)
