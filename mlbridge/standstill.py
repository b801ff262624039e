"""Dates frames that were read late because this process stood still. Pure; times in seconds."""

from __future__ import annotations

import math
from typing import Final

#: Interval at which the dispatcher calls `Standstill.on_tick`, in seconds.
TICK_EVERY_S: Final = 0.25
#: After a standstill, everything that the sockets held has been read when the loop has run for this long, in seconds.
SETTLE_S: Final = 0.1


class Standstill:
    """Estimates when a frame arrived at this process. Owned by the dispatcher.

    A frame is dated by when it is read. After a standstill (a stopped process, a starved machine) the sockets hold old
    frames. Those are dated by the last time the loop is known to have run: they seem older than they are, never
    younger.

    Args:
        now: the current time.
    """

    def __init__(self, now: float) -> None:
        self._ticked_at = now
        self._since = now
        self._until = -math.inf

    def on_tick(self, now: float) -> None:
        """Record that the loop runs. Called every `TICK_EVERY_S`."""
        if now - self._ticked_at > 2 * TICK_EVERY_S:
            self._since = self._ticked_at
            self._until = now + SETTLE_S
        self._ticked_at = now

    def came_at(self, now: float) -> float:
        """Return the earliest time at which a frame that is read now may have arrived."""
        if now - self._ticked_at > 2 * TICK_EVERY_S:
            self.on_tick(now)
        return self._since if now < self._until else now
