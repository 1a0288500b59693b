"""A user who types commands in this process: the real dispatcher, without the cost of starting a program each time."""

import contextlib
import io
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ledger.cli.dispatch import main


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


class Typist:
    """Runs commands with a home and a node of its own, and no terminal."""

    def __init__(self, home: Path, node: str = "", **settings: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GPUBID_")}
        self.environment = kept | {"GPUBID_HOME": str(home)} | ({"GPUBID_NODE": node} if node else {}) | settings

    def run(self, *arguments: str) -> Done:
        """Run `gpubid ARGUMENTS` to its end."""
        out, err = io.StringIO(), io.StringIO()
        status = 0
        with (
            patch.object(sys, "argv", ["gpubid", *arguments]),
            patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO())),
            patch.dict(os.environ, self.environment, clear=True),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main()
            except SystemExit as ended:
                status = ended.code if isinstance(ended.code, int) else 1
        return Done(status, out.getvalue(), err.getvalue())

    def ok(self, *arguments: str) -> str:
        """Run a command that must succeed; its standard output."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"gpubid {' '.join(arguments)}: {done.returncode}: {done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """Run a command that must succeed with `-o json`; what it printed."""
        return json.loads(self.ok(*arguments, "-o", "json"))

    def key(self, name: str = "default") -> str:
        """Make a key without a passphrase; its address."""
        return str(self.json("keys", "add", name, "--no-passphrase")["address"])
