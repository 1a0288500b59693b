"""Opening a key for a command.

The passphrase comes from a prompt, a file or a systemd credential, never from argv or from a variable's value.
"""

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.home import home_path

if TYPE_CHECKING:
    from ledger.keystore import KeyInfo, Keystore

MAX_PASSPHRASE = 4096
"""Longest passphrase in a file, in characters."""


def keystore() -> "Keystore":
    """The keystore of the home."""
    from ledger.keystore import Keystore

    return Keystore(home_path() / "keys")


def passphrase_from_file() -> str | None:
    """The passphrase in GPUBID_PASSPHRASE_FILE, or in the systemd credential `gpubid-passphrase`; None without either."""
    named = os.environ.get("GPUBID_PASSPHRASE_FILE")
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if named:
        return read_passphrase(Path(named))
    if folder and (Path(folder) / "gpubid-passphrase").exists():
        # systemd lets the service's user read it by an access list, which shows as the group's right in the mode.
        return read_passphrase(Path(folder) / "gpubid-passphrase", others=stat.S_IWGRP | stat.S_IRWXO)
    return None


def read_passphrase(path: Path, others: int = stat.S_IRWXG | stat.S_IRWXO) -> str:
    """The passphrase in a file; CommandFailed where it cannot be read, or its mode has a right of `others`."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(MAX_PASSPHRASE + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"the passphrase file {path} cannot be read: {error}", Exit.USAGE) from None
    if mode & others:
        raise CommandFailed(f"{path} can be read by others", Exit.USAGE, fix=f"chmod 600 {path}")
    if len(text) > MAX_PASSPHRASE:
        raise CommandFailed(f"{path} is too long for a passphrase", Exit.USAGE, fix="it is one line")
    return text.rstrip("\r\n")


def ask_new_passphrase() -> str:
    """A passphrase for a new key: from the file, or asked twice at the terminal."""
    found = passphrase_from_file()
    if found is None:
        if not sys.stdin.isatty():
            raise CommandFailed(
                "a new key needs a passphrase and there is no terminal to ask at",
                Exit.USAGE,
                fix="set GPUBID_PASSPHRASE_FILE to a file with it, or give --no-passphrase on a machine that only you use",
            )
        found = click.prompt("Passphrase for the new key", hide_input=True, confirmation_prompt=True, err=True)
    if not found:
        raise CommandFailed("the passphrase is empty", Exit.USAGE, fix="give --no-passphrase if you mean a key without one")
    return str(found)


def unlock_key(name: str) -> tuple["KeyInfo", bytes]:
    """Return what may be shown of the key, and its seed (32 bytes)."""
    store = keystore()
    return store.info(name), store.unlock(name, passphrase_of(name))


def passphrase_of(name: str) -> str | None:
    """The passphrase of a key: from the file, or asked at the terminal; None for a key without one."""
    if not keystore().info(name).encrypted:
        return None
    passphrase = passphrase_from_file()
    if passphrase is None:
        if not sys.stdin.isatty():
            raise CommandFailed(
                f"key {name!r} needs its passphrase and there is no terminal to ask at",
                Exit.FORBIDDEN,
                fix="set GPUBID_PASSPHRASE_FILE to a file with it (mode 600)",
            )
        passphrase = str(click.prompt(f"Passphrase of key {name}", hide_input=True, err=True))
    return passphrase
