"""A node in process, shared by the tests of a module."""

from collections.abc import Iterator

import pytest

from tests.marketplace.node.serving import Served, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A node of a new development chain."""
    with serving(tmp_path_factory.mktemp("node")) as found:
        yield found
