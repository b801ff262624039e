"""Messages that a member (a gateway, a bridge or `watchout-ctl`) sends to the router. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from watchout.common.alerts.acknowledgement import Note
from watchout.common.alerts.model import Alert, AlertId, FrameId, Milliseconds, Severity, StreamId
from watchout.common.bus.messages.fields import (
    MAX_COVERAGE_ROWS,
    MAX_LINK_ROWS,
    MAX_PAGE_ROWS,
    MAX_WHY_BYTES,
    REPORT_CHUNK,
    VERSION,
    Count,
    DropReasonWord,
    FrameAddress,
    Glob,
    Info,
    MemberId,
    MemberKind,
    Message,
    Organizations,
    Rate,
    SettingName,
    SettingText,
    Share,
    ShareId,
    StreamStatus,
    Text,
    Wildcard,
)
from watchout.common.bus.messages.latency_rows import MAX_HOPS, MAX_LATENCY_ROWS, AlertStamps, HopRow, LatencyRow
from watchout.common.toolbox import wildcards
from watchout.common.toolbox.globs import MAX_PATTERNS


class Hello(Message, frozen=True, tag="hello"):
    """First message of a member to the router, sent again after each loss of its membership; the reply is `Welcome`.

    `attempt` counts the greetings of a member: the member accepts only the reply to its last one. `max_fps` is the rate
    of frames per second that a bridge wants of each stream, absent when it wants none. `streams` are patterns
    (`common.toolbox.globs`) of the streams that a bridge serves, none meaning all; bridges of one `group` share the
    streams. `settings` are those that differ from their defaults (`common.process.about`). `frames_at` is where the
    member accepts frames that other members send it directly; absent: it gets all frames from the router. `host` is the
    name of its machine, `url` where clients reach a gateway: `PUBLIC_URL`. `process` is the same in the greetings of
    one process to the routers of several slots; absent where there is one slot. `level` says which messages the member
    understands, 0 when it is of a release before there were levels: the router sends none of a later one. `slots` is
    the number of slots by which the member finds the router of a stream, absent where no cluster is; a router that has
    another one replies `SlotsDiffer`.
    """

    kind: MemberKind
    name: Text
    pid: Count
    version: Count = VERSION
    group: Text = ""
    max_fps: Rate | None = None
    streams: Annotated[tuple[Glob, ...], msgspec.Meta(max_length=MAX_PATTERNS)] = ()
    attempt: Count = 0
    release: Annotated[str, msgspec.Meta(max_length=64)] = ""
    settings: Annotated[dict[SettingName, SettingText], msgspec.Meta(max_length=256)] = msgspec.field(
        default_factory=dict
    )
    frames_at: FrameAddress | None = None
    host: Text = ""
    url: Text = ""
    process: MemberId | None = None
    level: Count = 0
    slots: Count = 0


class PublicationState(Message, frozen=True, tag="hold"):
    """Sent by a gateway: current state of a stream whose publisher is connected to it; replaces the state sent before.

    `producing`: the publisher sends frames; `wants_alerts`: it receives the alerts of its stream. `fps` is the measured
    rate of frames per second, `frame_id` the id of the last frame. Times are in ms since 1970. `info` is what the
    camera says of itself, as JSON. `forwarding`: the gateway sends frames directly to other members, at the request of
    this router or of a former one.
    """

    stream: StreamId
    user: Text
    term: Count
    status: StreamStatus
    producing: bool
    wants_alerts: bool
    frame_id: FrameId
    total_frames: Count
    fps: float
    started_at: Milliseconds
    last_frame_at: Milliseconds | None = None
    organizations: Organizations = ()
    info: Info = ""
    forwarding: bool = False


class Interest(Message, frozen=True, tag="interest"):
    """Sent by a gateway: what its viewers want of a stream; replaces the interest sent before, and ends it with no
    viewers and no alert viewers.

    `viewers` is the number of those that receive frames, `alert_viewers` of those that receive alerts. `max_fps` is the
    highest rate that one of them wants, absent: every frame. `floor` is the id of the last frame that the gateway
    received, and `user` the stream's owner where known: a router that has just started learns both from it.
    `alerts_epoch` and `last_alert` (`alerts_heard` on the wire), copied from the `OwnerReply` before: the router sends
    the later alerts of the stream that it has accepted already; epoch 0: none.
    """

    stream: StreamId
    viewers: Count
    alert_viewers: Count
    max_fps: Rate | None = None
    floor: FrameId = 0
    user: Text | None = None
    organizations: Organizations = ()
    alerts_epoch: Count = 0
    last_alert: Count = msgspec.field(default=0, name="alerts_heard")


class SnapshotEnd(Message, frozen=True, tag="synced"):
    """Sent by a member at the end of the snapshot that follows `Welcome`.

    It contains the numbers of `PublicationState` and `Interest` messages in the snapshot. The router removes the
    streams of this member that are not in it. `last_alert` (`alerts_heard` on the wire) is the number of the last alert
    that a gateway received from the router of epoch `alerts_epoch`; the router sends the later ones.
    """

    publications: Count = msgspec.field(name="holds")
    interests: Count
    alerts_epoch: Count = 0
    last_alert: Count = msgspec.field(default=0, name="alerts_heard")


class StreamReport(Message, frozen=True, tag="report"):
    """Sent by a gateway once a second: counters of streams since its last report.

    `rows`, of streams published there: (stream, id of the last frame, frames in total, frames per second, time of the
    last frame in ms). `dropped` (`missed` on the wire), of streams viewed there: (stream, drop reason, frames dropped
    since the last report).
    """

    rows: list[tuple[StreamId, FrameId, Count, float, Milliseconds | None]] = msgspec.field(default_factory=list)
    dropped: list[tuple[StreamId, DropReasonWord, Count]] = msgspec.field(default_factory=list, name="missed")


class MemberHeartbeat(Message, frozen=True, tag="heartbeat"):
    """Sent by each member to the router every 500 ms, from the event loop that does its work: as the answer to that of
    the router, or by its own time while none comes.

    `metrics` (`figures` on the wire) are the member's metrics by name. To a router of level 4 or above they come once a
    second, to the routers of further slots every 5 s; absent: those that came before hold. `now` (ms) is the member's
    time, absent where all processes have the same clock.
    """

    metrics: dict[str, float] | None = msgspec.field(default=None, name="figures")
    now: Milliseconds | None = None


class LinkRow(msgspec.Struct, frozen=True, array_like=True):
    """One link of the frame mesh, from the member that sends frames over it; part of `LinkReport`.

    `at` is the receiver's address, `connected` whether there is a connection now, `fault` why there is none. The rates
    are those since the report before. `replaced` and `evicted` count the frames that were queued and not sent: a newer
    one took their place, or they were over a bound or queued when the link ended. `queued` is in bytes.
    """

    at: FrameAddress
    connected: bool
    frames_per_s: Annotated[float, msgspec.Meta(ge=0)]
    bytes_per_s: Annotated[float, msgspec.Meta(ge=0)]
    replaced: Count = 0
    evicted: Count = 0
    queued: Count = 0
    fault: Text = ""


class LinkReport(Message, frozen=True, tag="links"):
    """Links of a member's part of the frame mesh, sent every 2 s while there are any; replaces the report before.

    Sent to one router of level 2 or above, that of the first slot that has one. `rows` are at most 200, `total` counts
    all links.
    """

    rows: Annotated[list[LinkRow], msgspec.Meta(max_length=MAX_LINK_ROWS)]
    total: Count = 0


class LatencyReport(Message, frozen=True, tag="latency"):
    """Latencies that a gateway or bridge measured (docs/latency.md), sent to routers of level 3 or above: every 2 s
    what changed, and the totals once a minute.

    `rows` are of streams of the router's slot, in turn: those whose latencies changed, the ones told the longest ago
    first. Each replaces the row of its stream that came before. `total` is of all streams together, and `since_start`
    the same since the process began; both go to one router alone.
    """

    rows: Annotated[list[LatencyRow], msgspec.Meta(max_length=MAX_LATENCY_ROWS)] = msgspec.field(default_factory=list)
    total: LatencyRow | None = None
    since_start: Annotated[list[HopRow], msgspec.Meta(max_length=MAX_HOPS)] = msgspec.field(default_factory=list)


class CoverageReport(Message, frozen=True, tag="coverage"):
    """Coverage of a bridge's streams by its ML service, sent by the bridge every 2 s; replaces the report before.

    `rows`: (stream, coverage). The coverage is the share, 0 to 1, of the last 60 seconds in which the service analysed
    a frame of the stream. Of more than 1000 streams only the least covered ones are sent.
    """

    rows: Annotated[list[tuple[StreamId, Share]], msgspec.Meta(max_length=MAX_COVERAGE_ROWS)]


class Claim(Message, frozen=True, tag="claim"):
    """Request of a gateway to register a stream for a publisher; the reply is `GrantedReply` or `RefusedReply`.

    `floor` is the highest frame id that this gateway knows of the stream: the granted ids begin above it. `granted`:
    the token of the publisher permits it whoever owns the stream, which keeps its owner. `info` is what the camera says
    of itself, as JSON.
    """

    request: Count
    stream: StreamId
    user: Text
    producing: bool = False
    floor: FrameId = 0
    organizations: Organizations = ()
    granted: bool = False
    info: Info = ""


class Release(Message, frozen=True, tag="release"):
    """Sent by a gateway when the publisher of this stream and term is gone; `frame_id` is the id of its last frame.

    The router sets the stream to offline and reserves its id for the owner. It ignores a term that is no longer
    current.
    """

    stream: StreamId
    term: Count
    frame_id: FrameId = 0


class ReservationReport(Message, frozen=True, tag="reserved"):
    """Sent by a gateway to a router with a new epoch: the reservations of stream ids after publishers that left the
    gateway.

    `rows`: (stream, user, organizations, term, id of the last frame, seconds since the publisher left).
    """

    rows: Annotated[
        list[tuple[StreamId, Text, Organizations, Count, FrameId, Annotated[float, msgspec.Meta(ge=0)]]],
        msgspec.Meta(max_length=REPORT_CHUNK),
    ]


class OwnerLookup(Message, frozen=True, tag="lookup"):
    """Request of a gateway for the owner and status of a stream; the reply is `OwnerReply`.

    `place`: also for where the stream is published.
    """

    request: Count
    stream: StreamId
    place: bool = False


class FetchNewest(Message, frozen=True, tag="newest"):
    """Request of a gateway for the newest frame of a stream. There is no reply: the frame is sent once over the frame
    sockets, if there is one.
    """

    stream: StreamId


class RaiseAlert(Message, frozen=True, tag="raisealert"):
    """Request of a gateway, bridge or `watchout-ctl` to deliver an alert to every client that may see it; the reply is
    `AcceptedReply` or `RefusedReply`.

    `term` is that of the frame that the alert is about, set when the frame's picture is sent too. `accepted_at` (ms) is
    set when the alert is sent again because the router that accepted it then may have ended before it delivered it.
    `stamps` say when its frame was captured and looked at, where that is known.
    """

    request: Count
    alert: Alert
    term: Count = 0
    accepted_at: Milliseconds | None = None
    stamps: AlertStamps | None = None


class AcknowledgeRequest(Message, frozen=True, tag="acknowledge"):
    """Request of a gateway to record that `user` acknowledges an alert; the reply is `AcknowledgedReply` or
    `RefusedReply`. Sent only to a router whose `AlertFrameRow` holds the alert.

    `alert`, `term`, `owner` and `accepted_at` (ms) are what the router replied before: a router that has restarted
    since, and does not know the alert, accepts it by them. `at` (ms) is set when the acknowledgement is sent again
    because the router that accepted it then may have ended before it delivered it.
    """

    request: Count
    alert: Alert
    user: Text
    note: Note | None = None
    term: Count = 0
    owner: Text | None = None
    accepted_at: Milliseconds | None = None
    at: Milliseconds | None = None


class FetchPicture(Message, frozen=True, tag="picture"):
    """Request of a gateway for the picture that the router keeps of an alert's frame. There is no reply: the picture is
    sent once over the frame sockets, if the router still has it.
    """

    stream: StreamId
    term: Count
    frame_id: FrameId


class BadFrame(Message, frozen=True, tag="badframe"):
    """Sent by a gateway or bridge that could not decode a frame of this stream; `reason` is the text for the publisher.

    The router sends the publisher's gateway an `ErrorForPublisher`, once per term.
    """

    stream: StreamId
    frame_id: FrameId
    reason: Text


class Unreserve(Message, frozen=True, tag="unreserve"):
    """Request of `watchout-ctl` to end the reservation of a stream id. The reply is a `QueryReply` with the former
    user, or null when the id was not reserved.
    """

    request: Count
    stream: StreamId


class CreateShare(Message, frozen=True, tag="share"):
    """Request of a gateway to share a stream of `user` for so many `seconds`, with its alerts or without; sent to
    routers of level 1 or above. The reply is a `QueryReply` with one `ShareRow`, sent when the share survives a
    restart, or a `RefusedReply`. A share of this id that exists already is replied as it is.
    """

    request: Count
    id: ShareId
    stream: StreamId
    user: Text
    seconds: Annotated[int, msgspec.Meta(ge=1, le=2**32)]
    alerts: bool = False


class EndShare(Message, frozen=True, tag="unshare"):
    """Request of a gateway to end a share of a stream of `user`; sent to routers of level 1 or above. The reply is a
    `QueryReply` with the id, or null when `user` shares no such thing, or a `RefusedReply`.
    """

    request: Count
    id: ShareId
    stream: StreamId
    user: Text


class AlertScope(msgspec.Struct, frozen=True):
    """The owners whose alerts a caller may read when no stream is named; part of `Query`.

    `streams`: only alerts of streams that match one of these patterns (`common.toolbox.wildcards`), absent: of all.
    `own`: streams of `user` itself. `organizations`: streams whose owner is a member of one of these. `any_owner`:
    streams of every owner (`everybodys` on the wire). `unowned`: streams of which no owner was known when the alert
    arrived (`nobodys`). Built by the gateway from the caller's permissions.
    """

    user: Text
    own: bool = False
    organizations: Organizations = ()
    any_owner: bool = msgspec.field(default=False, name="everybodys")
    unowned: bool = msgspec.field(default=False, name="nobodys")
    streams: Annotated[tuple[Wildcard, ...], msgspec.Meta(max_length=wildcards.MAX_PATTERNS)] | msgspec.UnsetType = (
        msgspec.UNSET
    )

    def includes(self, stream: str, alert_owner: str | None, organizations: Iterable[str]) -> bool:
        """Whether the alerts of a stream and owner are within the scope.

        Args:
            stream: Id of the stream.
            alert_owner: Owner of the stream when the alert arrived, None when none was known.
            organizations: Those of the owner, none when the stream belongs to another user by now.

        """
        if self.streams is not msgspec.UNSET and not wildcards.any_matches(self.streams, stream):
            return False
        if alert_owner is None:
            return self.unowned
        if self.any_owner:
            return True
        if alert_owner == self.user:
            return self.own
        return not frozenset(organizations).isdisjoint(self.organizations)

    def owners(self) -> frozenset[str | None] | None:
        """List the owners whose alerts are within the scope, so that the alerts of others need not be read.

        Returns:
            The owners, among them None for alerts without an owner. None instead of a set: an alert of any owner may be
            within the scope, so that `includes` has to decide alert by alert.

        """
        if self.any_owner or self.organizations:
            return None
        return frozenset([self.user] * self.own + [None] * self.unowned)


class Query(Message, frozen=True, tag="query"):
    """Request of a gateway or of `watchout-ctl` for what the router knows. The reply is a `QueryReply`; `what` says
    with which record of `common.bus.reply_records`.

    `since` (ms), `limit`, `severity` (the least) and `scope` (`reach` on the wire) select alerts; with
    `or_acknowledged` (`acked` on the wire) also older ones that were acknowledged since. `stream` and `user` select
    what belongs to one of them. With `tell_missing` (`whole` on the wire) and a `stream`, the reply to ``alerts`` is a
    `RecentAlertsReply`; a router that does not know the field replies with the rows alone.
    ``shares``, for routers of level 1 or above, are those of a `user`'s `stream`, or of
    these `ids`. ``cluster`` is for routers of level 2 or above, ``latency``, of one `stream` or of
    up to `limit` ones, for those of level 3 or above. So is ``why``: what they and their members know `about` a stream,
    user, connection, alert or address.

    `rows` bounds the streams in a reply, which else has all of them. ``stats`` takes 0: without streams, and with their
    number in the totals. ``streams`` takes 1 to 1000: a `StreamPage` of those above the id `after`, with `coverage` or
    with what cameras say of themselves. A router that does not know these fields replies with all streams.
    """

    request: Count
    what: Literal[
        "stats", "streams", "alerts", "alert", "reservations", "processes", "shares", "cluster", "latency", "why"
    ]
    stream: StreamId | None = None
    id: AlertId | None = None
    user: Text | None = None
    since: Milliseconds = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    severity: Severity = "low"
    scope: AlertScope | None = msgspec.field(default=None, name="reach")
    or_acknowledged: bool = msgspec.field(default=False, name="acked")
    tell_missing: bool = msgspec.field(default=False, name="whole")
    ids: Annotated[tuple[ShareId, ...], msgspec.Meta(max_length=1000)] = ()
    about: Text = ""
    rows: Annotated[int, msgspec.Meta(ge=0, le=MAX_PAGE_ROWS)] | None = None
    after: Annotated[str, msgspec.Meta(max_length=128)] = ""
    coverage: bool = False


class WhyAnswered(Message, frozen=True, tag="because"):
    """Answer of a gateway or bridge to an `AskWhy`: `body` is a `common.why.answer.WhyAnswer` as msgpack."""

    request: Count
    body: Annotated[bytes, msgspec.Meta(max_length=MAX_WHY_BYTES)]


class Bye(Message, frozen=True, tag="bye"):
    """Sent by a member that shuts down: the router removes it at once, and does not wait for its silence."""


FromMember = (
    Hello | PublicationState | Interest | SnapshotEnd | StreamReport | MemberHeartbeat | CoverageReport | Claim
    | Release | ReservationReport | OwnerLookup | FetchNewest | RaiseAlert | AcknowledgeRequest | FetchPicture
    | BadFrame | CreateShare | EndShare | Unreserve | Query | Bye | LinkReport | LatencyReport | WhyAnswered
)  # fmt: skip
