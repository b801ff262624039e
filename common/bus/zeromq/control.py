"""What both ends of both ZeroMQ transports share: control sockets, reading them in the event loop, ids, queue keys."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Hashable
from typing import Any, Final

import zmq

from watchout.common import supervisor
from watchout.common.bus.frames import FOR_ALERT, MAX_FRAME_HEAD_BYTES, read_frame_head
from watchout.common.bus.messages import MAX_CONTROL_BYTES, MEMBER_ID_BYTES
from watchout.common.bus.zeromq.frame_connection import DRAIN_BUDGET_S
from watchout.common.errors import BusError

#: Control messages that may be queued for one peer (libzmq's high-water mark).
CONTROL_HWM: Final = 50_000
#: Bytes that a frame may have beyond the largest WebSocket message: header and stream id.
FRAME_MARGIN_BYTES: Final = 4096
#: A connection whose other end does not greet within this time, in ms, is closed, and a member connects anew. libzmq
#: waits for 30 s otherwise: longer than a member does without a router.
HANDSHAKE_MS: Final = 2_000
#: Time in ms that queued control messages get when the process ends.
LINGER_MS: Final = 1_000
#: A socket whose read failed is read again after this time, in seconds.
READ_AGAIN_S: Final = 0.1


def new_member_id(*, remote: bool = False) -> bytes:
    """Return a new member id: 8 random bytes.

    Args:
        remote: Whether the member connects over TCP. The first bit of the id says so (`is_remote`).

    Returns:
        The id. Its first byte is not zero, because ZeroMQ reserves such routing ids for itself.

    """
    first = secrets.randbelow(128) + 128 if remote else secrets.randbelow(127) + 1
    return bytes([first]) + secrets.token_bytes(MEMBER_ID_BYTES - 1)


def is_remote(member: bytes) -> bool:
    """Whether the member of this id connects over TCP."""
    return member[0] >= 128


class SocketReader:
    """Reads one libzmq socket from the event loop, for at most `DRAIN_BUDGET_S` seconds in a turn. Made by the
    transports.

    The file descriptor of a libzmq socket is edge-triggered, and a send on the socket may consume the edge. So a turn
    reads until the socket is empty or the time is spent, and `check` has to be called after each send on the socket.

    Args:
        socket: The socket; the owner closes it after the reader.
        deliver: Called with the parts of each message. What it raises is logged and counted.
        frames: Deliver libzmq's frame objects, which know the sender's key, instead of bytes.

    """

    def __init__(
        self, socket: zmq.Socket[bytes], deliver: Callable[[list[Any]], None], *, frames: bool = False
    ) -> None:
        self._socket = socket
        self._deliver = deliver
        self._copy = not frames
        self._loop = asyncio.get_running_loop()
        self._fd = int(socket.getsockopt(zmq.FD))
        self._next_turn: asyncio.Handle | None = None
        self._loop.add_reader(self._fd, self.read)
        self.check()

    def check(self) -> None:
        """Schedule a turn if there is something to read. To be called after each send on the same socket."""
        if self._next_turn is None and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._next_turn = self._loop.call_soon(self.read)

    def read(self) -> None:
        """Deliver messages until the socket is empty or the time of the turn is over; the rest comes in the next turn.

        Called by the event loop. A caller that needs what has arrived here before it goes on calls it, too.
        """
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        until = self._loop.time() + DRAIN_BUDGET_S
        while not self._socket.closed:
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK, copy=self._copy)
            except zmq.Again:
                return
            except zmq.ZMQError as error:  # the edge is consumed whatever the error was: read again later
                supervisor.current().failed("reading of the bus", error)
                self._next_turn = self._loop.call_later(READ_AGAIN_S, self.read)
                return
            try:
                self._deliver(parts)
            except Exception as error:
                supervisor.current().failed("a bus message", error)
            if self._loop.time() > until:
                self._next_turn = self._loop.call_soon(self.read)
                return

    def close(self) -> None:
        """Stop reading. To be called before the socket is closed, because the event loop cannot see that."""
        self._loop.remove_reader(self._fd)
        if self._next_turn is not None:
            self._next_turn.cancel()


def new_control_socket(kind: int) -> zmq.Socket[bytes]:
    """Return a socket for control messages on this machine, `zmq.ROUTER` or `zmq.DEALER`, with all its options."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    socket.setsockopt(zmq.SNDHWM, CONTROL_HWM)
    socket.setsockopt(zmq.RCVHWM, CONTROL_HWM)
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_CONTROL_BYTES)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
    if kind == zmq.DEALER:
        socket.setsockopt(zmq.IMMEDIATE, 1)  # queue nothing for a router that is not connected
    if kind == zmq.ROUTER:
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # an error, not silence, for an unknown or full peer
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    return socket


def send_parts(socket: zmq.Socket[bytes], parts: list[bytes]) -> bool:
    """Queue a message without blocking.

    Args:
        socket: A DEALER, or a ROUTER with `ROUTER_MANDATORY`.
        parts: The message; for a ROUTER the receiver's id stands in front.

    Returns:
        False when the peer is not connected or its queue is full; the message is lost then.

    """
    try:
        socket.send_multipart(parts, zmq.NOBLOCK)
    except zmq.ZMQError as exc:
        if exc.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
            return False
        raise
    return True


def queue_key(part: bytes | memoryview) -> Hashable:
    """Return the key under which a newer frame replaces an older one that is still queued.

    That is the stream, and the one member that the frame is for if it is for one. The picture of an alert has a key of
    its own, so that no other replaces it.

    Args:
        part: The first part of the frame, with its header.

    Returns:
        The key. All frames with an invalid header share one; the receiver counts and drops them.

    """
    try:
        head = read_frame_head(bytes(part[:MAX_FRAME_HEAD_BYTES]))
    except BusError:
        return None
    return (head.stream, head.to) if head.to != FOR_ALERT else (head.stream, head.to, head.term, head.frame_id)
