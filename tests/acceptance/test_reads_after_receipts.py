"""Whoever has a receipt reads its effect at once, and no read goes back: checked over clients at the same time."""

import threading
from pathlib import Path

from tests.marketplace.node.serving import address, serving

MOVES = 25


def test_a_receipt_is_read_at_once(tmp_path: Path) -> None:
    """After each receipt the height, the block, one's own balance and the other side are at least as new as it."""
    with serving(tmp_path) as node:
        people = range(1, 5)
        for who in people:
            node.fund(who)
        failures: list[str] = []

        def client(who: int) -> None:
            highest = seen = 0
            for move in range(1, MOVES + 1):
                receipt = node.post(node.transfer(who, 99)).json()
                status = node.get("/v1/status")
                own = int(node.get(f"/v1/accounts/{address(who)}")["balances"]["ucredit"])
                other = int(node.get(f"/v1/accounts/{address(99)}")["balances"]["ucredit"])
                block = node.call("GET", f"/v1/blocks/{receipt['height']}").status_code
                if status["height"] < max(highest, receipt["height"]):
                    failures.append(f"{who}: height {status['height']} after a receipt of {receipt['height']}")
                if own != 10**9 - move or other < max(move, seen) or block != 200:
                    failures.append(f"{who}: {own} own, {other} there, block {block} after {move} moves, {seen} seen before")
                highest, seen = status["height"], other

        threads = [threading.Thread(target=client, args=(who,)) for who in people]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
        assert not failures, failures[:3]
        assert int(node.get(f"/v1/accounts/{address(99)}")["balances"]["ucredit"]) == len(people) * MOVES
