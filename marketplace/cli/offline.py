"""Transactions for a key that is kept elsewhere: written here unsigned, in order, to be signed on a machine without a network."""

import re
import secrets
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.home import as_address
from ledger.cli.unlock import keystore

if TYPE_CHECKING:
    from ledger.protocol.messages import Message
    from ledger.protocol.transaction import Transaction

F = TypeVar("F", bound=Callable[..., Any])

_META = "gpubid.offline."


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    if value:
        ctx.meta[f"{_META}{param.name}"] = value
    return value


def _asked(name: str) -> Any:
    return click.get_current_context().meta.get(_META + name)


def signer_options(function: F) -> F:
    """Add `--signer` and `--principal`, which say who signs where that is no key of this home; add no parameters."""
    for option in (
        click.option(
            "--principal", expose_value=False, callback=_keep, help="Address that it acts for; the account of the key by default."
        ),
        click.option(
            "--signer", expose_value=False, callback=_keep, help="Public key in hex that will sign, where it is not in this home."
        ),
    ):
        function = option(function)
    return function


def generate_option(function: F) -> F:
    """Add `--generate-only` and what belongs to it; adds no parameters. `generating` tells whether it was given."""
    for option in (
        click.option(
            "--chain-id", expose_value=False, callback=_keep,
            help="With --generate-only: name of the chain; asked of the node by default.",
        ),
        click.option(
            "--sequence", type=click.IntRange(1), expose_value=False, callback=_keep,
            help="With --generate-only: sequence of the account, one more for each that waits; asked of the node by default.",
        ),
    ):  # fmt: skip
        function = option(function)
    function = signer_options(function)
    return click.option(
        "--generate-only", is_flag=True, expose_value=False, callback=_keep,
        help="Print the unsigned transaction, for gpubid tx sign and gpubid tx send; send nothing.",
    )(function)  # fmt: skip


def generating() -> bool:
    """Whether the command is only to print an unsigned transaction."""
    return bool(_asked("generate_only"))


def identity(key_name: str) -> tuple[str, str]:
    """(account, key in hex) of who signs: a key of this home, or the one that `--signer` names."""
    signer, principal = _asked("signer"), _asked("principal")
    if principal is not None:
        as_address(principal)
    if signer is None:
        info = keystore().info(key_name)
        return principal or info.address, info.key_hex
    if not re.fullmatch(r"[0-9a-f]{64}", signer):
        raise CommandFailed("--signer is no public key", Exit.USAGE, fix="it is 64 hex digits: gpubid keys show, on its machine")
    from ledger.protocol.keys import address_of

    return principal or address_of(bytes.fromhex(signer)), signer


def without_node() -> bool:
    """Whether all that an unsigned transaction needs of a node was given, so that none is asked."""
    return generating() and None not in (_asked("sequence"), _asked("chain_id"))


def chain_of(node: str) -> tuple[str, int]:
    """(chain, time now in ms) that a message is made for: the chain that was named and our own clock, or as the node says."""
    named = _asked("chain_id")
    if named:
        return str(named), time.time_ns() // 1_000_000
    from marketplace.client import NodeClient

    with NodeClient(node) as client:
        return client.chain()


def ordered(node: str, key_name: str, batches: "Sequence[Sequence[Message]]") -> "list[Transaction]":
    """Unsigned transactions with the account's next sequences (or from the one asked for) and no expiry."""
    return unsigned(node, identity(key_name), batches, sequence=_asked("sequence"), chain_id=_asked("chain_id"))


def unsigned(
    node: str,
    who: tuple[str, str],
    batches: "Sequence[Sequence[Message]]",
    *,
    sequence: int | None = None,
    chain_id: str | None = None,
    valid_s: int = 0,
) -> "list[Transaction]":
    """Unsigned transactions, one for each batch of messages: with `valid_s` online ones, otherwise in order from `sequence`.

    What is not given (chain, sequence, time) is asked of the node.
    """
    from ledger.protocol.transaction import Transaction

    principal, signer = who
    time_ms = 0
    if valid_s or chain_id is None or sequence is None:
        from marketplace.client import NodeClient

        with NodeClient(node) as client:
            found, time_ms = client.chain()
            chain_id = chain_id or found
            if not valid_s and sequence is None:
                sequence = int(client.account(principal)["sequence"]) + 1
    return [
        Transaction(
            chain_id=chain_id,
            messages=tuple(messages),
            nonce=secrets.token_hex(16) if valid_s else "",
            principal=principal,
            sequence=0 if valid_s else (sequence or 0) + at,
            signer=signer,
            valid_until=time_ms + valid_s * 1000 if valid_s else 0,
        )
        for at, messages in enumerate(batches)
    ]
