"""A pytest plugin: writes counts and the ids of failed tests to the file that GPUBID_TEST_REPORT names, as JSON."""

import json
import os
from pathlib import Path

import pytest

failed: list[str] = []
counts = {"passed": 0, "failed": 0, "skipped": 0}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note each outcome; a failing set-up or tear-down counts as a failure of its test."""
    if report.failed and report.nodeid not in failed:
        failed.append(report.nodeid)
        counts["failed"] += 1
    elif report.skipped and report.when in ("setup", "call"):
        counts["skipped"] += 1
    elif report.passed and report.when == "call":
        counts["passed"] += 1


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A module that cannot be collected fails as a whole."""
    if report.failed and report.nodeid not in failed:
        failed.append(report.nodeid)
        counts["failed"] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report once, in the process that sees every worker."""
    path = os.environ.get("GPUBID_TEST_REPORT")
    if path and not hasattr(session.config, "workerinput"):
        Path(path).write_text(json.dumps(counts | {"failed": failed}))
