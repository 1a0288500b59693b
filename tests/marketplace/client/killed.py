"""A client that is killed: `python -m tests.marketplace.client.killed URL OUTBOX SEED TO AMOUNT before|after`.

It makes a transfer of AMOUNT micro-credits with the key SEED (hex) and ends by SIGKILL before it sends it, or after the
node has answered and before it knows.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from ledger.client import Sender
from ledger.protocol.block import Receipt
from ledger.protocol.messages import Transfer
from marketplace.client import NodeClient

ROOT = Path(__file__).resolve().parents[3]


class Dying(NodeClient):
    """A client whose process does not live to see an answer."""

    before = True

    def post(self, raw: bytes) -> Receipt:
        """Send, or not, and die."""
        if not self.before:
            super().post(raw)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it was killed")


def leave(url: str, outbox: Path, seed: bytes, to: str, amount: int, moment: str) -> bytes:
    """Run the client until it is killed; the signed bytes that it left."""
    known = set(outbox.glob("*.json"))
    command = [sys.executable, "-m", "tests.marketplace.client.killed", url, str(outbox), seed.hex(), to, str(amount), moment]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = set(outbox.glob("*.json")) - known
    return left.read_bytes()


def main() -> None:
    """See the module."""
    url, outbox, seed, to, amount, moment = sys.argv[1:]
    with Dying(url) as client:
        client.before = moment == "before"
        Sender(client, bytes.fromhex(seed), outbox=Path(outbox)).send(Transfer(amount=amount, denomination="ucredit", to=to))


if __name__ == "__main__":
    main()
