"""Who publishes and who watches what on this gateway; frames, alerts and status to local viewers. Pure.

The hub delivers to its own viewers by itself, whether the router is there or not. The link to the router is one more
receiver: it gets what the router asked for (`Forward`), and is told by `woken` that holds or interest changed; what it
then tells is the state, not the change. `now` in seconds, `now_ms` since the epoch.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from watchout.common.alerts.model import Alert
from watchout.common.bus.messages import (
    REPORT_CHUNK,
    BadFrame,
    ErrorForPublisher,
    Forward,
    Interest,
    PublicationState,
    Release,
    ReservationEnded,
    ReservationReport,
    StreamReport,
    StreamStatus,
)
from watchout.common.bus.messages import StatusUpdate as BusStatus
from watchout.common.errors import ErrorCode
from watchout.common.media.codecs import Codec
from watchout.common.media.frames import Frame, json_head
from watchout.common.media.rate import RateMeter, Sampler
from watchout.common.reservations import Reservation, Reservations
from watchout.gateway import wire
from watchout.gateway.hub.demand import Demand, Wanted, wanted
from watchout.gateway.hub.newest_frames import NewestBytes
from watchout.gateway.hub.outbound_queue import DropReason, Subscription
from watchout.gateway.model import Owner, StreamState

#: A camera that sent no frame for so long is `online`, no more `streaming`.
IDLE_AFTER_S: Final = 5.0
#: The wire's frame ids have 32 bits; after so many frames a stream begins again at 1.
MAX_FRAME_ID: Final = 2**32 - 1
#: What was known of streams that nobody here has to do with any more is kept for one to two times so long.
CLOSED_KEPT_S: Final = 10.0
CLOSED_KEPT: Final = 20_000
#: No time in ms is later.
MAX_MS: Final = 2**63
#: Streams and reasons of missed frames that are counted while the router is away.
MAX_MISSED: Final = 50_000
#: Ids of alerts that are remembered, so that none comes twice to a viewer.
ALERTS_SEEN: Final = 65_536
#: Streams whose cameras went from here that a router which begins anew is told of: how long, how many of one user and
#: in all.
GONE_KEPT_S: Final = 604_800.0
GONE_PER_USER: Final = 5_000
GONE_KEPT: Final = 20_000
#: The newest frames of all streams hold so many bytes together.
NEWEST_BYTES: Final = 128 << 20
#: Behind a stream's id, for the frame of it that came before its term was known; no id has a space.
_EARLY: Final = " early"
#: Live alerts that wait for a viewer while those that are kept are fetched for it.
ALERTS_HELD: Final = 256


#: Writes ready-made bytes to a socket that takes them.
Write = Callable[[bytes], object]


class Viewer(Protocol):
    """The socket behind a subscription."""

    def frame(self, subscription: Subscription, frame: Frame, now: float) -> None:
        """A frame of a stream that it watches; the viewer's lanes decide."""

    def message(self, message: bytes) -> None:
        """An alert or status, in order; never skipped."""

    def right_lost(self, stream: str) -> None:
        """It may watch this stream no more."""


class Camera(Protocol):
    """The socket behind a publication."""

    def message(self, message: bytes) -> None:
        """An alert, in order; never skipped."""

    def taken_over(self, stream: str) -> None:
        """Another socket has the stream now."""


@dataclass(slots=True, eq=False)
class Publication:
    """A camera's stream that this gateway holds."""

    stream: str
    owner: Owner
    term: int
    next_frame_id: int
    camera: Camera
    producing: bool
    wants_alerts: bool
    started_at: int
    last_frame_s: float
    last_frame_at: int | None = None
    meter: RateMeter = field(default_factory=RateMeter)
    bus: Sampler | None = None
    bus_fps: float | None = None
    viewers_elsewhere: int = 0
    demand: Demand | None = None
    wants_status: bool = False
    told_undecodable: bool = False
    #: The stream's name as its frames bear it, and how each of them begins in JSON.
    name: bytes = field(init=False)
    json_head: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.json_head = self.stream.encode("ascii"), json_head(self.stream)


@dataclass(slots=True, eq=False)
class Stream:
    """A stream that somebody here publishes or watches. `term` and `owner` are the newest known."""

    id: str
    status: StreamStatus = "offline"
    term: int = 0
    owner: Owner | None = None
    last_frame_id: int = 0
    #: The newest frame that is a picture.
    newest: Frame | None = None
    #: Of the last frame, when it came after that one and is no picture: term, frame id, why.
    last_bad: tuple[int, int, str] | None = None
    early: Frame | None = None
    told_bad_term: int = -1
    publication: Publication | None = None
    viewers: dict[Subscription, Viewer] = field(default_factory=dict)
    #: How many of them want alerts; and at which rates those who want frames want them (None: all), how many each.
    alert_viewers: int = 0
    rates: Counter[float | None] = field(default_factory=Counter)
    #: Of those the ones that want frames: each is in one of the three below as well.
    video: dict[Subscription, Viewer] = field(default_factory=dict)
    asked: dict[Subscription, Viewer] = field(default_factory=dict)
    flowing_json: dict[Subscription, Write] = field(default_factory=dict)
    flowing_binary: dict[Subscription, Write] = field(default_factory=dict)


class Hub:
    """All streams of one gateway."""

    def __init__(
        self,
        *,
        woken: Callable[[], None],
        to_bus: Callable[[Frame], None],
        unlimited_fps: float = 30.0,
        gone_kept_s: float = GONE_KEPT_S,
        gone_per_user: int = GONE_PER_USER,
        newest_bytes: int = NEWEST_BYTES,
    ) -> None:
        self._streams: dict[str, Stream] = {}
        self._publications: dict[str, Publication] = {}
        self._woken = woken
        self._to_bus = to_bus
        self._unlimited_fps = unlimited_fps
        self._changed_demand: set[str] = set()
        self._closed: OrderedDict[str, StreamState] = OrderedDict()
        self._closed_before: OrderedDict[str, StreamState] = OrderedDict()
        #: Whose the streams are whose cameras went from here; seconds since the epoch.
        self._gone = Reservations(keep_s=gone_kept_s, per_user=gone_per_user, total=GONE_KEPT)
        self.newest_bytes = NewestBytes(newest_bytes)
        #: Streams whose newest frame may hold more since it was handed out.
        self._read: set[str] = set()
        self._turn_at = float("-inf")
        self._changed_holds: set[str] = set()
        self._changed_interest: set[str] = set()
        self._moved: set[str] = set()
        self._released: list[Release] = []
        self._alerts_seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._missed: dict[tuple[str, str], int] = {}
        self._video_viewers = self._alert_viewers = 0
        self.frames_in = self.bytes_in = self.alerts_out = self.old_term_frames = 0
        self.frames_out = self.frame_bytes_out = 0
        #: What is being written to sockets in this moment: who is full keeps a part of it.
        self.writing: bytes | None = None

    # ── cameras ──────────────────────────────────────────────────────────────────────────────────────────────────

    def publish(
        self,
        stream_id: str,
        owner: Owner,
        camera: Camera,
        *,
        term: int,
        first_frame_id: int,
        producing: bool,
        wants_alerts: bool,
        wants_demand: bool = False,
        wants_status: bool = False,
        now: float,
        now_ms: int,
    ) -> Publication:
        """A camera's claim was granted. An older camera of the stream on this gateway is told that it is taken over."""
        stream = self._open(stream_id)
        self._gone.take(stream_id)
        old = stream.publication
        publication = Publication(
            stream_id, owner, term, max(first_frame_id, stream.last_frame_id + 1), camera, producing, wants_alerts,
            now_ms, now, demand=Demand() if wants_demand else None, wants_status=wants_status,
        )  # fmt: skip
        if stream.owner is None or stream.owner.user_id != owner.user_id:
            self._forget_newest(stream)
        stream.publication = self._publications[stream_id] = publication
        stream.term, stream.owner = term, owner
        if old is not None:
            old.camera.taken_over(stream_id)
        self._registered(stream, publication, now_ms)
        return publication

    def change_publication(
        self,
        publication: Publication,
        *,
        producing: bool,
        wants_alerts: bool,
        wants_demand: bool,
        wants_status: bool,
        now: float,
        now_ms: int,
    ) -> None:
        """A camera registered its stream again: what it sends and wants now; its term and frame ids go on."""
        if self._publications.get(publication.stream) is not publication:
            return
        publication.producing, publication.wants_alerts = producing, wants_alerts
        publication.demand, publication.wants_status = Demand() if wants_demand else None, wants_status
        publication.last_frame_s, publication.told_undecodable = now, False
        self._registered(self._streams[publication.stream], publication, now_ms)

    def _registered(self, stream: Stream, publication: Publication, now_ms: int) -> None:
        status: StreamStatus = "streaming" if publication.producing else "online"
        if stream.status != status:
            self._set_status(stream, status, now_ms)
        elif publication.wants_status:  # viewers know it
            publication.camera.message(wire.status(stream.id, status, now_ms))
        self._touch(self._changed_holds, stream.id)
        self._changed_demand.add(stream.id)

    def frame(
        self,
        publication: Publication,
        *,
        text: bytes | None,
        span: tuple[int, int] | None = None,
        picture: bytes | None,
        codec: Codec | None,
        is_base64: bool = False,
        more: bytes = b"",
        timestamp: int,
        now: float,
        now_ms: int,
    ) -> None:
        """A frame of a camera here: number it, give it to everybody. `span`: its JSON string token in `text`.

        `is_base64` and `more`: see `common.media.frames.Frame`.
        """
        if publication.next_frame_id > MAX_FRAME_ID:
            self._begin_again(publication)
        frame = Frame(
            publication.stream, publication.next_frame_id, timestamp,
            term=publication.term, text=text, span=span, picture=picture, codec=codec, is_base64=is_base64, more=more,
        )  # fmt: skip
        size = span[1] - span[0] if span is not None else len(text if text is not None else picture or b"")
        self._came(publication, frame, size, now, now_ms)

    def plain_frame(
        self, publication: Publication, message: bytes, begin: int, end: int, timestamp: int, codec: int, more: bytes,
        now: float, now_ms: int,
    ) -> None:  # fmt: skip
        """A frame of a camera here, of which its viewers' message bears the next number already: see `plain.Taken`."""
        frame = Frame.of_message(
            publication.stream, publication.next_frame_id, timestamp, publication.term, message, begin, end, codec, more
        )
        self._came(publication, frame, end - begin, now, now_ms)

    def _came(self, publication: Publication, frame: Frame, size_bytes: int, now: float, now_ms: int) -> None:
        publication.next_frame_id = frame.frame_id + 1
        publication.last_frame_s, publication.last_frame_at = now, now_ms
        publication.meter.add(now)
        self.frames_in += 1
        self.bytes_in += size_bytes
        stream_id = publication.stream
        self._moved.add(stream_id)
        stream = self._streams[stream_id]
        if stream.status != "streaming":
            self._set_status(stream, "streaming", now_ms)
            self._touch(self._changed_holds, stream_id)
        self._deliver(stream, frame, now)
        if publication.bus is not None and publication.bus.take(now):
            self._to_bus(frame)

    def owner_changed(self, publication: Publication, owner: Owner) -> None:
        """The camera's user belongs to other organizations now. Viewers without a right must be gone by then."""
        if self._publications.get(publication.stream) is publication:
            publication.owner = self._streams[publication.stream].owner = owner
            self._touch(self._changed_holds, publication.stream)

    def release(self, publication: Publication, now_ms: int) -> None:
        """The camera is gone, unless another took the stream over meanwhile."""
        if self._publications.get(publication.stream) is not publication:
            return
        stream = self._streams[publication.stream]
        del self._publications[publication.stream]
        stream.publication = None
        self._changed_holds.discard(stream.id)
        self._moved.discard(stream.id)
        last = publication.next_frame_id - 1
        self._released.append(Release(stream=stream.id, term=publication.term, frame_id=last))
        owner = publication.owner
        self._gone.put(
            stream.id,
            Reservation(owner.user_id, tuple(sorted(owner.organizations)), publication.term, last, now_ms / 1000),
        )
        self._set_status(stream, "offline", now_ms)
        self._close_if_empty(stream)
        self._woken()

    def revoke(self, stream_id: str, term: int) -> None:
        """The router gave the stream to a camera of a higher term, elsewhere."""
        publication = self._publications.get(stream_id)
        if publication is None or publication.term > term:
            return
        stream = self._streams[stream_id]
        del self._publications[stream_id]
        stream.publication = None
        self._changed_holds.discard(stream_id)
        publication.camera.taken_over(stream_id)
        self._close_if_empty(stream)

    def publication(self, stream_id: str) -> Publication | None:
        """The stream's camera here."""
        return self._publications.get(stream_id)

    # ── viewers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def watch(
        self,
        subscription: Subscription,
        viewer: Viewer,
        word: StreamState,
        now: float,
        now_ms: int,
    ) -> bool:
        """A viewer subscribes: it is told the status, and gets the newest frame when it wants it.

        `word` is the `last_word` on the stream, by which the viewer's rights were judged in this same turn of the
        loop. True: the newest frame is not here, ask the router for it.
        """
        stream = self._open(subscription.stream)
        if stream.publication is None and not stream.viewers:
            stream.status, stream.owner, stream.term = word.status, word.owner, word.term
        stream.viewers[subscription] = viewer
        subscription.began_ms = now_ms
        if subscription.video:
            stream.video[subscription] = stream.asked[subscription] = viewer
        self._count_viewer(stream, subscription, 1)
        self._touch(self._changed_interest, stream.id)
        viewer.message(wire.status(stream.id, stream.status, now_ms))
        if not subscription.video or subscription not in stream.viewers:  # a full lane makes it leave at once
            return False
        if subscription.last_frame and stream.newest is not None:
            self._read.add(stream.id)
            viewer.frame(subscription, stream.newest, now)
        return subscription.last_frame and stream.newest is None and stream.publication is None

    def unwatch(self, subscription: Subscription) -> None:
        """A viewer leaves a stream."""
        stream = self._streams.get(subscription.stream)
        if stream is None or stream.viewers.pop(subscription, None) is None:
            return
        for table in (stream.video, stream.asked, stream.flowing_json, stream.flowing_binary):
            table.pop(subscription, None)
        self._count_viewer(stream, subscription, -1)
        self._touch(self._changed_interest, stream.id)
        self._close_if_empty(stream)

    def flow(self, subscription: Subscription, write: Write) -> None:
        """A viewer that takes every frame as it comes, for now: it is not asked any more, its frames are written.

        That is nearly every viewer nearly always, and costs it one call a frame. Its newest frame must be the stream's.
        """
        stream = self._streams.get(subscription.stream)
        if (
            stream is not None
            and subscription.last_frame_id == stream.last_frame_id
            and stream.asked.pop(subscription, None) is not None
        ):
            flowing = stream.flowing_json if subscription.format == "json" else stream.flowing_binary
            flowing[subscription] = write

    def stem(self, subscription: Subscription) -> None:
        """A viewer's socket is full: it is asked for each frame again."""
        stream = self._streams.get(subscription.stream)
        if stream is None:
            return
        flowing = stream.flowing_json if subscription.format == "json" else stream.flowing_binary
        if flowing.pop(subscription, None) is not None:
            subscription.last_frame_id = stream.last_frame_id
            stream.asked[subscription] = stream.video[subscription]

    def last_word(self, stream_id: str, found: StreamState) -> StreamState:
        """The newest of what the router just said, and of what this gateway knows or lately knew by itself.

        An answer of the router may have waited while its later word on the stream was already taken in.
        """
        stream = self._streams.get(stream_id)
        if stream is not None and (stream.publication is not None or stream.viewers):
            known = StreamState(stream.status, stream.owner, stream.term)
            return known if stream.publication is not None or known.term >= found.term else found
        lately = self._closed.get(stream_id) or self._closed_before.get(stream_id)
        return lately if lately is not None and lately.term > found.term else found

    def owner(self, stream_id: str) -> Owner | None:
        """Whose a stream is, as far as this gateway knows it for certain: it has the camera."""
        publication = self._publications.get(stream_id)
        return publication.owner if publication is not None else None

    def known_owner(self, stream_id: str) -> Owner | None:
        """Whose a stream is or was, as this gateway heard last: a router that has just begun may not know it yet."""
        stream = self._streams.get(stream_id)
        return stream.owner if stream is not None else None

    def last_frame_id(self, stream_id: str) -> int:
        """The highest frame id of a stream that was seen here, 0 when none was."""
        stream = self._streams.get(stream_id)
        return stream.last_frame_id if stream is not None else 0

    def newest(self, stream_id: str) -> Frame | None:
        """The newest frame of a stream that this gateway has and that is a picture."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.newest is None:
            return None
        self._read.add(stream_id)
        return stream.newest

    def viewers_of(self, stream_id: str) -> list[tuple[Subscription, Viewer]]:
        """Everybody here who is subscribed to a stream."""
        stream = self._streams.get(stream_id)
        return list(stream.viewers.items()) if stream is not None else []

    # ── from the router ──────────────────────────────────────────────────────────────────────────────────────────

    def remote_frame(self, frame: Frame, now: float) -> None:
        """A frame of a camera on another gateway."""
        stream = self._streams.get(frame.stream_id)
        if stream is None or stream.publication is not None:
            return
        if frame.term < stream.term:
            self.old_term_frames += 1
        elif frame.term > stream.term:
            stream.early = frame  # whose the stream now is comes on another socket, and must be known first
            self._let_go(self.newest_bytes.came(stream.id + _EARLY, frame.size_bytes))
        else:
            if frame.frame_id < stream.last_frame_id - MAX_FRAME_ID // 2:
                self._forget_ids(stream)
            self._deliver(stream, frame, now)

    def remote_status(self, told: BusStatus, now: float, now_ms: int) -> None:
        """The router's word on a stream, which is the last one.

        Viewers without a right to a new owner's stream must be gone by now.
        """
        owner = None if told.user is None else Owner(told.user, frozenset(told.organizations))
        stream = self._streams.get(told.stream)
        if stream is None:  # perhaps since a moment ago, when its viewers lost their right by this very word
            known = self._closed.get(told.stream) or self._closed_before.get(told.stream)
            if known is not None and told.term >= known.term:
                self._closed[told.stream] = StreamState(told.status, owner, told.term)
            return
        if stream.publication is not None:
            return
        stream.term = max(stream.term, told.term)
        if owner is not None:
            if stream.owner is None or stream.owner.user_id != owner.user_id:
                self._forget_newest(stream)
            stream.owner = owner
        self._set_status(stream, told.status, now_ms)
        early, stream.early = stream.early, None
        self.newest_bytes.drop(stream.id + _EARLY)
        if early is not None:
            self.remote_frame(early, now)

    def forward(self, told: Forward, now: float) -> None:
        """What the router wants of a stream here; who begins to want it gets the newest frame at once."""
        publication = self._publications.get(told.stream)
        if publication is None or publication.term != told.term:
            return
        publication.viewers_elsewhere, publication.bus_fps = told.viewers, told.max_fps
        self._touch(self._changed_demand, told.stream)
        if not told.wanted:
            publication.bus = None
        elif publication.bus is None:
            publication.bus = Sampler(told.max_fps)
            newest = self._streams[told.stream].newest
            if newest is not None and newest.term == publication.term and publication.bus.take(now):
                self._to_bus(newest)
        else:
            publication.bus.set_rate(told.max_fps)

    def alert(self, alert: Alert, told_again_at: int | None = None) -> None:
        """An alert for all who watch its stream here, and for its camera.

        One that is told again after a loss is for those who were here when it was first accepted, at this time in ms.
        """
        stream = self._streams.get(alert.stream_id)
        if stream is None:
            return
        seen = (alert.stream_id, alert.id)
        if seen in self._alerts_seen:  # told again by a bridge that did not hear that it was taken
            return
        self._alerts_seen[seen] = None
        if len(self._alerts_seen) > ALERTS_SEEN:
            self._alerts_seen.popitem(last=False)
        message = wire.text_message(alert.to_json())
        for subscription, viewer in list(stream.viewers.items()):
            if not subscription.alerts:
                continue
            if told_again_at is not None and (
                told_again_at < subscription.began_ms or alert.id in subscription.replayed
            ):
                continue
            self.alerts_out += 1
            if subscription.held is not None:
                if len(subscription.held) < ALERTS_HELD:
                    subscription.held[alert.id] = message
                else:  # none is skipped while the socket stands: it will not
                    subscription.held_too_many = True
            else:
                viewer.message(message)
        publication = stream.publication
        if publication is not None and publication.wants_alerts and publication.started_at <= (told_again_at or MAX_MS):
            self.alerts_out += 1
            publication.camera.message(message)

    # ── to the router ────────────────────────────────────────────────────────────────────────────────────────────

    def changes(self, now: float) -> Iterator[PublicationState | Interest | Release]:
        """What changed since this was last asked, as the states that now hold."""
        released, self._released = self._released, []
        holds, self._changed_holds = self._changed_holds, set()
        interest, self._changed_interest = self._changed_interest, set()
        yield from released
        for stream_id in holds:
            if stream_id in self._publications:
                yield self._hold(stream_id, now)
        for stream_id in interest:
            yield self._interest(stream_id)

    def snapshot(self, now: float) -> Iterator[PublicationState | Interest]:
        """Everything that this gateway holds and wants. What changes meanwhile is told by `changes`."""
        self._released.clear()
        publications = list(self._publications.values())
        for publication in publications:  # before anything is told: the answers to it come while this goes on
            publication.bus, publication.viewers_elsewhere = None, 0
            self._changed_demand.add(publication.stream)
        for publication in publications:
            if self._publications.get(publication.stream) is publication:
                yield self._hold(publication.stream, now)
        for stream in list(self._streams.values()):
            if stream.viewers:
                yield self._interest(stream.id)

    def gone(self, now_ms: int) -> Iterator[ReservationReport]:
        """Whose the streams are whose cameras went from here, for a router that has just begun."""
        rows = [
            (name, gone.user, gone.organizations, gone.term, gone.frame_id, max(0.0, now_ms / 1000 - gone.ended_at))
            for name, gone in self._gone.items()
        ]
        for at in range(0, len(rows), REPORT_CHUNK):
            yield ReservationReport(rows=rows[at : at + REPORT_CHUNK])

    def unreserved(self, told: ReservationEnded) -> None:
        """An operator released the id of a stream."""
        gone = self._gone.get(told.stream)
        if gone is not None and gone.term <= told.term:
            self._gone.take(told.stream)

    def missed(self, stream_id: str, skipped: dict[DropReason, int]) -> None:
        """Frames of a stream that a viewer here did not get."""
        for why, count in skipped.items():
            key = stream_id, str(why)
            if key in self._missed or len(self._missed) < MAX_MISSED:
                self._missed[key] = self._missed.get(key, 0) + count

    def reports(self, now: float, chunk: int) -> Iterator[StreamReport]:
        """Moving figures of the streams that had frames, or whose viewers missed some, since this was last asked."""
        missed = [(stream, why, count) for (stream, why), count in self._missed.items()]
        self._missed.clear()
        for at in range(0, len(missed), chunk):
            yield StreamReport(dropped=missed[at : at + chunk])
        moved, self._moved = list(self._moved), set()
        rows = [
            (p.stream, p.next_frame_id - 1, p.meter.total, round(p.meter.rate(now), 2), p.last_frame_at)
            for name in moved
            if (p := self._publications.get(name)) is not None
        ]
        for at in range(0, len(rows), chunk):
            yield StreamReport(rows=rows[at : at + chunk])

    def tick(self, now: float, now_ms: int) -> None:
        """Cameras that went quiet are `online`. Call it every second or so."""
        if now - self._turn_at >= CLOSED_KEPT_S:
            self._turn_at = now
            self._closed_before, self._closed = self._closed, OrderedDict()
            self._gone.prune(now_ms / 1000)
        for publication in self._publications.values():
            if now - publication.last_frame_s > IDLE_AFTER_S:
                stream = self._streams[publication.stream]
                if stream.status == "streaming":
                    self._moved.add(stream.id)
                    self._set_status(stream, "online", now_ms)
                    self._touch(self._changed_holds, stream.id)
        self._weigh_newest()

    def counts(self) -> dict[str, int]:
        """Figures: cameras and subscriptions here."""
        alerts = self._alert_viewers + sum(p.wants_alerts for p in self._publications.values())
        return {"cameras": len(self._publications), "video_viewers": self._video_viewers, "alert_viewers": alerts}

    def undecodable(self, frame: Frame, reason: str, now_ms: int) -> BadFrame | None:
        """A frame was wanted as a picture here and is none: its camera is told once, unless it said itself that its
        frames are opaque. Returned: what the router is to be told.
        """
        if frame.declared_opaque:
            return None
        return self._tell_bad(frame.stream_id, (frame.term, frame.frame_id, reason), now_ms)

    def picture_wanted(self, stream_id: str, now_ms: int) -> BadFrame | None:
        """The newest picture of a stream is asked for. When the last frame was none, its camera is told once."""
        stream = self._streams.get(stream_id)
        return None if stream is None or stream.last_bad is None else self._tell_bad(stream_id, stream.last_bad, now_ms)

    def _tell_bad(self, stream_id: str, bad: tuple[int, int, str], now_ms: int) -> BadFrame | None:
        term, frame_id, reason = bad
        publication = self._publications.get(stream_id)
        if publication is None:
            stream = self._streams.get(stream_id)
            if stream is not None and stream.told_bad_term == term:
                return None
            if stream is not None:
                stream.told_bad_term = term
            return BadFrame(stream=stream_id, frame_id=frame_id, reason=reason[:500])
        if not publication.told_undecodable:
            publication.told_undecodable = True
            publication.camera.message(
                wire.error(ErrorCode.INVALID_MESSAGE, f"frame {frame_id}: {reason}", now_ms, stream_id)
            )
        return None

    def tell_camera(self, told: ErrorForPublisher, now_ms: int) -> None:
        """Somebody elsewhere could not use a frame of a camera here."""
        publication = self._publications.get(told.stream)
        if publication is not None and not publication.told_undecodable:
            publication.told_undecodable = True
            publication.camera.message(wire.error(ErrorCode(told.code), told.message, now_ms, told.stream))

    def tell_demand(self, now: float, now_ms: int) -> None:
        """Tell cameras that asked for it what is worth sending, where that has changed. Call it every second or so."""
        changed, self._changed_demand = self._changed_demand, set()
        for stream_id in changed:
            publication = self._publications.get(stream_id)
            if publication is None or publication.demand is None:
                continue
            now_is = self._wanted(publication)
            if publication.demand.tell(now_is, now):
                publication.camera.message(wire.demand(stream_id, now_is.viewers, now_is.fps, now_ms))
            elif not publication.demand.settled(now_is):
                self._changed_demand.add(stream_id)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _wanted(self, publication: Publication) -> Wanted:
        stream = self._streams[publication.stream]
        rates = list(stream.rates)
        if publication.bus is not None:
            rates.append(publication.bus_fps)
        return wanted(len(stream.video) + publication.viewers_elsewhere, rates, self._unlimited_fps)

    def _deliver(self, stream: Stream, frame: Frame, now: float) -> None:
        if frame.frame_id - stream.last_frame_id != 1 and not frame.is_key:
            for subscription in (*stream.flowing_json, *stream.flowing_binary):
                self.stem(subscription)  # its outbound queue drops delta frames up to the next key frame
        asked = list(stream.asked.items())  # before the others are written to: who is full then comes among them
        if frame.frame_id > stream.last_frame_id:
            if frame.is_picture and frame.is_key:
                stream.newest, stream.last_bad = frame, None
            elif not frame.declared_opaque and not frame.is_picture:
                stream.last_bad = frame.term, frame.frame_id, frame.fault
            stream.last_frame_id = frame.frame_id
            if stream.flowing_json:
                self._pour(frame.json_wire or wire.frame_message(frame, "json"), stream.flowing_json)
            if stream.flowing_binary:
                if frame.has_binary:
                    self._pour(frame.binary_wire or wire.frame_message(frame, "binary"), stream.flowing_binary)
                else:  # it goes to nobody: each viewer counts that for itself
                    asked += [(subscription, stream.video[subscription]) for subscription in stream.flowing_binary]
        else:
            for subscription in (*stream.flowing_json, *stream.flowing_binary):
                subscription.skip(DropReason.OLD)
        for subscription, viewer in asked:
            viewer.frame(subscription, frame, now)
        # Now all is made of it that its viewers here need.
        if stream.newest is frame and (gone := self.newest_bytes.came(stream.id, frame.size_bytes)):
            self._let_go(gone)

    def _let_go(self, streams: Iterable[str]) -> None:
        """The newest frames of these streams, or early ones, give way to others."""
        for name in streams:
            if name.endswith(_EARLY):
                if (stream := self._streams.get(name.removesuffix(_EARLY))) is not None:
                    stream.early = None
            elif (stream := self._streams.get(name)) is not None:
                stream.newest = None

    def _forget_newest(self, stream: Stream) -> None:
        stream.newest = stream.last_bad = None
        self.newest_bytes.drop(stream.id)

    def _weigh_newest(self) -> None:
        """Bring the sizes of newest frames up to date that were handed out. A quiet stream's is let go of copies."""
        read, self._read = self._read, set()
        for name in read:
            stream = self._streams.get(name)
            if stream is not None and stream.newest is not None:
                if stream.status != "streaming":
                    stream.newest.compact()
                self._let_go(self.newest_bytes.grew(name, stream.newest.size_bytes))

    def _pour(self, encoded: bytes, flowing: dict[Subscription, Write]) -> None:
        writes = list(flowing.values())  # who is full now leaves meanwhile
        self.frames_out += len(writes)
        self.frame_bytes_out += len(writes) * len(encoded)
        self.writing = encoded
        for write in writes:
            write(encoded)
        self.writing = None

    def _set_status(self, stream: Stream, status: StreamStatus, now_ms: int) -> None:
        if stream.status == status:
            return
        stream.status = status
        if stream.newest is not None:
            self._read.add(stream.id)
        if status == "offline":
            self._forget_newest(stream)  # whose the stream is next is open: nobody else may get this frame
        message = wire.status(stream.id, status, now_ms)
        for viewer in list(stream.viewers.values()):
            viewer.message(message)
        if stream.publication is not None and stream.publication.wants_status:
            stream.publication.camera.message(message)

    def _hold(self, stream_id: str, now: float) -> PublicationState:
        p = self._publications[stream_id]
        return PublicationState(
            stream=stream_id,
            user=p.owner.user_id,
            organizations=tuple(sorted(p.owner.organizations)),
            term=p.term,
            status=self._streams[stream_id].status,
            producing=p.producing,
            wants_alerts=p.wants_alerts,
            frame_id=p.next_frame_id - 1,
            total_frames=p.meter.total,
            fps=round(p.meter.rate(now), 2),
            started_at=p.started_at,
            last_frame_at=p.last_frame_at,
        )

    def _interest(self, stream_id: str) -> Interest:
        stream = self._streams.get(stream_id)
        if stream is None:
            return Interest(stream=stream_id, viewers=0, alert_viewers=0)
        return Interest(
            stream=stream_id,
            viewers=len(stream.video),
            alert_viewers=stream.alert_viewers,
            max_fps=_top_rate(stream.rates),
            floor=stream.last_frame_id,
            user=stream.owner.user_id if stream.owner is not None else None,
            organizations=tuple(sorted(stream.owner.organizations)) if stream.owner is not None else (),
        )

    def _count_viewer(self, stream: Stream, subscription: Subscription, change: int) -> None:
        """A viewer comes (1) or goes (-1). Counted here, so that nobody has to go through all of them."""
        if subscription.alerts:
            stream.alert_viewers += change
            self._alert_viewers += change
        if subscription.video:
            self._video_viewers += change
            stream.rates[subscription.max_fps] += change
            if not stream.rates[subscription.max_fps]:
                del stream.rates[subscription.max_fps]

    def _begin_again(self, publication: Publication) -> None:
        publication.next_frame_id = 1
        self._forget_ids(self._streams[publication.stream])

    def _forget_ids(self, stream: Stream) -> None:
        stream.last_frame_id = 0
        self._forget_newest(stream)
        for subscription in stream.viewers:
            subscription.begin_again()

    def _open(self, stream_id: str) -> Stream:
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._streams[stream_id] = Stream(stream_id)
        return stream

    def _close_if_empty(self, stream: Stream) -> None:
        if stream.publication is None and not stream.viewers and self._streams.pop(stream.id, None) is not None:
            self._forget_newest(stream)
            self.newest_bytes.drop(stream.id + _EARLY)
            self._closed[stream.id] = StreamState(stream.status, stream.owner, stream.term)
            if len(self._closed) > CLOSED_KEPT:
                self._closed.popitem(last=False)

    def _touch(self, changed: set[str], stream_id: str) -> None:
        changed.add(stream_id)
        if changed is self._changed_interest:
            self._changed_demand.add(stream_id)
        self._woken()


def _top_rate(rates: Counter[float | None]) -> float | None:
    return None if None in rates else max((r for r in rates if r is not None), default=None)
