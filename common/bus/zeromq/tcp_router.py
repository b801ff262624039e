"""The router's end of the bus over TCP, which accepts bridges of other machines whose keys are on the allow list."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import zmq

from watchout.common import log
from watchout.common.bus import credit
from watchout.common.bus.credit import Receipt, WindowCredit
from watchout.common.bus.frames import FOR_ALERT, read_frame_head
from watchout.common.bus.messages import MAX_CONTROL_BYTES, MEMBER_ID_BYTES
from watchout.common.bus.peer_queue import Parts, PeerQueue
from watchout.common.bus.zeromq.accept_guard import AcceptGuard, short_now
from watchout.common.bus.zeromq.arrivals import Arrivals
from watchout.common.bus.zeromq.control import FRAME_MARGIN_BYTES, SocketReader, is_remote, queue_key, send_parts
from watchout.common.bus.zeromq.curve import AllowList, Pair
from watchout.common.bus.zeromq.local import LocalRouterTransport
from watchout.common.bus.zeromq.tcp import FRAME_BEGIN, FRAMES_SUFFIX, HANDSHAKE_MS, new_tcp_socket, z85_key
from watchout.common.errors import BusError, StartError

#: Members over TCP at once; messages of further ones are dropped.
MAX_REMOTE: Final = 1_000
#: Connections whose peers have not shown a key, of all and of one address; more are closed at once.
MAX_ARRIVALS: Final = 64
MAX_ARRIVALS_OF_ONE: Final = 16
#: A refusal is logged at most this often, in seconds.
WARN_EVERY_S: Final = 5.0
ZAP_ENDPOINT: Final = "inproc://zeromq.zap.01"
ZAP_DOMAIN: Final = b"watchout"

_log = log.get("common.bus.zeromq.tcp_router")


class _Peer:
    """A bridge that is connected over TCP; made by `TcpRouterTransport`.

    It has the public key that the bridge connected with, the queue of frames for it with its credit, and the receipt
    for the frames that it sends.
    """

    __slots__ = ("credit", "key", "queue", "receipt")

    def __init__(self, key: str, write: Callable[[Parts, int], bool]) -> None:
        self.key = key
        self.credit = WindowCredit()
        self.queue = PeerQueue(queue_key, write, self.credit)
        self.receipt = Receipt()


class TcpRouterTransport:
    """The router's end of the bus over TCP, a `RouterTransport`: one port, which accepts CURVE connections only.

    It has a libzmq context of its own, so that encrypting frames for a bridge delays no control message on this
    machine. Of the frames that a bridge sends only the pictures of alerts are accepted, so that a stolen key cannot
    forge a stream.

    Args:
        url: Address to listen on, ``tcp://host:port``.
        pair: The router's key pair.
        allowed: The public keys that may connect; read again at each handshake.
        max_message_bytes: Largest frame in bytes, without its header.
        on_control: Called with (member id, message).
        on_frame: Called with each picture of an alert.

    Raises:
        StartError: The address cannot be bound.

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
        self._to_acknowledge: dict[bytes, None] = {}
        self._acknowledging: asyncio.Handle | None = None
        self._sent = self._dropped = 0
        self._warned_at = float("-inf")
        #: Messages dropped because of their form.
        self.malformed = 0
        #: Refused connections by reason: `key` (not on the list), `handshake` (no CURVE, or for another router's key),
        #: `room` (too many that have shown no key, or too few file descriptors).
        self.refusals: Counter[str] = Counter()
        self._arrivals = Arrivals(MAX_ARRIVALS, MAX_ARRIVALS_OF_ONE, HANDSHAKE_MS / 1000)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # Without a ZAP handler libzmq accepts every key, so the handler is bound before the port.
        self._zap = self._context.socket(zmq.REP)
        self._zap.setsockopt(zmq.LINGER, 0)
        self._zap.bind(ZAP_ENDPOINT)
        frame_bytes = max_message_bytes + FRAME_MARGIN_BYTES
        self._socket = new_tcp_socket(self._context, zmq.ROUTER, url, max(MAX_CONTROL_BYTES, frame_bytes))
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._socket.setsockopt(zmq.CURVE_SERVER, 1)
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, z85_key(pair.secret))
        self._socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._guard = AcceptGuard(self._socket, self._judge, self._on_handshake_failed)
        self._zap_reader = SocketReader(self._zap, self._on_zap_request)
        self._reader = SocketReader(self._socket, self._on_parts, frames=True)
        self._readers = [self._zap_reader, self._reader]
        try:
            self._socket.bind(url)
        except zmq.ZMQError as error:
            self.close()
            raise StartError(f"cannot listen on ROUTER_LISTEN={url}: {error.strerror}") from None

    @property
    def frames_sent(self) -> int:
        """Frames handed to libzmq for remote members, once per receiver."""
        return self._sent + sum(peer.queue.sent for peer in self._peers.values())

    @property
    def frames_dropped(self) -> int:
        """Frames that were queued for a remote member and not sent."""
        return self._dropped + sum(peer.queue.dropped for peer in self._peers.values())

    @property
    def frames_at(self) -> str | None:
        """None: members send frames over their transports."""
        return None

    @property
    def over(self) -> str:
        """Members of other machines connect over TCP."""
        return "tcp"

    @property
    def refused(self) -> int | None:
        """Connections that were refused so far."""
        return self.refusals.total()

    def is_remote(self, member: bytes) -> bool:
        """Whether the id is one of a member that connects over TCP."""
        return is_remote(member)

    def send_control(self, member: bytes, message: bytes) -> bool:
        """Queue a message; False when the member is not connected or its queue is full."""
        sent = send_parts(self._socket, [member, message])
        self._reader.check()
        return sent

    def send_frame(self, member: bytes, frame: bytes, at: str | None) -> None:  # noqa: ARG002
        """Send a frame to a member, or queue it. Frames for a member that has not connected are dropped."""
        peer = self._peers.get(member)
        if peer is not None:
            peer.queue.offer((frame,))

    def broadcast(self, message: bytes) -> None:
        """Do nothing: members notice a new router by themselves."""

    def reaches(self, member: bytes) -> bool:
        """Whether the member has opened a window; frames are queued until it does."""
        peer = self._peers.get(member)
        return peer is not None and peer.credit.is_open

    def forget(self, member: bytes) -> None:
        """Drop what is queued for a member that is gone."""
        peer = self._peers.pop(member, None)
        if peer is not None:
            peer.queue.clear()
            self._sent += peer.queue.sent
            self._dropped += peer.queue.dropped

    def revoked(self) -> list[bytes]:
        """Return the members whose key was taken off the list. Their messages are dropped already."""
        return [member for member, peer in self._peers.items() if self._allowed.name_of(peer.key) is None]

    def close(self) -> None:
        """Close all sockets; control messages already queued get `LINGER_MS`."""
        for reader in self._readers:
            reader.close()
        if self._acknowledging is not None:
            self._acknowledging.cancel()
        self._guard.close()
        for socket in (self._zap, self._socket):
            socket.close()
        self._context.term()

    def _on_zap_request(self, parts: list[bytes]) -> None:
        """Answer whether the holder of a key may connect (ZAP 1.0, ZeroMQ RFC 27)."""
        version, request, *rest = parts if len(parts) >= 2 else (b"1.0", b"")
        key = rest[4].hex() if len(rest) == 5 and rest[3] == b"CURVE" and version == b"1.0" else ""
        self._allowed.refresh()
        name = self._allowed.name_of(key)
        self._guard.catch_up()
        if name is not None:
            self._arrivals.proved(rest[1].decode())
        else:
            self.refusals["key"] += 1
            self._warn("a key that is not allowed was refused; `watchout-ctl keys allow NAME KEY` lets it in", key=key)
        status, text = (b"400", b"not allowed") if name is None else (b"200", b"OK")
        self._zap.send_multipart([b"1.0", request, status, text, b"" if name is None else key.encode(), b""])
        self._zap_reader.check()

    def _judge(self, address: str) -> bool:
        """Whether a new connection may stay, until its peer has shown a key."""
        if short_now():
            why = "file descriptors are short"
        elif not self._arrivals.comes(address, self._loop.time()):
            why = "too many connections have shown no key"
        else:
            return True
        self.refusals["room"] += 1
        self._warn("a connection was refused: there is no room for it", peer=address, reason=why)
        return False

    def _on_handshake_failed(self) -> None:
        self.refusals["handshake"] += 1
        self._warn("a connection was refused: it speaks no CURVE, or is meant for another router")

    def _warn(self, what: str, **values: object) -> None:
        now = self._loop.time()
        if now - self._warned_at > WARN_EVERY_S:
            self._warned_at = now
            _log.warning(what, **values)

    def _on_parts(self, parts: list[Any]) -> None:
        """Handle a message of a remote member, if its key is on the list and its id belongs to that key."""
        routing_id, message = parts[0].bytes, parts[-1]
        member, suffix = routing_id[:MEMBER_ID_BYTES], routing_id[MEMBER_ID_BYTES:]
        if (
            len(parts) != 2
            or len(member) != MEMBER_ID_BYTES
            or not is_remote(member)
            or suffix not in (b"", FRAMES_SUFFIX)
        ):
            self.malformed += 1
            return
        key = message.get("User-Id")
        if self._allowed.name_of(key) is None:
            return  # taken off the list while connected
        peer = self._peers.get(member)
        if peer is not None and peer.key != key:
            self.malformed += 1
        elif suffix:
            if peer is not None:
                self._on_frame_message(member, peer, message.bytes)
        elif peer is not None or len(self._peers) < MAX_REMOTE:
            if peer is None:
                self._peers[member] = _Peer(key, lambda frame, _: self._put(member, frame))
            self._on_control(member, message.bytes)

    def _on_frame_message(self, member: bytes, peer: _Peer, data: bytes) -> None:
        """Handle a message of a frame connection: about a window, or a frame."""
        try:
            if data[:1] != FRAME_BEGIN:
                number, total = credit.decode(data)
                if total is None:
                    peer.receipt.open(number)
                    peer.credit.open(number)
                    peer.queue.pump()
                elif peer.credit.acknowledge(number, total):
                    peer.queue.pump()
                return
            peer.receipt.took(len(data))
            self._to_acknowledge[member] = None
            if self._acknowledging is None:
                self._acknowledging = self._loop.call_soon(self._acknowledge)
            if read_frame_head(data).to != FOR_ALERT:
                raise BusError("a frame of a remote member, expected pictures of alerts only")
        except BusError as error:
            self.malformed += 1
            self._warn("bad message on a remote connection for frames", error=str(error))
            return
        self._on_frame(data)

    def _acknowledge(self) -> None:
        """Acknowledge the frames of one turn of the event loop, once for each member."""
        self._acknowledging = None
        members, self._to_acknowledge = self._to_acknowledge, {}
        for member in members:
            peer = self._peers.get(member)
            message = peer.receipt.due() if peer is not None else None
            if message is not None:
                self._put(member, (message,))

    def _put(self, member: bytes, parts: Parts) -> bool:
        """Queue a message for a member's frame connection; False when it is not connected or its queue is full."""
        sent = send_parts(self._socket, [member + FRAMES_SUFFIX, b"".join(parts)])
        self._reader.check()
        return sent


class CombinedRouterTransport:
    """The router's ends over Unix sockets and over TCP as one `RouterTransport`; a member's id says which one it uses.

    Args:
        local: The end for members on this machine.
        remote: The end for members on other machines.

    """

    def __init__(self, local: LocalRouterTransport, remote: TcpRouterTransport) -> None:
        self._local = local
        self._remote = remote

    @property
    def frames_sent(self) -> int:
        """Frames handed to connections, once per receiver."""
        return self._local.frames_sent + self._remote.frames_sent

    @property
    def frames_dropped(self) -> int:
        """Frames that were queued for a member and not sent."""
        return self._local.frames_dropped + self._remote.frames_dropped

    @property
    def malformed(self) -> int:
        """Messages dropped because of their form."""
        return self._local.malformed + self._remote.malformed

    @property
    def frames_at(self) -> str | None:
        """None: members send frames over their transports."""
        return None

    @property
    def over(self) -> str:
        """Members that are not remote use Unix sockets."""
        return self._local.over

    @property
    def refused(self) -> int | None:
        """Connections from other machines that were refused."""
        return self._remote.refused

    def _of(self, member: bytes) -> LocalRouterTransport | TcpRouterTransport:
        return self._remote if is_remote(member) else self._local

    def is_remote(self, member: bytes) -> bool:
        """Whether the member connects over TCP."""
        return is_remote(member)

    def send_control(self, member: bytes, message: bytes) -> bool:
        """Queue a message; False when the member is not connected or its queue is full."""
        return self._of(member).send_control(member, message)

    def send_frame(self, member: bytes, frame: bytes, at: str | None) -> None:
        """Send a frame to a member, or queue it."""
        self._of(member).send_frame(member, frame, at)

    def broadcast(self, message: bytes) -> None:
        """Do nothing: members notice a new router by themselves."""

    def reaches(self, member: bytes) -> bool:
        """Whether frames for the member go out now."""
        return self._of(member).reaches(member)

    def forget(self, member: bytes) -> None:
        """Drop what is queued for a member that is gone."""
        self._of(member).forget(member)

    def revoked(self) -> list[bytes]:
        """Return the remote members whose key was taken off the list."""
        return self._remote.revoked()

    def close(self) -> None:
        """Close all sockets."""
        self._local.close()
        self._remote.close()
