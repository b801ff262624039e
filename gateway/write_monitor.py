"""Backpressure of an HTTP connection: waits until the kernel has taken a response, and cuts off stalled readers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from watchout.gateway.kernel_buffers import WRITE_HIGH_BYTES, acknowledged_bytes, unread_bytes
from watchout.gateway.progress import TransferProgress
from watchout.gateway.why.tcp_info import TcpInfo, read_tcp_info

#: A reader that takes no byte of its response for this long is cut off, in seconds.
STALLED_S: Final = 10.0
#: Longest time between two samples of a reader's progress, in seconds; at least four fit into a stall.
SAMPLE_EVERY_S: Final = 5.0


class WriteMonitor:
    """The writing side of one HTTP connection; made by `listen.dispatch`, which passes on the transport's callbacks.

    The transport reports that it is full as soon as it holds a byte that the kernel did not take. So pipelined
    requests cannot pile up responses: each waits in `wait_until_taken` for the one before.

    Attributes:
        streams: Whether the response has no end.
        tcp: What the kernel knew of the connection of a response without end, when that was lost; None: nothing.
    """

    __slots__ = (
        "_lost", "_on_full", "_on_lost", "_on_stalled", "_progress", "_stalled_s", "_taken", "_timer",
        "_transport", "streams",
        "tcp",
    )  # fmt: skip

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._stalled_s = STALLED_S
        #: Set while the kernel has everything that was written.
        self._taken = asyncio.Event()
        self._taken.set()
        self.streams = self._lost = False
        self.tcp: TcpInfo | None = None
        self._progress: TransferProgress | None = None
        self._on_lost: Callable[[], object] | None = None
        self._on_full: Callable[[], object] | None = None
        self._on_stalled: Callable[[], object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)

    def begin_stream(
        self,
        stalled_s: float,
        on_lost: Callable[[], object],
        on_full: Callable[[], object],
        on_stalled: Callable[[], object],
    ) -> None:
        """Monitor the reader all the time from now on, because the response has no end.

        Args:
            stalled_s: Seconds without progress after which the reader is cut off, in place of `STALLED_S`.
            on_lost: Called once when the connection is lost.
            on_full: Called whenever the kernel takes no more.
            on_stalled: Called when the reader is about to be cut off.
        """
        self._on_full, self._on_stalled = on_full, on_stalled
        self.streams, self._stalled_s, self._progress = True, stalled_s, None
        self._on_lost = on_lost
        self._start_sampling()

    def on_pause_writing(self) -> None:
        """Handle the transport's `pause_writing`: the kernel takes no more."""
        self._taken.clear()
        self._start_sampling()
        if self._on_full is not None:
            self._on_full()

    def on_resume_writing(self) -> None:
        """Handle the transport's `resume_writing`: the kernel has taken everything."""
        self._taken.set()
        if not self.streams:
            self._stop_sampling()

    async def wait_until_taken(self) -> None:
        """Wait until the kernel has taken everything that was written, or the connection is lost."""
        await self._taken.wait()

    def on_connection_lost(self) -> None:
        """Handle the end of the connection: wake all waiters and stop."""
        if self.streams and not self._lost:
            self.tcp = read_tcp_info(self._transport)
        self._lost = True
        self._taken.set()
        if self._on_lost is not None:
            self._on_lost()
        self._on_lost = self._on_full = self._on_stalled = None
        self._stop_sampling()

    def _start_sampling(self) -> None:
        if self._progress is None and not self._lost:
            loop = asyncio.get_running_loop()
            self._progress = TransferProgress(self._stalled_s, acknowledged_bytes(self._transport), loop.time())
            if self._timer is not None:
                self._timer.cancel()
            self._sample_later()

    def _stop_sampling(self) -> None:
        self._progress = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sample_later(self) -> None:
        every_s = min(SAMPLE_EVERY_S, self._stalled_s / 4)
        self._timer = asyncio.get_running_loop().call_later(every_s, self._sample)

    def _sample(self) -> None:
        self._timer = None
        assert self._progress is not None
        now = asyncio.get_running_loop().time()
        waiting = unread_bytes(self._transport) > 0
        if self._progress.keeps_up(acknowledged_bytes(self._transport), now, waiting=waiting):
            self._sample_later()
        else:
            if self._on_stalled is not None:
                self._on_stalled()
            self._transport.abort()
