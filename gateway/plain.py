"""The C module `gateway._plain`, where it was built: two steps of nearly every frame. Pure.

Both are None without it (no compiler at installation): `gateway.intake` and `gateway.wire` then do the same in Python.
"""

from __future__ import annotations

from collections.abc import Callable

#: ``take(data, count, max_bytes, head)``: the first `count` bytes as one whole masked text frame, whose message is
#: ``head + text + '","timestamp":' + digits + "}"``, with a text without escapes. Returned: the message, where in it
#: the text begins and ends, and the timestamp; None when the bytes are anything else.
Take = Callable[[memoryview, int, int, bytes], tuple[bytes, int, int, int] | None]
#: ``message(head, frame_id, timestamp, text, begin, end)``: the WebSocket message of a frame, of ``text[begin:end]``.
Message = Callable[[bytes, int, int, bytes, int, int], bytes]

take: Take | None = None
message: Message | None = None

try:
    from gateway import _plain
except ImportError:
    pass
else:
    take, message = _plain.take, _plain.message
