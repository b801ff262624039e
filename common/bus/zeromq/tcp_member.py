"""A bridge's end of the bus over TCP: two connections to the router's port, one for control and one for frames."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from typing import Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from watchout.common import log, supervisor
from watchout.common.bus import credit
from watchout.common.bus.credit import Receipt, WindowCredit
from watchout.common.bus.messages import MAX_CONTROL_BYTES
from watchout.common.bus.peer_queue import Parts, PeerQueue
from watchout.common.bus.zeromq.control import (
    CONTROL_HWM,
    FRAME_MARGIN_BYTES,
    SocketReader,
    new_member_id,
    queue_key,
    send_parts,
)
from watchout.common.bus.zeromq.tcp import (
    FRAME_BEGIN,
    FRAMES_SUFFIX,
    HANDSHAKE_MS,
    RouterAddress,
    new_tcp_socket,
    z85_key,
)
from watchout.common.errors import BusError

#: A lost connection is made again after this time, or up to twice as long, so that not all bridges come at once.
RECONNECT_MS: Final = 400
#: A bridge that receives nothing for this time, or up to half as long again, makes its connections anew.
REDIAL_AFTER_S: Final = 5.0
#: Interval in seconds at which the silence is measured.
CHECK_EVERY_S: Final = 1.0

_log = log.get("common.bus.zeromq.tcp_member")


class TcpMemberTransport:
    """A member's end over TCP, a `MemberTransport`.

    It connects whenever the router is there. When the router refuses the connection, the log says why, once per outage.

    Args:
        router: Address of the router, and the keys.
        max_message_bytes: Largest frame in bytes, without its header.
        on_control: Called with each control message of the router.
        on_frame: Called with each frame for this member; None: no connection for frames is made.
        member_id: The id to use, for tests; None: a new one.

    """

    def __init__(
        self,
        router: RouterAddress,
        *,
        max_message_bytes: int,
        on_control: Callable[[bytes], None],
        on_frame: Callable[[bytes], None] | None = None,
        member_id: bytes | None = None,
    ) -> None:
        self.member_id = member_id or new_member_id(remote=True)
        #: Messages dropped because of their form.
        self.malformed = 0
        self._router = router
        self._on_control = on_control
        self._on_frame = on_frame
        self._loop = asyncio.get_running_loop()
        self._logged: str | None = None
        self._credit = WindowCredit()
        self._queue = PeerQueue(queue_key, self._write, self._credit)
        self._receipt = Receipt()
        self._acknowledging: asyncio.Handle | None = None
        self._control = self._new_socket(self.member_id, MAX_CONTROL_BYTES)
        self._control.setsockopt(zmq.SNDHWM, CONTROL_HWM)
        self._monitors = [_monitor(self._control)]
        self._control_reader = SocketReader(self._control, self._on_control_parts)
        self._readers = [self._control_reader, SocketReader(self._monitors[0], self._on_control_event)]
        self._frames: zmq.Socket[bytes] | None = None
        if on_frame is not None:
            self._frames = self._new_socket(self.member_id + FRAMES_SUFFIX, max_message_bytes + FRAME_MARGIN_BYTES)
            self._monitors.append(_monitor(self._frames))
            self._frames_reader = SocketReader(self._frames, self._on_frame_parts)
            self._readers += [self._frames_reader, SocketReader(self._monitors[1], self._on_frames_event)]
        self._sockets = [self._control] if self._frames is None else [self._control, self._frames]
        for socket in self._sockets:
            socket.connect(router.url)
        self._received_at = self._loop.time()
        self._redial_after_s = REDIAL_AFTER_S
        self._checks = supervisor.current().every(CHECK_EVERY_S, self._check_silence, "connection to the router")

    @property
    def frames_sent(self) -> int:
        """Frames handed to libzmq for the router."""
        return self._queue.sent

    @property
    def frames_dropped(self) -> int:
        """Frames that were queued for the router and not sent."""
        return self._queue.dropped

    def send_control(self, message: bytes) -> bool:
        """Queue a message; False when the router is not connected or the queue is full."""
        sent = send_parts(self._control, [message])
        self._control_reader.check()
        return sent

    def send_frame(self, parts: Parts, coalescing_delay_s: float) -> None:
        """Send the picture of an alert to the router, or queue it. The delay is ignored: it would save a process of the
        router's machine some wake-ups, and pictures of alerts are few.
        """
        del coalescing_delay_s
        self._queue.offer(parts)

    def on_joined(self) -> None:
        """Open a new window for frames in both directions."""
        self._open_window()

    def drop_frames(self) -> None:
        """Drop the frames that are queued for the router."""
        self._queue.clear()

    def explain_absence(self) -> str:
        """Return what may keep this bridge from the router."""
        return (
            f"the router at {self._router.url} cannot be reached: is it started with ROUTER_LISTEN, is its port "
            "reachable from here, and is this bridge's key allowed there (`watchout-ctl keys list`)?"
        )

    def close(self) -> None:
        """Close all sockets; control messages already queued get `LINGER_MS`."""
        self._checks.cancel()
        if self._acknowledging is not None:
            self._acknowledging.cancel()
        for reader in self._readers:
            reader.close()
        for socket in self._sockets:
            socket.disable_monitor()
        for socket in (*self._monitors, *self._sockets):
            socket.close()

    def _new_socket(self, routing_id: bytes, max_bytes: int) -> zmq.Socket[bytes]:
        socket = new_tcp_socket(zmq.Context.instance(), zmq.DEALER, self._router.url, max_bytes)
        socket.setsockopt(zmq.ROUTING_ID, routing_id)
        socket.setsockopt(zmq.IMMEDIATE, 1)  # queue nothing for a router that is not connected
        socket.setsockopt(zmq.CONNECT_TIMEOUT, HANDSHAKE_MS)
        # Without RECONNECT_IVL_MAX libzmq waits for this time and a random part of it on top.
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, z85_key(self._router.pair.public))
        socket.setsockopt(zmq.CURVE_SECRETKEY, z85_key(self._router.pair.secret))
        socket.setsockopt(zmq.CURVE_SERVERKEY, z85_key(self._router.server_key))
        return socket

    def _on_control_event(self, parts: list[bytes]) -> None:
        """Log why the router refuses the connection for control, and forget that once it accepts it."""
        match parse_monitor_message(parts)["event"]:
            case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._logged = None
            case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._warn_once(
                    "the router does not let this key in; there, `watchout-ctl keys allow NAME KEY` does",
                    key=self._router.pair.public,
                )
            case zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                self._warn_once(
                    "the router did not prove that it holds the key ROUTER_PUBLIC_KEY",
                    expected=self._router.server_key,
                )

    def _warn_once(self, what: str, **values: str) -> None:
        if what != self._logged:
            self._logged = what
            _log.warning(what, router=self._router.url, **values)

    def _on_frames_event(self, parts: list[bytes]) -> None:
        """Open a window when the connection for frames begins, and close it when it is lost."""
        match parse_monitor_message(parts)["event"]:
            case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._open_window()
            case zmq.EVENT_DISCONNECTED:
                self._credit.close()

    def _open_window(self) -> None:
        """Open a window for frames in both directions; while the router is not connected it stays closed."""
        if self._frames is None:
            return
        number = secrets.randbits(63)
        self._receipt.open(number)
        if send_parts(self._frames, [credit.encode_opening(number)]):
            self._credit.open(number)
            self._queue.pump()
        self._frames_reader.check()

    def _on_control_parts(self, parts: list[bytes]) -> None:
        self._received_at = self._loop.time()
        if len(parts) != 1:
            self.malformed += 1
            return
        self._on_control(parts[0])

    def _on_frame_parts(self, parts: list[bytes]) -> None:
        """Handle a frame, or a message about the window."""
        data = parts[0]
        if len(parts) != 1 or self._on_frame is None:
            self.malformed += 1
        elif data[:1] == FRAME_BEGIN:
            self._receipt.took(len(data))
            if self._acknowledging is None:
                self._acknowledging = self._loop.call_soon(self._acknowledge)
            self._on_frame(data)
        else:
            try:
                number, total = credit.decode(data)
            except BusError:
                self.malformed += 1
                return
            if total is not None and self._credit.acknowledge(number, total):
                self._queue.pump()

    def _acknowledge(self) -> None:
        """Acknowledge the frames of one turn of the event loop."""
        self._acknowledging = None
        message = self._receipt.due()
        if message is not None:
            self._write((message,), len(message))

    def _write(self, parts: Parts, _size: int) -> bool:
        """Queue a message for the router's end of the frame connection; False when that is not connected."""
        if self._frames is None:
            return False
        sent = send_parts(self._frames, [b"".join(parts)])
        self._frames_reader.check()
        return sent

    def _check_silence(self) -> None:
        """Connect anew when nothing arrives: the router sends a heartbeat twice a second. A connection stays silent
        when its key was taken off the router's list, or when a device between the two forgot it.
        """
        now = self._loop.time()
        if now - self._received_at > self._redial_after_s:
            self._received_at = now
            self._redial_after_s = REDIAL_AFTER_S * random.uniform(1.0, 1.5)
            for socket in self._sockets:
                try:
                    socket.disconnect(self._router.url)
                except zmq.ZMQError:
                    _log.debug("there was no connection to end", router=self._router.url)
                socket.connect(self._router.url)
            self._credit.close()


def _monitor(socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    """Return the socket on which libzmq reports handshakes and losses of `socket`'s connection."""
    return socket.get_monitor_socket(
        zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_DISCONNECTED
    )  # fmt: skip
