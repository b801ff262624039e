"""What an alert is, and how one that came from outside is checked. Pure.

One alert is what an ML service, a camera's panic button or an operator says of a stream
(docs/protocol.md, "Alerts"). Anything that does not fit is refused with a reason, never repaired.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Final, Literal, get_args

import msgspec

STREAM_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}\Z")
ALERT_ID: Final = re.compile(r"[\x21-\x7e]{1,128}\Z")
MAX_METADATA_BYTES: Final = 16 * 1024
MAX_METADATA_DEPTH: Final = 32
#: Values in it, those that hold others among them: each costs far more in memory and time than its bytes.
MAX_METADATA_VALUES: Final = 1024
#: Most alerts in one answer of an ML service or one ``POST /alerts``.
MAX_ALERTS: Final = 100

Severity = Literal["low", "medium", "high", "critical"]
#: From the least on.
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
StreamId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:-]{1,128}\Z")]
AlertId = Annotated[str, msgspec.Meta(pattern=r"^[\x21-\x7e]{1,128}\Z")]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
FrameId = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class AlertDraft(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An alert as it came from outside: what may be left out is None."""

    severity: Severity
    message: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    type: Literal["alert"] = "alert"
    stream_id: StreamId | None = None
    timestamp: Milliseconds | None = None
    frame_id: FrameId | None = None
    id: AlertId | None = None
    metadata: dict[str, Any] | None = None


class Alert(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An alert with an identity: of one stream, at one time, under one id."""

    id: AlertId
    stream_id: StreamId
    severity: Severity
    message: str
    timestamp: Milliseconds
    frame_id: FrameId | None = None
    metadata: dict[str, Any] | None = None

    def to_json(self) -> bytes:
        """The alert as the edge protocol sends it."""
        body: dict[str, Any] = {
            "type": "alert",
            "id": self.id,
            "streamId": self.stream_id,
            "severity": self.severity,
            "message": self.message,
            "timestamp": self.timestamp,
        }
        if self.frame_id is not None:
            body["frameId"] = self.frame_id
        if self.metadata is not None:
            body["metadata"] = self.metadata
        return msgspec.json.encode(body)


class AlertFault(ValueError):
    """An alert that does not fit; the text says what came and what was expected."""


def check_draft(value: object) -> AlertDraft:
    """One alert from decoded JSON or MessagePack. Raises `AlertFault`."""
    if not isinstance(value, dict):
        raise AlertFault(f"an alert is an object, got {_kind(value)}")
    try:
        draft = msgspec.convert(value, AlertDraft)
        if draft.metadata is not None:
            size = len(msgspec.json.encode(draft.metadata))
            if size > MAX_METADATA_BYTES:
                raise AlertFault(f"metadata has {size} bytes as JSON, expected at most {MAX_METADATA_BYTES}")
            _check_value(draft.metadata, MAX_METADATA_DEPTH, [MAX_METADATA_VALUES])
        draft.message.encode()
    except msgspec.ValidationError as exc:
        raise AlertFault(str(exc)) from None
    except UnicodeEncodeError:
        raise AlertFault("text holds a lone surrogate, which is no Unicode") from None
    except (TypeError, RecursionError, ValueError) as exc:
        if isinstance(exc, AlertFault):
            raise
        raise AlertFault("metadata cannot be written as JSON") from None
    return draft


def complete(
    draft: AlertDraft, *, alert_id: str, timestamp: int, stream_id: str | None = None, frame_id: int | None = None
) -> Alert:
    """Fill what the sender left out. The sender's own values win. Raises `AlertFault` without any stream id."""
    stream = draft.stream_id or stream_id
    if stream is None:
        raise AlertFault("streamId is missing")
    same_stream = draft.stream_id is None or draft.stream_id == stream_id
    return Alert(
        id=draft.id or alert_id,
        stream_id=stream,
        severity=draft.severity,
        message=draft.message,
        timestamp=timestamp if draft.timestamp is None else draft.timestamp,
        frame_id=draft.frame_id if draft.frame_id is not None or not same_stream else frame_id,
        metadata=draft.metadata,
    )


def split_answer(value: object) -> list[object]:
    """The alerts in a decoded answer of an ML service to one frame: ``{"alert":{…}}`` or ``{"alerts":[…]}``.

    Anything else means no alert. More than `MAX_ALERTS` are a fault.
    """
    if not isinstance(value, dict):
        return []
    found: list[object] = []
    if value.get("alert") is not None:
        found.append(value["alert"])
    many = value.get("alerts")
    if many is not None:
        if not isinstance(many, list):
            raise AlertFault(f"alerts is a list, got {_kind(many)}")
        found += many
    return _bounded(found)


def split_push(value: object) -> list[object]:
    """The alerts in a decoded message that brings alerts by itself: one alert or a list of them."""
    return _bounded(value if isinstance(value, list) else [value])


def _bounded(found: list[object]) -> list[object]:
    if len(found) > MAX_ALERTS:
        raise AlertFault(f"{len(found)} alerts at once, expected at most {MAX_ALERTS}")
    return found


def _check_value(value: object, depth: int, left: list[int]) -> None:
    """What JSON has and MessagePack cannot carry is a fault here, so that no alert gets stuck on the bus.

    `left` holds how many values there may still be.
    """
    left[0] -= 1
    if left[0] < 0:
        raise AlertFault(f"metadata has more than {MAX_METADATA_VALUES} values, expected at most so many")
    if isinstance(value, float) and not math.isfinite(value):
        raise AlertFault("metadata holds a number that is not finite")
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise AlertFault("metadata holds a whole number of more than 64 bits")
    if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
        raise AlertFault("metadata holds a key that is not text")
    if isinstance(value, dict | list):
        if not depth:
            raise AlertFault(f"metadata is nested more than {MAX_METADATA_DEPTH} deep")
        for inner in value.values() if isinstance(value, dict) else value:
            _check_value(inner, depth - 1, left)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), "null" if value is None else type(value).__name__)
