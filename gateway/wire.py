"""The bytes of the edge protocol: client messages in, server messages out (docs/protocol.md). Pure.

Messages of clients are parsed to `ClientMessage` structs. Messages of the server are encoded as whole, unmasked
WebSocket frames (RFC 6455 section 5.2), so that one buffer serves all viewers and a connection only writes it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec

from watchout.common.alerts.acknowledgement import Note, clean_note
from watchout.common.alerts.model import (
    AlertDraft,
    AlertFault,
    AlertFields,
    AlertId,
    FrameId,
    Milliseconds,
    StreamId,
    check_draft,
    whole,
    whole_ms,
)
from watchout.common.errors import ClientError, ErrorCode
from watchout.common.media.frames import Frame
from watchout.common.toolbox.json_words import fault_in_words, kind_of, kind_of_text
from watchout.common.toolbox.jsontext import JsonFault, is_nested_deeper, read_json, read_members, write_json
from watchout.gateway import fastpath

Format = Literal["json", "binary"]
#: The event that a `success` message confirms.
Event = Literal["authenticated", "registered", "subscribed", "unsubscribed", "acknowledged", "alert-accepted"]
#: A time in ms since the epoch. Some languages write every number with a fraction, which is dropped.
ClientTime = Milliseconds | Annotated[float, msgspec.Meta(ge=0, le=2**53 - 1)]
#: Length of a silence, in seconds.
PingEvery = Annotated[float, msgspec.Meta(ge=5, le=60)]
Names = Annotated[list[Annotated[str, msgspec.Meta(max_length=64)]], msgspec.Meta(max_length=32)]
OPCODE_TEXT: Final = 0x1
OPCODE_BINARY: Final = 0x2


@dataclass(frozen=True, slots=True)
class Subject:
    """Which message of the client a reply answers; copied into the reply, so that clients can match the two.

    Made by `ClientProtocol` from the message, and by the hub for what concerns a stream; used by `success` and `error`.

    Attributes:
        request_id: The message's `requestId`; None: it had none.
        stream_id: The stream that the message is about; None: it is about the socket itself.
    """

    request_id: str | None = None
    stream_id: str | None = None


#: The subject of what is about the socket itself.
NOTHING: Final = Subject()


class ClientMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="type"):
    """Base of the messages of WebSocket clients. Unknown fields are ignored.

    Made by `parse_text`, which raises `ClientError` for a message that is not valid; the caller sends it to the client.

    Attributes:
        request_id: Chosen by the client; the answer to the message carries it. None: none.
    """

    request_id: str | None = None


class Auth(ClientMessage, frozen=True, tag="auth"):
    """Client message `auth`: authenticates the socket with a session token. `repr` does not show the token.

    Attributes:
        token: The token.
        renew: Whether it replaces the session of a socket that is signed in, by another one of the same user.
        ping_every: See `Subscribe`.
    """

    token: str
    renew: bool | None = None
    ping_every: PingEvery | None = None

    def __repr__(self) -> str:
        return "Auth(token=…)"


class Register(ClientMessage, frozen=True, tag="register"):
    """Client message `register`: the client publishes a stream.

    Attributes:
        client_type: Ignored; older clients send it.
        stream_id: Id of the stream; None: the gateway makes one.
        produces: "video-frame", "alert"; None: nothing.
        consumes: "alert", "demand"; with any of the known names the publisher receives the status too; None: nothing.
        ping_every: See `Subscribe`.
        info: What the camera says of itself, the text of a JSON object; None: nothing.
        window: Most frames that the camera sends before one is acknowledged; None: it wants no acknowledgements.
    """

    client_type: str | None = None
    stream_id: StreamId | None = None
    produces: Names | None = None
    consumes: Names | None = None
    ping_every: PingEvery | None = None
    window: Annotated[int, msgspec.Meta(ge=1, le=32)] | None = None
    info: str | None = None


class VideoFrame(ClientMessage, frozen=True, tag="video-frame"):
    """Client message `video-frame`: a publisher's frame as JSON.

    Attributes:
        stream_id: Id of the stream; None: the registered one.
        timestamp: The publisher's time, in ms since the epoch; None: the time of receipt.
        data: The JSON string token of the payload, not decoded.
        more: Members that the protocol does not name, as received, each with a comma before it.
    """

    stream_id: StreamId | None = None
    timestamp: ClientTime | None = None
    data: bytes = b""
    more: bytes = b""


class Subscribe(ClientMessage, frozen=True, tag="subscribe"):
    """Client message `subscribe`: the client wants frames or alerts of a stream.

    Attributes:
        stream_id: Id of the stream.
        client_type: Ignored; older clients send it.
        consumes: "video-frame", "alert"; None: nothing but the status.
        format: Encoding of frames; None: JSON.
        max_fps: Highest rate of frames per second; None: every frame.
        last_frame: Whether the newest frame is sent at once; None: yes.
        alerts_since: Alerts since this time in ms are sent first; None: none.
        window: Most frames sent before one is acknowledged; None: no acknowledgement.
        ping_every: Length of a silence in seconds after which the server sends `ping`; None: as before.
    """

    stream_id: StreamId
    client_type: str | None = None
    consumes: Names | None = None
    format: Format | None = None
    max_fps: Annotated[float, msgspec.Meta(ge=1e-6, le=1e6)] | None = None
    last_frame: bool | None = None
    alerts_since: ClientTime | None = None
    window: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    ping_every: PingEvery | None = None


class Unsubscribe(ClientMessage, frozen=True, tag="unsubscribe"):
    """Client message `unsubscribe`: ends the subscription to a stream."""

    stream_id: StreamId


class Ack(ClientMessage, frozen=True, tag="ack"):
    """Client message `ack`: the viewer has received all frames with ids up to `frame_id`."""

    stream_id: StreamId
    frame_id: FrameId


class Acknowledge(ClientMessage, frozen=True, tag="acknowledge"):
    """Client message `acknowledge`: the user has seen an alert.

    Attributes:
        stream_id: Id of the stream.
        alert_id: Id of the alert.
        note: What the user writes about it; None or "": nothing.
    """

    stream_id: StreamId
    alert_id: AlertId
    note: Note | None = None


class Ping(ClientMessage, frozen=True, tag="ping"):
    """Client message `ping`: the client wants a `pong`."""


class PublisherAlert(ClientMessage, frozen=True, tag="alert"):
    """Client message `alert`: a publisher raises an alert for its stream. `draft` has been checked."""

    draft: AlertDraft


AnyClientMessage = Auth | Register | VideoFrame | Subscribe | Unsubscribe | Ack | Acknowledge | Ping | PublisherAlert
KNOWN_TYPES: Final = (
    "auth", "register", "video-frame", "subscribe", "unsubscribe", "ack", "acknowledge", "ping", "alert",
)  # fmt: skip

#: Longest `requestId`, in characters.
MAX_REQUEST_ID: Final = 64
#: Longest `info`, in bytes of JSON without white space.
MAX_INFO_BYTES: Final = 4096
#: Deepest nesting in `info`, so that whoever reads it later can, too.
MAX_INFO_DEPTH: Final = 100
#: Longest `ping` that is free of the message rate, in bytes.
MAX_PING_BYTES: Final = 1024
#: Longest value of a field, in bytes of JSON (strings excepted), and longest alert.
MAX_VALUE_BYTES: Final = 64 * 1024
MAX_ALERT_BYTES: Final = 128 * 1024
#: The fields that are read, by type of message; frames and alerts are read by functions of their own.
_STRUCTS: Final = {
    struct.__struct_config__.tag: struct for struct in (Auth, Register, Subscribe, Unsubscribe, Ack, Acknowledge, Ping)
}
_FIELDS: Final = {
    kind: frozenset(field.encode_name for field in msgspec.structs.fields(struct)) - {"requestId"}
    for kind, struct in _STRUCTS.items()
}
_FRAME_FIELDS: Final = ("streamId", "timestamp")
#: Fields of a frame that the protocol defines, or that only the server sets.
_NAMED_IN_FRAMES: Final = frozenset({"type", "streamId", "data", "timestamp", "frameId", "requestId"})
_QUOTE: Final = ord('"')
_TIMES: Final = frozenset({"timestamp", "alertsSince"})


def parse_text(data: bytes) -> AnyClientMessage:
    """Parse a text message of a client.

    Args:
        data: The payload of the WebSocket message.

    Returns:
        The message.

    Raises:
        UnicodeDecodeError: It is not UTF-8; the caller closes the socket with 1007 (RFC 6455 section 8.1).
        ClientError: It is no valid message, with `INVALID_MESSAGE` or `UNKNOWN_MESSAGE_TYPE`; the caller replies it.
    """
    try:
        members = read_members(data)
        kind = _read("type", members["type"])
        request_id = None if "requestId" not in members else read_request_id(members["requestId"])
        if kind == "video-frame":
            message: AnyClientMessage = _frame(members)
        elif kind == "alert":
            message = _alert(data)
        else:
            found = {name: _read(name, members[name]) for name in _FIELDS[kind] if name in members}
            if isinstance(note := found.get("note"), str):
                found["note"] = clean_note(note)
            if (info := found.get("info")) is not None:
                found["info"] = _info(info)
            message = _convert({**found, "type": kind}, _STRUCTS[kind])
        return message if request_id is None else msgspec.structs.replace(message, request_id=request_id)
    except (JsonFault, KeyError, TypeError):
        raise _explain(data) from None


def _read(name: str, value: memoryview) -> Any:
    """Decode the value of a field. Numbers may have any JSON syntax; the fraction of a time is dropped."""
    if len(value) > MAX_VALUE_BYTES and value[0] != _QUOTE:
        most = MAX_INFO_BYTES if name == "info" else MAX_VALUE_BYTES
        text = f"`{name}` has {len(value)} bytes, expected at most {most}"
        raise ClientError(ErrorCode.INVALID_MESSAGE, text)
    found = read_json(value)
    return whole_ms(found) if name in _TIMES else whole(found) if name != "maxFps" else found


def _info(value: object) -> str:
    """Return the `info` of a camera as JSON. Raises `ClientError`."""
    if not isinstance(value, dict):
        raise ClientError(ErrorCode.INVALID_MESSAGE, f"expected an object in `info`, got {kind_of(value)}")
    if is_nested_deeper(value, MAX_INFO_DEPTH):
        raise ClientError(ErrorCode.INVALID_MESSAGE, f"`info` is nested more than {MAX_INFO_DEPTH} deep")
    try:
        data = write_json(value)
    except ValueError:
        raise ClientError(ErrorCode.INVALID_MESSAGE, "`info` holds a number that is not finite") from None
    if len(data) > MAX_INFO_BYTES:
        text = f"`info` has {len(data)} bytes as JSON, expected at most {MAX_INFO_BYTES}"
        raise ClientError(ErrorCode.INVALID_MESSAGE, text)
    return data.decode()


def read_request_id(value: memoryview) -> str | None:
    """Decode a `requestId`, which may hold whatever a text of JSON may; None for null. Raises `ClientError`."""
    found = _read("requestId", value)
    if found is None or (isinstance(found, str) and len(found) <= MAX_REQUEST_ID):
        return found
    came = f"one of {len(found)}" if isinstance(found, str) else kind_of(found)
    text = f"expected a string of at most {MAX_REQUEST_ID} characters in `requestId`, got {came}"
    raise ClientError(ErrorCode.INVALID_MESSAGE, text)


def _frame(members: dict[str, memoryview]) -> VideoFrame:
    fields: dict[str, Any] = {name: _read(name, members[name]) for name in _FRAME_FIELDS if name in members}
    data = members.get("data")
    if data is None:
        raise ClientError(ErrorCode.INVALID_MESSAGE, "Object missing required field `data`")
    if data[0] != _QUOTE:
        raise ClientError(ErrorCode.INVALID_MESSAGE, f"Expected `string`, got `{kind_of_text(data)}` - at `$.data`")
    more = b"".join(
        b",%b:%b" % (write_json(name), bytes(value)) for name, value in members.items() if name not in _NAMED_IN_FRAMES
    )
    fields |= {"type": "video-frame", "data": bytes(data), "more": more}
    frame: VideoFrame = _convert(fields, VideoFrame)
    return frame


def _alert(data: bytes) -> PublisherAlert:
    if len(data) > MAX_ALERT_BYTES:
        text = f"an alert of {len(data)} bytes, expected at most {MAX_ALERT_BYTES}"
        raise ClientError(ErrorCode.INVALID_MESSAGE, text)
    try:
        value = read_json(data)
        value.pop("requestId", None)
        return PublisherAlert(draft=check_draft(value))
    except AlertFault as fault:
        text = fault_in_words(str(fault), AlertFields)
        raise ClientError(ErrorCode.INVALID_MESSAGE, text) from None


def _convert(value: dict[str, Any], kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        text = fault_in_words(str(error), kind, value)
        raise ClientError(ErrorCode.INVALID_MESSAGE, text) from None
    except UnicodeError:
        text = "a name holds a lone surrogate, expected text in UTF-8"
        raise ClientError(ErrorCode.INVALID_MESSAGE, text) from None


def _explain(data: bytes) -> ClientError:
    """Return the error for `data`, which is no valid message. Slow: called only for errors."""
    try:
        value = read_json(data)
    except JsonFault as fault:
        return ClientError(ErrorCode.INVALID_MESSAGE, f"not JSON: {fault}")
    if not isinstance(value, dict):
        return ClientError(ErrorCode.INVALID_MESSAGE, f"expected a JSON object, got {kind_of(value)}")
    kind = value.get("type")
    if not isinstance(kind, str):
        came = "none" if "type" not in value else kind_of(kind)
        return ClientError(ErrorCode.INVALID_MESSAGE, f"expected a string in `type`, got {came}")
    expected = ", ".join(KNOWN_TYPES)
    return ClientError(ErrorCode.UNKNOWN_MESSAGE_TYPE, f"type {kind[:40]!a} is not known, expected one of {expected}")


def frame_header(opcode: int, length: int) -> bytes:
    """Return the header of an unmasked, unfragmented, uncompressed WebSocket frame (RFC 6455 section 5.2).

    Args:
        opcode: `OPCODE_TEXT` or `OPCODE_BINARY`.
        length: Bytes of the payload.
    """
    if length < 126:
        return bytes((0x80 | opcode, length))
    if length < 65536:
        return struct.pack("!BBH", 0x80 | opcode, 126, length)
    return struct.pack("!BBQ", 0x80 | opcode, 127, length)


def text_message(payload: bytes) -> bytes:
    """Return a text message with this payload as a whole WebSocket frame."""
    return frame_header(OPCODE_TEXT, len(payload)) + payload


def _message_of_text(
    head: bytes, frame_id: int, timestamp: int, text: bytes, begin: int, end: int, more: bytes = b""
) -> bytes:
    """Do what `gateway.fastpath.message` does, in Python; `more`: further members, each with a comma before it."""
    start = b'%b%d,"timestamp":%d%b,"data":"' % (head, frame_id, timestamp, more)
    size = len(start) + end - begin + 2
    return b"".join((frame_header(OPCODE_TEXT, size), start, memoryview(text)[begin:end], b'"}'))


#: Encodes the JSON message of a frame, for `common.media.frames.Frame.json_message`.
json_message: Final = fastpath.message or _message_of_text


def frame_message(frame: Frame, format: Format) -> bytes:
    """Return a frame as a whole WebSocket frame; it is encoded once per frame and format.

    Args:
        frame: The frame; it keeps the result.
        format: "json" or "binary".

    Returns:
        The bytes to write, shared by all viewers of that format.

    Raises:
        FrameFault: The binary format needs the decoded payload, which is invalid.
    """
    if format == "json":
        return frame.json_wire or frame.json_message(json_message)
    return frame.binary_wire or _binary_message(frame)


def _binary_message(frame: Frame) -> bytes:
    head, picture = frame.binary_parts()
    frame.binary_wire = wire = b"".join((frame_header(OPCODE_BINARY, len(head) + len(picture)), head, picture))
    return wire


def success(message: str, event: Event, now_ms: int, subject: Subject = NOTHING, **more: Any) -> bytes:
    """Return a ``success`` message as a whole WebSocket frame.

    `message` is for people, `event` for programs; `now_ms` in ms since the epoch; `more`: further fields.
    """
    body: dict[str, Any] = {"type": "success", "message": message, "event": event}
    return _answer(body, now_ms, subject, more)


def error(code: ErrorCode, message: str, now_ms: int, subject: Subject = NOTHING) -> bytes:
    """Return an ``error`` message as a whole WebSocket frame. `now_ms` in ms since the epoch."""
    return _answer({"type": "error", "code": str(code), "message": message}, now_ms, subject, {})


def _answer(body: dict[str, Any], now_ms: int, subject: Subject, more: dict[str, Any]) -> bytes:
    if subject.stream_id is not None:
        body["streamId"] = subject.stream_id
    body |= more
    body["timestamp"] = now_ms
    if subject.request_id is not None:
        body["requestId"] = subject.request_id
    return text_message(write_json(body))


def ack(stream_id: str, frame_id: int, timestamp: int, received: int) -> bytes:
    """Return an ``ack`` of a camera's frames as a whole WebSocket frame.

    Args:
        stream_id: Id of the stream.
        frame_id: Id of the newest frame that was taken in.
        timestamp: The camera's time of the newest frame that is acknowledged, in ms since the epoch.
        received: How many frames have been acknowledged on this socket, with this one.
    """
    return text_message(
        b'{"type":"ack","streamId":"%b","frameId":%d,"timestamp":%d,"received":%d}'
        % (stream_id.encode("ascii"), frame_id, timestamp, received)
    )


def is_ping(data: bytes) -> bool:
    """Return whether a text message is a client's `ping`."""
    if len(data) > MAX_PING_BYTES or b'"ping"' not in data:
        return False
    try:
        return type(parse_text(data)) is Ping
    except (ClientError, UnicodeError):
        return False


def ping(now_ms: int) -> bytes:
    """Return a ``ping`` message as a whole WebSocket frame. `now_ms` in ms since the epoch."""
    return text_message(b'{"type":"ping","timestamp":%d}' % now_ms)


def pong(now_ms: int, request_id: str | None) -> bytes:
    """Return the ``pong`` that answers a client's `ping`, as a whole WebSocket frame."""
    return _answer({"type": "pong"}, now_ms, Subject(request_id), {})


_ERROR: Final = b'{"type":"error"'
_LENGTH_BYTES: Final = {126: 4, 127: 10}


def is_error(message: bytes) -> bool:
    """Return whether an encoded message is one that `error` returned."""
    return message.startswith(_ERROR, _LENGTH_BYTES.get(message[1], 2))


def demand(stream_id: str, viewers: int, fps: float, timestamp: int) -> bytes:
    """Return a ``demand`` message as a whole WebSocket frame: number of viewers, and frames per second they want."""
    body = {"type": "demand", "streamId": stream_id, "viewers": viewers, "fps": int(fps) if fps == int(fps) else fps}
    return text_message(msgspec.json.encode({**body, "timestamp": timestamp}))


def status(stream_id: str, status: str, timestamp: int, info: str | None = None) -> bytes:
    """Return a ``status`` message as a whole WebSocket frame.

    Args:
        stream_id: Id of the stream.
        status: The status.
        timestamp: Milliseconds since the epoch.
        info: What the camera says of itself, as JSON; "": nothing any more. None: not mentioned.
    """
    body: dict[str, Any] = {"type": "status", "streamId": stream_id, "status": status, "timestamp": timestamp}
    if info is not None:
        body["info"] = msgspec.Raw(info.encode() or b"{}")
    return text_message(msgspec.json.encode(body))
