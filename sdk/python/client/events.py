"""What a client receives: frames, alerts, status, and what became of an alert or of a recovery."""

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
        fields: what else the camera sent with it (JSON format only).

    Attributes:
        stream_id: the stream.
        frame_id: number of the frame within its stream; gaps are frames that were dropped.
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
        """Milliseconds since the camera took it; wrong by as much as the two clocks differ."""
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
        message: one sentence for people.
        timestamp: ms since 1970; mostly that of the frame.
        frame_id: the frame that it is about, None: none.
        metadata: what the sender added.
        recovered: no alert before it is missing; False after an outage in which some were lost, as far as is known.
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

    `info` is what the camera told of itself when it registered; only with the first status of a subscription.
    """

    stream_id: str
    status: str
    timestamp: int
    info: Mapping[str, Any] | None = None
    body: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What became of the alerts that were raised while this client was away.

    `recovered`: all of them follow. False: some are lost; the oldest that is kept is of `from_ms` (ms since 1970).
    Comes after a reconnect, and after a first subscription with `alerts_since`.
    """

    stream_id: str
    recovered: bool
    from_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """Somebody acknowledged an alert."""

    stream_id: str
    alert_id: str
    user_id: str
    note: str | None
    timestamp: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The gateway reports something that ends nothing: a frame that is no picture, a rate, missing recent alerts."""

    stream_id: str | None
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is worth sending now: `fps` frames per second, 0 when nobody wants any; `viewers` view pictures."""

    viewers: int
    fps: float


Event: TypeAlias = Frame | Alert | Status | Recovery | Acknowledged | Problem


def read_message(data: bytes | str) -> Frame | dict[str, Any]:
    """Return a frame, or any other message as an object.

    Raises:
        ProtocolFault: it is neither; the text says why.
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
    """Return the alert of an ``alert`` message; what does not fit is left empty."""
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
