"""Waits of HTTP requests for frames that the router was asked for: one request serves all who wait for a frame."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Final

from watchout.common.errors import RouterUnavailable
from watchout.common.media.frames import Frame

#: Most HTTP requests that wait for a frame of another gateway, or for a stored picture.
MAX_FRAME_WAITS: Final = 1000


class FrameRequests:
    """The requests of one gateway for single frames from the router, each with those who wait for the frame.

    Made by `RouterClient`, which awaits `wait_for` and calls `on_frame` when a frame arrives. `wait_for` returns None
    after the timeout, and raises `RouterUnavailable` when too many requests wait.

    Args:
        timeout_s: How long a frame is waited for, in seconds.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._waits: dict[Hashable, list[asyncio.Future[Frame]]] = {}
        self._count = 0

    async def wait_for(self, key: Hashable, send_request: Callable[[], object]) -> Frame | None:
        """Wait for the frame with this key.

        Args:
            key: What `on_frame` is called with when the frame arrives.
            send_request: Requests the frame; called unless somebody waits for it already.

        Returns:
            The frame, or None when it does not arrive in time.

        Raises:
            RouterUnavailable: Too many requests wait for frames.
        """
        if self._count >= MAX_FRAME_WAITS:
            raise RouterUnavailable("too many wait for frames")
        future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        waits = self._waits.setdefault(key, [])
        waits.append(future)
        self._count += 1
        try:
            if len(waits) == 1:
                send_request()
            async with asyncio.timeout(self._timeout_s):
                return await future
        except TimeoutError:
            return None
        finally:
            self._count -= 1
            waits.remove(future)
            if not waits:
                self._waits.pop(key, None)

    def on_frame(self, key: Hashable, frame: Frame) -> None:
        """Pass a frame that arrived to all who wait for it."""
        if not self._waits:
            return
        for future in self._waits.get(key, ()):
            if not future.done():
                future.set_result(frame)
