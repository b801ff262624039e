"""Publishers of streams: claims and their terms, take-over, reported state and release. Pure.

A stream has one publisher. A claim by its owner takes the stream over; a claim by another user is refused, also while
the id is reserved, unless the publisher's token grants it: the stream then keeps its owner. Each claim gets a term that
is higher than all before it, across restarts of the router too; what members send under a lower term is void. `now` is
in seconds, `now_ms` in ms since the epoch.
"""

from __future__ import annotations

from typing import Final

from watchout.common.bus.messages import (
    BadFrame,
    Claim,
    ErrorForPublisher,
    GrantedReply,
    PublicationState,
    RefusedReply,
    Release,
    Revoke,
    StreamReport,
)
from watchout.common.bus.messages.fields import TERM_ROOM
from watchout.common.media.frame_ids import FRAME_ID_HIGH, FRAME_ID_JUMP
from watchout.router.streams.interests import Interests
from watchout.router.streams.routing import Routing
from watchout.router.streams.snapshots import Snapshots
from watchout.router.streams.stream import RouterStream, Send
from watchout.router.streams.table import RouterStreamTable, discard

#: Reasons for dropped frames that are counted apart for one stream.
MAX_REASONS: Final = 16


class StreamClaims:
    """Decides which publisher gets a stream when several claim it, and numbers the claims with terms. Part of
    `Streams`.

    Terms start above `epoch` × 2²⁰, so that they rise across restarts of the router. The methods return the messages to
    send.
    """

    def __init__(
        self, epoch: int, table: RouterStreamTable, routing: Routing, interests: Interests, snapshots: Snapshots
    ) -> None:
        self._first_term = self._next_term = epoch << 20
        self._table = table
        self._routing = routing
        self._interests = interests
        self._snapshots = snapshots

    @property
    def highest_term(self) -> int:
        """The highest term that this router or one before it can have granted."""
        return max(self._next_term, self._first_term + TERM_ROOM)

    def claim(self, member: bytes, claim: Claim, now: float, now_ms: int) -> list[Send]:
        """Handle the claim of a gateway for a publisher that registers a stream.

        Returns:
            `GrantedReply`, with a `Revoke` for the gateway from which the stream is taken over; or `RefusedReply`.

        """
        owner = self._table.claimed_by(claim.stream, now)
        foreign = owner is not None and owner != claim.user
        if foreign and not claim.granted:
            return [_refuse(member, claim, "UNAUTHORIZED", "this stream belongs to another user")]
        stream = self._table.add_published(claim.stream)
        if stream is None:
            most = self._table.max_streams
            return [_refuse(member, claim, "ROUTING_ERROR", f"{most} streams are known, which is the most")]
        sends = self._revoke(stream)
        last = max(stream.frame_id, claim.floor)
        # Only a `Release` reports the last frame id: a gateway that was taken over, or lost, may have sent more frames.
        unreported = stream.gateway is not None or (stream.term > 0 and stream.last_gateway is None)
        if unreported or (last and stream.last_gateway != member):
            last += FRAME_ID_JUMP
        first = last + 1 if last < FRAME_ID_HIGH else 1
        stream.started_at, stream.total_frames, stream.last_frame_at = now_ms, 0, None
        self._next_term = max(self._next_term, stream.term) + 1
        if not foreign:  # else whoever owns it keeps it, and with it the right to take it over again
            stream.user, stream.organizations = claim.user, claim.organizations
        stream.term, stream.frame_id = self._next_term, first - 1
        stream.status = "streaming" if claim.producing else "online"
        stream.producing, stream.wants_alerts, stream.fps = claim.producing, False, 0.0
        stream.confirmed, stream.forwarding, stream.floor = False, False, 0
        stream.forward, stream.routes, stream.bridges = None, [], {}
        self._table.infos.put(stream, claim.info)
        self._snapshots.confirm_publication(member, stream.id)
        self._table.set_gateway(stream, member)
        self._table.totals.update(stream)
        granted = GrantedReply(
            request=claim.request,
            stream=stream.id,
            term=stream.term,
            first_frame_id=first,
            user=stream.user if foreign else None,
            organizations=stream.organizations if foreign else (),
        )
        return [*sends, Send(member, granted)]

    def set_publication(self, member: bytes, state: PublicationState, now_ms: int) -> list[Send]:
        """Take over the state that a gateway reports of a stream with a publisher; `Revoke` when its term is void."""
        stream = self._table.get(state.stream)
        reserved = self._table.ownership.get(state.stream)
        if reserved is None or state.term >= reserved.term:
            stream = self._table.add_published(state.stream)
        if (
            stream is None
            or state.term < stream.term
            or (state.term == stream.term and stream.gateway not in (None, member))
        ):
            return [Send(member, Revoke(stream=state.stream, term=state.term))]
        if self._snapshots.confirm_publication(member, state.stream):
            stream.forward = None  # the gateway has joined again and may have lost it: it is sent again
        # Another gateway's publisher can only have a lower term here.
        sends = self._revoke(stream) if stream.gateway != member else []
        self._next_term = max(self._next_term, state.term)
        owner_before = stream.user
        stream.user, stream.organizations = state.user, state.organizations
        stream.term, stream.status = state.term, state.status
        stream.producing, stream.wants_alerts = state.producing, state.wants_alerts
        self._table.raise_frame_id(stream, state.frame_id)
        stream.total_frames, stream.fps = state.total_frames, state.fps
        stream.started_at, stream.last_frame_at = state.started_at, state.last_frame_at
        self._table.infos.put(stream, state.info)
        stream.confirmed, stream.forwarding = True, state.forwarding
        if stream.gateway != member:
            stream.forward = None
            self._table.set_gateway(stream, member)
        elif stream.user != owner_before:
            self._table.ownership.mark_changed(stream.id)
        self._table.totals.update(stream)
        return sends + self._interests.announce(stream, now_ms) + self._routing.reroute(stream)

    def report(self, member: bytes, report: StreamReport) -> None:
        """Record a gateway's counters: frames of the streams published there, and frames dropped for its viewers."""
        for name, why, count in report.dropped:
            stream = self._table.get(name)
            if stream is not None and (why in stream.dropped or len(stream.dropped) < MAX_REASONS):
                stream.dropped[why] = stream.dropped.get(why, 0) + count
        for name, frame_id, total, fps, last_frame_at in report.rows:
            stream = self._table.get(name)
            if stream is not None and stream.gateway == member:
                self._table.raise_frame_id(stream, frame_id)
                stream.total_frames, stream.fps, stream.last_frame_at = total, fps, last_frame_at

    def continue_above(self, stream: RouterStream, term: int, last: int) -> bool:
        """Let the frame ids of a stream with a publisher go on above those of a former term that is known late.

        Args:
            stream: The stream.
            term: The former term.
            last: The highest id of its frames that is known.

        Returns:
            Whether its gateway has to be told: this router granted the present term, and did not know of those frames.
        """
        last += FRAME_ID_JUMP
        if not self._first_term < stream.term or term >= stream.term:
            return False  # the gateway had the term before, with its own ids
        return self._table.raise_floor(stream, last)

    def release(self, member: bytes, release: Release, now: float, now_ms: int) -> list[Send]:
        """Handle that the publisher of this term is gone; viewers keep waiting for it. Older terms are ignored."""
        stream = self._table.get(release.stream)
        if stream is None or stream.gateway != member or stream.term != release.term:
            return []
        stream.frame_id = max(stream.frame_id, release.frame_id)
        return self.end(stream, now, now_ms, reported_by=member)

    def report_bad_frame(self, bad: BadFrame) -> list[Send]:
        """Return an error for the publisher of a frame that could not be decoded, once per term."""
        stream = self._table.get(bad.stream)
        if stream is None or stream.gateway is None or stream.bad_frame_term == stream.term:
            return []
        stream.bad_frame_term = stream.term
        error = ErrorForPublisher(stream=stream.id, code="INVALID_MESSAGE", message=bad.reason)
        return [Send(stream.gateway, error)]

    def end(self, stream: RouterStream, now: float, now_ms: int, *, reported_by: bytes | None = None) -> list[Send]:
        """Set a stream offline and reserve its id.

        `reported_by` is the gateway whose `Release` reported the last frame id; without one, the next claim of the same
        gateway leaves out `FRAME_ID_JUMP` ids as well.
        """
        stream.last_gateway = reported_by
        self._table.clear_gateway(stream)
        stream.status = "offline"
        stream.producing = stream.wants_alerts = stream.forwarding = False
        stream.fps, stream.forward, stream.routes, stream.bridges = 0.0, None, [], {}
        self._table.totals.update(stream)
        self._table.ownership.reserve(stream, now)
        sends = self._interests.announce(stream, now_ms)
        self._table.remove_if_unused(stream)
        return sends

    def _revoke(self, stream: RouterStream) -> list[Send]:
        """Return the `Revoke` for the gateway that has the publisher, if there is one."""
        if stream.gateway is None:
            return []
        discard(self._table.published_at, stream.gateway, stream.id)
        return [Send(stream.gateway, Revoke(stream=stream.id, term=stream.term))]


def _refuse(member: bytes, claim: Claim, code: str, message: str) -> Send:
    return Send(member, RefusedReply(request=claim.request, code=code, message=message))
