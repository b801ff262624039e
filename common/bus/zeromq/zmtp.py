"""ZMTP 3, the wire protocol of ZeroMQ, for the frame sockets: bytes in, messages out. Pure.

What is here is what PUSH, PULL, PUB and SUB need over a socket of this machine (https://rfc.zeromq.org/spec/23, NULL
mechanism, one part a message), and libzmq is a peer like any other. Why not libzmq itself: its threads cost seven
wake-ups a frame between two gateways, and its queues are bounded in messages, not in bytes (docs/bus.md).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from watchout.common.errors import BusError

#: Signature, version 3.0, mechanism, not the server of it, filler. A peer of version 3.1 speaks 3.0 with us.
GREETING: Final = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
GREETING_BYTES: Final = len(GREETING)
#: A command (READY, SUBSCRIBE, PING) is never longer, nor is what a SUB says.
MAX_COMMAND_BYTES: Final = 512
#: Bytes that are read at once; a message that does not fit is read into a buffer of its own.
READ_BYTES: Final = 256 << 10

_MORE: Final = 1
_LONG: Final = 2
_COMMAND: Final = 4
_PEERS: Final = {b"PULL": (b"PUSH",), b"PUSH": (b"PULL",), b"PUB": (b"SUB", b"XSUB"), b"SUB": (b"PUB", b"XPUB")}
_LENGTH: Final = struct.Struct(">Q")
_LONG_HEAD: Final = struct.Struct(">BQ")


def message_head(size: int) -> bytes:
    """What stands in front of a message of `size` bytes."""
    return bytes((0, size)) if size < 256 else _LONG_HEAD.pack(_LONG, size)


def command(name: bytes, body: bytes = b"") -> bytes:
    """A command with its head, below 256 bytes."""
    return bytes((_COMMAND, 1 + len(name) + len(body), len(name))) + name + body


def ready(kind: bytes) -> bytes:
    """The READY command of the NULL mechanism for a socket of this kind (``b"PUSH"``…)."""
    return command(b"READY", b"\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind)


def subscription(topic: bytes) -> bytes:
    """The message with which a SUB asks for a topic."""
    return message_head(1 + len(topic)) + b"\x01" + topic


class Connection:
    """One end of one connection, after which a new one begins.

    `kind` is this end's socket type. `opening` is to be sent at once. Bytes are read into `buffer()`, and `parse` is
    told how many; it gives each message, without its first `skip` bytes, to `deliver`, until nothing whole is left or
    `enough` says so: then it returns True, and is to be called again. `send` is called for what the protocol itself
    has to say, and `subscribed` on a PUB for each topic that its peer wants. Memory: `READ_BYTES`, and one message
    over that.
    Raises `BusError` for a peer that does not speak the protocol, or that sends more than `max_bytes`; the connection
    is to be closed then.
    """

    def __init__(
        self,
        kind: bytes,
        max_bytes: int,
        deliver: Callable[[bytes], None],
        *,
        send: Callable[[bytes], None],
        subscribed: Callable[[bytes, bool], None] | None = None,
        skip: int = 0,
    ) -> None:
        self._skip = skip
        self._kind = kind
        self._max_bytes = max_bytes
        self._deliver = deliver
        self._send = send
        self._subscribed = subscribed
        self._listens = kind in (b"PULL", b"SUB")
        self._greeted = False
        #: Whether the peer said that it is ready: messages may go.
        self.ready = False
        #: Messages of several parts, which nobody sends who knows this bus.
        self.malformed = 0
        self._in_parts = False
        self._fastpath = False  # a message without flags is one to deliver
        self._near = bytearray(READ_BYTES)
        self._near_view = memoryview(self._near)
        self._begin = self._end = 0
        self._far: bytearray | None = None
        self._far_at = 0

    @property
    def opening(self) -> bytes:
        """The first bytes of this end."""
        return GREETING + ready(self._kind)

    def buffer(self) -> memoryview:
        """Where the next bytes are to be read; never empty."""
        if self._far is not None:
            return memoryview(self._far)[self._far_at :]
        if self._end == READ_BYTES:
            self._compact()
        return self._near_view[self._end :]

    def parse(self, count: int, enough: Callable[[], bool]) -> bool:
        """So many bytes came: take messages out of what is there."""
        if self._far is not None:
            self._far_at += count
            if self._far_at < len(self._far):
                return False
            whole, self._far = bytes(memoryview(self._far)[self._skip :]), None
            self._deliver(whole)
        else:
            self._end += count
        if not self._greeted and not self._read_greeting():
            return False
        near, end = self._near, self._end
        while end - self._begin >= 2:
            at = self._begin
            flags = near[at]
            if flags & _LONG:
                if end - at < 9:
                    break
                size = _LENGTH.unpack_from(near, at + 1)[0]
                body = at + 9
            else:
                size = near[at + 1]
                body = at + 2
            after = body + size
            plain = self._fastpath and not flags & ~_LONG
            if size > (self._max_bytes if plain else self._bound(flags)):
                raise BusError(f"a message of {size} bytes, expected at most {self._max_bytes}")
            if after > end:
                if after - at > READ_BYTES:
                    self._begin_far(body, size, plain=plain)
                break
            self._begin = after
            if plain:
                self._deliver(bytes(self._near_view[body + self._skip : after]))
                if after < end and enough():
                    return True
            else:
                self._other(flags, bytes(self._near_view[body:after]))
        if self._begin == self._end:
            self._begin = self._end = 0
        elif READ_BYTES - self._end < READ_BYTES // 2:
            self._compact()
        return False

    def _bound(self, flags: int) -> int:
        return MAX_COMMAND_BYTES if flags & _COMMAND or not self._listens else self._max_bytes

    def _begin_far(self, body: int, size: int, *, plain: bool) -> None:
        if not plain:
            raise BusError(f"a message of {size} bytes in parts or before READY, expected one part after it")
        self._far = bytearray(size)
        self._far_at = self._end - body
        self._far[: self._far_at] = self._near_view[body : self._end]
        self._begin = self._end = 0

    def _compact(self) -> None:
        rest = self._end - self._begin
        if rest:
            self._near[:rest] = self._near[self._begin : self._end]
        self._begin, self._end = 0, rest

    def _read_greeting(self) -> bool:
        came = bytes(self._near[: min(self._end, GREETING_BYTES)])
        if came[:1] != b"\xff"[: len(came)] or came[9:10] not in (b"", b"\x7f"):
            raise BusError("the peer does not speak ZMTP")
        if came[10:11] and came[10] < 3:
            raise BusError(f"ZMTP version {came[10]}, expected 3")
        if len(came) < GREETING_BYTES:
            return False
        if came[12:32].rstrip(b"\0") != b"NULL":
            raise BusError("the peer wants another mechanism than NULL")
        self._greeted = True
        self._begin = GREETING_BYTES
        return True

    def _other(self, flags: int, body: bytes) -> None:
        """Commands, subscriptions, and what nobody should send."""
        if flags & _COMMAND:
            length = body[0] if body else 0
            name, rest = body[1 : 1 + length], body[1 + length :]
            if not self.ready:
                self._peer_ready(name, rest)
            elif name == b"PING":  # ttl of two bytes, context
                self._send(command(b"PONG", rest[2:18]))
            elif name in (b"SUBSCRIBE", b"CANCEL"):
                self._told(name == b"SUBSCRIBE", rest)
            return
        if not self.ready:
            raise BusError("a message before READY")
        if self._listens:
            self.malformed += not self._in_parts
            self._in_parts = bool(flags & _MORE)
            self._fastpath = not self._in_parts
        elif body[:1] in (b"\0", b"\1"):
            self._told(body[0] == 1, body[1:])

    def _told(self, wanted: bool, topic: bytes) -> None:
        if self._subscribed is not None:
            self._subscribed(topic, wanted)

    def _peer_ready(self, name: bytes, properties: bytes) -> None:
        if name != b"READY":
            raise BusError(f"the peer said {name[:16]!r}, expected READY")
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
        self._fastpath = self._listens
