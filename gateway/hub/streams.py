"""The streams that are published or subscribed to on this gateway: their records and the table of them. Pure."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from watchout.common.bus.messages import FrameReceiver, StreamStatus
from watchout.common.media.frames import Frame, json_head
from watchout.common.media.rate import RateMeter
from watchout.gateway.hub.bus_sampler import BusSampler
from watchout.gateway.hub.demand import Demand
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.latency.camera_clock import CameraClock
from watchout.gateway.model import Owner, StreamState

#: The state of a closed stream is kept for one to two times this many seconds.
CLOSED_KEPT_S: Final = 10.0
#: Most closed streams whose state is kept; past it the oldest is forgotten.
CLOSED_KEPT: Final = 20_000
#: Most frames of a stream whose `requestId` is remembered.
MAX_REQUEST_IDS: Final = 128

#: Sends a frame to some of its publication's direct receivers.
ToMembers = Callable[[Frame, "list[DirectReceiver]"], None]
#: Writes encoded bytes to a socket that is not full.
Write = Callable[[bytes], object]


class Viewer(Protocol):
    """What the hub calls to deliver to one viewer; implemented by `WebSocket` and, for `GET …/mjpeg`, by `Mjpeg`.

    No method blocks or raises: what cannot be written now is queued by the rules of `OutboundQueue`, and a viewer whose
    queue is full is closed.
    """

    def send_frame(self, subscription: Subscription, frame: Frame, now: float) -> None:
        """Write, queue or drop a frame of the subscribed stream. `now` in seconds."""

    def send_message(self, message: bytes) -> None:
        """Write or queue an encoded status message. Messages keep their order and are never dropped."""

    def send_alert(self, subscription: Subscription, message: bytes) -> None:
        """Write or queue an encoded alert of the subscribed stream, in order with the messages of `send_message`."""

    def on_permission_lost(self, stream: str) -> None:
        """Handle that the viewer may no longer subscribe to `stream`: end the subscription."""


class PublisherSocket(Protocol):
    """What the hub calls to reach the client that publishes a stream; implemented by `WebSocket`.

    No method blocks or raises: what cannot be written now is queued, and a client whose queue is full is closed.
    """

    def send_message(self, message: bytes) -> None:
        """Write or queue an encoded message. Messages keep their order and are never dropped."""

    def send_ping(self, data: bytes) -> None:
        """Send a WebSocket ping with these bytes, unless the socket is full; the pong has them again."""

    def on_taken_over(self, stream: str) -> None:
        """Handle that another socket has registered `stream`: it is no longer published here."""


@dataclass(slots=True, eq=False)
class DirectReceiver:
    """A member that gets the frames of one publication from this gateway, without the router, as `Forward` says.

    `at` is its address, `max_fps` the most frames per second that it wants, None: every frame. The next frame at or
    after `stamp_at`, in seconds of the loop's clock, goes to it with stamps for the latency ledger.
    """

    at: str
    max_fps: float | None
    sampler: BusSampler = field(init=False)
    stamp_at: float = 0.0

    def __post_init__(self) -> None:
        self.sampler = BusSampler(self.max_fps)

    def set_rate(self, max_fps: float | None) -> None:
        """Change the rate; frames that were sent before still count."""
        self.max_fps = max_fps
        self.sampler.set_rate(max_fps)


@dataclass(slots=True, eq=False)
class Publication:
    """A stream that a publisher registered on this gateway. Created by `Hub.publish`, ended by `release` or `revoke`.

    Attributes:
        term: Number the router gave to this claim; a later claim of the stream has a higher one.
        next_frame_id: Id of the next frame, from 1.
        producing: Whether the publisher said that it sends video.
        started_at: Time of register, in ms since the epoch.
        registered_s: Time of register, in seconds of the loop's clock: older alerts that are repeated are not for it.
        last_frame_s: Time of the last frame, or of register, in seconds of the loop's clock.
        last_frame_at: Time of the last frame, in ms since the epoch; None: none yet.
        receivers: The members that get frames directly.
        bus_sampler: Selects the frames that go to the router; None: the router requests none.
        bus_fps: Highest rate that the router requests; None: every frame.
        viewers_elsewhere: Subscriptions with video on other gateways and bridges.
        demand: What the publisher was last sent as `demand`; None: it did not request it.
        info: What the camera says of itself, as JSON; "": nothing.
        undecodable_reported: The publisher has been sent the error about a frame that is no picture.
        sample_at: When the next frame is sampled for the latency ledger, in seconds of the loop's clock; infinite:
            never.
        camera_clock: What is known of the camera's clock.
        began_at: When the first bytes of the present frame came, in seconds of the loop's clock.
        counts_other: `NewestFrames` counts a frame that waits for receivers on the bus and is no picture.
        ended: It is over: another publisher has the stream, or none.
        alerts_told: Alerts that were sent to the publisher.
        peak_fps: Highest rate over some seconds so far.
        request_ids: The `requestId` of the newest frames that had one, by frame id.
        frames_noted, noted_at: Frames in total when that was looked at last, and when, in seconds of the loop's clock.
    """

    stream: str
    owner: Owner
    term: int
    next_frame_id: int
    publisher: PublisherSocket
    producing: bool
    wants_alerts: bool
    started_at: int
    registered_s: float
    last_frame_s: float
    last_frame_at: int | None = None
    meter: RateMeter = field(default_factory=RateMeter)
    receivers: list[DirectReceiver] = field(default_factory=list)
    bus_sampler: BusSampler | None = None
    bus_fps: float | None = None
    viewers_elsewhere: int = 0
    demand: Demand | None = None
    wants_status: bool = False
    info: str = ""
    undecodable_reported: bool = False
    sample_at: float = math.inf
    camera_clock: CameraClock = field(default_factory=CameraClock)
    began_at: float = math.inf
    counts_other: bool = False
    ended: bool = False
    alerts_told: int = 0
    peak_fps: float = 0.0
    frames_noted: int = 0
    noted_at: float = 0.0
    request_ids: dict[int, str] = field(default_factory=dict)
    #: The stream's id in ASCII, and the beginning of the JSON message of each of its frames.
    name: bytes = field(init=False)
    json_head: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.noted_at = self.last_frame_s
        self.name, self.json_head = self.stream.encode("ascii"), json_head(self.stream)

    def remember_request(self, request_id: str) -> None:
        """Remember the `requestId` of the next frame, for an error about it that may come later."""
        while len(self.request_ids) >= MAX_REQUEST_IDS:
            del self.request_ids[next(iter(self.request_ids))]
        self.request_ids[self.next_frame_id] = request_id

    def samplers(self) -> Iterator[BusSampler]:
        """Return what selects the frames of each receiver on the bus."""
        for receiver in self.receivers:
            yield receiver.sampler
        if self.bus_sampler is not None:
            yield self.bus_sampler

    def set_receivers(self, named: Iterable[FrameReceiver], *, keep: bool) -> list[DirectReceiver]:
        """Replace the members that get frames directly; those that had them before keep their sampler.

        Args:
            named: The receivers, as the router names them.
            keep: Whether those that are not named stay.

        Returns:
            Those that are new.
        """
        known = {receiver.at: receiver for receiver in self.receivers}
        rates = {receiver.at: receiver.max_fps for receiver in named}
        for at in known.keys() & rates.keys():
            known[at].set_rate(rates[at])
        added = [DirectReceiver(at, max_fps) for at, max_fps in rates.items() if at not in known]
        self.receivers = [receiver for receiver in self.receivers if keep or receiver.at in rates] + added
        return added


@dataclass(slots=True, eq=False)
class LocalStream:
    """A stream that has a publisher or viewers on this gateway. Created and removed by `StreamTable`.

    Every subscription is in `viewers`; one with video is in `video` too, and in exactly one of `queued`, `direct_json`
    and `direct_binary`. One with alerts is in exactly one of `alerts_queued` and `alerts_direct`.

    Attributes:
        term: The newest term known.
        owner: The newest owner known; None: none yet.
        info: What the camera says of itself, as JSON; "": nothing, or there is no camera.
        last_frame_id: The highest frame id delivered here.
        lower_id: The highest id of the frames that came since then and were not newer; 0: none.
        lower_since: When the first of those came, in seconds of the loop's clock.
        arrived: Frames that were offered to the viewers here.
        delivered_at: When that was, in seconds of the loop's clock.
        newest: The newest frame that is a picture.
        last_undecodable: Term, frame id and fault of the last frame, when that is no picture; else None.
        early_frame: The newest frame of a later term than `term`, held until the router names that term's owner.
        undecodable_reported_term: The term for which the router was sent `BadFrame`.
        alert_viewers: Subscriptions with alerts.
        rates: How many subscriptions with video have each `max_fps`.
        queued: Subscriptions that get each frame through their outbound queue.
        direct_json: Subscriptions that take every frame as JSON at once, with the function that writes it.
        direct_binary: The same for the binary format.
        alerts_queued: Subscriptions whose viewers are asked to send each alert.
        alerts_direct: Subscriptions whose sockets take each alert at once, with the function that writes it.
        alerts_written: Alerts that were written to all of `alerts_direct`.
        alert_written_at: When that was, in seconds of the loop's clock.
    """

    id: str
    status: StreamStatus = "offline"
    term: int = 0
    owner: Owner | None = None
    info: str = ""
    last_frame_id: int = 0
    lower_id: int = 0
    lower_since: float = 0.0
    arrived: int = 0
    delivered_at: float = float("-inf")
    newest: Frame | None = None
    last_undecodable: tuple[int, int, str] | None = None
    early_frame: Frame | None = None
    undecodable_reported_term: int = -1
    publication: Publication | None = None
    viewers: dict[Subscription, Viewer] = field(default_factory=dict)
    alert_viewers: int = 0
    rates: Counter[float | None] = field(default_factory=Counter)
    video: dict[Subscription, Viewer] = field(default_factory=dict)
    queued: dict[Subscription, Viewer] = field(default_factory=dict)
    direct_json: dict[Subscription, Write] = field(default_factory=dict)
    direct_binary: dict[Subscription, Write] = field(default_factory=dict)
    alerts_queued: dict[Subscription, Viewer] = field(default_factory=dict)
    alerts_direct: dict[Subscription, Write] = field(default_factory=dict)
    alerts_written: int = 0
    alert_written_at: float = float("-inf")

    @property
    def wants_alerts(self) -> bool:
        """Whether a viewer here, or the publisher, wants the alerts of the stream."""
        return bool(self.alert_viewers) or (self.publication is not None and self.publication.wants_alerts)

    @property
    def state(self) -> StreamState:
        """Status, owner and term as this gateway knows them."""
        return StreamState(self.status, self.owner, self.term, self.info)


class StreamTable:
    """All streams and publications of one gateway by stream id, and the last state of recently closed streams.

    Shared by `Hub`, `Delivery`, `RouterReports` and `PublisherNotices`; only `Hub` adds and removes entries.
    """

    __slots__ = ("_closed", "_closed_before", "_rotated_at", "publications", "streams")

    def __init__(self) -> None:
        self.streams: dict[str, LocalStream] = {}
        self.publications: dict[str, Publication] = {}
        self._closed: OrderedDict[str, StreamState] = OrderedDict()
        self._closed_before: OrderedDict[str, StreamState] = OrderedDict()
        self._rotated_at = float("-inf")

    def open(self, stream_id: str) -> LocalStream:
        """Return the record of a stream, created when there is none."""
        stream = self.streams.get(stream_id)
        if stream is None:
            stream = self.streams[stream_id] = LocalStream(stream_id)
        return stream

    def close_if_unused(self, stream: LocalStream) -> bool:
        """Remove a stream that has neither publisher nor viewers; return whether it was removed. Its state is kept."""
        if stream.publication is not None or stream.viewers or self.streams.pop(stream.id, None) is None:
            return False
        self._closed[stream.id] = stream.state
        if len(self._closed) > CLOSED_KEPT:
            self._closed.popitem(last=False)
        return True

    def closed_state(self, stream_id: str) -> StreamState | None:
        """Return the last known state of a recently closed stream, else None."""
        return self._closed.get(stream_id) or self._closed_before.get(stream_id)

    def update_closed(self, stream_id: str, state: StreamState) -> None:
        """Replace the kept state of a recently closed stream. Ignored if none is kept or the kept term is higher."""
        known = self.closed_state(stream_id)
        if known is not None and state.term >= known.term:
            self._closed[stream_id] = state

    def expire_closed(self, now: float) -> bool:
        """Forget closed streams after their time; return whether `CLOSED_KEPT_S` has passed since the last True."""
        if now - self._rotated_at < CLOSED_KEPT_S:
            return False
        self._rotated_at = now
        self._closed_before, self._closed = self._closed, OrderedDict()
        return True
