"""The bodies of webhook requests: an alert as it is, or an event about one. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from watchout.common.alerts.acknowledgement import Acknowledgement
from watchout.common.alerts.model import Alert
from watchout.common.alerts.webhook_signature import webhook_id_of
from watchout.common.toolbox.jsontext import write_json


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """What is sent to the webhook once; made by the functions of this module, queued by `WebhookSender.offer`.

    `webhook_id` is the same whenever the same event is sent; `body` is JSON.
    """

    webhook_id: str
    alert_id: str
    stream: str
    body: bytes


def alert_event(alert: Alert) -> WebhookEvent:
    """Return the request for an accepted alert: the alert itself."""
    return WebhookEvent(webhook_id_of(alert.id), alert.id, alert.stream_id, alert.to_json())


def acknowledged_event(alert: Alert, acknowledgement: Acknowledgement) -> WebhookEvent:
    """Return the event ``alert.acknowledged``."""
    return _event("alert.acknowledged", alert, acknowledgement.fields())


def unacknowledged_event(alert: Alert, timestamp: int) -> WebhookEvent:
    """Return the event ``alert.unacknowledged``; `timestamp` in ms since the epoch."""
    return _event("alert.unacknowledged", alert, {"timestamp": timestamp})


def _event(kind: str, alert: Alert, fields: dict[str, Any]) -> WebhookEvent:
    body = {"type": kind, "streamId": alert.stream_id, "alertId": alert.id, **fields, "alert": alert.body()}
    of = hashlib.sha256(f"{kind} {alert.stream_id} {alert.id}".encode()).hexdigest()
    return WebhookEvent(f"event_{of}", alert.id, alert.stream_id, write_json(body))
