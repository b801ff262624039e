"""How far the peer of a connection is behind: what it has not answered yet, by time and in bytes. Pure.

Between hosts the kernels of both ends hold megabytes, so a full socket says too late that a peer is slow. The sender
puts PINGs between the frames, which the peer answers from the event loop that does its work, in turn with the frames.
"""

from __future__ import annotations

from collections import deque
from typing import Final

#: A PING goes with the next frame when none is unanswered and the last one is so old, in seconds, or when so many bytes
#: were written since.
PING_EVERY_S: Final = 0.05
PING_EVERY_BYTES: Final = 256 << 10
#: Frames wait while the oldest PING is unanswered for this time and `ROUND_TRIPS` lowest round trips, in seconds.
MAX_BEHIND_S: Final = 0.1
ROUND_TRIPS: Final = 1.5
#: Frames wait while so many bytes are unanswered; of a link with a long round trip what passes in it at `FAST_BYTES` a
#: second, between the two bounds.
MIN_UNANSWERED_BYTES: Final = 1 << 20
MAX_UNANSWERED_BYTES: Final = 8 << 20
FAST_BYTES: Final = 64 << 20
#: A peer that leaves a PING unanswered for this time is gone, in seconds.
GONE_S: Final = 5.0
#: Round trip that is assumed before the first answer, in seconds.
_ASSUMED_S: Final = 0.2
#: A longer round trip moves the lowest one by this part of the difference, so that another route is noticed.
_RISE: Final = 1 / 64


class Echoes:
    """The unanswered PINGs of one connection; `now` is in seconds, from any origin.

    Attributes:
        round_trip_s: the lowest round trip, in seconds.
        behind: whether frames have to wait, as of the last call.
    """

    __slots__ = ("_answered", "_number", "_pinged_at", "_pinged_bytes", "_unanswered", "_written", "behind",
                 "round_trip_s")  # fmt: skip

    def __init__(self) -> None:
        #: (number, time, bytes written up to it)
        self._unanswered: deque[tuple[int, float, int]] = deque()
        self._number = 0
        self._written = self._answered = 0
        self._pinged_at = float("-inf")
        self._pinged_bytes = 0
        self.round_trip_s = _ASSUMED_S
        self.behind = False

    @property
    def max_behind_s(self) -> float:
        """Seconds after which an unanswered PING makes frames wait."""
        return MAX_BEHIND_S + ROUND_TRIPS * self.round_trip_s

    @property
    def max_unanswered_bytes(self) -> int:
        """Bytes from which on frames wait for an answer."""
        return min(max(MIN_UNANSWERED_BYTES, int(FAST_BYTES * self.round_trip_s)), MAX_UNANSWERED_BYTES)

    def written(self, size: int, now: float) -> int | None:
        """A frame is written.

        Args:
            size: Its size in bytes.
            now: The time.

        Returns:
            The number of the PING to write behind it, None for none.

        """
        self._written += size
        since = self._written - self._pinged_bytes
        due = since >= PING_EVERY_BYTES or (not self._unanswered and now - self._pinged_at >= PING_EVERY_S)
        if due:
            self._number += 1
            self._pinged_at, self._pinged_bytes = now, self._written
            self._unanswered.append((self._number, now, self._written))
        if self._written - self._answered >= self.max_unanswered_bytes:
            self.behind = True
        return self._number if due else None

    def answered(self, number: int, now: float) -> None:
        """The PING of this number is answered, and with it all earlier ones. An unknown number is ignored."""
        while self._unanswered and self._unanswered[0][0] <= number:
            found, at, written = self._unanswered.popleft()
            self._answered = written
            if found == number:
                took_s = now - at
                self.round_trip_s = min(took_s, self.round_trip_s + (took_s - self.round_trip_s) * _RISE)
        self.look(now)

    def look(self, now: float) -> float | None:
        """Decide by the time whether the peer is behind.

        Args:
            now: The time.

        Returns:
            Seconds until the next look is due; None while no PING is unanswered.

        """
        late = False
        rest: float | None = None
        if self._unanswered:
            age = now - self._unanswered[0][1]
            late = age >= self.max_behind_s
            rest = GONE_S - age if late else self.max_behind_s - age
        self.behind = late or self._written - self._answered >= self.max_unanswered_bytes
        return None if rest is None else max(rest, 0.001)

    def is_gone(self, now: float) -> bool:
        """Whether the peer left a PING unanswered for `GONE_S`."""
        return bool(self._unanswered) and now - self._unanswered[0][1] >= GONE_S
