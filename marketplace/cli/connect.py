"""How a command at a terminal talks to a node: its key is known, its receipts are kept, what was left is settled first."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.cli.home import home_path
from ledger.cli.output import say

if TYPE_CHECKING:
    from ledger.client import Sender, Settled
    from ledger.notebook import Notebook
    from ledger.protocol.block import Receipt
    from ledger.protocol.messages import Message
    from marketplace.client import NodeClient


def notebook() -> "Notebook":
    """The notebook of the home."""
    from ledger.notebook import Notebook

    return Notebook(home_path(), tell=say if sys.stderr.isatty() else lambda _line: None)


def connect(node: str) -> "NodeClient":
    """A client of the node that has signed receipts and checks them; a context manager."""
    from marketplace.client import NodeClient

    return NodeClient(node, notebook())


def settle_left(client: "NodeClient", folder: Path) -> "list[Settled]":
    """Send again what an earlier command left in an outbox without knowing its result, and say what became of it."""
    from ledger.client import Outbox, settle

    found = settle(client, Outbox(folder))
    for left in found:
        if left.receipt is not None:
            say(f"left by an earlier command: transaction {left.envelope.id} is applied, height {left.receipt.height}")
        elif left.refusal is not None:
            say(f"left by an earlier command: transaction {left.envelope.id} was refused: {left.refusal}")
        else:
            say(f"left by an earlier command: transaction {left.envelope.id} has no result yet")
    return found


def send_once(client: "NodeClient", sender: "Sender", folder: Path, *messages: "Message") -> "Receipt":
    """Settle what was left, then send `messages`; where the very same were left and are applied now, that was it."""
    from ledger.protocol.encoding import encode

    wanted = (encode(list(messages)), sender.key, sender.principal)
    for left in settle_left(client, folder):
        if left.receipt is not None and (left.envelope.messages, left.envelope.signer, left.envelope.principal) == wanted:
            say("the same was sent by an earlier command: nothing more is sent; repeat it if you want it twice")
            return left.receipt
    return sender.send(*messages)
