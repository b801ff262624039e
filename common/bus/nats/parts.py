"""Control messages in parts: a NATS server takes no payload above its `max_payload`. Pure.

A message that fits is sent as it is. A larger one is sent in parts with a header each; the receiver joins them. The
parts of one sender arrive in order and one message at a time, or not at all: what lost a part is lost.
The first byte of a part is one that no control message begins with: msgpack never uses it.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Final

from watchout.common.bus.messages import MAX_CONTROL_BYTES
from watchout.common.errors import BusError

#: First byte of each part.
MARK: Final = 0xC1
#: Mark, number of the message, number of the part from 0, bytes of the whole message.
HEADER: Final = struct.Struct(">BIHI")
#: Least `max_payload` of a server that is used, in bytes: `key_value.MIN_VALUE_BYTES` and headers fit.
MIN_PAYLOAD_BYTES: Final = 64 << 10
#: Largest part, also where a server takes more: other messages of the connection go out between two parts.
MAX_PART_BYTES: Final = 512 << 10
#: Most bytes of unfinished messages, of all senders together; past it the oldest message is dropped.
MAX_UNFINISHED_BYTES: Final = 64 << 20
#: Most senders of unfinished messages.
MAX_SENDERS: Final = 1_000


def split(message: bytes, max_payload: int, number: int) -> Iterator[bytes]:
    """Yield what is sent of one message: itself, or its parts.

    Args:
        message: The encoded control message.
        max_payload: Largest payload that the server takes, in bytes.
        number: Number of the message, another than that of the sender's message before.

    """
    most = min(max_payload, MAX_PART_BYTES)
    if len(message) <= most:
        yield message
        return
    step = most - HEADER.size
    for part, begin in enumerate(range(0, len(message), step)):
        yield HEADER.pack(MARK, number & 0xFFFFFFFF, part, len(message)) + message[begin : begin + step]


@dataclass(slots=True)
class _Unfinished:
    """One message of which parts are still to come."""

    number: int
    size: int
    parts: list[bytes] = field(default_factory=list)
    received: int = 0


class PartJoiner:
    """Joins the parts of messages. One for each subscription; senders are told apart by a key."""

    def __init__(self) -> None:
        self._unfinished: OrderedDict[Hashable, _Unfinished] = OrderedDict()
        #: Bytes of the parts that wait for others.
        self.bytes = 0
        #: Messages that were dropped because a part was lost, or too many were unfinished.
        self.lost = 0

    def join(self, sender: Hashable, payload: bytes) -> bytes | None:
        """Handle a received payload.

        Args:
            sender: Who sent it.
            payload: A whole message, or a part of one.

        Returns:
            The whole message; None while parts are missing, and after a loss.

        Raises:
            BusError: The payload is a part with an invalid header; it is dropped.

        """
        if payload[:1] != b"\xc1":
            if self._unfinished:
                self.forget(sender)
            return payload
        if len(payload) <= HEADER.size:
            raise BusError(f"a part of {len(payload)} bytes, expected more than {HEADER.size}")
        _, number, part, size = HEADER.unpack_from(payload)
        if not 0 < size <= MAX_CONTROL_BYTES:
            raise BusError(f"a part of a message of {size} bytes, expected at most {MAX_CONTROL_BYTES}")
        data = payload[HEADER.size :]
        if part == 0:
            self.forget(sender)
            self._unfinished[sender] = _Unfinished(number, size)
        known = self._unfinished.get(sender)
        if known is None:  # its beginning was lost
            return None
        if (known.number, known.size, len(known.parts)) != (number, size, part) or known.received + len(data) > size:
            self.forget(sender)
            return None
        known.parts.append(data)
        known.received += len(data)
        self.bytes += len(data)
        if known.received == size:
            self._drop(sender)
            return b"".join(known.parts)
        while self.bytes > MAX_UNFINISHED_BYTES or len(self._unfinished) > MAX_SENDERS:
            self.forget(next(iter(self._unfinished)))
        return None

    def forget(self, sender: Hashable) -> None:
        """Drop the unfinished message of a sender.

        Args:
            sender: Who began to send it; one that did not is ignored.

        """
        if sender in self._unfinished:
            self.lost += 1
            self._drop(sender)

    def _drop(self, sender: Hashable) -> None:
        self.bytes -= self._unfinished.pop(sender).received
