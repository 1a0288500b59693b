"""One market for the module: a node, a provider on the real engine with two simulated GPUs, and tenants."""

import itertools
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.marketplace.cli.typist import Typist
from tests.processes import Program, User, development_node, eventually, provider


class Tenant(User):
    """A user whose short questions are typed in this process, without the cost of starting a program each time."""

    QUICK = frozenset({"keys", "account", "market", "quote"})
    QUICK_LEASE = frozenset({"list", "show", "status", "close"})

    def run(self, *arguments: str, stdin: str = "", timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
        """Run `gpubid ARGUMENTS` to its end."""
        if arguments[0] in self.QUICK or (arguments[:1] == ("lease",) and arguments[1] in self.QUICK_LEASE):
            done = Typist(self.home, self.settings.get("GPUBID_NODE", "")).run(*arguments)
            return subprocess.CompletedProcess(arguments, done.returncode, done.stdout, done.stderr)
        return super().run(*arguments, stdin=stdin, timeout_s=timeout_s)


class Market:
    """A node and a provider, both processes; the provider can be killed and started again."""

    def __init__(self, folder: Path, docker_url: str, opened: ExitStack) -> None:
        self.folder = folder
        self._opened = opened
        _, self.node = self._opened.enter_context(development_node(folder))
        self.program, self.provider = self._opened.enter_context(
            provider(folder, self.node, docker_url, "--simulate-gpus", "h100:2")
        )
        self._numbers = itertools.count(1)

    def tenant(self, *, money: bool = True) -> Tenant:
        """A new user with a key and, with `money`, the faucet's credits."""
        user = Tenant(self.folder / f"tenant-{next(self._numbers)}", self.node)
        user.key()
        if money:
            user.ok("account", "faucet")
        return user

    def kill_provider(self) -> None:
        """kill -9 of the provider's daemon; its containers run on."""
        self.program.kill()

    def start_provider(self) -> None:
        """The same provider once more."""
        again = self._opened.enter_context(Program(self.program.arguments, self.program.home))
        again.line("ready ")
        self.program = again

    def until_released(self) -> None:
        """Wait until nothing is left on the host, so that the next test finds it free."""
        user = Tenant(self.folder / "looker", self.node)
        eventually(lambda: user.json("market", "leases", "--state", "unreleased") == [], "the release of all leases", 120)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory, docker_url: str, test_image: str) -> Iterator[Market]:
    """The market of the module."""
    with ExitStack() as opened:
        yield Market(tmp_path_factory.mktemp("market"), docker_url, opened)
