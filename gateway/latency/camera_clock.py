"""The clock of one camera: which frames are sampled, when it is pinged, and what its frames' timestamps mean. Pure.

Times are in ms, by a monotonic clock here, except where the text says seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from watchout.common.bus.messages import ClockRow
from watchout.gateway.latency.clock_offset import ClockOffset

#: Seconds between two sampled frames of a stream.
SAMPLE_EVERY_S: Final = 0.5
#: Frames that are looked at, one after the other, until one has a timestamp that is not the gateway's own.
LOOKED_AT: Final = 100
#: Seconds between two of the first pings to a camera while its clock is not known well, and between two later ones.
PING_SOON_S: Final = 1.0
PINGS_SOON: Final = 10
PING_EVERY_S: Final = 10.0
#: The clock is known well when the error is below this, in ms.
WELL_MS: Final = 10.0
#: A ping that was not answered after this many seconds is given up, and another one is sent.
PONG_WITHIN_S: Final = 30.0
#: When a ping is sent, as shares of the time between two frames: shortly before the next one, so that the round trip
#: ends with a frame.
PHASES: Final = (0.5, 0.9, 0.75, 0.95)
#: Longest delay of a ping for that, in seconds.
LONGEST_PHASE_S: Final = 1.0
#: Acknowledgements whose times are kept; a window has 32 frames at most.
ACKS_KEPT: Final = 64

OWN_TIME: Final = "its frames have no timestamps of their own"


class AckTimes:
    """When acknowledgements of frames were sent to a camera with a window. Made by `FrameAcks`.

    A camera sends a frame only while fewer than `window` before it are unacknowledged: it has read the acknowledgement
    of the one that is so many before.

    Attributes:
        window: most frames that the camera has under way.
        received: frames that came so far.
    """

    __slots__ = ("_sent", "received", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.received = 0
        #: How many frames an acknowledgement covers, counted from the first, and when it was sent.
        self._sent: deque[tuple[int, float]] = deque(maxlen=ACKS_KEPT)

    def add(self, now: float) -> None:
        """Note that all frames that came so far are acknowledged now."""
        self._sent.append((self.received, now))

    def read_before(self) -> float | None:
        """Return when that acknowledgement was sent that the camera had read when it sent the frame that comes now.

        None: it is not kept any more, or the camera needed none.
        """
        needed = self.received + 1 - self.window
        if needed <= 0:
            return None
        for place, (covers, at) in enumerate(self._sent):
            if covers >= needed:  # the first one; none may have been forgotten before it
                return at if place or len(self._sent) < ACKS_KEPT else None
        return None


class CameraClock:
    """What is known of one camera's clock; each `Publication` has one.

    Attributes:
        offset: the estimate.
        acks: acknowledgements that the camera waits for; None: it has no window.
        has_own_time: a frame had a timestamp other than the gateway's. Until then the timestamps may be the gateway's.
        ping_at: when the next ping is due, in seconds.
        round_trip_ms: how long the last ping and its pong took; 0: there was none.
    """

    __slots__ = (
        "_answered", "_looked", "_phase", "_pings", "acks", "has_own_time", "offset", "ping_at", "round_trip_ms",
    )  # fmt: skip

    def __init__(self) -> None:
        self.offset = ClockOffset()
        self.acks: AckTimes | None = None
        self.has_own_time = False
        self._looked = 0
        #: Number and time of the last ping; None: it was answered, or none was sent.
        self._pings: tuple[int, float] | None = None
        #: When the ping was sent whose pong came after the last frame.
        self._answered: float | None = None
        self._phase = 0
        self.ping_at = self.round_trip_ms = 0.0

    def on_frame(self, stamp: int, here_ms: int, began: float) -> None:
        """Handle a sampled frame, which does not count in `acks.received` yet.

        Args:
            stamp: its timestamp.
            here_ms: the time that the gateway gives frames without one, in ms since the epoch.
            began: when its first bytes came: what follows is the time that its size takes on this network.
        """
        self._looked += 1
        self.has_own_time = self.has_own_time or stamp != here_ms
        if not self.has_own_time:
            return
        answers, self._answered = self._answered, None
        if self.acks is not None and (acknowledged := self.acks.read_before()) is not None:
            answers = acknowledged if answers is None else max(answers, acknowledged)
        self.offset.on_frame(stamp, began, answers)

    def next_sample_s(self, now_s: float) -> float:
        """Return when the next frame is to be sampled, in seconds."""
        return now_s if not self.has_own_time and self._looked < LOOKED_AT else now_s + SAMPLE_EVERY_S

    def delay_ms(self, stamp: int, arrived: float) -> float | None:
        """Return for how long a frame was on its way; None: that is not known. `arrived` is about now."""
        found = self.offset.estimate(arrived) if self.has_own_time else None
        return None if found is None else max(0.0, arrived + found.offset_ms - stamp - 0.5)

    # ── pings ────────────────────────────────────────────────────────────────────────────────────────────────────

    def ping_due_in(self, now_s: float, fps: Callable[[], float]) -> float | None:
        """Return in how many seconds a ping is to be sent; None: none is due. Each is asked for once.

        `fps` returns the rate of the camera's frames, of which one has come just now.
        """
        if not self.has_own_time or now_s < self.ping_at:
            return None
        found = self.offset.estimate(now_s * 1000)
        well = found is not None and found.error_ms < WELL_MS
        self._phase += 1
        self.ping_at = now_s + (PING_EVERY_S if well or self._phase > PINGS_SOON else PING_SOON_S)
        rate = fps()
        return min(PHASES[self._phase % len(PHASES)] / rate, LONGEST_PHASE_S) if rate > 0 else 0.0

    def make_ping(self, number: int, now: float) -> bool:
        """Note that a ping with this number is sent now; False: one is still under way, and none is to be sent."""
        if self._pings is not None and now - self._pings[1] < PONG_WITHIN_S * 1000:
            return False
        self._pings = number, now
        return True

    def on_pong(self, number: int, now: float) -> bool:
        """Handle a pong; return whether it was the one awaited: the next frame is to be sampled."""
        if self._pings is None or self._pings[0] != number:
            return False
        sent, self._pings = self._pings[1], None
        self.offset.on_round_trip(sent, now)
        self.round_trip_ms = now - sent
        self._answered = sent
        return True

    # ── reports ──────────────────────────────────────────────────────────────────────────────────────────────────

    def row(self, now: float, wall_ms: float) -> ClockRow:
        """Return what is known, for operators. `wall_ms` is the moment `now` in ms since the epoch."""
        found = self.offset.estimate(now) if self.has_own_time else None
        if found is None:
            return ClockRow(
                steps=self.offset.steps, unknown=self.offset.unknown(now) if self.has_own_time else OWN_TIME
            )
        drift, drift_error = self.offset.drift(now, found) or (None, None)
        return ClockRow(
            round(found.offset_ms + now - wall_ms, 1),
            round(found.error_ms, 1),
            None if drift is None else round(drift, 1),
            None if drift_error is None else round(drift_error, 1),
            self.offset.steps,
        )
