"""Figures of one process: counted here, carried to the router by heartbeats, shown by ``stats`` and ``/metrics``.

A figure is a name and a number. The table below names them all, with their Prometheus type and a sentence; a name
that ends in ``_total`` only rises. There is no label but the process, and the task where tasks are counted, so their
number is bounded.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import defaultdict
from typing import Final

from watchout.common import log, supervisor
from watchout.common.process import descriptors

METRICS: Final[dict[str, str]] = {
    "uptime_seconds": "Seconds since the process started.",
    "cpu_seconds_total": "CPU time of the process, user and system.",
    "resident_bytes": "Resident memory of the process.",
    "descriptors_open": "Files and sockets that the process has open.",
    "descriptors_limit": "Most files and sockets that it may have open (ulimit -n).",
    "task_failures_total": "Times that periodic or lasting work raised an exception and went on, by task.",
    "tasks_stalled": "Periodic tasks that have not succeeded for too long.",
    "log_lines_dropped_total": "Log lines that were dropped because they could not be written.",
    "sessions_revalidated_total": "Sessions of open sockets that were looked up again.",
    "revalidation_failed_total": "Rounds of that in which the session store could not be asked.",
    "closed_session_ended_total": "Sockets closed because their session ended.",
    "origin_refused_total": "Requests with a session cookie from a page that may not use it.",
    "unauthorized_total": "What clients asked for without a right to it.",
    "connections": "Open connections, WebSocket and HTTP.",
    "connections_limit": "Most connections that the gateway takes: MAX_CONNECTIONS, or what descriptors_limit allows.",
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
    "frames_skipped_codec_total": "Frames not sent as parts of a moving picture because the reader takes other codecs.",
    "answers_waiting_bytes": "Bytes of answers over HTTP that wait for their readers.",
    "answers_cut_total": "Answers over HTTP that were cut off, because whoever held the most had to give way.",
    "answers_refused_total": "Requests answered with 503, because too many answers waited to be read by who sent them.",
    "mjpeg_parts_repeated_total": "Parts of moving pictures that were sent again while their camera was silent.",
    "waiting_frame_bytes": "Bytes of the frames that viewers have not taken, each counted once.",
    "waiting_frames_evicted_total": "Those that gave way to others; a viewer in the middle of one is cut off.",
    "newest_frame_bytes": "Bytes that the newest frames of all streams hold.",
    "newest_frames_evicted_total": "Newest frames that gave way to others, so that their stream shows none.",
    "frames_undecodable_total": "Frames that could not be decoded where they had to be.",
    "frames_old_term_total": "Frames dropped because the stream had been taken over.",
    "frames_to_bus_total": "Frames pushed to the router.",
    "frames_to_bus_dropped_total": "Frames not pushed because the router was away.",
    "frames_skipped_bus_total": "Frames that waited for the router, or there for a member, and were not sent.",
    "frames_from_bus_total": "Frames that came from the router.",
    "frames_routed_total": "Frames that the router handed on, once per receiver.",
    "alerts_total": "Alerts accepted (router), brought from the ML service (mlbridge).",
    "alerts_duplicate_total": "Alerts whose id was already known.",
    "alerts_suppressed_total": "Alerts of the ML service that were not told because of the cooldown.",
    "alerts_repeated_total": "Alerts that the ML service said a second time.",
    "alerts_raised_again_total": "Accepted alerts that were raised again to a new router.",
    "alerts_told_again_total": "Alerts told again to gateways that had missed some.",
    "alert_pictures_total": "Pictures of alerts' frames, sent to the router (mlbridge) or kept (router).",
    "alert_picture_bytes": "Bytes of the pictures of alerts that the router keeps.",
    "recent_alert_bytes": "Bytes of the recent alerts that the router keeps.",
    "recent_alerts_evicted_total": "Recent alerts that gave way to others before their time.",
    "alert_webhook_sent_total": "Alerts that the webhook took.",
    "alert_webhook_retries_total": "Tries of the webhook that are tried again.",
    "alert_webhook_dead_total": "Alerts that were given up: the webhook never took them, or too many waited.",
    "alert_webhook_waiting": "Alerts that wait for the webhook.",
    "alert_webhook_disabled": "1 when the webhook answered 410 and is asked no more.",
    "alerts_out_total": "Alerts handed to sockets.",
    "alerts_over_rate_total": "Alerts that were dropped or refused because too many came.",
    "alerts_refused_total": "Alerts that did not fit.",
    "alerts_dropped_total": "Alerts dropped because too many waited for the router (the oldest first).",
    "messages_in_total": "WebSocket messages that came.",
    "client_errors_total": "Messages of type `error` to clients, over WebSockets.",
    "auth_refused_total": "Tokens that were refused.",
    "auth_unavailable_total": "Look-ups for which the session store could not be asked.",
    "closed_slow_total": "Viewers closed because their alert lane was full.",
    "closed_unfinished_total": "Connections closed because too much was unfinished, and they held the most of it.",
    "unfinished_bytes": "Bytes of heads and messages that clients have begun and not finished.",
    "closed_abuse_total": "Sockets closed for repeated abuse.",
    "closed_idle_total": "Sockets closed because nothing came from them.",
    "closed_stalled_total": "Sockets closed because a message did not come on (MESSAGE_TIMEOUT).",
    "router_lost_total": "Times that the router was lost.",
    "bus_bad_messages_total": "Bus messages that did not fit.",
    "remote_refused_total": "Connections to ROUTER_LISTEN that were refused: a key that is not allowed, or no CURVE.",
    "remote_members": "Bridges that are joined over TCP.",
    "members": "Members that the router knows.",
    "streams": "Streams that the router keeps.",
    "stream_reservations": "Ids of streams without a camera of which the router knows whose they are.",
    "stream_reservations_evicted_total": "Those that were forgotten before their time, because there were too many.",
    "stream_reservations_unsaved": "1 while they cannot be written to the router's disk.",
    "ml_configured": "1 when an ML service is set.",
    "ml_ring_bytes": "Bytes of the frames that are held because an alert may speak of them.",
    "ml_in_flight": "Requests under way at the ML service.",
    "ml_requests_total": "Requests to the ML service.",
    "ml_failures_total": "Requests that failed or were answered with an error.",
    "ml_timeouts_total": "Requests that passed their deadline.",
    "ml_latency_seconds": "Latency of the ML service, smoothed.",
    "ml_latency_p50_seconds": "Latency within which half of the answers came, over the last minute.",
    "ml_latency_p99_seconds": "Latency within which 99 % of the answers came, over the last minute.",
    "ml_in_flight_limit": "Requests that may be under way, as the latency allows; at most ML_IN_FLIGHT.",
    "ml_breaker_state": "Breaker of the ML service: 0 closed, 1 half-open, 2 open.",
    "ml_breaker_opened_total": "Times that it opened.",
    "ml_fallback_breaker_state": "The same of ML_FALLBACK_URL.",
    "ml_fallback_breaker_opened_total": "Times that it opened.",
    "ml_endpoint": "Which gets the frames: 0 ML_SERVICE_URL, 1 ML_FALLBACK_URL.",
    "ml_fallback_requests_total": "Requests to ML_FALLBACK_URL, of ml_requests_total.",
    "ml_probe_copies_total": "Requests that try the first service with a copy while the second one serves.",
    "ml_streams": "Streams whose frames came to this bridge lately.",
    "ml_coverage_mean": "Share of the last 60 seconds in which the ML service looked at a stream, mean of the streams.",
    "ml_coverage_min": "The same of the least covered stream.",
    "ml_frames_waiting": "Frames that wait for the ML service, one per stream at most.",
    "ml_frames_replaced_total": "Frames replaced by a newer one before the ML service was free.",
    "ml_frames_too_old_total": "Frames not sent because they had waited for ML_MAX_AGE_S.",
    "ml_frames_away_total": "Frames that ended in one of these two ways while the ML service was away.",
    "ml_frames_over_bytes_total": "Frames not sent because too many bytes waited (the one that waited longest).",
    "ml_frames_backed_off_total": "Frames not sent because the ML service refuses the frames of their stream.",
    "ml_refusals_total": "Requests that the ML service refused for what their frame is, or that end with it.",
    "ml_streams_refused": "Streams that are shown less often because the ML service refuses their frames.",
    "ml_answers_unusable_total": "Answers of the ML service in no form of an answer; they are no coverage.",
    "ml_in_flight_bytes": "Bytes of the frames under way at the ML service.",
    "ml_frames_forgotten_total": "Frames not sent because their stream was gone, or the bridge ended.",
    "ml_answers_late_total": "Answers after their deadline; they are not used.",
    "ml_answers_stale_total": "Answers in time to frames that were older than ML_MAX_AGE_S by then.",
}

#: Between the name of a figure and a label of it.
OF: Final = ":"

_PAGE_BYTES: Final = resource.getpagesize()


class Metrics:
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
        self.values["descriptors_limit"] = descriptors.limit()
        if (now_open := descriptors.count_open()) is not None:
            self.values["descriptors_open"] = now_open
        self.values["log_lines_dropped_total"] = log.dropped()
        failures, stalled = supervisor.counted()
        self.values["tasks_stalled"] = len(stalled)
        self.values.update({f"task_failures_total{OF}{task}": count for task, count in failures.items()})
        return dict(self.values)


def resident_bytes() -> int:
    """Resident memory of this process; where there is no /proc, the largest so far."""
    try:
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - read every 500 ms, pathlib costs three times
            return int(statm.read().split()[1]) * _PAGE_BYTES
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
