"""Alerts: their fields, and the check of those from outside. Pure.

ML services, publishers (panic button) and operators raise alerts about a stream (docs/protocol.md, "Alerts"). An
invalid alert is refused with a reason, never repaired. Fields that the protocol does not name are passed on unchanged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_args

import msgspec

from watchout.common.toolbox.jsontext import JsonFault, read_json, write_json

STREAM_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}\Z")
ALERT_ID: Final = re.compile(r"[\x21-\x7e]{1,128}\Z")
MAX_METADATA_BYTES: Final = 16 * 1024
MAX_METADATA_DEPTH: Final = 32
#: Most values in `metadata`, objects and lists included: each costs far more memory and time than its bytes. The same
#: limit applies to all fields together that the protocol does not name.
MAX_METADATA_VALUES: Final = 1024
#: Most alerts in one result of an ML service or one ``POST /alerts``.
MAX_ALERTS: Final = 100

Severity = Literal["low", "medium", "high", "critical"]
#: In rising order.
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
StreamId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:-]{1,128}\Z")]
AlertId = Annotated[str, msgspec.Meta(pattern=r"^[\x21-\x7e]{1,128}\Z")]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
FrameId = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class AlertFields(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The fields of an alert that the protocol names; `check_draft` decodes alerts with it, and docs/schemas/alert.json
    is generated from it.

    An optional field that is missing is None. `timestamp` is in ms since the epoch.
    """

    severity: Severity
    message: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    type: Literal["alert"] = "alert"
    stream_id: StreamId | None = None
    timestamp: Milliseconds | None = None
    frame_id: FrameId | None = None
    id: AlertId | None = None
    metadata: dict[str, Any] | None = None


class AlertDraft(AlertFields, frozen=True, kw_only=True):
    """A checked alert from outside, not complete yet: `complete` makes it an `Alert`. Returned by `check_draft`.

    Attributes:
        more: the fields that the protocol does not name.
    """

    more: dict[str, Any] = msgspec.field(default_factory=dict, name="(not named)")


class _Head(msgspec.Struct, frozen=True, rename="camel"):
    """The fields that `Alert.from_json` decodes at once, because they are used often."""

    id: AlertId
    stream_id: StreamId
    severity: Severity
    timestamp: Milliseconds
    frame_id: FrameId | None = None


_HEAD: Final = tuple(field.encode_name for field in msgspec.structs.fields(_Head))
_head_decoder: Final = msgspec.json.Decoder(_Head)


class Alert:
    """A complete alert, as it crosses the bus and as viewers receive it. Immutable; made by `complete` and `from_json`.

    It holds its JSON and the fields that are used often; others are decoded on each use.

    Attributes:
        id: id, unique within its stream.
        stream_id: the stream.
        severity: the severity.
        timestamp: time in ms since the epoch.
        frame_id: the frame that it is about, None: none.
        json: the alert as viewers receive it.
    """

    __slots__ = ("frame_id", "id", "json", "severity", "stream_id", "timestamp")

    def __init__(
        self,
        *,
        id: str,
        stream_id: str,
        severity: Severity,
        message: str,
        timestamp: int,
        frame_id: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """`timestamp` in ms since the epoch. `more`: fields that the protocol does not name."""
        body: dict[str, Any] = {
            "type": "alert",
            "id": id,
            "streamId": stream_id,
            "severity": severity,
            "message": message,
            "timestamp": timestamp,
        }
        if frame_id is not None:
            body["frameId"] = frame_id
        if metadata is not None:
            body["metadata"] = metadata
        body.update(more or {})
        self._take(body)

    def _take(self, body: dict[str, Any]) -> None:
        self.id: str = body["id"]
        self.stream_id: str = body["streamId"]
        self.severity: Severity = body["severity"]
        self.timestamp: int = body["timestamp"]
        self.frame_id: int | None = body.get("frameId")
        #: The alert as the edge protocol sends it.
        self.json = write_json(body)

    @classmethod
    def from_json(cls, data: bytes) -> Alert:
        """Return the alert with this JSON. Raises `AlertFault`."""
        try:
            head = _head_decoder.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            try:
                body = read_json(data)
                head = msgspec.convert({name: body[name] for name in _HEAD if name in body}, _Head)
            except (JsonFault, UnicodeError, TypeError, msgspec.ValidationError) as fault:
                raise AlertFault(f"not an alert: {fault}") from None
        alert = cls.__new__(cls)
        alert.id, alert.stream_id, alert.severity = head.id, head.stream_id, head.severity
        alert.timestamp, alert.frame_id, alert.json = head.timestamp, head.frame_id, data
        return alert

    @property
    def message(self) -> str:
        """What the alert says."""
        return str(self.body()["message"])

    @property
    def metadata(self) -> dict[str, Any] | None:
        """What the sender added, None without any."""
        return self.body().get("metadata")

    def body(self) -> dict[str, Any]:
        """All fields by their names in the protocol, as a new object."""
        found: dict[str, Any] = read_json(self.json)
        return found

    def to_json(self) -> bytes:
        """Return the alert as the edge protocol sends it."""
        return self.json

    def changed(self, **fields: object) -> Alert:
        """Return a copy with other values for these fields, given by their names in the protocol."""
        alert = Alert.__new__(Alert)
        alert._take(self.body() | fields)
        return alert

    def __eq__(self, other: object) -> bool:
        return self.json == other.json if isinstance(other, Alert) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.json)

    def __repr__(self) -> str:
        return f"Alert({self.json!r})"


class AlertFault(ValueError):
    """An alert, or a list of alerts, that is not valid; raised by the functions of this module.

    The text says what was received and what is expected. The caller refuses the alert: a publisher and a sender of
    `POST /alerts` receive the text as an error, mlbridge counts and logs it.
    """


_NAMED: Final = frozenset(field.encode_name for field in msgspec.structs.fields(AlertFields))
#: Fields that only the server sets: those of a sender are left out.
_SERVERS: Final = frozenset({"acknowledged"})


def check_draft(value: object) -> AlertDraft:
    """Check one alert in decoded JSON or MessagePack.

    A fraction of `timestamp` is dropped. Whole numbers may be written with a fraction or an exponent (``5.0``).

    Raises:
        AlertFault: the alert is not valid.
    """
    if not isinstance(value, dict):
        raise AlertFault(f"an alert is an object, got {_kind(value)}")
    named = {key: each for key, each in value.items() if key in _NAMED}
    more = {key: each for key, each in value.items() if key not in _NAMED and key not in _SERVERS}
    named["timestamp"] = whole_ms(named.get("timestamp"))
    named["frameId"] = whole(named.get("frameId"))
    try:
        draft = msgspec.convert(named, AlertDraft)
    except msgspec.ValidationError as exc:
        raise AlertFault(str(exc)) from None
    except UnicodeError:
        raise AlertFault("a name holds a lone surrogate, expected text in UTF-8") from None
    for what, part in (("metadata", draft.metadata), ("what else the alert holds", more)):
        if part:
            _check_part(what, part)
    return msgspec.structs.replace(draft, more=more) if more else draft


def whole_ms(value: object) -> object:
    """Return a time in ms without its fraction; other values unchanged, to be refused by a check."""
    return int(value) if isinstance(value, float) and 0 <= value < math.inf else value


def whole(value: object) -> object:
    """Return a whole number that is written as ``5.0`` or ``1e3`` as an int; other values unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check_part(what: str, part: dict[str, Any]) -> None:
    """Check a part of an alert that is passed on unchanged. Raises `AlertFault`."""
    _check_value(what, part)
    try:
        size = len(write_json(part))
    except ValueError:
        raise AlertFault(f"{what} cannot be written as JSON") from None
    if size > MAX_METADATA_BYTES:
        raise AlertFault(f"{what} has {size} bytes as JSON, expected at most {MAX_METADATA_BYTES}")


def complete(
    draft: AlertDraft, *, alert_id: str, timestamp: int, stream_id: str | None = None, frame_id: int | None = None
) -> Alert:
    """Return the alert with defaults for the fields that the sender left out.

    Args:
        draft: the checked alert.
        alert_id: id, if it has none.
        timestamp: time in ms, if it has none.
        stream_id: stream, if it names none.
        frame_id: frame, if it names none and is about `stream_id`.

    Raises:
        AlertFault: there is no stream id.
    """
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
        more=draft.more,
    )


def alerts_of_result(value: object) -> list[object]:
    """Return the alerts in a decoded result of an ML service: ``{"alert":{…}}`` or ``{"alerts":[…]}``.

    Anything else has no alerts. Raises `AlertFault` for alerts that are no list, and for more than `MAX_ALERTS`.
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


def alerts_of_message(value: object) -> list[object]:
    """Return the alerts in a decoded message that is one alert or a list. Raises `AlertFault` for over `MAX_ALERTS`."""
    return _bounded(value if isinstance(value, list) else [value])


def _bounded(found: list[object]) -> list[object]:
    if len(found) > MAX_ALERTS:
        raise AlertFault(f"{len(found)} alerts at once, expected at most {MAX_ALERTS}")
    return found


def _check_value(what: str, part: dict[str, Any]) -> None:
    """Check that a value is valid JSON within the bounds. Raises `AlertFault`.

    Iterates by level instead of recursing, since senders may make it check many values as often as their rate allows.
    """
    level: list[Any] = [part]
    values = depth = 1
    while level:
        inner: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is dict or kind is list:
                if depth > MAX_METADATA_DEPTH:
                    raise AlertFault(f"{what} is nested more than {MAX_METADATA_DEPTH} deep")
                if not value:
                    continue
                values += len(value)
                if values > MAX_METADATA_VALUES:
                    raise AlertFault(f"{what} has more than {MAX_METADATA_VALUES} values, expected at most so many")
                if kind is list:
                    inner += value
                elif all(type(key) is str for key in value):
                    inner += value.values()
                else:
                    raise AlertFault(f"{what} holds a key that is not text")
            elif kind is float and not math.isfinite(value):
                raise AlertFault(f"{what} holds a number that is not finite")
        level, depth = inner, depth + 1


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), "null" if value is None else type(value).__name__)
