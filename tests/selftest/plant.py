"""A pytest plugin: plants the bug that GPUBID_TEST_PLANT names before the tests run."""

import os

import pytest

from tests.selftest.bugs import all_bugs


def pytest_collection_finish(session: pytest.Session) -> None:
    """Plant it once everything is imported, so that the bug is in the product and not in the tests."""
    del session
    all_bugs()[os.environ["GPUBID_TEST_PLANT"]].plant(pytest.MonkeyPatch())
