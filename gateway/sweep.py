"""The regular check of all sockets of a gateway, some in each turn of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet
from typing import Final

from watchout.common import supervisor
from watchout.common.settings import Settings
from watchout.common.toolbox.spread import a_few_in_a_turn
from watchout.gateway.context import MovingPicture, OpenSocket

#: Longest time between two sweeps of the sockets, in seconds; shorter with a short `IDLE_TIMEOUT_S`.
SWEEP_EVERY_S: Final = 5.0
#: Sockets that are swept in one turn of the event loop: each takes 1 to 3 µs.
SOCKETS_PER_TURN: Final = 200
#: A sweep, or a turn of one, that is later than this, in seconds, means that the process did not run.
HALTED_S: Final = 1.0


class Sweep:
    """Checks every socket for silence and stalls, and collects the drop counts of sockets and MJPEG responses.

    Time in which this process itself did not run does not count as silence of the clients. `Housekeeping` runs it.

    Args:
        sockets: The open sockets.
        moving_pictures: The MJPEG responses under way.
        settings: `IDLE_TIMEOUT_S`.
    """

    def __init__(
        self, sockets: AbstractSet[OpenSocket], moving_pictures: AbstractSet[MovingPicture], settings: Settings
    ) -> None:
        self._sockets = sockets
        self._moving_pictures = moving_pictures
        self._settings = settings
        self._due_at = asyncio.get_running_loop().time() + self.every_s()

    def every_s(self) -> float:
        """Return the seconds until the next sweep."""
        return min(SWEEP_EVERY_S, self._settings.idle_timeout_s / 8)

    async def run(self) -> None:
        """Sweep all sockets that are open now and not closed meanwhile."""
        loop, guarding = asyncio.get_running_loop(), supervisor.current().guarding
        due_at, halted_s = self._due_at, 0.0
        self._due_at = loop.time() + self.every_s()
        async for few in a_few_in_a_turn(list(self._sockets), SOCKETS_PER_TURN):
            now = loop.time()
            if now - due_at > HALTED_S:  # before the sweep, or within it
                halted_s += now - due_at
            due_at = now
            for socket in few:
                if socket in self._sockets:
                    with guarding("sweep of a socket"):
                        socket.sweep(now, halted_s=halted_s)
        for moving_picture in list(self._moving_pictures):
            with guarding("sweep of a moving picture"):
                moving_picture.count_dropped()
