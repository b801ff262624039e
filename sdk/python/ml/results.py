"""Converts what the function of an ML service returns to the alerts that mlbridge accepts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from watchout.common.alerts.model import MAX_ALERTS, AlertFault, check_draft


class ResultFault(Exception):
    """A function returned no result; the text says what it returned, and what is expected. The response is 500."""


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert about the frame that the function got.

    Attributes:
        severity: ``low``, ``medium``, ``high`` or ``critical``.
        message: one sentence for users.
        confidence: from 0 to 1.
        location: (x, y) from 0 to 1, from the left and the top.
        object_type: what was detected; mlbridge holds back repeated alerts of one type for a while.
        metadata: further data; numpy numbers and arrays are accepted.
        frame_id: the frame, if it is another than the one that the function got.
        stream_id: the stream, if it is another.
        timestamp: time of the alert in ms since 1970, if it is not the frame's.
        id: id of the alert; a second alert with the same id is not delivered.
    """

    severity: str
    message: str
    confidence: float | None = None
    location: tuple[float, float] | None = None
    object_type: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    frame_id: int | None = None
    stream_id: str | None = None
    timestamp: int | None = None
    id: str | None = None

    def body(self) -> dict[str, Any]:
        """Return the alert as the protocol has it, without what is not set."""
        about: dict[str, Any] = {**self.metadata}
        if self.confidence is not None:
            about["confidence"] = self.confidence
        if self.location is not None:
            x, y = self.location
            about["location"] = {"x": x, "y": y}
        if self.object_type is not None:
            about["objectType"] = self.object_type
        body: dict[str, Any] = {"severity": self.severity, "message": self.message}
        more = {
            "metadata": about or None,
            "frameId": self.frame_id,
            "streamId": self.stream_id,
            "timestamp": self.timestamp,
            "id": self.id,
        }
        return body | {key: value for key, value in more.items() if value is not None}


#: What a function may return for one frame.
Result: TypeAlias = Alert | Mapping[str, Any] | Sequence[Alert | Mapping[str, Any]] | None


def alerts_of(result: object) -> list[dict[str, Any]]:
    """Return the checked alerts of one frame, as objects of the protocol.

    Raises:
        ResultFault: the value is no result, or an alert does not fit the protocol.
    """
    if result is None:
        return []
    many = list(result) if isinstance(result, list | tuple) else [result]
    if len(many) > MAX_ALERTS:
        raise ResultFault(f"{len(many)} alerts for one frame, expected at most {MAX_ALERTS}")
    return [_alert(each) for each in many]


def results_of_batch(result: object, count: int) -> list[object]:
    """Return the results of a batch, one for each frame.

    Args:
        result: what the function returned.
        count: number of frames in the batch.

    Raises:
        ResultFault: the value is no list with one result for each frame.
    """
    if not isinstance(result, list | tuple) or len(result) != count:
        came = f"{len(result)} results" if isinstance(result, list | tuple) else type(result).__name__
        raise ResultFault(f"the function returned {came} for {count} frames, expected a list with one for each")
    return list(result)


def _alert(value: object) -> dict[str, Any]:
    if isinstance(value, Alert):
        body: object = value.body()
    elif isinstance(value, Mapping):
        body = dict(value)
    else:
        raise ResultFault(f"an alert is a watchout.ml.Alert or an object, got {type(value).__name__}")
    plain = _plain(body)
    assert isinstance(plain, dict)
    try:
        check_draft(plain)
    except AlertFault as fault:
        raise ResultFault(f"an alert does not fit: {fault}") from None
    return plain


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a value with the numbers and arrays of numpy as those of Python."""
    if depth > 40:
        return value  # the check of the alert refuses it
    if isinstance(value, Mapping):
        return {key: _plain(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, depth + 1) for each in value]
    to_plain = getattr(value, "tolist", None)
    return to_plain() if callable(to_plain) else value
