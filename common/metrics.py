"""Figures of one process: counted here, carried to the router by heartbeats, shown by ``stats`` and ``/metrics``.

A figure is a name and a number. The table below names them all, with their Prometheus type and a sentence; a name
that ends in ``_total`` only rises. There is no label but the process, so their number is bounded.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import defaultdict
from typing import Final

FIGURES: Final[dict[str, str]] = {
    "uptime_seconds": "Seconds since the process started.",
    "cpu_seconds_total": "CPU time of the process, user and system.",
    "resident_bytes": "Resident memory of the process.",
    "sessions_revalidated_total": "Sessions of open sockets that were looked up again.",
    "revalidation_failed_total": "Rounds of that in which the session store could not be asked.",
    "closed_session_ended_total": "Sockets closed because their session ended.",
    "origin_refused_total": "Requests with a session cookie from a page that may not use it.",
    "unauthorized_total": "What clients asked for without a right to it.",
    "connections": "Open connections, WebSocket and HTTP.",
    "sockets": "Open WebSockets that are authenticated.",
    "strangers": "Open connections that have not authenticated, nor sent a whole request.",
    "cameras": "Cameras that are registered here.",
    "video_viewers": "Subscriptions that consume video here.",
    "alert_viewers": "Subscriptions and cameras that consume alerts here.",
    "frames_in_total": "Frames that came from cameras (gateway) or from the bus (mlbridge).",
    "frame_bytes_in_total": "Bytes of those frames, as they came.",
    "frames_out_total": "Frames handed to viewers' sockets.",
    "frame_bytes_out_total": "Bytes of those frames.",
    "frames_skipped_slow_total": "Frames not sent because the viewer was behind (a newer one took the place).",
    "frames_skipped_window_total": "Frames not sent because the viewer's window of unacknowledged frames was full.",
    "frames_skipped_rate_total": "Frames not sent because the viewer asked for fewer (maxFps).",
    "frames_skipped_old_total": "Frames not sent because the viewer had a newer one already.",
    "frames_skipped_gone_total": "Frames not sent because the viewer left while they waited.",
    "frames_skipped_undecodable_total": "Frames not sent because they cannot be had in the viewer's format.",
    "frames_undecodable_total": "Frames that could not be decoded where they had to be.",
    "frames_old_term_total": "Frames dropped because the stream had been taken over.",
    "frames_to_bus_total": "Frames pushed to the router.",
    "frames_to_bus_dropped_total": "Frames not pushed because the router was away.",
    "frames_skipped_bus_total": "Frames that waited for the router, or there for a member, and were not sent.",
    "frames_from_bus_total": "Frames that came from the router.",
    "frames_routed_total": "Frames that the router handed on, once per receiver.",
    "alerts_total": "Alerts accepted (router), brought from the ML service (mlbridge).",
    "alerts_duplicate_total": "Alerts whose id was already known.",
    "alerts_out_total": "Alerts handed to sockets.",
    "alerts_refused_total": "Alerts that did not fit.",
    "alerts_dropped_total": "Alerts dropped because too many waited for the router (the oldest first).",
    "messages_in_total": "WebSocket messages that came.",
    "client_errors_total": "Error messages sent to clients.",
    "auth_refused_total": "Tokens that were refused.",
    "auth_unavailable_total": "Look-ups for which the session store could not be asked.",
    "closed_slow_total": "Viewers closed because their alert lane was full.",
    "closed_abuse_total": "Sockets closed for repeated abuse.",
    "closed_idle_total": "Sockets closed because nothing came from them.",
    "router_lost_total": "Times that the router was lost.",
    "bus_bad_messages_total": "Bus messages that did not fit.",
    "members": "Members that the router knows.",
    "streams": "Streams that the router keeps.",
    "ml_configured": "1 when an ML service is set.",
    "ml_in_flight": "Requests under way at the ML service.",
    "ml_requests_total": "Requests to the ML service.",
    "ml_failures_total": "Requests that failed or were answered with an error.",
    "ml_timeouts_total": "Requests that passed their deadline.",
    "ml_latency_seconds": "Latency of the ML service, smoothed.",
    "ml_frames_replaced_total": "Frames replaced by a newer one before the ML service was free.",
}

_PAGE_BYTES: Final = resource.getpagesize()


class Figures:
    """The figures of this process."""

    __slots__ = ("_started", "values")

    def __init__(self) -> None:
        self.values: defaultdict[str, float] = defaultdict(float)
        self._started = time.monotonic()

    def count(self, name: str, amount: float = 1) -> None:
        """Raise a counter."""
        self.values[name] += amount

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        self.values[name] = value

    def read(self) -> dict[str, float]:
        """All figures, with those of the process itself."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.values["uptime_seconds"] = round(time.monotonic() - self._started, 3)
        self.values["cpu_seconds_total"] = round(usage.ru_utime + usage.ru_stime, 3)
        self.values["resident_bytes"] = resident_bytes()
        return dict(self.values)


def resident_bytes() -> int:
    """Resident memory of this process; where there is no /proc, the largest so far."""
    try:
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - read every 500 ms, pathlib costs three times
            return int(statm.read().split()[1]) * _PAGE_BYTES
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
