"""The C module `gateway._fastpath`, where it was built: two steps of nearly every frame. Pure.

Both are None without it (no compiler at installation): `gateway.client.frame_reader` and `gateway.wire` then do the
same in Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: Returned by `Take`: the message for viewers in the form that came, where in it the text or the picture is, its
#: timestamp in ms, the codec of a picture or `TEXT`, the size of the message that came, in bytes, and those of its
#: fields that the protocol does not name, as JSON members with a comma before each.
Taken = tuple[bytes, int, int, int, int, int, bytes]
#: ``take(data, count, max_bytes, json_head, name, frame_id, now_ms)``: the first `count` bytes as one whole masked
#: message that is a plain frame of the stream `name`: a JSON object whose `data` is base64 in its usual form, or the
#: binary form. `json_head` is how its viewers' JSON message begins, `now_ms` the time where it brings none.
#: None when the bytes are anything else: `gateway.wire.parse_text` takes the same and more.
Take = Callable[[memoryview, int, int, bytes, bytes, int, int], Taken | None]
#: ``message(head, frame_id, timestamp, text, begin, end, more)``: the WebSocket message of a frame, of
#: ``text[begin:end]``.
Message = Callable[[bytes, int, int, bytes, int, int, bytes], bytes]
#: Of `take` and `message` as they are described here: gateway/_fastpath.c has the same number.
INTERFACE: Final = 2
#: In the place of a codec.
TEXT: Final = -1

take: Take | None = None
message: Message | None = None

try:
    from watchout.gateway import _fastpath
except ImportError:
    pass
else:
    if getattr(_fastpath, "INTERFACE", 1) == INTERFACE:  # not one that an older source was built of
        take, message = _fastpath.take, _fastpath.message
