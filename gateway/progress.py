"""Whether a reader takes what is sent to it: progress counts, not age, but none may be so slow that it never ends.

Pure. `now` in seconds; `taken` counts the bytes that the reader has taken so far, in any unit that only rises.
"""

from __future__ import annotations

from collections import deque
from typing import Final

#: The least rate, over a time in which something waited all along: the rule of messages to us (`MESSAGE_TIMEOUT`).
LEAST_BYTES_PER_S: Final = 1000
OVER_S: Final = 120.0


class Progress:
    """One reader. `stalled_s`: who takes nothing at all for so long, while something waits, has gone."""

    def __init__(self, stalled_s: float, taken: int, now: float) -> None:
        self._stalled_s = stalled_s
        self._taken = taken
        self._moved_at = now
        self._looks = deque([(now, taken)])

    def goes_on(self, taken: int, now: float, *, waiting: bool) -> bool:
        """Look again, every few seconds; False: the reader is to be cut off."""
        if not waiting:
            self._looks.clear()
        if taken > self._taken or not waiting:
            self._taken, self._moved_at = taken, now
        if now - self._moved_at >= self._stalled_s:
            return False
        self._looks.append((now, taken))
        while len(self._looks) > 1 and now - self._looks[1][0] >= OVER_S:
            self._looks.popleft()
        since, had = self._looks[0]
        return now - since < OVER_S or taken - had >= LEAST_BYTES_PER_S * OVER_S
