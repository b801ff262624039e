import gc
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from tests.kit import accepting
from tests.kit.examples import apply_profile

accepting.install()

pytest_plugins = [
    "pytester",
    "tests.kit.left_open",
    "tests.kit.skips",
    "tests.kit.tiers",
    "tests.kit.schedule",
    "tests.kit.rewriting",
    "tests.kit.services",
    "tests.kit.brokers",
    "tests.kit.nats_servers",
    "tests.kit.prefork",
    "tests.kit.processes",
    "tests.kit.clients",
    "tests.kit.one_process",
    "tests.kit.browser",
    "tests.kit.js_sdk",
    "tests.kit.console",
]

#: Fixtures that start processes: every test that uses one is marked ``e2e`` and is not part of ``make test-fast``.
PROCESS_FIXTURES = {
    "watchout", "plain_watchout", "browser_process", "console_browser_process", "start_postgres", "start_better_auth",
    "start_broker", "start_nats",
}  # fmt: skip


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    apply_profile(items, config.getoption("--hypothesis-profile") or "full")
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        starts_tool = "ctl" in item.path.parts and "start" in names  # tests.kit.ctl_command
        if starts_tool or PROCESS_FIXTURES & names:
            item.add_marker(pytest.mark.e2e)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Iterator[Any]:
    """Collect without the garbage collector, and leave what was collected out of its searches.

    Some 300,000 objects live until the end of the run: a full collection looked at each of them, again and again, and
    so did each `gc.collect()` of a test.
    """
    gc.disable()
    try:
        result = yield
    finally:
        gc.enable()
    gc.freeze()
    # Of what tests leave little is garbage: a full collection comes a fifth as often.
    gc.set_threshold(*gc.get_threshold()[:2], 50)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Iterator[Any]:
    """Report a failure without the garbage collector.

    The report parses source code. A finalizer that parses meanwhile raises SystemError in CPython 3.11, and an error in
    a report ends the whole run.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return (yield)
    finally:
        if was_enabled:
            gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[Any]:
    """Give logging back as it was: a command of `watchout-ctl` that runs in this process sets it up for itself."""
    config = structlog.get_config()
    result = yield
    structlog.configure(**config)
    return result
