"""Since when no alert of a stream is missing from the recent alerts. Pure; times in ms since the epoch.

A viewer that returns asks for the alerts since a time. The answer says whether they are all there, and it must not say
so wrongly: the recent alerts are bounded, a restarted router has none of before, and clocks are set back.
"""

from __future__ import annotations

import heapq
from typing import Final

#: Streams of which it is known until when alerts are missing; past it, those with the earliest times are forgotten,
#: and what is forgotten counts for all streams.
MAX_STREAMS: Final = 20_000
#: How far the wall clock may fall behind the monotonic one before it counts as set back, in ms.
STEP_MS: Final = 100.0


class Completeness:
    """Until when alerts of each stream are missing; part of `RecentAlerts`.

    Args:
        started_ms: When the router started: it has no alert of before.
        max_streams: Most streams that are known apart.
    """

    def __init__(self, started_ms: int, *, max_streams: int = MAX_STREAMS) -> None:
        self._max_streams = max_streams
        #: Alerts of any stream up to this time may be missing.
        self._floor = started_ms
        self._missing: dict[str, int] = {}
        #: The wall clock minus the monotonic clock, in ms; None: not read yet.
        self._offset: float | None = None

    def __len__(self) -> int:
        return len(self._missing)

    def observe(self, monotonic_s: float, now_ms: int) -> None:
        """Compare the two clocks, read at one moment; to be called before an alert is kept or asked for.

        After the wall clock was set back, alerts get times that a viewer may have seen already. So nothing is known of
        the time up to where the clock would be.
        """
        offset = now_ms - monotonic_s * 1000
        if self._offset is not None and self._offset - offset > STEP_MS:
            self._raise_floor(int(now_ms + self._offset - offset) + 1)
            self._offset = offset
        else:
            self._offset = offset if self._offset is None else max(self._offset, offset)

    def drop(self, stream: str, newest_ms: int) -> None:
        """Record that an alert is not kept any more; `newest_ms` is the latest time by which it could be asked for."""
        if newest_ms <= self.missing_until(stream):
            return
        self._missing[stream] = newest_ms
        if len(self._missing) > self._max_streams:
            for earliest in heapq.nsmallest(1 + self._max_streams // 8, self._missing, key=self._missing.__getitem__):
                self._raise_floor(self._missing.pop(earliest))

    def missing_until(self, stream: str) -> int:
        """Return the time up to which alerts of the stream may be missing."""
        return max(self._floor, self._missing.get(stream, 0))

    def covers(self, stream: str, since: int, now_ms: int) -> bool:
        """Return whether all alerts of the stream since a time are kept. Of a time to come nothing is known."""
        return self.missing_until(stream) < since <= now_ms

    def _raise_floor(self, until_ms: int) -> None:
        self._floor = max(self._floor, until_ms)
