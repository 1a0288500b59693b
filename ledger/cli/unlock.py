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


def keystore() -> "Keystore":
    """The keystore of the home."""
    from ledger.keystore import Keystore

    return Keystore(home_path() / "keys")


def passphrase_from_file() -> str | None:
    """The passphrase in GPUBID_PASSPHRASE_FILE, or in the systemd credential `gpubid-passphrase`; None without either."""
    named = os.environ.get("GPUBID_PASSPHRASE_FILE")
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if named:
        path = Path(named)
    elif folder and (Path(folder) / "gpubid-passphrase").exists():
        path = Path(folder) / "gpubid-passphrase"
    else:
        return None
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"the passphrase file {path} cannot be read: {error}", Exit.USAGE) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise CommandFailed(f"{path} can be read by others", Exit.USAGE, fix=f"chmod 600 {path}")
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
    info = store.info(name)
    if not info.encrypted:
        return info, store.unlock(name, None)
    passphrase = passphrase_from_file()
    if passphrase is None:
        if not sys.stdin.isatty():
            raise CommandFailed(
                f"key {name!r} needs its passphrase and there is no terminal to ask at",
                Exit.FORBIDDEN,
                fix="set GPUBID_PASSPHRASE_FILE to a file with it (mode 600)",
            )
        passphrase = str(click.prompt(f"Passphrase of key {name}", hide_input=True, err=True))
    return info, store.unlock(name, passphrase)
