"""The alerts of a rehearsal's own ML service: numbered for each stream, with the time of capture. Pure."""

from __future__ import annotations

from typing import Any, Final

from watchout.client import Alert

#: Fields of an alert's metadata.
NUMBER: Final = "rehearsal"
CAPTURED: Final = "capturedAt"


def alert_body(number: int, captured_ms: int) -> dict[str, Any]:
    """Return an alert as an ML service gives it.

    Args:
        number: The number of the alert within its stream, from 1.
        captured_ms: The timestamp of its frame.
    """
    return {
        "severity": "high",
        "message": f"rehearsal: alert {number}",
        "metadata": {NUMBER: number, CAPTURED: captured_ms},
    }


def number_of(alert: Alert) -> int | None:
    """Return the number within its stream; None of an alert that another service raised."""
    number = alert.metadata.get(NUMBER)
    return number if isinstance(number, int) and not isinstance(number, bool) and number > 0 else None


def captured_at(alert: Alert) -> int:
    """Return when the frame of an alert was captured, in ms since the epoch; of others the alert's own time."""
    captured = alert.metadata.get(CAPTURED)
    return captured if isinstance(captured, int) and not isinstance(captured, bool) else alert.timestamp
