"""A test that leaves a connection of its event loop open fails itself, with what it left.

Otherwise the garbage collector reports the connection, some time later, at a test that has nothing to do with it.
"""

from __future__ import annotations

from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Iterator
from typing import Any

import pytest

_close = BaseSelectorEventLoop.close
_found: list[str] = []


def _close_and_look(loop: Any) -> None:
    if not loop.is_running():
        for transport in list(getattr(loop, "_transports", {}).values()):
            if (sock := transport._sock) is not None:
                _found.append(f"{sock!r} of {transport.get_protocol()!r}")
                transport._sock, transport._closing = None, True  # neither it nor its stream warns once more
                sock.close()
    _close(loop)


def take() -> list[str]:
    """What was left open since the last call, and is closed now."""
    found = _found.copy()
    _found.clear()
    return found


def pytest_configure() -> None:
    BaseSelectorEventLoop.close = _close_and_look  # type: ignore[method-assign]


def pytest_unconfigure() -> None:
    BaseSelectorEventLoop.close = _close  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[Any]:
    try:
        result = yield
    except BaseException:
        take()  # the test has failed already
        raise
    if left := take():
        pytest.fail("left open when its event loop was closed:\n" + "\n".join(left), pytrace=False)
    return result
