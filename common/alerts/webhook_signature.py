"""Signatures of Standard Webhooks 1.0.0, for the sending and the receiving side. Pure.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final

#: Printable ASCII without space and full stop; the full stop separates the signed parts.
WEBHOOK_ID: Final = re.compile(r"[\x21-\x2d\x2f-\x7e]{1,128}")


def digest(secret: bytes, webhook_id: str, timestamp: str, body: bytes) -> bytes:
    """Return the HMAC-SHA256 of id, timestamp (s since the epoch) and raw body, joined by full stops."""
    content = b"%b.%b.%b" % (webhook_id.encode(), timestamp.encode(), body)
    return hmac.new(secret, content, hashlib.sha256).digest()


def sign(webhook_id: str, timestamp: int, body: bytes, secrets: Sequence[bytes]) -> dict[str, str]:
    """Return the headers of a signed request, with a signature for each secret; `timestamp` in s since the epoch."""
    signatures = (digest(secret, webhook_id, str(timestamp), body) for secret in secrets)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join("v1," + base64.b64encode(each).decode() for each in signatures),
    }


def webhook_id_of(alert_id: str) -> str:
    """Return the webhook id for an alert: its own id, or a digest of an id that holds a full stop."""
    if WEBHOOK_ID.fullmatch(alert_id):
        return alert_id
    return "alert_" + hashlib.sha256(alert_id.encode()).hexdigest()
