"""Keeps the unit tests pure: a test that starts a process fails, unless it is marked ``e2e`` or ``real``."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
_guarded = False


def _refuse(event: str, _: tuple[Any, ...]) -> None:
    if _guarded and event in STARTS:
        raise AssertionError("a unit test starts a process: mark it e2e, or move it to tests/integration")


sys.addaudithook(_refuse)


@pytest.fixture(autouse=True)
def no_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """Refuse every start of a process while a test without the marks runs."""
    global _guarded
    _guarded = not any(request.node.get_closest_marker(mark) for mark in ("e2e", "real"))
    yield
    _guarded = False
