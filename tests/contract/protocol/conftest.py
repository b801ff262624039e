"""Watchouts and users of the tests of PROTOCOL.md, on both event loops unless a file says why one is enough."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.protocol.support import STATS_TOKEN
from tests.kit.clients import new_name
from tests.kit.processes import Watchout, bad_lines, running


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def watchout_loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def strict_watchout(watchout_loop: str) -> Iterator[Watchout]:
    """One with every limit of sizes and numbers near, other rights, and the stats behind a token."""
    environ = {
        "AUTH_TIMEOUT_S": "60",
        "HANDSHAKE_TIMEOUT_S": "60",
        "MAX_MESSAGE_BYTES": "65536",
        "MESSAGE_RATE": "50",
        "BYTE_RATE": "50000",
        "ABUSE_LIMIT": "10",
        "ALERT_QUEUE_MESSAGES": "20",
        "MAX_CONNECTIONS_PER_USER": "5",
        "MAX_CONNECTIONS_PER_ADDRESS": "30",
        "STREAM_ACCESS": "authenticated",
        "STATS_TOKEN": STATS_TOKEN,
        "SERVICE_TOKEN": "",
    }
    with running(loop=watchout_loop, environ=environ) as started:
        yield started


@pytest.fixture(scope="module")
def hasty_watchout(watchout_loop: str) -> Iterator[Watchout]:
    """One that waits for nobody: a client that must not be late for it sends all in one write."""
    with running(loop=watchout_loop, environ={"AUTH_TIMEOUT_S": "1", "HANDSHAKE_TIMEOUT_S": "1"}) as started:
        yield started


@pytest.fixture
def url(plain_watchout: Watchout) -> Iterator[str]:
    """Of the plain one; the test that made it print a fault is the one that fails."""
    before = len(plain_watchout.output)
    yield plain_watchout.url
    said = plain_watchout.output[before:]
    assert not bad_lines(said), said


@pytest.fixture
def alice(plain_watchout: Watchout) -> str:
    """The token of a user of this test."""
    return plain_watchout.token(new_name("alice"))


@pytest.fixture
def bob(plain_watchout: Watchout) -> str:
    """The token of another user."""
    return plain_watchout.token(new_name("bob"))


@pytest.fixture
def strict_user(strict_watchout: Watchout) -> str:
    return strict_watchout.token(new_name("carol"))
