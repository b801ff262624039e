"""A test that leaves a connection of its event loop open fails itself, with what it left.

Otherwise the garbage collector reports the connection, some time later, at a test that has nothing to do with it. A
connection with TLS that was closed, and still waits for its peer to close it too, is given time for that.
"""

from __future__ import annotations

import asyncio
import time
from asyncio.selector_events import BaseSelectorEventLoop
from asyncio.sslproto import SSLProtocol, SSLProtocolState
from collections.abc import Iterator
from typing import Any, Final

import pytest

#: A peer closes a connection with TLS, in seconds.
CLOSES_S: Final = 10.0
_CLOSED_HERE: Final = (SSLProtocolState.FLUSHING, SSLProtocolState.SHUTDOWN, SSLProtocolState.UNWRAPPED)

_close = BaseSelectorEventLoop.close
_found: list[str] = []


def _wait_for_peers(loop: Any) -> None:
    """Run the loop until the connections with TLS that were closed here are closed there, too."""

    def waiting() -> bool:
        protocols = [transport.get_protocol() for transport in getattr(loop, "_transports", {}).values()]
        return any(isinstance(each, SSLProtocol) and each._state in _CLOSED_HERE for each in protocols)

    until = time.monotonic() + CLOSES_S
    while waiting() and time.monotonic() < until:
        loop.run_until_complete(asyncio.sleep(0.01))


def _close_and_look(loop: Any) -> None:
    if not loop.is_running():
        if not loop.is_closed():
            _wait_for_peers(loop)
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
