"""The bus on one machine: both ends of the three Unix sockets in `WATCHOUT_HOME` (docs/bus.md).

- ``control``     ROUTER ⇄ DEALER   numbered messages both ways, never behind a frame
- ``frames.in``   PULL   ◀ PUSH     frames from members
- ``frames.out``  PUB    ▶ SUB      frames to members; a member subscribes to its own id and to nothing else

Control messages use libzmq; frames use `frame_sockets`, which speak the same protocol in the event loop.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Final

import zmq

from watchout.common import supervisor
from watchout.common.bus.messages import MEMBER_ID_BYTES
from watchout.common.bus.peer_queue import Parts
from watchout.common.bus.zeromq import frame_sockets
from watchout.common.bus.zeromq.accept_guard import AcceptGuard, short_now
from watchout.common.bus.zeromq.control import (
    FRAME_MARGIN_BYTES,
    SocketReader,
    is_remote,
    new_control_socket,
    new_member_id,
    queue_key,
    send_parts,
)
from watchout.common.bus.zeromq.frame_connection import FrameSender
from watchout.common.errors import StartError
from watchout.common.home_files import CONTROL_SOCKET, FRAMES_IN_SOCKET, FRAMES_OUT_SOCKET
from watchout.common.process import missing

_SHORT: Final = "file descriptors are short: raise the limit (ulimit -n, LimitNOFILE)"


class LocalRouterTransport:
    """The router's end on this machine, a `RouterTransport`.

    Args:
        home: Directory for the sockets; the caller holds its lock.
        max_message_bytes: Largest frame in bytes, without its header.
        on_control: Called with (member id, message).
        on_frame: Called with each frame of a member.

    Raises:
        StartError: A socket cannot be bound.

    """

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
        self._frames_out = frame_sockets.Pub(
            home / FRAMES_OUT_SOCKET, frame_bytes, topic_bytes=MEMBER_ID_BYTES, key_of=queue_key
        )
        self._control = new_control_socket(zmq.ROUTER)
        self._guard = AcceptGuard(self._control, self._judge)
        try:
            self._control.bind(f"ipc://{home / CONTROL_SOCKET}")  # last: a member that can join can also send frames
        except zmq.ZMQError as error:
            self._guard.close()
            raise StartError(f"cannot bind {home / CONTROL_SOCKET}: {error.strerror}") from None
        self._reader = SocketReader(self._control, self._on_parts)
        self._malformed = 0

    @property
    def frames_sent(self) -> int:
        """Frames handed to the connections of members, once per receiver."""
        return self._frames_out.sent

    @property
    def frames_dropped(self) -> int:
        """Frames that were queued for a member and not sent."""
        return self._frames_out.dropped

    @property
    def malformed(self) -> int:
        """Messages dropped because of their form."""
        return self._malformed + self._frames_in.malformed + self._frames_out.malformed

    @property
    def frames_at(self) -> str | None:
        """None: members send frames over their transports."""
        return None

    @property
    def over(self) -> str:
        """Members of this machine use Unix sockets."""
        return "ipc"

    @property
    def refused(self) -> int | None:
        """None: it listens to no other machine."""
        return None

    def is_remote(self, member: bytes) -> bool:  # noqa: ARG002
        """False: every member is on this machine."""
        return False

    def send_control(self, member: bytes, message: bytes) -> bool:
        """Queue a message; False when the member is not connected or its queue is full."""
        sent = send_parts(self._control, [member, message])
        self._reader.check()
        return sent

    def send_frame(self, member: bytes, frame: bytes, at: str | None) -> None:  # noqa: ARG002
        """Send a frame to a member, or queue it."""
        self._frames_out.offer(member, (frame,))

    def broadcast(self, message: bytes) -> None:
        """Do nothing: members notice a new router by themselves."""

    def reaches(self, member: bytes) -> bool:
        """Whether the member's frame connection is there; frames are queued until it is."""
        return self._frames_out.reaches(member)

    def forget(self, member: bytes) -> None:
        """Drop what is queued for a member that is gone."""
        self._frames_out.forget(member)

    def revoked(self) -> list[bytes]:
        """Return nothing: on this machine the permissions of the home's directory decide."""
        return []

    def close(self) -> None:
        """Close all sockets; control messages already queued get `LINGER_MS`."""
        self._reader.close()
        self._guard.close()
        self._control.close()
        self._frames_in.close()
        self._frames_out.close()

    def _judge(self, _: str) -> bool:
        """Whether a process that has just connected may stay."""
        if short := short_now(local=True):
            supervisor.current().failed("accepting processes of this machine", OSError(errno.EMFILE, _SHORT))
        return not short

    def _on_parts(self, parts: list[bytes]) -> None:
        if len(parts) != 2 or len(parts[0]) != MEMBER_ID_BYTES or is_remote(parts[0]):
            self._malformed += 1
            return
        self._on_control(parts[0], parts[1])


class LocalMemberTransport:
    """A member's end on the router's machine, a `MemberTransport`.

    Args:
        home: Directory of the router's sockets.
        max_message_bytes: Largest frame in bytes, without its header.
        on_control: Called with each control message of the router.
        on_frame: Called with each frame for this member; None: no frame sockets are opened.

    """

    def __init__(
        self,
        home: Path,
        *,
        max_message_bytes: int,
        on_control: Callable[[bytes], None],
        on_frame: Callable[[bytes], None] | None = None,
    ) -> None:
        self.member_id = new_member_id()
        self._home = home
        self._on_control = on_control
        self._malformed = 0
        self._sender = FrameSender(queue_key)
        self._dialings: list[frame_sockets.Dialing] = []
        self._control = new_control_socket(zmq.DEALER)
        self._control.setsockopt(zmq.ROUTING_ID, self.member_id)
        self._control.connect(f"ipc://{home / CONTROL_SOCKET}")
        self._reader = SocketReader(self._control, self._on_parts)
        if on_frame is not None:
            frame_bytes = max_message_bytes + FRAME_MARGIN_BYTES
            self._dialings = [
                frame_sockets.sub(home / FRAMES_OUT_SOCKET, frame_bytes + MEMBER_ID_BYTES, self.member_id, on_frame),
                frame_sockets.push(home / FRAMES_IN_SOCKET, frame_bytes, self._sender),
            ]

    @property
    def frames_sent(self) -> int:
        """Frames handed to the connection with the router."""
        return self._sender.sent

    @property
    def frames_dropped(self) -> int:
        """Frames that were queued for the router and not sent."""
        return self._sender.dropped

    @property
    def malformed(self) -> int:
        """Messages dropped because of their form."""
        return self._malformed + sum(dialing.malformed for dialing in self._dialings)

    def send_control(self, message: bytes) -> bool:
        """Queue a message; False when the router is not connected or the queue is full."""
        sent = send_parts(self._control, [message])
        self._reader.check()
        return sent

    def send_frame(self, parts: Parts, coalescing_delay_s: float) -> None:
        """Send a frame to the router, or queue it."""
        self._sender.offer(parts, coalescing_delay_s)

    def on_joined(self) -> None:
        """Nothing to do: frames flow as soon as the frame sockets are connected."""

    def drop_frames(self) -> None:
        """Drop the frames that are queued for the router."""
        self._sender.clear()

    def explain_absence(self) -> str:
        """Return why no router answers on this home."""
        return missing.no_router(self._home)

    def close(self) -> None:
        """Close all sockets; control messages already queued get `LINGER_MS`."""
        self._reader.close()
        self._control.close()
        self._sender.clear()
        for dialing in self._dialings:
            dialing.close()

    def _on_parts(self, parts: list[bytes]) -> None:
        if len(parts) != 1:
            self._malformed += 1
            return
        self._on_control(parts[0])
