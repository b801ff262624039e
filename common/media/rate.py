"""Reduces frames to a rate, measures a rate, limits a rate. Pure; `now` in seconds."""

from __future__ import annotations

from collections import deque


class Sampler:
    """Selects frames of a stream, evenly, so that at most `max_fps` per second remain. One for each receiver.

    A frame up to a quarter of an interval early is selected too: otherwise a source with exactly this rate and some
    jitter would be halved. Over any period at most `max_fps` times its length plus two frames are selected.

    Args:
        max_fps: frames per second; None: all frames are selected.
    """

    __slots__ = ("_due", "_interval")

    def __init__(self, max_fps: float | None) -> None:
        self._interval = 1.0 / max_fps if max_fps else 0.0
        self._due = float("-inf")

    def set_rate(self, max_fps: float | None) -> None:
        """Change the rate. Frames that were selected before still count."""
        interval = 1.0 / max_fps if max_fps else 0.0
        self._due += interval - self._interval
        self._interval = interval

    def take(self, now: float) -> bool:
        """Return whether a frame at time `now` is selected; if so it is counted."""
        interval = self._interval
        if not interval:
            return True
        if now < self._due - interval / 4:
            return False
        due = self._due + interval
        # A late frame shortens the wait for the next ones only so much: else three could be selected in one interval.
        self._due = max(due, now + interval / 4) if due > now else now + interval
        return True

    def due_at(self) -> float:
        """Return the time from which the next frame is selected, in seconds."""
        return self._due - self._interval / 4


class RateMeter:
    """Measures events per second, such as the frame rate of a publication, over the last `MARKS` events and at most
    `window_s` seconds.

    Attributes:
        total: number of all events.
    """

    __slots__ = ("_marks", "_window_s", "total")
    MARKS = 128

    def __init__(self, window_s: float = 5.0) -> None:
        self._window_s = window_s
        self._marks: deque[float] = deque(maxlen=self.MARKS)
        self.total = 0

    def add(self, now: float) -> None:
        """Count one event."""
        self.total += 1
        self._marks.append(now)

    def rate(self, now: float) -> float:
        """Return events per second: lower when the next event is overdue, 0 with fewer than two in the window."""
        marks = self._marks
        while marks and now - marks[0] > self._window_s:
            marks.popleft()
        gaps = len(marks) - 1
        if gaps < 1 or marks[-1] <= marks[0]:
            return 0.0
        span = marks[-1] - marks[0]
        return gaps / max(span, now - marks[0] - span / gaps)


class TokenBucket:
    """Limits a rate, such as a client's messages: on average `rate` units per second, and at most `burst` at once.

    The caller drops or refuses what `take` returns False for.

    Args:
        rate: units per second.
        burst: most units at once.
        now: the current time, in seconds.
    """

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at = now

    def take(self, now: float, amount: float = 1.0) -> bool:
        """Take `amount` units. Returns False, and takes none, when there are not enough."""
        if now > self._at:
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
            self._at = now
        if amount > self._level:
            return False
        self._level -= amount
        return True
