"""Every metric of every process, each declared once with its type and its help text. Pure.

A metric is a plain number under a name; the only labels are the process, and for `TASK_FAILURES` the task, so the
number of series is bounded. Code refers to a metric by its constant (``metrics.count(metric_names.FRAMES_IN)``):
`CounterName` and `GaugeName` are `str` at run time and distinct types for mypy, so that a misspelled or undeclared name
fails the type check and `common.metrics.Metrics` refuses it.

To add a metric: declare it here, count it, and say in `common.metric_guide` whose it is and what to do when it moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NewType

#: Name of a counter: it only rises while the process lives, and ends in ``_total``.
CounterName = NewType("CounterName", str)
#: Name of a histogram: durations counted by how long they are. It ends in ``_seconds``, and is not in `Metrics`.
HistogramName = NewType("HistogramName", str)
#: Name of a gauge: it shows a state and may fall.
GaugeName = NewType("GaugeName", str)
MetricName = CounterName | GaugeName
DeclaredName = MetricName | HistogramName


@dataclass(frozen=True, slots=True)
class MetricDeclaration:
    """A declared metric: its Prometheus type, its help text, and the name that it had in the release before.

    Made by `counter`, `gauge` and `histogram`. `former_name` is exported beside `name`, marked as deprecated, until the
    next release; None: the metric was not renamed.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    former_name: str | None = None


#: Metrics of all processes together: gauges without a label, by name, with their help text. First in ``/metrics``.
TOTALS: Final = {
    "router_up": "1 when this gateway reaches a router.",
    "slots_missing": "Slots whose router does not answer; their streams are missing in all other metrics.",
    "active_streams": "Streams with a publisher, over all gateways.",
    "producers": "Publishers that send video, over all gateways.",
    "video_consumers": "Subscriptions that consume video, over all gateways.",
    "alert_consumers": "Subscriptions and publishers that consume alerts, over all gateways.",
}

#: All metrics of a process by name, in the order of ``/metrics``.
DECLARED: Final[dict[str, MetricDeclaration]] = {}


def counter(name: str, help: str, *, formerly: str | None = None) -> CounterName:
    """Declare a counter. Raises `ValueError` for a name that is taken, or does not end in ``_total``."""
    if not name.endswith("_total"):
        raise ValueError(f"{name} is a counter, expected a name that ends in _total")
    return CounterName(_declare(MetricDeclaration(name, "counter", help, formerly)))


def gauge(name: str, help: str, *, formerly: str | None = None) -> GaugeName:
    """Declare a gauge. Raises `ValueError` for a name that is taken, or ends in ``_total``."""
    if name.endswith("_total"):
        raise ValueError(f"{name} is a gauge, expected a name that does not end in _total")
    return GaugeName(_declare(MetricDeclaration(name, "gauge", help, formerly)))


def histogram(name: str, help: str) -> HistogramName:
    """Declare a histogram. Raises `ValueError` for a name that is taken, or does not end in ``_seconds``."""
    if not name.endswith("_seconds"):
        raise ValueError(f"{name} is a histogram, expected a name that ends in _seconds")
    return HistogramName(_declare(MetricDeclaration(name, "histogram", help)))


def _declare(declaration: MetricDeclaration) -> str:
    taken = {*DECLARED, *(each.former_name for each in DECLARED.values())}
    if declaration.name in taken or declaration.former_name in taken - {None}:
        raise ValueError(f"{declaration.name} is declared twice")
    DECLARED[declaration.name] = declaration
    return declaration.name


# ── every process ────────────────────────────────────────────────────────────────────────────────────────────────

UPTIME_SECONDS = gauge("uptime_seconds", "Seconds since the process started.")
CPU_SECONDS = counter("cpu_seconds_total", "CPU time of the process, user and system.")
RESIDENT_BYTES = gauge("resident_bytes", "Resident memory of the process.")
DESCRIPTORS_OPEN = gauge("descriptors_open", "File descriptors that the process has open, sockets included.")
DESCRIPTORS_LIMIT = gauge("descriptors_limit", "File descriptors that the process may have open (ulimit -n).")
#: Has the label `task`: counted under ``task_failures_total:TASK``, see `common.metrics.LABEL_SEPARATOR`.
TASK_FAILURES = counter("task_failures_total", "Exceptions in background tasks, each of which then went on, by task.")
ASYNCIO_TASKS = gauge("asyncio_tasks", "Tasks of the event loop that have not ended, counted every ten seconds.")
TASKS_STALLED = gauge("tasks_stalled", "Periodic tasks that have not succeeded for too long.")
EVENT_LOOP_LAG_SECONDS = gauge(
    "event_loop_lag_seconds",
    "Longest time of the last 30 seconds by which the event loop was late for a timer that runs every second.",
)
MEMORY_LIMIT_BYTES = gauge(
    "memory_limit_bytes", "Memory that the process may have: the limit of its control group, or all of the machine."
)
LOG_LINES_DROPPED = counter("log_lines_dropped_total", "Log lines dropped because they could not be written.")

TRACE_SPANS_SENT = counter("trace_spans_sent_total", "Spans of traces that were sent to OTEL_EXPORTER_OTLP_ENDPOINT.")
TRACE_SPANS_DROPPED = counter(
    "trace_spans_dropped_total", "Spans of traces dropped because too many waited, or they could not be sent."
)

# ── sessions and authorization ───────────────────────────────────────────────────────────────────────────────────

SESSIONS_REVALIDATED = counter("sessions_revalidated_total", "Auth sessions of open sockets that were checked again.")
REVALIDATION_FAILED = counter(
    "revalidation_failed_total", "Rounds of revalidation in which the session store was unreachable."
)
CLOSED_SESSION_ENDED = counter("closed_session_ended_total", "Sockets closed because their auth session ended.")
ORIGIN_REFUSED = counter(
    "origin_refused_total", "Requests with a session cookie refused because of the Origin of the page."
)
UNAUTHORIZED = counter("unauthorized_total", "Requests for something that the client has no permission for.")
AUTH_REFUSED = counter("auth_refused_total", "Tokens that were refused.")
AUTH_UNAVAILABLE = counter("auth_unavailable_total", "Tokens not verified because the session store was unreachable.")

# ── connections ──────────────────────────────────────────────────────────────────────────────────────────────────

DRAINING = gauge("draining", "1 while the gateway drains: it asks its clients to reconnect elsewhere, and ends.")
CONNECTIONS = gauge("connections", "Open connections, WebSocket and HTTP.")
CONNECTIONS_LIMIT = gauge(
    "connections_limit", "Connections that the gateway accepts: MAX_CONNECTIONS, or what descriptors_limit allows."
)
SOCKETS = gauge("sockets", "Open WebSockets that are authenticated.")
TLS_CERTIFICATE_EXPIRES = gauge(
    "tls_certificate_expires_seconds",
    "When the certificate of the port (TLS_CERT) expires, in seconds since the epoch; absent without TLS.",
)
UNAUTHENTICATED_CONNECTIONS = gauge(
    "unauthenticated_connections",
    "Open connections that have neither authenticated nor sent a complete request.",
    formerly="strangers",
)
PUBLISHERS = gauge("publishers", "Publishers that are connected to this gateway.", formerly="cameras")
VIDEO_VIEWERS = gauge("video_viewers", "Subscriptions that consume video at this gateway.")
ALERT_VIEWERS = gauge("alert_viewers", "Subscriptions and publishers that consume alerts at this gateway.")
MESSAGES_IN = counter("messages_in_total", "WebSocket messages received.")
CLIENT_ERRORS = counter("client_errors_total", "Messages of type `error` sent to clients over WebSockets.")
CLOSED_SLOW = counter("closed_slow_total", "Viewers closed because their queue of alerts was full.")
CLOSED_UNFINISHED = counter(
    "closed_unfinished_total", "Connections closed because unfinished messages took too much memory, theirs the most."
)
CLOSED_ABUSE = counter("closed_abuse_total", "Sockets closed for repeated abuse.")
CLOSED_IDLE = counter("closed_idle_total", "Sockets closed because they sent nothing, not even a pong.")
CLOSED_STALLED = counter("closed_stalled_total", "Sockets closed in the middle of a message (MESSAGE_TIMEOUT).")
UNFINISHED_BYTES = gauge("unfinished_bytes", "Bytes of request heads and messages that clients have not finished.")

# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────

FRAMES_IN = counter("frames_in_total", "Frames received from publishers (gateway) or from the bus (mlbridge).")
FRAME_BYTES_IN = counter("frame_bytes_in_total", "Bytes of those frames as they were received.")
FRAMES_OUT = counter("frames_out_total", "Frames handed to viewers' sockets.")
FRAME_BYTES_OUT = counter("frame_bytes_out_total", "Bytes of those frames.")
FRAMES_DROPPED_SLOW = counter(
    "frames_dropped_slow_total",
    "Frames dropped because the viewer was slow and a newer frame replaced them.",
    formerly="frames_skipped_slow_total",
)
FRAMES_DROPPED_WINDOW = counter(
    "frames_dropped_window_total",
    "Frames dropped because the viewer's window of unacknowledged frames was full.",
    formerly="frames_skipped_window_total",
)
FRAMES_DROPPED_RATE = counter(
    "frames_dropped_rate_total",
    "Frames dropped because the viewer asked for fewer (maxFps).",
    formerly="frames_skipped_rate_total",
)
FRAMES_DROPPED_GONE = counter(
    "frames_dropped_gone_total",
    "Frames dropped because the viewer left while they were queued.",
    formerly="frames_skipped_gone_total",
)
FRAMES_DROPPED_UNDECODABLE = counter(
    "frames_dropped_undecodable_total",
    "Frames dropped because they cannot be converted to the viewer's format.",
    formerly="frames_skipped_undecodable_total",
)
FRAMES_DROPPED_CODEC = counter(
    "frames_dropped_codec_total",
    "Frames not sent as parts of a moving picture because the reader accepts other codecs.",
    formerly="frames_skipped_codec_total",
)
FRAMES_DROPPED_BUS = counter(
    "frames_dropped_bus_total",
    "Frames dropped from the queue for the router or another member.",
    formerly="frames_skipped_bus_total",
)
#: The counter of each reason for which a gateway drops a frame for a viewer (`DropReason`).
FRAMES_DROPPED: Final[dict[str, CounterName]] = {
    "slow": FRAMES_DROPPED_SLOW,
    "window": FRAMES_DROPPED_WINDOW,
    "rate": FRAMES_DROPPED_RATE,
    "gone": FRAMES_DROPPED_GONE,
    "undecodable": FRAMES_DROPPED_UNDECODABLE,
    "codec": FRAMES_DROPPED_CODEC,
}
FRAMES_UNDECODABLE = counter("frames_undecodable_total", "Frames that could not be decoded where that was necessary.")
FRAMES_OLD_TERM = counter(
    "frames_old_term_total", "Frames dropped because another publisher had taken the stream over."
)
FRAMES_REPEATED = counter(
    "frames_repeated_total",
    "Frames of other gateways that came again because somebody asked for the newest one; no viewer gets one twice.",
)
FRAME_IDS_RESTARTED = counter(
    "frame_ids_restarted_total",
    "Streams of other gateways that went on with lower frame ids than before, and are shown all the same.",
)
FRAMES_TO_BUS = counter(
    "frames_to_bus_total", "Frames sent to other members and to the router, counted once per receiver."
)
FRAMES_TO_BUS_DROPPED = counter("frames_to_bus_dropped_total", "Frames not pushed because the router was unreachable.")
FRAMES_FROM_BUS = counter("frames_from_bus_total", "Frames received from other gateways.")
FRAMES_ROUTED = counter("frames_routed_total", "Frames that the router relayed, counted once per receiver.")
WAITING_FRAME_BYTES = gauge("waiting_frame_bytes", "Bytes of the frames queued for viewers, each frame counted once.")
WAITING_FRAMES_EVICTED = counter(
    "waiting_frames_evicted_total",
    "Queued frames evicted for memory; a viewer that was in the middle of one is cut off.",
)
NEWEST_FRAME_BYTES = gauge("newest_frame_bytes", "Bytes of the newest frame of all streams.")
NEWEST_FRAMES_EVICTED = counter(
    "newest_frames_evicted_total", "Newest frames evicted for memory; their stream has none until its next frame."
)

# ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────────────

HTTP_RESPONSES_WAITING_BYTES = gauge(
    "http_responses_waiting_bytes",
    "Bytes of HTTP responses that wait for their readers.",
    formerly="answers_waiting_bytes",
)
HTTP_RESPONSES_CUT = counter(
    "http_responses_cut_total",
    "HTTP responses cut off for memory, those of whoever had the most waiting.",
    formerly="answers_cut_total",
)
HTTP_RESPONSES_REFUSED = counter(
    "http_responses_refused_total",
    "Requests refused with 503 because too many responses to the same user or address wait to be read.",
    formerly="answers_refused_total",
)
MJPEG_PARTS_REPEATED = counter(
    "mjpeg_parts_repeated_total", "Parts of moving pictures sent again while their publisher sent nothing."
)

# ── alerts ───────────────────────────────────────────────────────────────────────────────────────────────────────

ALERTS = counter("alerts_total", "Alerts accepted (router), or received from the ML service (mlbridge).")
ALERTS_DUPLICATE = counter("alerts_duplicate_total", "Alerts whose id was already known.")
ALERTS_SUPPRESSED = counter("alerts_suppressed_total", "Alerts of the ML service not raised because of the cooldown.")
ALERTS_REPEATED = counter("alerts_repeated_total", "Alerts that the ML service sent a second time.")
ALERTS_ACKNOWLEDGED = counter("alerts_acknowledged_total", "Alerts that a user acknowledged first.")
ALERTS_ESCALATED = counter(
    "alerts_escalated_total", "Alerts that nobody acknowledged in time, sent to the webhook as alert.unacknowledged."
)
ALERTS_UNACKNOWLEDGED = gauge("alerts_unacknowledged", "Alerts that wait for their acknowledgement (ALERT_ESCALATE_S).")
ALERTS_RAISED_AGAIN = counter("alerts_raised_again_total", "Accepted alerts that were raised again to a new router.")
ALERTS_REDELIVERED = counter(
    "alerts_redelivered_total",
    "Alerts sent again to gateways that had missed them.",
    formerly="alerts_told_again_total",
)
ALERTS_OUT = counter("alerts_out_total", "Alerts handed to sockets.")
ALERTS_OVER_RATE = counter("alerts_over_rate_total", "Alerts dropped or refused because of the rate limit.")
ALERTS_REFUSED = counter("alerts_refused_total", "Alerts refused because they are malformed.")
ALERTS_DROPPED = counter(
    "alerts_dropped_total", "Alerts dropped, the oldest first, because too many waited for the router."
)
ALERT_PICTURES = counter("alert_pictures_total", "Pictures of alerts' frames, sent (mlbridge) or kept (router).")
ALERT_PICTURE_BYTES = gauge("alert_picture_bytes", "Bytes of the pictures of alerts that the router keeps.")
RECENT_ALERT_BYTES = gauge("recent_alert_bytes", "Bytes of the recent alerts that the router keeps.")
RECENT_ALERTS_EVICTED = counter("recent_alerts_evicted_total", "Recent alerts evicted before their time.")
ALERT_WEBHOOK_SENT = counter("alert_webhook_sent_total", "Alerts that the webhook accepted.")
ALERT_WEBHOOK_RETRIES = counter("alert_webhook_retries_total", "Failed attempts that the webhook sender repeats.")
ALERT_WEBHOOK_DEAD = counter(
    "alert_webhook_dead_total", "Alerts given up: the webhook never accepted them, or too many waited."
)
ALERT_WEBHOOK_WAITING = gauge("alert_webhook_waiting", "Alerts that wait for the webhook.")
ALERT_WEBHOOK_DISABLED = gauge(
    "alert_webhook_disabled", "1 after the webhook responded with 410; nothing is sent to it until a restart."
)

# ── latency ──────────────────────────────────────────────────────────────────────────────────────────────────────

#: Has the label `hop`, a word of `common.latency.hops`.
LATENCY_SECONDS = histogram("latency_seconds", "Durations of the parts of the way of frames and alerts, by hop.")
GLASS_TO_GLASS = counter(
    "glass_to_glass_total", "Frames written to viewers of which the time since their capture is known, by samples."
)
GLASS_TO_GLASS_LATE = counter("glass_to_glass_late_total", "Those of them that took longer than LATENCY_OBJECTIVE_MS.")
GLASS_TO_ALERT = counter(
    "glass_to_alert_total",
    "Alerts written to sockets of which the time since the capture of their frame is known.",
)
GLASS_TO_ALERT_LATE = counter(
    "glass_to_alert_late_total", "Those of them that took longer than ALERT_LATENCY_OBJECTIVE_MS."
)
# ── bus and router ───────────────────────────────────────────────────────────────────────────────────────────────

ROUTER_LOST = counter("router_lost_total", "Times that the router became unreachable.")
BUS_BAD_MESSAGES = counter("bus_bad_messages_total", "Bus messages dropped because they are malformed.")
NATS_CONNECTED = gauge(
    "nats_connected", "1 while all connections of the process to servers of WATCHOUT_BUS stand; absent without them."
)
REMOTE_REFUSED = counter(
    "remote_refused_total", "Connections to ROUTER_LISTEN refused: a key that is not allowed, or no CURVE."
)
MESH_LINKS = gauge("mesh_links", "Links over which this process sends frames to other hosts.")
MESH_LINKS_DOWN = gauge("mesh_links_down", "Links to other hosts without a connection at this moment.")
MESH_REFUSED = counter(
    "mesh_refused_total",
    "Connections to MESH_LISTEN refused: no valid certificate of the cluster, or too many.",
)
MESH_CERTIFICATE_EXPIRES = gauge(
    "mesh_certificate_expires_seconds",
    "When this host's certificate for other hosts (MESH_CERT) expires, in seconds since the epoch.",
)
REMOTE_MEMBERS = gauge("remote_members", "Bridges that are joined over TCP.")
MEMBERS = gauge("members", "Processes that are joined to the router.")
STREAMS = gauge("streams", "Streams that the router keeps.")
STREAM_RESERVATIONS = gauge(
    "stream_reservations", "Stream ids without a publisher of which the router knows the owner."
)
STREAM_RESERVATIONS_EVICTED = counter(
    "stream_reservations_evicted_total", "Reservations evicted before their time because there were too many."
)
STREAM_RESERVATIONS_UNSAVED = gauge(
    "stream_reservations_unsaved", "1 while reservations cannot be written to the router's disk."
)
SLOTS_HELD = gauge("slots_held", "Slots of which this process runs the router (WATCHOUT_BUS).")
SLOTS_TAKEN = counter("slots_taken_total", "Slots that this process took or began anew.")
SLOT_LEASES_LOST = counter(
    "slot_leases_lost_total", "Leases of slots that ended against the will of this process: not renewed, or taken."
)
SLOT_CONFLICTS = counter(
    "slot_conflicts_total", "Writes of leases that found the entry changed; a few are usual when several want a slot."
)
SLOT_RENEWED_SECONDS = gauge(
    "slot_renewed_seconds", "Seconds since the lease that was renewed the longest ago was renewed; it ends at 10."
)

# ── ML service ───────────────────────────────────────────────────────────────────────────────────────────────────

ML_CONFIGURED = gauge("ml_configured", "1 when an ML service is set.")
ML_RING_BYTES = gauge("ml_ring_bytes", "Bytes of the frames kept because an alert may refer to them.")
ML_IN_FLIGHT = gauge("ml_in_flight", "Requests to the ML service in flight.")
ML_IN_FLIGHT_LIMIT = gauge(
    "ml_in_flight_limit", "Requests that may be in flight, adapted to the latency; at most ML_IN_FLIGHT."
)
ML_IN_FLIGHT_BYTES = gauge("ml_in_flight_bytes", "Bytes of the frames in flight to the ML service.")
ML_REQUESTS = counter("ml_requests_total", "Requests to the ML service.")
ML_FAILURES = counter("ml_failures_total", "Requests to the ML service that failed or got an error.")
ML_TIMEOUTS = counter("ml_timeouts_total", "Requests to the ML service that passed their deadline.")
ML_LATENCY_SECONDS = gauge("ml_latency_seconds", "Latency of the ML service, smoothed.")
ML_LATENCY_P50_SECONDS = gauge(
    "ml_latency_p50_seconds", "Latency of the ML service over the last minute, 50th percentile."
)
ML_LATENCY_P99_SECONDS = gauge(
    "ml_latency_p99_seconds", "Latency of the ML service over the last minute, 99th percentile."
)
ML_BREAKER_STATE = gauge("ml_breaker_state", "Circuit breaker of the ML service: 0 closed, 1 half-open, 2 open.")
ML_BREAKER_OPENED = counter("ml_breaker_opened_total", "Times that the breaker of the ML service opened.")
ML_FALLBACK_BREAKER_STATE = gauge(
    "ml_fallback_breaker_state", "Circuit breaker of ML_FALLBACK_URL: 0 closed, 1 half-open, 2 open."
)
ML_FALLBACK_BREAKER_OPENED = counter(
    "ml_fallback_breaker_opened_total", "Times that the breaker of ML_FALLBACK_URL opened."
)
ML_ENDPOINT = gauge("ml_endpoint", "Endpoint that gets the frames: 0 ML_SERVICE_URL, 1 ML_FALLBACK_URL.")
ML_FALLBACK_REQUESTS = counter(
    "ml_fallback_requests_total", "Requests to ML_FALLBACK_URL; ml_requests_total includes them."
)
ML_PROBE_COPIES = counter(
    "ml_probe_copies_total", "Copies of requests that probe ML_SERVICE_URL while ML_FALLBACK_URL serves."
)
ML_STREAMS = gauge("ml_streams", "Streams of which this bridge received frames lately.")
ML_COVERAGE_MEAN = gauge(
    "ml_coverage_mean", "Share of the last 60 seconds in which the ML service saw a stream, mean over the streams."
)
ML_COVERAGE_MIN = gauge("ml_coverage_min", "Coverage of the least covered stream.")
ML_FRAMES_WAITING = gauge("ml_frames_waiting", "Frames queued for the ML service, one per stream at most.")
ML_FRAMES_REPLACED = counter("ml_frames_replaced_total", "Queued frames replaced by a newer one of their stream.")
ML_FRAMES_TOO_OLD = counter("ml_frames_too_old_total", "Frames dropped after ML_MAX_AGE_S in the queue.")
ML_FRAMES_AWAY = counter(
    "ml_frames_away_total",
    "Frames replaced or too old while the ML service was unreachable; those two counters leave them out.",
)
ML_FRAMES_OVER_BYTES = counter(
    "ml_frames_over_bytes_total", "Frames dropped, the longest queued first, because the queue had too many bytes."
)
ML_FRAMES_BACKED_OFF = counter(
    "ml_frames_backed_off_total", "Frames dropped because the ML service refuses the frames of their stream."
)
ML_FRAMES_DEPENDENT = counter(
    "ml_frames_dependent_total", "Frames dropped because they cannot be decoded without the frame before them."
)
ML_FRAMES_FORGOTTEN = counter("ml_frames_forgotten_total", "Frames dropped because their stream or the bridge ended.")
ML_REFUSALS = counter("ml_refusals_total", "Requests that the ML service refused because of their frame.")
ML_STREAMS_REFUSED = gauge("ml_streams_refused", "Streams sent less often because the ML service refuses their frames.")
ML_RESULTS_UNUSABLE = counter(
    "ml_results_unusable_total",
    "Results of the ML service that are not in any known form; they do not count as coverage.",
    formerly="ml_answers_unusable_total",
)
ML_RESULTS_LATE = counter(
    "ml_results_late_total", "Results after their deadline, not used.", formerly="ml_answers_late_total"
)
ML_RESULTS_STALE = counter(
    "ml_results_stale_total",
    "Results in time for frames that were older than ML_MAX_AGE_S by then.",
    formerly="ml_answers_stale_total",
)
