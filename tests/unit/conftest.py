"""Keeps the unit tests pure: a test that starts a process fails, unless it is marked ``e2e`` or ``real``.

Those marked ``virtual_time`` run on an event loop that waits for no timer (tests/kit/virtual_time.py).
"""

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.kit.virtual_time import VirtualTimeLoop

STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
_guarded = False


def _refuse(event: str, _: tuple[Any, ...]) -> None:
    if _guarded and event in STARTS:
        raise AssertionError("a unit test starts a process: mark it e2e, or move it to tests/integration")


sys.addaudithook(_refuse)


def _guarding(item: pytest.Item) -> Iterator[Any]:
    """Refuse every start of a process meanwhile, for a test without the marks."""
    global _guarded
    _guarded = not any(item.get_closest_marker(mark) for mark in ("e2e", "real"))
    try:
        return (yield)
    finally:
        _guarded = False


# Hooks, since a fixture of every test would be set up and torn down for each of them.
pytest_runtest_setup = pytest.hookimpl(wrapper=True)(_guarding)
pytest_runtest_call = pytest.hookimpl(wrapper=True)(_guarding)


def pytest_asyncio_loop_factories(
    config: pytest.Config,
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loop of a test, for pytest-asyncio."""
    if item.get_closest_marker("virtual_time"):
        return {"virtual time": VirtualTimeLoop}
    return {"real time": asyncio.new_event_loop}
