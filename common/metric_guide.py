"""What an operator needs to know of each metric besides its help text: whose it is, and what to do when it moves. Pure.

``docs/metrics.md`` is made of it, and ``/metrics`` shows the counters of a process at 0 before they count.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from watchout.common import metric_names as m
from watchout.common.metric_names import DECLARED
from watchout.common.metric_names import DeclaredName as MetricName

G, R, M = "gateway", "router", "mlbridge"
ALL: Final = (G, R, M)


class Guide(NamedTuple):
    """The kinds of processes that have a metric, and what its movement means to an operator."""

    of: tuple[str, ...]
    when: str


#: What the metrics without a label (`metric_names.TOTALS`) tell.
TOTALS: Final[dict[str, str]] = {
    "router_up": (
        "0: `watchout-ctl doctor`. Viewers on the camera's own gateway still see it. Meanwhile the page has the "
        "metrics of the gateway that answered, and no others."
    ),
    "slots_missing": (
        "Above 0 for longer than 30 s: no router can take the slot. Start one; `watchout-ctl cluster` names the slots."
    ),
    "active_streams": (
        "Falls when cameras leave. To 0 at once: the network in front of the gateways, or the sessions of the cameras."
    ),
    "producers": "As `active_streams`, without publishers that send alerts alone.",
    "video_consumers": "The load: each subscription is a copy of the frames of its stream.",
    "alert_consumers": "0 while alerts arrive: nobody is told.",
}

_PROCESS: Final[dict[MetricName, Guide]] = {
    m.UPTIME_SECONDS: Guide(
        ALL,
        "Small again: the process was restarted. Often: see its log, and `dmesg` for the kernel's out-of-memory "
        "killer. Absent: the process is gone, or has no router.",
    ),
    m.CPU_SECONDS: Guide(
        ALL,
        "Near 1 per second: the event loop is full. One more gateway or bridge; a router has to lose relayed frames or"
        " streams (slots).",
    ),
    m.RESIDENT_BYTES: Guide(
        ALL,
        "Against `memory_limit_bytes`. Rises without an end while connections and streams do not: take a note of all "
        "`_bytes` metrics before a restart.",
    ),
    m.MEMORY_LIMIT_BYTES: Guide(
        ALL,
        "What the control group permits (`MemoryMax`, a container's limit), read every ten seconds.",
    ),
    m.EVENT_LOOP_LAG_SECONDS: Guide(
        ALL,
        "Above 0.1: all clients of the process wait so long. No CPU left (`cpu_seconds_total`), a machine that swaps, "
        "or a stopped process.",
    ),
    m.DESCRIPTORS_OPEN: Guide(
        ALL,
        "Near `descriptors_limit`: raise `LimitNOFILE`. New connections are refused before it is reached "
        "(`connections_limit`).",
    ),
    m.DESCRIPTORS_LIMIT: Guide(
        ALL,
        "Below `MAX_CONNECTIONS` and 48 more: raise it, or fewer connections are accepted.",
    ),
    m.TASK_FAILURES: Guide(ALL, "Any: read the log of the process; the line names the task and has the traceback."),
    m.ASYNCIO_TASKS: Guide(
        ALL,
        "Follows the connections. Rises without an end while connections and streams do not: a leak; take a note of "
        "all metrics before a restart, and report it.",
    ),
    m.TASKS_STALLED: Guide(
        ALL,
        "Above 0: `/health` is 503. The log names the task; restart the process if it does not end.",
    ),
    m.TRACE_SPANS_SENT: Guide(ALL, "0 while `OTEL_EXPORTER_OTLP_ENDPOINT` is set: the receiver is away, see below."),
    m.TRACE_SPANS_DROPPED: Guide(
        ALL,
        "Rises: the receiver is away or slow (the log says which), or too many traces are recorded: a lower"
        " `OTEL_TRACES_SAMPLER_ARG`. Nothing else suffers.",
    ),
    m.LOG_LINES_DROPPED: Guide(ALL, "Rises: the disk is full, or nobody reads the output."),
}

_SESSIONS: Final[dict[MetricName, Guide]] = {
    m.SESSIONS_REVALIDATED: Guide(
        (G,),
        "Stands still while there are sockets: the session store is away, see `revalidation_failed_total`.",
    ),
    m.REVALIDATION_FAILED: Guide(
        (G,),
        "Rises: the session store is away. Sockets stay open, new clients get 503. `watchout-ctl doctor` says why.",
    ),
    m.CLOSED_SESSION_ENDED: Guide((G,), "A few: people sign out. Many at once: sessions were deleted in the store."),
    m.ORIGIN_REFUSED: Guide(
        (G,),
        "Rises after a deployment of the web app: its address is missing in `ALLOWED_ORIGINS`. Otherwise a foreign "
        "page tries.",
    ),
    m.UNAUTHORIZED: Guide(
        (G,),
        "Rises: a client asks for streams that it may not view, or rights were taken away. The log names the user.",
    ),
    m.AUTH_REFUSED: Guide(
        (G,),
        "A few: expired sessions. A step after a deployment: another secret or database. Many from one address: "
        "somebody guesses.",
    ),
    m.AUTH_UNAVAILABLE: Guide((G,), "Rises: the session store is away, and new clients are sent away."),
}

_CONNECTIONS: Final[dict[MetricName, Guide]] = {
    m.DRAINING: Guide(
        (G,),
        "1: it was told to end, and `/health` is 503. For longer than `DRAIN_SPREAD_S` and `DRAIN_S`: it hangs.",
    ),
    m.CONNECTIONS: Guide((G,), "Near `connections_limit`: one more gateway, or a higher limit."),
    m.CONNECTIONS_LIMIT: Guide((G,), "Lower than `MAX_CONNECTIONS`: `descriptors_limit` is too small for it."),
    m.SOCKETS: Guide((G,), "The cameras and viewers that are signed in."),
    m.TLS_CERTIFICATE_EXPIRES: Guide(
        (G,),
        "Less than two weeks away: whoever renews it does not. From then on no client connects. A new file is taken up "
        "within a minute.",
    ),
    m.UNAUTHENTICATED_CONNECTIONS: Guide(
        (G,),
        "High: clients that cannot sign in try again and again, or somebody opens connections to keep others out. They"
        " end after 5 s.",
    ),
    m.PUBLISHERS: Guide(
        (G,),
        "Falls while `connections` stays: cameras are refused, see `auth_refused_total` and `unauthorized_total`.",
    ),
    m.VIDEO_VIEWERS: Guide((G,), "The copies of frames that this gateway writes."),
    m.ALERT_VIEWERS: Guide((G,), "0 while alerts arrive: nobody is told by this gateway."),
    m.MESSAGES_IN: Guide((G,), "Frames, acknowledgements and requests of clients: the load."),
    m.CLIENT_ERRORS: Guide((G,), "Rises: clients send what is refused; the log has codes and users."),
    m.CLOSED_SLOW: Guide(
        (G,),
        "Viewers that did not read their alerts. They reconnect with `alertsSince`, and miss none.",
    ),
    m.CLOSED_UNFINISHED: Guide(
        (G,),
        "Any: messages arrive by pieces, many at once: slow uplinks, or somebody who wants the memory.",
    ),
    m.CLOSED_ABUSE: Guide((G,), "A client in a loop, or an attack; the log has address and user."),
    m.CLOSED_IDLE: Guide(
        (G,),
        "Phones that went without a goodbye. Many at once: the network in front of the gateway.",
    ),
    m.CLOSED_STALLED: Guide(
        (G,),
        "Uplinks so slow that a frame takes longer than `MESSAGE_TIMEOUT`: smaller pictures.",
    ),
    m.UNFINISHED_BYTES: Guide((G,), "Its bound: `closed_unfinished_total` rises there."),
}

_FRAMES: Final[dict[MetricName, Guide]] = {
    m.FRAMES_IN: Guide(
        (G, M),
        "Falls while `publishers` stays: cameras send less, by `demand` or because their uplinks are slow.",
    ),
    m.FRAME_BYTES_IN: Guide((G, M), "The network from the cameras."),
    m.FRAMES_OUT: Guide((G,), "What viewers get. With the dropped ones of all reasons it is what they were to get."),
    m.FRAME_BYTES_OUT: Guide((G,), "The network to the viewers."),
    m.FRAMES_DROPPED_SLOW: Guide(
        (G,),
        "Slow viewers, each on its own. A high share of all: the network between gateway and viewers is full.",
    ),
    m.FRAMES_DROPPED_WINDOW: Guide(
        (G,),
        "Viewers that show less than they are sent: slow phones, hidden tabs. Harmless.",
    ),
    m.FRAMES_DROPPED_RATE: Guide((G,), "Wanted by the viewers. Harmless."),
    m.FRAMES_DROPPED_GONE: Guide((G,), "Viewers that left with a frame waiting. Harmless."),
    m.FRAMES_DROPPED_UNDECODABLE: Guide(
        (G,),
        "A camera sends what is no picture, and a viewer wants pictures; the log names the stream.",
    ),
    m.FRAMES_DROPPED_CODEC: Guide((G,), "Readers of moving pictures that do not accept the camera's codec."),
    m.FRAMES_DROPPED_BUS: Guide(
        (G, R),
        "Another process is too slow or away, or the network between hosts is full: `watchout-ctl cluster`, and "
        "`cpu_seconds_total` of the receivers.",
    ),
    m.FRAMES_UNDECODABLE: Guide((G, M), "A camera sends what is no picture; the log names the stream."),
    m.FRAMES_OLD_TERM: Guide(
        (G, R),
        "A few at each take-over of a camera. All the time: two devices publish under one id.",
    ),
    m.FRAMES_REPEATED: Guide(
        (G,),
        "As often as pictures (`frame.jpg`) of other gateways' cameras are asked for here, and at first viewers. All "
        "the time: report it.",
    ),
    m.FRAME_IDS_RESTARTED: Guide(
        (G,),
        "0. A router was lost with its records, or one or a gateway is of the former release: viewers had no frames of "
        "the camera for 2 s.",
    ),
    m.FRAMES_TO_BUS: Guide((G,), "The load of the frame mesh."),
    m.FRAMES_TO_BUS_DROPPED: Guide(
        (G,),
        "The router is away: viewers on other gateways and the ML service get nothing.",
    ),
    m.FRAMES_FROM_BUS: Guide((G, M), "What this process gets of other gateways' cameras."),
    m.FRAMES_ROUTED: Guide((R,), "Bridges on other machines, and processes of the former release."),
    m.WAITING_FRAME_BYTES: Guide(
        (G,),
        "Near `WAITING_FRAME_BYTES` (setting): many slow viewers of different streams; evictions follow.",
    ),
    m.WAITING_FRAMES_EVICTED: Guide(
        (G,),
        "Rises: more memory is needed for slow viewers than `WAITING_FRAME_BYTES` permits.",
    ),
    m.NEWEST_FRAME_BYTES: Guide((G,), "The newest frame of each stream; its bound evicts."),
    m.NEWEST_FRAMES_EVICTED: Guide(
        (G,),
        "Rises: more streams, or larger frames, than the memory for newest frames holds.",
    ),
}

_HTTP: Final[dict[MetricName, Guide]] = {
    m.HTTP_RESPONSES_WAITING_BYTES: Guide((G,), "Near 64 MiB: readers of `/alerts` or pictures that do not read."),
    m.HTTP_RESPONSES_CUT: Guide((G,), "Any: the bound was reached, and whoever had the most unread was cut off."),
    m.HTTP_RESPONSES_REFUSED: Guide((G,), "One user or address asks without reading the answers; the log names it."),
    m.MJPEG_PARTS_REPEATED: Guide((G,), "Rises while cameras send nothing and somebody watches a moving picture."),
}

_ALERTS: Final[dict[MetricName, Guide]] = {
    m.ALERTS: Guide(
        (R, M),
        "A step up: what the ML service sees, or a storm of its making. 0 for long: send a test, `watchout-ctl alert`.",
    ),
    m.ALERTS_DUPLICATE: Guide((R, M), "Alerts that were sent again after a loss, and recognized. Harmless."),
    m.ALERTS_SUPPRESSED: Guide(
        (M,),
        "Rises with `alerts_total`: the cooldown does its work. Too much is held back: `ALERT_COOLDOWN_S`.",
    ),
    m.ALERTS_REPEATED: Guide((M,), "The ML service sends results twice. Harmless."),
    m.ALERTS_ACKNOWLEDGED: Guide((R,), "Stands still while alerts arrive: nobody looks."),
    m.ALERTS_ESCALATED: Guide((R,), "Nobody acknowledged an alert in time: look at it now, then ask why nobody did."),
    m.ALERTS_UNACKNOWLEDGED: Guide((R,), "Rises: alerts wait for a person."),
    m.ALERTS_RAISED_AGAIN: Guide((G, M), "A router was restarted, and was told what it had forgotten."),
    m.ALERTS_REDELIVERED: Guide(
        (R,),
        "A gateway had missed alerts and got them. Often: the bus to that gateway is bad.",
    ),
    m.ALERTS_OUT: Guide((G,), "0 while `alerts_total` rises: nobody is told, see `alert_viewers`."),
    m.ALERTS_OVER_RATE: Guide(
        (G,),
        "A device or service sends more alerts than `ALERT_RATE` permits; the log names it.",
    ),
    m.ALERTS_REFUSED: Guide(
        (G, M),
        "The ML service, or a program at `POST /alerts`, sends what is no alert; the log has the reason. Nobody sees "
        "these.",
    ),
    m.ALERTS_DROPPED: Guide(
        (M,),
        "Any: alerts are lost. The router was away for longer than the queue holds alerts. Bring it back; the log "
        "names them.",
    ),
    m.ALERT_PICTURES: Guide((R, M), "Fewer than `alerts_total`: the frame was gone from the ring, `ml_ring_bytes`."),
    m.ALERT_PICTURE_BYTES: Guide((R,), "At `ALERT_PICTURE_BYTES` the oldest pictures go."),
    m.RECENT_ALERT_BYTES: Guide((R,), "At its bound the oldest alerts go, `recent_alerts_evicted_total`."),
    m.RECENT_ALERTS_EVICTED: Guide(
        (R,),
        "Rises: clients that reconnect may miss alerts of the time before. A storm of alerts, or large ones.",
    ),
    m.ALERT_WEBHOOK_SENT: Guide((R,), "Stands still while alerts arrive: see the three below."),
    m.ALERT_WEBHOOK_RETRIES: Guide(
        (R,),
        "Rises: the webhook fails or is slow; `watchout-ctl stats --json` has the reasons.",
    ),
    m.ALERT_WEBHOOK_DEAD: Guide(
        (R,),
        "Any: alerts did not reach the webhook and will not. The last 20 are in `watchout-ctl stats --json`.",
    ),
    m.ALERT_WEBHOOK_WAITING: Guide(
        (R,),
        "Rises: the webhook is away; alerts are given up after `ALERT_WEBHOOK_GIVE_UP_S`.",
    ),
    m.ALERT_WEBHOOK_DISABLED: Guide(
        (R,),
        "1: the receiver said 410 Gone. Correct `ALERT_WEBHOOK_URL`, restart the router.",
    ),
}

_BUS: Final[dict[MetricName, Guide]] = {
    m.ROUTER_LOST: Guide(
        (G, M),
        "The router was restarted or hung; more often than restarts: CPU of its machine, network.",
    ),
    m.BUS_BAD_MESSAGES: Guide(
        ALL,
        "Any: a process of another version, or something else writes to the bus; the log has the reason.",
    ),
    m.NATS_CONNECTED: Guide(
        ALL,
        "0: NATS is away. `watchout-ctl doctor` says why; viewers on the camera's gateway still see it.",
    ),
    m.REMOTE_REFUSED: Guide(
        (R,),
        "A bridge with a wrong key, or a stranger, at `ROUTER_LISTEN`; the log has key and address.",
    ),
    m.MESH_LINKS: Guide(ALL, "The hosts to which this process sends frames."),
    m.MESH_LINKS_DOWN: Guide(
        ALL,
        "Above 0: that host does not get these frames. `watchout-ctl cluster` has the reason.",
    ),
    m.MESH_REFUSED: Guide(
        ALL,
        "A host without a valid certificate, or a stranger, at `MESH_LISTEN`; the log has the reason.",
    ),
    m.MESH_CERTIFICATE_EXPIRES: Guide(
        ALL,
        "Less than two weeks away: `watchout-ctl keys host` renews it. From then on other hosts refuse this one.",
    ),
    m.REMOTE_MEMBERS: Guide((R,), "Falls: a bridge on another machine is gone, or the network to it."),
    m.MEMBERS: Guide((R,), "Falls: a process is gone. `watchout-ctl stats` names those that are there."),
    m.STREAMS: Guide((R,), "The streams of this router's slot, those of cameras that left a moment ago included."),
    m.STREAM_RESERVATIONS: Guide((R,), "Ids of cameras that are away; at the bound the oldest go."),
    m.STREAM_RESERVATIONS_EVICTED: Guide(
        (R,),
        "Rises: users register ever new ids. `STREAM_RESERVED_S` may be too long.",
    ),
    m.STREAM_RESERVATIONS_UNSAVED: Guide(
        (R,),
        "1: the disk of `WATCHOUT_HOME` is full or not writable; a restart would forget reservations.",
    ),
    m.SLOTS_HELD: Guide((R,), "All in one process: it was alone for a while. Slots go home by themselves."),
    m.SLOTS_TAKEN: Guide((R,), "Rises: a router ended, or a lease. Each is a second without that slot."),
    m.SLOT_LEASES_LOST: Guide((R,), "Any: NATS or this machine was too slow for a lease, or two clocks differ."),
    m.SLOT_CONFLICTS: Guide((R,), "Rises all the time: two processes believe that they are the same."),
    m.SLOT_RENEWED_SECONDS: Guide((R,), "Above 5: NATS does not take the renewal; at 10 the slot is lost."),
}

_ML: Final[dict[MetricName, Guide]] = {
    m.ML_CONFIGURED: Guide((M,), "0: `ML_SERVICE_URL` is not set, and nobody looks at the frames."),
    m.ML_RING_BYTES: Guide((M,), "At `ML_RING_BYTES` the oldest frames go, and late alerts have no picture."),
    m.ML_IN_FLIGHT: Guide((M,), "At `ml_in_flight_limit` all the time: the ML service is the bottleneck."),
    m.ML_IN_FLIGHT_LIMIT: Guide((M,), "Falls: more requests at once only make each of them slower."),
    m.ML_IN_FLIGHT_BYTES: Guide((M,), "The memory of requests under way."),
    m.ML_REQUESTS: Guide((M,), "The frames that were looked at, or tried to."),
    m.ML_FAILURES: Guide((M,), "Rises: the ML service is away or fails; the log has its answers."),
    m.ML_TIMEOUTS: Guide(
        (M,),
        "Rises: the ML service is overloaded, or hangs. Compare `ml_latency_p99_seconds` with `ML_TIMEOUT_S`.",
    ),
    m.ML_LATENCY_SECONDS: Guide((M,), "A step: another model or machine behind the service."),
    m.ML_LATENCY_P50_SECONDS: Guide((M,), "As above; half of the alerts are later than this."),
    m.ML_LATENCY_P99_SECONDS: Guide((M,), "Near `ML_TIMEOUT_S`: results come too late to be used."),
    m.ML_BREAKER_STATE: Guide(
        (M,),
        "2: the ML service is away, single frames probe it. It needs no help of watchout to come back.",
    ),
    m.ML_BREAKER_OPENED: Guide((M,), "Often: the ML service comes and goes."),
    m.ML_FALLBACK_BREAKER_STATE: Guide((M,), "2 while `ml_endpoint` is 1: neither service works."),
    m.ML_FALLBACK_BREAKER_OPENED: Guide((M,), "Often: the second ML service comes and goes."),
    m.ML_ENDPOINT: Guide((M,), "1: the first ML service is away, the second has the frames."),
    m.ML_FALLBACK_REQUESTS: Guide((M,), "Rises: as above."),
    m.ML_PROBE_COPIES: Guide((M,), "Rises while the second service serves: the first is being probed."),
    m.ML_STREAMS: Guide(
        (M,),
        "Fewer than `active_streams`: patterns (`ML_STREAMS`) or a group leave some to others.",
    ),
    m.ML_COVERAGE_MEAN: Guide(
        (M,),
        "Below 1: the ML service is too slow for all streams, or away. More instances, or a lower `ML_FPS`.",
    ),
    m.ML_COVERAGE_MIN: Guide(
        (M,),
        "Far below the mean: the service refuses one camera's frames; `watchout-ctl stats` shows which.",
    ),
    m.ML_FRAMES_WAITING: Guide((M,), "As many as `ml_streams`: every stream waits for its turn."),
    m.ML_FRAMES_REPLACED: Guide(
        (M,),
        "Cameras send more than the ML service takes. Usual; `ml_coverage_mean` says whether it matters.",
    ),
    m.ML_FRAMES_TOO_OLD: Guide((M,), "Rises: the service is so slow that frames grow old in the queue."),
    m.ML_FRAMES_AWAY: Guide((M,), "Rises while the ML service is away."),
    m.ML_FRAMES_OVER_BYTES: Guide((M,), "More or larger frames wait than the memory of the queue holds."),
    m.ML_FRAMES_BACKED_OFF: Guide((M,), "The service refuses the frames of some cameras, see `ml_streams_refused`."),
    m.ML_FRAMES_DEPENDENT: Guide(
        (M,),
        "A camera sends video of which single frames cannot be decoded; the service gets key frames alone.",
    ),
    m.ML_FRAMES_FORGOTTEN: Guide((M,), "Streams that ended with a frame waiting. Harmless."),
    m.ML_REFUSALS: Guide((M,), "The log names the streams and what the service said of their frames."),
    m.ML_STREAMS_REFUSED: Guide((M,), "Above 0: these cameras are hardly looked at. The log names them."),
    m.ML_RESULTS_UNUSABLE: Guide(
        (M,),
        "The ML service answers in a form that is not known; the log has the beginning of one. No alerts come of it.",
    ),
    m.ML_RESULTS_LATE: Guide(
        (M,),
        "Results after `ML_TIMEOUT_S`: the service is overloaded. Their alerts are not used.",
    ),
    m.ML_RESULTS_STALE: Guide((M,), "Alerts that tell `stale`: the service is slow, or bursts wait in it."),
}

_LATENCY: Final[dict[MetricName, Guide]] = {
    m.LATENCY_SECONDS: Guide(
        (G, M),
        "Which part of the way takes the time: latency.md says what to look at for each `hop`. `watchout-ctl latency` "
        "has the same for each stream.",
    ),
    m.GLASS_TO_GLASS: Guide(
        (G,),
        "Stands still while frames flow: no camera's clock is known, see `watchout-ctl latency STREAM`.",
    ),
    m.GLASS_TO_GLASS_LATE: Guide(
        (G,),
        "More than 1 of 100: the objective is missed. `watchout-ctl latency` shows the streams and the hops.",
    ),
    m.GLASS_TO_ALERT: Guide(
        (G,),
        "Far below the alerts that go out: their frames have no known time of capture, or they come without frames.",
    ),
    m.GLASS_TO_ALERT_LATE: Guide(
        (G,),
        'More than 1 of 100: the objective is missed. Most often the ML service: `hop="ml"`.',
    ),
}

#: All metrics of processes, by the sections of the page.
SECTIONS: Final[dict[str, dict[MetricName, Guide]]] = {
    "Every process": _PROCESS,
    "Sessions and authorization": _SESSIONS,
    "Connections": _CONNECTIONS,
    "Frames": _FRAMES,
    "HTTP": _HTTP,
    "Alerts": _ALERTS,
    "Latency": _LATENCY,
    "Bus and router": _BUS,
    "ML service": _ML,
}

#: Metrics that are states, with their values.
_FLAGS: Final = {
    "router_up": "0, 1",
    m.ALERT_WEBHOOK_DISABLED: "0, 1",
    m.STREAM_RESERVATIONS_UNSAVED: "0, 1",
    m.NATS_CONNECTED: "0, 1",
    m.ML_CONFIGURED: "0, 1",
    m.ML_BREAKER_STATE: "0, 1, 2",
    m.ML_FALLBACK_BREAKER_STATE: "0, 1, 2",
    m.ML_ENDPOINT: "0, 1",
}

GUIDE: Final[dict[str, Guide]] = {str(name): guide for part in SECTIONS.values() for name, guide in part.items()}


def counters_of(kind: str) -> list[str]:
    """Return the counters without a label that a process of this kind has, whether or not it has counted yet."""
    return [
        name
        for name, guide in GUIDE.items()
        if kind in guide.of and DECLARED[name].kind == "counter" and name != m.TASK_FAILURES
    ]


def unit(name: str) -> str:
    """Return the unit of a metric, which its name says."""
    for suffix, known in (("_seconds", "s"), ("_bytes", "bytes"), ("_mean", "0 to 1"), ("_min", "0 to 1")):
        if suffix in name:
            return known
    return _FLAGS.get(name, "count")
