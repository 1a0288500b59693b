"""How a command fails: one clear line on standard error and a documented exit code.

0 ok · 1 failure · 2 usage · 3 not found · 4 not authorised · 5 conflict or insufficient funds · 6 timed out ·
7 cannot reach the node, gateway or engine · 130 interrupted. `lease exec` returns the remote command's code.
"""

import json
import os
import sys
from enum import IntEnum

from ledger.protocol.errors import Rejected


class Exit(IntEnum):
    """Exit codes, as documented."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_FOUND = 3
    FORBIDDEN = 4
    CONFLICT = 5
    TIMEOUT = 6
    UNREACHABLE = 7


class CommandFailed(Exception):
    """A command cannot do what was asked: what is wrong, and what to do about it."""

    def __init__(self, message: str, exit_code: Exit = Exit.FAILURE, *, fix: str = "", code: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.fix = fix
        self.code = code


def refused_by_system(error: OSError) -> CommandFailed:
    """What a command says where the system refuses a file or folder, or has no room for it."""
    named = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    fix = "see that the path is right, that this user may use it, and that its disk has room"
    return CommandFailed(f"{named}{error.strerror or error}", fix=fix)


def exit_of_status(status: int) -> Exit:
    """The exit code for an HTTP status; 0 is a request that could not even be made."""
    table = {0: Exit.USAGE, 401: Exit.FORBIDDEN, 403: Exit.FORBIDDEN, 404: Exit.NOT_FOUND, 402: Exit.CONFLICT, 409: Exit.CONFLICT}
    table |= {408: Exit.TIMEOUT, 504: Exit.TIMEOUT, 502: Exit.UNREACHABLE, 503: Exit.UNREACHABLE}
    return table.get(status, Exit.FAILURE)


def exit_code_of(error: Exception) -> int | None:
    """The exit code of an expected failure; None for a bug, which shows its traceback."""
    # Expected failures of other packages carry their own exit code, so that nothing is imported here for them.
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        return int(code)
    return int(Exit.FAILURE) if isinstance(error, Rejected) else None


def report(error: Exception) -> None:
    """Say on standard error what is wrong and how to mend it; as JSON where `-o json` was asked."""
    message = str(error)
    fix = str(getattr(error, "fix", "") or "")
    if any(a in ("json", "-ojson", "--output=json") for a in sys.argv) and ("-o" in sys.argv or "--output" in " ".join(sys.argv)):
        body = {"error": message, "fix": fix, "code": str(getattr(error, "code", "") or "")}
        sys.stderr.write(json.dumps(body, ensure_ascii=False) + "\n")
        return
    sys.stderr.write(f"gpubid: {message}\n")
    if fix:
        sys.stderr.write(f"  → {fix}\n")
