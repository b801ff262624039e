"""Delivers frames, alerts and status of streams to the viewers and publishers of this gateway. Pure.

Local viewers are served whether the router is reachable or not. Other members, and the router for those that it sends
frames to, are further receivers, as `Forward` says. `now` in seconds, `now_ms` in ms since the epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from watchout.common.alerts.acknowledgement import Acknowledgement, acknowledged_message
from watchout.common.alerts.model import Alert
from watchout.common.bus.messages import AlertStamps, StreamStatus
from watchout.common.media.codecs import Codec
from watchout.common.media.frames import Frame
from watchout.gateway import wire
from watchout.gateway.hub.bus_sampler import BusSampler
from watchout.gateway.hub.newest_frames import NewestFrames
from watchout.gateway.hub.rate_waits import RateWaiter, RateWaits
from watchout.gateway.hub.reports import RouterReports
from watchout.gateway.hub.sent_alerts import SentAlerts
from watchout.gateway.hub.streams import DirectReceiver, LocalStream, Publication, StreamTable, ToMembers, Write
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.latency.timed_message import TimedMessage

#: Frame ids have 32 bits on the wire; after this one a stream starts again at 1.
MAX_FRAME_ID: Final = 2**32 - 1
#: When frames of a stream of another gateway have come for so long, in seconds, whose ids rise and which all are below
#: the last one delivered, they are delivered.
LOWER_IDS_AFTER_S: Final = 2.0
#: Most live alerts that are held back for a viewer while recent ones are fetched for it.
MAX_HELD_ALERTS: Final = 256
#: The ledger is told of so many sockets at once to which an alert was written: they get it within a millisecond.
TOLD_TOGETHER: Final = 128
#: Appended to an alert's id, which has no spaces, for its acknowledgement among alerts.
_ACKNOWLEDGED: Final = " acknowledged"
#: Appended to a stream's id, which has no spaces, for the entry of its early frame in `NewestFrames`.
_EARLY: Final = " early"
#: The same for its frame that is no picture and waits for receivers on the bus.
_OTHER: Final = " other"

#: Told of each alert: stream, id, viewers and publishers that got it.
OnTold = Callable[[str, str, int, int], None]


def acknowledged_key(alert_id: str) -> str:
    """Return the key of an alert's acknowledgement, where alerts have their ids as keys."""
    return alert_id + _ACKNOWLEDGED


#: A member gets a frame of a stream with stamps about this often, in seconds.
STAMP_EVERY_S: Final = 0.4


class LatencyHooks(Protocol):
    """What feeds the latency ledger; implemented by `gateway.latency.recorder`, which reads the clocks."""

    def on_frame_in(self, publication: Publication, frame: Frame, now: float, now_ms: int) -> None:
        """Stamp a frame that came in just now, and set when the next one of its publication is sampled."""

    def on_frame_written(self, frame: Frame, times: int = 1) -> None:
        """Count that a stamped frame was written to so many viewers just now."""

    def timed(self, message: bytes, alert: Alert, given: AlertStamps) -> TimedMessage:
        """Return an alert's message so that it is measured when it is written."""

    def on_alert_written(self, message: TimedMessage, times: int = 1) -> None:
        """Count that an alert was written to so many sockets just now."""

    def forget_clock(self, stream: str) -> None:
        """Handle that the camera of a stream is gone."""


class Delivery:
    """Fan-out of one gateway: frames, alerts and status to local viewers, frames to other members. Part of `Hub`.

    Args:
        table: The streams of this gateway.
        reports: Receives which streams had frames and which publications changed status.
        to_bus: Sends one frame to the router.
        to_members: Sends one frame to other members.
        newest_bytes: Most bytes of the newest frames of all streams together.
        latency: Feeds the latency ledger; None: nothing is measured.

    Attributes:
        newest_frames: Memory of the newest frames.
        rate_waits: Who has a frame that waits until a frame rate permits it.
        frames_in, bytes_in: Frames from publishers of this gateway, and bytes of their payloads.
        frames_out, frame_bytes_out: Frames written to viewers, and bytes of them.
        alerts_out: Alerts sent to viewers and publishers.
        old_term_frames: Frames from the router that were dropped because their term was over.
        repeated_frames: Frames from other gateways that were not newer than the last one.
        restarted_streams: How often a stream of another gateway went on with lower ids, so that they were accepted.
        on_told: Called with stream, alert id, and how many viewers and publishers got an alert; None: nobody asks.
        writing: The bytes that are being written to sockets at this moment, else None. A socket that becomes full
            keeps a part of them, which `WaitingFrames` counts once for all sockets.
    """

    def __init__(
        self,
        table: StreamTable,
        reports: RouterReports,
        *,
        to_bus: Callable[[Frame], None],
        to_members: ToMembers,
        newest_bytes: int,
        latency: LatencyHooks | None = None,
    ) -> None:
        self._latency = latency
        self._streams = table.streams
        self._publications = table.publications
        self._reports = reports
        self._active = reports.active
        self._to_bus, self._to_members = to_bus, to_members
        self.newest_frames = NewestFrames(newest_bytes)
        self.rate_waits: RateWaits[RateWaiter] = RateWaits()
        #: The streams published here that have such a frame for receivers on the bus.
        self._bus_waits: RateWaits[str] = RateWaits()
        self._bus_waits.on_earlier = lambda at: self.rate_waits.enter(self, at)
        #: Streams whose newest frame was handed out or changed status: its size may have changed since.
        self._to_measure: set[str] = set()
        self._sent_alerts = SentAlerts()
        self.frames_in = self.bytes_in = self.alerts_out = self.old_term_frames = self.repeated_frames = 0
        self.frames_out = self.frame_bytes_out = self.restarted_streams = 0
        self.writing: bytes | None = None
        self.on_told: OnTold | None = None

    # ── frames in ────────────────────────────────────────────────────────────────────────────────────────────────

    def on_frame(
        self,
        publication: Publication,
        *,
        text: bytes | None,
        picture: bytes | None,
        codec: Codec | None,
        more: bytes = b"",
        timestamp: int,
        now: float,
        now_ms: int,
    ) -> None:
        """Number a frame of a publisher here and deliver it.

        Args:
            publication: The stream it belongs to.
            text: Its payload's JSON string token, when it came as JSON.
            picture: Its decoded payload, when it came in binary.
            codec: The codec that the publisher declared; None: to be recognized.
            more: Further JSON members of the message, each with a comma before it.
            timestamp: The publisher's time, in ms since the epoch.
            now: Seconds of the loop's clock.
            now_ms: Milliseconds since the epoch.
        """
        if publication.next_frame_id > MAX_FRAME_ID:
            publication.next_frame_id = 1
            self.restart_ids(self._streams[publication.stream])
        frame = Frame(
            publication.stream, publication.next_frame_id, timestamp,
            term=publication.term, text=text, picture=picture, codec=codec, more=more,
        )  # fmt: skip
        size = len(text if text is not None else picture or b"")
        self._deliver_local(publication, frame, size, now, now_ms)

    def on_plain_frame(
        self, publication: Publication, message: bytes, begin: int, end: int, timestamp: int, codec: int, more: bytes,
        now: float, now_ms: int,
    ) -> None:  # fmt: skip
        """Deliver a frame whose message for viewers was built already, with the next frame id.

        The arguments are those of `gateway.fastpath.Taken`: `message` is the WebSocket message with its header, `begin`
        and `end` bound the payload's string token in it.
        """
        frame = Frame.of_message(
            publication.stream, publication.next_frame_id, timestamp, publication.term, message, begin, end, codec, more
        )
        self._deliver_local(publication, frame, end - begin, now, now_ms)

    def on_remote_frame(self, frame: Frame, now: float) -> None:
        """Deliver a frame from the router, of a publisher on another gateway. Dropped when its term is over."""
        stream = self._streams.get(frame.stream_id)
        if stream is None or stream.publication is not None:
            return
        if frame.term < stream.term:
            self.old_term_frames += 1
        elif frame.term > stream.term:
            stream.early_frame = frame  # its owner arrives on another socket: permissions are judged first
            self._discard(self.newest_frames.put(stream.id + _EARLY, frame.size_bytes))
        else:
            if frame.frame_id < stream.last_frame_id - MAX_FRAME_ID // 2:
                self.restart_ids(stream)
            if frame.frame_id > stream.last_frame_id:
                self._deliver(stream, frame, now)
            elif self._goes_on_below(stream, frame, now):
                self.restart_ids(stream)
                self.restarted_streams += 1
                self._deliver(stream, frame, now)
            else:
                self._deliver_again(stream, frame, now)

    def _goes_on_below(self, stream: LocalStream, frame: Frame, now: float) -> bool:
        """Return whether a stream goes on with lower ids than that of the last frame, for `LOWER_IDS_AFTER_S` by now.

        A frame that is sent again is no newer than the last one either, but none comes after it whose id is higher.
        """
        if not stream.lower_id:
            stream.lower_id, stream.lower_since = frame.frame_id, now
            return False
        rises = frame.frame_id > stream.lower_id
        stream.lower_id = max(stream.lower_id, frame.frame_id)
        return rises and now - stream.lower_since >= LOWER_IDS_AFTER_S

    def deliver_early_frame(self, stream: LocalStream, now: float) -> None:
        """Deliver the frame that was held until the owner of its term is known, if there is one."""
        early, stream.early_frame = stream.early_frame, None
        self.newest_frames.remove(stream.id + _EARLY)
        if early is not None:
            self.on_remote_frame(early, now)

    def _deliver_local(self, publication: Publication, frame: Frame, size_bytes: int, now: float, now_ms: int) -> None:
        publication.next_frame_id = frame.frame_id + 1
        publication.last_frame_s, publication.last_frame_at = now, now_ms
        publication.meter.add(now)
        self.frames_in += 1
        self.bytes_in += size_bytes
        stream_id = publication.stream
        self._active.add(stream_id)
        stream = self._streams[stream_id]
        if now >= publication.sample_at and self._latency is not None:
            self._latency.on_frame_in(publication, frame, now, now_ms)
        if stream.status != "streaming":
            self.set_status(stream, "streaming", now_ms)
            self._reports.publication_changed(stream_id)
        self._deliver(stream, frame, now)
        to: list[DirectReceiver] = []
        stamps_due = False
        for receiver in publication.receivers:
            if receiver.max_fps is None or receiver.sampler.offer(frame, now):
                to.append(receiver)
                stamps_due |= now >= receiver.stamp_at
            else:
                self._wait_for_rate(publication, receiver.sampler)
        if to:
            if stamps_due and frame.stamps is None and self._latency is not None:
                self._latency.on_frame_in(publication, frame, now, now_ms)
            self._to_members(frame, to)
        if publication.bus_sampler is not None:
            if publication.bus_sampler.offer(frame, now):
                self._to_bus(frame)
            else:
                self._wait_for_rate(publication, publication.bus_sampler)
        if publication.counts_other:
            self._recount_other(publication)

    # ── frames that wait for receivers on the bus ────────────────────────────────────────────────────────────────

    def _wait_for_rate(self, publication: Publication, sampler: BusSampler) -> None:
        """Have a frame released that waits until the rate of a receiver on the bus permits it, if one does."""
        release_at = sampler.release_at()
        if release_at is not None:
            self._bus_waits.enter(publication.stream, release_at)
            if sampler.other is not None:
                publication.counts_other = True

    def _recount_other(self, publication: Publication) -> None:
        """Count the bytes of the frame that waits for receivers on the bus and is no picture, of which all have one."""
        other = next((sampler.other for sampler in publication.samplers() if sampler.other is not None), None)
        if other is not None:
            self._discard(self.newest_frames.put(publication.stream + _OTHER, other.size_bytes))
        else:
            self.newest_frames.remove(publication.stream + _OTHER)
            publication.counts_other = False

    def release_waiting(self, now: float) -> float | None:
        """Send the frames that waited for receivers on the bus; return when the next one is due, None: none."""
        for stream_id in self._bus_waits.take_due(now):
            publication = self._publications.get(stream_id)
            if publication is not None:
                self.release_to_bus(publication, now)
        return self._bus_waits.next_at()

    def release_to_bus(self, publication: Publication, now: float) -> None:
        """Send the frames of a publication that waited for receivers on the bus, as far as the rates permit them."""
        to: dict[int, tuple[Frame, list[DirectReceiver]]] = {}
        for receiver in publication.receivers:
            while (frame := receiver.sampler.release(now)) is not None:
                to.setdefault(frame.frame_id, (frame, []))[1].append(receiver)
        for _, (frame, receivers) in sorted(to.items()):
            frame.stamps = None  # its age is no latency
            self._to_members(frame, receivers)
        while publication.bus_sampler is not None and (frame := publication.bus_sampler.release(now)) is not None:
            frame.stamps = None
            self._to_bus(frame)
        for sampler in publication.samplers():
            self._wait_for_rate(publication, sampler)
        if publication.counts_other:
            self._recount_other(publication)

    def forget_waiting(self, publication: Publication) -> None:
        """Drop the frames of a publication that wait for receivers on the bus: it has ended."""
        for sampler in publication.samplers():
            sampler.drop_waiting()
        self._bus_waits.remove(publication.stream)
        self.newest_frames.remove(publication.stream + _OTHER)

    def _deliver(self, stream: LocalStream, frame: Frame, now: float) -> None:
        stream.arrived += 1
        if frame.frame_id - stream.last_frame_id != 1 and not frame.is_key:
            for subscription in (*stream.direct_json, *stream.direct_binary):
                self._stop_direct_frames(stream, subscription)  # the queue drops delta frames up to the next key frame
        # First: a direct viewer that becomes full moves to the queued ones.
        queued = list(stream.queued.items()) if stream.queued else []
        if frame.is_key_picture:
            stream.newest, stream.last_undecodable = frame, None
        elif not frame.declared_opaque and not frame.is_picture:
            stream.last_undecodable = frame.term, frame.frame_id, frame.fault
        stream.last_frame_id, stream.delivered_at, stream.lower_id = frame.frame_id, now, 0
        if stream.direct_json:
            self._write_to_all(frame, frame.json_wire or wire.frame_message(frame, "json"), stream.direct_json)
        if stream.direct_binary:
            if frame.has_binary:
                encoded = frame.binary_wire or wire.frame_message(frame, "binary")
                self._write_to_all(frame, encoded, stream.direct_binary)
            else:  # no viewer gets it: each counts the drop
                queued += [(subscription, stream.video[subscription]) for subscription in stream.direct_binary]
        for subscription, viewer in queued:
            viewer.send_frame(subscription, frame, now)
        # All encodings that local viewers need exist now: this is the frame's full size.
        if stream.newest is frame and (evicted := self.newest_frames.put(stream.id, frame.size_bytes)):
            self._discard(evicted)

    def _deliver_again(self, stream: LocalStream, frame: Frame, now: float) -> None:
        """Deliver a frame that is not newer than the last one: somebody here asked for the newest, and it was known.

        Only viewers that wait for their first frame get it. For the others nothing arrived, so they miss nothing.
        """
        self.repeated_frames += 1
        for subscription, viewer in list(stream.queued.items()):
            if subscription.last_frame and subscription.arrived_before == stream.arrived:
                subscription.arrived_before -= 1
                viewer.send_frame(subscription, frame, now)

    def _write_to_all(self, frame: Frame, encoded: bytes, direct: dict[Subscription, Write]) -> None:
        writes = list(direct.values())  # a copy: a viewer that becomes full leaves `direct` during the loop
        self.frames_out += len(writes)
        self.frame_bytes_out += len(writes) * len(encoded)
        self.writing = encoded
        for write in writes:
            write(encoded)
        self.writing = None
        if frame.stamps is not None and self._latency is not None:
            self._latency.on_frame_written(frame, len(writes))

    # ── viewers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def start_direct_writes(self, subscription: Subscription, write: Write) -> None:
        """Write each frame directly to a viewer that takes every frame at once, without its outbound queue.

        Nearly all viewers are in this state nearly always; it costs one call per viewer and frame. Ignored unless the
        viewer has got the stream's newest frame.
        """
        stream = self._streams.get(subscription.stream)
        if (
            stream is not None
            and subscription.last_frame_id == stream.last_frame_id
            and stream.queued.pop(subscription, None) is not None
        ):
            direct = stream.direct_json if subscription.format == "json" else stream.direct_binary
            direct[subscription] = write

    def start_direct_alerts(self, subscription: Subscription, write: Write) -> None:
        """Write each alert directly to a viewer whose socket takes it at once; nothing waits in its outbound queue."""
        stream = self._streams.get(subscription.stream)
        if stream is not None and stream.alerts_queued.pop(subscription, None) is not None:
            subscription.alerts_before = stream.alerts_written
            stream.alerts_direct[subscription] = write

    def direct_write_at(self, subscription: Subscription) -> float:
        """Return when something was written directly for a subscription, in seconds; -inf: nothing is."""
        stream, written_at = self._streams.get(subscription.stream), -math.inf
        if stream is not None:
            if subscription in stream.direct_json or subscription in stream.direct_binary:
                written_at = stream.delivered_at
            if subscription in stream.alerts_direct:
                written_at = max(written_at, stream.alert_written_at)
        return written_at

    def stop_direct_writes(self, subscription: Subscription) -> None:
        """Deliver frames and alerts through the outbound queue again, because the viewer's socket is full."""
        stream = self._streams.get(subscription.stream)
        if stream is None:
            return
        self._stop_direct_frames(stream, subscription)
        if stream.alerts_direct.pop(subscription, None) is not None:
            subscription.end_direct_alerts(stream.alerts_written)
            stream.alerts_queued[subscription] = stream.viewers[subscription]

    def _stop_direct_frames(self, stream: LocalStream, subscription: Subscription) -> None:
        direct = stream.direct_json if subscription.format == "json" else stream.direct_binary
        if direct.pop(subscription, None) is not None:
            subscription.last_frame_id = stream.last_frame_id
            stream.queued[subscription] = stream.video[subscription]

    def set_status(self, stream: LocalStream, status: StreamStatus, now_ms: int, info: str | None = None) -> None:
        """Set status and info of a stream; if one changes, send it to the viewers and to a publisher that wants it.

        Args:
            stream: The stream.
            status: The status.
            now_ms: Milliseconds since the epoch.
            info: What the camera says of itself, as JSON; "": nothing. None: what it said before, which ends with the
                camera.
        """
        now_says = "" if status == "offline" else stream.info if info is None else info
        says, stream.info = now_says if now_says != stream.info and status != "offline" else None, now_says
        if stream.status == status:
            if says is not None:
                message = wire.status(stream.id, status, now_ms, says)
                for viewer in list(stream.viewers.values()):
                    viewer.send_message(message)
            return
        stream.status = status
        if stream.newest is not None:
            self._to_measure.add(stream.id)
        if status == "offline":
            self.forget_newest(stream)  # the next owner may be another user, whose viewers must not get this frame
        message = wire.status(stream.id, status, now_ms, says)
        for viewer in list(stream.viewers.values()):
            viewer.send_message(message)
        if stream.publication is not None and stream.publication.wants_status:
            stream.publication.publisher.send_message(message)

    # ── alerts ───────────────────────────────────────────────────────────────────────────────────────────────────

    def on_alert(
        self, alert: Alert, now: float, *, accepted_s: float | None = None, stamps: AlertStamps | None = None
    ) -> None:
        """Send an alert to the viewers of its stream here that want alerts, and to its publisher.

        Args:
            alert: The alert; ignored when it was sent before.
            now: Seconds of the loop's clock.
            accepted_s: When a router first accepted an alert that it repeats after a loss, in seconds of the loop's
                clock; None: it is new. A repeated one goes only to those who were there at that time.
            stamps: When it and its frame passed the points of their way; None: it is not measured.
        """
        stream = self._streams.get(alert.stream_id)
        if stream is None or not stream.wants_alerts:
            return
        if not self._sent_alerts.add(alert.stream_id, alert.id):
            return  # a bridge repeats an alert when the confirmation was lost
        message = wire.text_message(alert.to_json())
        timed = None
        if stamps is not None and self._latency is not None:
            message = timed = self._latency.timed(message, alert, stamps)
            timed.is_fanned_out = True
        viewers, publishers = self._send_alert(stream, alert.id, message, now, accepted_s, timed)
        if timed is not None:
            timed.is_fanned_out = False  # what waits in queues is told when it is written
            self._tell_written(timed)
        if self.on_told is not None:
            self.on_told(alert.stream_id, alert.id, viewers, publishers)

    def on_acknowledged(
        self, alert: Alert, acknowledgement: Acknowledgement, now: float, *, accepted_s: float | None = None
    ) -> None:
        """Send that an alert was acknowledged to those who get the alerts of its stream.

        `now`: seconds of the loop's clock. `accepted_s`: when a router accepted it, by the same clock, where the router
        sends it again after a loss: it goes only to those who were there at that time.
        """
        stream = self._streams.get(alert.stream_id)
        if stream is None or not stream.wants_alerts:
            return
        key = acknowledged_key(alert.id)
        if not self._sent_alerts.add(alert.stream_id, key):
            return
        message = wire.text_message(acknowledged_message(alert.stream_id, alert.id, acknowledgement))
        self._send_alert(stream, key, message, now, accepted_s)

    def _tell_written(self, timed: TimedMessage) -> None:
        """Tell the ledger to how many sockets an alert was written since it was told last."""
        written, timed.written = timed.written, 0
        if written and self._latency is not None:
            self._latency.on_alert_written(timed, written)

    def _send_alert(
        self,
        stream: LocalStream,
        key: str,
        message: bytes,
        now: float,
        accepted_s: float | None,
        timed: TimedMessage | None = None,
    ) -> tuple[int, int]:
        """Send an alert, or its acknowledgement, which have different keys; the other arguments as in `on_alert`.

        `timed`: the message, where the ledger is told of it. Returns how many viewers and publishers got it.
        """
        viewers = publishers = 0
        queued = list(stream.alerts_queued.items())  # first: a direct viewer that becomes full moves to the queued ones
        if accepted_s is not None:  # it is not for all: each is asked
            queued += [(subscription, stream.viewers[subscription]) for subscription in stream.alerts_direct]
        elif stream.alerts_direct:
            viewers = self._write_alert_to_all(stream, message, now, timed)
        for subscription, viewer in queued:
            if accepted_s is not None and (accepted_s < subscription.subscribed_s or key in subscription.replayed):
                continue
            subscription.alerts_counted += 1
            viewers += 1
            if subscription.held_alerts is None:
                viewer.send_alert(subscription, message)
                if timed is not None and timed.written >= TOLD_TOGETHER:
                    self._tell_written(timed)
            elif len(subscription.held_alerts) < MAX_HELD_ALERTS:
                subscription.held_alerts[key] = message
            else:  # an open connection drops no alert: the viewer will be closed
                subscription.held_alerts_overflowed = True
        self.alerts_out += viewers
        publication = stream.publication
        if (
            publication is not None
            and publication.wants_alerts
            and (accepted_s is None or publication.registered_s <= accepted_s)
        ):
            self.alerts_out += 1
            publication.alerts_told += 1
            publishers = 1
            publication.publisher.send_message(message)
        return viewers, publishers

    def _write_alert_to_all(self, stream: LocalStream, message: bytes, now: float, timed: TimedMessage | None) -> int:
        """Write an alert to the viewers of a stream whose sockets take it at once; return how many they are."""
        stream.alerts_written += 1
        stream.alert_written_at = now
        writes = list(stream.alerts_direct.values())  # a copy: a viewer that becomes full leaves during the loop
        plain = bytes(message)  # of a subclass of `bytes` each transport would make a view
        for begin in range(0, len(writes), TOLD_TOGETHER):
            together = writes[begin : begin + TOLD_TOGETHER]
            for write in together:
                write(plain)
            if timed is not None and self._latency is not None:
                self._latency.on_alert_written(timed, len(together))
        return len(writes)

    # ── newest frames ────────────────────────────────────────────────────────────────────────────────────────────

    def newest_frame(self, stream_id: str) -> Frame | None:
        """Return the newest frame of a stream that is a picture, None when this gateway has none."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.newest is None:
            return None
        self._to_measure.add(stream_id)
        return stream.newest

    def forget_newest(self, stream: LocalStream) -> None:
        """Forget the newest frame of a stream, and those that wait until a frame rate permits them."""
        self.drop_over_rate(stream)
        stream.newest = stream.last_undecodable = None
        self.newest_frames.remove(stream.id)

    def drop_over_rate(self, stream: LocalStream) -> None:
        """Drop the frames of a stream that wait until a frame rate permits them: their publication or term is over."""
        for subscription in stream.queued:
            subscription.drop_over_rate()
        if stream.publication is not None:
            self.forget_waiting(stream.publication)

    def forget_frames(self, stream: LocalStream) -> None:
        """Forget all frames of a stream that was closed."""
        self.forget_newest(stream)
        self.newest_frames.remove(stream.id + _EARLY)

    def restart_ids(self, stream: LocalStream) -> None:
        """Accept frame ids from 1 again: those of the stream have wrapped around."""
        stream.last_frame_id = 0
        self.forget_newest(stream)
        for subscription in stream.viewers:
            subscription.restart_ids()

    def measure_newest(self) -> None:
        """Correct the sizes of newest frames that were handed out, and compact those of idle streams."""
        to_measure, self._to_measure = self._to_measure, set()
        for name in to_measure:
            stream = self._streams.get(name)
            if stream is not None and stream.newest is not None:
                if stream.status != "streaming":
                    stream.newest.compact()
                self._discard(self.newest_frames.resize(name, stream.newest.size_bytes))

    def _discard(self, keys: Iterable[str]) -> None:
        """Discard the newest or early frames under these keys of `newest_frames`."""
        for key in keys:
            if key.endswith(_OTHER):
                if (publication := self._publications.get(key.removesuffix(_OTHER))) is not None:
                    for sampler in publication.samplers():
                        sampler.other = None
            elif key.endswith(_EARLY):
                if (stream := self._streams.get(key.removesuffix(_EARLY))) is not None:
                    stream.early_frame = None
            elif (stream := self._streams.get(key)) is not None:
                self._drop_uncounted(stream)
                stream.newest = None

    def _drop_uncounted(self, stream: LocalStream) -> None:
        """Drop the frames that wait until a frame rate permits them, and whose bytes only `newest_frames` counts."""
        for subscription in stream.queued:
            if subscription.waiting_frame is stream.newest:
                subscription.drop_over_rate()
        if stream.publication is not None:
            for sampler in stream.publication.samplers():
                if sampler.picture is stream.newest:
                    sampler.picture = None
