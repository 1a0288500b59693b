"""A chain of protocol 1 replays to the same roots, whatever later software knows."""

from ledger.engine.export import verify_export
from marketplace.market.module import Market
from tests.vectors.protocol_1 import FILE

HEAD = "ce2eefb09e35ae1eac31e82bf9c48a5e68bfa77c6327e90d42c0ec7017f63bcd"
ROOT = "e8df5e2de861ac49cfc8660a823690ad9496c0902d4dfc3f20499da54b1f616b"


def test_the_stored_chain_replays() -> None:
    """Every block of the export, replayed from its genesis, has the header, results and root that it had when it was made."""
    report = verify_export(FILE, [Market()])
    assert (report.height, report.transactions) == (47, 54)
    assert (report.hash, report.state_root) == (HEAD, ROOT)
