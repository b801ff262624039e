"""Standard Webhooks 1.0.0, what both sides have in common: what is signed, and with what. Pure.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final

#: Printable, without a space; and without the full stop, which separates what is signed.
WEBHOOK_ID: Final = re.compile(r"[\x21-\x2d\x2f-\x7e]{1,128}")


def digest(secret: bytes, webhook_id: str, timestamp: str, body: bytes) -> bytes:
    """HMAC-SHA256 of id, time and raw body."""
    content = b"%b.%b.%b" % (webhook_id.encode(), timestamp.encode(), body)
    return hmac.new(secret, content, hashlib.sha256).digest()


def sign(webhook_id: str, timestamp: int, body: bytes, secrets: Sequence[bytes]) -> dict[str, str]:
    """The three headers of a signed request, with one signature for each secret. `timestamp` in s since the epoch."""
    signatures = (digest(secret, webhook_id, str(timestamp), body) for secret in secrets)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join("v1," + base64.b64encode(each).decode() for each in signatures),
    }


def webhook_id_of(alert_id: str) -> str:
    """The id of the request that brings an alert: the alert's own, or a digest of one that has a full stop in it."""
    if WEBHOOK_ID.fullmatch(alert_id):
        return alert_id
    return "alert_" + hashlib.sha256(alert_id.encode()).hexdigest()
