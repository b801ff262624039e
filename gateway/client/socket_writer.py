"""The writing half of a client's socket: frames and messages from the outbound queue to the transport."""

from __future__ import annotations

import abc
import asyncio
import contextlib
from typing import Final

from websockets.protocol import SEND_EOF

from watchout.common import log, metric_names
from watchout.common.clock import now_ms
from watchout.common.media.frames import Frame, FrameFault
from watchout.gateway import wire
from watchout.gateway.context import Context
from watchout.gateway.hub.outbound_queue import OutboundQueue, OutboundQueueFull
from watchout.gateway.hub.subscription import UNACKED_EVERY_S, DropReason, Subscription
from watchout.gateway.kernel_buffers import shares_writes
from watchout.gateway.latency.timed_message import TimedMessage
from watchout.gateway.why.tally import ABNORMAL, Tally

#: First byte of a ping frame and of a pong frame.
_PING: Final = 0x89
_PONG: Final = 0x8A

_log = log.get("gateway.client.socket_writer")


class ClientSocketWriter(abc.ABC):
    """Sends frames and messages to one client; base class of `WebSocket`, which does the reading and the closing.

    While the kernel takes bytes, everything is written at once. When it takes no more, messages wait in order and of
    each stream the newest frame waits, in an `OutboundQueue`, until the transport calls `resume_writing`. A frame over
    the rate of its subscription waits there too, until `release_waiting`.
    """

    __slots__ = (
        "_context",
        "_late_ack",
        "_late_pong",
        "_loop",
        "_lost",
        "_outbound_queue",
        "_ping_every_s",
        "_sent_at",
        "_transport",
        "_window_timer",
        "_written",
        "_wrote_eof",
        "closing",
        "tally",
    )

    def __init__(self, context: Context) -> None:
        self._context = context
        self.tally: Tally
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._outbound_queue = OutboundQueue(context.settings, self._encode_waiting, context.waiting_frames)
        #: Whether the close has begun: from then on only control frames and the end are written.
        self.closing = False
        #: The connection is lost.
        self._lost = False
        self._wrote_eof = False
        #: A pong that waits for the kernel; only the newest is sent (RFC 6455 section 5.5.3).
        self._late_pong = b""
        #: An acknowledgement of frames that waits for the kernel; only the newest is sent.
        self._late_ack = b""
        #: Sends a frame that waits for an acknowledgement which does not arrive.
        self._window_timer: asyncio.TimerHandle | None = None
        #: Length of a silence, in seconds, in which the client gets a `ping`; None: it asked for none.
        self._ping_every_s: float | None = None
        #: When a message was written last, in seconds of the loop's clock; what is written directly is not in it.
        self._sent_at = self._loop.time()
        #: Completed when no message waits any more; see `wait_until_written`.
        self._written: asyncio.Future[None] | None = None

    @property
    @abc.abstractmethod
    def _user_id(self) -> str | None:
        """The authenticated user, under whom waiting bytes count; None before authentication."""

    @abc.abstractmethod
    def close_slow(self, reason: str | None = None) -> None:
        """Close a client that does not read its messages."""

    # ── hub.streams.Viewer and PublisherSocket ───────────────────────────────────────────────────────────────────

    def send_frame(self, subscription: Subscription, frame: Frame, now: float) -> None:
        """Send a frame, queue it, or drop it, as subscription and queue decide; `now` is the loop's time in seconds."""
        if self.closing:
            return
        if subscription.format == "binary" and not frame.has_binary:  # it does not replace a picture that waits
            subscription.drop(DropReason.UNDECODABLE)
            self._context.metrics.count(metric_names.FRAMES_UNDECODABLE)
            self._context.router.report_undecodable(frame, frame.fault, now_ms())
            return
        if subscription.waiting_frame is not None and not self._can_replace(subscription, frame, now):
            return
        if self._outbound_queue.offer_frame(subscription, frame, now):
            encoded = frame.json_wire if subscription.format == "json" else frame.binary_wire
            if encoded is None and (encoded := self._encode(subscription, frame)) is None:
                subscription.mark_undecodable()
                return
            self._count_out(encoded)
            self._sent_at = now
            self._write_shared(encoded)
            if frame.stamps is not None:
                self._context.router.latency.on_frame_written(frame)
            if subscription.sampler is None and subscription.window is None and not self._outbound_queue.blocked:
                self._context.hub.delivery.start_direct_writes(subscription, self._transport.write)
        elif subscription.waiting_frame is not None:
            if subscription.sampler is not None and (release_at := subscription.release_at()) > now:
                self._context.hub.delivery.rate_waits.enter(self, release_at)
            else:
                self._start_window_timer()

    def _can_replace(self, subscription: Subscription, frame: Frame, now: float) -> bool:
        """Return whether a frame may take the place of one that waits; drop it if it would be written and cannot be."""
        if frame.binary_wire is not None or subscription.format == "json" or subscription.is_over_rate(now):
            return True
        if self._outbound_queue.blocked or not subscription.window_open(now):
            return True
        if self._encode(subscription, frame) is None:
            subscription.drop(DropReason.UNDECODABLE)
            return False
        return True

    def send_message(self, message: bytes) -> None:
        """Send a ready-made reply, alert or status after those that wait; closes a client whose queue is full."""
        if self.closing:
            return
        timed = message if type(message) is TimedMessage else None
        if timed is None and wire.is_error(message):
            self._context.metrics.count(metric_names.CLIENT_ERRORS)
            self._context.recorder.error(self.tally, self._user_id, message)
        queue = self._outbound_queue
        if queue.blocked:
            try:
                queue.offer_message(message)
            except OutboundQueueFull as full:
                _log.info("viewer closed: its outbound queue is full", messages=full.messages, bytes=full.pending_bytes)
                self.tally.waiting = full.messages, full.pending_bytes
                self.close_slow()
            return
        self._sent_at = self._loop.time()
        self._transport.write(message)
        if timed is not None:
            self._note_written(timed)

    def send_alert(self, subscription: Subscription, message: bytes) -> None:
        """Send an alert as `send_message` does; the next ones are written directly as long as nothing waits here."""
        self.send_message(message)
        if not self._outbound_queue.blocked and not self.closing:
            self._context.hub.delivery.start_direct_alerts(subscription, self._transport.write)

    def _note_written(self, message: TimedMessage) -> None:
        """Let the ledger know that an alert was written, now or with those to other sockets."""
        if message.is_fanned_out:
            message.written += 1
        else:
            self._context.router.latency.on_alert_written(message)

    def send_ping(self, data: bytes) -> None:
        """Send a WebSocket ping with these bytes, unless the kernel takes none: it would tell of what waits here."""
        if not self.closing and not self._lost and not self._outbound_queue.blocked:
            self._transport.write(bytes((_PING, len(data))) + data)

    def send_ack(self, message: bytes) -> None:
        """Send an acknowledgement; while the kernel takes no bytes the newest waits, and replaces the one before."""
        if self.closing:
            return
        if self._outbound_queue.blocked:
            self._late_ack = message
        else:
            self._sent_at = self._loop.time()
            self._transport.write(message)

    # ── pings ────────────────────────────────────────────────────────────────────────────────────────────────────

    def ping_silence(self, every_s: float) -> None:
        """Send a `ping` in every silence of this many seconds from now on; the last call counts."""
        if self.closing:
            return
        self._ping_every_s = every_s
        self._context.silences.enter(self, self._last_sent_at() + every_s)

    def ping_if_silent(self, now: float) -> None:
        """Send a `ping` if nothing was sent for `_ping_every_s`; called when that may be so."""
        every_s = self._ping_every_s
        if self.closing or every_s is None:
            return
        sent_at = self._last_sent_at()
        if self._outbound_queue.blocked:  # much is on its way
            sent_at = now
        elif now - sent_at >= every_s:
            self.send_message(wire.ping(now_ms()))
            sent_at = now
        if not self.closing:
            self._context.silences.enter(self, sent_at + every_s)

    @abc.abstractmethod
    def _last_sent_at(self) -> float:
        """Return when the last message or frame was written, in seconds of the loop's clock."""

    # ── backpressure ─────────────────────────────────────────────────────────────────────────────────────────────

    def _block(self) -> None:
        """Queue everything from now on, because the kernel takes no more."""
        self._outbound_queue.blocked = True

    def resume_writing(self) -> None:
        """Write what waits: the kernel has taken everything. Called by the transport."""
        self._outbound_queue.blocked = False
        self._context.waiting_frames.release(self)
        if self._late_pong and not self.closing:
            self._transport.write(self._late_pong)
        late_ack, self._late_pong, self._late_ack = self._late_ack, b"", b""
        if late_ack:
            self.send_ack(late_ack)
        self.write_waiting()

    def _count_transport_bytes(self) -> None:
        """Count the bytes that wait in the transport against the budget for frames that viewers have not read."""
        user = self._user_id
        size, body = self._transport.get_write_buffer_size(), self._context.hub.delivery.writing
        if not size or user is None or self.closing:
            return
        if body is not None and shares_writes(self._transport, self._loop):
            self._context.waiting_frames.hold(self, user, body, len(body))
        else:
            self._context.waiting_frames.hold(self, user, self, size)

    def on_frame_evicted(self) -> None:
        """Drop the connection: the frame that is half written is evicted, and no message can follow half a frame."""
        if not self._lost:
            self._context.metrics.count(metric_names.CLOSED_SLOW)
            _log.info("viewer closed: it did not read its frame, and too many frames wait")
            self.tally.end(ABNORMAL, "it did not read its frame, and too many frames wait in this gateway", "gateway")
            self._transport.abort()

    def write_waiting(self) -> None:
        """Write messages and frames that wait, as far as the kernel and the viewer's windows allow."""
        now = self._loop.time()
        while not self._outbound_queue.blocked and not self.closing:
            waiting = self._outbound_queue.next(now)
            if waiting is None:
                break
            self._sent_at = now
            self._write_shared(waiting)
            if type(waiting) is TimedMessage:
                self._context.router.latency.on_alert_written(waiting)
        if self._outbound_queue.awaits_ack():
            self._start_window_timer()
        if not self._outbound_queue.blocked:
            self._set_written()

    def release_waiting(self, now: float) -> float | None:
        """Write the frames that waited until their rate permits them; return when the next one is due, None: none."""
        self.write_waiting()
        return self._outbound_queue.release_at(now)

    async def wait_until_written(self) -> None:
        """Wait until no message waits for this client, or the connection closes."""
        while not self.closing and (self._outbound_queue.blocked or self._outbound_queue.depth[0]):
            if self._written is None:
                self._written = self._loop.create_future()
            await asyncio.shield(self._written)

    def discard_waiting(self, subscription: Subscription) -> None:
        """Discard the frame that waits for a subscription."""
        self._outbound_queue.remove(subscription)

    def _set_written(self) -> None:
        if self._written is not None:
            self._written.set_result(None)
            self._written = None

    def _start_window_timer(self) -> None:
        """Send the frame that waits for an acknowledgement after `UNACKED_EVERY_S`, also without one."""
        if self._window_timer is None and not self._outbound_queue.blocked and not self.closing:
            self._window_timer = self._loop.call_later(UNACKED_EVERY_S, self._on_window_timer)

    def _on_window_timer(self) -> None:
        self._window_timer = None
        self.write_waiting()

    # ── bytes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _encode(self, subscription: Subscription, frame: Frame) -> bytes | None:
        """Return a frame in the subscription's format, None (and the publisher gets an error) if that is impossible."""
        try:
            return wire.frame_message(frame, subscription.format)
        except FrameFault as fault:
            self._context.metrics.count(metric_names.FRAMES_UNDECODABLE)
            self._context.router.report_undecodable(frame, str(fault), now_ms())
            return None

    def _encode_waiting(self, subscription: Subscription, frame: Frame) -> bytes | None:
        """Encode and count a frame that leaves the queue; called by `OutboundQueue.next`."""
        encoded = self._encode(subscription, frame)
        if encoded is not None:
            self._count_out(encoded)
            if frame.stamps is not None and not subscription.waits_for_rate:  # that wait is no latency
                self._context.router.latency.on_frame_written(frame)
        return encoded

    def _count_out(self, encoded: bytes) -> None:
        delivery = self._context.hub.delivery
        delivery.frames_out += 1
        delivery.frame_bytes_out += len(encoded)

    def _write_shared(self, data: bytes) -> None:
        """Write bytes that other clients may get as well; `pause_writing` may be called meanwhile and counts them."""
        delivery = self._context.hub.delivery
        delivery.writing = data
        self._transport.write(data)
        delivery.writing = None

    def _write_control(self, data: bytes) -> None:
        """Write bytes of the library: control frames, the upgrade response, or the end (`SEND_EOF`)."""
        if self._wrote_eof:
            return
        if data == SEND_EOF:
            self._write_eof()
        elif self._outbound_queue.blocked and data[0] == _PONG:
            self._late_pong = data
        else:
            self._transport.write(data)

    def _write_queued_messages(self) -> None:
        """Write all messages that wait, before a close frame."""
        while self._outbound_queue.depth[0] and (waiting := self._outbound_queue.next(self._loop.time())) is not None:
            self._transport.write(waiting)

    def _write_eof(self) -> None:
        self._wrote_eof = True
        if not self._transport.can_write_eof():
            self._transport.close()
            return
        with contextlib.suppress(OSError):  # the peer has closed already
            self._transport.write_eof()
