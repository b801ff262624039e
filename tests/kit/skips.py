"""In CI a test that is skipped has failed: what it needs is missing there, and nobody would notice.

Two kinds of skips are exempt: what the machine does not permit (`tests.kit.services.not_permitted`), and what another
target of the Makefile runs (`of_target`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final

import pytest

NOT_PERMITTED: Final = "not permitted here: "
_OF_TARGET: Final = "a run of its own: make "


def of_target(name: str) -> str:
    """The reason to skip what only the target `name` of the Makefile runs."""
    return _OF_TARGET + name


def is_exempt(reason: str) -> bool:
    """Whether a test may be skipped in CI for this reason."""
    return reason.removeprefix("Skipped: ").startswith((NOT_PERMITTED, _OF_TARGET))


def in_ci(report: Any) -> Any:
    """The report of a test or of a file's collection, as it counts in CI."""
    if report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        # The place and the reason.
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not is_exempt(reason):
            report.outcome = "failed"
            report.longrepr = f"{report.nodeid}: skipped, which is a failure in CI: {reason.removeprefix('Skipped: ')}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[Any]:
    report = yield
    return in_ci(report) if os.environ.get("CI") else report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[Any]:
    report = yield
    return in_ci(report) if os.environ.get("CI") else report
