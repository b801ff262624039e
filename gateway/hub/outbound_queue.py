"""What waits for one viewer: two lanes (docs/architecture.md). Pure; `now` in seconds.

- Messages (alerts, status, answers) wait in order; none is skipped. A full lane is `OutboundQueueFull`: the viewer is
closed.
- Frames: one slot per stream, the newest wins.

While the socket takes bytes nothing waits: the caller writes at once what `frame` or `message` allow it to. When the
socket is full the caller sets `blocked`, and after it drained asks `next` until that gives nothing more.

Of a subscription, at any time: frames offered = frames written + the one that waits + frames skipped, by reason.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import Final

from watchout.common.media.frames import Frame
from watchout.common.media.rate import Sampler
from watchout.common.settings import Settings
from watchout.gateway.hub.waiting_frames import WaitingFrames
from watchout.gateway.wire import Format
from watchout.identity import Identity

#: A viewer that does not acknowledge still gets a frame this often, in seconds.
UNACKED_EVERY_S: Final = 1.0


class OutboundQueueFull(Exception):
    """The message lane of a viewer is full."""

    def __init__(self, messages: int, pending_bytes: int) -> None:
        self.messages = messages
        self.pending_bytes = pending_bytes
        super().__init__(f"{messages} messages with {pending_bytes} bytes wait")


class DropReason(enum.StrEnum):
    """Why a viewer did not get a frame."""

    #: A newer one came while its socket was full.
    SLOW = "slow"
    #: A newer one came while it had not acknowledged enough.
    WINDOW = "window"
    #: It was over the subscription's `maxFps`.
    RATE = "rate"
    #: It was not newer than what it had.
    OLD = "old"
    #: It waited when the subscription or the socket ended.
    GONE = "gone"
    #: It cannot be had in this format, or not be decoded without a frame that was dropped.
    UNDECODABLE = "undecodable"
    #: The reader takes no pictures of its codec.
    CODEC = "codec"

    @property
    def metric(self) -> str:
        """The name of its counter."""
        return f"frames_skipped_{self.value}_total"


class Subscription:
    """One viewer's wish for one stream, and how far it got.

    `last_frame_id` is the newest frame that was written; frames never go back behind it. `term` is that frame's.
    """

    __slots__ = (
        "alerts",
        "began_ms",
        "counted",
        "format",
        "held",
        "held_too_many",
        "identity",
        "last_frame",
        "last_frame_id",
        "max_fps",
        "replayed",
        "sampler",
        "sent_at",
        "skipped",
        "skipped_counted",
        "slot",
        "stream",
        "unacked",
        "video",
        "waiting",
        "waits",
        "window",
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
        self.sent_at = float("-inf")
        self.unacked: deque[int] = deque()
        #: Nobody owned the stream when the subscription began.
        self.waits = False
        #: It counts among its user's subscriptions.
        self.counted = False
        self.slot: Frame | None = None
        #: Where the frame in the slot is counted; None: nowhere.
        self.waiting: WaitingFrames | None = None
        #: While recent alerts are fetched for `alertsSince`, live ones wait here, by id.
        self.held: dict[str, bytes] | None = None
        self.held_too_many = False
        #: Since when it is watched, in ms: alerts that are told again, and are older, are not for it.
        self.began_ms = 0
        #: Alerts not older than that which the replay for `alertsSince` gave it.
        self.replayed: frozenset[str] = frozenset()
        #: Frames that this viewer did not get, by reason; None: none. And those of them that are in the figures.
        self.skipped: dict[DropReason, int] | None = None
        self.skipped_counted: dict[DropReason, int] | None = None

    def skip(self, why: DropReason) -> None:
        """A frame does not go out."""
        if self.skipped is None:
            self.skipped = {}
        self.skipped[why] = self.skipped.get(why, 0) + 1

    def newly_skipped(self) -> dict[DropReason, int]:
        """What was skipped since this was last asked."""
        if self.skipped is None or self.skipped == self.skipped_counted:
            return {}
        before, self.skipped_counted = self.skipped_counted or {}, dict(self.skipped)
        return {why: count - before.get(why, 0) for why, count in self.skipped.items()}

    def empty_slot(self, why: DropReason) -> None:
        """The frame that waits, if one does, will not go out."""
        if self.take_slot() is not None:
            self.skip(why)

    def take_slot(self) -> Frame | None:
        """Take the frame that waits out of its slot."""
        frame, self.slot = self.slot, None
        if frame is not None and self.waiting is not None:
            self.waiting.release(self)
        return frame

    def frame_evicted(self) -> None:
        """The frame that waits gives way to those of others."""
        self.empty_slot(DropReason.SLOW)

    def window_open(self, now: float) -> bool:
        """Whether a frame may go out although earlier ones are not acknowledged."""
        return self.window is None or len(self.unacked) < self.window or now - self.sent_at >= UNACKED_EVERY_S

    def sent(self, frame: Frame, now: float) -> None:
        """A frame goes out now."""
        self.last_frame_id = frame.frame_id
        if self.window is not None:
            self.sent_at = now
            self.unacked.append(frame.frame_id)
            if len(self.unacked) > self.window:
                self.unacked.popleft()

    def unsent(self) -> None:
        """The frame that was to go out cannot be had in this format: the viewer cannot acknowledge it."""
        self.skip(DropReason.UNDECODABLE)
        if self.window is not None:
            self.unacked.pop()

    def begin_again(self) -> None:
        """The stream's frame ids begin again at 1."""
        self.last_frame_id = 0
        self.empty_slot(DropReason.OLD)
        self.unacked.clear()

    def acknowledge(self, frame_id: int) -> None:
        """The viewer has seen all frames up to this one."""
        while self.unacked and self.unacked[0] <= frame_id:
            self.unacked.popleft()


class OutboundQueue:
    """The lanes of one viewer's socket. `encode` makes the bytes of a frame, or None when it cannot be had so.

    `waiting`: where the frames in slots are counted, of all viewers; None: nowhere.
    """

    __slots__ = ("_bytes", "_encode", "_max_bytes", "_max_messages", "_messages", "_slots", "_waiting", "blocked")

    def __init__(
        self,
        settings: Settings,
        encode: Callable[[Subscription, Frame], bytes | None],
        waiting: WaitingFrames | None = None,
    ) -> None:
        self._waiting = waiting
        self._max_messages = settings.alert_lane_messages
        self._max_bytes = settings.alert_lane_bytes
        self._encode = encode
        self._messages: deque[bytes] | None = None  # made when first needed: most sockets never wait
        self._slots: dict[Subscription, None] | None = None
        self._bytes = 0
        self.blocked = False

    def frame(self, subscription: Subscription, frame: Frame, now: float) -> bool:
        """Whether this frame is to be written now; otherwise it waits in its slot, or is one too old or too many."""
        waiting = subscription.slot
        frame_id = frame.frame_id
        before = subscription.last_frame_id if waiting is None else waiting.frame_id
        if frame_id <= before:
            subscription.skip(DropReason.OLD)
            return False
        if (frame_id - before != 1 or not before) and not frame.is_key:  # the frame that it depends on was dropped
            subscription.skip(DropReason.UNDECODABLE)
            return False
        if waiting is not None and not frame.kind.policy.replaces(waiting.kind, frame.kind):
            subscription.skip(DropReason.SLOW if self.blocked else DropReason.WINDOW)
            return False
        if subscription.sampler is not None and not subscription.sampler.take(now):
            subscription.skip(DropReason.RATE)
            return False
        if self.blocked or (subscription.window is not None and not subscription.window_open(now)):
            self._keep(subscription, frame)
            return False
        if waiting is not None:
            subscription.empty_slot(DropReason.WINDOW)
        subscription.last_frame_id = frame_id
        if subscription.window is not None:
            subscription.sent(frame, now)
        return True

    def message(self, wire: bytes) -> bool:
        """Whether this message is to be written now; otherwise it waits its turn. Raises `OutboundQueueFull`."""
        if not self.blocked:
            return True
        if self._messages is None:
            self._messages = deque()
        if len(self._messages) >= self._max_messages or self._bytes + len(wire) > self._max_bytes:
            raise OutboundQueueFull(len(self._messages), self._bytes)
        self._messages.append(wire)
        self._bytes += len(wire)
        return False

    def next(self, now: float) -> bytes | None:
        """What to write next: messages in order, then slots in fair turns. None: nothing may go out now."""
        if self._messages:
            wire = self._messages.popleft()
            self._bytes -= len(wire)
            return wire
        for subscription in list(self._slots or ()):
            frame = subscription.slot
            assert self._slots is not None
            if frame is None:
                del self._slots[subscription]
            elif subscription.window_open(now):
                del self._slots[subscription]
                subscription.take_slot()
                subscription.sent(frame, now)
                encoded = self._encode(subscription, frame)
                if encoded is not None:
                    return encoded
                subscription.unsent()
        return None

    def forget_messages(self) -> None:
        """The viewer is closed because it is too slow: what waits is not sent."""
        if self._messages is not None:
            self._messages.clear()
        self._bytes = 0

    def drop(self, subscription: Subscription) -> None:
        """The viewer wants this stream no more."""
        subscription.empty_slot(DropReason.GONE)
        if self._slots is not None:
            self._slots.pop(subscription, None)

    def close(self) -> None:
        """The socket is gone: nothing waits any more, and nothing leads back to it."""
        self._encode = _nothing
        for subscription in self._slots or ():
            subscription.take_slot()
        self._messages = self._slots = None
        self._bytes = 0

    @property
    def waiting(self) -> tuple[int, int]:
        """Messages and frames that wait."""
        return len(self._messages or ()), sum(s.slot is not None for s in self._slots or ())

    def _keep(self, subscription: Subscription, frame: Frame) -> None:
        subscription.empty_slot(DropReason.SLOW if self.blocked else DropReason.WINDOW)
        subscription.slot = frame
        if self._slots is None:
            self._slots = {}
        self._slots[subscription] = None
        if self._waiting is not None:
            subscription.waiting = self._waiting
            self._waiting.hold(subscription, subscription.identity.user_id, frame, frame.size_bytes)


def _nothing(subscription: Subscription, frame: Frame) -> bytes | None:  # noqa: ARG001 - the signature of an encoder
    """No frame is encoded for a socket that is gone."""
    return None
