"""The receiving side of Standard Webhooks: signatures of requests, and requests accepted before. Pure.

Specification: standard-webhooks 1.0.0, "Verifying webhook authenticity". The reference library is not used, because it
depends on an HTTP client. Times in seconds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from watchout.common.alerts.webhook_signature import WEBHOOK_ID, digest

#: Largest difference of a signed time from now, either way.
TOLERANCE_S: Final = 300
#: For how long a signed request is valid: from a clock that is ahead by the tolerance until it is behind by it.
REPLAY_S: Final = 2 * TOLERANCE_S
#: Most signatures that are compared; there are two while secrets are rotated.
MAX_SIGNATURES: Final = 32
MAX_SIGNATURE_BYTES: Final = 4096
#: Most ids that `Replays` remembers.
MAX_REMEMBERED: Final = 65_536
#: Longest id of an alert (`common.alerts.model`).
MAX_ALERT_ID: Final = 128

_TIME: Final = re.compile(r"[0-9]{1,12}")


class WebhookFault(Exception):
    """A request of Standard Webhooks without a valid signature; raised by `read_headers` and `Signed.verify`.

    `ServiceAuth` refuses the request with 401. `reason` is for the log, never for the sender.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Signed:
    """The headers of a signed request, from `read_headers`. Nothing in them may be trusted before `verify`."""

    id: str
    timestamp: str
    signatures: tuple[bytes, ...]

    def verify(self, body: bytes, secrets: Sequence[bytes]) -> None:
        """Check the signature of the raw `body`. Raises `WebhookFault`.

        Every signature is compared with every secret in constant time, also when an earlier one was right.
        """
        right = False
        for secret in secrets:
            expected = digest(secret, self.id, self.timestamp, body)
            for signature in self.signatures:
                right |= hmac.compare_digest(signature, expected)
        if not right:
            raise WebhookFault("no signature fits")


def read_headers(ids: Sequence[str], timestamps: Sequence[str], signatures: Sequence[str], *, now_s: float) -> Signed:
    """Check the headers of a signed request, before its body is read. Raises `WebhookFault`.

    The arguments are the values of ``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``, one of each.
    Signatures of other versions than ``v1`` are ignored. `now_s` in seconds since the epoch.
    """
    if not (len(ids) == len(timestamps) == len(signatures) == 1):
        raise WebhookFault("not one header each of webhook-id, webhook-timestamp, webhook-signature")
    if not WEBHOOK_ID.fullmatch(ids[0]):
        raise WebhookFault("the id is not 1 to 128 printable characters without spaces and full stops")
    if not _TIME.fullmatch(timestamps[0]):
        raise WebhookFault("the time is not a number of seconds")
    if abs(int(timestamps[0]) - now_s) > TOLERANCE_S:
        off_s = int(timestamps[0]) - now_s
        raise WebhookFault(f"the time is {off_s:+.0f} s off the gateway's clock, expected {TOLERANCE_S} s at most")
    if len(signatures[0]) > MAX_SIGNATURE_BYTES:
        raise WebhookFault("the signature header is too long")
    words = signatures[0].split()
    if len(words) > MAX_SIGNATURES:
        raise WebhookFault("too many signatures")
    found = tuple(_decode(word[3:]) for word in words if word.startswith("v1,"))
    if not found:
        raise WebhookFault("no signature of version 1")
    return Signed(ids[0], timestamps[0], found)


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""  # equals no signature


def alert_id(webhook_id: str, number: int | None) -> str:
    """Return the id for an alert without one: the same at each retry, on every gateway.

    `number` is its position in a list, from 0; None when the request was a single alert. Where the id would be too
    long, a digest replaces the webhook's id.
    """
    if number is None:
        return webhook_id
    text = f"{webhook_id}.{number}"
    return text if len(text) <= MAX_ALERT_ID else f"{hashlib.sha256(webhook_id.encode()).hexdigest()}.{number}"


class Replays:
    """Remembers the requests of Standard Webhooks that were accepted lately, so that a repeated one has no second
    effect.

    Entries are by request id, with the ids of the alerts. `ServiceAuth` adds only verified requests, so that nobody
    without the secret can displace any.

    Args:
        keep_s: For how long a request is remembered, in seconds.
        most: Most ids of requests and alerts together; past it the oldest request is forgotten.
    """

    __slots__ = ("_accepted", "_keep_s", "_most", "_size")

    def __init__(self, *, keep_s: float = REPLAY_S, most: int = MAX_REMEMBERED) -> None:
        self._keep_s = keep_s
        self._most = most
        self._accepted: OrderedDict[str, tuple[float, tuple[str, ...]]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._accepted)

    @property
    def size(self) -> int:
        """Number of remembered ids, of requests and of alerts."""
        return self._size

    def accepted(self, webhook_id: str, now: float) -> tuple[str, ...] | None:
        """Return the ids of the alerts of a request that was accepted before; None: it was not. `now` in seconds."""
        self._prune(now)
        found = self._accepted.get(webhook_id)
        return None if found is None else found[1]

    def accept(self, webhook_id: str, alert_ids: Sequence[str], now: float) -> None:
        """Remember a request after it had its effect."""
        self._forget(webhook_id)
        self._accepted[webhook_id] = (now, tuple(alert_ids))
        self._size += 1 + len(alert_ids)
        self._prune(now)
        while self._size > self._most:
            self._forget(next(iter(self._accepted)))

    def _prune(self, now: float) -> None:
        while self._accepted:
            oldest, (at, _) = next(iter(self._accepted.items()))
            if now - at <= self._keep_s:
                return
            self._forget(oldest)

    def _forget(self, webhook_id: str) -> None:
        found = self._accepted.pop(webhook_id, None)
        if found is not None:
            self._size -= 1 + len(found[1])
