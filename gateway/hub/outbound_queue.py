"""What waits for one viewer whose socket is full: messages in order, and the newest frame of each stream. Pure.

- Messages (alerts, status, replies) wait in order and are never dropped. When too many wait, `OutboundQueueFull` is
  raised and the viewer is closed.
- Frames: one waits per subscription; a newer one replaces it.

While the socket accepts bytes, only frames that exceed a viewer's rate or window wait: the caller writes at once what
`offer_frame` or `offer_message` permit, and when a rate permits the frame that waits, what `next` returns.
When the socket is full the caller sets `blocked`; when it has drained the caller clears it and writes what `next`
returns until that is None. `now` in seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from watchout.common.media.drop_policy import STANDALONE
from watchout.common.media.frames import Frame
from watchout.common.settings import Settings
from watchout.gateway.hub.subscription import DropReason, Subscription
from watchout.gateway.hub.waiting_frames import WaitingFrames


class OutboundQueueFull(Exception):
    """More messages wait for a viewer than `ALERT_QUEUE_MESSAGES` or `ALERT_QUEUE_BYTES` permit.

    Raised by `OutboundQueue.offer_message`; `ClientSocketWriter` closes the socket.

    Attributes:
        messages: Messages that wait.
        pending_bytes: Their bytes.
    """

    def __init__(self, messages: int, pending_bytes: int) -> None:
        self.messages = messages
        self.pending_bytes = pending_bytes
        super().__init__(f"{messages} messages with {pending_bytes} bytes wait")


class OutboundQueue:
    """The outbound queue of one viewer's socket: decides what is written now, what waits, and what is dropped.

    Created, filled and emptied by the `WebSocket`, which does all writing. `offer_message` raises `OutboundQueueFull`;
    the socket is then closed.

    Args:
        settings: The bounds of waiting messages.
        encode: Returns the bytes of a frame in the subscription's format, or None when it cannot be encoded.
        waiting_frames: Accounts for the memory of waiting frames of all viewers; None: no accounting.

    Attributes:
        blocked: The socket is full. Set and cleared by the caller.
    """

    __slots__ = (
        "_bytes",
        "_encode",
        "_frames",
        "_max_bytes",
        "_max_messages",
        "_messages",
        "_waiting_frames",
        "blocked",
    )

    def __init__(
        self,
        settings: Settings,
        encode: Callable[[Subscription, Frame], bytes | None],
        waiting_frames: WaitingFrames | None = None,
    ) -> None:
        self._waiting_frames = waiting_frames
        self._max_messages = settings.alert_queue_messages
        self._max_bytes = settings.alert_queue_bytes
        self._encode = encode
        # Both are made when first needed: most sockets never block.
        self._messages: deque[bytes] | None = None
        #: Subscriptions that may have a waiting frame, in the order of their turns.
        self._frames: dict[Subscription, None] | None = None
        self._bytes = 0
        self.blocked = False

    def offer_frame(self, subscription: Subscription, frame: Frame, now: float) -> bool:
        """Return whether the caller writes `frame` now. If not, it waits, or is dropped, for example as not decodable.

        The caller offers frames in their order, and none twice.
        """
        waiting = subscription.waiting_frame
        frame_id = frame.frame_id
        before = subscription.last_frame_id if waiting is None else waiting.frame_id
        if (frame_id != before + 1 or not before) and not frame.is_key:  # the frame that it depends on was dropped
            subscription.drop(DropReason.UNDECODABLE)
            return False
        paced = subscription.sampler is not None or subscription.window is not None
        reason = self._waits_for(subscription, now) if paced or self.blocked else None
        if waiting is not None:
            kind = frame.kind
            if kind is not STANDALONE and not kind.policy.replaces(waiting.kind, kind):
                subscription.drop(reason or _reason_of(subscription))
                return False
        if reason is not None:
            self._keep(subscription, frame, reason, now)
            return False
        if waiting is not None:
            subscription.drop_waiting(_reason_of(subscription))
        if subscription.sampler is not None:
            subscription.sampler.take(now)
        subscription.last_frame_id = frame_id
        if subscription.window is not None:
            subscription.mark_sent(frame, now)
        return True

    def offer_message(self, message: bytes) -> bool:
        """Return whether the caller writes `message` now. Otherwise it waits. Raises `OutboundQueueFull`."""
        if not self.blocked:
            return True
        if self._messages is None:
            self._messages = deque()
        if len(self._messages) >= self._max_messages or self._bytes + len(message) > self._max_bytes:
            raise OutboundQueueFull(len(self._messages), self._bytes)
        self._messages.append(message)
        self._bytes += len(message)
        return False

    def next(self, now: float) -> bytes | None:
        """Remove and return what to write next: messages in order, then waiting frames in turn. None: nothing."""
        if self._messages:
            message = self._messages.popleft()
            self._bytes -= len(message)
            return message
        for subscription in list(self._frames or ()):
            frame = subscription.waiting_frame
            assert self._frames is not None
            if frame is None:
                del self._frames[subscription]
            elif subscription.window_open(now) and subscription.release_at() <= now:
                del self._frames[subscription]
                subscription.take_waiting()
                subscription.take_rate(now)
                subscription.mark_sent(frame, now)
                encoded = self._encode(subscription, frame)
                if encoded is not None:
                    return encoded
                subscription.mark_undecodable()
        return None

    def clear_messages(self) -> None:
        """Discard all waiting messages: the viewer is closed because it is too slow."""
        if self._messages is not None:
            self._messages.clear()
        self._bytes = 0

    def remove(self, subscription: Subscription) -> None:
        """Drop the waiting frame of a subscription that ends."""
        subscription.drop_waiting(DropReason.GONE)
        if self._frames is not None:
            self._frames.pop(subscription, None)

    def close(self) -> None:
        """Discard everything after the socket is gone, and every reference to it."""
        self._encode = _encode_nothing
        for subscription in self._frames or ():
            subscription.take_waiting()
        self._messages = self._frames = None
        self._bytes = 0

    @property
    def pending(self) -> tuple[int, int]:
        """Number of waiting messages, and their bytes."""
        return len(self._messages or ()), self._bytes

    @property
    def depth(self) -> tuple[int, int]:
        """Number of waiting messages and of waiting frames."""
        return len(self._messages or ()), sum(s.waiting_frame is not None for s in self._frames or ())

    def awaits_ack(self) -> bool:
        """Return whether a frame waits for an acknowledgement, or for the time at which it is sent without one."""
        return any(s.waiting_frame is not None and s.window is not None for s in self._frames or ())

    def release_at(self, now: float) -> float | None:
        """Return when the first frame that waits for its rate is to be sent; None: after `now` there is none."""
        times = [s.release_at() for s in self._frames or () if s.waiting_frame is not None]
        return min((at for at in times if at > now), default=None)

    def _waits_for(self, subscription: Subscription, now: float) -> DropReason | None:
        """Return for what a frame at `now` would have to wait, as the reason for which it may be dropped; else None."""
        if subscription.is_over_rate(now):
            return DropReason.RATE
        if self.blocked:
            return DropReason.SLOW
        if subscription.window is not None and not subscription.window_open(now):
            return DropReason.WINDOW
        return None

    def _keep(self, subscription: Subscription, frame: Frame, reason: DropReason, now: float) -> None:
        subscription.keep(frame, reason, now, self._waiting_frames)
        if self._frames is None:
            self._frames = {}
        self._frames[subscription] = None


def _reason_of(subscription: Subscription) -> DropReason:
    """Return for what the waiting frame of a subscription to a socket that is not full has waited."""
    return DropReason.RATE if subscription.waits_for_rate else DropReason.WINDOW


def _encode_nothing(subscription: Subscription, frame: Frame) -> bytes | None:  # noqa: ARG001 - the encoder's signature
    """The encoder of a closed socket: encodes no frame."""
    return None
