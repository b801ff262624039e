"""Reads the frames that mlbridge sends to an ML service: as JSON, with headers, or in a batch. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from watchout.common.alerts.model import STREAM_ID
from watchout.common.media import arrays
from watchout.common.media.codecs import Codec, sniff
from watchout.common.media.frames import FrameFault, decode_text
from watchout.common.toolbox.jsontext import JsonFault, read_json, write_json
from watchout.common.tracing.context import TRACEPARENT, parse

#: Most frames in one request.
MAX_BATCH: Final = 1024


class RequestFault(ValueError):
    """A request without a frame; the text says what came and what is expected. The response is 400."""


class Frame:
    """One frame that the ML service is to analyse.

    Args:
        stream_id: the stream.
        picture: the encoded picture.
        timestamp: when the camera took the picture, in ms since 1970; None: not in the request.
        frame_id: number within the stream; None: not in the request.
        traceparent: the trace of the request (W3C Trace Context); empty: it is not traced.

    Attributes:
        stream_id: the stream.
        picture: the encoded picture, mostly a JPEG.
        timestamp: when the camera took the picture, in ms since 1970; None: unknown.
        frame_id: number within the stream; None: unknown.
        traceparent: what a span of this service hangs below; empty: the frame is not traced.
    """

    __slots__ = ("_image", "frame_id", "picture", "stream_id", "timestamp", "traceparent")

    def __init__(
        self, stream_id: str, picture: bytes, *, timestamp: int | None, frame_id: int | None, traceparent: str = ""
    ) -> None:
        self.stream_id = stream_id
        self.picture = picture
        self.timestamp = timestamp
        self.frame_id = frame_id
        self.traceparent = traceparent
        self._image: Any = None

    @property
    def codec(self) -> Codec:
        """The codec that the first bytes identify."""
        return sniff(self.picture)

    @property
    def image(self) -> Any:
        """The picture as a numpy array (height × width × 3, BGR), decoded on first use.

        Raises:
            MissingExtra: OpenCV is not installed.
            PictureFault: the picture cannot be decoded. If the function does not catch it, the response is 400.
        """
        if self._image is None:
            self._image = arrays.decode(self.picture)
        return self._image

    @property
    def names(self) -> dict[str, Any]:
        """The fields that identify this frame in a response."""
        named = {"streamId": self.stream_id, "frameId": self.frame_id, "timestamp": self.timestamp}
        return {key: value for key, value in named.items() if value is not None}

    def __repr__(self) -> str:
        return f"Frame(stream_id={self.stream_id!r}, frame_id={self.frame_id}, timestamp={self.timestamp})"


def read_object(value: object) -> Frame:
    """Return the frame of a decoded message: ``{"streamId","frame","timestamp","frameId"}``.

    Raises:
        RequestFault: the message is no frame.
    """
    if not isinstance(value, dict):
        raise RequestFault(f"a frame is an object, got {type(value).__name__}")
    text = value.get("frame")
    if not isinstance(text, str):
        raise RequestFault('expected "frame" as text, the picture in base64')
    try:
        picture = decode_text(write_json(text))
    except (FrameFault, ValueError) as fault:
        raise RequestFault(f'"frame" is no picture: {fault}') from None
    return _frame(value.get("streamId"), picture, value.get("timestamp"), value.get("frameId"), value.get(TRACEPARENT))


def read_body(body: bytes) -> Frame | list[object]:
    """Return the frame of a JSON body, or the items of a batch, ``{"frames":[…]}``.

    Raises:
        RequestFault: the body is neither.
    """
    try:
        value = read_json(body)
    except (JsonFault, UnicodeError) as fault:
        raise RequestFault(f"the body is not JSON: {fault}") from None
    if isinstance(value, dict) and isinstance(value.get("frames"), list):
        if len(value["frames"]) > MAX_BATCH:
            raise RequestFault(f"{len(value['frames'])} frames in one request, expected at most {MAX_BATCH}")
        return list(value["frames"])
    return read_object(value)


def read_raw(body: bytes, headers: Mapping[str, str]) -> Frame:
    """Return the frame of a body that is the picture itself.

    Args:
        body: the picture.
        headers: ``X-Stream-Id``, ``X-Frame-Id``, ``X-Frame-Time``, ``traceparent``.

    Raises:
        RequestFault: the body is empty, or there is no stream id.
    """
    if not body:
        raise RequestFault("the body is empty, expected a picture")
    number, at = (_number(headers.get(name)) for name in ("X-Frame-Id", "X-Frame-Time"))
    return _frame(headers.get("X-Stream-Id"), body, at, number, headers.get(TRACEPARENT))


def _frame(stream: object, picture: bytes, timestamp: object, frame_id: object, traceparent: object) -> Frame:
    if not isinstance(stream, str) or not STREAM_ID.match(stream):
        raise RequestFault("the stream id is missing or wrong, expected 1 to 128 of A-Z a-z 0-9 _ . : -")
    context = parse(traceparent)
    return Frame(
        stream, picture, timestamp=_whole(timestamp), frame_id=_whole(frame_id),
        traceparent="" if context is None else context.traceparent,
    )  # fmt: skip


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 17 else None
