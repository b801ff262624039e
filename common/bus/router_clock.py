"""How far the wall clock of another process is from the one here, measured by what its messages say. Pure.

Times on the bus are those of the router's clock. On one machine there is one clock, and its router says nothing; in a
cluster the hosts' clocks may be apart, and a member converts each time that it sends or receives. A router measures its
members' clocks too, for operators only.
"""

from __future__ import annotations

from collections import deque
from typing import Final

#: Measurements of which the one with the shortest way holds.
SAMPLES: Final = 8
#: Clocks that are less apart than this, in ms, count as the same: the time that messages are under way is no better.
SAME_MS: Final = 200


class RouterClock:
    """The clock of one slot's router as a member knows it; owned by its `BusClient`.

    A measurement is too low by the time that the message was under way, so the highest of the last ones holds.
    """

    def __init__(self) -> None:
        self._samples: deque[int] = deque(maxlen=SAMPLES)
        #: The router's clock minus the one here, in ms; 0 where they are the same but for `SAME_MS`.
        self.offset_ms = 0

    @property
    def apart_ms(self) -> int | None:
        """The other clock minus the one here as it was measured, in ms; None: not measured."""
        return max(self._samples, default=None)

    def restart(self) -> None:
        """Forget all measurements: the router is another one."""
        self._samples.clear()
        self.offset_ms = 0

    def observe(self, router_ms: int | None, now_ms: int) -> None:
        """Handle a time of the router that arrived just now.

        Args:
            router_ms: The router's time when it sent the message, in ms since the epoch; None: it did not say.
            now_ms: The time here.

        """
        if router_ms is not None:
            self._samples.append(router_ms - now_ms)
            apart_ms = max(self._samples)
            self.offset_ms = apart_ms if abs(apart_ms) >= SAME_MS else 0

    def to_router(self, ms: int) -> int:
        """Return the router's time for one of the clock here, both in ms since the epoch."""
        return max(0, ms + self.offset_ms)

    def to_local(self, ms: int) -> int:
        """Return the time of the clock here for one of the router, both in ms since the epoch."""
        return max(0, ms - self.offset_ms)
