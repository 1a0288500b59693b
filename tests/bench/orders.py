"""How many signed orders a second become leases: through REST in batches, and in process.

Each order is for one GPU; 100 hosts of 8 have room for all of them. Every lease is durable when it is counted.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ledger.engine.embedded import Engine
from ledger.protocol.block import Receipt
from ledger.protocol.genesis import Allocation, DenominationSpec, Genesis
from marketplace.client import NodeClient
from marketplace.market.module import Market
from marketplace.market.tables import LEASES
from tests.bench.rest import Figure, address, figure, market, order, verify_rate
from tests.processes import development_node

HOSTS = 100
ORDERS = 800
BATCH = 100


class InProcess:
    """An engine that answers like a client, for the set-up of the market."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def faucet(self, _address: str, _amount: str) -> None:
        """The genesis gave everyone enough."""

    def chain(self) -> tuple[str, int]:
        """Chain id and block time now."""
        return self.engine.genesis.chain_id, self.engine.now_ms()

    def post(self, raw: bytes) -> Receipt:
        """Apply one transaction."""
        receipt = self.engine.submit(raw).result(60)
        assert receipt.ok, receipt
        return receipt


def in_process(folder: Path) -> float:
    """Orders a second, from signed bytes to a durable lease."""
    rich = tuple(Allocation(address=address(n), amount=str(10**14), denomination="ucredit") for n in (50, 51))
    genesis = Genesis(
        chain_id="bench-1",
        denominations=(DenominationSpec(issuer=address(1), name="ucredit"),),
        governance=address(1),
        time_ms=time.time_ns() // 1_000_000,
        allocations=rich,
    )
    engine = Engine.open(f"sqlite:///{folder / 'chain.db'}", genesis, [Market()])
    try:
        client: Any = InProcess(engine)
        market(client, HOSTS)
        orders = [order(client.chain(), n + 1) for n in range(ORDERS)]
        began = time.perf_counter()
        receipts = [future.result(120) for future in engine.submit_many(orders)]
        taken = time.perf_counter() - began
        assert all(receipt.ok for receipt in receipts), next(receipt for receipt in receipts if not receipt.ok)
        with engine.read() as machine:
            leases = machine.store.count(LEASES)
        assert leases == ORDERS, f"{leases} of {ORDERS} orders became leases"
        return ORDERS / taken
    finally:
        engine.close()


def through_rest(folder: Path) -> float:
    """Orders a second, in batches of 100 over one connection."""
    with development_node(folder) as (_, url), NodeClient(url) as client:
        market(client, HOSTS)
        orders = [order(client.chain(), n + 1) for n in range(ORDERS)]
        began = time.perf_counter()
        for n in range(0, ORDERS, BATCH):
            answers = client.post_many(orders[n : n + BATCH])
            assert all(answer["code"] == 0 for answer in answers), answers[0]
        taken = time.perf_counter() - began
        leases = len(client.leases(owner=address(51)))
        assert leases == ORDERS, f"{leases} of {ORDERS} orders became leases"
        return ORDERS / taken


def figures() -> Iterator[Figure]:
    """Both rates, beside the verify rate of both cores."""
    limit = verify_rate()
    with tempfile.TemporaryDirectory(prefix="gpubid-bench-") as name:
        rate = in_process(Path(name))
        yield figure("signed orders matched, in process", rate, "orders/s", limit, rate / limit, None, most=False)
        rate = through_rest(Path(name))
        yield figure("signed orders matched, REST, batches of 100", rate, "orders/s", limit, rate / limit, None, most=False)


if __name__ == "__main__":
    for found in figures():
        print(json.dumps(found, ensure_ascii=False), flush=True)
