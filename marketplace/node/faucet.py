"""The faucet of a development chain: mints for whoever asks, within limits an address."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from ledger.engine.embedded import Engine
from ledger.protocol.block import Receipt
from ledger.protocol.errors import Code
from ledger.protocol.keys import address_of, check_address, public_key
from ledger.protocol.messages import Mint
from ledger.protocol.transaction import Transaction, sign_transaction
from marketplace.node.problems import Problem, refusal

DEFAULT_AMOUNT: Final = 1_000_000_000
"""1,000 credits, in micro-units."""

MAX_AMOUNT: Final = 10**12
"""Most that one request may ask, in micro-units."""

BURST: Final = 20
"""Requests an address may make at once; one more comes back a minute."""

REFILL_S: Final = 60.0
MAX_ADDRESSES: Final = 10_000
VALID_MS: Final = 60_000


class Faucet:
    """Mints a denomination with its issuer's seed (32 bytes)."""

    def __init__(self, engine: Engine, seed: bytes, denomination: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._seed = seed
        self._key = public_key(seed)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self.denomination = denomination
        self.address = address_of(self._key)

    def ask(self, address: str, amount: int | None) -> Future[Receipt]:
        """Mint `amount` micro-units (1,000 credits by default) to an address; a Problem or Rejected where that is refused."""
        check_address(address)
        amount = DEFAULT_AMOUNT if amount is None else amount
        if not 0 < amount <= MAX_AMOUNT:
            raise refusal(Code.AMOUNT_REFUSED, f"the faucet gives from 1 to {MAX_AMOUNT} micro-units at once")
        self._take(address)
        mint = Mint(amount=str(amount), denomination=self.denomination, to=address)
        transaction = Transaction(
            chain_id=self._engine.genesis.chain_id,
            messages=(mint,),
            nonce=secrets.token_hex(16),
            principal=self.address,
            sequence=0,
            signer=self._key.hex(),
            valid_until=self._engine.now_ms() + VALID_MS,
        )
        return self._engine.submit(sign_transaction(transaction, self._seed))

    def _take(self, address: str) -> None:
        now = self._clock()
        left, since = self._buckets.pop(address, (float(BURST), now))
        left = min(float(BURST), left + (now - since) / REFILL_S)
        if left < 1:
            self._buckets[address] = (left, now)
            wait_s = int((1 - left) * REFILL_S) + 1
            raise Problem(
                429, "the faucet is for everyone", f"{address} asked too often", fix=f"wait {wait_s} s", retry_after_s=wait_s
            )
        self._buckets[address] = (left - 1, now)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
