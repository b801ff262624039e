"""ZMTP 3.0, the wire protocol of ZeroMQ, for the frame sockets: bytes in, messages out. Pure.

It covers what PUSH, PULL, PUB and SUB need on Unix sockets (https://rfc.zeromq.org/spec/23, NULL mechanism, one part a
message); a libzmq socket may be the peer. Frames do not go through libzmq itself because its threads cost seven
wake-ups a frame between two gateways, and its queues are bounded in messages, not in bytes (docs/bus.md).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from watchout.common.errors import BusError

#: Signature, version 3.0, mechanism, as-server 0, filler. A peer of version 3.1 falls back to 3.0.
GREETING: Final = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
GREETING_BYTES: Final = len(GREETING)
#: Longest command (READY, SUBSCRIBE, PING) and longest message of a SUB that is accepted.
MAX_COMMAND_BYTES: Final = 512
#: Size of the read buffer; a message that does not fit gets a buffer of its own.
READ_BYTES: Final = 256 << 10

_MORE: Final = 1
_LONG: Final = 2
_COMMAND: Final = 4
_PEERS: Final = {b"PULL": (b"PUSH",), b"PUSH": (b"PULL",), b"PUB": (b"SUB", b"XSUB"), b"SUB": (b"PUB", b"XPUB")}
_LENGTH: Final = struct.Struct(">Q")
_LONG_HEAD: Final = struct.Struct(">BQ")

#: Is called with each message: `bytes`, or with `views` a `memoryview`.
Deliver = Callable[[Any], None]


def message_head(size: int) -> bytes:
    """Return the bytes in front of a message of `size` bytes."""
    return bytes((0, size)) if size < 256 else _LONG_HEAD.pack(_LONG, size)


def command(name: bytes, body: bytes = b"") -> bytes:
    """Return a ZMTP command with its head, as it is written to the connection.

    Args:
        name: The command's name, such as ``b"READY"``.
        body: What follows the name; both together have less than 255 bytes.

    """
    return bytes((_COMMAND, 1 + len(name) + len(body), len(name))) + name + body


def ready(kind: bytes) -> bytes:
    """Return the READY command of the NULL mechanism for a socket of this kind, such as ``b"PUSH"``."""
    return command(b"READY", b"\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind)


def encode_subscription(topic: bytes) -> bytes:
    """Return the message with which a SUB subscribes to a topic."""
    return message_head(1 + len(topic)) + b"\x01" + topic


class ZmtpConnection:
    """The sans-I/O state of one end of one ZMTP connection; driven by `FrameProtocol`, which makes one for each.

    The caller sends `opening` first, reads bytes into `buffer()`, and calls `parse` with their number, which calls
    `deliver` for each message. Memory: `READ_BYTES`, and one message that is larger.

    Args:
        kind: Socket type of this end, such as ``b"PULL"``.
        max_bytes: Largest message accepted, in bytes.
        deliver: Called with each message, without its first `skip` bytes.
        send: Called with bytes that the protocol itself has to send (PONG).
        subscribed: Called on a PUB with (topic, whether subscribed or unsubscribed).
        echoed: Called with the context of each PONG of the peer.
        skip: Bytes at the beginning of each message that are not delivered.
        views: Deliver a view of the read buffer, valid during the call, in place of bytes: the receiver copies what it
            keeps.

    """

    def __init__(
        self,
        kind: bytes,
        max_bytes: int,
        deliver: Deliver,
        *,
        send: Callable[[bytes], None],
        subscribed: Callable[[bytes, bool], None] | None = None,
        echoed: Callable[[bytes], None] | None = None,
        skip: int = 0,
        views: bool = False,
    ) -> None:
        self._skip = skip
        self._views = views
        self._echoed = echoed
        self._kind = kind
        self._max_bytes = max_bytes
        self._deliver = deliver
        self._send = send
        self._subscribed = subscribed
        self._receives = kind in (b"PULL", b"SUB")
        self._greeted = False
        #: Whether the peer's READY arrived, so that messages may be sent.
        self.ready = False
        #: Messages of several parts, which were dropped: the bus sends messages of one part only.
        self.malformed = 0
        self._in_parts = False
        self._fastpath = False  # whether a message without flags is delivered without further checks
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)
        self._begin = self._end = 0
        self._large: bytearray | None = None
        self._large_at = 0

    @property
    def opening(self) -> bytes:
        """The bytes that this end sends first: greeting and READY."""
        return GREETING + ready(self._kind)

    def buffer(self) -> memoryview:
        """Return the memory into which the next bytes are to be read; never empty."""
        if self._large is not None:
            return memoryview(self._large)[self._large_at :]
        if self._end == READ_BYTES:
            self._compact()
        return self._view[self._end :]

    def parse(self, count: int, is_turn_over: Callable[[], bool]) -> bool:
        """Deliver the messages that are complete.

        Args:
            count: Number of bytes that were read into `buffer()`; 0 to continue.
            is_turn_over: Called after each message; true ends the call early.

        Returns:
            Whether the call ended early: call again with 0 before reading more.

        Raises:
            BusError: The peer violates the protocol, or sends more than `max_bytes`; the caller closes the connection.

        """
        if self._large is not None:
            self._large_at += count
            if self._large_at < len(self._large):
                return False
            whole, self._large = bytes(memoryview(self._large)[self._skip :]), None
            self._deliver(whole)
        else:
            self._end += count
        if not self._greeted and not self._read_greeting():
            return False
        data, end = self._buffer, self._end
        while end - self._begin >= 2:
            at = self._begin
            flags = data[at]
            if flags & _LONG:
                if end - at < 9:
                    break
                size = _LENGTH.unpack_from(data, at + 1)[0]
                body = at + 9
            else:
                size = data[at + 1]
                body = at + 2
            after = body + size
            plain = self._fastpath and not flags & ~_LONG
            if size > (self._max_bytes if plain else self._bound(flags)):
                raise BusError(f"a message of {size} bytes, expected at most {self._max_bytes}")
            if after > end:
                if after - at > READ_BYTES:
                    self._start_large(body, size, plain=plain)
                break
            self._begin = after
            if plain:
                message = self._view[body + self._skip : after]
                self._deliver(message if self._views else bytes(message))
                if after < end and is_turn_over():
                    return True
            else:
                self._on_other(flags, bytes(self._view[body:after]))
        if self._begin == self._end:
            self._begin = self._end = 0
        elif READ_BYTES - self._end < READ_BYTES // 2:
            self._compact()
        return False

    def _bound(self, flags: int) -> int:
        """Return the largest size in bytes that is accepted for a message with these flags."""
        return MAX_COMMAND_BYTES if flags & _COMMAND or not self._receives else self._max_bytes

    def _start_large(self, body: int, size: int, *, plain: bool) -> None:
        """Read the rest of a message that does not fit into the read buffer into a buffer of its own."""
        if not plain:
            raise BusError(f"a message of {size} bytes in parts or before READY, expected one part after it")
        self._large = bytearray(size)
        self._large_at = self._end - body
        self._large[: self._large_at] = self._view[body : self._end]
        self._begin = self._end = 0

    def _compact(self) -> None:
        """Move the unparsed bytes to the beginning of the read buffer."""
        rest = self._end - self._begin
        if rest:
            self._buffer[:rest] = self._buffer[self._begin : self._end]
        self._begin, self._end = 0, rest

    def _read_greeting(self) -> bool:
        """Check the peer's greeting as far as it arrived; return whether it is complete. Raises `BusError`."""
        greeting = bytes(self._buffer[: min(self._end, GREETING_BYTES)])
        if greeting[:1] != b"\xff"[: len(greeting)] or greeting[9:10] not in (b"", b"\x7f"):
            raise BusError("the peer does not speak ZMTP")
        if greeting[10:11] and greeting[10] < 3:
            raise BusError(f"ZMTP version {greeting[10]}, expected 3")
        if len(greeting) < GREETING_BYTES:
            return False
        if greeting[12:32].rstrip(b"\0") != b"NULL":
            raise BusError("the peer requires another mechanism than NULL")
        self._greeted = True
        self._begin = GREETING_BYTES
        return True

    def _on_other(self, flags: int, body: bytes) -> None:
        """Handle what is no message to deliver: commands, subscriptions, messages of several parts."""
        if flags & _COMMAND:
            length = body[0] if body else 0
            name, rest = body[1 : 1 + length], body[1 + length :]
            if not self.ready:
                self._on_ready(name, rest)
            elif name == b"PING":  # ttl of two bytes, context
                self._send(command(b"PONG", rest[2:18]))
            elif name == b"PONG" and self._echoed is not None:
                self._echoed(rest)
            elif name in (b"SUBSCRIBE", b"CANCEL"):
                self._on_subscription(name == b"SUBSCRIBE", rest)
            return
        if not self.ready:
            raise BusError("a message before READY")
        if self._receives:
            self.malformed += not self._in_parts
            self._in_parts = bool(flags & _MORE)
            self._fastpath = not self._in_parts
        elif body[:1] in (b"\0", b"\1"):
            self._on_subscription(body[0] == 1, body[1:])

    def _on_subscription(self, wanted: bool, topic: bytes) -> None:
        """Report a subscription of the peer, or its end."""
        if self._subscribed is not None:
            self._subscribed(topic, wanted)

    def _on_ready(self, name: bytes, properties: bytes) -> None:
        """Check the peer's READY. Raises `BusError`."""
        if name != b"READY":
            raise BusError(f"the peer sent {name[:16]!r}, expected READY")
        kind = b""
        while properties:
            length = properties[0]
            key, rest = properties[1 : 1 + length], properties[1 + length :]
            if len(rest) < 4:
                raise BusError("READY ends within a property")
            size = int.from_bytes(rest[:4], "big")
            if key.lower() == b"socket-type":
                kind = rest[4 : 4 + size]
            properties = rest[4 + size :]
        if kind not in _PEERS[self._kind]:
            raise BusError(f"the peer is a {kind[:16].decode('latin-1') or '?'}, expected {_PEERS[self._kind][0]!r}")
        self.ready = True
        self._fastpath = self._receives
