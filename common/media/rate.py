"""Reduces frames to a rate, measures a rate, limits a rate. Pure; `now` in seconds."""

from __future__ import annotations

from collections import deque


class Sampler:
    """Selects frames of a stream, evenly, so that at most `max_fps` per second remain. One for each receiver.

    A frame up to a quarter of an interval early is selected too: otherwise a source with exactly this rate and some
    jitter would be halved. Over any period at most `max_fps` times its length plus two frames are selected.

    A frame that is not selected may wait for its turn, so that the last one of a burst is not lost: the caller calls
    `hold`, and selects it with `take` at `release_at` if no later frame was selected before. That is within an interval
    after the frame, and late enough that a steady stream selects its frames as they come, and none of those that wait.

    Args:
        max_fps: frames per second; None: all frames are selected.
    """

    __slots__ = ("_came", "_due", "_due_before", "_hold_until", "_interval")

    def __init__(self, max_fps: float | None) -> None:
        self._interval = 1.0 / max_fps if max_fps else 0.0
        self._due = self._due_before = float("-inf")
        #: When the last frame came that was selected or held.
        self._came = self._hold_until = float("-inf")

    def set_rate(self, max_fps: float | None) -> None:
        """Change the rate. Frames that were selected before still count."""
        interval = 1.0 / max_fps if max_fps else 0.0
        self._due += interval - self._interval
        self._interval = interval
        self._hold_until = min(self._hold_until, self._came + interval)

    def take(self, now: float) -> bool:
        """Return whether a frame at time `now` is selected; if so it is counted."""
        interval = self._interval
        if not interval:
            return True
        if now < self._due - interval / 4:
            return False
        self._came, self._due_before = now, self._due
        due = self._due + interval
        # A late frame shortens the wait for the next ones only so much: else three could be selected in one interval.
        self._due = max(due, now + interval / 4) if due > now else now + interval
        return True

    def give_back(self) -> None:
        """Count the frame that was selected last as not selected: its receiver cannot have it."""
        self._due = self._due_before

    def due_at(self) -> float:
        """Return the time from which the next frame is selected, in seconds."""
        return self._due - self._interval / 4

    def hold(self, now: float) -> None:
        """Note that the frame that came at `now` waits for its turn: `take` would not select it yet."""
        # The next frame of a steady stream comes after such a gap again. If it does not in twice the time, none comes.
        self._hold_until = now + min(2 * (now - self._came), self._interval)
        self._came = now

    def release_at(self) -> float:
        """Return the time from which the frame that waits is to be selected if no later one comes, in seconds.

        It is never before `due_at`, and at most an interval after the call of `hold`.
        """
        return max(self._due - self._interval / 4, self._hold_until)


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
