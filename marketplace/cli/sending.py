"""How a command that signs carries out its messages: sent and answered by receipts, or printed for a key kept elsewhere."""

from typing import TYPE_CHECKING, Any, Final

import click

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.home import home_path
from ledger.cli.unlock import unlock_key
from marketplace.cli.connect import connect, send_once
from marketplace.cli.offline import generating, identity, ordered

if TYPE_CHECKING:
    from ledger.protocol.block import Receipt
    from ledger.protocol.messages import Message

AT_ONCE: Final = 64
"""Most messages of one transaction."""


def opened(key_name: str) -> tuple[str, bytes]:
    """(account acted for, seed of 32 bytes) of the key that signs; CommandFailed where `--signer` names one of elsewhere."""
    principal, signer = identity(key_name)
    info, seed = unlock_key(key_name)
    if signer != info.key_hex:
        raise CommandFailed("--signer is for --generate-only", Exit.USAGE, fix="give --from the name of a key in this home")
    return principal, seed


def transact(node: str, key_name: str, *messages: "Message") -> "list[Receipt] | None":
    """Sign and send `messages`, so many in a transaction as go; the receipts. With --generate-only print them unsigned: None."""
    batches = [messages[at : at + AT_ONCE] for at in range(0, len(messages), AT_ONCE)]
    if generating():
        from ledger.protocol.encoding import encode

        for transaction in ordered(node, key_name, batches):
            click.echo(encode(transaction).decode())
        return None
    if not batches:
        return []  # nothing to sign: no key is asked for
    principal, seed = opened(key_name)
    folder = home_path() / "outbox" / key_name
    with connect(node) as client:
        sender = client.sender(seed, principal, outbox=folder)
        return [send_once(client, sender, folder, *batch) for batch in batches]


def plain(receipts: "list[Receipt]") -> list[dict[str, Any]]:
    """Receipts as fields that JSON has, their events included."""
    import json

    import msgspec

    found: list[dict[str, Any]] = json.loads(msgspec.json.encode(receipts))
    return found
