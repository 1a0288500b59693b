"""A node with a bid, shared by the tests of a module, and a gateway on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from marketplace.client import NodeClient
from tests.marketplace.node.listening import listening
from tests.tenant.api.gateway_story import Desk, address, offer, opened


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a node whose book has one bid."""
    with listening(tmp_path_factory.mktemp("node")) as live:
        with NodeClient(live.url) as node:
            offer(node, 100)
        yield live.url


@pytest.fixture(scope="module")
def desk(market: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A gateway whose account has money."""
    with opened(market, tmp_path_factory.mktemp("tenant") / "tenant") as found:
        found.gateway.node.faucet(address(1))
        yield found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A tenant's folder of the test's own."""
    return tmp_path / "tenant"
