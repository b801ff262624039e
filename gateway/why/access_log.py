"""One structured log line per connection, at its end, at a limited rate: a storm cannot flood the log."""

from __future__ import annotations

from typing import Any, Final

from watchout.common import log
from watchout.common.media.rate import TokenBucket

#: Lines of this many seconds may come at once.
BURST_S: Final = 4.0
#: Share of the rate for refused handshakes, which need no account to cause.
REFUSED_SHARE: Final = 0.2

_log = log.get("gateway.why.access_log")


class AccessLog:
    """Writes the access log of one gateway; made by `Recorder`.

    Args:
        rate: Most lines per second (``ACCESS_LOG_RATE``).
        now: Seconds of the loop's clock.
        enabled: Whether lines are written (``ACCESS_LOG``).
    """

    def __init__(self, rate: float, now: float, *, enabled: bool) -> None:
        self._enabled = enabled
        self._closed = _Lines(rate, now)
        self._refused = _Lines(rate * REFUSED_SHARE, now)

    def closed(self, now: float, fields: dict[str, Any]) -> bool:
        """Write the line of a connection that ended; return whether it was written.

        Args:
            now: Seconds of the loop's clock.
            fields: Its fields; those without a value are left out.
        """
        return self._enabled and self._closed.write("connection closed", now, fields)

    def refused(self, now: float, fields: dict[str, Any]) -> bool:
        """Write the line of a handshake that was refused; return whether it was written.

        Args:
            now: Seconds of the loop's clock.
            fields: Its fields; those without a value are left out.
        """
        return self._enabled and self._refused.write("handshake refused", now, fields)


class _Lines:
    """Lines of one kind: those over the rate are counted, and the next one says how many there were."""

    def __init__(self, rate: float, now: float) -> None:
        self._bucket = TokenBucket(rate, max(1.0, rate * BURST_S), now)
        self._left_out = 0

    def write(self, event: str, now: float, fields: dict[str, Any]) -> bool:
        if not self._bucket.take(now):
            self._left_out += 1
            return False
        if self._left_out:
            fields["left_out"] = self._left_out
            self._left_out = 0
        _log.info(event, **{name: value for name, value in fields.items() if value not in (None, "")})
        return True
