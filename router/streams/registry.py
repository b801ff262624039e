"""The registry of streams: joins claims, interest, routing and ownership. Messages in, messages for members out. Pure.

`PublicationState` and `Interest` report a state, not a change: sending one again changes nothing. What an event changes
about many streams is done in parts: `finish` for a stream that is about to change, `finish_some` for the others. `now`
is the router's monotonic clock in seconds, `now_ms` the same moment in ms since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Final

import msgspec

from watchout.common.bus.frames import FrameHead
from watchout.common.bus.messages import (
    BadFrame,
    Claim,
    Interest,
    OwnerReply,
    PublicationState,
    RefusedReply,
    Release,
    ReservationReport,
    StreamReport,
)
from watchout.common.bus.reply_records import StreamRow, Totals
from watchout.common.reservations import Reservation
from watchout.router.streams.claims import StreamClaims
from watchout.router.streams.interests import Interests
from watchout.router.streams.ownership import RESERVED_MAX, RESERVED_PER_USER, RESERVED_S
from watchout.router.streams.routing import Routing
from watchout.router.streams.snapshots import Snapshots
from watchout.router.streams.stream import BridgeRecord, RouterStream, Send
from watchout.router.streams.table import RouterStreamTable
from watchout.router.streams.unfinished import EndsOfStream, UnfinishedStreams

#: A page of rows ends after the row with which it has more than so many characters of what clients chose at length.
PAGE_CHARS: Final = 1 << 20

#: Names of members by id, and the share of the last minute in which the ML service analysed a stream, by its id.
Names = Mapping[bytes, str]
Coverage = Mapping[str, float]


class Streams:
    """All streams of one router. `SlotRouter` creates one; `MessageHandler` calls it for each message.

    While `is_unfinished`, `finish` has to be called with each stream before any other method is called about it, and
    `finish_some` again and again. The order of the streams makes no difference to what is known and sent at the end.

    Args:
        epoch: The router's epoch; terms start above `epoch` × 2²⁰.
        max_streams: Most streams with a publisher.
        syncing: Whether gateways of a former router may still report streams; until `settle`.
        reserved_s: Seconds for which an id is reserved for its owner after its publisher is gone.
        reserved_per_user: Most reservations of one user.
        reserved_max: Most reservations in total.

    """

    #: Returns the members that get a frame; bound to `Routing.route`, which runs for every frame.
    route: Callable[[FrameHead, float], list[bytes]]

    def __init__(
        self,
        epoch: int,
        *,
        max_streams: int,
        syncing: bool = False,
        reserved_s: float = RESERVED_S,
        reserved_per_user: int = RESERVED_PER_USER,
        reserved_max: int = RESERVED_MAX,
    ) -> None:
        self._table = RouterStreamTable(
            max_streams, reserved_s=reserved_s, reserved_per_user=reserved_per_user, reserved_max=reserved_max
        )
        self._ownership = self._table.ownership
        self._snapshots = Snapshots()
        self._unfinished = UnfinishedStreams()
        self._routing = Routing(self._table, syncing=syncing)
        self._interests = Interests(self._table, self._routing, self._snapshots, syncing=syncing)
        self._claims = StreamClaims(epoch, self._table, self._routing, self._interests, self._snapshots)
        self.route = self._routing.route

    def __len__(self) -> int:
        return len(self._table.streams)

    def get(self, stream: str) -> RouterStream | None:
        """Return a stream that has a publisher or viewers."""
        return self._table.get(stream)

    def published(self) -> list[RouterStream]:
        """Return the streams that have a publisher, by id."""
        return self._table.published()

    # ── publishers ───────────────────────────────────────────────────────────────────────────────────────────────

    def claim(self, member: bytes, claim: Claim, now: float, now_ms: int) -> list[Send]:
        """Handle a publisher's registration: see `StreamClaims.claim`."""
        room = self._make_room(claim.stream, self._table.has_room_to_publish)
        return room + self._claims.claim(member, claim, now, now_ms)

    def set_publication(self, member: bytes, state: PublicationState, now_ms: int) -> list[Send]:
        """Record the state of a stream, sent by the gateway of its publisher: see `StreamClaims.set_publication`."""
        room = self._make_room(state.stream, self._table.has_room_to_publish)
        return room + self._claims.set_publication(member, state, now_ms)

    @property
    def highest_term(self) -> int:
        """The highest term that a member can have: see `StreamClaims.highest_term`."""
        return self._claims.highest_term

    def is_reporting(self, member: bytes) -> bool:
        """Return whether a member has joined and is reporting its state."""
        return self._snapshots.is_reporting(member)

    def report(self, member: bytes, report: StreamReport) -> None:
        """Take over a gateway's counters."""
        self._claims.report(member, report)

    def release(self, member: bytes, release: Release, now: float, now_ms: int) -> list[Send]:
        """Handle that a publisher is gone: see `StreamClaims.release`."""
        return self._claims.release(member, release, now, now_ms)

    def report_bad_frame(self, bad: BadFrame) -> list[Send]:
        """Return an error for the publisher of a frame that could not be decoded, once per term."""
        return self._claims.report_bad_frame(bad)

    # ── viewers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def set_interest(self, member: bytes, interest: Interest, now: float, now_ms: int) -> list[Send]:
        """Handle what a gateway's viewers want of a stream: see `Interests.set`."""
        room = self._make_room(interest.stream, self._table.has_room_to_view)
        return room + self._interests.set(member, interest, now, now_ms)

    def settle(self, now_ms: int) -> None:
        """End `syncing`: streams without a publisher are offline, and frames go only to those who want them.

        What this changes is left to `finish`.
        """
        offline = [*self._interests.settle(), *self._unfinished.ending_publications()]
        self._unfinished.announce(offline, now_ms)
        self._routing.settle()
        self._reroute_all()

    def look_up_owner(self, request: int, name: str) -> OwnerReply | RefusedReply:
        """Return the owner and status of a stream: see `Interests.look_up_owner`."""
        return self._interests.look_up_owner(request, name)

    def owner(self, name: str) -> str | None:
        """Return the present or last owner of a stream, None when none is known."""
        known = self._table.get(name) or self._ownership.get(name)
        return known.user if known is not None else None

    def organizations_of(self, name: str, owner: str | None) -> tuple[str, ...]:
        """Return the organizations of a stream's owner, none when the stream belongs to another user than `owner`."""
        known = self._table.get(name) or self._ownership.get(name)
        return known.organizations if known is not None and known.user == owner else ()

    def fetch_newest(self, member: bytes, name: str) -> list[Send]:
        """Ask the publisher's gateway to send its newest frame to one member."""
        return self._interests.fetch_newest(member, name)

    def alert_receivers(self, name: str) -> tuple[list[bytes], int]:
        """Return the members that an alert of this stream goes to, and how many viewers and publishers that reaches."""
        return self._interests.alert_receivers(name)

    # ── members ──────────────────────────────────────────────────────────────────────────────────────────────────

    def add_bridge(self, bridge: BridgeRecord) -> None:
        """Add a bridge, and share the streams of its group anew. What this changes is left to `finish`."""
        self._routing.add_bridge(bridge)
        self._reroute_all()

    def remove_member(self, member: bytes, now: float, now_ms: int) -> None:
        """Forget a member that ended or was lost: its publications are offline, its interest ends.

        What this changes is left to `finish`.
        """
        self._snapshots.forget(member)
        table = self._table
        published, viewed = table.published_at.pop(member, ()), table.viewed_at.pop(member, ())
        self._unfinished.end(member, published, viewed, (now, now_ms), is_gone=True)
        if self._routing.remove_bridge(member):
            self._reroute_all()
        self._routing.remove_address(member)

    def begin_snapshot(self, member: bytes, frames_at: str | None = None) -> None:
        """Handle a greeting: the member is about to report all its publications and interests.

        `frames_at` is where it accepts frames of other members, None: nowhere.
        """
        self._routing.set_address(member, frames_at)
        table = self._table
        self._snapshots.begin(member, set(table.published_at.get(member, ())), set(table.viewed_at.get(member, ())))
        if self._routing.remove_bridge(member):
            self._reroute_all()

    def end_snapshot(self, member: bytes, now: float, now_ms: int) -> None:
        """Handle the end of a snapshot: what the member has not reported is gone.

        What this changes is left to `finish`.
        """
        unconfirmed = self._snapshots.end(member)
        published = self._table.published_at.get(member, set())
        gone = unconfirmed.publications & published
        self._unfinished.end(member, gone, unconfirmed.interests, (now, now_ms), is_gone=False)
        # A `Forward` sent during the snapshot may have been overwritten there: send it again.
        self._unfinished.reroute(published, resend=True)

    # ── what is due for many streams ─────────────────────────────────────────────────────────────────────────────

    @property
    def is_unfinished(self) -> bool:
        """Whether something is due for streams, after an event that changes many: call `finish_some`."""
        return bool(self._unfinished)

    def finish(self, stream: str) -> list[Send]:
        """Do what is due for one stream. To be called before anything else that has to do with it."""
        if not self._unfinished:
            return []
        due = self._unfinished.take(stream)
        sends: list[Send] = []
        for ends in due.ends:
            sends += self._end(stream, ends)
        known = self._table.get(stream)
        if known is not None and due.announce_at is not None:
            sends += self._interests.announce_again(known, due.announce_at)
        if known is not None and due.reroute:
            if due.resend:
                known.forward = None
            sends += self._routing.reroute(known)
        gone = {ends.member for ends in due.ends if ends.is_gone}
        return [send for send in sends if send.member not in gone] if gone else sends

    def finish_some(self, limit: int) -> list[Send]:
        """Do what is due for up to `limit` streams."""
        sends: list[Send] = []
        for _ in range(limit):
            if (stream := self._unfinished.next_stream()) is None:
                break
            sends += self.finish(stream)
        return sends

    def _end(self, name: str, ends: EndsOfStream) -> list[Send]:
        sends: list[Send] = []
        stream = self._table.get(name)
        if ends.publication is not None and stream is not None and stream.gateway == ends.member:
            sends += self._claims.end(stream, *ends.publication)
        if ends.has_interest:
            sends += self._interests.drop(ends.member, name)
        return sends

    def _make_room(self, stream: str, has_room: Callable[[str], bool]) -> list[Send]:
        """End what is due to end, one by one, until there is room for a stream."""
        sends: list[Send] = []
        while not has_room(stream) and (ending := self._unfinished.next_ending()) is not None:
            sends += self.finish(ending)
        return sends

    def _reroute_all(self) -> None:
        self._unfinished.reroute(self._table.published_ids)

    # ── ownership ────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def reserved_count(self) -> int:
        """Stream ids without a publisher of which the owner is known."""
        return len(self._ownership.reservations)

    @property
    def reserved_evicted(self) -> int:
        """Reservations evicted before their time."""
        return self._ownership.reservations.evicted

    def prune(self, now: float) -> None:
        """Forget the owners of streams that ended long ago."""
        self._ownership.prune(now)

    def add_reported_reservations(self, report: ReservationReport, now: float) -> str:
        """Take over reservations from a gateway that knows them from a former router, unless newer ones are known.

        Returns:
            The last one whose term no router can have granted, and which is not taken over, as text; "": there is none.
        """
        refused = ""
        for name, user, organizations, term, frame_id, ago_s in report.rows:
            if term > self.highest_term:
                refused = f"term {term} of {name}"
                continue
            self.restore(name, Reservation(user, organizations, term, frame_id, now - ago_s))
        return refused

    def restore(self, name: str, reservation: Reservation) -> None:
        """Take over a reservation of a former router, unless the stream has a publisher or a later one is known.

        Of one that comes too late for that only the frame ids count: later ones go on above them.
        """
        stream, known = self._table.get(name), self._ownership.get(name)
        if stream is not None and stream.gateway is not None:
            if self._claims.continue_above(stream, reservation.term, reservation.frame_id):
                self._unfinished.reroute([name], resend=True)
            return
        last_term = max(0 if stream is None else stream.term, 0 if known is None else known.term)
        is_late = last_term > 0 and last_term >= reservation.term
        if stream is not None:
            if reservation.frame_id > stream.frame_id:
                stream.frame_id, stream.last_gateway = reservation.frame_id, reservation.last_gateway
            if not is_late:
                stream.user, stream.organizations = reservation.user, reservation.organizations
                stream.term = reservation.term
                self._table.awaited.discard(name)
        if not is_late:
            self._ownership.put(name, reservation)
        elif known is not None and reservation.frame_id > known.frame_id:
            self._ownership.put(
                name, replace(known, frame_id=reservation.frame_id, last_gateway=reservation.last_gateway)
            )

    def unreserve(self, name: str) -> Reservation | None:
        """Let every user register an id. Return what was known of it, None when it was not reserved."""
        return self._ownership.release(name)

    def reservations(self, user: str | None, limit: int, now: float) -> list[tuple[str, str, float]]:
        """Return reserved ids, of one user or of all, oldest first: (id, user, seconds left)."""
        return self._ownership.rows(user, limit, now)

    @property
    def changed(self) -> bool:
        """Whether the owner of any id changed since `take_changes`."""
        return self._ownership.changed

    @property
    def changed_all(self) -> bool:
        """Whether `take_changes` yields every id, because too many changed."""
        return self._ownership.changed_all

    def change_all(self) -> None:
        """Yield every id at the next `take_changes`, because the last ones could not be written."""
        self._ownership.change_all()

    def take_changes(self) -> Iterator[tuple[str, Reservation | None]]:
        """Yield the ids whose owner changed since the last call: see `Ownership.take_changes`."""
        return self._ownership.take_changes()

    # ── stats ────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def old_term_frames(self) -> int:
        """Frames dropped because their stream has another term or no publisher."""
        return self._routing.old_term_frames

    @property
    def published_count(self) -> int:
        """How many streams have a publisher."""
        return self._table.published_count

    def totals(self, *, connections: int) -> Totals:
        """Count over all gateways; `connections` is passed on."""
        return self._table.totals.totals(connections=connections)

    def published_by(self, member: bytes) -> Collection[str]:
        """Return the streams whose publisher is connected to this gateway, in no order; until the next change."""
        return self._table.published_at.get(member, ())

    def viewed_by(self, member: bytes) -> Collection[str]:
        """Return the streams that viewers of this gateway want, in no order; until the next change."""
        return self._table.viewed_at.get(member, ())

    def reservation_of(self, name: str, now: float) -> tuple[str, float] | None:
        """Return for whom a stream id without a publisher is reserved, and for how many seconds; None: for nobody."""
        return self._ownership.reservation(name, now)

    def rows(self, names: Names, now_ms: int, coverage: Coverage | None = None) -> list[StreamRow]:
        """Return a row for every stream that has a publisher, by stream id; the arguments of `page`."""
        return [_row(stream, names, now_ms, coverage) for stream in self.published()]

    def page(
        self, after: str, limit: int, names: Names, now_ms: int, coverage: Coverage | None = None
    ) -> tuple[list[StreamRow], bool]:
        """Return rows of streams that have a publisher, by stream id, and whether there are more.

        Args:
            after: The page begins with the first stream above this id; "": with the first of all.
            limit: Most rows, at least 1. There are fewer where the cameras' words of themselves and the owners'
                organizations are long, see `PAGE_CHARS`.
            names: The members' names.
            now_ms: The present time in ms since the epoch.
            coverage: The coverage by stream id, for rows that have it in the place of what cameras say of themselves.
        """
        rows: list[StreamRow] = []
        chars = 0
        found = self._table.published_after(after, limit + 1)
        for stream in found[:limit]:
            if chars > PAGE_CHARS:
                break
            chars += len(stream.info) + sum(map(len, stream.organizations))
            rows.append(_row(stream, names, now_ms, coverage))
        return rows, len(rows) < len(found)


def _row(s: RouterStream, names: Names, now_ms: int, coverage: Coverage | None) -> StreamRow:
    return StreamRow(
        stream_id=s.id,
        user_id=s.user,
        organizations=s.organizations,
        status=s.status,
        fps=round(s.fps, 2),
        total_frames=s.total_frames,
        uptime=max(0, now_ms - s.started_at) // 1000,
        viewers=sum(i.viewers for i in s.interests.values()) if s.interests else 0,
        alert_viewers=sum(i.alert_viewers for i in s.interests.values()) if s.interests else 0,
        gateway=names.get(s.gateway or b""),
        mlbridge=", ".join(sorted(names[m] for m in s.bridges.values() if m in names)) or None,
        started_at=s.started_at,
        last_frame_at=s.last_frame_at,
        frame_id=s.frame_id,
        dropped=dict(s.dropped),
        coverage=msgspec.UNSET if coverage is None else coverage.get(s.id),
        info=s.info if coverage is None and s.info else msgspec.UNSET,
    )
