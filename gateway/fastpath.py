"""Access to the optional C module `gateway._fastpath`, which reads and writes plain frames. Pure.

Its functions are None where the module was not built, because there was no compiler at installation. Then
`gateway.client.frame_reader`, `gateway.wire` and `common.bus.frames` do the same in Python, with the full parser.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: Result of `Take`: the message for viewers, in the form (JSON or binary) of the received one; begin and end of the
#: text or picture in it; its timestamp in ms; the codec of a picture, or `TEXT`; the size of the received message in
#: bytes; and the fields that the protocol does not name, as JSON members with a comma before each.
Taken = tuple[bytes, int, int, int, int, int, bytes]
#: ``take(data, count, max_bytes, json_head, name, frame_id, now_ms)`` reads the first `count` bytes as one complete
#: masked message that is a plain frame of the stream `name`: a JSON object whose `data` is base64, in any order and
#: spelling that encoders of JSON are known to write, or the binary form. `json_head` is the beginning of the viewers'
#: JSON message, `frame_id` the id that the frame gets, and `now_ms` its timestamp if it has none. None when the bytes
#: are anything else: `gateway.wire.parse_text` accepts them and more.
Take = Callable[[memoryview, int, int, bytes, bytes, int, int], Taken | None]
#: ``take_payload(payload, json_head, name, frame_id, now_ms)`` does the same with the unmasked payload of a text
#: message, which came in fragments or compressed.
TakePayload = Callable[[bytes, bytes, bytes, int, int], Taken | None]
#: ``message(head, frame_id, timestamp, text, begin, end, more)`` returns the WebSocket message of a JSON frame whose
#: `data` is ``text[begin:end]``.
Message = Callable[[bytes, int, int, bytes, int, int, bytes], bytes]
#: What `Frame.of_message` takes, in its order.
OfMessage = tuple[str, int, int, int, bytes, int, int, int, bytes, int]
#: ``remote(data)`` reads a frame from another gateway that holds a finished message for viewers (`common.bus.frames`).
#: None when it is of another form, for one receiver, or malformed: `decode_frame` and `Frame.from_bus` decide then.
Remote = Callable[[bytes | memoryview], OfMessage | None]
#: Version of the functions; gateway/_fastpath.c has the same number.
INTERFACE: Final = 5
#: Stands for the codec where the frame is text.
TEXT: Final = -1

take: Take | None = None
take_payload: TakePayload | None = None
message: Message | None = None
remote: Remote | None = None

try:
    from watchout.gateway import _fastpath
except ImportError:
    pass
else:
    if getattr(_fastpath, "INTERFACE", 1) == INTERFACE:  # not a build of an older source
        take, take_payload = _fastpath.take, _fastpath.take_payload
        message, remote = _fastpath.message, _fastpath.remote
