"""Small clocks without a clock: sampling to a rate, measuring a rate, limiting a rate. Pure; `now` in seconds."""

from __future__ import annotations

from collections import deque


class Sampler:
    """Lets through at most `max_fps` of a stream of frames, evenly; None lets all through.

    A frame that comes up to a quarter of an interval early is let through, so that a source with jitter at the very
    rate is not halved; over any time the count stays within `max_fps` times the time, plus two.
    """

    __slots__ = ("_due", "_interval")

    def __init__(self, max_fps: float | None) -> None:
        self._interval = 1.0 / max_fps if max_fps else 0.0
        self._due = float("-inf")

    def set_rate(self, max_fps: float | None) -> None:
        """Change the rate; what was already let through still counts."""
        interval = 1.0 / max_fps if max_fps else 0.0
        self._due += interval - self._interval
        self._interval = interval

    def take(self, now: float) -> bool:
        """Whether the frame that is here now goes on; if so it is counted."""
        interval = self._interval
        if not interval:
            return True
        if now < self._due - interval / 4:
            return False
        due = self._due + interval
        # What a late frame leaves for its followers to make up is bounded, or three could come in less than one turn.
        self._due = max(due, now + interval / 4) if due > now else now + interval
        return True

    def due_at(self) -> float:
        """When the next frame may go on."""
        return self._due - self._interval / 4


class RateMeter:
    """Events per second of late: over the last `MARKS` events, and over no more than `window_s` seconds."""

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
        """Events per second; falls as the next event is overdue, 0 with fewer than two events in the window."""
        marks = self._marks
        while marks and now - marks[0] > self._window_s:
            marks.popleft()
        gaps = len(marks) - 1
        if gaps < 1 or marks[-1] <= marks[0]:
            return 0.0
        span = marks[-1] - marks[0]
        return gaps / max(span, now - marks[0] - span / gaps)


class TokenBucket:
    """Allows `rate` per second on the long run and `burst` at once."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at = now

    def take(self, now: float, amount: float = 1.0) -> bool:
        """Whether `amount` is allowed now; if so it is taken."""
        if now > self._at:
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
            self._at = now
        if amount > self._level:
            return False
        self._level -= amount
        return True
