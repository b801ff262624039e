"""Credit that the receiver grants, for a carrier whose own queue cannot be bounded in bytes. Pure.

libzmq bounds its queues in messages, and takes whatever it is given. So the receiver acknowledges the bytes that it has
taken, and the sender lets at most `WINDOW_BYTES` be under way beyond that; further frames wait in a `PeerQueue`. The
acknowledgements come from the event loop that does the work: a receiver that hangs gets one window and no more.

A window has a number that the opening side chooses. One is opened whenever a connection begins and whenever a member
joins, and acknowledgements of an earlier one are ignored, so no lost message can keep a window closed.
"""

from __future__ import annotations

import struct
from typing import Final

from watchout.common.errors import BusError

#: Bytes of frames under way to one peer; one frame may exceed it.
WINDOW_BYTES: Final = 512 << 10

_OPEN: Final = struct.Struct(">BQ")
_TAKEN: Final = struct.Struct(">BQQ")
_KIND_OPEN: Final = 1
_KIND_TAKEN: Final = 2


def encode_opening(number: int) -> bytes:
    """Return the message that opens window `number`, for frames in both directions."""
    return _OPEN.pack(_KIND_OPEN, number)


def encode_acknowledgement(number: int, total: int) -> bytes:
    """Return the message that acknowledges frames.

    Args:
        number: The window.
        total: Bytes of all frames taken since the window was opened.

    """
    return _TAKEN.pack(_KIND_TAKEN, number, total)


def decode(data: bytes) -> tuple[int, int | None]:
    """Decode a message about a window.

    Args:
        data: A message of the frame connection that does not begin as a frame.

    Returns:
        The window's number, and the bytes acknowledged, None for an opening.

    Raises:
        BusError: It is neither; the receiver counts and drops it.

    """
    if len(data) == _OPEN.size and data[0] == _KIND_OPEN:
        return int(_OPEN.unpack(data)[1]), None
    if len(data) == _TAKEN.size and data[0] == _KIND_TAKEN:
        _, number, total = _TAKEN.unpack(data)
        return int(number), int(total)
    raise BusError(f"a message of {len(data)} bytes that is neither a frame, nor a window's opening or acknowledgement")


class WindowCredit:
    """Limits the bytes of frames sent to one peer and not acknowledged: the `Credit` of a `PeerQueue` on the bus over
    TCP.

    Owned by a TCP transport, which calls `PeerQueue.pump` after `open` and `acknowledge`. There is no credit until
    `open` is called.

    Args:
        limit_bytes: Bytes that may be under way; one frame may exceed it.

    """

    __slots__ = ("_acknowledged", "_limit", "_number", "_sent")

    def __init__(self, limit_bytes: int = WINDOW_BYTES) -> None:
        self._limit = limit_bytes
        self._number: int | None = None
        self._sent = self._acknowledged = 0

    @property
    def is_open(self) -> bool:
        """Whether the peer takes frames at all."""
        return self._number is not None

    @property
    def exhausted(self) -> bool:
        """Whether frames have to wait: the window is closed, or full."""
        return self._number is None or self._sent - self._acknowledged >= self._limit

    def spend(self, size: int) -> None:
        """A frame of `size` bytes is under way."""
        self._sent += size

    def open(self, number: int) -> None:
        """Open a new window: what was under way in the one before is not counted any more."""
        self._number = number
        self._sent = self._acknowledged = 0

    def acknowledge(self, number: int, total: int) -> bool:
        """The peer acknowledged frames.

        Args:
            number: The window that the acknowledgement is about.
            total: Bytes of all frames that the peer took since that window was opened.

        Returns:
            Whether there may be new credit. False for another window, and for a total that is not between the last one
            and what was sent.

        """
        if number != self._number or not self._acknowledged < total <= self._sent:
            return False
        self._acknowledged = total
        return True

    def close(self) -> None:
        """The connection is lost: there is no credit until the next window."""
        self._number = None


class Receipt:
    """Counts the bytes of frames received from one peer, for the peer's `WindowCredit`.

    Owned by a TCP transport, which calls `took` for each frame and sends the acknowledgement that `due` returns.
    """

    __slots__ = ("_acknowledged", "number", "total")

    def __init__(self) -> None:
        self.number: int | None = None
        self.total = self._acknowledged = 0

    def open(self, number: int) -> None:
        """A new window was opened: count from 0."""
        self.number = number
        self.total = self._acknowledged = 0

    def took(self, size: int) -> None:
        """A frame of `size` bytes was taken."""
        self.total += size

    def due(self) -> bytes | None:
        """Return the acknowledgement to send now, None when nothing was taken since the last one."""
        if self.number is None or self.total == self._acknowledged:
            return None
        self._acknowledged = self.total
        return encode_acknowledgement(self.number, self.total)
