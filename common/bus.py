"""The bus: ZeroMQ sockets, their options, and draining them from the event loop. The only import of zmq.

Three sockets join a member to the router, all bound by the router below ``WATCHOUT_HOME`` (docs/bus.md):

- ``control``     ROUTER ⇄ DEALER   numbered messages both ways, never behind a frame
- ``frames.in``   PULL   ◀ PUSH     frames from members
- ``frames.out``  PUB    ▶ SUB      frames to members; a member subscribes to its own id and to nothing else

A file descriptor of ZeroMQ is edge-triggered and any send may eat the edge, hence `_Inbox`: drain until empty or
until the time budget is spent, and look again after each send on the same socket.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

import zmq

from common import log
from common.errors import StartError
from common.messages import MAX_CONTROL_BYTES, MEMBER_ID_BYTES

#: Control messages that may wait for one peer; a member whose queue is full is made to greet again.
CONTROL_HWM: Final = 50_000
#: Frames that may wait for one peer; past it new ones are dropped.
FRAME_HWM: Final = 64
#: Longest turn of one inbox before the loop gets to others, in seconds.
DRAIN_BUDGET_S: Final = 0.002
#: What a frame may have above the largest WebSocket message: header and stream id.
FRAME_MARGIN_BYTES: Final = 4096

CONTROL, FRAMES_IN, FRAMES_OUT, LOCK = "control", "frames.in", "frames.out", "router.lock"

_log = log.get("common.bus")


def new_member_id() -> bytes:
    """A fresh id of a member: eight random bytes, the first not zero (ZeroMQ keeps those ids for itself)."""
    return bytes([secrets.randbelow(255) + 1]) + secrets.token_bytes(MEMBER_ID_BYTES - 1)


def prepare_home(home: Path) -> None:
    """Make `home` with mode 0700, or tighten one that is empty or already watchout's. Raises `StartError`."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = home.stat()
        if status.st_mode & 0o077:
            ours = {CONTROL, FRAMES_IN, FRAMES_OUT, LOCK, "sessions.db"}
            names = {path.name for path in home.iterdir()}
            if names and not names & ours:
                raise StartError(
                    f"WATCHOUT_HOME={home} has mode {status.st_mode & 0o777:04o} and holds other files; expected a "
                    "directory of its own with mode 0700 (sockets and sessions live in it)"
                )
            home.chmod(0o700)
    except OSError as exc:
        raise StartError(f"WATCHOUT_HOME={home} cannot be used: {exc.strerror}") from None


def lock_home(home: Path) -> int:
    """Hold the router's lock of `home` until the process ends. Raises `StartError` when another router has it.

    Binding is no such test: a second bind on an ``ipc://`` path succeeds and steals the traffic (libzmq zmq_ipc.adoc).
    """
    fd = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(fd, 32).decode("ascii", "replace").strip()
        os.close(fd)
        raise StartError(
            f"another router (process {owner or 'unknown'}) already runs on WATCHOUT_HOME={home}"
        ) from None
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd


class _Inbox:
    """Drains one socket from the loop, within a time budget a turn."""

    def __init__(self, socket: zmq.Socket[bytes], deliver: Callable[[list[bytes]], None]) -> None:
        self._socket = socket
        self._deliver = deliver
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
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                self._deliver(parts)
            except Exception:
                _log.exception("a bus message was not handled")
            if self._loop.time() > until:
                self._again = self._loop.call_soon(self._drain)
                return

    def close(self) -> None:
        """Stop draining. The socket is closed after this, never before: the loop cannot see it vanish."""
        self._loop.remove_reader(self._fd)
        if self._again is not None:
            self._again.cancel()


def _new_socket(kind: int, hwm: int, max_bytes: int, linger_ms: int) -> zmq.Socket[bytes]:
    """Every option of every socket is set here."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    socket.setsockopt(zmq.SNDHWM, hwm)
    socket.setsockopt(zmq.RCVHWM, hwm)
    socket.setsockopt(zmq.LINGER, linger_ms)
    socket.setsockopt(zmq.MAXMSGSIZE, max_bytes)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
    if kind in (zmq.DEALER, zmq.PUSH):
        socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing waits for a peer that is not there
    if kind == zmq.ROUTER:
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # an unknown or full peer is an error, not silence
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    return socket


def _send(socket: zmq.Socket[bytes], parts: list[bytes]) -> bool:
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
        self._on_frame = on_frame
        frame_bytes = max_message_bytes + FRAME_MARGIN_BYTES
        self._control = _new_socket(zmq.ROUTER, CONTROL_HWM, MAX_CONTROL_BYTES, 200)
        self._frames_in = _new_socket(zmq.PULL, FRAME_HWM, frame_bytes, 0)
        self._frames_out = _new_socket(zmq.PUB, FRAME_HWM, frame_bytes, 0)
        for socket, name in (
            (self._frames_in, FRAMES_IN),
            (self._frames_out, FRAMES_OUT),
            (self._control, CONTROL),  # last: who can greet can also send and receive frames
        ):
            try:
                socket.bind(f"ipc://{home / name}")
            except zmq.ZMQError as error:
                raise StartError(f"cannot bind {home / name}: {error.strerror}") from None
        self._inboxes = [_Inbox(self._control, self._control_came), _Inbox(self._frames_in, self._frame_came)]
        self.malformed = 0

    def _control_came(self, parts: list[bytes]) -> None:
        if len(parts) != 2 or len(parts[0]) != MEMBER_ID_BYTES:
            self.malformed += 1
            return
        self._on_control(parts[0], parts[1])

    def _frame_came(self, parts: list[bytes]) -> None:
        if len(parts) != 1:
            self.malformed += 1
            return
        self._on_frame(parts[0])

    def send_control(self, member: bytes, message: bytes) -> bool:
        """Queue a message; False when the member is not connected or its queue is full."""
        sent = _send(self._control, [member, message])
        self._inboxes[0].look()
        return sent

    def send_frame(self, member: bytes, frame: bytes) -> None:
        """Queue a frame for one member; dropped when its queue is full."""
        _send(self._frames_out, [member + frame])

    def close(self) -> None:
        """Close all sockets; messages already queued get 200 ms."""
        for inbox in self._inboxes:
            inbox.close()
        for socket in (self._control, self._frames_in, self._frames_out):
            socket.close()


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
        self._on_frame = on_frame
        frame_bytes = max_message_bytes + FRAME_MARGIN_BYTES
        self._control = _new_socket(zmq.DEALER, CONTROL_HWM, MAX_CONTROL_BYTES, 200)
        self._control.setsockopt(zmq.ROUTING_ID, member_id)
        self._control.connect(f"ipc://{home / CONTROL}")
        self._sockets = [self._control]
        self._inboxes = [_Inbox(self._control, self._control_came)]
        self._frames_out: zmq.Socket[bytes] | None = None
        self.malformed = 0
        if on_frame is not None:
            frames_in = _new_socket(zmq.SUB, FRAME_HWM, frame_bytes, 0)
            frames_in.setsockopt(zmq.SUBSCRIBE, member_id)
            frames_in.connect(f"ipc://{home / FRAMES_OUT}")
            self._frames_out = _new_socket(zmq.PUSH, FRAME_HWM, frame_bytes, 0)
            self._frames_out.connect(f"ipc://{home / FRAMES_IN}")
            self._sockets += [frames_in, self._frames_out]
            self._inboxes.append(_Inbox(frames_in, self._frame_came))

    def _control_came(self, parts: list[bytes]) -> None:
        if len(parts) != 1:
            self.malformed += 1
            return
        self._on_control(parts[0])

    def _frame_came(self, parts: list[bytes]) -> None:
        if len(parts) != 1 or self._on_frame is None:
            self.malformed += 1
            return
        self._on_frame(parts[0][MEMBER_ID_BYTES:])

    def send_control(self, message: bytes) -> bool:
        """Queue a message; False when the router is not there or the queue is full."""
        sent = _send(self._control, [message])
        self._inboxes[0].look()
        return sent

    def send_frame(self, frame: bytes) -> bool:
        """Queue a frame; False when it was dropped."""
        return self._frames_out is not None and _send(self._frames_out, [frame])

    def close(self) -> None:
        """Close all sockets; control messages already queued get 200 ms."""
        for inbox in self._inboxes:
            inbox.close()
        for socket in self._sockets:
            socket.close()
