"""Where a user's files are, and the settings that every command takes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from ledger.cli.failure import CommandFailed, Exit

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_NODE: Final = "http://127.0.0.1:8080"


def home_path() -> Path:
    """`GPUBID_HOME`, or the user's data folder; made with mode 0700 where it is missing."""
    named = os.environ.get("GPUBID_HOME")
    if named:
        path = Path(named)
    else:
        import platformdirs

        path = Path(platformdirs.user_data_dir("gpubid"))
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def as_address(text: str) -> str:
    """The address of an account as it was typed; CommandFailed where it is none."""
    from ledger.protocol.errors import Rejected
    from ledger.protocol.keys import check_address

    try:
        check_address(text)
    except Rejected as refusal:
        said = refusal.detail.removeprefix(f"{text!r}: ")
        fix = "it begins with gpu1; gpubid keys show prints yours"
        raise CommandFailed(f"{text!r} is no address: {said}", Exit.USAGE, fix=fix) from None
    return text


def home_option(function: F) -> F:
    """Add `--home`, which sets GPUBID_HOME for the rest of the command; adds no parameter."""

    def keep(_ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
        if value:
            os.environ["GPUBID_HOME"] = value

    return click.option(
        "--home",
        type=click.Path(file_okay=False),
        expose_value=False,
        is_eager=True,
        callback=keep,
        help="Folder of keys and data.  [env: GPUBID_HOME]",
    )(function)


def node_option(function: F) -> F:
    """Add `--node URL` as parameter `node`."""
    return click.option("--node", envvar="GPUBID_NODE", default=DEFAULT_NODE, show_default=True, help="URL of the node.")(
        function
    )


def from_option(function: F) -> F:
    """Add `--from KEY` as parameter `key_name`: the key that signs, by its name in the keystore."""
    return click.option(
        "--from",
        "key_name",
        envvar="GPUBID_FROM",
        default="default",
        show_default=True,
        help="Name of the key that signs.",
    )(function)
