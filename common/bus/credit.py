"""Frames over a connection whose own queue cannot be bounded in bytes: so much may be on its way, the rest waits. Pure.

libzmq counts messages, and takes whatever it is given. So the receiver says how many bytes it has taken, and the
sender lets no more than `WINDOW_BYTES` go beyond that; what waits is a `PeerQueue`, where the newest frame of a stream
wins. The receiver says so from the loop that does the work: who hangs or is stopped gets no more than a window.

A window is opened by a number that one side makes up, whenever a connection begins and whenever the two greet each
other. What was on its way then is counted no more, so nothing that is lost can keep a window shut.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable
from typing import Final

from watchout.common.bus.peer_queue import PeerQueue
from watchout.common.errors import BusError
from watchout.common.media.frames import kind_on_bus

#: Bytes of frames that are on their way to one peer at most, or one frame more than that.
WINDOW_BYTES: Final = 512 << 10

_OPEN: Final = struct.Struct(">BQ")
_TAKEN: Final = struct.Struct(">BQQ")
_KIND_OPEN: Final = 1
_KIND_TAKEN: Final = 2

#: A frame, in parts that are sent as one.
Parts = tuple[bytes | memoryview, ...]


def opening(number: int) -> bytes:
    """The message that opens a window."""
    return _OPEN.pack(_KIND_OPEN, number)


def taken(number: int, total: int) -> bytes:
    """The message that says how many bytes of frames were taken since the window was opened."""
    return _TAKEN.pack(_KIND_TAKEN, number, total)


def read(data: bytes) -> tuple[int, int | None]:
    """The window's number, and the bytes taken; None for an opening. Raises `BusError`."""
    if len(data) == _OPEN.size and data[0] == _KIND_OPEN:
        return int(_OPEN.unpack(data)[1]), None
    if len(data) == _TAKEN.size and data[0] == _KIND_TAKEN:
        _, number, total = _TAKEN.unpack(data)
        return int(number), int(total)
    raise BusError(f"a message of {len(data)} bytes that is no frame, opens no window and tells of none")


class CreditQueue:
    """What goes to one peer. `send` gives a frame to the connection, and says whether it took it.

    `key_of` names the slot of a frame that waits. Frames offered = `sent` + `skipped` + those that wait.
    """

    __slots__ = ("_key_of", "_limit", "_number", "_out", "_send", "_taken", "backlog", "sent")

    def __init__(
        self,
        key_of: Callable[[bytes | memoryview], Hashable],
        send: Callable[[Parts], bool],
        limit_bytes: int = WINDOW_BYTES,
    ) -> None:
        self._key_of = key_of
        self._send = send
        self._limit = limit_bytes
        self._number: int | None = None
        self._out = self._taken = 0
        self.backlog = PeerQueue[tuple[Parts, int]]()
        self.sent = 0

    @property
    def skipped(self) -> int:
        """Frames that waited and were not sent."""
        return self.backlog.replaced + self.backlog.dropped

    @property
    def is_open(self) -> bool:
        """Whether the peer takes frames now."""
        return self._number is not None

    def offer(self, parts: Parts) -> None:
        """A frame: at once, or when there is room if no newer one of its slot is there."""
        size = sum(map(len, parts))
        self.backlog.put(self._key_of(parts[0]), (parts, size), size, kind_on_bus(parts))
        self.pump()

    def open(self, number: int) -> None:
        """A new window: what was under way is counted no more."""
        self._number = number
        self._out = self._taken = 0
        self.pump()

    def heard(self, number: int, total: int) -> None:
        """The peer took so many bytes since the window of this number was opened."""
        if number == self._number and self._taken < total <= self._out:
            self._taken = total
            self.pump()

    def shut(self) -> None:
        """Nothing goes out before the next window."""
        self._number = None

    def clear(self) -> None:
        """Nobody will take what waits."""
        self.backlog.clear()

    def pump(self) -> None:
        """Send what waits, as far as there is room."""
        while self._number is not None and self.backlog and self._out - self._taken < self._limit:
            parts, size = self.backlog.take()
            if not self._send(parts):
                # The connection is just breaking: a new one opens a window, and the frame waits for that.
                self.backlog.put(self._key_of(parts[0]), (parts, size), size, kind_on_bus(parts))
                return
            self._out += size
            self.sent += 1


class Receipt:
    """Counts what was taken of the peer's frames."""

    __slots__ = ("_told", "number", "total")

    def __init__(self) -> None:
        self.number: int | None = None
        self.total = self._told = 0

    def open(self, number: int) -> None:
        """A new window: the count begins anew."""
        self.number = number
        self.total = self._told = 0

    def took(self, size: int) -> None:
        """A frame of so many bytes was taken."""
        self.total += size

    def due(self) -> bytes | None:
        """What the peer is to be told now, if anything."""
        if self.number is None or self.total == self._told:
            return None
        self._told = self.total
        return taken(self.number, self.total)
