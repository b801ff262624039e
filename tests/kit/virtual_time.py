"""An event loop whose clock jumps to the next timer: a test of timers in memory takes no longer than its work.

`asyncio.sleep(30)` returns at once, with the loop's clock 30 s later, as soon as nothing else is to be done; so such a
test waits for nothing on a busy machine either. What reads another clock (`time.monotonic`, the wall clock) does not
belong on it, nor do sockets and threads, for which real time passes.

Tests use it with the mark ``virtual_time`` (tests/unit/conftest.py).
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Final

#: What the clock shows at first, in seconds.
START_S: Final = 1000.0


class _Selector(selectors.DefaultSelector):
    """Lets the time of a loop pass where the loop would wait for its next timer."""

    now = START_S

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout is not None and timeout > 0:
            self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The event loop."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        """Return the seconds of this loop's clock, which begins with `START_S`."""
        return self._clock.now

    def stand_still(self, seconds: float) -> None:
        """Let time pass in which the process does nothing."""
        self._clock.now += seconds
