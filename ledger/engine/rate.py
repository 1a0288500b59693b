"""The rate limit within one block: what would be refused for it is refused before the block, and may be sent again."""

from ledger.machine.accounts import ACCOUNTS
from ledger.machine.admission import bucket_at
from ledger.machine.machine import Machine
from ledger.protocol.errors import Code, Rejected


class Rate:
    """Counts what a block takes of each account's bucket; the machine's own check sees the state before the block only."""

    def __init__(self, machine: Machine, time_ms: int) -> None:
        self._machine = machine
        self._time_ms = time_ms
        self._left: dict[str, int] = {}

    def take(self, principal: str) -> None:
        """Take one transaction of an existing account; RATE_LIMITED where its bucket is empty."""
        left = self._left.get(principal)
        if left is None:
            # The first one is judged by the machine. Most accounts come once in a block: the bucket is looked at later.
            self._left[principal] = -1
            return
        if left < 0:
            left = self._bucket(principal) - 1
        if left < 1:
            raise Rejected(Code.RATE_LIMITED, "too many transactions of this account at once")
        self._left[principal] = left - 1

    def _bucket(self, principal: str) -> int:
        values = self._machine.parameters()
        account = self._machine.store.get(ACCOUNTS, principal)
        assert account is not None, "the machine's check found the account"
        return bucket_at(account, self._time_ms, values["bucket_burst"], values["bucket_refill_per_s"]) // 1000
