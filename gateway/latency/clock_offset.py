"""Estimates how far a camera's clock is from the one here, from frames and round trips, within a bound. Pure.

Two facts hold whatever the network does. A frame was stamped before it arrived: the camera's clock is ahead by at least
stamp minus arrival, and the frame that was fastest says most. And a frame that the camera sent after it had read
something from here was stamped, if at sending, after that had left here: this bounds the clock from above. The estimate
lies between the two bounds, where half of the shortest round trip puts it.

Both bounds widen with time, because two clocks never run at quite the same speed.

The clock here is a monotonic one, so that setting the clock of this machine disturbs nothing.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

#: Two clocks drift apart by at most this share: 200 ms in 1000 s. Those of phones stay within 100 ppm.
MAX_DRIFT: Final = 200e-6
#: Stamps are looked at over this time, in ms, before they count as those of a clock.
RUN_MS: Final = 1_000.0
#: Stamps that advance less than this share of the time are not those of a clock.
LEAST_RATE: Final = 0.05
#: The bounds of this time, in ms, and of the one before it are used; older ones are forgotten.
WINDOW_MS: Final = 60_000.0
#: A clock that jumps by less, in ms, is not told from frames that were held back for different times.
LEAST_STEP_MS: Final = 1_000.0
#: A stamp may lie this long before the frame is sent, in ms; more, and it is not the time of the capture.
MAX_HELD_MS: Final = 60_000.0
#: A clock that is set so often within this time, in ms, is none.
MAX_STEPS: Final = 3
STEPS_WITHIN_MS: Final = 60_000.0
#: The drift is told after this time, in ms.
DRIFT_AFTER_MS: Final = 60_000.0

NO_ROUND_TRIP: Final = "no round trip with the camera was seen yet that fits the timestamps of its frames"
NOT_RUNNING: Final = "the timestamps of its frames do not run like a clock"
TOO_SHORT: Final = "its frames have been seen for less than a second"


class ClockEstimate(NamedTuple):
    """The camera's clock minus the one here.

    Attributes:
        offset_ms: the estimate, in ms.
        error_ms: the true one is within this distance of it, for a camera that stamps a frame when it sends it. One
            that stamps earlier has frames that are older by the least time which it always needs between the two.
    """

    offset_ms: float
    error_ms: float


class _Window:
    """The bounds that one window of time gave: each the best one, with the time at which it held."""

    __slots__ = ("began", "low", "low_at", "round_trip", "up", "up_at")

    def __init__(self, began: float) -> None:
        self.began = began
        self.low, self.low_at = -math.inf, began
        self.up, self.up_at = math.inf, began
        self.round_trip = math.inf


class ClockOffset:
    """The estimate for one camera. `CameraClock` feeds it with sampled frames and pongs.

    Times are in ms: stamps by the camera's clock, all others by a monotonic clock here, and rising from call to call.

    Attributes:
        steps: how often the camera's clock was set, as far as that was seen.
    """

    __slots__ = ("_drift_from", "_reference", "_runs", "_stamp", "_step_times", "_windows", "steps")

    def __init__(self) -> None:
        #: The present window and the one before it.
        self._windows: list[_Window] = []
        self._stamp: int | None = None
        #: Stamp and arrival by which the rate of the stamps is judged, and the judgement; None: not yet.
        self._reference: tuple[int, float] | None = None
        self._runs: bool | None = None
        self._step_times: list[float] = []
        self._drift_from: tuple[float, ClockEstimate] | None = None
        self.steps = 0

    def on_round_trip(self, sent: float, now: float) -> None:
        """Handle the pong of a ping that was sent at `sent`."""
        window = self._window(now)
        window.round_trip = min(window.round_trip, now - sent)

    def on_frame(self, stamp: int, arrived: float, answers: float | None = None) -> None:
        """Handle a frame.

        Args:
            stamp: its timestamp.
            arrived: when its first bytes came.
            answers: when something left here that the camera had read before it sent this frame; None: not known.
        """
        self._judge_rate(stamp, arrived)
        if self._stamp is not None and stamp <= self._stamp - LEAST_STEP_MS:
            self._on_step(arrived)  # it was set back: frames are sent in the order of their capture
        self._stamp = stamp
        window, low = self._window(arrived), float(stamp) - arrived
        if low >= window.low - (arrived - window.low_at) * MAX_DRIFT:
            window.low, window.low_at = low, arrived
        bound = self._low(arrived)
        ahead = bound - self._up(arrived)
        if ahead > LEAST_STEP_MS or (answers is not None and bound - (stamp - answers) > MAX_HELD_MS):
            self._on_step(arrived)  # it was set ahead, or back by more than any frame is held
            window = self._window(arrived)
            bound = window.low = low
        elif ahead > 0:  # it holds frames back for different times: the bound was of one that was held for longer
            for each in self._windows:
                each.up = math.inf
        if answers is not None:
            up = bound + (arrived - answers) + 1.0  # a stamp in whole ms is up to one too early
            if up <= window.up + (arrived - window.up_at) * MAX_DRIFT:
                window.up, window.up_at = up, arrived

    def estimate(self, now: float) -> ClockEstimate | None:
        """Return the estimate at this time; None: there is none, and `unknown` says why."""
        low, up = self._low(now), self._up(now)
        if self._why_unknown(now, up):
            return None
        shortest = up - low
        for window in self._windows:
            if window.round_trip < shortest:
                shortest = window.round_trip
        offset = low + shortest / 2
        return ClockEstimate(offset, max(offset - low, up - offset))

    def unknown(self, now: float) -> str:
        """Return why there is no estimate; empty when there is one."""
        return self._why_unknown(now, self._up(now))

    def _why_unknown(self, now: float, up: float) -> str:
        if self._runs is None:
            return TOO_SHORT
        if not self._runs or self._steps_lately(now) >= MAX_STEPS:
            return NOT_RUNNING
        return NO_ROUND_TRIP if up == math.inf else ""

    def drift(self, now: float, found: ClockEstimate | None) -> tuple[float, float] | None:
        """Return by how much the camera's clock runs faster, in ppm, and the error of that; None: not known yet.

        `found` is the estimate at `now`.
        """
        if found is None:
            return None
        if self._drift_from is None:
            self._drift_from = now, found
            return None
        at, first = self._drift_from
        if now - at < DRIFT_AFTER_MS:
            return None
        return (
            (found.offset_ms - first.offset_ms) / (now - at) * 1e6,
            (found.error_ms + first.error_ms) / (now - at) * 1e6,
        )

    def _window(self, now: float) -> _Window:
        """Return the present window, after a new one has begun if it was over."""
        windows = self._windows
        if not windows or now - windows[0].began >= WINDOW_MS:
            windows.insert(0, _Window(now))
            del windows[2:]
        return windows[0]

    def _low(self, now: float) -> float:
        best = -math.inf
        for each in self._windows:
            bound = each.low - (now - each.low_at) * MAX_DRIFT
            if bound > best:
                best = bound
        return best

    def _up(self, now: float) -> float:
        best = math.inf
        for each in self._windows:
            bound = each.up + (now - each.up_at) * MAX_DRIFT
            if bound < best:
                best = bound
        return best

    def _judge_rate(self, stamp: int, arrived: float) -> None:
        if self._reference is None:
            self._reference = stamp, arrived
            return
        first, at = self._reference
        if arrived - at >= RUN_MS:
            self._runs = stamp - first >= LEAST_RATE * (arrived - at) or stamp < first
            self._reference = stamp, arrived

    def _on_step(self, now: float) -> None:
        """Begin again, because the camera's clock was set. The round trips still hold."""
        self.steps += 1
        self._step_times = [*self._step_times[-MAX_STEPS + 1 :], now]
        for each in self._windows:
            each.low, each.low_at, each.up, each.up_at = -math.inf, now, math.inf, now
        self._drift_from = None

    def _steps_lately(self, now: float) -> int:
        return sum(now - at < STEPS_WITHIN_MS for at in self._step_times) if self._step_times else 0
