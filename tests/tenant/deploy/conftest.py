"""A market for the tests of a module, and a deployer with money."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tenant.deploy.flow
from marketplace.client import NodeClient
from tenant.deploy.flow import Deployer
from tests.tenant.deploy.scene import Gateway, Scene, scene


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A market with one host on offer."""
    with scene(tmp_path_factory.mktemp("market")) as found:
        found.offer()
        yield found


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """The gateway of every provider, played by the test."""
    played = Gateway()
    monkeypatch.setattr(tenant.deploy.flow, "GatewayClient", played)
    return played


@pytest.fixture
def deployer(market: Scene, tmp_path: Path) -> Iterator[Callable[[int], Deployer]]:
    """Makes a deployer with a thousand credits, of the account with that number."""
    with NodeClient(market.url) as node:

        def make(number: int) -> Deployer:
            flow = Deployer(node, number.to_bytes(32, "big"), tmp_path / "tenant")
            node.faucet(flow.owner)
            return flow

        yield make
