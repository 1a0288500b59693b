"""`gpubid keys`: the keystore."""

import sys

import click

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.home import as_address, home_option
from ledger.cli.output import describe, emit, output_option, say
from ledger.cli.unlock import ask_new_passphrase, keystore, passphrase_of, read_passphrase, unlock_key


@click.group()
def keys() -> None:
    """Make, list and keep keys."""


@keys.command("add")
@click.argument("name", default="default")
@click.option("--no-passphrase", is_flag=True, help="Keep the key unencrypted: for daemons on a machine of your own.")
@click.option("--mnemonic", is_flag=True, help="Make the key from 24 new words and show them once.")
@click.option("--recover", is_flag=True, help="Make the key from 24 words read from the terminal or standard input.")
@home_option
@output_option
def add(name: str, no_passphrase: bool, mnemonic: bool, recover: bool, output: str) -> None:
    """Make a key under NAME (`default` is what commands sign with)."""
    if mnemonic and recover:
        raise CommandFailed("--mnemonic makes new words, --recover takes old ones", Exit.USAGE, fix="give one of them")
    seed = words = None
    if mnemonic or recover:
        from ledger.mnemonic import generate, seed_of

        if recover:
            given = click.prompt("The 24 words", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
            seed = seed_of(str(given))
        else:
            words = generate()
            seed = seed_of(words)
    info = keystore().add(name, seed=seed, passphrase=None if no_passphrase else ask_new_passphrase())
    data = {"name": info.name, "address": info.address, "key": info.key_hex, "encrypted": info.encrypted}
    if words is not None:
        say(f"Write these words down; they are shown only now:\n\n  {words}\n")
    emit(output, data, text=describe(data), names=[info.name])


@keys.command("list")
@home_option
@output_option
def list_(output: str) -> None:
    """List all keys."""
    found = keystore().list()
    rows = [(k.name, k.address, "passphrase" if k.encrypted else "none") for k in found]
    data = [{"name": k.name, "address": k.address, "key": k.key_hex, "encrypted": k.encrypted} for k in found]
    emit(output, data, headers=("NAME", "ADDRESS", "PROTECTION"), rows=rows, names=[k.name for k in found])
    if not found:
        say("no keys yet: gpubid keys add")


@keys.command("show")
@click.argument("name", default="default")
@click.option("--address", "only_address", is_flag=True, help="Print the address alone.")
@home_option
@output_option
def show(name: str, only_address: bool, output: str) -> None:
    """Show address and public key of NAME; never its secret."""
    info = keystore().info(name)
    if only_address:
        click.echo(info.address)
        return
    data = {"name": info.name, "address": info.address, "key": info.key_hex, "encrypted": info.encrypted}
    emit(output, data, text=describe(data), names=[info.name])


@keys.command("passphrase")
@click.argument("name", default="default")
@click.option("--new-passphrase-file", type=click.Path(exists=True, dir_okay=False), help="File with the new passphrase.")
@home_option
def passphrase(name: str, new_passphrase_file: str | None) -> None:
    """Keep NAME under a new passphrase."""
    from pathlib import Path

    _, seed = unlock_key(name)
    if new_passphrase_file:
        new = read_passphrase(Path(new_passphrase_file))
    elif sys.stdin.isatty():
        new = str(click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True))
    else:
        raise CommandFailed("there is no terminal to ask at", Exit.USAGE, fix="give --new-passphrase-file")
    if not new:
        raise CommandFailed("the new passphrase is empty", Exit.USAGE)
    keystore().replace_passphrase(name, seed, new)
    say(f"key {name} has a new passphrase")


@keys.command("act-for", short_help="Let a key act for another account.")
@click.argument("name")
@click.argument("address")
@home_option
@output_option
def act_for(name: str, address: str, output: str) -> None:
    """Let key NAME act for the account ADDRESS, which delegated to it or was rotated to it: --from NAME is for that account then.

    The ledger decides what the key may do; an account of its own comes back with the key's own address.
    """
    as_address(address)
    info = keystore().act_for(name, passphrase_of(name), address)
    data = {"name": info.name, "address": info.address, "key": info.key_hex, "encrypted": info.encrypted}
    emit(output, data, text=describe(data), names=[info.name])


@keys.command("delete", short_help="Delete a key for good.")
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@home_option
def delete(name: str, yes: bool) -> None:
    """Delete NAME for good; without a backup its money is out of reach."""
    info = keystore().info(name)
    if not yes and not click.confirm(f"Delete key {name} ({info.address}) for good?", err=True):
        raise CommandFailed("nothing was deleted")
    keystore().delete(name)
    say(f"deleted {name}")
