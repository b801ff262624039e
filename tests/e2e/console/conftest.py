"""The fixtures of the tests of the console: a running watchout, a new user, cameras, and tabs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tests.e2e.console.support import Cameras
from tests.kit.clients import Clients, new_name
from tests.kit.console import console_tab
from tests.kit.processes import Process, Watchout, running


@pytest.fixture(scope="module")
def started() -> Iterator[Watchout]:
    """A watchout without an ML service, for the whole module. Its processes are not ended."""
    with running() as made:
        yield made


@pytest.fixture
def user(started: Watchout) -> str:
    """A token of a user of this test alone, who has no stream yet."""
    return started.token(new_name("ann"))


@pytest.fixture
async def cameras(clients: Clients, started: Watchout, user: str) -> AsyncIterator[Cameras]:
    made = Cameras(clients, started.url, user)
    yield made
    await made.close()


@pytest.fixture
def tabs(console_browser: Process, started: Watchout) -> Callable[..., Any]:
    """Open the console: `tabs("#/live", token)`; the page must not complain until the end of the block."""

    def open_tab(fragment: str = "", token: str | None = None, **screen: Any) -> Any:
        sign = "" if token is None else f"{'&' if '?' in fragment else '?'}token={token}"
        return console_tab(console_browser, f"{started.url}/{(fragment or '#/live') + sign}", **screen)

    return open_tab
