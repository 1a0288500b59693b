"""`gpubid tenant serve` as a process: how it starts, what keeps it from starting, how it ends."""

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.marketplace.cli.typist import Typist
from tests.marketplace.node.listening import listening
from tests.processes import Program

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a node of a new development chain."""
    with listening(tmp_path_factory.mktemp("node")) as live:
        yield live.url


def _serve(home: Path, node: str, *arguments: str) -> Program:
    return Program(["tenant", "serve", "--node", node, "--listen", "127.0.0.1:0", *arguments], home)


def test_it_starts_serves_and_ends(node: str, tmp_path: Path) -> None:
    """It makes a key that only its owner reads, keeps it, serves with it alone, and leaves with 0 on either signal."""
    home = tmp_path / "home"
    owner = Typist(home, node).key()
    keys = []
    for number in (signal.SIGTERM, signal.SIGINT):
        with _serve(home, node) as program:
            ready = program.line("ready ").split()
            assert ready[2:] == ["owner", owner]
            path = home / "tenant" / "api.key"
            assert path.stat().st_mode & 0o777 == 0o600
            assert str(path) in program.stderr
            keys.append(path.read_text().strip())
            assert keys[0] not in program.stderr + program.stdout
            headers = {"authorization": f"Bearer {keys[-1]}"}
            assert httpx.get(f"{ready[1]}/v1/deployments", headers=headers, timeout=60).json() == {"items": [], "next": None}
            assert httpx.get(f"{ready[1]}/v1/deployments", timeout=60).status_code == 401
            assert httpx.get(f"{ready[1]}/readyz", timeout=60).status_code == 200
            assert program.stop(number) == 0, program.stderr
            assert "Traceback" not in program.stderr
    assert keys[0] == keys[1]


def test_what_keeps_it_from_starting(node: str, tmp_path: Path) -> None:
    """A second one on the home, a taken port, an open address, no key, a key file that others read: each says what to do."""
    home = tmp_path / "home"
    user = Typist(home, node)
    nobody = user.run("tenant", "serve", "--listen", "127.0.0.1:0")
    assert nobody.returncode == 3
    assert "gpubid keys add" in nobody.stderr
    user.key()
    with _serve(home, node) as program:
        address = program.line("ready ").split()[1].removeprefix("http://")
        second = user.run("tenant", "serve", "--listen", "127.0.0.1:0")
        assert second.returncode == 5
        assert "another gateway" in second.stderr
        other = Typist(tmp_path / "other", node)
        other.key()
        taken = other.run("tenant", "serve", "--listen", address)
        assert taken.returncode == 5
        assert "taken" in taken.stderr
    for listen in ("0.0.0.0:0", "nonsense", "127.0.0.1:99999"):
        refused = user.run("tenant", "serve", "--listen", listen)
        assert refused.returncode == 2, refused.stderr
        assert "→" in refused.stderr
    (home / "tenant" / "api.key").chmod(0o644)
    readable = user.run("tenant", "serve", "--listen", "127.0.0.1:0")
    assert readable.returncode == 1
    assert "chmod 600" in readable.stderr


def test_it_starts_without_a_node(tmp_path: Path) -> None:
    """Without a node it is alive but not ready, and says so on every route that needs one."""
    home = tmp_path / "home"
    Typist(home).key()
    with _serve(home, "http://127.0.0.1:1") as program:
        url = program.line("ready ").split()[1]
        headers = {"authorization": f"Bearer {(home / 'tenant' / 'api.key').read_text().strip()}"}
        assert httpx.get(f"{url}/healthz", timeout=60).status_code == 200
        for path in ("/readyz", "/v1/deployments", "/v1/leases"):
            answer = httpx.get(url + path, headers=headers, timeout=60)
            assert answer.status_code == 503
            assert answer.json()["fix"]
            assert answer.headers["retry-after"]
