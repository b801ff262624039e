"""The bus over TCP, for bridges on other machines: one port of the router's, CURVE always, keys on a list.

A remote member has two connections to that port (docs/bus.md, "Over TCP"): one for control, whose routing id is the
member's, and one for frames, with `FRAMES` behind it. So control has a connection and buffers of its own. libzmq bounds
its queues in messages; frames are bounded in bytes by `common.bus.credit`.

The router's end has a libzmq context of its own, so that encrypting frames for one bridge holds up nobody's control on
this machine.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from watchout.common import log, supervisor
from watchout.common.bus import credit
from watchout.common.bus.credit import CreditQueue, Parts, Receipt
from watchout.common.bus.frames import FOR_ALERT, read_frame_head
from watchout.common.bus.messages import MAX_CONTROL_BYTES, MEMBER_ID_BYTES
from watchout.common.bus.zeromq.control import (
    CONTROL_HWM,
    FRAME_MARGIN_BYTES,
    LINGER_MS,
    Inbox,
    RouterBus,
    is_remote,
    send_parts,
    slot,
)
from watchout.common.bus.zeromq.curve import AllowList, Pair
from watchout.common.errors import BusError, StartError

#: Stands behind a member's id in the routing id of its connection for frames.
FRAMES: Final = b"f"
#: What begins a frame, and no message of a window.
FRAME_BEGINS: Final = b"F"
#: Messages of a connection that may wait in libzmq for one remote peer.
REMOTE_HWM: Final = 1_000
#: Members over TCP at once; a message of one more is dropped.
MAX_REMOTE: Final = 1_000
#: A lost connection is made again after this, or up to twice as long: of many bridges not all come at once.
RECONNECT_MS: Final = 400
#: A peer of which nothing came, not even an answer to ZeroMQ's own ping, for so long is gone.
PEER_TIMEOUT_MS: Final = 3_000
HANDSHAKE_MS: Final = 5_000
#: A bridge that hears nothing of the router for so long, or up to half as long again, makes its connections anew.
REDIAL_AFTER_S: Final = 5.0
#: It is looked so often whether that is due, in seconds.
LOOK_EVERY_S: Final = 1.0
#: Something refused is named in the log this often.
WARN_EVERY_S: Final = 5.0
ZAP_ENDPOINT: Final = "inproc://zeromq.zap.01"
ZAP_DOMAIN: Final = b"watchout"

_log = log.get("common.bus.zeromq.tcp")


@dataclass(frozen=True, slots=True)
class RouterAddress:
    """Where a remote router is, how it proves to be the right one, and how this member proves who it is.

    `url` is ``tcp://host:port``, `server_key` the router's public key as 64 hexadecimal digits.
    """

    url: str
    server_key: str
    pair: Pair


def _z85(key: str) -> bytes:
    encoded: bytes = z85.encode(bytes.fromhex(key))
    return encoded


def _new_socket(context: zmq.Context[zmq.Socket[bytes]], kind: int, url: str, max_bytes: int) -> zmq.Socket[bytes]:
    """Every option that both ends share."""
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.setsockopt(zmq.MAXMSGSIZE, max_bytes)
    socket.setsockopt(zmq.RCVHWM, REMOTE_HWM)
    socket.setsockopt(zmq.SNDHWM, REMOTE_HWM)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.HEARTBEAT_IVL, PEER_TIMEOUT_MS // 3)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, PEER_TIMEOUT_MS)
    if url.startswith("tcp://["):
        socket.setsockopt(zmq.IPV6, 1)
    return socket


# ── the router's end ─────────────────────────────────────────────────────────────────────────────────────────────


class _Peer:
    """One remote member: whose it is, what goes to it, what came of it."""

    __slots__ = ("key", "lane", "receipt")

    def __init__(self, key: str, lane: CreditQueue) -> None:
        self.key = key
        self.lane = lane
        self.receipt = Receipt()


class RemoteRouterBus:
    """The router's end over TCP. `on_control(member id, message)` and `on_frame(frame)` are called from the loop.

    Raises `StartError` when the address cannot be bound. Of a remote member only the pictures of alerts are taken as
    frames: whoever holds a bridge's key can show viewers nothing.
    """

    def __init__(
        self,
        url: str,
        pair: Pair,
        allowed: AllowList,
        *,
        max_message_bytes: int,
        on_control: Callable[[bytes, bytes], None],
        on_frame: Callable[[bytes], None],
    ) -> None:
        self._on_control = on_control
        self._on_frame = on_frame
        self._allowed = allowed
        self._loop = asyncio.get_running_loop()
        self._peers: dict[bytes, _Peer] = {}
        self._due: dict[bytes, None] = {}
        self._telling: asyncio.Handle | None = None
        self._sent = self._skipped = 0
        self._warned = float("-inf")
        #: Messages that did not fit.
        self.malformed = 0
        #: Connections that were refused, by reason: `key` (not on the list), `handshake` (no CURVE, or made for
        #: another router).
        self.refused: Counter[str] = Counter()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # libzmq lets everybody in while nobody answers there: it comes before the port.
        self._zap = self._context.socket(zmq.REP)
        self._zap.setsockopt(zmq.LINGER, 0)
        self._zap.bind(ZAP_ENDPOINT)
        frame_bytes = max_message_bytes + FRAME_MARGIN_BYTES
        self._socket = _new_socket(self._context, zmq.ROUTER, url, max(MAX_CONTROL_BYTES, frame_bytes))
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._socket.setsockopt(zmq.CURVE_SERVER, 1)
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, _z85(pair.secret))
        self._socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        events = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        self._monitor = self._socket.get_monitor_socket(events)
        self._inboxes = [
            Inbox(self._zap, self._asked),
            Inbox(self._socket, self._came, frames=True),
            Inbox(self._monitor, self._happened),
        ]
        try:
            self._socket.bind(url)
        except zmq.ZMQError as error:
            self.close()
            raise StartError(f"cannot listen on ROUTER_LISTEN={url}: {error.strerror}") from None

    @property
    def frames_sent(self) -> int:
        """Frames that went to remote members."""
        return self._sent + sum(peer.lane.sent for peer in self._peers.values())

    @property
    def frames_skipped(self) -> int:
        """Frames that waited for a remote member and were not sent."""
        return self._skipped + sum(peer.lane.skipped for peer in self._peers.values())

    def send_control(self, member: bytes, message: bytes) -> bool:
        """Queue a message; False when the member is not connected or its queue is full."""
        sent = send_parts(self._socket, [member, message])
        self._inboxes[1].look()
        return sent

    def send_frame(self, member: bytes, frame: bytes) -> None:
        """A frame for a member: at once, or when the member can take it if no newer one is there."""
        peer = self._peers.get(member)
        if peer is not None:
            peer.lane.offer((frame,))

    def reaches(self, member: bytes) -> bool:
        """Whether the member takes frames; they wait until it does."""
        peer = self._peers.get(member)
        return peer is not None and peer.lane.is_open

    def forget(self, member: bytes) -> None:
        """The member is gone: no frame waits for it any more."""
        peer = self._peers.pop(member, None)
        if peer is not None:
            peer.lane.clear()
            self._sent += peer.lane.sent
            self._skipped += peer.lane.skipped

    def no_longer_allowed(self) -> list[bytes]:
        """Members whose key was taken off the list. What they say is dropped already."""
        return [member for member, peer in self._peers.items() if self._allowed.name_of(peer.key) is None]

    def close(self) -> None:
        """Close all sockets; control messages already queued get `LINGER_MS`."""
        for inbox in self._inboxes:
            inbox.close()
        if self._telling is not None:
            self._telling.cancel()
        self._socket.disable_monitor()
        for socket in (self._monitor, self._zap, self._socket):
            socket.close()
        self._context.term()

    def _asked(self, parts: list[bytes]) -> None:
        """ZAP 1.0 (ZeroMQ RFC 27): may the holder of this key come in?"""
        version, request, *rest = parts if len(parts) >= 2 else (b"1.0", b"")
        key = rest[4].hex() if len(rest) == 5 and rest[3] == b"CURVE" and version == b"1.0" else ""
        self._allowed.look_again()
        name = self._allowed.name_of(key)
        if name is None:
            self.refused["key"] += 1
            self._warn("a key that is not allowed was refused; `watchout-ctl keys allow NAME KEY` lets it in", key=key)
        status, text = (b"400", b"not allowed") if name is None else (b"200", b"OK")
        self._zap.send_multipart([b"1.0", request, status, text, b"" if name is None else key.encode(), b""])
        self._inboxes[0].look()

    def _happened(self, parts: list[bytes]) -> None:
        event = parse_monitor_message(parts)
        if event["event"] != zmq.EVENT_MONITOR_STOPPED:
            self.refused["handshake"] += 1
            self._warn("a connection was refused: it speaks no CURVE, or is meant for another router")

    def _warn(self, what: str, **values: object) -> None:
        now = self._loop.time()
        if now - self._warned > WARN_EVERY_S:
            self._warned = now
            _log.warning(what, **values)

    def _came(self, parts: list[Any]) -> None:
        routing_id, message = parts[0].bytes, parts[-1]
        member, channel = routing_id[:MEMBER_ID_BYTES], routing_id[MEMBER_ID_BYTES:]
        if len(parts) != 2 or len(member) != MEMBER_ID_BYTES or not is_remote(member) or channel not in (b"", FRAMES):
            self.malformed += 1
            return
        key = message.get("User-Id")
        if self._allowed.name_of(key) is None:
            return  # removed while it was here
        peer = self._peers.get(member)
        if peer is not None and peer.key != key:
            self.malformed += 1
        elif channel:
            if peer is not None:
                self._frames_came(member, peer, message.bytes)
        elif peer is not None or len(self._peers) < MAX_REMOTE:
            if peer is None:
                self._peers[member] = _Peer(key, CreditQueue(slot, lambda frame: self._put(member, frame)))
            self._on_control(member, message.bytes)

    def _frames_came(self, member: bytes, peer: _Peer, data: bytes) -> None:
        try:
            if data[:1] != FRAME_BEGINS:
                number, total = credit.read(data)
                if total is None:
                    peer.receipt.open(number)
                    peer.lane.open(number)
                else:
                    peer.lane.heard(number, total)
                return
            peer.receipt.took(len(data))
            self._due[member] = None
            if self._telling is None:
                self._telling = self._loop.call_soon(self._tell)
            if read_frame_head(data).to != FOR_ALERT:
                raise BusError("a frame of a remote member, expected pictures of alerts only")
        except BusError as error:
            self.malformed += 1
            self._warn("bad message on a remote connection for frames", error=str(error))
            return
        self._on_frame(data)

    def _tell(self) -> None:
        self._telling = None
        due, self._due = self._due, {}
        for member in due:
            peer = self._peers.get(member)
            message = peer.receipt.due() if peer is not None else None
            if message is not None:
                self._put(member, (message,))

    def _put(self, member: bytes, parts: Parts) -> bool:
        sent = send_parts(self._socket, [member + FRAMES, b"".join(parts)])
        self._inboxes[1].look()
        return sent


class BothRouterBuses:
    """The router's ends over Unix sockets and over TCP, as one: a member's id says over which it comes."""

    def __init__(self, local: RouterBus, remote: RemoteRouterBus) -> None:
        self._local = local
        self.remote = remote

    @property
    def malformed(self) -> int:
        """Messages that did not fit."""
        return self._local.malformed + self.remote.malformed

    @property
    def frames_sent(self) -> int:
        """Frames that went to members, once per receiver."""
        return self._local.frames_sent + self.remote.frames_sent

    @property
    def frames_skipped(self) -> int:
        """Frames that waited for a member and were not sent."""
        return self._local.frames_skipped + self.remote.frames_skipped

    def _of(self, member: bytes) -> RouterBus | RemoteRouterBus:
        return self.remote if is_remote(member) else self._local

    def send_control(self, member: bytes, message: bytes) -> bool:
        """Queue a message; False when the member is not connected or its queue is full."""
        return self._of(member).send_control(member, message)

    def send_frame(self, member: bytes, frame: bytes) -> None:
        """A frame for a member that is known."""
        self._of(member).send_frame(member, frame)

    def reaches(self, member: bytes) -> bool:
        """Whether the member takes frames now."""
        return self._of(member).reaches(member)

    def forget(self, member: bytes) -> None:
        """The member is gone: no frame waits for it any more."""
        self._of(member).forget(member)

    def close(self) -> None:
        """Close all sockets."""
        self._local.close()
        self.remote.close()


# ── a member's end ───────────────────────────────────────────────────────────────────────────────────────────────


class RemoteMemberBus:
    """A member's end over TCP, with the interface of `common.bus.zeromq.control.MemberBus`.

    It connects whenever the router is there, and says in the log, once per outage, what the router has against it.
    """

    def __init__(
        self,
        router: RouterAddress,
        member_id: bytes,
        *,
        max_message_bytes: int,
        on_control: Callable[[bytes], None],
        on_frame: Callable[[bytes], None] | None = None,
    ) -> None:
        self._router = router
        self._on_control = on_control
        self._on_frame = on_frame
        self._loop = asyncio.get_running_loop()
        self._said: str | None = None
        self._malformed = 0
        self._lane = CreditQueue(slot, self._put)
        self._receipt = Receipt()
        self._telling: asyncio.Handle | None = None
        self._control = self._connect(member_id, MAX_CONTROL_BYTES)
        self._control.setsockopt(zmq.SNDHWM, CONTROL_HWM)
        self._monitors = [self._watch(self._control)]
        self._inboxes = [Inbox(self._control, self._control_came), Inbox(self._monitors[0], self._control_happened)]
        self._frames: zmq.Socket[bytes] | None = None
        if on_frame is not None:
            self._frames = self._connect(member_id + FRAMES, max_message_bytes + FRAME_MARGIN_BYTES)
            self._monitors.append(self._watch(self._frames))
            self._frames_inbox = Inbox(self._frames, self._frames_came)
            self._inboxes += [self._frames_inbox, Inbox(self._monitors[1], self._frames_happened)]
        self._sockets = [self._control] if self._frames is None else [self._control, self._frames]
        for socket in self._sockets:
            socket.connect(router.url)
        self._heard_at = self._loop.time()
        self._patience_s = REDIAL_AFTER_S
        self._looks = supervisor.current().every(LOOK_EVERY_S, self._look, "connection to the router")

    @property
    def malformed(self) -> int:
        """Messages that did not fit."""
        return self._malformed

    @property
    def frames_sent(self) -> int:
        """Frames that went to the router."""
        return self._lane.sent

    @property
    def frames_skipped(self) -> int:
        """Frames that waited for the router and were not sent."""
        return self._lane.skipped

    def send_control(self, message: bytes) -> bool:
        """Queue a message; False when the router is not there or the queue is full."""
        sent = send_parts(self._control, [message])
        self._inboxes[0].look()
        return sent

    def send_frame(self, parts: Parts, patience_s: float) -> None:
        """A picture for the router: at once, or when it can take it if no newer one is there."""
        del patience_s  # to wait for company saves a process of this machine some waking
        self._lane.offer(parts)

    def joined(self) -> None:
        """The router knows this member from now on: frames may come and go."""
        self._open_window()

    def forget_frames(self) -> None:
        """The router is away: no frame waits for it any more."""
        self._lane.clear()

    def close(self) -> None:
        """Close all sockets; control messages already queued get `LINGER_MS`."""
        self._looks.cancel()
        if self._telling is not None:
            self._telling.cancel()
        for inbox in self._inboxes:
            inbox.close()
        for socket in self._sockets:
            socket.disable_monitor()
        for socket in (*self._monitors, *self._sockets):
            socket.close()

    def _connect(self, routing_id: bytes, max_bytes: int) -> zmq.Socket[bytes]:
        socket = _new_socket(zmq.Context.instance(), zmq.DEALER, self._router.url, max_bytes)
        socket.setsockopt(zmq.ROUTING_ID, routing_id)
        socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing waits for a router that is not there
        socket.setsockopt(zmq.CONNECT_TIMEOUT, HANDSHAKE_MS)
        # Without RECONNECT_IVL_MAX libzmq waits for this and a random part of it on top.
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, _z85(self._router.pair.public))
        socket.setsockopt(zmq.CURVE_SECRETKEY, _z85(self._router.pair.secret))
        socket.setsockopt(zmq.CURVE_SERVERKEY, _z85(self._router.server_key))
        return socket

    @staticmethod
    def _watch(socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
        return socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_DISCONNECTED
        )  # fmt: skip

    def _control_happened(self, parts: list[bytes]) -> None:
        match parse_monitor_message(parts)["event"]:
            case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._said = None
            case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._say(
                    "the router does not let this key in; there, `watchout-ctl keys allow NAME KEY` does",
                    key=self._router.pair.public,
                )
            case zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                self._say(
                    "the router did not prove that it holds the key ROUTER_PUBLIC_KEY",
                    expected=self._router.server_key,
                )

    def _say(self, what: str, **values: str) -> None:
        if what != self._said:
            self._said = what
            _log.warning(what, router=self._router.url, **values)

    def _frames_happened(self, parts: list[bytes]) -> None:
        match parse_monitor_message(parts)["event"]:
            case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._open_window()
            case zmq.EVENT_DISCONNECTED:
                self._lane.shut()

    def _open_window(self) -> None:
        if self._frames is None:
            return
        number = secrets.randbits(63)
        self._receipt.open(number)
        if send_parts(self._frames, [credit.opening(number)]):
            self._lane.open(number)
        self._frames_inbox.look()

    def _control_came(self, parts: list[bytes]) -> None:
        self._heard_at = self._loop.time()
        if len(parts) != 1:
            self._malformed += 1
            return
        self._on_control(parts[0])

    def _frames_came(self, parts: list[bytes]) -> None:
        data = parts[0]
        if len(parts) != 1 or self._on_frame is None:
            self._malformed += 1
        elif data[:1] == FRAME_BEGINS:
            self._receipt.took(len(data))
            if self._telling is None:
                self._telling = self._loop.call_soon(self._tell)
            self._on_frame(data)
        else:
            try:
                number, total = credit.read(data)
            except BusError:
                self._malformed += 1
                return
            if total is not None:
                self._lane.heard(number, total)

    def _tell(self) -> None:
        self._telling = None
        message = self._receipt.due()
        if message is not None:
            self._put((message,))

    def _put(self, parts: Parts) -> bool:
        if self._frames is None:
            return False
        sent = send_parts(self._frames, [b"".join(parts)])
        self._frames_inbox.look()
        return sent

    def _look(self) -> None:
        """A router that lives beats twice a second: from one that is silent nothing is to be expected over this
        connection, as when the key was taken off its list, or when something between the two forgot it.
        """
        now = self._loop.time()
        if now - self._heard_at > self._patience_s:
            self._heard_at = now
            self._patience_s = REDIAL_AFTER_S * random.uniform(1.0, 1.5)
            for socket in self._sockets:
                try:
                    socket.disconnect(self._router.url)
                except zmq.ZMQError:
                    _log.debug("there was no connection to end", router=self._router.url)
                socket.connect(self._router.url)
            self._lane.shut()
