"""The stream registry with a clock that stands until a test moves it, and the messages that tests expect."""

from __future__ import annotations

from typing import Any

from watchout.common.bus.frames import EVERYBODY, FrameHead
from watchout.common.bus.messages import (
    Claim,
    Forward,
    FrameReceiver,
    GrantedReply,
    Interest,
    PublicationState,
    RefusedReply,
    Release,
    StatusUpdate,
    StreamReport,
)
from watchout.router.streams.registry import Streams
from watchout.router.streams.stream import BridgeRecord, Send

EPOCH = 5
FIRST = (EPOCH << 20) + 1
NOW_MS = 1_700_000_000_000
A, B, C, M, N = (letter * 8 for letter in (b"a", b"b", b"c", b"m", b"n"))


def at(member: bytes) -> str:
    """The address of a member."""
    return f"unix:f-{member.decode()}"


class Room:
    """A registry with a clock that stands until it is moved."""

    def __init__(self, epoch: int = EPOCH, max_streams: int = 100, *, syncing: bool = False, **reserved: float) -> None:
        self.streams = Streams(epoch, max_streams=max_streams, syncing=syncing, **reserved)  # type: ignore[arg-type]
        self.now = 1000.0

    def claim(
        self, member: bytes, user: str = "ann", stream: str = "cam", floor: int = 0, *, granted: bool = False
    ) -> list[Send]:
        claim = Claim(request=1, stream=stream, user=user, floor=floor, granted=granted)
        return self.streams.claim(member, claim, self.now, NOW_MS)

    def granted(
        self, member: bytes, user: str = "ann", stream: str = "cam", floor: int = 0, *, granted: bool = False
    ) -> GrantedReply:
        """Claim, and expect it to hold."""
        *_, last = self.claim(member, user, stream, floor, granted=granted)
        assert last.member == member
        assert isinstance(last.body, GrantedReply)
        return last.body

    def hold(self, member: bytes, term: int, stream: str = "cam", **changes: Any) -> list[Send]:
        fields: dict[str, Any] = {
            "user": "ann", "status": "streaming", "producing": True, "wants_alerts": False, "frame_id": 0,
            "total_frames": 0, "fps": 0.0, "started_at": NOW_MS,
        }  # fmt: skip
        return self.streams.set_publication(
            member, PublicationState(stream=stream, term=term, **fields | changes), NOW_MS
        )

    def publish(self, member: bytes, user: str = "ann", stream: str = "cam", **changes: Any) -> int:
        """Claim and hold; the term."""
        term = self.granted(member, user, stream).term
        self.hold(member, term, stream, user=user, **changes)
        return term

    def release(self, member: bytes, term: int, frame_id: int = 0, stream: str = "cam") -> list[Send]:
        told = Release(stream=stream, term=term, frame_id=frame_id)
        return self.streams.release(member, told, self.now, NOW_MS)

    def interest(
        self, member: bytes, viewers: int = 1, alerts: int = 0, stream: str = "cam", **more: Any
    ) -> list[Send]:
        told = Interest(stream=stream, viewers=viewers, alert_viewers=alerts, **more)
        return self.streams.set_interest(member, told, self.now, NOW_MS)

    def report(self, member: bytes, frame_id: int, stream: str = "cam") -> None:
        self.streams.report(member, StreamReport(rows=[(stream, frame_id, frame_id, 30.0, NOW_MS)]))

    def route(self, term: int, to: bytes = EVERYBODY, stream: str = "cam") -> list[bytes]:
        return self.streams.route(FrameHead(stream, term, 1, NOW_MS, 1, 1, to, 40), self.now)

    def finished(self) -> list[Send]:
        """Do all that is due for streams."""
        sends: list[Send] = []
        while self.streams.is_unfinished:
            sends += self.streams.finish_some(1)
        return sends

    def greets(self, member: bytes, frames_at: str | None = None) -> list[Send]:
        self.streams.begin_snapshot(member, frames_at)
        return self.finished()

    def synced(self, member: bytes) -> list[Send]:
        self.streams.end_snapshot(member, self.now, NOW_MS)
        return self.finished()

    def settled(self) -> list[Send]:
        self.streams.settle(NOW_MS)
        return self.finished()

    def gone(self, member: bytes) -> list[Send]:
        self.streams.remove_member(member, self.now, NOW_MS)
        return self.finished()

    def joins(self, *members: bytes) -> None:
        """Members with an address join, and have nothing to report."""
        for member in members:
            self.greets(member, at(member))
            self.synced(member)

    def bridge(self, member: bytes, group: str = "day", max_fps: float = 2.0) -> list[Send]:
        self.streams.add_bridge(BridgeRecord(member, group, max_fps))
        return self.finished()

    def holder(self, stream: str = "cam") -> bytes | None:
        known = self.streams.get(stream)
        return known.gateway if known is not None else None


def status(of: str, term: int, user: str | None = "ann", stream: str = "cam") -> StatusUpdate:
    return StatusUpdate(stream=stream, status=of, timestamp=NOW_MS, term=term, user=user)  # type: ignore[arg-type]


def forward(
    term: int, wanted: bool = True, max_fps: float | None = None, stream: str = "cam", viewers: int | None = None
) -> Forward:
    """Without `viewers`: one, where anything is wanted."""
    number = int(wanted) if viewers is None else viewers
    return Forward(stream=stream, term=term, wanted=wanted, max_fps=max_fps, viewers=number)


def direct(term: int, *to: bytes, viewers: int | None = None, **more: Any) -> Forward:
    """Directly to these members, every frame; `rates` are those of the members that want fewer."""
    rates: dict[bytes, float] = more.pop("rates", {})
    receivers = tuple(FrameReceiver(at(member), rates.get(member)) for member in to)
    number = len(to) if viewers is None else viewers
    return Forward(stream="cam", term=term, wanted=False, receivers=receivers, viewers=number, **more)


def forwards(sends: list[Send]) -> list[Send]:
    return [send for send in sends if isinstance(send.body, Forward)]


def refusal(sends: list[Send]) -> str:
    (send,) = sends
    assert isinstance(send.body, RefusedReply)
    return send.body.code
