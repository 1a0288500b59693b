"""A home on a file system that is mounted read-only: one clear line, an exit code, and nothing changed."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from marketplace.client import NodeClient
from tests.marketplace.node.serving import address
from tests.processes import Program

pytestmark = [pytest.mark.process, pytest.mark.slow]

START = ("node", "start", "--dev", "--listen", "127.0.0.1:0")
MOUNT = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'


def _namespaces() -> str:
    """Why no mount namespace can be made here; empty where one can."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return "it takes root and unshare to mount something read-only for one process"
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, text=True, timeout=60, check=False)
    return done.stderr.strip()


def _sums(home: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(home.rglob("*")) if p.is_file()}


def test_a_read_only_home(tmp_path: Path) -> None:
    """The node does not start on it, whole or only its database; mounted as before, it goes on with what was acknowledged."""
    if reason := _namespaces():
        pytest.skip(f"a read-only home is not tested: {reason}")
    home, log = tmp_path / "home", tmp_path / "log"
    with Program(START, home, log=log) as program:
        with NodeClient(program.line("ready ").split()[1]) as client:
            client.faucet(address(1))
        program.kill()
    before = _sums(home)
    for what, status, words in (
        (home, 1, "Read-only file system"),
        (home / "node" / "chain.db", 7, "readonly database"),
        (home / "node" / "lock", 1, "Read-only file system"),
    ):
        with Program(START, home, log=log, prefix=("unshare", "-m", "sh", "-c", MOUNT, str(what))) as program:
            assert program.wait() == status, program.stderr
            assert words in program.stderr
            assert "→" in program.stderr
            assert "Traceback" not in program.stderr
            assert program.stdout == ""
        if what == home:
            assert _sums(home) == before
    with Program(START, home, log=log) as program, NodeClient(program.line("ready ").split()[1]) as client:
        assert client.account(address(1))["balances"]["ucredit"] == "1000000000"
