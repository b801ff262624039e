"""What one HTTP connection sends: no more than one answer waits here, and who does not read is cut off."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable
from typing import Final

from watchout.gateway.progress import Progress

#: Who takes nothing at all of its answer for so long, in seconds, is cut off.
STALLED_S: Final = 10.0
#: It is looked this often, in seconds, or four times within what is a stall.
LOOK_EVERY_S: Final = 5.0
#: Above this many bytes that the kernel did not take, the next answer waits. Not 0: TLS then takes an empty buffer for
#: a full one, and says that it is free although nothing was said to be full.
WRITE_HIGH_BYTES: Final = 1

#: ``tcpi_bytes_acked`` in Linux's ``struct tcp_info`` (linux/tcp.h), since 4.1.
_BYTES_ACKED: Final = struct.Struct("=120xQ")


class Sending:
    """The sending side of a connection; the connection tells it when its transport is full, and when not any more.

    The transport takes bytes only while it holds none (a high-water mark of 0): so `taken` means that the kernel has
    all, and pipelined requests cannot pile up answers.
    """

    __slots__ = (
        "_free", "_lost", "_progress", "_stalled_s", "_streams", "_timer", "_transport", "_when_full", "_when_lost",
    )  # fmt: skip

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._stalled_s = STALLED_S
        self._free = asyncio.Event()
        self._free.set()
        self._streams = self._lost = False
        self._progress: Progress | None = None
        self._when_lost: Callable[[], object] | None = None
        self._when_full: Callable[[], object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)

    def stream(self, stalled_s: float, when_lost: Callable[[], object], when_full: Callable[[], object]) -> None:
        """The answer has no end: from now on its reader is looked at all the time, and may rest for so long.

        `when_lost` is called when the connection is gone, `when_full` when the kernel takes no more for now.
        """
        self._when_full = when_full
        self._streams, self._stalled_s, self._progress = True, stalled_s, None
        self._when_lost = when_lost
        self._watch()

    def pause(self) -> None:
        """The kernel takes no more for now."""
        self._free.clear()
        self._watch()
        if self._when_full is not None:
            self._when_full()

    def resume(self) -> None:
        """The kernel took what there was."""
        self._free.set()
        if not self._streams:
            self._watch_no_more()

    async def taken(self) -> None:
        """Wait until the kernel has all that was written, or the connection is lost."""
        await self._free.wait()

    def lost(self) -> None:
        """The connection is gone."""
        self._lost = True
        self._free.set()
        if self._when_lost is not None:
            self._when_lost()
        self._when_lost = self._when_full = None
        self._watch_no_more()

    def _watch(self) -> None:
        if self._progress is None and not self._lost:
            loop = asyncio.get_running_loop()
            self._progress = Progress(self._stalled_s, taken_bytes(self._transport), loop.time())
            if self._timer is not None:
                self._timer.cancel()
            self._look_later()

    def _watch_no_more(self) -> None:
        self._progress = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_later(self) -> None:
        every_s = min(LOOK_EVERY_S, self._stalled_s / 4)
        self._timer = asyncio.get_running_loop().call_later(every_s, self._look)

    def _look(self) -> None:
        self._timer = None
        assert self._progress is not None
        now = asyncio.get_running_loop().time()
        waiting = unread_bytes(self._transport) > 0
        if self._progress.goes_on(taken_bytes(self._transport), now, waiting=waiting):
            self._look_later()
        else:
            self._transport.abort()


def shares_writes(transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> bool:
    """Whether bytes that wait in several such transports are there once, neither copied nor encrypted for each."""
    if transport.get_extra_info("sslcontext") is not None:
        return False
    return sys.version_info >= (3, 12) or type(loop).__module__.partition(".")[0] == "uvloop"


def unread_bytes(transport: asyncio.Transport) -> int:
    """Bytes for the peer that are here or in the kernel, as far as the kernel tells (tcp(7) SIOCOUTQ)."""
    raw, here = transport.get_extra_info("socket"), transport.get_write_buffer_size()
    if raw is None or raw.fileno() < 0:
        return here
    try:
        (kernel,) = struct.unpack("i", fcntl.ioctl(raw.fileno(), termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return here
    return here + int(kernel)


def taken_bytes(transport: asyncio.Transport) -> int:
    """A count that rises with the bytes that the peer has acknowledged.

    Where the kernel counts none it is what is unread, below zero: it then rises while nothing new is written.
    """
    raw = transport.get_extra_info("socket")
    if sys.platform == "linux" and raw is not None and raw.fileno() >= 0:
        try:
            info = raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
        except OSError:
            info = b""
        if len(info) == _BYTES_ACKED.size:
            (acked,) = _BYTES_ACKED.unpack(info)
            return int(acked)
    return -unread_bytes(transport)
