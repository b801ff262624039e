"""What the router remembers for `watchout-ctl why`: claims, take-overs, lost members; and its answer."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import nsmallest

import msgspec

from watchout.common.alerts.model import Alert
from watchout.common.bus.messages import Claim, GrantedReply, RefusedReply, Release
from watchout.common.why.answer import MAX_ROWS, AlertNow, StreamNow, WhyAnswer, encode_answer
from watchout.common.why.incident import MAX_STREAMS, Incident, IncidentKind
from watchout.common.why.memory import MAX_KNOWN, IncidentMemory
from watchout.router.alerts.recent import RecentAlerts
from watchout.router.members import Member, Members
from watchout.router.streams.registry import Streams
from watchout.router.streams.stream import RouterStream, Send


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterIncidents:
    """The router's part of `watchout-ctl why`. `SlotRouter` creates one; `MessageHandler` reports to it and asks it.

    Attributes:
        memory: What is remembered; `AlertDelivery` adds to it too.
        name: The name of the process.
        process: The id of the process where there are several slots, else empty.
        started_ms: When the router started, in ms since the epoch.
    """

    memory: IncidentMemory
    members: Members
    streams: Streams
    alerts: RecentAlerts
    name: str
    process: str
    started_ms: int

    def on_claim(self, member: bytes, claim: Claim, former: bytes | None, sends: Iterable[Send], now_ms: int) -> None:
        """Remember a claim, or why it was refused.

        Args:
            member: The gateway that claims.
            claim: The claim.
            former: The gateway that had the publisher before; None: there was none.
            sends: What the router sends for the claim.
            now_ms: The present time, in ms since the epoch.
        """
        gateway = self._name_of(member)
        for send in sends:
            if isinstance(send.body, RefusedReply):
                reason = f"{send.body.code}: {send.body.message}"
                joins = (IncidentKind.CLAIM_REFUSED, claim.stream, claim.user)
                self._add(IncidentKind.CLAIM_REFUSED, claim.stream, claim.user, reason, now_ms, joins)
            elif isinstance(send.body, GrantedReply):
                kind = IncidentKind.CLAIMED if former is None else IncidentKind.TAKEN_OVER
                self._add(kind, claim.stream, claim.user, gateway, now_ms)

    def on_release(self, release: Release, now_ms: int) -> None:
        """Remember that the publisher of a stream is gone, unless another one has the stream.

        Args:
            release: The message of its gateway.
            now_ms: The present time, in ms since the epoch.
        """
        stream = self.streams.get(release.stream)
        if stream is not None and stream.term == release.term and stream.gateway is not None:
            self._add(IncidentKind.RELEASED, release.stream, stream.user or "", self._name_of(stream.gateway), now_ms)

    def on_member_gone(self, member: Member, why: str, now_ms: int) -> None:
        """Remember a gateway or bridge that fell silent, with its streams; called before they are forgotten.

        Args:
            member: The member.
            why: "ended" for one that said so.
            now_ms: The present time, in ms since the epoch.
        """
        hello = member.hello
        if why == "ended" or hello.kind == "ctl":
            return
        published, viewed = self.streams.published_by(member.id), self.streams.viewed_by(member.id)
        first = [*nsmallest(MAX_STREAMS, published), *nsmallest(MAX_STREAMS, viewed)]
        streams = list(dict.fromkeys(first))
        where = f" on {hello.host}" if hello.host else ""
        numbers = {"published": len(published), "viewed": len(viewed)}
        reason = f"{hello.kind} {hello.name}{where} (pid {hello.pid}): {why}"
        for subjects in (tuple(streams[:MAX_STREAMS]), ()) if streams else ((),):
            self.memory.add(
                Incident(what=IncidentKind.MEMBER_LOST, at=now_ms, streams=subjects, reason=reason, numbers=numbers)
            )

    def answer(self, about: str, now: float, now_ms: int) -> bytes:
        """Return what this router knows about a subject, encoded.

        Args:
            about: A stream, user, connection, alert or address.
            now: The router's monotonic clock, in seconds.
            now_ms: The same moment in ms since the epoch.
        """
        found = WhyAnswer(
            kind="router",
            name=self.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            process=self.process,
            now=now_ms,
            started_at=self.started_ms,
            since=self.memory.since(self.started_ms, now_ms),
            incidents=self.memory.about(about, now_ms),
            of_everybody=self.memory.of_everybody(now_ms),
            streams=self._streams_now(about, now),
            alerts=self._alerts_now(about),
        )
        if not found.is_empty:
            return encode_answer(found)
        streams = [stream.id for stream in self.streams.published()[:MAX_KNOWN]]
        known = msgspec.structs.replace(found, known_streams=streams, known=self.memory.known(now_ms))
        return encode_answer(known)

    def _streams_now(self, about: str, now: float) -> list[StreamNow]:
        stream = self.streams.get(about)
        if stream is not None:
            return [self._stream_now(stream, now)]
        reserved = self.streams.reservation_of(about, now)
        if reserved is not None:
            return [StreamNow(stream=about, user=reserved[0], reserved_s=reserved[1])]
        of_user = [each for each in self.streams.published() if each.user == about]
        return [self._stream_now(each, now) for each in of_user[:MAX_ROWS]]

    def _stream_now(self, stream: RouterStream, now: float) -> StreamNow:
        reserved = None if stream.gateway is not None else self.streams.reservation_of(stream.id, now)
        return StreamNow(
            stream=stream.id,
            user=stream.user or "",
            status=stream.status,
            gateway="" if stream.gateway is None else self._name_of(stream.gateway),
            bridges=tuple(sorted(self._name_of(bridge) for bridge in stream.bridges.values())),
            fps=round(stream.fps, 2),
            frames=stream.total_frames,
            viewers=sum(each.viewers for each in stream.interests.values()),
            alert_viewers=sum(each.alert_viewers for each in stream.interests.values()),
            started_at=stream.started_at,
            last_frame_at=stream.last_frame_at,
            reserved_s=0.0 if reserved is None else reserved[1],
            dropped=dict(stream.dropped),
        )

    def _alerts_now(self, about: str) -> list[AlertNow]:
        found = []
        for stream, _, _, frame_id, json, at in self.alerts.of_id(about)[:MAX_ROWS]:
            alert, given = Alert.from_json(json), self.alerts.acknowledgement_of(stream, about)
            found.append(
                AlertNow(
                    id=about,
                    stream=stream,
                    severity=alert.severity,
                    message=alert.message,
                    frame_id=frame_id,
                    timestamp=alert.timestamp,
                    accepted_at=at,
                    acknowledged_by="" if given is None else given.user,
                    acknowledged_at=0 if given is None else given.at,
                    note="" if given is None else given.note or "",
                )
            )
        return found

    def _add(
        self, what: IncidentKind, stream: str, user: str, reason: str, now_ms: int, joins: tuple[str, ...] | None = None
    ) -> None:
        self.memory.add(Incident(what=what, at=now_ms, streams=(stream,), user=user, reason=reason), joins)

    def _name_of(self, member: bytes) -> str:
        known = self.members.get(member)
        return "a gateway that is gone" if known is None else known.hello.name
