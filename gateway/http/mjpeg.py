"""Sends a stream as ``multipart/x-mixed-replace``, which a browser's ``img`` shows as a moving picture over plain HTTP.

The response is a viewer of the hub. One picture waits at most, the newest; those it replaces are dropped. The response
ends when the session ends, the permission is lost, or the reader disconnects. While no new picture arrives, the newest
is repeated at intervals, so that browsers show it, proxies keep the connection, and a vanished reader is noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from typing import Final

from aiohttp import web

from watchout.common import metric_names
from watchout.common.clock import now_ms
from watchout.common.media.frames import Frame
from watchout.gateway.context import Context
from watchout.gateway.http.mjpeg_parts import (
    BOUNDARY,
    FIRST_BOUNDARY,
    PART_END,
    WAITING_LINE,
    AcceptedPictures,
    RepeatTimer,
    part_head,
)
from watchout.gateway.http.responses import connection_of
from watchout.gateway.hub.subscription import DropReason, Subscription
from watchout.gateway.kernel_buffers import shares_writes
from watchout.gateway.why.tcp_info import TcpInfo, read_tcp_info
from watchout.gateway.write_monitor import WriteMonitor
from watchout.identity import Identity

MJPEG_HEADERS: Final = {
    "Content-Type": f"multipart/x-mixed-replace; boundary={BOUNDARY}",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # nginx would buffer pictures
}


class _ShownFrame:
    """Stands in `WaitingFrames` for the frame that an MJPEG response is writing, or has written and may repeat.

    Made by `Mjpeg`. It is separate because `WaitingFrames` counts one frame per holder, and the subscription is the
    holder of the next frame, which waits to be written.
    """

    __slots__ = ("_mjpeg",)

    def __init__(self, mjpeg: Mjpeg) -> None:
        self._mjpeg = weakref.ref(mjpeg)  # not a strong reference: the cycle would live until a garbage collection

    def on_frame_evicted(self) -> None:
        """End the response, because waiting frames exceed their memory; its reader connects again."""
        if (mjpeg := self._mjpeg()) is not None:
            mjpeg.end("it did not read its picture, and too many frames wait in this gateway")


class Mjpeg:
    """One response with a moving picture: a `Viewer` of the hub and a `RevalidatedClient`.

    `StreamPages.mjpeg` creates it, subscribes it to the stream and awaits `serve`.

    Args:
        context: What the gateway's connections share.
        subscription: The subscription, with the viewer's identity and highest rate.
        accepted: The pictures that the reader can show.
        monitor: Watches how much the reader takes; None: the connection has none, as in tests.
    """

    def __init__(
        self, context: Context, subscription: Subscription, accepted: AcceptedPictures, monitor: WriteMonitor | None
    ) -> None:
        self._context = context
        self._subscription = subscription
        self._accepted = accepted
        self._monitor = monitor
        #: The frame that was written last; the one that waits is in the subscription.
        self._shown: Frame | None = None
        self._shown_holder = _ShownFrame(self)
        self._user = subscription.identity.user_id
        self._wake = asyncio.Event()
        self._ended = False
        #: Why the gateway ended the response; empty: it did not.
        self._why = ""
        #: The transport while a part is being written, else None.
        self._writing: asyncio.Transport | None = None

    @property
    def subscription(self) -> Subscription:
        """The subscription that its pictures are of."""
        return self._subscription

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Send pictures until the response ends; then unsubscribe and release everything.

        The caller has counted the connection with `Connections.add_socket`.
        """
        response = web.StreamResponse(headers=MJPEG_HEADERS)
        response.force_close()  # without a length, the response ends with the connection
        self._context.presence.add(self, self._subscription.identity, time.time())
        self._context.moving_pictures.add(self)
        connection = connection_of(request)
        tally = self._context.recorder.begin("" if connection is None else connection.address)
        tally.name_stream(self._subscription.stream)
        self._subscription.connection = tally.connection
        try:
            with contextlib.suppress(ConnectionError):  # the reader disconnected
                await response.prepare(request)
                if self._monitor is not None:
                    stalled_s = self._context.settings.idle_timeout_s
                    self._monitor.begin_stream(stalled_s, self._wake.set, self._on_full, self._on_stalled)
                await response.write(FIRST_BOUNDARY)
                await self._send_all(request, response)
                await response.write_eof()
        finally:
            self._writing = None  # from here on `_on_full` counts nothing
            self._context.hub.unsubscribe(self._subscription)
            self._context.presence.remove(self)
            self._context.moving_pictures.discard(self)
            self._context.hub.delivery.rate_waits.remove(self)
            self._context.waiting_frames.release(self._shown_holder)
            self._subscription.drop_waiting(DropReason.GONE)
            self.count_dropped()
            tally.add_subscription(self._subscription)
            tally.end(0, self._why or "the reader left", "gateway" if self._why else "client")
            self._context.recorder.closed(tally, user=self._user, path=request.path, tcp=self._tcp_info(request))
        return response

    def _tcp_info(self, request: web.Request) -> TcpInfo | None:
        """Return what the kernel knows of the connection, which the reader may have ended."""
        if request.transport is not None:
            return read_tcp_info(request.transport)
        return None if self._monitor is None else self._monitor.tcp

    async def _send_all(self, request: web.Request, response: web.StreamResponse) -> None:
        loop = asyncio.get_running_loop()
        repeat = RepeatTimer(loop.time())
        while not self._ended and request.transport is not None and not request.transport.is_closing():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(repeat.due):
                    await self._wake.wait()
            self._wake.clear()
            frame = self._take_waiting(loop.time())  # None when it has ended or nothing is due
            self._writing = request.transport
            if frame is not None:
                self._shown, waited = frame, self._subscription.waits_for_rate
                self._context.waiting_frames.hold(self._shown_holder, self._user, frame, frame.size_bytes)
                self._context.hub.delivery.frames_out += 1
                size_bytes = await self._send_part(frame, response)
                self._context.hub.delivery.frame_bytes_out += size_bytes
                if not waited:  # that wait is no latency
                    self._context.router.latency.on_frame_written(frame)
                repeat.on_new_part(loop.time())
            elif loop.time() < repeat.due or self._ended:
                pass
            elif self._shown is not None:
                self._context.metrics.count(metric_names.MJPEG_PARTS_REPEATED)
                await self._send_part(self._shown, response)
                repeat.on_repeated_part(loop.time())
            elif repeat.take_waiting_line(loop.time()):
                await response.write(WAITING_LINE)
            else:
                return
            self._writing = None

    def _take_waiting(self, now: float) -> Frame | None:
        """Remove and return the frame that waits; None: none waits, it may not be sent, or not yet by the rate."""
        subscription = self._subscription
        if self._ended or subscription.is_over_rate(now) or (frame := subscription.take_waiting()) is None:
            return None
        subscription.take_rate(now)
        subscription.mark_sent(frame, now)
        return frame

    async def _send_part(self, frame: Frame, response: web.StreamResponse) -> int:
        """Write the picture of a frame as one part, and wait until the kernel has it. Returns its size in bytes."""
        head, picture = part_head(frame), frame.picture
        await response.write(head)
        await response.write(picture)  # apart from the rest: all responses write this same object
        await response.write(PART_END)
        if self._monitor is not None:
            await self._monitor.wait_until_taken()
        return len(head) + len(picture) + len(PART_END)

    # ── hub.streams.Viewer ──────────────────────────────────────────────────────────────────────────────────────────

    def send_frame(self, subscription: Subscription, frame: Frame, now: float) -> None:
        """Keep a frame until the part before is written, or drop it."""
        if not frame.is_picture:  # it does not replace the waiting picture
            self._cannot_show(frame, frame.fault)
            return
        if not self._accepted.accepts(frame.codec) or not frame.is_key:  # each part must be decodable by itself
            subscription.count_waiting(self._context.waiting_frames)  # it is not the stream's newest any more
            subscription.drop(DropReason.CODEC)
            return
        if not self._accepted.can_show(frame):
            self._cannot_show(frame, f"this {frame.codec.name} is broken: its head does not say a size to be shown in")
            return
        reason = DropReason.RATE if subscription.is_over_rate(now) else DropReason.SLOW
        subscription.keep(frame, reason, now, self._context.waiting_frames)
        if (release_at := subscription.release_at()) > now:
            self._context.hub.delivery.rate_waits.enter(self, release_at)
        else:
            self._wake.set()

    def release_waiting(self, now: float) -> float | None:
        """Have the waiting frame written if the rate permits it; return when it will, None: nothing waits for that."""
        if self._subscription.waiting_frame is None:
            return None
        if (release_at := self._subscription.release_at()) > now:
            return release_at
        self._wake.set()
        return None

    def _on_full(self) -> None:
        """Count what the transport buffers for a reader that does not read, unless the bytes are shared."""
        transport = self._writing
        if transport is not None and not shares_writes(transport, asyncio.get_running_loop()):
            size = transport.get_write_buffer_size()
            self._context.waiting_frames.hold(self._shown_holder, self._user, self._shown_holder, size)

    def _on_stalled(self) -> None:
        """Record that the reader is cut off."""
        idle_s = self._context.settings.idle_timeout_s
        self._why = self._why or f"it took nothing of its picture for {idle_s:g} s, or hardly anything"

    def _cannot_show(self, frame: Frame, fault: str) -> None:
        self._subscription.count_waiting(self._context.waiting_frames)  # it may not be the stream's newest any more
        self._subscription.drop(DropReason.UNDECODABLE)
        self._context.metrics.count(metric_names.FRAMES_UNDECODABLE)
        self._context.router.report_undecodable(frame, fault, now_ms())

    def send_message(self, message: bytes) -> None:
        """Discard a status message: it has no place in a picture."""

    def send_alert(self, subscription: Subscription, message: bytes) -> None:
        """Discard an alert: the subscription asks for none."""

    def on_permission_lost(self, stream: str) -> None:
        """End the response."""
        self.end(f"UNAUTHORIZED: no permission for {stream} any more")

    # ── revalidation.RevalidatedClient ────────────────────────────────────────────────────────────────────────────────

    def on_session_ended(self) -> None:
        """End the response."""
        self._context.metrics.count(metric_names.CLOSED_SESSION_ENDED)
        self.end("SESSION_ENDED")

    def on_identity_changed(self, identity: Identity) -> None:
        """Judge the permission of the changed identity; end the response without it."""
        self._subscription.identity = identity
        if not self._context.authorization.allows(
            self._subscription, self._context.hub.last_known_owner(self._subscription.stream)
        ):
            self.end("UNAUTHORIZED: no permission any more")

    def count_dropped(self) -> None:
        """Add the frames dropped since the last call to the metrics."""
        self._context.count_dropped(self._subscription)

    def end(self, why: str = "restart") -> None:
        """Send nothing more and end the response: the permission is lost, or the gateway drains.

        Args:
            why: The reason, for logs.
        """
        self._ended = True
        self._why = self._why or why
        self._shown = None
        self._subscription.drop_waiting(DropReason.GONE)
        self._wake.set()
        if self._writing is not None:  # bytes that a slow reader has not read must not reach it any more
            self._writing.abort()
