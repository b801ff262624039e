"""Who publishes and who subscribes on one gateway: `Hub`, the entry to the streams of this process. Pure.

`now` in seconds of the loop's clock, `now_ms` in ms since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from watchout.common import metric_names
from watchout.common.bus.messages import Forward, StatusUpdate, StreamStatus
from watchout.common.media.frames import Frame
from watchout.common.metric_names import GaugeName
from watchout.gateway import wire
from watchout.gateway.hub.bus_sampler import BusSampler
from watchout.gateway.hub.delivery import MAX_FRAME_ID, Delivery, LatencyHooks
from watchout.gateway.hub.demand import Demand
from watchout.gateway.hub.notices import PublisherNotices
from watchout.gateway.hub.reports import RESERVED_PER_USER, RESERVED_S, RouterReports
from watchout.gateway.hub.streams import LocalStream, Publication, PublisherSocket, StreamTable, ToMembers, Viewer
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.model import Owner, StreamState

#: A publisher that sent no frame for this many seconds is `online` instead of `streaming`.
IDLE_AFTER_S: Final = 5.0
#: Most bytes of the newest frames of all streams together.
NEWEST_BYTES: Final = 128 << 20


class Hub:
    """All streams of one gateway: registers publishers and subscriptions, and applies the router's messages to them.

    Created by `gateway.app`. Client handlers, HTTP requests and `RouterClient` call it from the event loop's thread.

    Args:
        wake: Called when publications or interest changed: take `reports.changes` at the end of the loop's turn.
        to_bus: Sends a frame to the router, which requested frames of its stream.
        to_members: Sends a frame to other members.
        unlimited_fps: Rate that publishers are sent as the demand of viewers that want every frame.
        reserved_s: How long the id of a stream that ended here stays reserved for its user, in seconds.
        reserved_per_user: Most such reservations of one user.
        newest_bytes: Most bytes of the newest frames of all streams together.
        latency: Feeds the latency ledger; None: nothing is measured.

    Attributes:
        delivery: Fan-out of frames, alerts and status.
        reports: What the router is sent.
        notices: Demand and errors that publishers are sent.
    """

    def __init__(
        self,
        *,
        wake: Callable[[], None],
        to_bus: Callable[[Frame], None],
        to_members: ToMembers,
        unlimited_fps: float = 30.0,
        reserved_s: float = RESERVED_S,
        reserved_per_user: int = RESERVED_PER_USER,
        newest_bytes: int = NEWEST_BYTES,
        latency: LatencyHooks | None = None,
    ) -> None:
        self._latency = latency
        self._table = StreamTable()
        self._streams = self._table.streams
        self._publications = self._table.publications
        self._wake = wake
        self._to_bus, self._to_members = to_bus, to_members
        self.notices = PublisherNotices(self._table, unlimited_fps=unlimited_fps)
        self.reports = RouterReports(
            self._table, self.notices, wake=wake, reserved_s=reserved_s, reserved_per_user=reserved_per_user
        )
        self.delivery = Delivery(
            self._table, self.reports, to_bus=to_bus, to_members=to_members, newest_bytes=newest_bytes,
            latency=latency,
        )  # fmt: skip
        self._video_viewers = self._alert_viewers = 0

    # ── publishers ───────────────────────────────────────────────────────────────────────────────────────────────

    def publish(
        self,
        stream_id: str,
        owner: Owner,
        publisher: PublisherSocket,
        *,
        term: int,
        first_frame_id: int,
        producing: bool,
        wants_alerts: bool,
        wants_demand: bool = False,
        wants_status: bool = False,
        info: str = "",
        now: float,
        now_ms: int,
    ) -> Publication:
        """Register a publisher whose claim of the stream was granted with `term`.

        An older publisher of the stream on this gateway gets `on_taken_over`. Frame ids continue after
        `first_frame_id` - 1 and after the highest one known here.
        """
        stream = self._table.open(stream_id)
        self.reports.publication_began(stream_id)
        old = stream.publication
        publication = Publication(
            stream_id, owner, term, max(first_frame_id, stream.last_frame_id + 1), publisher, producing, wants_alerts,
            now_ms, now, now, demand=Demand() if wants_demand else None, wants_status=wants_status, info=info,
        )  # fmt: skip
        if self._latency is not None:
            publication.sample_at = now
        self.delivery.drop_over_rate(stream)
        if stream.owner is None or stream.owner.user_id != owner.user_id:
            self.delivery.forget_newest(stream)
        stream.publication = self._publications[stream_id] = publication
        stream.term, stream.owner = term, owner
        if old is not None:
            old.ended = True
            old.publisher.on_taken_over(stream_id)
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
        info: str = "",
        now: float,
        now_ms: int,
    ) -> None:
        """Change what a publisher sends and wants, after it registered its stream again. Term and frame ids go on.

        Ignored when the publication has ended.
        """
        if self._publications.get(publication.stream) is not publication:
            return
        publication.producing, publication.wants_alerts = producing, wants_alerts
        publication.demand, publication.wants_status = Demand() if wants_demand else None, wants_status
        publication.info = info
        publication.last_frame_s, publication.undecodable_reported = now, False
        self._registered(self._streams[publication.stream], publication, now_ms)

    def _registered(self, stream: LocalStream, publication: Publication, now_ms: int) -> None:
        status: StreamStatus = "streaming" if publication.producing else "online"
        if stream.status == status and publication.wants_status:  # the viewers have it already
            publication.publisher.send_message(wire.status(stream.id, status, now_ms))
        self.delivery.set_status(stream, status, now_ms, publication.info)
        self.reports.publication_changed(stream.id)
        self.notices.mark_demand(stream.id)

    def change_owner(self, publication: Publication, owner: Owner) -> None:
        """Replace the owner of a publication, whose user joined or left organizations.

        The caller first ends the subscriptions that the new owner does not permit.
        """
        if self._publications.get(publication.stream) is publication:
            publication.owner = self._streams[publication.stream].owner = owner
            self.reports.publication_changed(publication.stream)

    def release(self, publication: Publication, now_ms: int) -> None:
        """End a publication because its publisher left. Ignored when another publisher has taken the stream over."""
        if self._publications.get(publication.stream) is not publication:
            return
        stream = self._streams[publication.stream]
        del self._publications[publication.stream]
        stream.publication = None
        self._end(publication)
        self.reports.publication_released(publication, now_ms)
        self.delivery.set_status(stream, "offline", now_ms)
        self._close_if_unused(stream)
        self._wake()

    def revoke(self, stream_id: str, term: int, alerts_after: tuple[int, int] | None = None) -> None:
        """End the publication of a stream that the router granted to a publisher elsewhere, with the higher `term`.

        `alerts_after` is the epoch of the router, and the number of the last alert that came here on account of the
        publication: viewers here get the later ones.
        """
        publication = self._publications.get(stream_id)
        if publication is None or publication.term > term:
            return
        stream = self._streams[stream_id]
        del self._publications[stream_id]
        stream.publication = None
        self.delivery.drop_over_rate(stream)
        self._end(publication)
        self.reports.publication_ended(publication)
        if stream.alert_viewers and alerts_after is not None:
            self.reports.interest_changed(stream_id, alerts_after)
        publication.publisher.on_taken_over(stream_id)
        self._close_if_unused(stream)

    def _end(self, publication: Publication) -> None:
        publication.ended = True
        self.delivery.forget_waiting(publication)
        if self._latency is not None:
            self._latency.forget_clock(publication.stream)

    def publications(self) -> list[Publication]:
        """Return all publications of this gateway."""
        return list(self._publications.values())

    def publication(self, stream_id: str) -> Publication | None:
        """Return the publication of a stream on this gateway, else None."""
        return self._publications.get(stream_id)

    # ── viewers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def subscribe(
        self,
        subscription: Subscription,
        viewer: Viewer,
        state: StreamState,
        now: float,
        now_ms: int,
        *,
        held: bool = False,
    ) -> bool:
        """Add a subscription; send the viewer the status, and the newest frame if it wants it.

        Args:
            subscription: What the viewer wants.
            viewer: Receives frames and messages.
            state: The `newest_state` of the stream, by which the viewer's permission was judged in this same turn of
                the loop. A viewer with alerts gets those that the router accepted after `state.alerts_after`.
            now: Seconds of the loop's clock.
            now_ms: Milliseconds since the epoch.
            held: Send neither status nor frames before `begin_delivery`. Alerts are kept in
                `Subscription.held_alerts`, and the router is told of the interest.

        Returns:
            True when the newest frame is wanted and not here: the caller requests it from the router.
        """
        stream = self._table.open(subscription.stream)
        if stream.publication is None and not stream.viewers:
            stream.status, stream.owner, stream.term, stream.info = state.status, state.owner, state.term, state.info
        stream.viewers[subscription] = viewer
        if subscription.alerts:
            stream.alerts_queued[subscription] = viewer
        subscription.subscribed_s, subscription.subscribed_ms = now, now_ms
        self._count_viewer(stream, subscription, 1)
        self.reports.interest_changed(stream.id, state.alerts_after if subscription.alerts else None)
        return False if held else self.begin_delivery(subscription, viewer, now, now_ms)

    def begin_delivery(self, subscription: Subscription, viewer: Viewer, now: float, now_ms: int) -> bool:
        """Send the viewer status and frames of a subscription from now on; the arguments and result of `subscribe`."""
        stream = self._streams.get(subscription.stream)
        if stream is None or subscription not in stream.viewers:
            return False
        stream.viewers[subscription] = viewer
        if subscription.alerts:
            stream.alerts_queued[subscription] = viewer
        if subscription.video:
            stream.video[subscription] = stream.queued[subscription] = viewer
            subscription.arrived_before = stream.arrived
            self.reports.interest_changed(stream.id)  # of a held one the router knows the alerts alone
        viewer.send_message(wire.status(stream.id, stream.status, now_ms, stream.info or None))
        if not subscription.video or subscription not in stream.viewers:  # the message may have closed a full viewer
            return False
        if subscription.last_frame and (newest := self.delivery.newest_frame(stream.id)) is not None:
            newest.stamps = None  # its age is no latency
            subscription.arrived_before = stream.arrived - 1
            viewer.send_frame(subscription, newest, now)
        return subscription.last_frame and stream.newest is None and stream.publication is None

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a subscription, if it is here."""
        stream = self._streams.get(subscription.stream)
        if stream is None or stream.viewers.pop(subscription, None) is None:
            return
        subscription.written = subscription.frames_written(stream.arrived)
        subscription.end_direct_alerts(stream.alerts_written)
        for table in (
            stream.video, stream.queued, stream.direct_json, stream.direct_binary,
            stream.alerts_queued, stream.alerts_direct,
        ):  # fmt: skip
            table.pop(subscription, None)
        self._count_viewer(stream, subscription, -1)
        self.reports.interest_changed(stream.id)
        self._close_if_unused(stream)

    @property
    def streams(self) -> Collection[LocalStream]:
        """All streams that have a publisher or viewers here."""
        return self._streams.values()

    def stream(self, stream_id: str) -> LocalStream | None:
        """Return a stream that has a publisher or viewers here, else None."""
        return self._streams.get(stream_id)

    def viewers_of(self, stream_id: str) -> list[tuple[Subscription, Viewer]]:
        """Return all subscriptions to a stream on this gateway."""
        stream = self._streams.get(stream_id)
        return list(stream.viewers.items()) if stream is not None else []

    # ── what is known of a stream ────────────────────────────────────────────────────────────────────────────────

    def newest_state(self, stream_id: str, found: StreamState) -> StreamState:
        """Return the newer of `found`, which the router just replied, and what this gateway knows or recently knew.

        A reply of the router may be older than a `Status` message that was handled before it.
        """
        stream = self._streams.get(stream_id)
        if stream is not None and (stream.publication is not None or stream.viewers):
            known = stream.state
            return known if stream.publication is not None or known.term >= found.term else found
        closed = self._table.closed_state(stream_id)
        return closed if closed is not None and closed.term > found.term else found

    def local_owner(self, stream_id: str) -> Owner | None:
        """Return the owner of a stream that is published here, else None. This is certain, without the router."""
        publication = self._publications.get(stream_id)
        return publication.owner if publication is not None else None

    def last_known_owner(self, stream_id: str) -> Owner | None:
        """Return the owner of a stream as this gateway last knew it, also while a restarted router does not know it."""
        stream = self._streams.get(stream_id)
        return stream.owner if stream is not None else None

    def last_frame_id(self, stream_id: str) -> int:
        """Return the highest frame id of a stream delivered here, 0 when there was none."""
        stream = self._streams.get(stream_id)
        return stream.last_frame_id if stream is not None else 0

    def counts(self) -> dict[GaugeName, int]:
        """Return the gauges of this gateway: publications, and subscriptions with video and with alerts."""
        alerts = self._alert_viewers + sum(p.wants_alerts for p in self._publications.values())
        return {
            metric_names.PUBLISHERS: len(self._publications),
            metric_names.VIDEO_VIEWERS: self._video_viewers,
            metric_names.ALERT_VIEWERS: alerts,
        }

    # ── messages of the router ───────────────────────────────────────────────────────────────────────────────────

    def on_status(self, message: StatusUpdate, now: float, now_ms: int) -> None:
        """Apply the router's status, owner and term of a stream, which hold from now on.

        The caller first ends the subscriptions that a new owner does not permit.
        """
        owner = None if message.user is None else Owner(message.user, frozenset(message.organizations))
        stream = self._streams.get(message.stream)
        if stream is None:  # closed, perhaps because its viewers just lost their permission by this message
            state = StreamState(message.status, owner, message.term, message.info)
            self._table.update_closed(message.stream, state)
            return
        if stream.publication is not None:
            return
        # Of a stream with a publisher the router knows the term. Of one without, it may have missed the last.
        if message.term > stream.term or (message.term < stream.term and message.status != "offline"):
            stream.term = message.term
            self.delivery.drop_over_rate(stream)
        if owner is not None:
            if stream.owner is None or stream.owner.user_id != owner.user_id:
                self.delivery.forget_newest(stream)
            stream.owner = owner
        self.delivery.set_status(stream, message.status, now_ms, message.info)
        self.delivery.deliver_early_frame(stream, now)

    def on_forward(self, message: Forward, now: float) -> None:
        """Apply who gets the frames of a stream, and above which id they go on.

        Each receiver gets the newest one at the beginning of its request, unless viewers have had its id.
        """
        publication = self._publications.get(message.stream)
        if publication is None or publication.term != message.term:
            return
        known = publication.viewers_elsewhere if message.partial else 0
        publication.viewers_elsewhere, publication.bus_fps = max(message.viewers, known), message.max_fps
        self.notices.mark_demand(message.stream)
        self._wake()
        newest = self._streams[message.stream].newest
        if newest is not None and (newest.term != publication.term or newest.frame_id <= message.floor):
            newest = None
        if publication.next_frame_id <= message.floor < MAX_FRAME_ID:
            publication.next_frame_id = message.floor + 1
        added = publication.set_receivers(message.receivers, keep=message.partial)
        if newest is not None:
            newest.stamps = None  # its age is no latency
        if newest is not None and (to := [receiver for receiver in added if receiver.sampler.offer(newest, now)]):
            self._to_members(newest, to)
        if not message.wanted:
            publication.bus_sampler = None
        elif publication.bus_sampler is None:
            publication.bus_sampler = BusSampler(message.max_fps)
            if newest is not None and publication.bus_sampler.offer(newest, now):
                self._to_bus(newest)
        else:
            publication.bus_sampler.set_rate(message.max_fps)
        self.delivery.release_to_bus(publication, now)  # rates may have risen

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def tick(self, now: float, now_ms: int) -> None:
        """Set idle publishers to `online` and forget what has expired. Called about once a second."""
        if self._table.expire_closed(now):
            self.reports.expire(now_ms)
        for publication in self._publications.values():
            if now - publication.last_frame_s > IDLE_AFTER_S:
                stream = self._streams[publication.stream]
                if stream.status == "streaming":
                    self.reports.active.add(stream.id)
                    self.delivery.set_status(stream, "online", now_ms)
                    self.reports.publication_changed(stream.id)
        self.delivery.measure_newest()

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _count_viewer(self, stream: LocalStream, subscription: Subscription, change: int) -> None:
        """Count a subscription that begins (1) or ends (-1), so that no reader iterates over all of them."""
        if subscription.alerts:
            stream.alert_viewers += change
            self._alert_viewers += change
        if subscription.video:
            self._video_viewers += change
            stream.rates[subscription.max_fps] += change
            if not stream.rates[subscription.max_fps]:
                del stream.rates[subscription.max_fps]

    def _close_if_unused(self, stream: LocalStream) -> None:
        if self._table.close_if_unused(stream):
            self.delivery.forget_frames(stream)
