"""An event loop whose clock jumps to the next timer: a test of timers in memory takes no longer than its work.

`asyncio.sleep(30)` returns at once, with the loop's clock 30 s later, as soon as nothing else is to be done; so such a
test waits for nothing on a busy machine either. What reads another clock (`time.monotonic`, the wall clock) does not
belong on it, nor do sockets and threads, for which real time passes.

Tests use it with the mark ``virtual_time`` (tests/unit/conftest.py).
"""

from __future__ import annotations

import asyncio
import selectors


class _Selector(selectors.DefaultSelector):
    """Returns at once where the loop would wait for its next timer; `skipped_s` is what was not waited for."""

    skipped_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout is not None and timeout > 0:
            self.skipped_s += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The event loop."""

    def __init__(self) -> None:
        self._skipping = _Selector()
        super().__init__(self._skipping)

    def time(self) -> float:
        """Return the seconds of this loop's clock: those of the real one, and what was not waited for."""
        return super().time() + self._skipping.skipped_s
