"""The bodies of the router's replies to `Query` and `Unreserve`, as typed records. Pure.

The router puts one of these into `QueryReply.body`; the member that asked reads it back with `read_reply`. On the bus
they are msgpack maps with the keys that `watchout-ctl stats --json` prints, or arrays where a record says so.

A member may be of another version than the router: keys that a record does not have are ignored, and fields that an
older router does not send have a default.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from watchout.common.alerts.acknowledgement import Acknowledgement
from watchout.common.bus.messages import HopRow, LatencyRow, LinkRow
from watchout.common.errors import BusError
from watchout.common.why.answer import SilentProcess

#: Name of a metric to its value; see `common.metrics`. Flags (0 or 1) of the router are booleans on the bus.
MetricValues = dict[str, int | float | bool]

R = TypeVar("R")


class ReplyRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of the records in replies of the router that are encoded as msgpack maps, with keys in camel case.

    The router's `QueryHandler` makes the records; gateways and `watchout-ctl` decode them with `read_reply`.
    """


class ReplyRow(msgspec.Struct, frozen=True, array_like=True):
    """Base of the records in replies of the router that are encoded as msgpack arrays: one element per field, in the
    order of the class.

    The router's `QueryHandler` makes the rows; gateways and `watchout-ctl` decode them with `read_reply`.
    """


class RouterStats(ReplyRecord, frozen=True):
    """The router's part of the reply to ``stats``; made by the router's `QueryHandler`.

    `uptime_s` is in seconds. `state` is ``syncing`` while the router waits after its start for gateways to report the
    streams that they have, and ``active`` afterwards. `metrics` holds the router's own metrics by name. Where there are
    several slots, `slot` is the router's, `name` and `host` say which process on which machine has it, and
    `lease_age_s` are the seconds since it last renewed its lease; UNSET where there is one slot.
    """

    epoch: int = 0
    uptime_s: float = 0.0
    pid: int = 0
    state: str = "?"
    metrics: MetricValues = msgspec.field(name="figures", default_factory=dict)
    slot: int | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET
    host: str | msgspec.UnsetType = msgspec.UNSET
    lease_age_s: float | msgspec.UnsetType = msgspec.UNSET


class MemberRow(ReplyRecord, frozen=True):
    """One process that is joined to the router, in the reply to ``stats``: a gateway, a bridge or an operator's
    command.

    `id` is the member id in hexadecimal, `alive_s` the seconds since it joined, `metrics` those of its last heartbeat.
    `group` is empty except for bridges. `process` is the same in the rows of one process at the routers of several
    slots; UNSET where there is one slot. `latencies` are histograms since the process began, absent where it measures
    none or reports them to the router of another slot.
    """

    id: str = ""
    name: str = ""
    kind: str = ""
    pid: int = 0
    group: str = ""
    alive_s: float = 0.0
    metrics: MetricValues = msgspec.field(name="figures", default_factory=dict)
    process: str | msgspec.UnsetType = msgspec.UNSET
    latencies: list[HopRow] | msgspec.UnsetType = msgspec.UNSET


class StreamRow(ReplyRecord, frozen=True):
    """One stream that has a publisher now, in the replies to ``stats`` and ``streams``.

    `fps` is the measured frame rate, `uptime` whole seconds since the stream was registered, `started_at` and
    `last_frame_at` are in ms since the epoch. `gateway` is the name of the publisher's gateway, `mlbridge` the names of
    the bridges that get the frames, joined by commas. `dropped` counts, by reason, frames that viewers did not get.
    `coverage` (0 to 1) is the share of the last minute in which the ML service analysed the stream, None when no bridge
    reported it; only replies to ``stats`` have the field, and a `StreamPage` for which it was asked. `info` is what the
    camera says of itself, as JSON; only replies to ``streams`` have it, where the coverage was not asked for.
    """

    stream_id: str
    user_id: str | None = None
    organizations: tuple[str, ...] = ()
    status: str = ""
    fps: float = 0.0
    total_frames: int = 0
    uptime: int = 0
    viewers: int = 0
    alert_viewers: int = 0
    gateway: str | None = None
    mlbridge: str | None = None
    started_at: int = 0
    last_frame_at: int | None = None
    frame_id: int = 0
    dropped: dict[str, int] = msgspec.field(name="skipped", default_factory=dict)
    coverage: float | msgspec.UnsetType | None = msgspec.UNSET
    info: str | msgspec.UnsetType = msgspec.UNSET


class DeadAlertRow(ReplyRecord, frozen=True):
    """An alert that the webhook did not accept and that is no longer tried, in `WebhookStats`. `at` is in ms since the
    epoch.
    """

    alert_id: str
    stream_id: str
    attempts: int
    reason: str
    at: int


class WebhookStats(ReplyRecord, frozen=True):
    """The alert webhook in the reply to ``stats``: its address without the path, and counts since the router's start.

    `disabled` is set once the receiver responded with 410. `waiting` alerts are queued; `last_dead` lists the latest of
    the `dead` ones.
    """

    service: str = ""
    disabled: bool = False
    waiting: int = 0
    sent: int = 0
    retries: int = 0
    dead: int = 0
    last_dead: list[DeadAlertRow] = []


class Totals(ReplyRecord, frozen=True):
    """Counts over all gateways in the reply to ``stats``.

    Streams whose publisher sends video, video subscriptions, subscriptions and publishers that consume alerts, and
    authenticated sockets. `streams` is the number of streams with a publisher, in replies without rows of streams.
    """

    producers: int = 0
    video_consumers: int = 0
    alert_consumers: int = 0
    connections: int = 0
    streams: int | msgspec.UnsetType = msgspec.UNSET


class SlotStats(ReplyRecord, frozen=True):
    """The router of one slot, in a `StatsReply` that was merged from those of several slots."""

    slot: int
    router: RouterStats


class StatsReply(ReplyRecord, frozen=True):
    """Reply to ``stats``: the router, all members, all streams with a publisher, and the webhook if there is one.

    With `Query.rows` 0 the streams are left out; a router that does not know the field replies with them.

    Where there are several slots, the replies of their routers are merged (`common.bus.merged_replies`): `router` is
    then all of them together, `routers` each of them, and `missing_slots` are the slots that did not answer; UNSET when
    all did. A router itself sends neither.
    """

    router: RouterStats = RouterStats()
    members: list[MemberRow] = []
    streams: list[StreamRow] = []
    webhook: WebhookStats | None = None
    totals: Totals = Totals()
    routers: list[SlotStats] | msgspec.UnsetType = msgspec.UNSET
    missing_slots: list[int] | msgspec.UnsetType = msgspec.UNSET

    @property
    def stream_count(self) -> int:
        """How many streams have a publisher, also where the reply does not have them."""
        return len(self.streams) if self.totals.streams is msgspec.UNSET else self.totals.streams


class StreamPage(ReplyRecord, frozen=True):
    """Reply to ``streams`` with `Query.rows`: streams with a publisher, by stream id, and whether there are `more`."""

    rows: list[StreamRow]
    more: bool = False


class ProcessReport(ReplyRecord, frozen=True):
    """One process in the reply to ``processes``, the router included.

    `up_s` is in seconds, `version` is empty for a process of a version that does not send it, `settings` holds the
    settings that differ from their defaults (`common.process.about`), `remote` is set for a bridge that is joined over
    TCP. `frames_at` is where it accepts frames of other hosts, absent: nowhere. `open_files` and `open_files_limit` are
    descriptors, `connections_limit` is what a gateway takes; each is absent when the process does not report it, as is
    its machine, `host`.
    `process` as in `MemberRow`. `other_slots` is set for a process that may not join, because it has so many slots and
    the routers have another number.
    """

    name: str = ""
    kind: str = ""
    pid: int = 0
    up_s: float = 0.0
    version: str = ""
    settings: dict[str, str] = {}
    remote: bool = False
    frames_at: str | msgspec.UnsetType = msgspec.UNSET
    open_files: int | msgspec.UnsetType = msgspec.field(name="open", default=msgspec.UNSET)
    open_files_limit: int | msgspec.UnsetType = msgspec.field(name="openLimit", default=msgspec.UNSET)
    connections_limit: int | msgspec.UnsetType = msgspec.UNSET
    host: str | msgspec.UnsetType = msgspec.UNSET
    process: str | msgspec.UnsetType = msgspec.UNSET
    other_slots: int | msgspec.UnsetType = msgspec.UNSET


class ClusterMember(ReplyRecord, frozen=True):
    """One process that is joined to a router, in the reply to ``cluster``; not those of operators' commands.

    `up_s` is its uptime and `silent_s` the time since its last message, in seconds. `host` is empty where it says none,
    `url` is where clients reach a gateway. `at` is its address in the frame mesh, absent: it has none. `apart_ms` is
    its clock minus the router's, absent where all have one clock. `links` are those of its last report, which came
    `links_age_s` seconds ago, of `links_total`; without a report that is absent. `process` as in `MemberRow`.
    """

    kind: str
    name: str = ""
    pid: int = 0
    host: str = ""
    url: str = ""
    version: str = ""
    up_s: float = 0.0
    silent_s: float = 0.0
    remote: bool = False
    sockets: int = 0
    at: str | msgspec.UnsetType = msgspec.UNSET
    apart_ms: int | msgspec.UnsetType = msgspec.UNSET
    links: list[LinkRow] = []
    links_total: int = 0
    links_age_s: float | msgspec.UnsetType = msgspec.UNSET
    process: str | msgspec.UnsetType = msgspec.UNSET


class LostProcess(ReplyRecord, frozen=True):
    """A gateway or bridge that fell silent `ago_s` seconds ago and did not come back, in the reply to ``cluster``."""

    kind: str
    name: str = ""
    pid: int = 0
    host: str = ""
    ago_s: float = 0.0


class ClusterReply(ReplyRecord, frozen=True):
    """Reply to ``cluster``: what the router of one slot knows of the site, in numbers and not stream by stream.

    `router` is without metrics. `process` is the id of the router's process where it has one of several slots. `now` is
    the router's time in ms since the epoch. `streams` are those with a publisher, `cameras` those of them that send
    video; `viewers` are video subscriptions.
    """

    router: RouterStats
    version: str = ""
    process: str = ""
    now: int = 0
    streams: int = 0
    cameras: int = 0
    viewers: int = 0
    members: list[ClusterMember] = []
    lost: list[LostProcess] = []


class LatencyReply(ReplyRecord, frozen=True):
    """Reply to ``latency``: what the members measured, merged (docs/latency.md).

    `total` is of all streams that were told to this router's slot as a whole, absent where none was; `streams` are the
    ones that were asked for, those with the latest alerts or frames first. `more` is the number of streams that are not
    among them. `clocks_ms` is the largest difference between the clock of a member's host and that of the router, as
    far as it is known: stamps of different hosts are apart by up to twice as much.
    """

    total: LatencyRow | None = None
    streams: list[LatencyRow] = []
    more: int = 0
    clocks_ms: int = 0


class RecentAlertRow(ReplyRow, frozen=True):
    """One alert in the reply to ``alerts``.

    `owner` is the user who owned the stream when the alert arrived, None when it had no known owner. `json` is the
    alert as the edge protocol sends it. `at` is when the router first received it, in ms since the epoch.
    `organizations` are those of the owner, empty when the stream belongs to another user now. `acknowledgement` is None
    while nobody has acknowledged it.
    """

    id: str
    owner: str | None
    json: bytes
    at: int = 0
    organizations: tuple[str, ...] = ()
    acknowledgement: Acknowledgement | None = None


class RecentAlertsReply(ReplyRecord, frozen=True):
    """Reply to ``alerts`` of one stream with `Query.tell_missing`.

    `alerts` are the rows, oldest first. `missing_before` is None when they are all alerts that there ever were since
    the time of the query; else some may be missing, and this is the time of the oldest one that is kept, in ms since
    the epoch.
    """

    alerts: list[RecentAlertRow] = []
    missing_before: int | None = 0


class AlertFrameRow(ReplyRow, frozen=True):
    """The frame that an alert refers to, in the reply to ``alert``: one row for each stream with an alert of that id.

    `owner` is the user who owned the stream when the alert arrived. `term` is 0 when the frame's picture was not sent,
    `frame_id` is 0 when the alert refers to no frame. `kept`: the router has the picture. `json` is the alert as the
    edge protocol sends it, empty from a router that knows no acknowledgements. `at` is when a router first received it,
    in ms since the epoch.
    """

    stream: str
    owner: str | None
    term: int
    frame_id: int
    kept: bool
    json: bytes = b""
    at: int = 0


class ReservationRow(ReplyRow, frozen=True):
    """A stream id in the reply to ``reservations``: only `user` may register it for the next `left_s` seconds."""

    stream: str
    user: str
    left_s: float


class ShareRow(ReplyRow, frozen=True):
    """A share in the reply to ``shares`` and to `CreateShare`.

    `owner` is the user who shares `stream`, with its `alerts` or without. Times are in ms since the epoch.
    """

    id: str
    stream: str
    owner: str
    alerts: bool
    created_at: int
    ends_at: int


class WhyReply(ReplyRecord, frozen=True):
    """Reply to ``why``, made by the router's `Inquiries`.

    `answers` are those of the router and its members, each a `common.why.answer.WhyAnswer` as msgpack. `silent` are the
    members that did not answer. `left_out` counts answers for which the reply had no room.
    """

    answers: list[bytes] = []
    silent: list[SilentProcess] = []
    left_out: int = 0


#: What a `QueryReply` may carry. `str` and None reply to `Unreserve`: the former owner, or None when nothing was
#: reserved.
ReplyBody = (
    StatsReply
    | list[StreamRow]
    | StreamPage
    | list[ProcessReport]
    | ClusterReply
    | LatencyReply
    | list[RecentAlertRow]
    | RecentAlertsReply
    | list[AlertFrameRow]
    | list[ReservationRow]
    | list[ShareRow]
    | WhyReply
    | str
    | None
)

#: How much of a fault of a reply is shown.
MAX_FAULT_CHARS: Final = 200


def read_reply(body: object, kind: type[R]) -> R:
    """Convert the body of a `QueryReply` to the record that was asked for.

    Args:
        body: `QueryReply.body` as it was decoded from the bus.
        kind: The expected type, such as ``StatsReply`` or ``list[StreamRow]``.

    Returns:
        The record. Keys that it does not have are ignored.

    Raises:
        BusError: The body has another form, as from a router of another version. The caller reports it; asking again
            does not help.

    """
    try:
        return msgspec.convert(body, kind)
    except (msgspec.ValidationError, RecursionError) as exc:
        raise BusError(f"unexpected reply: {str(exc)[:MAX_FAULT_CHARS]}") from None
