"""Reads what an ML service sends: results of frames, and alerts (docs/protocol.md, "The ML side"). Pure.

Whatever bytes a service sends, the functions here raise only `AlertFault` and `UnusableResult`. Bytes that cannot be
decoded become `Undecodable`.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from watchout.common.alerts.model import MAX_ALERTS, AlertFault, alerts_of_message, alerts_of_result
from watchout.common.media.frames import Frame
from watchout.common.tracing.context import TRACEPARENT, parse
from watchout.mlbridge.targets.target import UnusableResult

#: Largest message of a service, in bytes.
MAX_RESULT_BYTES: Final = 1 << 20
#: Characters of an unusable message that error texts and logs show.
MAX_SHOWN: Final = 120
#: Fields that a result without alerts may have: those that identify the frame.
_NAMES: Final = frozenset(("streamId", "frameId", "timestamp", TRACEPARENT))
#: Deepest nesting of a MessagePack message. The JSON decoder has a limit of its own.
MAX_DEPTH: Final = 64

#: Stream id and frame id.
Key = tuple[str, int]

_json: Final = msgspec.json.Decoder()
_msgpack: Final = msgspec.msgpack.Decoder()
_short: Final = reprlib.Repr()
_short.maxstring = _short.maxother = MAX_SHOWN


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A message of the ML service that could not be decoded. Returned by `read_json` and `read_msgpack`; `read_result`
    and `read_message` turn it into an `UnusableResult`.

    Attributes:
        reason: what was received (its beginning), and what was expected.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class ServiceResult:
    """One part of a message that a service sent over a kept connection. Returned by `read_message`.

    Attributes:
        key: the frame that it names; None: it names none.
        alerts: its alerts, decoded but not checked.
        ends_frame: whether it is the result of that frame, perhaps without alerts, and not an alert by itself.
    """

    key: Key | None
    alerts: list[object]
    ends_frame: bool


def key_of(frame: Frame) -> Key:
    """Return stream id and frame id, by which a service names a frame."""
    return frame.stream_id, frame.frame_id


def read_json(data: bytes | str) -> object:
    """Decode JSON.

    NaN and lone surrogates are accepted, although they are not JSON: some services write them, and an alert with one is
    then refused with a reason instead of getting lost.

    Returns:
        The decoded value, or `Undecodable`.
    """
    try:
        return _json.decode(data)
    except (ValueError, RecursionError):
        pass
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError):
        return Undecodable(
            f"{len(data)} bytes that are no JSON: {beginning(data)}" if data else "an empty text, no JSON"
        )
    return value


def read_msgpack(data: bytes) -> object:
    """Decode MessagePack that holds only what JSON can hold.

    Returns:
        The decoded value, or `Undecodable`.
    """
    try:
        value: object = _msgpack.decode(data)
    except (ValueError, RecursionError, TypeError):
        shown = f": {beginning(data)}" if data else ""
        return Undecodable(f"{len(data)} bytes that are no MessagePack{shown}")
    if not _is_plain(value, MAX_DEPTH):
        return Undecodable(f"MessagePack with what JSON has not (bytes, keys that are no text), or {MAX_DEPTH} deep")
    return value


def beginning(data: bytes | str) -> str:
    """Return the first `MAX_SHOWN` printable characters of a message on one line, in quotes, for a log."""
    start = data[: 4 * MAX_SHOWN]
    text = start.decode("utf-8", "replace") if isinstance(start, bytes) else start
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    cut = len(plain) > MAX_SHOWN or len(data) > len(start)
    return f"'{plain[:MAX_SHOWN]}{'…' if cut else ''}'"


def read_result(value: object) -> list[object]:
    """Read the result of one frame.

    Args:
        value: the decoded message: an object with ``alert`` or ``alerts``, an object with nothing but the fields that
            identify the frame, or an empty object.

    Returns:
        The alerts in it, decoded but not checked.

    Raises:
        UnusableResult: anything else, such as an object with ``error``, or with predictions and no alerts.
        watchout.common.alerts.model.AlertFault: alerts that are no list, or too many.
    """
    if isinstance(value, Undecodable):
        raise UnusableResult(value.reason)
    if not isinstance(value, dict):
        raise UnusableResult(f"{_brief(value)}, expected an object with alert or alerts")
    alerts = alerts_of_result(value)
    if not alerts and value.get("error"):
        raise UnusableResult(f"an error: {_brief(value['error'])}", key=_key(value))
    if not alerts and not value.keys() & {"alert", "alerts"} and not value.keys() <= _NAMES:
        raise UnusableResult(f"an object without alert or alerts: {_brief(value)}", key=_key(value))
    return _with_trace(alerts, value.get(TRACEPARENT))


def traced_result(value: object, traceparent: str | None) -> object:
    """Return a result with the context of the service that came as a header, unless it has one itself.

    Args:
        value: the decoded result.
        traceparent: the header; None: there was none. What is no context is ignored.
    """
    if not isinstance(value, dict) or TRACEPARENT in value or parse(traceparent) is None:
        return value
    return {**value, TRACEPARENT: traceparent}


def read_message(value: object) -> list[ServiceResult]:
    """Read a message that a service sent over a kept connection, in whatever order.

    Args:
        value: the decoded message: an alert, a list of alerts, or the result of a frame. A result is an object with
            ``streamId`` and ``frameId`` and, if there are any, ``alert`` or ``alerts``.

    Returns:
        One `ServiceResult` for a result, or one for each alert.

    Raises:
        UnusableResult: the message is none of them.
        watchout.common.alerts.model.AlertFault: alerts that are no list, or too many.
    """
    if isinstance(value, dict) and "severity" not in value:
        alerts = read_result(value)
        key = _key(value)
        if value and key is None and value.keys() <= _NAMES:
            raise UnusableResult(f"an object that names no frame: {_brief(value)}")
        return [ServiceResult(key, _with_frame(alerts, value), ends_frame=True)]
    if isinstance(value, list):
        if value and not any(isinstance(alert, dict) and "severity" in alert for alert in value):
            raise UnusableResult(f"a list without an alert: {_brief(value)}")
    elif not isinstance(value, dict):
        reason = value.reason if isinstance(value, Undecodable) else f"{_brief(value)}, expected an object or a list"
        raise UnusableResult(reason)
    return [ServiceResult(_key(alert), [alert], ends_frame=False) for alert in alerts_of_message(value)]


#: The result for one frame of a batch: its alerts, or why it has none.
BatchPart = list[object] | UnusableResult | AlertFault


def read_batch_result(value: object, keys: Sequence[Key]) -> tuple[list[BatchPart], list[object]]:
    """Read the response to a batch.

    Args:
        value: the decoded response. Either one result for each frame, in the order of the frames (``{"answers":[…]}``
            or a list), of which ``{"error":"…"}`` is a failure of that frame alone; or ``{"alerts":[…]}`` in which each
            alert names its frame.
        keys: the frames of the batch, in the order in which they were sent.

    Returns:
        For each frame its alerts, or the exception that describes its result; and the alerts that name no frame of the
        batch.

    Raises:
        UnusableResult: the response is neither, or has another number of results than the batch has frames.
        watchout.common.alerts.model.AlertFault: alerts that are no list, or too many.
    """
    answers = value.get("answers") if isinstance(value, dict) else value
    if isinstance(value, dict) and "answers" in value and not isinstance(answers, list):
        raise UnusableResult(f"answers is {_brief(answers)}, expected a list")
    if isinstance(answers, list):
        if len(answers) != len(keys):
            raise UnusableResult(f"{len(answers)} answers to {len(keys)} frames, expected one for each")
        return [_one_of_batch(answer) for answer in answers], []
    if not (isinstance(value, dict) and (_batch_alerts(value) or value.keys() <= {"alert", "alerts"})):
        read_result(value)
    found: list[list[object]] = [[] for _ in keys]
    unmatched: list[object] = []
    for alert in _bounded(_batch_alerts(value), MAX_ALERTS * len(keys)):
        place = _place(alert, keys)
        if place is None:
            unmatched.append(alert)
        else:
            found[place].append(alert)
    return [*found], unmatched


def _key(value: object) -> Key | None:
    if not isinstance(value, dict):
        return None
    stream, number = value.get("streamId"), value.get("frameId")
    if isinstance(stream, str) and isinstance(number, int) and not isinstance(number, bool):
        return stream, number
    return None


def _with_frame(alerts: list[object], answer: dict[Any, Any]) -> list[object]:
    """Return the alerts of a result, each with the frame that the result names unless it names one itself."""
    if not alerts:
        return alerts
    names = {name: answer[name] for name in ("streamId", "frameId", "timestamp") if name in answer}
    stream = names.get("streamId")
    return [
        {**names, **alert} if isinstance(alert, dict) and alert.get("streamId", stream) == stream else alert
        for alert in alerts
    ]


def _with_trace(alerts: list[object], traceparent: object) -> list[object]:
    """Return the alerts of a result, each with the context that the service gave to the result unless it has one."""
    if not alerts or parse(traceparent) is None:
        return alerts
    return [{TRACEPARENT: traceparent, **alert} if isinstance(alert, dict) else alert for alert in alerts]


def _batch_alerts(value: object) -> list[object]:
    """Return all alerts of ``{"alert":{…}}`` and ``{"alerts":[…]}``, without a limit of their number."""
    if not isinstance(value, dict):
        return []
    one, many = value.get("alert"), value.get("alerts")
    if many is not None and not isinstance(many, list):
        raise AlertFault(f"alerts is {_brief(many)}, expected a list")
    return ([] if one is None else [one]) + (many or [])


def _place(alert: object, keys: Sequence[Key]) -> int | None:
    """Return the index of the frame that an alert names; its stream is enough when the batch has one frame of it."""
    if not isinstance(alert, dict):
        return None
    stream, number = alert.get("streamId"), alert.get("frameId")
    places = [
        place for place, key in enumerate(keys) if stream in (None, key[0]) and (number is None or number == key[1])
    ]
    return places[0] if len(places) == 1 else None


def _one_of_batch(answer: object) -> BatchPart:
    try:
        return [] if answer is None else read_result(answer)
    except (UnusableResult, AlertFault) as fault:
        return fault


def _brief(value: object) -> str:
    """Return a decoded value as a short text, whatever its size."""
    return beginning(_short.repr(value))


def _bounded(alerts: list[object], most: int) -> list[object]:
    if len(alerts) > most:
        raise AlertFault(f"{len(alerts)} alerts at once, expected at most {most}")
    return alerts


def _is_plain(value: object, depth: int) -> bool:
    if value is None or isinstance(value, str | int | float):
        return True
    if not depth:
        return False
    if isinstance(value, list):
        return all(_is_plain(inner, depth - 1) for inner in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(inner, depth - 1) for key, inner in value.items())
    return False
