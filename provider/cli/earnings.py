"""`gpubid provider bond` and `payout`: what a provider pledges, and what it has earned."""

from typing import TYPE_CHECKING

import click

from ledger.cli.home import as_address, from_option, home_option, node_option
from ledger.cli.output import credits, emit, output_option, say
from ledger.cli.unlock import keystore
from marketplace.cli.account import denomination_of, denomination_option
from marketplace.cli.offline import generate_option, identity
from marketplace.cli.sending import plain, transact

if TYPE_CHECKING:
    from ledger.protocol.block import Receipt


def _said(receipts: "list[Receipt]", output: str, text: str) -> None:
    """Print what was done."""
    emit(output, plain(receipts), text=text, names=[receipt.id for receipt in receipts])


@click.group()
def bond() -> None:
    """Show, post or ask back the bond that bids need."""


@bond.command("show", short_help="Show bonds, and what is asked for each GPU.")
@click.argument("address", required=False)
@from_option
@node_option
@home_option
@output_option
def show(address: str | None, key_name: str, node: str, output: str) -> None:
    """Show the bonds of the account ADDRESS, or of the key that signs, with what is asked for each GPU."""
    from marketplace.client import NodeClient

    address = as_address(address) if address else keystore().info(key_name).address
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


@bond.command("post", short_help="Pledge credits.")
@click.argument("amount")
@denomination_option
@generate_option
@from_option
@node_option
@home_option
@output_option
def post(amount: str, denomination: str | None, key_name: str, node: str, output: str) -> None:
    """Pledge AMOUNT credits; faults that the ledger sees are cut from it."""
    from marketplace.cli.amounts import micro_of
    from marketplace.protocol.messages import PostBond

    message = PostBond(amount=str(micro_of(amount)), denomination=denomination_of(node, denomination))
    receipts = transact(node, key_name, message)
    if receipts is not None:
        _said(receipts, output, f"pledged {credits(message.amount)}")


@bond.command("withdraw", short_help="Ask for credits of the bond back.")
@click.argument("amount")
@denomination_option
@generate_option
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

    message = WithdrawBond(amount=str(micro_of(amount)), denomination=denomination_of(node, denomination))
    receipts = transact(node, key_name, message)
    if receipts is None:
        return
    events = (event for receipt in plain(receipts) for event in receipt["events"])
    due = next((event["leaves_ms"] for event in events if event["kind"] == "BondAsked"), 0)
    when = f", not before {due} ms of block time and only beyond what bids and leases hold" if due else ""
    _said(receipts, output, f"asked back {credits(message.amount)}{when}")


@click.command("payout", short_help="Have the purses of open leases pay now.")
@generate_option
@from_option
@node_option
@home_option
@output_option
def payout(key_name: str, node: str, output: str) -> None:
    """Have the purses of this provider's open leases pay now what no report can take back any more."""
    from ledger.protocol.messages import Settle
    from marketplace.client import NodeClient

    address, _ = identity(key_name)
    with NodeClient(node) as client:
        open_ones = [lease for lease in client.leases(provider=address, state="unreleased") if lease["state"] != "closed"]
    purses = sorted({str(lease["deployment"]) for lease in open_ones})
    if not purses:
        say("no lease of this provider is open: nothing is to be paid")
    receipts = transact(node, key_name, *(Settle(purse=purse) for purse in purses))
    if receipts is None:
        return
    events = [event for receipt in plain(receipts) for event in receipt["events"]]
    mine = [event for event in events if event["kind"] == "MeterPaid" and event["payee"] == address]
    paid = sum(int(event["amount"]) for event in mine)
    _said(receipts, output, f"{len(purses)} purses paid {credits(paid)}")
