"""The C module `gateway._plain`, where it was built: two steps of nearly every frame. Pure.

Both are None without it (no compiler at installation): `gateway.intake` and `gateway.wire` then do the same in Python.
"""

from __future__ import annotations

from collections.abc import Callable

#: ``take(data, count, max_bytes, head, room)``: the first `count` bytes as one whole masked text frame, whose message
#: is ``head + text + '","timestamp":' + digits + "}"``, with a text without escapes. Returned: the message with `room`
#: bytes free before it, where its text begins and ends there, and the timestamp; None when the bytes are anything else.
Take = Callable[[memoryview, int, int, bytes, int], tuple[bytearray, int, int, int] | None]
#: ``message(head, frame_id, timestamp, text, begin, end)``: the WebSocket message of a frame, of ``text[begin:end]``.
#: Of what `take` gave it is made in place and is a part of it; the text stays where it is.
Message = Callable[[bytes, int, int, bytes | bytearray, int, int], bytes | memoryview]
#: Bytes before a message that are enough for what stands before the text in the one that is made of it: a WebSocket
#: header, the longest stream id, two numbers and the names.
ROOM = 256

take: Take | None = None
message: Message | None = None

try:
    from gateway import _plain
except ImportError:
    pass
else:
    take, message = _plain.take, _plain.message
