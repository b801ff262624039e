"""The registry of streams: claims and terms, interest, routes of frames. Pure: messages in, messages to members out.

Rules
- One holder per stream. A claim by the same user takes the stream over; by another user it is refused, also for
  `OWNER_GRACE_S` after the camera went, so that a phone that lost its network finds its stream again.
- Each claim gets a term, higher than all before it, across restarts too. What comes under a lower term is void.
- `Hold` and `Interest` tell a state, not a change: telling them again changes nothing, and after a snapshot
  whatever was not told again is gone.
- Frames are wanted from a holder only while somebody on another process wants them, at the highest rate of those.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from common.globs import Globs
from common.messages import (
    EVERYBODY,
    BadFrame,
    Claim,
    Forward,
    Found,
    FrameHead,
    FromRouter,
    Granted,
    Hold,
    Interest,
    Refused,
    Release,
    Report,
    Revoke,
    SendNewest,
    Status,
    StreamStatus,
    TellCamera,
)
from common.pacing import Sampler

#: How long a stream without a camera still belongs to its user.
OWNER_GRACE_S: Final = 30.0
#: How long a stream that nobody watches is remembered after its camera went, while there is room: its frame ids go on
#: from there, and late alerts are still its user's.
RETAIN_S: Final = 86_400.0
#: Frame ids left out when a stream moves to another process, whose predecessor may have sent more than it told.
FRAME_ID_JUMP: Final = 1 << 16
#: Most reasons that are kept apart for a stream.
MAX_REASONS: Final = 16
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
    ended_at: float = 0.0
    interests: dict[bytes, Interest] = field(default_factory=dict)
    bridges: dict[str, bytes] = field(default_factory=dict)
    confirmed: bool = False
    forward: Forward | None = None
    routes: list[tuple[bytes, Sampler | None]] = field(default_factory=list)
    told_bad_term: int = -1
    announced: Status | None = None
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
    """

    def __init__(self, epoch: int, *, max_streams: int, syncing: bool = False) -> None:
        self._syncing = syncing
        self._next_term = epoch << 20
        self._max_streams = max_streams
        self._streams: dict[str, Stream] = {}
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
        """A camera wants the stream: `Granted`, with a `Revoke` for whom it takes over, or `Refused`."""
        stream = self._find_or_make(claim.stream, now)
        if stream is None:
            return [
                _refuse(member, claim, "ROUTING_ERROR", f"{self._max_streams} streams are known, which is the most")
            ]
        owned = stream.holder is not None or now - stream.ended_at < OWNER_GRACE_S
        if owned and stream.user is not None and stream.user != claim.user:
            return [_refuse(member, claim, "UNAUTHORIZED", "this stream belongs to another user")]
        sends: list[Send] = []
        if stream.holder is not None:
            sends.append(Send(stream.holder, Revoke(stream=stream.id, term=stream.term)))
            self._held[stream.holder].discard(stream.id)
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
            Send(member, Granted(request=claim.request, stream=stream.id, term=stream.term, first_frame_id=first))
        )
        return sends

    def hold(self, member: bytes, hold: Hold, now: float, now_ms: int) -> list[Send]:
        """A gateway tells the state of a stream that it holds."""
        stream = self._find_or_make(hold.stream, now)
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
            self._held[stream.holder].discard(stream.id)
        self._next_term = max(self._next_term, hold.term)
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
        return sends + self._announce(stream, now_ms) + self._reroute(stream)

    def report(self, member: bytes, report: Report) -> None:
        """Moving figures: of streams that this member holds, and of what its viewers missed of any."""
        for name, why, count in report.missed:
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
        sends = self._end(stream, now, now_ms)
        stream.last_holder = member
        return sends

    def bad_frame(self, bad: BadFrame) -> list[Send]:
        """Somebody could not decode a frame: the camera is told once per term."""
        stream = self._streams.get(bad.stream)
        if stream is None or stream.holder is None or stream.told_bad_term == stream.term:
            return []
        stream.told_bad_term = stream.term
        return [Send(stream.holder, TellCamera(stream=stream.id, code="INVALID_MESSAGE", message=bad.reason))]

    # ── viewers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def interest(self, member: bytes, interest: Interest, now: float, now_ms: int) -> list[Send]:
        """What a gateway's viewers want of a stream; the first after a greeting gets the present status."""
        again = self._told(member, 1, interest.stream)
        if not interest.viewers and not interest.alert_viewers:
            return self._drop_interest(member, interest.stream)
        stream = self._find_or_make(interest.stream, now, waited_for=interest.user is None)
        if stream is None:
            return []
        new = again or member not in stream.interests
        stream.interests[member] = interest
        stream.frame_id = max(stream.frame_id, interest.floor)
        self._wanted.setdefault(member, set()).add(stream.id)
        if stream.user is None:
            stream.user, stream.organizations = interest.user, interest.organizations
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

    def found(self, request: int, name: str) -> Found | Refused:
        """Whose a stream is, and how it stands. A camera that went leaves the stream to its user."""
        stream = self._streams.get(name)
        if stream is not None:
            return Found(
                request=request,
                stream=name,
                status=stream.status,
                user=stream.user,
                organizations=stream.organizations,
                term=stream.term,
            )
        if len(self._waited_for) >= self._max_streams:
            text = f"{self._max_streams} streams are waited for, which is the most"
            return Refused(request=request, code="ROUTING_ERROR", message=text)
        return Found(request=request, stream=name, status="offline")

    def owner(self, name: str) -> str | None:
        """Whose a stream is, or was last."""
        stream = self._streams.get(name)
        return stream.user if stream is not None else None

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

    def prune(self, now: float) -> None:
        """Forget streams that ended long ago and that nobody waits for."""
        for stream in list(self._streams.values()):
            if stream.holder is None and not stream.interests and now - stream.ended_at > RETAIN_S:
                del self._streams[stream.id]
                self._waited_for.discard(stream.id)

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

    def totals(self) -> dict[str, int]:
        """Counts over all gateways."""
        producers = video = alerts = 0
        for stream in self._streams.values():
            if stream.holder is not None:
                producers += stream.producing
                alerts += stream.wants_alerts
            for interest in stream.interests.values():
                video += interest.viewers
                alerts += interest.alert_viewers
        return {"producers": producers, "videoConsumers": video, "alertConsumers": alerts}

    def rows(self, names: dict[bytes, str], now_ms: int) -> list[dict[str, Any]]:
        """Every stream that has a camera, for ``stats`` and ``GET /streams``."""
        return [
            {
                "streamId": s.id,
                "userId": s.user,
                "organizations": s.organizations,
                "status": s.status,
                "fps": round(s.fps, 2),
                "totalFrames": s.total_frames,
                "uptime": max(0, now_ms - s.started_at) // 1000,
                "viewers": sum(i.viewers for i in s.interests.values()),
                "alertViewers": sum(i.alert_viewers for i in s.interests.values()),
                "gateway": names.get(s.holder or b""),
                "mlbridge": ", ".join(sorted(names.get(m, "?") for m in s.bridges.values())) or None,
                "startedAt": s.started_at,
                "lastFrameAt": s.last_frame_at,
                "frameId": s.frame_id,
                "skipped": dict(s.missed),
            }
            for s in self.held()
        ]

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _find_or_make(self, name: str, now: float, *, waited_for: bool = False) -> Stream | None:
        """The stream; None when there are too many: of those with a user, or of those that are only waited for."""
        stream = self._streams.get(name)
        if stream is not None and (waited_for or name not in self._waited_for):
            return stream
        if waited_for:
            if len(self._waited_for) >= self._max_streams:
                return None
            self._waited_for.add(name)
        else:
            if len(self._streams) - len(self._waited_for) >= self._max_streams and not self._evict_one():
                return None
            self._waited_for.discard(name)
        if stream is None:
            stream = self._streams[name] = Stream(name, ended_at=now - OWNER_GRACE_S)
        return stream

    def _evict_one(self) -> bool:
        idle = [
            s for s in self._streams.values()
            if s.holder is None and not s.interests and s.id not in self._waited_for
        ]  # fmt: skip
        if not idle:
            return False
        del self._streams[min(idle, key=lambda s: s.ended_at).id]
        return True

    def _forget_if_empty(self, stream: Stream) -> None:
        if stream.user is None and stream.holder is None and not stream.interests:
            self._streams.pop(stream.id, None)
            self._waited_for.discard(stream.id)

    def _set_holder(self, stream: Stream, member: bytes) -> None:
        stream.holder = stream.last_holder = member
        self._held.setdefault(member, set()).add(stream.id)

    def _end(self, stream: Stream, now: float, now_ms: int) -> list[Send]:
        # Without its `Release` nobody knows its last frame id: even the same holder's next claim has to jump.
        stream.last_holder = None
        if stream.holder is not None:
            self._held.get(stream.holder, set()).discard(stream.id)
        stream.holder, stream.status, stream.ended_at = None, "offline", now
        stream.producing = stream.wants_alerts = False
        stream.fps, stream.forward, stream.routes, stream.bridges = 0.0, None, [], {}
        return self._announce(stream, now_ms)

    def _drop_interest(self, member: bytes, name: str) -> list[Send]:
        self._wanted.get(member, set()).discard(name)
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

        Nothing is asked before its first `Hold`: the camera's gateway may not have taken the grant in yet.
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


def _status(stream: Stream, now_ms: int) -> Status:
    return Status(
        stream=stream.id,
        status=stream.status,
        timestamp=now_ms,
        term=stream.term,
        user=stream.user,
        organizations=stream.organizations,
    )


def _refuse(member: bytes, claim: Claim, code: str, message: str) -> Send:
    return Send(member, Refused(request=claim.request, code=code, message=message))
