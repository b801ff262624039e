"""One connection of a frame socket: ZMTP between the event loop and the queue of one peer, or a receiver of frames."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from typing import Final, cast

from watchout.common import log
from watchout.common.bus.peer_queue import MAX_QUEUED_BYTES, Parts, PeerQueue
from watchout.common.bus.zeromq.zmtp import Deliver, ZmtpConnection, message_head
from watchout.common.errors import BusError

#: Bytes that one connection buffers beyond what the kernel has taken; one frame may exceed it.
WRITE_BYTES: Final = 256 << 10
#: Longest turn of one connection, in seconds, before the event loop gets to others.
DRAIN_BUDGET_S: Final = 0.002

_log = log.get("common.bus.zeromq.frame_connection")


class ConnectionCredit:
    """The `Credit` of a stream connection: there is credit while it is connected and its write buffer is not full.

    Made by `FrameSender`. `connection` is set by `FrameProtocol.attach` and reset by `detach`.
    """

    __slots__ = ("connection",)

    def __init__(self) -> None:
        self.connection: FrameProtocol | None = None

    @property
    def exhausted(self) -> bool:
        """Whether frames have to wait."""
        connection = self.connection
        return connection is None or connection.full

    def spend(self, size: int) -> None:
        """Nothing to count: the connection's own buffer is the measure."""


class FrameSender:
    """The frames for one peer: a `PeerQueue` on whatever connection is attached, with an optional coalescing delay.

    Made by a transport (a member's PUSH) or by `Pub` (one for each receiver); outlives the connections. A frame counts
    as sent when its connection took it.

    Args:
        key_of: Returns the queue key of a frame from its first part.
        prefix: Bytes in front of each frame: the topic of a PUB.
        max_bytes: Bound of the queue in bytes.

    """

    __slots__ = ("_credit", "_prefix", "_timer", "queue")

    def __init__(
        self,
        key_of: Callable[[bytes | memoryview], Hashable],
        prefix: bytes = b"",
        *,
        max_bytes: int = MAX_QUEUED_BYTES,
    ) -> None:
        self._prefix = prefix
        self._timer: asyncio.TimerHandle | None = None
        self._credit = ConnectionCredit()
        self.queue = PeerQueue(key_of, self._write, self._credit, max_bytes=max_bytes)

    @property
    def sent(self) -> int:
        """Frames that a connection took."""
        return self.queue.sent

    @property
    def dropped(self) -> int:
        """Frames that were queued and not sent."""
        return self.queue.dropped

    @property
    def connection(self) -> FrameProtocol | None:
        """The connection over which frames go now; None: all are queued."""
        return self._credit.connection

    @connection.setter
    def connection(self, connection: FrameProtocol | None) -> None:
        self._credit.connection = connection

    def offer(self, parts: Parts, coalescing_delay_s: float = 0.0) -> None:
        """Send a frame, or queue it.

        Args:
            parts: The frame.
            coalescing_delay_s: Seconds for which the frame may be held back to be sent with others: a peer that is
                woken once for several frames uses less CPU.

        """
        if not coalescing_delay_s and self._timer is None:
            connection, size = self._credit.connection, sum(map(len, parts))
            if connection is not None and not connection.full and self.queue.passes(size):
                self._write_to(connection, parts, size)
            else:
                self.queue.offer(parts)
            return
        self.queue.offer(parts, delayed=True)
        if not coalescing_delay_s:
            self.pump()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(coalescing_delay_s, self.pump)

    def pump(self) -> None:
        """Send queued frames as far as the connection takes them, several in one write."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        connection = self._credit.connection
        if connection is None or len(self.queue) < 2:
            self.queue.pump()
            return
        connection.gather()
        try:
            self.queue.pump()
        finally:
            connection.write_gathered()

    def clear(self) -> None:
        """Drop all queued frames."""
        self.queue.clear()
        self.pump()

    def _write(self, parts: Parts, size: int) -> bool:
        connection = self._credit.connection
        if connection is None:
            return False
        self._write_to(connection, parts, size)
        return True

    def _write_to(self, connection: FrameProtocol, parts: Parts, size: int) -> None:
        prefix = self._prefix
        connection.write_frame((message_head(len(prefix) + size) + prefix, *parts))


def _ignore(_: object) -> None:
    """The `deliver` of an end that receives no messages."""


class FrameProtocol(asyncio.BufferedProtocol):
    """One connection of a frame socket: feeds the bytes read to a `ZmtpConnection`, and writes what it has to send.

    Made for each connection by the factories in `frame_sockets`; the event loop calls it. A turn of reading ends after
    `DRAIN_BUDGET_S` and goes on in the next one.

    Args:
        kind: ZeroMQ socket type of this end, such as ``b"PULL"``.
        max_bytes: Largest message accepted, in bytes; a larger one closes the connection.
        deliver: Called with each message. What it raises is logged, and the connection stays.
        skip: Bytes at the beginning of each message that are not delivered: the topic of a SUB.
        views: Deliver views that are valid during the call, in place of bytes.
        ready: Called once with this object when the peer is ready for messages.
        subscribed: Called on a PUB with (this object, topic, whether subscribed or unsubscribed).
        lost: Called with this object when the connection is over.

    """

    def __init__(
        self,
        kind: bytes,
        max_bytes: int,
        *,
        deliver: Deliver = _ignore,
        skip: int = 0,
        views: bool = False,
        ready: Callable[[FrameProtocol], None] | None = None,
        subscribed: Callable[[FrameProtocol, bytes, bool], None] | None = None,
        lost: Callable[[FrameProtocol], None],
    ) -> None:
        self._deliver = deliver
        self._on_ready = ready
        self._on_lost = lost
        self._loop = asyncio.get_running_loop()
        self._zmtp = ZmtpConnection(
            kind,
            max_bytes,
            self._on_message,
            send=self._write,
            skip=skip,
            views=views,
            subscribed=None if subscribed is None else lambda topic, wanted: subscribed(self, topic, wanted),
            echoed=self._on_echo,
        )
        self._turn_ends_at = 0.0
        self._next_turn: asyncio.Handle | None = None
        self._sender: FrameSender | None = None
        #: The parts of frames that are to be written together, and their bytes; None: each frame is written at once.
        self._gathered: list[bytes | memoryview] | None = None
        self._gathered_bytes = 0
        #: Whether more than `WRITE_BYTES` wait for the kernel.
        self.full = False
        self.transport: asyncio.Transport
        self._is_made = self._is_unwanted = False
        #: What ended the connection, None: nothing did yet, or it was closed in order.
        self.error: Exception | None = None
        #: Why this end closed the connection: what the peer did against the protocol. None: it did not.
        self.fault: str | None = None

    @property
    def malformed(self) -> int:
        """Messages that were dropped, and 1 for a connection closed because of the peer's fault."""
        return self._zmtp.malformed + (self.fault is not None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound the write buffer, and send this end's greeting."""
        self.transport, self._is_made = cast("asyncio.Transport", transport), True
        if self._is_unwanted:
            self.transport.abort()
            return
        self.transport.set_write_buffer_limits(high=WRITE_BYTES, low=WRITE_BYTES // 4)
        self.transport.write(self._zmtp.opening)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Return where the event loop writes the next bytes read."""
        return self._zmtp.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """`nbytes` bytes were read: deliver the complete messages of this turn.

        The rest follows in the next turn, before more is read.
        """
        self._turn_ends_at = time.monotonic() + DRAIN_BUDGET_S
        try:
            more = self._zmtp.parse(nbytes, self._is_turn_over)
        except BusError as error:
            self.fault = str(error)
            self.transport.abort()
            return
        if more:
            self.transport.pause_reading()
            self._next_turn = self._loop.call_soon(self._continue)
        elif self._next_turn is not None:
            self._next_turn = None
            if not self.transport.is_closing():
                self.transport.resume_reading()
        if self._on_ready is not None and self._zmtp.ready:
            on_ready, self._on_ready = self._on_ready, None
            on_ready(self)

    def pause_writing(self) -> None:
        """The write buffer is full: frames wait in the queue of the sender."""
        self.full = True

    def resume_writing(self) -> None:
        """The write buffer has room: send what waits."""
        self.full = False
        if self._sender is not None:
            self._sender.pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over; frames that it had not written are lost."""
        self.error = exc
        if self._next_turn is not None:
            self._next_turn.cancel()
        self.detach()
        self._on_lost(self)

    def abort(self) -> None:
        """End the connection at once, or as soon as it is made: who closes a socket need not know which."""
        self._is_unwanted = True
        if self._is_made:
            self.transport.abort()

    def write_frame(self, parts: Parts) -> None:
        """Write a frame whose first part begins with its ZMTP head; called by the attached sender."""
        if self._gathered is None:
            self.transport.writelines(parts)
            return
        self._gathered += parts
        self._gathered_bytes += sum(map(len, parts))
        if self._gathered_bytes >= WRITE_BYTES:
            self.write_gathered()
            self.gather()

    def gather(self) -> None:
        """Write the frames that follow together, by `write_gathered` and whenever they are `WRITE_BYTES`.

        A peer that is woken once for several frames uses less CPU.
        """
        if self._gathered is None:
            self._gathered = []

    def write_gathered(self) -> None:
        """Write what was gathered; further frames are written at once."""
        parts, self._gathered, self._gathered_bytes = self._gathered, None, 0
        if parts:
            self.transport.writelines(parts)

    def attach(self, sender: FrameSender) -> None:
        """Send the frames of `sender` over this connection from now on."""
        self._sender = sender
        sender.connection = self
        sender.pump()

    def detach(self) -> None:
        """Send no more frames over this connection."""
        if self._sender is not None:
            self._sender.connection = None
            self._sender = None

    def _write(self, data: bytes) -> None:
        if not self.full:  # a peer that sends PINGs and does not read the PONGs gets no more of them
            self.transport.write(data)

    def _on_echo(self, context: bytes) -> None:
        """The peer answered a PING; this kind of connection sends none."""

    def _on_message(self, message: bytes | memoryview) -> None:
        try:
            self._deliver(message)
        except Exception:
            _log.exception("a frame of the bus is dropped: handling it raised an exception")

    def _is_turn_over(self) -> bool:
        return time.monotonic() > self._turn_ends_at

    def _continue(self) -> None:
        if not self.transport.is_closing():
            self.buffer_updated(0)
