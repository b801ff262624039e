"""Feeds the latency ledger of a bridge: when the ML service was asked and answered, and its alert was accepted."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from watchout.common.alerts.model import Alert
from watchout.common.bus.messages import AlertStamps
from watchout.common.bus.router_clock import RouterClock
from watchout.common.latency import stamps
from watchout.common.latency.hops import Hop
from watchout.common.latency.ledger import LatencyLedger
from watchout.common.latency.stamps import FrameStamps
from watchout.common.media.frames import Frame

#: Streams of which the clock of the camera is remembered, and for how long after the last stamp, in seconds.
MAX_CAMERAS: Final = 2_000
CAMERA_KEPT_S: Final = 120.0


class BridgeLatency:
    """The ledger of one bridge, fed by `Dispatcher` and `AlertSender`; made by `Bridge`.

    A gateway stamps some frames of each stream. By these the camera's clock is known, so that every frame has a time of
    capture.

    Args:
        ledger: the ledger.
        clock_of: returns the clock of the router of a stream; stamps of frames are by it.
    """

    def __init__(self, ledger: LatencyLedger, clock_of: Callable[[str], RouterClock]) -> None:
        self.ledger = ledger
        self._clock_of = clock_of
        #: By stream: the camera's clock minus the one here in ms, its term, and when that was told.
        self._cameras: OrderedDict[str, tuple[float | None, int, float]] = OrderedDict()

    def on_frame(self, frame: Frame, stamp: bytes) -> None:
        """Set the stamps of a frame that came just now; `stamp` is empty of one that the gateway did not stamp."""
        now = time.monotonic()
        if stamp:
            ahead = self._clock_of(frame.stream_id).offset_ms
            found = stamps.decode(stamp, time.time() * 1000 + ahead)
            assert found.gateway_in is not None
            captured = None if found.captured is None else found.captured - ahead
            frame.stamps = FrameStamps(found.gateway_in - ahead, captured)
            offset = None if captured is None else frame.timestamp - captured
            self._cameras[frame.stream_id] = offset, frame.term, now
            self._cameras.move_to_end(frame.stream_id)
            if len(self._cameras) > MAX_CAMERAS:
                self._cameras.popitem(last=False)
            return
        offset, term, at = self._cameras.get(frame.stream_id, (None, 0, 0.0))
        known = offset is not None and term == frame.term and now - at < CAMERA_KEPT_S
        frame.stamps = FrameStamps(None, frame.timestamp - offset if known and offset is not None else None)

    def on_asked(self, frame: Frame) -> None:
        """Count that the ML service is asked about a frame now."""
        found = frame.stamps
        if found is not None:
            found.asked = time.time() * 1000
            if found.gateway_in is not None:
                way_ms = found.asked - found.gateway_in
                self.ledger.add(Hop.GATEWAY_TO_ML, frame.stream_id, way_ms, time.monotonic())

    def on_answered(self, frame: Frame, took_s: float) -> None:
        """Count that the ML service has answered about a frame, after so many seconds."""
        self.ledger.add(Hop.ML, frame.stream_id, took_s * 1000, time.monotonic())
        if frame.stamps is not None:
            frame.stamps.answered = time.time() * 1000

    def stamps_of(self, frame: Frame | None) -> AlertStamps:
        """Return the stamps of an alert that came just now, by the clock here; `frame` is the one that it is about.

        An alert that did not come as the answer to a request counts as answered now.
        """
        now = int(time.time() * 1000)
        if frame is None or frame.stamps is None:
            return AlertStamps(answered=now)
        found = frame.stamps
        return AlertStamps(
            _whole(found.captured), _whole(found.gateway_in), _whole(found.asked), _whole(found.answered) or now
        )

    def on_accepted(self, alert: Alert, given: AlertStamps | None, accepted_ms: int | None) -> None:
        """Count that the router accepted an alert; `accepted_ms` is when, by the clock here."""
        if given is not None and given.answered is not None and accepted_ms is not None:
            self.ledger.add(Hop.ML_TO_ACCEPTED, alert.stream_id, accepted_ms - given.answered, time.monotonic())


def _whole(at: float | None) -> int | None:
    return None if at is None else max(0, int(at))
