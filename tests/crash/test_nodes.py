"""The whole node is killed under load over HTTP: clients that keep an outbox have everything applied exactly once."""

import random
from pathlib import Path

import pytest

from tests.crash.nodes import Rig

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_a_node_killed_under_http_load(tmp_path: Path) -> None:
    """Killed twice while clients lose answers and forget all but their outbox: nothing lost, doubled, or read too old."""
    seed = 11
    chance = random.Random(seed)
    rig = Rig(tmp_path, seed=seed)
    with rig.running() as program:
        rig.begin()
        rig.kill_under_load(program, chance.randint(20, 60))
    with rig.running() as program:
        rig.check_acknowledged()
        rig.kill_under_load(program, chance.randint(20, 60))
    with rig.running():
        rig.check_acknowledged()
        rig.finish()
    assert sum(client.forgot for client in rig.clients) > 0
