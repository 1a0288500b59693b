"""A pytest plugin: plants the bug that GPUBID_TEST_PLANT names before the tests run."""

import pytest

from tests.selftest.bugs import plant_if_asked


def pytest_collection_finish(session: pytest.Session) -> None:
    """Plant it once everything is imported, so that the bug is in the product and not in the tests."""
    del session
    plant_if_asked()
