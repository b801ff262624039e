"""The bus on one machine: its sockets, their options, and draining them from the event loop.

Three sockets join a member to the router, all bound by the router below ``WATCHOUT_HOME`` (docs/bus.md):

- ``control``     ROUTER ⇄ DEALER   numbered messages both ways, never behind a frame
- ``frames.in``   PULL   ◀ PUSH     frames from members
- ``frames.out``  PUB    ▶ SUB      frames to members; a member subscribes to its own id and to nothing else

Control is libzmq's; the frame sockets are `common.bus.zeromq.frame_sockets`, which speak the same protocol in the loop
itself. A file descriptor of libzmq is edge-triggered and any send may eat the edge, hence `Inbox`: drain until empty or
until the time budget is spent, and look again after each send on the same socket. Members on other machines:
`remote_bus`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Final

import zmq

from watchout.common import supervisor
from watchout.common.bus.frames import FOR_ALERT, MAX_FRAME_HEAD_BYTES, read_frame_head
from watchout.common.bus.messages import MAX_CONTROL_BYTES, MEMBER_ID_BYTES
from watchout.common.bus.zeromq import frame_sockets
from watchout.common.bus.zeromq.frame_sockets import DRAIN_BUDGET_S, Outlet, Parts, Pub
from watchout.common.errors import BusError, StartError
from watchout.common.home_files import CONTROL_SOCKET, FRAMES_IN_SOCKET, FRAMES_OUT_SOCKET

#: Control messages that may wait for one peer; a member whose queue is full is made to greet again.
CONTROL_HWM: Final = 50_000
#: What a frame may have above the largest WebSocket message: header and stream id.
FRAME_MARGIN_BYTES: Final = 4096
#: Control messages that wait when a process ends get so long.
LINGER_MS: Final = 200


def new_member_id(*, remote: bool = False) -> bytes:
    """A fresh id of a member: eight random bytes, the first not zero (ZeroMQ keeps those ids for itself).

    Its first bit says over what the member comes: 0 over a Unix socket, 1 over TCP (`is_remote`).
    """
    first = secrets.randbelow(128) + 128 if remote else secrets.randbelow(127) + 1
    return bytes([first]) + secrets.token_bytes(MEMBER_ID_BYTES - 1)


def is_remote(member: bytes) -> bool:
    """Whether a member of this id comes over TCP."""
    return member[0] >= 128


#: After a read that failed the bus is read again after so long, in seconds.
READ_AGAIN_S: Final = 0.1


class Inbox:
    """Drains one socket from the loop, within a time budget a turn.

    With `frames` it delivers libzmq's own frames, which know who sent them.
    """

    def __init__(
        self, socket: zmq.Socket[bytes], deliver: Callable[[list[Any]], None], *, frames: bool = False
    ) -> None:
        self._socket = socket
        self._deliver = deliver
        self._copy = not frames
        self._loop = asyncio.get_running_loop()
        self._fd = int(socket.getsockopt(zmq.FD))
        self._again: asyncio.Handle | None = None
        self._loop.add_reader(self._fd, self._drain)
        self.look()

    def look(self) -> None:
        """Drain soon if there is something: to be called after each send on the same socket."""
        if self._again is None and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._again = self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        until = self._loop.time() + DRAIN_BUDGET_S
        while not self._socket.closed:
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK, copy=self._copy)
            except zmq.Again:
                return
            except zmq.ZMQError as error:  # its descriptor tells of news only once: look again, whatever it was
                supervisor.current().failed("reading of the bus", error)
                self._again = self._loop.call_later(READ_AGAIN_S, self._drain)
                return
            try:
                self._deliver(parts)
            except Exception as error:
                supervisor.current().failed("a bus message", error)
            if self._loop.time() > until:
                self._again = self._loop.call_soon(self._drain)
                return

    def close(self) -> None:
        """Stop draining. The socket is closed after this, never before: the loop cannot see it vanish."""
        self._loop.remove_reader(self._fd)
        if self._again is not None:
            self._again.cancel()


def _new_control(kind: int) -> zmq.Socket[bytes]:
    """Every option of libzmq's sockets is set here."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    socket.setsockopt(zmq.SNDHWM, CONTROL_HWM)
    socket.setsockopt(zmq.RCVHWM, CONTROL_HWM)
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_CONTROL_BYTES)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
    if kind == zmq.DEALER:
        socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing waits for a peer that is not there
    if kind == zmq.ROUTER:
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # an unknown or full peer is an error, not silence
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    return socket


def slot(part: bytes | memoryview) -> Hashable:
    """Under what a frame waits: its stream, and the one member that it is for if there is one.

    Of the pictures of alerts no newer one takes the place of an older.
    """
    try:
        head = read_frame_head(bytes(part[:MAX_FRAME_HEAD_BYTES]))
    except BusError:
        return None  # whoever receives it says what is wrong with it
    return (head.stream, head.to) if head.to != FOR_ALERT else (head.stream, head.to, head.term, head.frame_id)


def send_parts(socket: zmq.Socket[bytes], parts: list[bytes]) -> bool:
    """Queue a message without waiting; False when its peer is not there or its queue is full."""
    try:
        socket.send_multipart(parts, zmq.NOBLOCK)
    except zmq.ZMQError as exc:
        if exc.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
            return False
        raise
    return True


class RouterBus:
    """The router's end. `on_control(member id, message)` and `on_frame(frame)` are called from the loop."""

    def __init__(
        self,
        home: Path,
        *,
        max_message_bytes: int,
        on_control: Callable[[bytes, bytes], None],
        on_frame: Callable[[bytes], None],
    ) -> None:
        self._on_control = on_control
        frame_bytes = max_message_bytes + FRAME_MARGIN_BYTES
        self._frames_in = frame_sockets.pull(home / FRAMES_IN_SOCKET, frame_bytes, on_frame)
        self._frames_out = Pub(home / FRAMES_OUT_SOCKET, frame_bytes, topic_bytes=MEMBER_ID_BYTES, key_of=slot)
        self._control = _new_control(zmq.ROUTER)
        try:
            self._control.bind(f"ipc://{home / CONTROL_SOCKET}")  # last: who can greet can also send and receive frames
        except zmq.ZMQError as error:
            raise StartError(f"cannot bind {home / CONTROL_SOCKET}: {error.strerror}") from None
        self._inbox = Inbox(self._control, self._control_came)
        self._malformed = 0

    @property
    def malformed(self) -> int:
        """Messages that did not fit."""
        return self._malformed + self._frames_in.malformed + self._frames_out.malformed

    @property
    def frames_sent(self) -> int:
        """Frames that went to members, once per receiver."""
        return self._frames_out.sent

    @property
    def frames_skipped(self) -> int:
        """Frames that waited for a member and were not sent: a newer one took the place, or it went."""
        return self._frames_out.skipped

    def _control_came(self, parts: list[bytes]) -> None:
        if len(parts) != 2 or len(parts[0]) != MEMBER_ID_BYTES or is_remote(parts[0]):
            self._malformed += 1
            return
        self._on_control(parts[0], parts[1])

    def send_control(self, member: bytes, message: bytes) -> bool:
        """Queue a message; False when the member is not connected or its queue is full."""
        sent = send_parts(self._control, [member, message])
        self._inbox.look()
        return sent

    def send_frame(self, member: bytes, frame: bytes) -> None:
        """A frame for a member that is known: at once, or when the member can take it if no newer one is there."""
        self._frames_out.offer(member, (frame,))

    def reaches(self, member: bytes) -> bool:
        """Whether the member's frame socket is there; frames wait until it is."""
        return self._frames_out.reaches(member)

    def forget(self, member: bytes) -> None:
        """The member is gone: no frame waits for it any more."""
        self._frames_out.forget(member)

    def close(self) -> None:
        """Close all sockets; control messages already queued get `LINGER_MS`."""
        self._inbox.close()
        self._control.close()
        self._frames_in.close()
        self._frames_out.close()


class MemberBus:
    """A member's end. `on_control(message)` and `on_frame(frame)` are called from the loop."""

    def __init__(
        self,
        home: Path,
        member_id: bytes,
        *,
        max_message_bytes: int,
        on_control: Callable[[bytes], None],
        on_frame: Callable[[bytes], None] | None = None,
    ) -> None:
        self._on_control = on_control
        self._malformed = 0
        self._outlet = Outlet(slot)
        self._dialings: list[frame_sockets.Dialing] = []
        self._control = _new_control(zmq.DEALER)
        self._control.setsockopt(zmq.ROUTING_ID, member_id)
        self._control.connect(f"ipc://{home / CONTROL_SOCKET}")
        self._inbox = Inbox(self._control, self._control_came)
        if on_frame is not None:
            frame_bytes = max_message_bytes + FRAME_MARGIN_BYTES
            self._dialings = [
                frame_sockets.sub(home / FRAMES_OUT_SOCKET, frame_bytes + MEMBER_ID_BYTES, member_id, on_frame),
                frame_sockets.push(home / FRAMES_IN_SOCKET, frame_bytes, self._outlet),
            ]

    @property
    def malformed(self) -> int:
        """Messages that did not fit."""
        return self._malformed + sum(dialing.malformed for dialing in self._dialings)

    @property
    def frames_sent(self) -> int:
        """Frames that went to the router."""
        return self._outlet.sent

    @property
    def frames_skipped(self) -> int:
        """Frames that waited for the router and were not sent: a newer one took the place, or the router went."""
        return self._outlet.skipped

    def _control_came(self, parts: list[bytes]) -> None:
        if len(parts) != 1:
            self._malformed += 1
            return
        self._on_control(parts[0])

    def send_control(self, message: bytes) -> bool:
        """Queue a message; False when the router is not there or the queue is full."""
        sent = send_parts(self._control, [message])
        self._inbox.look()
        return sent

    def send_frame(self, parts: Parts, patience_s: float) -> None:
        """A frame, its head in the first part: at once, or when the router can take it if no newer one is there.

        With patience it may wait so long for other frames to go with.
        """
        self._outlet.offer(parts, patience_s)

    def joined(self) -> None:
        """The router knows this member; its frame sockets need no more than to be there."""

    def forget_frames(self) -> None:
        """The router is away: no frame waits for it any more."""
        self._outlet.clear()

    def close(self) -> None:
        """Close all sockets; control messages already queued get `LINGER_MS`."""
        self._inbox.close()
        self._control.close()
        self._outlet.clear()
        for dialing in self._dialings:
            dialing.close()
