"""Amounts as people type them: credits with up to six decimals, exact."""

import re

from ledger.cli.failure import CommandFailed, Exit


def micro_of(text: str) -> int:
    """Micro-units of an amount in credits such as `12` or `0.5`; CommandFailed where it is none."""
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", text):
        raise CommandFailed(f"{text!r} is not an amount", Exit.USAGE, fix="credits with up to six decimals, such as 12.5")
    whole, _, part = text.partition(".")
    return int(whole) * 1_000_000 + int(part.ljust(6, "0"))
