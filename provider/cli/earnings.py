"""`gpubid provider bond` and `payout`: what a provider pledges, and what it has earned."""

from typing import TYPE_CHECKING, Any, Final

import click

from ledger.cli.home import from_option, home_option, home_path, node_option
from ledger.cli.output import credits, emit, output_option
from ledger.cli.unlock import keystore, unlock_key

if TYPE_CHECKING:
    from ledger.protocol.messages import Message

AT_ONCE: Final = 64
"""Most messages of one transaction."""

denomination_option = click.option("--denomination", help="Kind of money; the chain's first by default.")


def _send(node: str, key_name: str, messages: "list[Message]") -> list[Any]:
    """Send messages, so many in a transaction as go; the receipts."""
    from marketplace.client import NodeClient

    info, seed = unlock_key(key_name)
    with NodeClient(node) as client:
        sender = client.sender(seed, outbox=home_path() / "outbox" / info.name)
        return [sender.send(*messages[at : at + AT_ONCE]) for at in range(0, len(messages), AT_ONCE)]


def _denomination(node: str, given: str | None) -> str:
    if given:
        return given
    from marketplace.client import NodeClient

    with NodeClient(node) as client:
        return str(client.genesis()["denominations"][0]["name"])


def _said(receipts: list[Any], output: str, text: str) -> None:
    """Print what was done."""
    import json

    import msgspec

    data = json.loads(msgspec.json.encode(receipts))
    emit(output, data, text=text, names=[receipt.id for receipt in receipts])


@click.group()
def bond() -> None:
    """Show, post or ask back the bond that bids need."""


@bond.command("show")
@click.argument("address", required=False)
@from_option
@node_option
@home_option
@output_option
def show(address: str | None, key_name: str, node: str, output: str) -> None:
    """Show the bonds of the account ADDRESS, or of the key that signs, with what is asked for each GPU."""
    from marketplace.client import NodeClient

    address = address or keystore().info(key_name).address
    with NodeClient(node) as client:
        parameters = client.parameters()
        found = client.account(address)["bonds"]
    rows = [
        (
            b["denomination"],
            *(credits(b[name]) for name in ("balance", "needed", "stays", "cut", "leaving")),
            b["leaves_ms"] or "–",
        )
        for b in found
    ]
    asked = credits(parameters["bond_minimum"])
    data = {"address": address, "minimum_per_gpu": str(parameters["bond_minimum"]), "bonds": found}
    headers = ("MONEY", "BOND", "NEEDED", "MUST STAY", "CUT", "ASKED BACK", "NOT BEFORE MS")
    if output == "table":
        click.echo(f"asked for each GPU on offer: {asked}")
    emit(output, data, headers=headers, rows=rows, names=[b["denomination"] for b in found])


@bond.command("post")
@click.argument("amount")
@denomination_option
@from_option
@node_option
@home_option
@output_option
def post(amount: str, denomination: str | None, key_name: str, node: str, output: str) -> None:
    """Pledge AMOUNT credits; faults that the ledger sees are cut from it."""
    from marketplace.cli.amounts import micro_of
    from marketplace.protocol.messages import PostBond

    message = PostBond(amount=str(micro_of(amount)), denomination=_denomination(node, denomination))
    _said(_send(node, key_name, [message]), output, f"pledged {credits(message.amount)}")


@bond.command("withdraw")
@click.argument("amount")
@denomination_option
@from_option
@node_option
@home_option
@output_option
def withdraw(amount: str, denomination: str | None, key_name: str, node: str, output: str) -> None:
    """Ask for AMOUNT credits of the bond, in place of what was asked before; 0 takes the asking back.

    It comes after the cooling time, as soon as what stays of the bond covers the bids and open leases (gpubid provider bond
    show); all of it once no bid and no open lease is left: stop the daemon, or let its bids expire.
    """
    from marketplace.cli.amounts import micro_of
    from marketplace.protocol.messages import WithdrawBond

    message = WithdrawBond(amount=str(micro_of(amount)), denomination=_denomination(node, denomination))
    receipts = _send(node, key_name, [message])
    due = next((event["leaves_ms"] for event in _events(receipts) if event["kind"] == "BondAsked"), 0)
    when = f", not before {due} ms of block time and only beyond what bids and leases hold" if due else ""
    _said(receipts, output, f"asked back {credits(message.amount)}{when}")


@click.command("payout")
@from_option
@node_option
@home_option
@output_option
def payout(key_name: str, node: str, output: str) -> None:
    """Have the purses of this provider's open leases pay now what no report can take back any more."""
    from ledger.protocol.messages import Settle
    from marketplace.client import NodeClient

    address = keystore().info(key_name).address
    with NodeClient(node) as client:
        open_ones = [lease for lease in client.leases(provider=address, state="unreleased") if lease["state"] != "closed"]
    purses = sorted({str(lease["deployment"]) for lease in open_ones})
    receipts = _send(node, key_name, [Settle(purse=purse) for purse in purses]) if purses else []
    mine = [event for event in _events(receipts) if event["kind"] == "MeterPaid" and event["payee"] == address]
    paid = sum(int(event["amount"]) for event in mine)
    _said(receipts, output, f"{len(purses)} purses paid {credits(paid)}")


def _events(receipts: list[Any]) -> list[dict[str, Any]]:
    """The events of receipts, as plain fields."""
    import msgspec

    return [event for receipt in msgspec.to_builtins(receipts) for event in receipt["events"]]
