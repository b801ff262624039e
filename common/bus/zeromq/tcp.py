"""What both ends of the bus over TCP share: socket options, the router's address, and the form of their messages.

A remote member has two connections to the router's port (docs/bus.md, "Over TCP"): one for control, whose routing id is
the member's id, and one for frames, whose routing id has `FRAMES_SUFFIX` behind it. So control messages are never
behind frames. libzmq bounds its queues in messages; `common.bus.credit` bounds the frames in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import zmq
from zmq.utils import z85

from watchout.common.bus.zeromq.control import LINGER_MS
from watchout.common.bus.zeromq.curve import Pair

#: Behind a member's id in the routing id of its frame connection.
FRAMES_SUFFIX: Final = b"f"
#: First byte of a frame (`FRAME_MAGIC`), and of no message about a window.
FRAME_BEGIN: Final = b"F"
#: Messages of a connection that may be queued in libzmq for one remote peer (high-water mark).
REMOTE_HWM: Final = 1_000
#: A peer of which nothing arrived for this time in ms, not even a reply to ZeroMQ's ping, is disconnected.
PEER_TIMEOUT_MS: Final = 3_000
#: Time in ms for connecting, and again for the handshake.
HANDSHAKE_MS: Final = 5_000


@dataclass(frozen=True, slots=True)
class RouterAddress:
    """A router on another machine, and the keys that prove who is who; made from a bridge's settings.

    `url` is ``tcp://host:port``, `server_key` the router's public key as 64 hexadecimal digits, and `pair` the bridge's
    own keys.
    """

    url: str
    server_key: str
    pair: Pair


def z85_key(key: str) -> bytes:
    """Return a key of 64 hexadecimal digits in the encoding of libzmq's options, Z85 (ZeroMQ RFC 32)."""
    encoded: bytes = z85.encode(bytes.fromhex(key))
    return encoded


def new_tcp_socket(context: zmq.Context[zmq.Socket[bytes]], kind: int, url: str, max_bytes: int) -> zmq.Socket[bytes]:
    """Return a socket with the options that both ends share.

    Args:
        context: Owner of the socket.
        kind: `zmq.ROUTER` or `zmq.DEALER`.
        url: Address that the caller will bind or connect; IPv6 is enabled for an IPv6 address.
        max_bytes: Largest message accepted, in bytes.

    """
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
