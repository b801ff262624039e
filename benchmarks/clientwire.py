"""The client side of RFC 6455, and the length-prefixed messages of the floors: just what the load needs. Pure.

Messages that come in stay in the buffer into which the socket was read: an inbox says where they are, and nothing is
copied. Servers that are measured send whole, unmasked, uncompressed frames; anything else is a `WireFault`.
"""

from __future__ import annotations

import abc
import base64
import hashlib
from typing import Final

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

MAX_HEAD_BYTES: Final = 16 * 1024
GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
FIN: Final = 0x80
MASKED: Final = 0x80


class WireFault(Exception):
    """The server sent what it may not send, or what this client does not take."""


def upgrade(host: str, path: str, key: bytes) -> bytes:
    """The request that opens a WebSocket (RFC 6455 section 4.1). `key` are 16 bytes."""
    return (
        b"GET %b HTTP/1.1\r\nHost: %b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: %b\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ) % (path.encode(), host.encode(), base64.b64encode(key))


def check_upgraded(head: bytes, key: bytes) -> None:
    """Check the server's answer to `upgrade`, with its empty line. Raises `WireFault` with its first line."""
    line, *fields = head.split(b"\r\n")
    if line.split(b" ")[1:2] != [b"101"]:
        raise WireFault(f"the upgrade was answered with {line.decode('latin-1')!r}")
    accept = base64.b64encode(hashlib.sha1(base64.b64encode(key) + GUID).digest())
    for field in fields:
        name, _, value = field.partition(b":")
        if name.strip().lower() == b"sec-websocket-accept" and value.strip() == accept:
            return
    raise WireFault("the answer to the upgrade has no Sec-WebSocket-Accept that fits")


def masked(data: bytes, mask: bytes, at: int = 0) -> bytes:
    """`data`, which begins at byte `at` of its message, under a mask of 4 bytes (RFC 6455 section 5.3)."""
    turned = (mask * 2)[at % 4 : at % 4 + 4]
    key = (turned * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(len(data), "big")


def header(opcode: int, length: int, mask: bytes, *, fin: bool = True) -> bytes:
    """Header of a masked frame (RFC 6455 section 5.2); not `fin`: more fragments of its message follow."""
    if length < 126:
        size = bytes([MASKED | length])
    elif length < 1 << 16:
        size = bytes([MASKED | 126]) + length.to_bytes(2, "big")
    else:
        size = bytes([MASKED | 127]) + length.to_bytes(8, "big")
    return bytes([FIN * fin | opcode]) + size + mask


def message(opcode: int, payload: bytes, mask: bytes) -> bytes:
    """A whole masked frame."""
    return header(opcode, len(payload), mask) + masked(payload, mask)


class Inbox(abc.ABC):
    """A buffer that is filled from a socket, and where the messages in it are.

    `space()`, fill, `filled(n)`, and then use the places that it gave, before the next `space()`.
    A message larger than the buffer is a `WireFault`.
    """

    __slots__ = ("_begin", "_end", "_need", "_view", "buffer")

    def __init__(self, size: int) -> None:
        self.buffer = bytearray(size)
        self._view = memoryview(self.buffer)
        self._begin = 0  # of the first message that is not whole
        self._end = 0  # of what is filled
        self._need = 0  # where its end will be, as far as known

    def space(self) -> memoryview:
        """Where the next bytes may go: never empty."""
        begin, end = self._begin, self._end
        if begin:
            if begin == end:
                self._begin = self._end = self._need = 0
                return self._view
            if max(self._need, end + 1) > len(self.buffer):
                self._view[: end - begin] = self._view[begin:end]
                self._begin, self._end = 0, end - begin
                self._need = max(0, self._need - begin)
        return self._view[self._end :]

    def filled(self, n: int) -> list[tuple[int, int, int]]:
        """After `n` bytes came: (opcode, begin, end) of the payload of every message that is whole now."""
        self._end = end = self._end + n
        whole: list[tuple[int, int, int]] = []
        if end < self._need:
            return whole
        begin = self._begin
        while (found := self._sized(begin, end)) is not None:
            opcode, at, need = found
            if need - begin > len(self.buffer):
                raise WireFault(f"a message of {need - at} bytes, expected at most {len(self.buffer)} with its header")
            if need > end:
                self._need = need
                break
            whole.append((opcode, at, need))
            begin = need
        self._begin = begin
        return whole

    def until(self, mark: bytes, n: int) -> bytes | None:
        """After `n` bytes came: all up to and with `mark`, taken out, or None while it has not come."""
        self._end += n
        at = self.buffer.find(mark, self._begin, self._end)
        if at < 0:
            if self._end - self._begin > min(MAX_HEAD_BYTES, len(self.buffer) - 1):
                raise WireFault("the head of the answer does not end")
            return None
        taken = bytes(self._view[self._begin : at + len(mark)])
        self._begin = at + len(mark)
        return taken

    @abc.abstractmethod
    def _sized(self, begin: int, end: int) -> tuple[int, int, int] | None:
        """(opcode, begin of payload, end of payload) of the message that begins there, if its header is whole."""


class WebSocketInbox(Inbox):
    """Messages of a WebSocket server."""

    __slots__ = ()

    def _sized(self, begin: int, end: int) -> tuple[int, int, int] | None:
        if end - begin < 2:
            return None
        buffer = self.buffer
        first, size = buffer[begin], buffer[begin + 1]
        if not first & FIN or first & 0x70 or size & MASKED or first & 0x0F not in (TEXT, BINARY, CLOSE, PING, PONG):
            raise WireFault(
                f"a frame that begins with {first:#04x} {size:#04x}, expected a whole one without mask and extensions"
            )
        at = begin + 2
        if size >= 126:
            at += 2 if size == 126 else 8
            if end < at:
                return None
            size = int.from_bytes(buffer[begin + 2 : at], "big")
        return first & 0x0F, at, at + size


class LengthInbox(Inbox):
    """Messages with their length in front, 4 bytes, big-endian; their opcode is always `BINARY`."""

    __slots__ = ()

    def _sized(self, begin: int, end: int) -> tuple[int, int, int] | None:
        at = begin + 4
        if end < at:
            return None
        return BINARY, at, at + int.from_bytes(self.buffer[begin:at], "big")
