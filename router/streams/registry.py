"""The registry of streams: claims and terms, interest, routes of frames. Pure: messages in, messages to members out.

Rules
- One holder per stream. A claim by the same user takes the stream over; by another user it is refused, also while the
  id is reserved for its user after the camera went (`common.reservations`).
- Each claim gets a term, higher than all before it, across restarts too. What comes under a lower term is void.
- `PublicationState` and `Interest` tell a state, not a change: telling them again changes nothing, and after a snapshot
  whatever was not told again is gone.
- Frames are wanted from a holder only while somebody on another process wants them, at the highest rate of those.
- A stream without a camera and without viewers is no more than its reservation: nothing here grows with the number of
  streams that ended.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from watchout.common.bus.frames import EVERYBODY, FrameHead
from watchout.common.bus.messages import (
    BadFrame,
    Claim,
    ErrorForPublisher,
    Forward,
    FromRouter,
    GrantedReply,
    Interest,
    OwnerReply,
    PublicationState,
    RefusedReply,
    Release,
    ReservationReport,
    Revoke,
    SendNewest,
    StatusUpdate,
    StreamReport,
    StreamStatus,
)
from watchout.common.bus.reply_records import StreamRow, Totals
from watchout.common.media.rate import Sampler
from watchout.common.reservations import Reservation, Reservations
from watchout.common.toolbox.globs import Globs

#: How long it is at least known whose a stream was, also when others may register its id before: its frame ids go on
#: from there, and late alerts are still its user's.
RETAIN_S: Final = 86_400.0
#: How long an id that a user has published stays his, how many of one user and in all.
RESERVED_S: Final = 604_800.0
RESERVED_PER_USER: Final = 5_000
RESERVED_MAX: Final = 100_000
#: Frame ids left out when a stream moves to another process, whose predecessor may have sent more than it told.
FRAME_ID_JUMP: Final = 1 << 16
#: Most reasons that are kept apart for a stream.
MAX_REASONS: Final = 16
#: Ids whose owner changed that are told one by one to who keeps them.
MAX_CHANGED: Final = 20_000
#: Above this the ids of a stream begin again at 1: 2³² frames are not far.
FRAME_ID_HIGH: Final = 2**32 - (1 << 24)


@dataclass(frozen=True, slots=True)
class Send:
    """A message for one member."""

    member: bytes
    body: FromRouter


@dataclass(slots=True)
class Stream:
    """One stream as the router knows it."""

    id: str
    user: str | None = None
    organizations: tuple[str, ...] = ()
    holder: bytes | None = None
    last_holder: bytes | None = None
    term: int = 0
    status: StreamStatus = "offline"
    producing: bool = False
    wants_alerts: bool = False
    frame_id: int = 0
    total_frames: int = 0
    fps: float = 0.0
    started_at: int = 0
    last_frame_at: int | None = None
    interests: dict[bytes, Interest] = field(default_factory=dict)
    bridges: dict[str, bytes] = field(default_factory=dict)
    confirmed: bool = False
    forward: Forward | None = None
    routes: list[tuple[bytes, Sampler | None]] = field(default_factory=list)
    told_bad_term: int = -1
    announced: StatusUpdate | None = None
    #: Frames that viewers anywhere did not get, by reason, since this router knows the stream.
    missed: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bridge:
    """An mlbridge that wants frames, of the streams that `globs` match."""

    member: bytes
    group: str
    max_fps: float
    globs: Globs = field(default_factory=Globs)


class Streams:
    """All streams of one router's life. Terms begin above `epoch` × 2²⁰, so that they rise across restarts.

    While `syncing`, gateways of a former life may still tell what they hold: nothing is called offline until `settle`.
    At most `max_streams` have a camera, as many more are waited for by viewers of their owners, and as many by others.
    An id stays its user's for `reserved_s` seconds after its camera went.
    """

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
        self._syncing = syncing
        self._next_term = epoch << 20
        self._max_streams = max_streams
        self._reserved_s = reserved_s
        #: Of streams without a camera. Claims of others are refused for `reserved_s`.
        self._reservations = Reservations(
            keep_s=max(reserved_s, RETAIN_S), per_user=reserved_per_user, total=reserved_max
        )
        #: Stream ids whose owner changed, came or went since `take_changes`; None: too many, all are to be written.
        self._changed: dict[str, None] | None = {}
        #: Streams with a camera, and those that are waited for.
        self._streams: dict[str, Stream] = {}
        self._held_count = 0
        self._waited_for: set[str] = set()
        self._held: dict[bytes, set[str]] = {}
        self._wanted: dict[bytes, set[str]] = {}
        self._untold: dict[bytes, tuple[set[str], set[str]]] = {}
        self._bridges: dict[bytes, Bridge] = {}
        self.old_term_frames = 0

    def __len__(self) -> int:
        return len(self._streams)

    def get(self, stream: str) -> Stream | None:
        """The stream, if it is known."""
        return self._streams.get(stream)

    def held(self) -> list[Stream]:
        """Streams that have a camera now, by id."""
        return sorted((s for s in self._streams.values() if s.holder is not None), key=lambda s: s.id)

    # ── cameras ──────────────────────────────────────────────────────────────────────────────────────────────────

    def claim(self, member: bytes, claim: Claim, now: float, now_ms: int) -> list[Send]:
        """A camera wants the stream: `GrantedReply`, with a `Revoke` for whom it takes over, or `RefusedReply`."""
        stream = self._streams.get(claim.stream)
        owner = self._claimed_by(claim.stream, stream, now)
        if owner is not None and owner != claim.user:
            return [_refuse(member, claim, "UNAUTHORIZED", "this stream belongs to another user")]
        stream = self._find_or_make(claim.stream, stream)
        if stream is None:
            return [
                _refuse(member, claim, "ROUTING_ERROR", f"{self._max_streams} streams are known, which is the most")
            ]
        sends: list[Send] = []
        if stream.holder is not None:
            sends.append(Send(stream.holder, Revoke(stream=stream.id, term=stream.term)))
            _discard(self._held, stream.holder, stream.id)
        last = max(stream.frame_id, claim.floor)
        # Only a `Release` told the last id: who is taken over, or was lost, may have sent frames and told of none.
        untold = stream.holder is not None or (stream.term > 0 and stream.last_holder is None)
        if untold or (last and stream.last_holder != member):
            last += FRAME_ID_JUMP
        first = last + 1 if last < FRAME_ID_HIGH else 1
        stream.started_at, stream.total_frames, stream.last_frame_at = now_ms, 0, None
        self._next_term += 1
        stream.user, stream.organizations = claim.user, claim.organizations
        stream.term, stream.frame_id = self._next_term, first - 1
        stream.status = "streaming" if claim.producing else "online"
        stream.producing, stream.wants_alerts, stream.fps = claim.producing, False, 0.0
        stream.confirmed, stream.forward, stream.routes, stream.bridges = False, None, [], {}
        self._told(member, 0, stream.id)
        self._set_holder(stream, member)
        sends.append(
            Send(member, GrantedReply(request=claim.request, stream=stream.id, term=stream.term, first_frame_id=first))
        )
        return sends

    def hold(self, member: bytes, hold: PublicationState, now_ms: int) -> list[Send]:
        """A gateway tells the state of a stream that it holds."""
        stream = self._streams.get(hold.stream)
        reserved = self._reservations.get(hold.stream)
        if reserved is None or hold.term >= reserved.term:
            stream = self._find_or_make(hold.stream, stream)
        if (
            stream is None
            or hold.term < stream.term
            or (hold.term == stream.term and stream.holder not in (None, member))
        ):
            return [Send(member, Revoke(stream=hold.stream, term=hold.term))]
        self._told(member, 0, hold.stream)
        sends: list[Send] = []
        if stream.holder is not None and stream.holder != member:  # only a higher term comes so far
            sends.append(Send(stream.holder, Revoke(stream=stream.id, term=stream.term)))
            _discard(self._held, stream.holder, stream.id)
        self._next_term = max(self._next_term, hold.term)
        before = stream.user
        stream.user, stream.organizations = hold.user, hold.organizations
        stream.term, stream.status = hold.term, hold.status
        stream.producing, stream.wants_alerts = hold.producing, hold.wants_alerts
        stream.frame_id = max(stream.frame_id, hold.frame_id)
        stream.total_frames, stream.fps = hold.total_frames, hold.fps
        stream.started_at, stream.last_frame_at = hold.started_at, hold.last_frame_at
        stream.confirmed = True
        if stream.holder != member:
            stream.forward = None
            self._set_holder(stream, member)
        elif stream.user != before:
            self._mark(stream.id)
        return sends + self._announce(stream, now_ms) + self._reroute(stream)

    def report(self, member: bytes, report: StreamReport) -> None:
        """Moving figures: of streams that this member holds, and of what its viewers missed of any."""
        for name, why, count in report.dropped:
            stream = self._streams.get(name)
            if stream is not None and (why in stream.missed or len(stream.missed) < MAX_REASONS):
                stream.missed[why] = stream.missed.get(why, 0) + count
        for name, frame_id, total, fps, last_frame_at in report.rows:
            stream = self._streams.get(name)
            if stream is not None and stream.holder == member:
                stream.frame_id = max(stream.frame_id, frame_id)
                stream.total_frames, stream.fps, stream.last_frame_at = total, fps, last_frame_at

    def release(self, member: bytes, release: Release, now: float, now_ms: int) -> list[Send]:
        """The camera is gone; viewers wait for its return."""
        stream = self._streams.get(release.stream)
        if stream is None or stream.holder != member or stream.term != release.term:
            return []
        stream.frame_id = max(stream.frame_id, release.frame_id)
        return self._end(stream, now, now_ms, told_by=member)

    def bad_frame(self, bad: BadFrame) -> list[Send]:
        """Somebody could not decode a frame: the camera is told once per term."""
        stream = self._streams.get(bad.stream)
        if stream is None or stream.holder is None or stream.told_bad_term == stream.term:
            return []
        stream.told_bad_term = stream.term
        return [Send(stream.holder, ErrorForPublisher(stream=stream.id, code="INVALID_MESSAGE", message=bad.reason))]

    # ── viewers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def interest(self, member: bytes, interest: Interest, now: float, now_ms: int) -> list[Send]:
        """What a gateway's viewers want of a stream; the first after a greeting gets the present status."""
        again = self._told(member, 1, interest.stream)
        if not interest.viewers and not interest.alert_viewers:
            return self._drop_interest(member, interest.stream)
        stream = self._streams.get(interest.stream) or self._wait_for(interest)
        if stream is None:
            return []
        new = again or member not in stream.interests
        stream.interests[member] = interest
        stream.frame_id = max(stream.frame_id, interest.floor)
        self._wanted.setdefault(member, set()).add(stream.id)
        if stream.user is None and interest.user is not None:  # a former router said so
            stream.user, stream.organizations = interest.user, interest.organizations
            self._waited_for.discard(stream.id)
            self._reserve(stream, now)
        known = stream.holder is not None or not self._syncing
        sends = [Send(member, _status(stream, now_ms))] if new and known and stream.holder != member else []
        return sends + self._reroute(stream)

    def settle(self, now_ms: int) -> list[Send]:
        """The gateways of a former router's life had their time: what no one holds now is offline, and is said so."""
        self._syncing = False
        sends: list[Send] = []
        for stream in self._streams.values():
            if stream.holder is None:
                stream.announced = None  # who came after a camera that went meanwhile was told nothing
                sends += self._announce(stream, now_ms)
        return sends

    def found(self, request: int, name: str) -> OwnerReply | RefusedReply:
        """Whose a stream is, and how it stands. A camera that went leaves the stream to its user."""
        stream = self._streams.get(name)
        if stream is not None:
            return OwnerReply(
                request=request,
                stream=name,
                status=stream.status,
                user=stream.user,
                organizations=stream.organizations,
                term=stream.term,
            )
        reserved = self._reservations.get(name)
        if reserved is not None:
            return OwnerReply(
                request=request,
                stream=name,
                status="offline",
                user=reserved.user,
                organizations=reserved.organizations,
                term=reserved.term,
            )
        if len(self._waited_for) >= self._max_streams:
            text = f"{self._max_streams} streams are waited for, which is the most"
            return RefusedReply(request=request, code="ROUTING_ERROR", message=text)
        return OwnerReply(request=request, stream=name, status="offline")

    def owner(self, name: str) -> str | None:
        """Whose a stream is, or was last."""
        known = self._streams.get(name) or self._reservations.get(name)
        return known.user if known is not None else None

    def organizations_of(self, name: str, owner: str | None) -> tuple[str, ...]:
        """The organizations of a stream, as far as they are known and the stream is still this owner's."""
        known = self._streams.get(name) or self._reservations.get(name)
        return known.organizations if known is not None and known.user == owner else ()

    def newest(self, member: bytes, name: str) -> list[Send]:
        """Ask the holder for its newest frame, for one member."""
        stream = self._streams.get(name)
        if stream is None or stream.holder is None or stream.holder == member:
            return []
        return [Send(stream.holder, SendNewest(stream=name, to=member.hex()))]

    def alert_receivers(self, name: str) -> tuple[list[bytes], int]:
        """Members that an alert of this stream goes to, and how many viewers and cameras stand behind them."""
        stream = self._streams.get(name)
        if stream is None:
            return [], 0
        members = {m: i.alert_viewers for m, i in stream.interests.items() if i.alert_viewers}
        if stream.holder is not None and stream.wants_alerts:
            members[stream.holder] = members.get(stream.holder, 0) + 1
        return list(members), sum(members.values())

    # ── bridges and members ──────────────────────────────────────────────────────────────────────────────────────

    def bridge_joined(self, bridge: Bridge) -> list[Send]:
        """An mlbridge wants frames: its group's streams are shared anew."""
        self._bridges[bridge.member] = bridge
        return self._reroute_all()

    def member_gone(self, member: bytes, now: float, now_ms: int) -> list[Send]:
        """A member ended or was lost: what it held is offline, what it wanted is not wanted."""
        sends: list[Send] = []
        self._untold.pop(member, None)
        for name in list(self._held.pop(member, ())):
            sends += self._end(self._streams[name], now, now_ms)
        for name in list(self._wanted.pop(member, ())):
            sends += self._drop_interest(member, name)
        if self._bridges.pop(member, None) is not None:
            sends += self._reroute_all()
        return [send for send in sends if send.member != member]

    def begin_snapshot(self, member: bytes) -> list[Send]:
        """The member greeted: it will tell all it holds and wants."""
        self._untold[member] = (set(self._held.get(member, ())), set(self._wanted.get(member, ())))
        for name in self._held.get(member, ()):
            self._streams[name].forward = None  # what it was asked to forward may be lost: say it again
        return self._reroute_all() if self._bridges.pop(member, None) is not None else []

    def end_snapshot(self, member: bytes, now: float, now_ms: int) -> list[Send]:
        """The member told all: the rest of what was known of it is gone."""
        held, wanted = self._untold.pop(member, (set(), set()))
        sends: list[Send] = []
        for name in held & self._held.get(member, set()):
            sends += self._end(self._streams[name], now, now_ms)
        for name in wanted:
            sends += self._drop_interest(member, name)
        for name in self._held.get(member, ()):
            # Said while the member still told, it may have been forgotten there by the telling.
            self._streams[name].forward = None
            sends += self._reroute(self._streams[name])
        return sends

    # ── reservations ─────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def reserved_count(self) -> int:
        """How many ids without a camera are known to be somebody's."""
        return len(self._reservations)

    @property
    def reserved_evicted(self) -> int:
        """Reservations that gave way to others before their time."""
        return self._reservations.evicted

    def prune(self, now: float) -> None:
        """Forget whose the streams were that ended long ago. Costs only what it forgets."""
        for name in self._reservations.prune(now):
            self._mark(name)

    def reserved(self, told: ReservationReport, now: float) -> None:
        """A gateway of a former router's life tells whose the streams were whose cameras went from it."""
        for name, user, organizations, term, frame_id, ago_s in told.rows:
            stream, known = self._streams.get(name), self._reservations.get(name)
            last_term = max(stream.term if stream is not None else 0, known.term if known is not None else 0)
            if (stream is not None and stream.holder is not None) or last_term >= term:
                continue
            self.restore(name, Reservation(user, organizations, term, frame_id, now - ago_s))

    def restore(self, name: str, reservation: Reservation) -> None:
        """A reservation of a former router's life. What is known of the stream in this one is kept."""
        stream = self._streams.get(name)
        if stream is None or stream.holder is None:
            if stream is not None and stream.term < reservation.term:
                stream.user, stream.organizations = reservation.user, reservation.organizations
                stream.term, stream.frame_id = reservation.term, max(stream.frame_id, reservation.frame_id)
                self._waited_for.discard(name)
            self._put_reservation(name, reservation)

    def unreserve(self, name: str) -> Reservation | None:
        """Let anybody register an id whose camera is gone; what was known of it, None when it is not reserved."""
        found = self._reservations.take(name)
        if found is not None:
            self._mark(name)
        return found

    def reservations(self, user: str | None, limit: int, now: float) -> list[tuple[str, str, float]]:
        """ReservationReport ids, of one user or of all, oldest first: rows of (id, user, seconds that are left)."""
        names = (name for name, _ in self._reservations.items()) if user is None else self._reservations.of_user(user)
        rows: list[tuple[str, str, float]] = []
        for name in names:
            found = self._reservations.get(name)
            if found is not None and (left_s := self._reserved_s - (now - found.ended_at)) > 0:
                rows.append((name, found.user, left_s))
            if len(rows) >= limit:
                break
        return rows

    def take_changes(self) -> Iterator[tuple[str, Reservation | None]]:
        """Whose ids changed since this was last called, for who keeps them across restarts; None: it is nobody's.

        One with a camera is as if its camera went never: `ended_at` is infinite. `changed_all` says when there were too
        many to be told one by one: whatever is not among them then is nobody's.
        """
        changed, self._changed = self._changed, {}
        if changed is None:
            names = [*self._streams, *(name for name, _ in self._reservations.items())]
            changed = dict.fromkeys(names)
        for name in changed:
            yield name, self._kept(name)

    @property
    def changed_all(self) -> bool:
        """Whether too many ids changed since `take_changes` to be told one by one."""
        return self._changed is None

    @property
    def changed(self) -> bool:
        """Whether any id changed since `take_changes`."""
        return self._changed is None or bool(self._changed)

    def change_all(self) -> None:
        """What `take_changes` told was not kept: tell everything next time."""
        self._changed = None

    def _kept(self, name: str) -> Reservation | None:
        stream = self._streams.get(name)
        if stream is not None and stream.holder is not None and stream.user is not None:
            return Reservation(stream.user, stream.organizations, stream.term, stream.frame_id, math.inf)
        return self._reservations.get(name)

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────

    def route(self, head: FrameHead, now: float) -> list[bytes]:
        """The members that get this frame now."""
        stream = self._streams.get(head.stream)
        if stream is None or stream.holder is None or head.term != stream.term:
            self.old_term_frames += 1
            return []
        if head.to != EVERYBODY:
            return [head.to]
        return [member for member, sampler in stream.routes if sampler is None or sampler.take(now)]

    # ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────

    def totals(self, *, connections: int) -> Totals:
        """Count over all gateways; `connections` is passed on."""
        producers = video = alerts = 0
        for stream in self._streams.values():
            if stream.holder is not None:
                producers += stream.producing
                alerts += stream.wants_alerts
            for interest in stream.interests.values():
                video += interest.viewers
                alerts += interest.alert_viewers
        return Totals(producers=producers, video_consumers=video, alert_consumers=alerts, connections=connections)

    def rows(self, names: dict[bytes, str], now_ms: int) -> list[StreamRow]:
        """A row for every stream that has a publisher, by stream id. `names` are the members' names."""
        return [
            StreamRow(
                stream_id=s.id,
                user_id=s.user,
                organizations=s.organizations,
                status=s.status,
                fps=round(s.fps, 2),
                total_frames=s.total_frames,
                uptime=max(0, now_ms - s.started_at) // 1000,
                viewers=sum(i.viewers for i in s.interests.values()),
                alert_viewers=sum(i.alert_viewers for i in s.interests.values()),
                gateway=names.get(s.holder or b""),
                mlbridge=", ".join(sorted(names.get(m, "?") for m in s.bridges.values())) or None,
                started_at=s.started_at,
                last_frame_at=s.last_frame_at,
                frame_id=s.frame_id,
                dropped=dict(s.missed),
            )
            for s in self.held()
        ]

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _claimed_by(self, name: str, stream: Stream | None, now: float) -> str | None:
        """The one user who may register the stream now; None: anybody may."""
        if stream is not None and stream.holder is not None:
            return stream.user
        reserved = self._reservations.get(name)
        return reserved.user if reserved is not None and now - reserved.ended_at < self._reserved_s else None

    def _find_or_make(self, name: str, stream: Stream | None) -> Stream | None:
        """The stream, which gets a camera; None when too many have one. It is reserved no more, but held."""
        if stream is None or stream.holder is None:
            if self._held_count >= self._max_streams:
                return None
            reserved = self._reservations.take(name)
            if stream is None:
                stream = self._streams[name] = Stream(name)
                _recall(stream, reserved)
            self._waited_for.discard(name)
        return stream

    def _wait_for(self, interest: Interest) -> Stream | None:
        """A stream that has no camera and is waited for; None when too many are."""
        name = interest.stream
        reserved = self._reservations.get(name)
        if reserved is None and interest.user is None:
            if len(self._waited_for) >= self._max_streams:
                return None
            self._waited_for.add(name)
        elif len(self._streams) - self._held_count - len(self._waited_for) >= self._max_streams:
            return None
        stream = self._streams[name] = Stream(name)
        _recall(stream, reserved)
        return stream

    def _forget_if_empty(self, stream: Stream) -> None:
        if stream.holder is None and not stream.interests:
            self._streams.pop(stream.id, None)
            self._waited_for.discard(stream.id)

    def _set_holder(self, stream: Stream, member: bytes) -> None:
        if stream.holder is None:
            self._held_count += 1
        stream.holder = stream.last_holder = member
        self._held.setdefault(member, set()).add(stream.id)
        self._mark(stream.id)

    def _end(self, stream: Stream, now: float, now_ms: int, *, told_by: bytes | None = None) -> list[Send]:
        # Without its `Release` nobody knows its last frame id: even the same holder's next claim has to jump.
        stream.last_holder = told_by
        if stream.holder is not None:
            _discard(self._held, stream.holder, stream.id)
            self._held_count -= 1
        stream.holder, stream.status = None, "offline"
        stream.producing = stream.wants_alerts = False
        stream.fps, stream.forward, stream.routes, stream.bridges = 0.0, None, [], {}
        self._reserve(stream, now)
        sends = self._announce(stream, now_ms)
        self._forget_if_empty(stream)
        return sends

    def _reserve(self, stream: Stream, now: float) -> None:
        if stream.user is not None:
            self._put_reservation(
                stream.id,
                Reservation(stream.user, stream.organizations, stream.term, stream.frame_id, now, stream.last_holder),
            )

    def _put_reservation(self, name: str, reservation: Reservation) -> None:
        for gone in self._reservations.put(name, reservation):
            self._mark(gone)
        self._mark(name)

    def _mark(self, name: str) -> None:
        if self._changed is not None:
            self._changed[name] = None
            if len(self._changed) > MAX_CHANGED:
                self._changed = None

    def _drop_interest(self, member: bytes, name: str) -> list[Send]:
        _discard(self._wanted, member, name)
        stream = self._streams.get(name)
        if stream is None or stream.interests.pop(member, None) is None:
            return []
        self._forget_if_empty(stream)
        return self._reroute(stream)

    def _told(self, member: bytes, which: int, name: str) -> bool:
        """Whether this is the first telling after a greeting of what was known before it."""
        untold = self._untold.get(member)
        if untold is None or name not in untold[which]:
            return False
        untold[which].discard(name)
        return True

    def _announce(self, stream: Stream, now_ms: int) -> list[Send]:
        body = _status(stream, now_ms)
        last, stream.announced = stream.announced, body
        if last is not None and msgspec.structs.replace(last, timestamp=now_ms) == body:
            return []
        return [Send(member, body) for member in stream.interests if member != stream.holder]

    def _reroute_all(self) -> list[Send]:
        return [
            send for stream in self._streams.values() if stream.holder is not None for send in self._reroute(stream)
        ]

    def _reroute(self, stream: Stream) -> list[Send]:
        """Who gets this stream's frames, and at what rate the holder is to send them.

        Nothing is asked before its first `PublicationState`: the camera's gateway may not have taken the grant in yet.
        """
        if stream.holder is None or not stream.confirmed:
            return []
        wanted: dict[bytes, float | None] = {
            member: interest.max_fps
            for member, interest in stream.interests.items()
            if interest.viewers and member != stream.holder
        }
        stream.bridges = {}
        if stream.producing:
            for bridge in assign(stream.id, self._bridges.values()):
                stream.bridges[bridge.group] = bridge.member
                wanted[bridge.member] = bridge.max_fps
        rates = list(wanted.values())
        top = None if None in rates else max((r for r in rates if r is not None), default=None)
        # Whoever wants the most gets all that the holder sends: sampling twice at one rate would lose frames.
        before = dict(stream.routes)
        stream.routes = [
            (member, None if rate is None or rate == top else before.get(member) or Sampler(rate))
            for member, rate in wanted.items()
        ]
        for member, sampler in stream.routes:
            if sampler is not None:
                sampler.set_rate(wanted[member])
        viewers = sum(interest.viewers for member, interest in stream.interests.items() if member != stream.holder)
        forward = Forward(stream=stream.id, term=stream.term, wanted=bool(wanted), max_fps=top, viewers=viewers)
        if stream.forward is None and not wanted:
            return []
        if forward == stream.forward:
            return []
        stream.forward = forward
        return [Send(stream.holder, forward)]


def assign(stream: str, bridges: Iterable[Bridge]) -> list[Bridge]:
    """One bridge of each group that has one for this stream, by highest random weight: when a bridge comes or goes, no
    streams move but those that it takes or leaves.
    """
    best: dict[str, tuple[bytes, Bridge]] = {}
    for bridge in bridges:
        if not bridge.globs.match(stream):
            continue
        weight = hashlib.blake2b(stream.encode() + bridge.member, digest_size=8).digest()
        if bridge.group not in best or weight > best[bridge.group][0]:
            best[bridge.group] = (weight, bridge)
    return [bridge for _, bridge in best.values()]


def _recall(stream: Stream, reserved: Reservation | None) -> None:
    """Take up in a stream what is known of its former cameras."""
    if reserved is not None:
        stream.user, stream.organizations = reserved.user, reserved.organizations
        stream.term, stream.frame_id, stream.last_holder = reserved.term, reserved.frame_id, reserved.last_holder


def _discard(index: dict[bytes, set[str]], member: bytes, name: str) -> None:
    """Take a name out of a member's; a member without any is not kept."""
    names = index.get(member)
    if names is not None:
        names.discard(name)
        if not names:
            del index[member]


def _status(stream: Stream, now_ms: int) -> StatusUpdate:
    return StatusUpdate(
        stream=stream.id,
        status=stream.status,
        timestamp=now_ms,
        term=stream.term,
        user=stream.user,
        organizations=stream.organizations,
    )


def _refuse(member: bytes, claim: Claim, code: str, message: str) -> Send:
    return Send(member, RefusedReply(request=claim.request, code=code, message=message))
