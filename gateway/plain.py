"""The C module `gateway._plain`, where it was built: two steps of nearly every frame. Pure.

Both are None without it (no compiler at installation): `gateway.intake` and `gateway.wire` then do the same in Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: What is known of a camera's next frame: how the envelope of its text begins (empty: not known), how its viewers'
#: JSON message begins, the stream's id, the frame id, and the time in ms since the epoch.
Known = tuple[bytes, bytes, bytes, int, int]
#: Returned by `Take`: the message for viewers in the form that came, where in it the text or the picture is, its
#: timestamp in ms, the codec of a picture or `TEXT`, and the size of the message that came, in bytes.
Taken = tuple[bytes, int, int, int, int, int]
#: ``take(data, count, max_bytes, *known)``: the first `count` bytes as one whole masked message that is a plain frame.
#: That is ``head + text + '","timestamp":' + digits + "}"``, with a text without escapes, or the binary form with this
#: stream's id or none. None when the bytes are anything else.
Take = Callable[[memoryview, int, int, bytes, bytes, bytes, int, int], Taken | None]
#: ``message(head, frame_id, timestamp, text, begin, end)``: the WebSocket message of a frame, of ``text[begin:end]``.
Message = Callable[[bytes, int, int, bytes, int, int], bytes]
#: In the place of a codec.
TEXT: Final = -1

take: Take | None = None
message: Message | None = None

try:
    from gateway import _plain
except ImportError:
    pass
else:
    take, message = _plain.take, _plain.message
