"""A watchout on both event loops, a token and sockets for the tests of RFC 6455.

What bytes mean is decided by the same code on both loops, how they come and go is not: the files about the first run
on one of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.rfc6455.support import SUBSCRIBE
from tests.kit.clients import Clients, RawSocket
from tests.kit.processes import Watchout


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def watchout_loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def token(plain_watchout: Watchout) -> str:
    return plain_watchout.token("autobahn")


@pytest.fixture
def url(plain_watchout: Watchout) -> Iterator[str]:
    """Of the plain one; the test that made the gateway print a fault is the one that fails."""
    with plain_watchout.without_faults():
        yield plain_watchout.url


@pytest.fixture
async def socket(url: str, token: str, clients: Clients) -> RawSocket:
    """A viewer's connection, authenticated."""
    raw = await clients.raw(url)
    await raw.upgrade(f"{SUBSCRIBE}?token={token}")
    await raw.sign_in(token)
    return raw
