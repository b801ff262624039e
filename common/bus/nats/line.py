"""One connection to one NATS server, from the dialing to its end, and the lines that a process has besides its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from watchout.common.bus.nats.dialing import DialCallbacks, DialedClient, Dialer
from watchout.common.settings.bus_servers import BusServer

#: A task that goes on after it was cancelled is cancelled again after this time, in seconds.
CANCEL_AGAIN_S: Final = 0.3


class Line:
    """One connection to one server. `dial` makes it.

    Args:
        on_error: Called with the line and each error of the connection.
        on_leaving: Called with the line when its server is going to end.

    Attributes:
        client: The connected client.
        server: Its server.
        over: Set at the end of the connection, or when it is to be left.
        is_leaving: Whether its server is going to end.
        denied: Subjects to which the server lets nobody subscribe over it, as the server writes them.
        is_denied: Set while there are any.

    """

    client: DialedClient
    server: BusServer

    def __init__(
        self, on_error: Callable[[Line, Exception], Awaitable[None]], on_leaving: Callable[[Line], None]
    ) -> None:
        self._on_error = on_error
        self._on_leaving = on_leaving
        self.over = asyncio.Event()
        self.is_leaving = False
        self.denied: set[str] = set()
        self.is_denied = asyncio.Event()

    async def dial(self, dialer: Dialer, avoid: BusServer | None = None, *, only_here: bool = False) -> None:
        """Connect. See `Dialer.dial`, also for what is raised.

        Args:
            dialer: Connects to servers.
            avoid: The server that is tried last.
            only_here: Connect to a server on this machine or to none.

        """
        callbacks = DialCallbacks(self._failed, self._closed, self._leaving)
        self.client, self.server = await dialer.dial(callbacks, avoid, only_here=only_here)

    @property
    def is_good(self) -> bool:
        """Whether it can be used and its server is not going to end."""
        return not self.over.is_set() and not self.is_leaving

    def deny(self, subject: str) -> None:
        """Note that a subscription is denied.

        Args:
            subject: Its subject.

        """
        self.denied.add(subject)
        self.is_denied.set()

    def forgive(self) -> None:
        """Forget what is denied: nobody wants it any more."""
        self.denied.clear()
        self.is_denied.clear()

    async def _failed(self, error: Exception) -> None:
        await self._on_error(self, error)

    async def _closed(self) -> None:
        self.over.set()

    async def _leaving(self) -> None:
        if not self.is_leaving:
            self.is_leaving = True
            self._on_leaving(self)


async def cancelled(*tasks: asyncio.Task[None] | asyncio.Task[bool]) -> None:
    """Cancel tasks and wait for their ends.

    Args:
        tasks: The tasks.

    """
    left: set[asyncio.Task[None] | asyncio.Task[bool]] = set(tasks)
    while left:
        for task in left:
            task.cancel()  # again, as a library may swallow one: asyncio.wait_for does before Python 3.12
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_S)
