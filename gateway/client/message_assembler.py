"""Joins the fragments of a WebSocket message (RFC 6455 section 5.4), and bounds their number. Pure."""

from __future__ import annotations

from typing import Final

from websockets.frames import Opcode

#: Most fragments of one message. Each costs more than its bytes: a message in a million fragments is an attack
#: (CVE-2026-48779).
MAX_FRAGMENTS: Final = 131_072
#: This many fragments count as one message against the rates.
FRAGMENTS_PER_MESSAGE: Final = 16


class TooManyFragments(Exception):
    """A WebSocket message has more than `MAX_FRAGMENTS` fragments; raised by `MessageAssembler.append`.

    `ClientSocketReader` closes the connection.
    """


class MessageAssembler:
    """Collects the fragments of a client's message; each socket has one, which its `ClientSocketReader` feeds.

    Use: `begin` with the first fragment, `append` for each further one, `finish` after the last. It bounds the number
    of fragments; their bytes are bounded before, by the `max_size` of `websockets.ServerProtocol`.
    """

    __slots__ = ("_count", "_data", "is_open", "opcode")

    def __init__(self) -> None:
        #: Type of the message that is assembled now, or was last.
        self.opcode = Opcode.TEXT
        #: Whether a message has begun and not ended. An attribute, because it is read for each frame of a publisher.
        self.is_open = False
        #: The payload so far; the first fragment alone is kept as it arrived, because it may be large.
        self._data: bytearray | bytes | None = None
        self._count = 0

    @property
    def held_bytes(self) -> int:
        """Size of the unfinished message so far."""
        return 0 if self._data is None else len(self._data)

    def begin(self, opcode: Opcode, data: bytes, count: int = 1) -> None:
        """Begin a message with its first fragment, or with its first `count` fragments in one."""
        self._data, self.opcode, self._count = data, opcode, count
        self.is_open = True

    def append(self, data: bytes | bytearray | memoryview) -> bool:
        """Append a further fragment to the open message; return whether the fragments count as one more message.

        Raises:
            TooManyFragments: The message has more than `MAX_FRAGMENTS`; it is discarded.
        """
        assert self._data is not None
        if isinstance(self._data, bytes):
            self._data = bytearray(self._data)
        self._data += data
        self._count += 1
        if self._count > MAX_FRAGMENTS:
            self.clear()
            raise TooManyFragments
        return self._count % FRAGMENTS_PER_MESSAGE == 0

    def finish(self) -> bytes:
        """Return the payload of the open message, which ends with the last fragment appended."""
        assert self._data is not None
        data = self._data
        self.clear()
        return bytes(data)

    def clear(self) -> None:
        """Discard the unfinished message."""
        self._data = None
        self.is_open = False
