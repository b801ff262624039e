"""Feeds the latency ledger of a gateway: reads the clocks where frames come in and where frames and alerts are written.

One frame of a stream is sampled every half second, and a few more at its begin; every alert is. All else of this module
runs for those alone.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Final

import msgspec

from watchout.common import metric_names
from watchout.common.alerts.model import Alert
from watchout.common.bus.messages import AlertStamps
from watchout.common.bus.router_clock import RouterClock
from watchout.common.latency import stamps
from watchout.common.latency.hops import Hop
from watchout.common.latency.ledger import LatencyLedger
from watchout.common.latency.stamps import FrameStamps
from watchout.common.media.frames import Frame
from watchout.common.metric_names import CounterName
from watchout.gateway.hub.streams import Publication
from watchout.gateway.latency.frame_times import FrameTimes
from watchout.gateway.latency.timed_message import TimedMessage

#: Size of the number by which a pong is found to belong to a ping.
PING_BYTES: Final = 8
#: The loop's clock is behind by up to this time, in seconds.
LOOP_TICK_S: Final = 0.001
#: The counters of each whole way: all, and those that were late.
COUNTERS: Final[dict[Hop, tuple[CounterName, CounterName]]] = {
    Hop.GLASS_TO_GLASS: (metric_names.GLASS_TO_GLASS, metric_names.GLASS_TO_GLASS_LATE),
    Hop.GLASS_TO_ALERT: (metric_names.GLASS_TO_ALERT, metric_names.GLASS_TO_ALERT_LATE),
}


class LatencyRecorder:
    """The ledger of one gateway, fed by `Delivery`, `ClientSocketWriter` and `RouterClient`; made by `gateway.app`.

    Args:
        ledger: the ledger.

    Attributes:
        frame_times: when sampled frames were captured.
    """

    def __init__(self, ledger: LatencyLedger) -> None:
        self.ledger = ledger
        self.frame_times = FrameTimes()
        self._numbers = itertools.count(time.time_ns() & 0xFFFF_FFFF)

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────

    def on_frame_in(self, publication: Publication, frame: Frame, now: float, now_ms: int) -> None:
        """Stamp a frame of a publisher here, and learn of its camera's clock by it.

        Args:
            publication: its publication.
            frame: the frame, with the camera's timestamp.
            now: the loop's time in seconds.
            now_ms: the time that the frame has if the camera gave it none, in ms since the epoch.
        """
        arrived, wall = time.monotonic(), time.time() * 1000
        camera = publication.camera_clock
        began = min(publication.began_at + LOOP_TICK_S, arrived)
        camera.on_frame(frame.timestamp, now_ms, began * 1000)
        publication.sample_at = camera.next_sample_s(now)
        delay = camera.delay_ms(frame.timestamp, arrived * 1000)
        frame.stamps = FrameStamps(wall, None if delay is None else wall - delay)
        if delay is None:
            self.ledger.add_unknown(publication.stream, arrived)
        else:
            self.ledger.add(Hop.CAPTURE_TO_GATEWAY, publication.stream, delay, arrived)
            self.frame_times.add(publication.stream, frame.frame_id, frame.timestamp, wall - delay)
        due_in = camera.ping_due_in(arrived, lambda: publication.meter.rate(now))
        if due_in is not None:
            asyncio.get_running_loop().call_later(due_in, self._ping, publication)

    def _ping(self, publication: Publication) -> None:
        number, now = next(self._numbers), time.monotonic() * 1000
        if publication.ended or not publication.camera_clock.make_ping(number, now):
            return
        publication.publisher.send_ping(number.to_bytes(PING_BYTES, "big"))

    def on_pong(self, publication: Publication, data: bytes) -> None:
        """Handle a pong of the client that publishes; `data` is what the ping had."""
        if len(data) == PING_BYTES and publication.camera_clock.on_pong(
            int.from_bytes(data, "big"), time.monotonic() * 1000
        ):
            publication.sample_at = 0.0  # a frame that was sent after it bounds the camera's clock

    def stamp_of(self, frame: Frame, clock: RouterClock) -> bytes:
        """Return the stamps of a frame as they cross the bus; empty: it has none. `clock` is that of its router."""
        found = frame.stamps
        if found is None or found.gateway_in is None:
            return b""
        ahead = clock.offset_ms
        return stamps.encode(found.gateway_in + ahead, None if found.captured is None else found.captured + ahead)

    def on_stamp(self, frame: Frame, stamp: bytes, clock: RouterClock) -> None:
        """Set the stamps of a frame of another gateway, which came just now with `stamp`."""
        ahead = clock.offset_ms
        found = stamps.decode(stamp, time.time() * 1000 + ahead)
        gateway_in = None if found.gateway_in is None else found.gateway_in - ahead
        captured = None if found.captured is None else found.captured - ahead
        frame.stamps = FrameStamps(gateway_in, captured)
        if captured is not None:
            self.frame_times.add(frame.stream_id, frame.frame_id, frame.timestamp, captured)

    def on_frame_written(self, frame: Frame, times: int = 1) -> None:
        """Count that a stamped frame was written to so many viewers just now."""
        found = frame.stamps
        if found is None or found.gateway_in is None:
            return
        now, wall = time.monotonic(), time.time() * 1000
        self.ledger.add(Hop.GATEWAY_TO_VIEWER, frame.stream_id, wall - found.gateway_in, now, times)
        if found.captured is not None:
            self.ledger.add(Hop.GLASS_TO_GLASS, frame.stream_id, wall - found.captured, now, times)

    # ── alerts ───────────────────────────────────────────────────────────────────────────────────────────────────

    def stamps_of(self, alert: Alert) -> AlertStamps:
        """Return the stamps of an alert of the ML service that came just now over HTTP."""
        wall = time.time() * 1000
        return AlertStamps(captured=self._captured(alert, wall), answered=int(wall))

    def on_alert_accepted(self, alert: Alert, given: AlertStamps, accepted_ms: int | None) -> None:
        """Count that the router accepted an alert of this gateway; `accepted_ms` is when, by the clock here."""
        if given.answered is not None and accepted_ms is not None:
            way_ms = accepted_ms - given.answered
            self.ledger.add(Hop.ML_TO_ACCEPTED, alert.stream_id, way_ms, time.monotonic())

    def timed(self, message: bytes, alert: Alert, given: AlertStamps) -> TimedMessage:
        """Return an alert's message so that `on_alert_written` is called for each socket that it is written to.

        Where the sender of an alert of the ML service did not know when its frame was captured, this gateway may.
        """
        if given.captured is None and given.answered is not None:
            captured = self._captured(alert, time.time() * 1000)
            given = msgspec.structs.replace(given, captured=captured)
        return TimedMessage.of(message, alert.stream_id, given)

    def _captured(self, alert: Alert, now_ms: float) -> int | None:
        """Return when the frame that an alert names was captured; None: it names none, or that is not known."""
        if alert.frame_id is None:
            return None
        found = self.frame_times.find(alert.stream_id, alert.frame_id, alert.timestamp, now_ms)
        return None if found is None else max(0, int(found))

    def on_alert_written(self, message: TimedMessage, times: int = 1) -> None:
        """Count that an alert was written to so many sockets just now."""
        given, stream = message.stamps, message.stream
        now, wall = time.monotonic(), time.time() * 1000
        if given.accepted is not None:
            self.ledger.add(Hop.ACCEPTED_TO_WRITTEN, stream, wall - given.accepted, now, times)
        if given.captured is not None:
            self.ledger.add(Hop.GLASS_TO_ALERT, stream, wall - given.captured, now, times)
        elif given.answered is not None:
            self.ledger.add_unknown(stream, now, times)

    # ── reports ──────────────────────────────────────────────────────────────────────────────────────────────────

    def update_clock(self, stream: str, publication: Publication | None) -> None:
        """Tell the ledger what is known of the clock of a stream's camera, if it is here."""
        if publication is not None:
            now, wall = time.monotonic(), time.time() * 1000
            self.ledger.set_clock(stream, publication.camera_clock.row(now * 1000, wall), now)

    def forget_clock(self, stream: str) -> None:
        """Tell the ledger that the camera of a stream is not here any more."""
        self.ledger.set_clock(stream, None, time.monotonic())
