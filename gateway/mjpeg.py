"""A stream as ``multipart/x-mixed-replace``: what a browser's ``img`` shows as a moving picture, over plain HTTP.

A viewer like any other, but with one lane: the newest picture waits, those that it replaces are skipped. It ends when
the session behind it does, when its right is lost, or when the reader is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

from aiohttp import web

from common.frames import Frame, FrameFault
from gateway.lanes import Skip, Subscription
from gateway.rooms import Rooms, now_ms
from gateway.websocket import bound_the_kernel
from identity import Identity

BOUNDARY: Final = "watchout-frame"
MJPEG_HEADERS: Final = {
    "Content-Type": f"multipart/x-mixed-replace; boundary={BOUNDARY}",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # nginx would hold pictures back
}
#: While no picture comes it is looked this often whether the reader is still there, in seconds.
LOOK_EVERY_S: Final = 1.0


class Mjpeg:
    """One response; a `hub.Viewer`, and a member of the roster."""

    def __init__(self, rooms: Rooms, subscription: Subscription) -> None:
        self._rooms = rooms
        self._subscription = subscription
        self._newest: Frame | None = None
        self._news = asyncio.Event()
        self._ended = False
        self._writing: asyncio.Transport | None = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Send pictures until it ends. `Connections.joined` has counted it; the stream is watched from here on."""
        response = web.StreamResponse(headers=MJPEG_HEADERS)
        response.force_close()  # without a length, the end of the connection is the end of the answer
        self._rooms.roster.add(self, self._subscription.identity, time.time())
        self._rooms.moving_pictures.add(self)
        try:
            with contextlib.suppress(ConnectionError):  # the reader went
                await response.prepare(request)
                _bound_the_kernel(request)
                await response.write(f"--{BOUNDARY}\r\n".encode())
                await self._send_all(request, response)
                await response.write_eof()
        finally:
            self._rooms.hub.unwatch(self._subscription)
            self._rooms.roster.remove(self)
            self._rooms.moving_pictures.discard(self)
            if self._newest is not None:
                self._subscription.skip(Skip.GONE)
            self.count_skipped()
        return response

    async def _send_all(self, request: web.Request, response: web.StreamResponse) -> None:
        while not self._ended and request.transport is not None and not request.transport.is_closing():
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._news.wait()
            except TimeoutError:
                continue
            self._news.clear()
            frame, self._newest = self._newest, None  # none when it has ended
            if frame is not None and (part := self._part(frame)) is not None:
                self._rooms.hub.frames_out += 1
                self._rooms.hub.frame_bytes_out += len(part)
                self._writing = request.transport
                await response.write(part)  # waits while the reader does not read
                self._writing = None

    def _part(self, frame: Frame) -> bytes | None:
        try:
            picture, codec = frame.picture, frame.codec
        except FrameFault as fault:
            self._subscription.skip(Skip.UNDECODABLE)
            self._rooms.figures.count("frames_undecodable_total")
            self._rooms.link.undecodable(frame, str(fault), now_ms())
            return None
        # The next boundary follows at once: browsers show a part when they have seen its end.
        head = (
            f"Content-Type: {codec.content_type}\r\nContent-Length: {len(picture)}\r\n"
            f"X-Frame-Id: {frame.frame_id}\r\nX-Frame-Time: {frame.timestamp}\r\n\r\n"
        )
        return b"".join((head.encode(), picture, f"\r\n--{BOUNDARY}\r\n".encode()))

    # ── hub.Viewer ───────────────────────────────────────────────────────────────────────────────────────────────

    def frame(self, subscription: Subscription, frame: Frame, now: float) -> None:
        """A frame of the stream: it waits until the one before is written."""
        if not frame.is_picture:  # it replaces no picture that waits
            subscription.skip(Skip.UNDECODABLE)
            self._rooms.figures.count("frames_undecodable_total")
            self._rooms.link.undecodable(frame, frame.fault, now_ms())
            return
        waiting = subscription.last_frame_id if self._newest is None else self._newest.frame_id
        if frame.frame_id <= waiting:
            subscription.skip(Skip.OLD)
            return
        if subscription.sampler is not None and not subscription.sampler.take(now):
            subscription.skip(Skip.RATE)
            return
        if self._newest is not None:
            subscription.skip(Skip.SLOW)
        subscription.sent(frame, now)
        self._newest = frame
        self._news.set()

    def message(self, message: bytes) -> None:
        """Status is not for pictures: who waits for a camera waits."""

    def right_lost(self, stream: str) -> None:
        """It may not be watched any more."""
        del stream
        self.end()

    # ── revalidation.Member ──────────────────────────────────────────────────────────────────────────────────────

    def session_ended(self) -> None:
        """The session behind the request is no more."""
        self._rooms.figures.count("closed_session_ended_total")
        self.end()

    def renewed(self, identity: Identity) -> None:
        """The session says something else now."""
        self._subscription.identity = identity
        if not self._rooms.access.allows(self._subscription, self._rooms.hub.known_owner(self._subscription.stream)):
            self.end()

    def count_skipped(self) -> None:
        """Bring what was skipped into the figures."""
        self._rooms.count_skipped(self._subscription)

    def end(self) -> None:
        """Send nothing more: a right is lost, or the gateway ends."""
        self._ended = True
        if self._newest is not None:
            self._newest = None
            self._subscription.skip(Skip.GONE)
        self._news.set()
        if self._writing is not None:  # what a slow reader has not read yet is not for it any more
            self._writing.abort()


def _bound_the_kernel(request: web.Request) -> None:
    raw = request.transport.get_extra_info("socket") if request.transport is not None else None
    if raw is not None:
        bound_the_kernel(raw)
