"""`gpubid account`: money and who may spend it."""

import time
from typing import TYPE_CHECKING

import click

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.home import as_address, from_option, home_option, node_option
from ledger.cli.output import columns, credits, describe, emit, output_option, say
from ledger.cli.unlock import keystore, passphrase_of
from marketplace.cli.amounts import micro_of
from marketplace.cli.connect import connect
from marketplace.cli.offline import chain_of, generate_option, identity, without_node
from marketplace.cli.sending import plain, transact

if TYPE_CHECKING:
    from ledger.protocol.block import Receipt
    from ledger.protocol.messages import Message


@click.group()
def account() -> None:
    """Show and move money; let other keys act for an account."""


def _address(given: str | None, key_name: str) -> str:
    return as_address(given) if given else identity(key_name)[0]


def _send(node: str, key_name: str, output: str, message: "Message", said: str) -> "Receipt | None":
    """Send one message signed by a key, and print the receipt; with --generate-only print it unsigned, and None."""
    receipts = transact(node, key_name, message)
    if receipts is None:
        return None
    (receipt,) = receipts
    emit(output, plain(receipts)[0], text=f"{said}\n{receipt.id}  height {receipt.height}", names=[receipt.id])
    return receipt


def denomination_of(node: str, given: str | None) -> str:
    """The kind of money that was named, or the chain's first."""
    if given:
        return given
    if without_node():
        raise CommandFailed("the kind of money is not known without a node", Exit.USAGE, fix="give --denomination")
    from marketplace.client import NodeClient

    with NodeClient(node) as client:
        return str(client.genesis()["denominations"][0]["name"])


denomination_option = click.option("--denomination", help="Kind of money; the chain's first by default.")


@account.command("show", short_help="Show balances and delegations.")
@click.argument("address", required=False)
@from_option
@node_option
@home_option
@output_option
def show(address: str | None, key_name: str, node: str, output: str) -> None:
    """Show balances, delegations and the rate bucket of ADDRESS, or of the key that signs."""
    from marketplace.client import ApiError, NodeClient

    address = _address(address, key_name)
    with NodeClient(node) as client:
        try:
            found = client.account(address)
        except ApiError as error:
            if error.status != 404:
                raise
            fix = "an account opens when it receives money: gpubid account faucet, or a transfer"
            raise CommandFailed(f"account {address} is not open yet", Exit.NOT_FOUND, fix=fix) from None
    facts = {"address": address, **{name: credits(amount) for name, amount in found["balances"].items()}}
    facts |= {"sequence": found["sequence"], "version": found["version"]}
    bucket = found["bucket"]
    facts["may send"] = f"{bucket['left']} transactions now ({bucket['at_once']} at most), {bucket['per_minute']} a minute"
    text = describe(facts)
    if found["delegations"]:
        rows = [
            (d["key"][:16] + "…", ",".join(d["verbs"]), credits(d["spend_per_day"]), d["expires_ms"])
            for d in found["delegations"]
        ]
        text += "\n\n" + columns(("DELEGATED KEY", "VERBS", "A DAY", "EXPIRES MS"), rows)
    emit(output, found, text=text, names=[address])


@account.command("faucet", short_help="Receive credits from the faucet of a development chain.")
@click.argument("amount", required=False)
@click.option("--to", help="Address that receives; the key that signs by default.")
@from_option
@node_option
@home_option
@output_option
def faucet(amount: str | None, to: str | None, key_name: str, node: str, output: str) -> None:
    """Receive AMOUNT credits (1000 by default) from the faucet of a development chain."""
    address = _address(to, key_name)
    with connect(node) as client:
        receipt = client.faucet(address, str(micro_of(amount)) if amount else None)
    minted = sum(int(e["amount"]) for e in receipt["events"] if e["kind"] == "Minted")
    emit(output, receipt, text=f"{address} received {credits(minted)}", names=[receipt["id"]])


@account.command("transfer")
@click.argument("to")
@click.argument("amount")
@denomination_option
@generate_option
@from_option
@node_option
@home_option
@output_option
def transfer(to: str, amount: str, denomination: str | None, key_name: str, node: str, output: str) -> None:
    """Send AMOUNT credits to the address TO."""
    from ledger.protocol.messages import Transfer

    as_address(to)
    message = Transfer(amount=str(micro_of(amount)), denomination=denomination_of(node, denomination), to=to)
    _send(node, key_name, output, message, f"sent {credits(message.amount)} to {to}")


def _purse(text: str, key_name: str) -> str:
    """Id of a purse: as given, or of the own deployment with that dseq."""
    owner, slash, dseq = text.rpartition("/")
    if not dseq.isascii() or not dseq.isdigit():
        raise CommandFailed(
            f"{text!r} names no deployment", Exit.USAGE, fix="give its dseq, or owner/dseq; see gpubid lease list"
        )
    return f"{as_address(owner) if slash else _address(None, key_name)}/{dseq}"


@account.command("deposit", short_help="Add credits to the purse of a deployment.")
@click.argument("deployment")
@click.argument("amount")
@generate_option
@from_option
@node_option
@home_option
@output_option
def deposit(deployment: str, amount: str, key_name: str, node: str, output: str) -> None:
    """Add AMOUNT credits to the purse of DEPLOYMENT (owner/dseq, or the own dseq); what is left comes back."""
    from ledger.protocol.messages import Deposit

    message = Deposit(amount=str(micro_of(amount)), purse=_purse(deployment, key_name))
    _send(node, key_name, output, message, f"deposited {credits(message.amount)} in {message.purse}")


@account.command("withdraw", short_help="Take credits back from the purse of a deployment.")
@click.argument("deployment")
@click.argument("amount")
@generate_option
@from_option
@node_option
@home_option
@output_option
def withdraw(deployment: str, amount: str, key_name: str, node: str, output: str) -> None:
    """Take AMOUNT credits back from the purse of DEPLOYMENT, as far as they are free."""
    from ledger.protocol.messages import Withdraw

    message = Withdraw(amount=str(micro_of(amount)), purse=_purse(deployment, key_name))
    _send(node, key_name, output, message, f"withdrew {credits(message.amount)} from {message.purse}")


def _check_verb(verb: str) -> None:
    """CommandFailed where no message is called that: a delegation with a slip in it would allow nothing."""
    from difflib import get_close_matches

    from marketplace.cli.tx import message_names

    known = ["*", "gateway", *message_names()]
    if verb not in known:
        near = get_close_matches(verb, known, 3, 0.5) or known
        raise CommandFailed(f"no message is called {verb!r}", Exit.USAGE, fix=f"perhaps {', '.join(near)}")


def _version_of(node: str, address: str, key: str) -> int:
    """Version of what the account delegates to a key now; 0 for nothing."""
    from marketplace.client import NodeClient

    with NodeClient(node) as client:
        found = client.account(address)["delegations"]
    return next((int(delegation["version"]) for delegation in found if delegation["key"] == key), 0)


@account.command("delegate", short_help="Let another key act for the account.")
@click.argument("key")
@click.option("--verb", "verbs", multiple=True, required=True, help="Name of a message it may send; * for all. Repeatable.")
@click.option("--per-day", default="0", show_default=True, help="Credits it may spend a day.")
@click.option("--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="Days until it ends.")
@click.option("--version", type=click.IntRange(0), help="Of the delegation that is replaced, 0 for a new one; asked of the node.")
@generate_option
@from_option
@node_option
@home_option
@output_option
def delegate(
    key: str, verbs: tuple[str, ...], per_day: str, days: int, version: int | None, key_name: str, node: str, output: str
) -> None:
    """Let KEY (public key in hex, or the name of a key here) act for the account."""
    from ledger.protocol.messages import Delegate

    if len(key) != 64:
        key = keystore().info(key).key_hex
    for verb in verbs:
        _check_verb(verb)
    if version is None:
        version = 0 if without_node() else _version_of(node, _address(None, key_name), key)
    _, now_ms = chain_of(node)
    message = Delegate(
        expires_ms=now_ms + days * 86_400_000, key=key, spend_per_day=str(micro_of(per_day)), verbs=verbs, version=version
    )
    until = time.strftime("%Y-%m-%d", time.gmtime(message.expires_ms // 1000))
    _send(node, key_name, output, message, f"{key[:16]}… may {', '.join(verbs)} until {until}")


@account.command("revoke", short_help="End what another key may do for the account.")
@click.argument("key")
@generate_option
@from_option
@node_option
@home_option
@output_option
def revoke(key: str, key_name: str, node: str, output: str) -> None:
    """End what KEY (hex, or the name of a key here) may do for the account, at once."""
    from ledger.protocol.messages import Revoke

    if len(key) != 64:
        key = keystore().info(key).key_hex
    _send(node, key_name, output, Revoke(key=key), f"{key[:16]}… may do nothing more for the account")


@account.command("rotate", short_help="Replace the account's key; the address stays.")
@click.argument("new")
@generate_option
@from_option
@node_option
@home_option
@output_option
def rotate(new: str, key_name: str, node: str, output: str) -> None:
    """Replace the account's key by the key NEW of this home; the address stays, the old key may do nothing more.

    NEW proves itself by a signature. From then on --from NEW acts for the account.
    """
    from ledger.protocol.keys import sign
    from ledger.protocol.messages import RotateKey
    from ledger.protocol.transaction import rotation_bytes

    principal = _address(None, key_name)
    word = passphrase_of(new)
    seed = keystore().unlock(new, word)
    chain_id, _ = chain_of(node)
    key = keystore().info(new).key_hex
    message = RotateKey(key=key, proof=sign(seed, rotation_bytes(chain_id, principal)).hex())
    if _send(node, key_name, output, message, f"{principal} has the key {key} from now on") is None:
        say(f"once it was sent: gpubid keys act-for {new} {principal}")
        return
    keystore().act_for(new, word, principal)
    say(f"use --from {new} for this account; delete the old key with gpubid keys delete {key_name}")
