"""What this gateway reports to the router: its publications, its interest, and the metrics of its streams. Pure.

Reports carry the current state, not the change: a repeated or merged report is harmless.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from watchout.common.bus.messages import (
    REPORT_CHUNK,
    Interest,
    PublicationState,
    Release,
    ReservationEnded,
    ReservationReport,
    StreamReport,
)
from watchout.common.reservations import Reservation, Reservations
from watchout.gateway.hub.notices import PublisherNotices
from watchout.gateway.hub.streams import Publication, StreamTable
from watchout.gateway.hub.subscription import DropReason

#: Most pairs of stream and drop reason that are counted while the router is away.
MAX_DROP_COUNTS: Final = 50_000
#: Reservations of the ids of streams that ended here: how long each is kept, and the most of one user and in all.
RESERVED_S: Final = 604_800.0
RESERVED_PER_USER: Final = 5_000
RESERVED_TOTAL: Final = 20_000

#: Says of a stream whether it is one of those meant; None: all are.
StreamFilter = Callable[[str], bool] | None


class RouterReports:
    """Collects what changed on this gateway until `RouterClient` sends it to the router. Part of `Hub`.

    Args:
        table: The streams of this gateway.
        notices: Informed that the demand for a stream may have changed with its interest.
        wake: Called at each change; the router client then takes `changes` at the end of the loop's turn.
        reserved_s: How long the id of a stream that ended here stays reserved for its user, in seconds.
        reserved_per_user: Most reservations of one user; past it the user's oldest is dropped.
    """

    def __init__(
        self,
        table: StreamTable,
        notices: PublisherNotices,
        *,
        wake: Callable[[], None],
        reserved_s: float,
        reserved_per_user: int,
    ) -> None:
        self._table = table
        self._notices = notices
        self._wake = wake
        #: Owners of the streams that ended here; times in seconds since the epoch.
        self._reservations = Reservations(keep_s=reserved_s, per_user=reserved_per_user, total=RESERVED_TOTAL)
        self._changed_publications: set[str] = set()
        #: By stream, with epoch and number of the alert after which the router is to send those of the stream, or None.
        self._changed_interest: dict[str, tuple[int, int] | None] = {}
        self._released: list[Release] = []
        self._drop_counts: dict[tuple[str, str], int] = {}
        #: Streams that had frames since `stream_metrics` was called. `Delivery` adds to this same set.
        self.active: set[str] = set()

    # ── what changes ─────────────────────────────────────────────────────────────────────────────────────────────

    def publication_changed(self, stream_id: str) -> None:
        """Record that a publication began or changed."""
        self._changed_publications.add(stream_id)
        self._wake()

    def interest_changed(self, stream_id: str, alerts_after: tuple[int, int] | None = None) -> None:
        """Record that the subscriptions to a stream changed.

        Args:
            stream_id: The stream.
            alerts_after: Epoch of a router, and number of its last alert when it was asked for the stream. The router
                is told so, and sends the alerts that it accepts before it knows of the interest. The earliest of
                several counts.
        """
        known = self._changed_interest.get(stream_id)
        earliest = min(filter(None, (known, alerts_after)), default=None)
        self._changed_interest[stream_id] = earliest
        self._notices.mark_demand(stream_id)
        self._wake()

    def publication_began(self, stream_id: str) -> None:
        """Drop the reservation of a stream that is published here again."""
        self._reservations.take(stream_id)

    def publication_released(self, publication: Publication, now_ms: int) -> None:
        """Record that a publisher left: its stream is released at the router and its id reserved for its owner."""
        self.publication_ended(publication)
        last = publication.next_frame_id - 1
        self._released.append(Release(stream=publication.stream, term=publication.term, frame_id=last))
        owner = publication.owner
        self._reservations.put(
            publication.stream,
            Reservation(owner.user_id, tuple(sorted(owner.organizations)), publication.term, last, now_ms / 1000),
        )

    def publication_ended(self, publication: Publication) -> None:
        """Report nothing more about a publication that has ended."""
        self._changed_publications.discard(publication.stream)
        self.active.discard(publication.stream)

    def count_dropped(self, stream_id: str, dropped: Mapping[DropReason, int]) -> None:
        """Add frames of a stream that a viewer here did not get, by reason."""
        for reason, count in dropped.items():
            key = stream_id, str(reason)
            if key in self._drop_counts or len(self._drop_counts) < MAX_DROP_COUNTS:
                self._drop_counts[key] = self._drop_counts.get(key, 0) + count

    def on_unreserved(self, message: ReservationEnded) -> None:
        """Handle that an operator released the id of a stream: forget its reservation."""
        reservation = self._reservations.get(message.stream)
        if reservation is not None and reservation.term <= message.term:
            self._reservations.take(message.stream)

    def expire(self, now_ms: int) -> None:
        """Forget reservations after their time."""
        self._reservations.prune(now_ms / 1000)

    # ── what is sent ─────────────────────────────────────────────────────────────────────────────────────────────

    def changes(self, now: float) -> Iterator[PublicationState | Interest | Release]:
        """Return the current state of all that changed since the last call. `now` in seconds."""
        released, self._released = self._released, []
        publications, self._changed_publications = self._changed_publications, set()
        interest, self._changed_interest = self._changed_interest, {}
        yield from released
        for stream_id in publications:
            if stream_id in self._table.publications:
                yield self._publication(stream_id, now)
        for stream_id, alerts_after in interest.items():
            yield self._interest(stream_id, alerts_after)

    def snapshot(self, now: float, own: StreamFilter = None) -> Iterator[PublicationState | Interest]:
        """Return all publications and interest of the router's streams, `own`, when this gateway joins it.

        `now` in seconds. The iteration may be spread over several turns of the loop: `changes` returns what changes
        meanwhile.
        """
        self._released = [] if own is None else [each for each in self._released if not own(each.stream)]
        publications = [p for p in self._table.publications.values() if own is None or own(p.stream)]
        for publication in publications:  # first: the router's `Forward` messages arrive during the iteration
            publication.bus_sampler = None
            if not publication.receivers:  # these go on getting frames until the router names others
                publication.viewers_elsewhere = 0
            self._notices.mark_demand(publication.stream)
        for publication in publications:
            if self._table.publications.get(publication.stream) is publication:
                yield self._publication(publication.stream, now)
        for stream in list(self._table.streams.values()):
            if stream.viewers and (own is None or own(stream.id)):
                yield self._interest(stream.id)

    def reservations(self, now_ms: int, own: StreamFilter = None) -> Iterator[ReservationReport]:
        """Return the owners of those of the router's streams, `own`, that ended here, when it has just started."""
        rows = [
            (name, kept.user, kept.organizations, kept.term, kept.frame_id, max(0.0, now_ms / 1000 - kept.ended_at))
            for name, kept in self._reservations.items()
            if own is None or own(name)
        ]
        for at in range(0, len(rows), REPORT_CHUNK):
            yield ReservationReport(rows=rows[at : at + REPORT_CHUNK])

    def stream_metrics(self, now: float, chunk: int, own: StreamFilter = None) -> Iterator[StreamReport]:
        """Return frame rates and drops of a router's streams, `own`, since the last call for them.

        At most `chunk` rows are in each report. `now` in seconds.
        """
        keys = [key for key in self._drop_counts if own is None or own(key[0])]
        dropped = [(*key, self._drop_counts.pop(key)) for key in keys]
        for at in range(0, len(dropped), chunk):
            yield StreamReport(dropped=dropped[at : at + chunk])
        active = [name for name in self.active if own is None or own(name)]
        self.active.difference_update(active)
        rows = [
            (p.stream, p.next_frame_id - 1, p.meter.total, round(p.meter.rate(now), 2), p.last_frame_at)
            for name in active
            if (p := self._table.publications.get(name)) is not None
        ]
        for at in range(0, len(rows), chunk):
            yield StreamReport(rows=rows[at : at + chunk])

    def _publication(self, stream_id: str, now: float) -> PublicationState:
        p = self._table.publications[stream_id]
        return PublicationState(
            stream=stream_id,
            user=p.owner.user_id,
            organizations=tuple(sorted(p.owner.organizations)),
            term=p.term,
            status=self._table.streams[stream_id].status,
            producing=p.producing,
            wants_alerts=p.wants_alerts,
            frame_id=p.next_frame_id - 1,
            total_frames=p.meter.total,
            fps=round(p.meter.rate(now), 2),
            started_at=p.started_at,
            last_frame_at=p.last_frame_at,
            info=p.info,
            forwarding=bool(p.receivers),
        )

    def _interest(self, stream_id: str, alerts_after: tuple[int, int] | None = None) -> Interest:
        stream = self._table.streams.get(stream_id)
        if stream is None:
            return Interest(stream=stream_id, viewers=0, alert_viewers=0)
        alerts_epoch, last_alert = alerts_after or (0, 0)
        return Interest(
            stream=stream_id,
            viewers=len(stream.video),
            alert_viewers=stream.alert_viewers,
            max_fps=_highest(stream.rates),
            floor=stream.last_frame_id,
            user=stream.owner.user_id if stream.owner is not None else None,
            organizations=tuple(sorted(stream.owner.organizations)) if stream.owner is not None else (),
            alerts_epoch=alerts_epoch,
            last_alert=last_alert,
        )


def _highest(rates: Counter[float | None]) -> float | None:
    """The highest of some rates, of which None (every frame) is the highest; None also when there is none."""
    return None if None in rates else max((r for r in rates if r is not None), default=None)
