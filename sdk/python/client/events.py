"""What a client receives: frames, alerts, status, acknowledgements, problems, demand, and reports of recovery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from watchout.common.clock import now_ms
from watchout.common.media import arrays
from watchout.common.media.codecs import Codec
from watchout.common.media.frames import Frame as WireFrame
from watchout.common.media.frames import FrameFault, parse_binary


class ProtocolFault(ValueError):
    """A message from the gateway that is not one of watchout's protocol; raised by `read_message`."""


class Frame:
    """One encoded picture of a stream.

    Args:
        wire: the received message, read by `read_message`; its picture is decoded when it is asked for.
        fields: further fields that the camera sent with the frame (JSON format only).

    Attributes:
        stream_id: the stream.
        frame_id: number of the frame within its stream; a missing number is a frame that was dropped.
        timestamp: when the camera took it, in ms since 1970, by the camera's clock.
    """

    __slots__ = ("_image", "_wire", "fields", "frame_id", "stream_id", "timestamp")

    def __init__(self, wire: WireFrame, fields: Mapping[str, Any] | None = None) -> None:
        self.stream_id = wire.stream_id
        self.frame_id = wire.frame_id
        self.timestamp = wire.timestamp
        self.fields: Mapping[str, Any] = fields or {}
        self._wire = wire
        self._image: Any = None

    @property
    def picture(self) -> bytes:
        """The encoded picture, mostly a JPEG. Raises `ValueError` when the camera sent none."""
        return self._wire.picture

    @property
    def codec(self) -> Codec:
        """The codec that the first bytes identify."""
        return self._wire.codec

    @property
    def content_type(self) -> str:
        """Its media type, such as ``image/jpeg``."""
        return self._wire.codec.content_type

    @property
    def age_ms(self) -> int:
        """Milliseconds since the camera took the picture, by this clock; wrong by the difference of the two clocks."""
        return now_ms() - self.timestamp

    @property
    def image(self) -> Any:
        """The picture as a numpy array (height × width × 3, BGR), decoded on first use.

        Raises:
            MissingExtra: OpenCV is not installed.
            ValueError: the picture cannot be decoded.
        """
        if self._image is None:
            self._image = arrays.decode(self.picture)
        return self._image

    def __repr__(self) -> str:
        return f"Frame(stream_id={self.stream_id!r}, frame_id={self.frame_id}, timestamp={self.timestamp})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert about a stream.

    Attributes:
        id: unique within its stream.
        stream_id: the stream.
        severity: ``low``, ``medium``, ``high`` or ``critical``.
        message: one sentence for users.
        timestamp: ms since 1970; mostly that of the frame.
        frame_id: the frame that the alert refers to; None: none.
        metadata: further data of the sender.
        recovered: False when alerts before this one may be missing, after an outage.
        body: the whole message, with fields that have no attribute here.
    """

    id: str
    stream_id: str
    severity: str
    message: str
    timestamp: int
    frame_id: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    recovered: bool = True
    body: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Whether a camera is there: ``streaming``, ``online`` (no frame for 5 s) or ``offline``.

    `info` is what the camera said about itself when it registered; only the first status of a subscription has it.
    """

    stream_id: str
    status: str
    timestamp: int
    info: Mapping[str, Any] | None = None
    body: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Whether the alerts that were raised while this client was not connected are complete.

    `recovered`: all of them follow. False: some are lost; `from_ms` is the time of the oldest that is kept, in ms since
    1970. Received after a reconnect, and after the first subscription with `alerts_since`.
    """

    stream_id: str
    recovered: bool
    from_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """A user acknowledged an alert."""

    stream_id: str
    alert_id: str
    user_id: str
    note: str | None
    timestamp: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An error of the gateway that ends nothing: a frame that is no picture, a rate, recent alerts not available."""

    stream_id: str | None
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """The demand: `fps` is the frame rate that is worth sending, 0 for none; `viewers` is the number of viewers."""

    viewers: int
    fps: float


Event: TypeAlias = Frame | Alert | Status | Recovery | Acknowledged | Problem


def read_message(data: bytes | str) -> Frame | dict[str, Any]:
    """Return a frame, or any other message as an object.

    Raises:
        ProtocolFault: the message is neither; the text says why.
    """
    raw = data.encode() if isinstance(data, str) else data
    try:
        if raw[:1] != b"{":
            binary = parse_binary(raw)
            return Frame(
                WireFrame(
                    binary.stream_id or "",
                    binary.frame_id,
                    binary.timestamp or 0,
                    picture=binary.picture,
                    codec=binary.codec,
                )
            )
        message: dict[str, Any] = msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.MsgspecError, FrameFault, UnicodeError, RecursionError) as exc:
        raise ProtocolFault(str(exc)) from None
    match message:
        case {"type": "video-frame", "streamId": str(stream), "frameId": int(number), "data": str(text)}:
            wire = WireFrame(stream, number, whole(message.get("timestamp")), text=msgspec.json.encode(text))
            known = ("type", "streamId", "frameId", "data", "timestamp")
            return Frame(wire, {key: value for key, value in message.items() if key not in known})
    return message


def whole(value: object) -> int:
    """Return a number of a message without its fraction, 0 for anything else."""
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63 else 0


def read_alert(message: Mapping[str, Any]) -> Alert:
    """Return the alert of an ``alert`` message; fields with a wrong type are left empty."""
    metadata, frame_id = message.get("metadata"), message.get("frameId")
    return Alert(
        id=str(message.get("id", "")),
        stream_id=str(message.get("streamId", "")),
        severity=str(message.get("severity", "")),
        message=str(message.get("message", "")),
        timestamp=whole(message.get("timestamp")),
        frame_id=frame_id if isinstance(frame_id, int) else None,
        metadata=metadata if isinstance(metadata, dict) else {},
        body=message,
    )


def read_status(message: Mapping[str, Any]) -> Status:
    """Return the status of a ``status`` message."""
    info = message.get("info")
    return Status(
        stream_id=str(message.get("streamId", "")),
        status=str(message.get("status", "")),
        timestamp=whole(message.get("timestamp")),
        info=info if isinstance(info, dict) else None,
        body=message,
    )


def read_acknowledged(message: Mapping[str, Any]) -> Acknowledged:
    """Return the acknowledgement of an ``alert-acknowledged`` message."""
    note = message.get("note")
    return Acknowledged(
        stream_id=str(message.get("streamId", "")),
        alert_id=str(message.get("alertId", "")),
        user_id=str(message.get("userId", "")),
        note=None if note is None else str(note),
        timestamp=whole(message.get("timestamp")),
    )
