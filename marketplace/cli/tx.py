"""`gpubid tx`: transactions by hand, with ordered offline signing.

`create` writes an unsigned transaction from messages, `sign` signs it on a machine that needs no network, `send`
posts it. A transaction made with `--offline` uses the account's next sequence and never expires.
"""

import json
import secrets
import sys
from typing import TYPE_CHECKING, Any

import click

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.home import from_option, home_option, node_option
from ledger.cli.output import emit, output_option, say
from ledger.cli.unlock import keystore, unlock_key
from marketplace.cli.connect import connect

if TYPE_CHECKING:
    from ledger.protocol.transaction import Codec, Transaction


def _codec() -> "Codec":
    from ledger.protocol.messages import LEDGER_MESSAGES
    from ledger.protocol.transaction import Codec
    from marketplace.protocol.messages import MARKET_MESSAGES

    return Codec(LEDGER_MESSAGES + MARKET_MESSAGES)


def _read(file: str) -> bytes:
    try:
        with click.open_file(file, "rb") as stream:
            return bytes(stream.read()).strip()
    except OSError as error:
        raise CommandFailed(f"{file} cannot be read: {error.strerror}", Exit.USAGE) from None


def _messages(texts: tuple[str, ...]) -> tuple[Any, ...]:
    """Decode messages given as JSON objects, each with its `type`."""
    from functools import reduce
    from operator import or_

    import msgspec

    union: Any = reduce(or_, _codec().message_types)
    out = []
    for text in texts:
        try:
            out.append(msgspec.json.decode(text.encode(), type=union))
        except (msgspec.MsgspecError, UnicodeError) as error:
            fix = """a message looks like {"type":"Transfer","amount":"5","denomination":"ucredit","to":"gpu1…"}"""
            raise CommandFailed(f"not a message: {error}", Exit.USAGE, fix=fix) from None
    return tuple(out)


def _unsigned(raw: bytes) -> "Transaction":
    """The unsigned transaction in `raw`."""
    from functools import reduce
    from operator import or_
    from typing import cast

    import msgspec

    from ledger.protocol.transaction import Transaction

    union: Any = reduce(or_, _codec().message_types)
    kind = msgspec.defstruct(
        "Unsigned", [("messages", tuple[union, ...])], bases=(Transaction,), frozen=True, forbid_unknown_fields=True
    )
    try:
        return cast(Transaction, msgspec.json.decode(raw, type=kind))
    except msgspec.MsgspecError as error:
        raise CommandFailed(f"not an unsigned transaction: {error}", Exit.USAGE, fix="make one: gpubid tx create") from None


@click.group()
def tx() -> None:
    """Create, sign and send transactions by hand, offline too."""


@tx.command("create")
@click.argument("messages", nargs=-1, required=True)
@click.option("--offline", is_flag=True, help="Use the account's sequence and no expiry, for a key kept offline.")
@click.option("--sequence", type=click.IntRange(1), help="Next sequence of the account; asked of the node by default.")
@click.option("--chain-id", help="Name of the chain; asked of the node by default.")
@click.option("--principal", help="Address that it acts for; the signer's own by default.")
@click.option("--valid-s", type=click.IntRange(1, 120), default=60, show_default=True, help="Seconds it is valid, online.")
@from_option
@node_option
@home_option
def create(
    messages: tuple[str, ...],
    offline: bool,
    sequence: int | None,
    chain_id: str | None,
    principal: str | None,
    valid_s: int,
    key_name: str,
    node: str,
) -> None:
    """Print an unsigned transaction of MESSAGES, each a JSON object with its `type`."""
    from ledger.protocol.encoding import encode
    from ledger.protocol.transaction import Transaction

    info = keystore().info(key_name)
    principal = principal or info.address
    time_ms = 0
    if not offline or chain_id is None or sequence is None:
        from marketplace.client import NodeClient

        with NodeClient(node) as client:
            found, time_ms = client.chain()
            chain_id = chain_id or found
            if offline and sequence is None:
                sequence = int(client.account(principal)["sequence"]) + 1
    transaction = Transaction(
        chain_id=chain_id,
        messages=_messages(messages),
        nonce="" if offline else secrets.token_hex(16),
        principal=principal,
        sequence=(sequence or 0) if offline else 0,
        signer=info.key_hex,
        valid_until=0 if offline else time_ms + valid_s * 1000,
    )
    click.echo(encode(transaction).decode())


@tx.command("sign")
@click.argument("file", default="-")
@from_option
@home_option
def sign(file: str, key_name: str) -> None:
    """Sign the transaction in FILE (standard input by default) and print it; needs no network."""
    from ledger.protocol.transaction import sign_transaction

    transaction = _unsigned(_read(file))
    info, seed = unlock_key(key_name)
    if transaction.signer != info.key_hex:
        raise CommandFailed(
            f"the transaction names the signer {transaction.signer[:16]}…, key {key_name!r} is {info.key_hex[:16]}…",
            Exit.USAGE,
            fix="give --from the key that it names",
        )
    click.echo(sign_transaction(transaction, seed).decode())


@tx.command("send")
@click.argument("file", default="-")
@node_option
@output_option
def send(file: str, node: str, output: str) -> None:
    """Send the signed transaction in FILE (standard input by default) and print its receipt; repeating it is harmless."""
    import msgspec

    raw = _read(file)
    _codec().decode(raw)  # a mistake is found here, with its place, before anything is sent
    with connect(node) as client:
        receipt = client.post(raw)
    data = json.loads(msgspec.json.encode(receipt))
    emit(output, data, text=f"{receipt.id}  height {receipt.height}  applied", names=[receipt.id])


@tx.command("show")
@click.argument("file", default="-")
def show(file: str) -> None:
    """Decode the signed transaction in FILE: its id, whether its signature is good, and what it says."""
    signed = _codec().decode(_read(file))
    good = signed.signature_is_good()
    body = json.loads(signed.raw)
    json.dump({"id": signed.id, "signature_is_good": good, **body}, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
    if not good:
        say("the signature is not the signer's")
        raise SystemExit(int(Exit.FAILURE))
