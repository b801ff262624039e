"""A stream as ``multipart/x-mixed-replace``: what a browser's ``img`` shows as a moving picture, over plain HTTP.

A viewer like any other, but with one lane: the newest picture waits, those that it replaces are skipped. It ends when
the session behind it does, when its right is lost, or when the reader is gone. While the camera is silent the newest
picture comes again now and then, so that browsers show it, proxies go on, and a reader that vanished is noticed.
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
    Silence,
    Taste,
    part_head,
)
from watchout.gateway.hub.subscription import DropReason, Subscription
from watchout.gateway.kernel_buffers import shares_writes
from watchout.gateway.write_monitor import WriteMonitor
from watchout.identity import Identity

MJPEG_HEADERS: Final = {
    "Content-Type": f"multipart/x-mixed-replace; boundary={BOUNDARY}",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # nginx would hold pictures back
}


class _Shown:
    """What holds the frame that a response shows, beside the one that waits for it."""

    __slots__ = ("_mjpeg",)

    def __init__(self, mjpeg: Mjpeg) -> None:
        self._mjpeg = weakref.ref(mjpeg)  # it has this one: a cycle would live until a collection

    def on_frame_evicted(self) -> None:
        """The frame gives way to those of others: the response ends, and its reader comes back."""
        if (mjpeg := self._mjpeg()) is not None:
            mjpeg.end()


class Mjpeg:
    """One response; a `hub.Viewer`, and a member of the roster."""

    def __init__(
        self, context: Context, subscription: Subscription, taste: Taste, monitor: WriteMonitor | None
    ) -> None:
        self._context = context
        self._subscription = subscription
        self._taste = taste
        self._monitor = monitor
        self._newest: Frame | None = None
        self._shown: Frame | None = None
        self._shows = _Shown(self)
        self._user = subscription.identity.user_id
        self._news = asyncio.Event()
        self._ended = False
        self._writing: asyncio.Transport | None = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Send pictures until it ends. `Connections.joined` has counted it; the stream is watched from here on."""
        response = web.StreamResponse(headers=MJPEG_HEADERS)
        response.force_close()  # without a length, the end of the connection is the end of the answer
        self._context.presence.add(self, self._subscription.identity, time.time())
        self._context.moving_pictures.add(self)
        try:
            with contextlib.suppress(ConnectionError):  # the reader went
                await response.prepare(request)
                if self._monitor is not None:
                    self._monitor.begin_stream(self._context.settings.idle_timeout_s, self._news.set, self._full)
                await response.write(FIRST_BOUNDARY)
                await self._send_all(request, response)
                await response.write_eof()
        finally:
            self._writing = None  # `_full` counts nothing any more
            self._context.hub.unsubscribe(self._subscription)
            self._context.presence.remove(self)
            self._context.moving_pictures.discard(self)
            self._context.waiting_frames.release(self)
            self._context.waiting_frames.release(self._shows)
            if self._newest is not None:
                self._subscription.drop(DropReason.GONE)
            self.count_dropped()
        return response

    async def _send_all(self, request: web.Request, response: web.StreamResponse) -> None:
        loop = asyncio.get_running_loop()
        silence = Silence(loop.time())
        while not self._ended and request.transport is not None and not request.transport.is_closing():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(silence.until):
                    await self._news.wait()
            self._news.clear()
            frame, self._newest = self._newest, None  # none when it has ended, or nothing came
            self._writing = request.transport
            if frame is not None:
                self._shown = frame
                self._context.waiting_frames.release(self)
                self._context.waiting_frames.hold(self._shows, self._user, frame, frame.size_bytes)
                self._context.hub.delivery.frames_out += 1
                self._context.hub.delivery.frame_bytes_out += await self._send_part(frame, response)
                silence.new_part(loop.time())
            elif loop.time() < silence.until or self._ended:
                pass
            elif self._shown is not None:
                self._context.metrics.count(metric_names.MJPEG_PARTS_REPEATED)
                await self._send_part(self._shown, response)
                silence.same_part(loop.time())
            elif silence.waiting_line(loop.time()):
                await response.write(WAITING_LINE)
            else:
                return
            self._writing = None

    async def _send_part(self, frame: Frame, response: web.StreamResponse) -> int:
        """Send the picture of a frame as a part; waits while the reader does not read. Returns its bytes."""
        head, picture = part_head(frame), frame.picture
        await response.write(head)
        await response.write(picture)  # by itself: it is shared with all who show this frame
        await response.write(PART_END)
        if self._monitor is not None:
            await self._monitor.wait_until_taken()
        return len(head) + len(picture) + len(PART_END)

    # ── hub.Viewer ───────────────────────────────────────────────────────────────────────────────────────────────

    def send_frame(self, subscription: Subscription, frame: Frame, now: float) -> None:
        """A frame of the stream: it waits until the one before is written."""
        if not frame.is_picture:  # it replaces no picture that waits
            self._cannot_show(frame, frame.fault)
            return
        if not self._taste.takes(frame.codec) or not frame.is_key:  # each part is decoded by itself
            subscription.drop(DropReason.CODEC)
            return
        waiting = subscription.last_frame_id if self._newest is None else self._newest.frame_id
        if frame.frame_id <= waiting:
            subscription.drop(DropReason.OLD)
            return
        if subscription.sampler is not None and not subscription.sampler.take(now):
            subscription.drop(DropReason.RATE)
            return
        if not self._taste.can_show(frame):
            self._cannot_show(frame, f"this {frame.codec.name} is broken: its head does not say a size to be shown in")
            return
        if self._newest is not None:
            subscription.drop(DropReason.SLOW)
        subscription.mark_sent(frame, now)
        self._newest = frame
        self._news.set()
        self._context.waiting_frames.hold(self, self._user, frame, frame.size_bytes)

    def _full(self) -> None:
        """The reader does not take what is written: where its transport has a copy of its own, that counts."""
        transport = self._writing
        if transport is not None and not shares_writes(transport, asyncio.get_running_loop()):
            size = transport.get_write_buffer_size()
            self._context.waiting_frames.hold(self._shows, self._user, self._shows, size)

    def on_frame_evicted(self) -> None:
        """The frame that waits gives way to those of others."""
        if self._newest is not None:
            self._newest = None
            self._subscription.drop(DropReason.SLOW)

    def _cannot_show(self, frame: Frame, fault: str) -> None:
        self._subscription.drop(DropReason.UNDECODABLE)
        self._context.metrics.count(metric_names.FRAMES_UNDECODABLE)
        self._context.router.report_undecodable(frame, fault, now_ms())

    def send_message(self, message: bytes) -> None:
        """Status is not for pictures: who waits for a camera waits."""

    def on_permission_lost(self, stream: str) -> None:
        """It may not be watched any more."""
        del stream
        self.end()

    # ── revalidation.Member ──────────────────────────────────────────────────────────────────────────────────────

    def on_session_ended(self) -> None:
        """The session behind the request is no more."""
        self._context.metrics.count(metric_names.CLOSED_SESSION_ENDED)
        self.end()

    def on_identity_changed(self, identity: Identity) -> None:
        """The session says something else now."""
        self._subscription.identity = identity
        if not self._context.authorization.allows(
            self._subscription, self._context.hub.last_known_owner(self._subscription.stream)
        ):
            self.end()

    def count_dropped(self) -> None:
        """Bring what was skipped into the figures."""
        self._context.count_dropped(self._subscription)

    def end(self) -> None:
        """Send nothing more: a right is lost, or the gateway ends."""
        self._ended = True
        self._shown = None
        if self._newest is not None:
            self._newest = None
            self._subscription.drop(DropReason.GONE)
        self._news.set()
        if self._writing is not None:  # what a slow reader has not read yet is not for it any more
            self._writing.abort()
