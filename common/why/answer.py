"""What one process answers to `watchout-ctl why`: what it remembers, and what it measures now. Pure.

The router passes the answers of gateways and bridges on as bytes, so that it need not understand them; `watchout-ctl`
reads them. Fields that an older process does not send have a default, and fields of a later one are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from watchout.common.errors import BusError
from watchout.common.why.incident import Incident

#: Most bytes of one answer; past it the oldest incidents are left out.
MAX_ANSWER_BYTES: Final = 256 << 10
#: Most views, cameras, bridged streams and incidents in one answer.
MAX_ROWS: Final = 100
MAX_INCIDENTS: Final = 800


class WhyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the records in an answer: msgpack maps without the fields that have their defaults."""


class SocketNow(WhyRecord, frozen=True):
    """What the kernel measured of one client's socket while the question was answered.

    `bytes_per_s` are those that the peer confirmed, `received_per_s` those that came from it. `rtt_ms` is the round
    trip. `waits_for_peer` is the share of the time (0–1) in which the peer had announced that it takes no more: it does
    not read. `blocked`: bytes wait for it now. Behind a proxy the peer is the proxy.
    """

    bytes_per_s: float = 0.0
    received_per_s: float = 0.0
    rtt_ms: float = 0.0
    waits_for_peer: float = 0.0
    blocked: bool = False


class ViewNow(WhyRecord, frozen=True):
    """One viewer's subscription, measured for `seconds`.

    `camera_fps` is the rate of the stream by its frame ids, `arrived_fps` of what reached this gateway, `fps` of what
    was written to the viewer. `dropped` are frames per second by reason. `frames` and `dropped_total` are since the
    subscription began. `messages_waiting` and `bytes_waiting` are alerts and status that wait. `unacknowledged` frames
    are under way of at most `window`.
    """

    connection: str
    stream: str
    user: str
    address: str = ""
    since: int = 0
    seconds: float = 0.0
    video: bool = True
    alerts: bool = True
    format: str = "json"
    max_fps: float | None = None
    window: int | None = None
    unacknowledged: int = 0
    status: str = ""
    camera_fps: float = 0.0
    arrived_fps: float = 0.0
    fps: float = 0.0
    dropped: dict[str, float] = {}
    frames: int = 0
    dropped_total: dict[str, int] = {}
    alerts_told: int = 0
    messages_waiting: int = 0
    bytes_waiting: int = 0
    socket: SocketNow | None = None


class CameraNow(WhyRecord, frozen=True):
    """One camera, measured for `seconds`.

    `peak_fps` is the highest rate of one second since it registered. `window` is how many frames it may have under way
    (None: it has none), `demand_fps` the rate that it was asked for (None: it did not ask to be told). `limited` are
    its messages over the rates since it connected, `limited_per_s` those of now. `frame_bytes` is the mean size of a
    frame as it came. `round_trip_ms` is that of the last WebSocket ping to the camera, which a proxy in
    between passes on; 0: not known.
    """

    connection: str
    stream: str
    user: str
    address: str = ""
    since: int = 0
    seconds: float = 0.0
    status: str = ""
    producing: bool = True
    fps: float = 0.0
    peak_fps: float = 0.0
    frames: int = 0
    last_frame_at: int | None = None
    window: int | None = None
    demand_fps: float | None = None
    limited: int = 0
    limited_per_s: float = 0.0
    message_rate: float = 0.0
    byte_rate: float = 0.0
    frame_bytes: float = 0.0
    viewers_elsewhere: int = 0
    socket: SocketNow | None = None
    round_trip_ms: float = 0.0


class ConnectionNow(WhyRecord, frozen=True):
    """One WebSocket that is open now; `path` says whether of a camera or of a viewer. `streams` are what it has."""

    connection: str
    user: str
    path: str
    address: str = ""
    since: int = 0
    streams: tuple[str, ...] = ()


class MlNow(WhyRecord, frozen=True):
    """How a bridge deals with one stream. The counts are since the bridge knows the stream.

    `coverage` is the share of the last minute in which the service looked at it. `skipped` counts frames that were not
    sent, by cause. `circuit` is the state of the breaker of the endpoint in use; `refuses`: the service refuses the
    frames of this stream, which are sent less often. `latency_ms` is the median over all streams.
    """

    stream: str
    service: str
    coverage: float = 0.0
    max_fps: float = 0.0
    offered: int = 0
    sent: int = 0
    answered: int = 0
    failed: int = 0
    skipped: dict[str, int] = {}
    waiting: int = 0
    in_flight: int = 0
    in_flight_limit: int = 0
    latency_ms: float = 0.0
    circuit: str = "closed"
    fallback: bool = False
    refuses: bool = False


class StreamNow(WhyRecord, frozen=True):
    """What the router knows of a stream. `gateway` and `bridges` are names; `reserved_s` is how long its id is kept
    for `user` when there is no camera.
    """

    stream: str
    user: str = ""
    status: str = "offline"
    gateway: str = ""
    bridges: tuple[str, ...] = ()
    fps: float = 0.0
    frames: int = 0
    viewers: int = 0
    alert_viewers: int = 0
    started_at: int = 0
    last_frame_at: int | None = None
    reserved_s: float = 0.0
    dropped: dict[str, int] = {}


class AlertNow(WhyRecord, frozen=True):
    """An alert that the router keeps, whose `frame_id` is 0 where it refers to no frame.

    `timestamp` is its own, `accepted_at` when the router got it; both in ms since the epoch.
    """

    id: str
    stream: str
    severity: str = ""
    message: str = ""
    frame_id: int = 0
    timestamp: int = 0
    accepted_at: int = 0
    acknowledged_by: str = ""
    acknowledged_at: int = 0
    note: str = ""


class WhyAnswer(WhyRecord, frozen=True):
    """The answer of one process. `process` tells processes apart that several routers asked.

    `since` is since when nothing is missing in what it remembers, `started_at` when it started; both in ms since the
    epoch by its clock, which is `now`. `closed_since` is since when no end of a connection is missing, 0 of a process
    that keeps no sums of them. `left_out` counts incidents that did not fit. `known` are names that it
    remembers, the latest first, and `known_streams` streams that it has; only where it found nothing.
    """

    kind: str
    name: str
    host: str = ""
    pid: int = 0
    process: str = ""
    now: int = 0
    started_at: int = 0
    since: int = 0
    closed_since: int = 0
    incidents: list[Incident] = []
    of_everybody: list[Incident] = []
    views: list[ViewNow] = []
    cameras: list[CameraNow] = []
    connections: list[ConnectionNow] = []
    ml: list[MlNow] = []
    streams: list[StreamNow] = []
    alerts: list[AlertNow] = []
    known: list[str] = []
    known_streams: list[str] = []
    left_out: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether the process knows nothing of the subject."""
        return not (
            self.incidents or self.views or self.cameras or self.connections or self.ml or self.streams or self.alerts
        )


class SilentProcess(WhyRecord, frozen=True):
    """A process that did not answer, and why."""

    kind: str
    name: str
    host: str = ""
    why: str = ""


def encode_answer(answer: WhyAnswer) -> bytes:
    """Return the bytes of an answer, of at most `MAX_ANSWER_BYTES`: the oldest incidents are left out first.

    Args:
        answer: The answer.
    """
    incidents, everybody = answer.incidents[-MAX_INCIDENTS:], answer.of_everybody[-MAX_INCIDENTS:]
    left_out = answer.left_out + len(answer.incidents) - len(incidents)
    while True:
        fitting = msgspec.structs.replace(
            answer, incidents=incidents, of_everybody=everybody, left_out=left_out,
            views=answer.views[:MAX_ROWS], cameras=answer.cameras[:MAX_ROWS],
            connections=answer.connections[:MAX_ROWS], ml=answer.ml[:MAX_ROWS], streams=answer.streams[:MAX_ROWS],
        )  # fmt: skip
        data = msgspec.msgpack.encode(fitting)
        if len(data) <= MAX_ANSWER_BYTES:
            return data
        if not incidents and not everybody:
            bare = WhyAnswer(kind=answer.kind, name=answer.name, now=answer.now, left_out=left_out + 1)
            return msgspec.msgpack.encode(bare)
        left_out += len(incidents) - len(incidents) // 2
        incidents, everybody = _newer_half(incidents), _newer_half(everybody)


def _newer_half(incidents: Sequence[Incident]) -> list[Incident]:
    return list(incidents[len(incidents) - len(incidents) // 2 :])


def decode_answer(data: bytes) -> WhyAnswer:
    """Read an answer.

    Args:
        data: What `encode_answer` returned, of this or another release.

    Returns:
        The answer.

    Raises:
        BusError: It cannot be read; the process counts as one that did not answer.

    """
    try:
        return msgspec.msgpack.decode(data, type=WhyAnswer)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise BusError(f"unexpected answer: {str(exc)[:200]}") from None
