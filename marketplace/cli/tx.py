"""`gpubid tx`: transactions by hand, with ordered offline signing.

`create` writes unsigned transactions from messages (`gpubid account … --generate-only` does from words), one a line;
`sign` signs them on a machine that needs no network, `send` posts them in order. Those made with `--offline` use the
account's next sequences and never expire.
"""

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.home import from_option, home_option, node_option
from ledger.cli.output import emit, output_option, say
from ledger.cli.unlock import keystore, unlock_key
from marketplace.cli.connect import connect
from marketplace.cli.offline import identity, signer_options, unsigned

if TYPE_CHECKING:
    from ledger.protocol.transaction import Codec, Signed, Transaction


def _codec() -> "Codec":
    from ledger.protocol.messages import LEDGER_MESSAGES
    from ledger.protocol.transaction import Codec
    from marketplace.protocol.messages import MARKET_MESSAGES

    return Codec(LEDGER_MESSAGES + MARKET_MESSAGES)


def message_names() -> list[str]:
    """Names of all messages, which are the verbs of delegations too."""
    return sorted(kind.__name__ for kind in _codec().message_types)


def _signed(raw: bytes) -> "Signed":
    """The signed transaction in `raw`; CommandFailed where it is none."""
    from ledger.protocol.errors import Rejected

    try:
        return _codec().decode(raw)
    except Rejected as refusal:
        fix = "it is what gpubid tx sign prints"
        raise CommandFailed(f"not a signed transaction: {refusal.detail}", Exit.USAGE, fix=fix) from None


def _lines(file: str) -> list[bytes]:
    """The transactions in a file, one a line; a single one may be laid out over several."""
    import msgspec

    try:
        with click.open_file(file, "rb") as stream:
            whole = bytes(stream.read()).strip()
    except OSError as error:
        raise CommandFailed(f"{file} cannot be read: {error.strerror}", Exit.USAGE) from None
    lines = [line for line in whole.splitlines() if line.strip()]
    with contextlib.suppress(msgspec.MsgspecError, RecursionError):
        msgspec.json.decode(whole, type=msgspec.Raw)
        return [whole]
    if not lines:
        raise CommandFailed("there is no transaction to read", Exit.USAGE, fix="give a file with one a line")
    return lines


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


@tx.command("create", short_help="Print an unsigned transaction of messages.")
@click.argument("messages", nargs=-1, required=True)
@click.option("--offline", is_flag=True, help="Use the account's sequence and no expiry, for a key kept offline.")
@click.option("--each", is_flag=True, help="One transaction for each message, in order, instead of one for all.")
@click.option("--sequence", type=click.IntRange(1), help="Next sequence of the account; asked of the node by default.")
@click.option("--chain-id", help="Name of the chain; asked of the node by default.")
@click.option("--valid-s", type=click.IntRange(1, 120), default=60, show_default=True, help="Seconds it is valid, online.")
@signer_options
@from_option
@node_option
@home_option
def create(
    messages: tuple[str, ...],
    offline: bool,
    each: bool,
    sequence: int | None,
    chain_id: str | None,
    valid_s: int,
    key_name: str,
    node: str,
) -> None:
    """Print an unsigned transaction of MESSAGES, each a JSON object with its `type`; with --each a line for each of them."""
    from ledger.protocol.encoding import encode

    found = _messages(messages)
    batches = [(message,) for message in found] if each else [found]
    valid = 0 if offline else valid_s
    for made in unsigned(node, identity(key_name), batches, sequence=sequence, chain_id=chain_id, valid_s=valid):
        click.echo(encode(made).decode())


@tx.command("sign", short_help="Sign transactions; needs no network.")
@click.argument("file", default="-")
@from_option
@home_option
def sign(file: str, key_name: str) -> None:
    """Sign each transaction in FILE (standard input by default), one a line, and print them; needs no network."""
    from ledger.protocol.transaction import sign_transaction

    transactions = [_unsigned(line) for line in _lines(file)]
    info = keystore().info(key_name)
    for transaction in transactions:
        if transaction.signer != info.key_hex:
            raise CommandFailed(
                f"the transaction names the signer {transaction.signer[:16]}…, key {key_name!r} is {info.key_hex[:16]}…",
                Exit.USAGE,
                fix="give --from the key that it names",
            )
    _, seed = unlock_key(key_name)
    for transaction in transactions:
        click.echo(sign_transaction(transaction, seed).decode())


@tx.command("send", short_help="Send signed transactions in order.")
@click.argument("file", default="-")
@node_option
@home_option
@output_option
def send(file: str, node: str, output: str) -> None:
    """Send the signed transactions in FILE (standard input by default), one a line, in order, and print their receipts.

    The first that is refused ends it. Repeating is harmless: what was applied is not applied again.
    """
    import msgspec

    raws = _lines(file)
    for raw in raws:
        _signed(raw)  # a mistake is found here, with its place, before anything is sent
    done: list[Any] = []
    try:
        with connect(node) as client:
            for raw in raws:
                done.append(json.loads(msgspec.json.encode(client.post(raw))))
    finally:
        if done:
            lines = [f"{receipt['id']}  height {receipt['height']}  applied" for receipt in done]
            data = done if len(raws) > 1 else done[0]
            emit(output, data, text="\n".join(lines), names=[receipt["id"] for receipt in done])
        if len(done) < len(raws) > 1:
            say(f"{len(done)} of {len(raws)} were applied, the others not sent, or refused")


@tx.command("show", short_help="Decode transactions and check their signatures.")
@click.argument("file", default="-")
def show(file: str) -> None:
    """Decode each transaction in FILE, one a line: its id, whether its signature is good, and what it says."""
    from ledger.protocol.encoding import encode
    from ledger.protocol.transaction import signing_bytes

    bad = False
    for raw in _lines(file):
        if b'"signature"' in raw:
            signed = _signed(raw)
            good = signed.signature_is_good()
            bad = bad or not good
            body = {"id": signed.id, "signature_is_good": good, **json.loads(signed.raw)}
        else:
            transaction = _unsigned(raw)
            content = encode(transaction)
            body = {"id": signing_bytes(content).hex(), "signed": False, "transaction": json.loads(content)}
        json.dump(body, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    if bad:
        say("the signature is not the signer's")
        raise SystemExit(int(Exit.FAILURE))
