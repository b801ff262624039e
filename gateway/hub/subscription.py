"""One viewer's subscription to one stream: its options, its position, and the frames it dropped. Pure."""

from __future__ import annotations

import enum
from collections import deque
from typing import Final

from watchout.common.media.frames import Frame
from watchout.common.media.rate import Sampler
from watchout.common.metric_names import FRAMES_DROPPED, CounterName
from watchout.gateway.hub.waiting_frames import WaitingFrames
from watchout.gateway.wire import Format
from watchout.identity import Identity

#: A viewer whose acknowledgement window is full still gets one frame per this many seconds.
UNACKED_EVERY_S: Final = 1.0


class DropReason(enum.StrEnum):
    """Why a frame was not sent to a viewer; recorded by `Subscription.drop`.

    Each reason has its own counter, `metric`.
    """

    #: A newer frame replaced it, or memory ran short, while the viewer's socket was full.
    SLOW = "slow"
    #: A newer frame replaced it while the viewer's acknowledgement window was full.
    WINDOW = "window"
    #: It exceeded the subscription's `maxFps`, and a newer one came before its turn.
    RATE = "rate"
    #: It was waiting when the subscription or the socket ended.
    GONE = "gone"
    #: It cannot be encoded in the subscription's format, or not be decoded without a frame that was dropped.
    UNDECODABLE = "undecodable"
    #: The HTTP reader does not accept pictures of its codec.
    CODEC = "codec"

    @property
    def metric(self) -> CounterName:
        """The counter of this reason."""
        return FRAMES_DROPPED[self.value]


class Subscription:
    """One viewer's subscription to one stream. Created at subscribe by `ClientProtocol`, or by an MJPEG request.

    The hub offers it frames and alerts. At any time: frames offered = frames written + the one in `waiting_frame` (0 or
    1) + frames in `dropped`.

    Args:
        stream: Id of the stream.
        identity: The viewer; replaced when the viewer's session changes.
        video: Whether frames are delivered.
        alerts: Whether alerts are delivered.
        format: Encoding of frames on the wire.
        max_fps: Highest rate of frames per second; None: every frame.
        last_frame: Whether the newest frame is sent at once, without waiting for the next.
        window: Most frames that are sent before one is acknowledged; None: the viewer does not acknowledge.

    Attributes:
        last_frame_id: Id of the newest frame that was written; 0: none.
    """

    __slots__ = (
        "alerts",
        "alerts_before",
        "alerts_counted",
        "arrived_before",
        "awaits_owner",
        "connection",
        "counted",
        "dropped",
        "dropped_reported",
        "format",
        "held_alerts",
        "held_alerts_overflowed",
        "identity",
        "last_frame",
        "last_frame_id",
        "max_fps",
        "replayed",
        "sampler",
        "sent_at",
        "stream",
        "subscribed_ms",
        "subscribed_s",
        "unacked",
        "video",
        "waiting_frame",
        "waiting_frames",
        "waits_for_rate",
        "window",
        "written",
    )

    def __init__(
        self,
        stream: str,
        identity: Identity,
        *,
        video: bool,
        alerts: bool,
        format: Format = "json",
        max_fps: float | None = None,
        last_frame: bool = True,
        window: int | None = None,
    ) -> None:
        self.stream = stream
        self.identity = identity
        self.video = video
        self.alerts = alerts
        self.format: Format = format
        self.max_fps = max_fps
        self.last_frame = last_frame
        self.window = window
        self.sampler = Sampler(max_fps) if max_fps else None
        self.last_frame_id = 0
        #: When the last frame was sent, in seconds of the loop's clock; set only with a window.
        self.sent_at = float("-inf")
        #: Ids of the frames that were sent and not acknowledged, oldest first; at most `window`.
        self.unacked: deque[int] = deque()
        #: The stream had no owner at subscribe; it counts against `MAX_WAITS_PER_USER`.
        self.awaits_owner = False
        #: It counts against `MAX_SUBSCRIPTIONS_PER_USER`.
        self.counted = False
        #: The newest frame that could not be written yet.
        self.waiting_frame: Frame | None = None
        #: `waiting_frame` waits because it exceeds `max_fps`, not because the viewer or its socket is slow.
        self.waits_for_rate = False
        #: The accounting of memory that `waiting_frame` is entered in; None: not entered.
        self.waiting_frames: WaitingFrames | None = None
        #: Live alerts by id that are held back while recent ones are fetched for `alertsSince`; None: not fetching.
        self.held_alerts: dict[str, bytes] | None = None
        #: More alerts arrived meanwhile than are held: the viewer is closed when the fetch ends.
        self.held_alerts_overflowed = False
        #: Time of subscribe, in seconds of the loop's clock: older alerts that the router repeats are not delivered.
        #: And in ms since the epoch.
        self.subscribed_s = 0.0
        self.subscribed_ms = 0
        #: Ids of the alerts that `alertsSince` delivered and that the router may repeat.
        self.replayed: frozenset[str] = frozenset()
        #: Dropped frames by reason; None: none. And the part of them that `take_newly_dropped` has returned.
        self.dropped: dict[DropReason, int] | None = None
        self.dropped_reported: dict[DropReason, int] | None = None
        #: Id of the viewer's connection, for those who ask why.
        self.connection = ""
        #: `LocalStream.arrived` when the delivery of frames began, less the newest one that was sent at once; None: it
        #: has not begun.
        self.arrived_before: int | None = None
        #: Frames that were written, counted at the end of the subscription.
        self.written = 0
        #: Alerts that were sent, but for those since it takes alerts directly; `alerts_told` returns all.
        self.alerts_counted = 0
        #: `LocalStream.alerts_written` when it began to take alerts directly; None: it does not.
        self.alerts_before: int | None = None

    def drop(self, reason: DropReason) -> None:
        """Count one frame that does not go out."""
        if self.dropped is None:
            self.dropped = {}
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def frames_written(self, arrived: int) -> int:
        """Return how many frames were written so far; `arrived` is `LocalStream.arrived`."""
        if self.arrived_before is None:
            return 0
        dropped = sum(self.dropped.values()) if self.dropped else 0
        return arrived - self.arrived_before - dropped - (self.waiting_frame is not None)

    def alerts_told(self, written: int) -> int:
        """Return how many alerts were sent so far; `written` is `LocalStream.alerts_written`."""
        return self.alerts_counted + (0 if self.alerts_before is None else written - self.alerts_before)

    def end_direct_alerts(self, written: int) -> None:
        """Count the alerts that were written directly; `written` is `LocalStream.alerts_written`."""
        self.alerts_counted, self.alerts_before = self.alerts_told(written), None

    def take_newly_dropped(self) -> dict[DropReason, int]:
        """Return the frames dropped since the last call, by reason. Counts may be 0."""
        if self.dropped is None or self.dropped == self.dropped_reported:
            return {}
        before, self.dropped_reported = self.dropped_reported or {}, dict(self.dropped)
        return {reason: count - before.get(reason, 0) for reason, count in self.dropped.items()}

    def drop_waiting(self, reason: DropReason) -> None:
        """Drop the waiting frame, if there is one."""
        if self.take_waiting() is not None:
            self.drop(reason)

    def take_waiting(self) -> Frame | None:
        """Remove and return the waiting frame, None when there is none."""
        frame, self.waiting_frame = self.waiting_frame, None
        if frame is not None and self.waiting_frames is not None:
            self.waiting_frames.release(self)
        return frame

    def keep(self, frame: Frame, reason: DropReason, now: float, waiting_frames: WaitingFrames | None) -> None:
        """Let a frame wait, in place of the one that waits; that is dropped for the same reason for which this waits.

        A picture that waits for the rate is the newest one of its stream, of which `NewestFrames` counts the bytes.
        All others are entered in `waiting_frames`.
        """
        self.drop_waiting(reason)
        self.waiting_frame = frame
        self.waits_for_rate = reason is DropReason.RATE
        if self.waits_for_rate and self.sampler is not None:
            self.sampler.hold(now)
            if frame.is_key_picture:
                return
        self.count_waiting(waiting_frames)

    def count_waiting(self, waiting_frames: WaitingFrames | None) -> None:
        """Enter the waiting frame in the accounting of memory, if there is one."""
        frame = self.waiting_frame
        if frame is not None and waiting_frames is not None:
            self.waiting_frames = waiting_frames
            waiting_frames.hold(self, self.identity.user_id, frame, frame.size_bytes)

    def drop_over_rate(self) -> None:
        """Drop the frame that waits for the rate, if there is one."""
        if self.waits_for_rate:
            self.drop_waiting(DropReason.RATE)

    def is_over_rate(self, now: float) -> bool:
        """Return whether a frame at `now` (seconds) exceeds `max_fps`."""
        return self.sampler is not None and now < self.sampler.due_at()

    def release_at(self) -> float:
        """Return the time, in seconds, from which `max_fps` permits the waiting frame if no newer one comes."""
        return float("-inf") if self.sampler is None else self.sampler.release_at()

    def take_rate(self, now: float) -> None:
        """Count a frame that is written at `now` (seconds) against `max_fps`."""
        if self.sampler is not None:
            self.sampler.take(now)

    def on_frame_evicted(self) -> None:
        """Drop the waiting frame because waiting frames exceed their memory. Called by `WaitingFrames`."""
        self.drop_waiting(DropReason.SLOW)

    def window_open(self, now: float) -> bool:
        """Return whether the acknowledgement window permits another frame at `now` (seconds)."""
        return self.window is None or len(self.unacked) < self.window or now - self.sent_at >= UNACKED_EVERY_S

    def mark_sent(self, frame: Frame, now: float) -> None:
        """Record that `frame` is written at `now` (seconds)."""
        self.last_frame_id = frame.frame_id
        if self.window is not None:
            self.sent_at = now
            self.unacked.append(frame.frame_id)
            if len(self.unacked) > self.window:
                self.unacked.popleft()

    def mark_undecodable(self) -> None:
        """Drop the frame that was just marked as sent: it cannot be encoded, so the viewer cannot acknowledge it.

        It does not count against `max_fps`.
        """
        self.drop(DropReason.UNDECODABLE)
        if self.sampler is not None:
            self.sampler.give_back()
        if self.window is not None:
            self.unacked.pop()

    def restart_ids(self) -> None:
        """Prepare for frame ids that start again at 1."""
        self.last_frame_id = 0
        self.drop_over_rate()
        waits_for_window = self.window is not None and len(self.unacked) >= self.window
        self.drop_waiting(DropReason.WINDOW if waits_for_window else DropReason.SLOW)  # for the frame with id 1
        self.unacked.clear()

    def acknowledge(self, frame_id: int) -> None:
        """Record that the viewer has seen all frames with ids up to `frame_id`."""
        while self.unacked and self.unacked[0] <= frame_id:
            self.unacked.popleft()
