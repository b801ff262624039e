"""The registry of streams over random histories of gateways, cameras, viewers, bridges, losses and restarts.

Messages wait in both directions and can be lost as the bus loses them: all that waits, and then the member greets.
The gateways here are models: they keep what a gateway keeps, and take what they are told as the gateway does.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.kit.examples import seeded
from watchout.common.bus.frames import EVERYBODY, FrameHead
from watchout.common.bus.messages import (
    Claim,
    Forward,
    FromMember,
    FromRouter,
    GrantedReply,
    Interest,
    PublicationState,
    RefusedReply,
    Release,
    Revoke,
    SnapshotEnd,
    StatusUpdate,
    StreamReport,
)
from watchout.common.bus.reply_records import Totals
from watchout.router.streams.registry import Streams
from watchout.router.streams.routing import assign
from watchout.router.streams.stream import BridgeRecord, Send

NOW_MS = 1_700_000_000_000
NAMES = ("x", "y")
GATEWAYS = ("g1", "g2", "g3")
#: Mostly one stream on two gateways, so that what happens meets.
ANY_STREAM = st.sampled_from(["x", "x", "x", "y"])
ANY_GATEWAY = st.sampled_from(["g1", "g1", "g2", "g2", "g3"])
TROUBLES = (*["hole"] * 6, "silence", "death", "restart")
WAITS = st.sampled_from([True, True, False])
USERS = ("ann", "ann", "ann", "bob")
#: Short, so that users follow each other.
RESERVED_S = 30.0
BRIDGES = {"m1": "day", "m2": "day", "m3": "night"}
#: Members of the former release have no address: the router sends them their frames, and they theirs to it.
WITHOUT_ADDRESS = ("g3", "m2")


def address(member: bytes) -> str | None:
    """Where a member accepts frames of others."""
    name = member.decode().strip()
    return None if name.startswith(WITHOUT_ADDRESS) else f"at {name}"


@dataclass
class Camera:
    """A camera's stream that a gateway holds."""

    user: str
    term: int
    last_frame_id: int
    producing: bool
    wants_alerts: bool
    forward: Forward | None = None
    #: Who gets the frames directly, with the rates.
    receivers: dict[str, float | None] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return "streaming" if self.producing else "online"


@dataclass
class Gateway:
    """What a gateway knows, and what is under way to it and from it."""

    id: bytes
    known: bool = False
    cameras: dict[str, Camera] = field(default_factory=dict)
    viewers: dict[str, tuple[int, int, float | None]] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    told: dict[str, StatusUpdate] = field(default_factory=dict)
    asked: dict[int, tuple[str, bool, bool, bool]] = field(default_factory=dict)
    granted: list[GrantedReply] = field(default_factory=list)
    up: deque[FromMember] = field(default_factory=deque)
    down: deque[FromRouter] = field(default_factory=deque)
    to_tell: deque[tuple[str, str]] | None = None

    def say(self, message: FromMember) -> None:
        if self.known:
            self.up.append(message)

    def saw(self, stream: str, frame_id: int) -> None:
        self.seen[stream] = max(self.seen.get(stream, 0), frame_id)

    def hold(self, stream: str) -> PublicationState:
        camera = self.cameras[stream]
        return PublicationState(
            stream=stream, user=camera.user, term=camera.term, status=camera.status,  # type: ignore[arg-type]
            producing=camera.producing, wants_alerts=camera.wants_alerts, frame_id=camera.last_frame_id,
            total_frames=0, fps=0.0, started_at=NOW_MS, forwarding=bool(camera.receivers),
        )  # fmt: skip

    def interest(self, stream: str) -> Interest:
        viewers, alerts, max_fps = self.viewers.get(stream, (0, 0, None))
        return Interest(
            stream=stream, viewers=viewers, alert_viewers=alerts, max_fps=max_fps, floor=self.seen.get(stream, 0),
            user=self.told[stream].user if stream in self.told else None,
        )  # fmt: skip

    def forget_if_empty(self, stream: str) -> None:
        if stream not in self.cameras and stream not in self.viewers:
            self.seen.pop(stream, None)
            self.told.pop(stream, None)

    def lost(self) -> None:
        """All that was under way is lost, requests too."""
        self.known, self.to_tell = False, None
        self.up.clear()
        self.down.clear()
        answered = {granted.request for granted in self.granted}
        self.asked = {request: asked for request, asked in self.asked.items() if request in answered}

    def greeted(self) -> None:
        """The telling begins."""
        self.lost()
        self.known = True
        self.to_tell = deque(
            [*(("hold", name) for name in self.cameras), *(("viewers", name) for name in self.viewers)]
        )

    def tell(self) -> None:
        """One step of the telling."""
        assert self.to_tell is not None
        if not self.to_tell:
            self.to_tell = None
            self.say(SnapshotEnd(publications=0, interests=0))
            return
        what, name = self.to_tell.popleft()
        if what == "viewers":
            self.say(self.interest(name))
        elif name in self.cameras:
            self.cameras[name].forward = None
            self.say(self.hold(name))

    def publish(self, granted: GrantedReply) -> None:
        """Whoever asked goes on a little later than the answer came, also when the router is lost meanwhile."""
        user, gives_up, producing, wants_alerts = self.asked.pop(granted.request, ("", True, False, False))
        if gives_up:
            self.say(Release(stream=granted.stream, term=granted.term))
            return
        last = max(granted.first_frame_id - 1, self.seen.get(granted.stream, 0))
        self.cameras[granted.stream] = Camera(user, granted.term, last, producing, wants_alerts)
        self.say(self.hold(granted.stream))

    def take(self, message: FromRouter) -> None:
        """One message of the router."""
        match message:
            case GrantedReply():
                self.granted.append(message)
            case RefusedReply():
                self.asked.pop(message.request, None)
            case Revoke():
                camera = self.cameras.get(message.stream)
                if camera is not None and camera.term <= message.term:
                    del self.cameras[message.stream]
                    self.forget_if_empty(message.stream)
            case Forward():
                camera = self.cameras.get(message.stream)
                if camera is not None and camera.term == message.term:
                    camera.forward = message
                    before = camera.receivers if message.partial else {}
                    camera.receivers = before | {receiver.at: receiver.max_fps for receiver in message.receivers}
            case StatusUpdate():
                self.told[message.stream] = message


class Histories(RuleBasedStateMachine):
    """Every rule is something that happens; the invariants hold after each."""

    streams: Streams

    @initialize()
    def start(self) -> None:
        self.now = 1000.0
        self.epoch = 5
        self.streams = Streams(self.epoch, max_streams=100, reserved_s=RESERVED_S)
        self.gateways = {name: Gateway(name.encode().ljust(8)) for name in GATEWAYS}
        self.bridges: dict[bytes, BridgeRecord] = {}
        self.waiting: list[tuple[bytes, Claim]] | None = None
        self.names = 0
        self.requests = 0
        self.highest_term = 0
        self.terms: dict[str, int] = {}
        self.told_ids: dict[str, int] = {}
        self.sent_ids: dict[str, int] = {}
        #: Who had the stream last, and when it was last seen to be his.
        self.had: dict[str, tuple[str, float]] = {}
        self.all_arrives()

    # ── what happens ─────────────────────────────────────────────────────────────────────────────────────────────

    @rule(name=ANY_GATEWAY, what=st.sampled_from(TROUBLES), waits=WAITS)
    def trouble_comes(self, name: str, what: str, waits: bool) -> None:
        """All that was under way is lost, and the member greets: at once, or later."""
        match what:
            case "hole":
                self.greets(name)
            case "silence":
                self.is_lost(name)
            case "death":
                self.is_lost(name)
                self.names += 1
                self.gateways[name] = Gateway(f"{name}.{self.names}".encode().ljust(8))
            case _:
                self.epoch += 1
                self.streams = Streams(self.epoch, max_streams=100, syncing=True, reserved_s=RESERVED_S)
                self.had.clear()
                self.waiting = []
                self.bridges.clear()
                self.told_ids.clear()
                self.sent_ids.clear()
                for gateway in self.gateways.values():
                    gateway.lost()
        if not waits:
            self.all_arrives()

    @rule(name=ANY_GATEWAY)
    def member_greets(self, name: str) -> None:
        if not self.gateways[name].known:
            self.greets(name)

    @rule(
        name=ANY_GATEWAY, stream=ANY_STREAM, user=st.sampled_from(USERS),
        gives_up=st.sampled_from([False, False, False, True]), producing=st.booleans(), wants_alerts=st.booleans(),
        waits=WAITS,
    )  # fmt: skip
    def camera_comes(
        self, name: str, stream: str, user: str, gives_up: bool, producing: bool, wants_alerts: bool, waits: bool
    ) -> None:
        gateway = self.gateways[name]
        if gateway.known:
            self.requests += 1
            gateway.asked[self.requests] = (user, gives_up, producing, wants_alerts)
            floor = gateway.seen.get(stream, 0)
            gateway.say(Claim(request=self.requests, stream=stream, user=user, producing=producing, floor=floor))
        self.flow(waits)

    @rule(name=ANY_GATEWAY, stream=ANY_STREAM, waits=WAITS)
    def camera_leaves(self, name: str, stream: str, waits: bool) -> None:
        gateway = self.gateways[name]
        camera = gateway.cameras.pop(stream, None)
        if camera is not None:
            gateway.say(Release(stream=stream, term=camera.term, frame_id=camera.last_frame_id))
            gateway.forget_if_empty(stream)
        self.flow(waits)

    @rule(name=ANY_GATEWAY, stream=ANY_STREAM, waits=WAITS)
    def camera_changes(self, name: str, stream: str, waits: bool) -> None:
        gateway = self.gateways[name]
        if stream in gateway.cameras:
            gateway.cameras[stream].producing ^= True
            gateway.say(gateway.hold(stream))
        self.flow(waits)

    @rule(stream=ANY_STREAM, count=st.integers(1, 50))
    def cameras_send(self, stream: str, count: int) -> None:
        for gateway in self.gateways.values():
            if stream in gateway.cameras:
                self.camera_sends(gateway, gateway.cameras[stream], stream, count)

    def camera_sends(self, gateway: Gateway, camera: Camera, stream: str, count: int) -> None:
        camera.last_frame_id += count
        gateway.saw(stream, camera.last_frame_id)
        known = self.streams.get(stream)
        valid = known is not None and known.gateway is not None and known.term == camera.term
        head = FrameHead(stream, camera.term, camera.last_frame_id, NOW_MS, 1, 1, EVERYBODY, 40)
        receivers = self.streams.route(head, self.now)
        assert valid or receivers == []
        assert len(receivers) == len(set(receivers))
        assert gateway.id not in receivers
        if valid:
            assert camera.last_frame_id - count >= self.sent_ids.get(stream, 0)
            self.sent_ids[stream] = camera.last_frame_id
        if camera.forward is not None and camera.forward.wanted:
            for other in self.gateways.values():
                if other.id in receivers and stream in other.viewers:
                    other.saw(stream, camera.last_frame_id)

    @rule(name=ANY_GATEWAY, waits=WAITS)
    def reports(self, name: str, waits: bool) -> None:
        gateway = self.gateways[name]
        gateway.say(StreamReport(rows=[(s, c.last_frame_id, 0, 0.0, None) for s, c in gateway.cameras.items()]))
        self.flow(waits)

    @rule(
        name=ANY_GATEWAY, stream=ANY_STREAM, viewers=st.integers(0, 2),
        alerts=st.integers(0, 1), max_fps=st.sampled_from([None, 1.0, 5.0, 25.0]), waits=WAITS,
    )  # fmt: skip
    def viewers_change(
        self, name: str, stream: str, viewers: int, alerts: int, max_fps: float | None, waits: bool
    ) -> None:
        gateway = self.gateways[name]
        if viewers or alerts:
            gateway.viewers[stream] = (viewers, alerts, max_fps)
        elif gateway.viewers.pop(stream, None) is None:
            return
        gateway.say(gateway.interest(stream))
        gateway.forget_if_empty(stream)
        self.flow(waits)

    @rule(name=st.sampled_from(sorted(BRIDGES)), max_fps=st.sampled_from([1.0, 2.0, None]))
    def bridge_comes_or_goes(self, name: str, max_fps: float | None) -> None:
        member = name.encode().ljust(8)
        if max_fps is None:
            self.bridges.pop(member, None)
            self.streams.remove_member(member, self.now, NOW_MS)
            self.finish()
            return
        self.streams.begin_snapshot(member, address(member))
        self.finish()
        self.bridges[member] = BridgeRecord(member, BRIDGES[name], max_fps)
        self.streams.add_bridge(self.bridges[member])
        self.finish()
        self.streams.end_snapshot(member, self.now, NOW_MS)
        self.finish()

    @rule(seconds=st.sampled_from([0.1, 5.0, 31.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.flow(waits=seconds < 1)  # nothing is under way for longer
        self.now += seconds
        self.streams.prune(self.now)
        self.forget_what_the_registry_forgot()

    # ── what is under way arrives ────────────────────────────────────────────────────────────────────────────────

    @rule(name=ANY_GATEWAY, told=st.integers(0, 3), up=st.integers(0, 3), down=st.integers(0, 3))
    def some_arrives(self, name: str, told: int, up: int, down: int) -> None:
        gateway = self.gateways[name]
        granted, gateway.granted = gateway.granted, []
        for grant in granted:
            gateway.publish(grant)
        for _ in range(told):
            if gateway.to_tell is not None:
                gateway.tell()
        for _ in range(min(up, len(gateway.up))):
            self.judge(gateway, gateway.up.popleft())
        for _ in range(min(down, len(gateway.down))):
            gateway.take(gateway.down.popleft())

    def flow(self, waits: bool) -> None:
        """Unless it waits, all that is under way arrives; after that the registry is what the members say."""
        while not waits and any(g.up or g.down or g.granted or g.to_tell is not None for g in self.gateways.values()):
            for name in GATEWAYS:
                self.some_arrives(name, 1, 1, 1)
        if not waits and self.waiting is None and all(gateway.known for gateway in self.gateways.values()):
            self.registry_is_the_union_of_the_members()
            self.holders_forward_what_interest_says()
            self.statuses_told_are_the_present_ones()
            self.alerts_would_reach_whoever_wants_them()

    @rule()
    def router_decides(self) -> None:
        """A while after its start, when all have told what they hold, a router decides the claims that waited."""
        if self.waiting is not None:
            for name in GATEWAYS:
                self.member_greets(name)
            self.flow(waits=False)
            waiting, self.waiting = self.waiting, None
            self.streams.settle(NOW_MS)
            self.finish()
            for member, claim in waiting:
                if any(gateway.id == member and gateway.known for gateway in self.gateways.values()):
                    self.deliver(self.claim(member, claim))

    @rule()
    def all_arrives(self) -> None:
        """Every member greets if it has to, and all arrives."""
        for name in GATEWAYS:
            self.member_greets(name)
        self.flow(waits=False)
        self.router_decides()
        self.flow(waits=False)

    def greets(self, name: str) -> None:
        self.gateways[name].greeted()
        member = self.gateways[name].id
        self.streams.begin_snapshot(member, address(member))
        self.finish()

    def is_lost(self, name: str) -> None:
        if self.gateways[name].known:
            self.gateways[name].lost()
            self.streams.remove_member(self.gateways[name].id, self.now, NOW_MS)
            self.finish()

    def finish(self) -> None:
        """Do all that is due for streams."""
        while self.streams.is_unfinished:
            self.deliver(self.streams.finish_some(1))

    def judge(self, gateway: Gateway, message: FromMember) -> None:
        """The router's side of one message."""
        known, now = self.streams, self.now
        sends: list[Send] = []
        match message:
            case Claim() if self.waiting is not None:
                self.waiting.append((gateway.id, message))
            case Claim():
                sends = self.claim(gateway.id, message)
            case PublicationState():
                sends = known.set_publication(gateway.id, message, NOW_MS)
                if not any(send.member == gateway.id and isinstance(send.body, Revoke) for send in sends):
                    self.tell_id(message.stream, message.frame_id)
            case Interest():
                sends = known.set_interest(gateway.id, message, now, NOW_MS)
                if message.viewers or message.alert_viewers:
                    self.tell_id(message.stream, message.floor)
            case Release():
                valid = self.is_holder(gateway, message.stream, message.term)
                sends = known.release(gateway.id, message, now, NOW_MS)
                if valid:
                    self.tell_id(message.stream, message.frame_id)
            case StreamReport():
                known.report(gateway.id, message)
                for stream, frame_id, *_ in message.rows:
                    if known.get(stream) is not None and known.get(stream).gateway == gateway.id:  # type: ignore[union-attr]
                        self.tell_id(stream, frame_id)
            case SnapshotEnd():
                known.end_snapshot(gateway.id, now, NOW_MS)
                self.finish()
        self.deliver(sends)
        self.forget_what_the_registry_forgot()

    def claim(self, member: bytes, claim: Claim) -> list[Send]:
        self.forget_what_the_registry_forgot()
        sends = self.streams.claim(member, claim, self.now, NOW_MS)
        if isinstance(sends[-1].body, GrantedReply) and claim.stream in self.had:
            user, seen_at = self.had[claim.stream]
            assert user == claim.user or self.now - seen_at >= RESERVED_S
        assert all(send.body.first_frame_id > claim.floor for send in sends if isinstance(send.body, GrantedReply))
        return sends

    def is_holder(self, gateway: Gateway, stream: str, term: int) -> bool:
        known = self.streams.get(stream)
        return known is not None and known.gateway == gateway.id and known.term == term

    def tell_id(self, stream: str, frame_id: int) -> None:
        self.told_ids[stream] = max(self.told_ids.get(stream, 0), frame_id)

    def forget_what_the_registry_forgot(self) -> None:
        for stream in NAMES:
            if self.streams.get(stream) is None and self.streams.owner(stream) is None:
                self.told_ids.pop(stream, None)
                self.sent_ids.pop(stream, None)
                self.terms.pop(f"{self.epoch} {stream}", None)

    def deliver(self, sends: list[Send]) -> None:
        members = {gateway.id: gateway for gateway in self.gateways.values() if gateway.known}
        for send in sends:
            assert send.member in members, "a message for a member that is not there"
            body: Any = send.body
            if isinstance(body, GrantedReply):
                assert body.term > self.highest_term
                self.highest_term = body.term
                assert body.first_frame_id > self.told_ids.get(body.stream, 0)
            members[send.member].down.append(body)

    # ── what always holds ────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def one_member_holds_a_stream_and_the_index_says_the_same(self) -> None:
        by_member = {(member, name) for member, held in self.streams._table.published_at.items() for name in held}
        assert by_member == {(s.gateway, s.id) for s in self.streams.published()}
        wanted = {(member, name) for member, names in self.streams._table.viewed_at.items() for name in names}
        known = [s for name in NAMES if (s := self.streams.get(name)) is not None]
        assert wanted == {(member, s.id) for s in known for member in s.interests}

    @invariant()
    def what_is_neither_held_nor_waited_for_is_a_reservation(self) -> None:
        known = [s for name in NAMES if (s := self.streams.get(name)) is not None]
        assert len(self.streams) == len(known)
        assert all(s.gateway is not None or s.interests for s in known)
        published = [s for s in known if s.gateway is not None]
        assert self.streams._table.published_ids == [s.id for s in published]
        interests = [interest for s in known for interest in s.interests.values()]
        assert self.streams.totals(connections=1) == Totals(
            producers=sum(s.producing for s in published), video_consumers=sum(each.viewers for each in interests),
            alert_consumers=sum(each.alert_viewers for each in interests) + sum(s.wants_alerts for s in published),
            connections=1,
        )  # fmt: skip
        assert self.streams._table.awaited == {s.id for s in known if s.gateway is None and s.user is None}
        for name, reserved in self.streams._ownership.reservations.items():
            stream = self.streams.get(name)
            assert stream is None or (stream.gateway is None and stream.user == reserved.user)
        self.had |= {s.id: (s.user, self.now) for s in known if s.gateway is not None and s.user is not None}

    @invariant()
    def terms_never_fall(self) -> None:
        for name in NAMES:
            known = self.streams.get(name)
            if known is not None and known.gateway is not None:
                assert known.term >= self.terms.get(f"{self.epoch} {name}", 0)
                self.terms[f"{self.epoch} {name}"] = known.term

    @invariant()
    def nothing_is_left_of_members_that_are_gone(self) -> None:
        here = {gateway.id for gateway in self.gateways.values() if gateway.known} | set(self.bridges)
        table = self.streams._table
        unconfirmed, routing = self.streams._snapshots._unconfirmed, self.streams._routing
        traces = {*table.published_at, *table.viewed_at, *unconfirmed, *routing.bridges, *routing._addresses}
        for name in NAMES:
            known = self.streams.get(name)
            if known is not None:
                traces |= {*known.interests, *known.bridges.values(), *(member for member, _ in known.routes)}
                traces |= {known.gateway} - {None}  # type: ignore[arg-type]
        assert traces <= here

    # ── what holds when all has arrived ──────────────────────────────────────────────────────────────────────────

    def registry_is_the_union_of_the_members(self) -> None:
        cameras = [
            (name, gateway.id, camera.term, camera.user, camera.status, camera.wants_alerts)
            for gateway in self.gateways.values()
            for name, camera in gateway.cameras.items()
        ]
        held = [(s.id, s.gateway, s.term, s.user, s.status, s.wants_alerts) for s in self.streams.published()]
        assert sorted(cameras) == held
        wanted = {(name, g.id): viewers for g in self.gateways.values() for name, viewers in g.viewers.items()}
        registry = {
            (name, member): (i.viewers, i.alert_viewers, i.max_fps)
            for name in NAMES
            for member, i in (self.streams.get(name).interests if self.streams.get(name) else {}).items()  # type: ignore[union-attr]
        }
        assert registry == wanted

    def holders_forward_what_interest_says(self) -> None:
        for holder in self.gateways.values():
            for name, camera in holder.cameras.items():
                wanted = [
                    (gateway.id, viewers[2])
                    for gateway in self.gateways.values()
                    for stream, viewers in gateway.viewers.items()
                    if gateway is not holder and stream == name and viewers[0]
                ]
                if camera.producing:
                    wanted += [(bridge.member, bridge.max_fps) for bridge in assign(name, self.bridges.values())]
                direct = {at: rate for m, rate in wanted if address(holder.id) and (at := address(m))}
                assert camera.receivers == direct
                rates = [rate for m, rate in wanted if not address(holder.id) or not address(m)]
                asked = camera.forward is not None and camera.forward.wanted
                assert asked is bool(rates)
                if camera.forward is not None and asked:
                    top = None if None in rates else max(rate for rate in rates if rate is not None)
                    assert camera.forward.max_fps == top

    def statuses_told_are_the_present_ones(self) -> None:
        for gateway in self.gateways.values():
            for name in gateway.viewers:
                known = self.streams.get(name)
                assert known is not None
                if name not in gateway.cameras:
                    told = gateway.told[name]
                    assert told.status == known.status
                    assert told.user == known.user or (told.user is None and known.gateway is None)

    def alerts_would_reach_whoever_wants_them(self) -> None:
        for name in NAMES:
            expected = {g.id for g in self.gateways.values() if g.viewers.get(name, (0, 0, None))[1]}
            cameras = [(g.id, g.cameras[name]) for g in self.gateways.values() if name in g.cameras]
            expected |= {member for member, _ in cameras}
            receivers, count = self.streams.alert_receivers(name)
            assert set(receivers) == expected
            assert count == sum(g.viewers.get(name, (0, 0, None))[1] for g in self.gateways.values()) + sum(
                camera.wants_alerts for _, camera in cameras
            )


Histories.TestCase.settings = settings(max_examples=60, stateful_step_count=50)


class TestHistories(Histories.TestCase):
    """In any history the registry is right, and becomes whole again: short ones, made as short as can be."""


@seeded(30)
def test_in_a_long_history_the_registry_is_right_and_becomes_whole_again(seed: int) -> None:
    chance = random.Random(seed)
    room = Histories()
    room.start()

    def one(*choices: Any) -> Any:
        return chance.choice(choices)

    happens: dict[str, Callable[[str, str, bool], None]] = {
        "comes": lambda name, stream, waits: room.camera_comes(
            name, stream, one(*USERS), one(True, *[False] * 5), one(True, False), one(True, False), waits
        ),
        "leaves": lambda name, stream, waits: room.camera_leaves(name, stream, waits),
        "changes": lambda name, stream, waits: room.camera_changes(name, stream, waits),
        "sends": lambda _, stream, __: room.cameras_send(stream, chance.randint(1, 50)),
        "reports": lambda name, _, waits: room.reports(name, waits),
        "views": lambda name, stream, waits: room.viewers_change(
            name, stream, chance.randint(0, 2), chance.randint(0, 1), one(None, 1.0, 5.0, 25.0), waits
        ),
        "bridge": lambda *_: room.bridge_comes_or_goes(one(*BRIDGES), one(1.0, 2.0, None)),
        "time": lambda *_: room.time_passes(one(0.1, 5.0, 31.0, 700.0)),
        "some": lambda name, *_: room.some_arrives(name, *(chance.randint(0, 3) for _ in range(3))),
        "trouble": lambda name, _, waits: room.trouble_comes(name, one(*TROUBLES), waits),
        "greets": lambda name, *_: room.member_greets(name),
        "decides": lambda *_: room.router_decides(),
        "all": lambda *_: room.all_arrives(),
    }
    often = {
        "comes": 6,
        "leaves": 3,
        "changes": 2,
        "sends": 3,
        "views": 3,
        "some": 12,
        "trouble": 3,
        "greets": 4,
        "decides": 2,
    }
    for what in chance.choices(list(happens), [often.get(what, 1) for what in happens], k=2000):
        happens[what](one(*GATEWAYS), one("x", "x", "x", "y"), one(*[True] * 9, False))
        room.one_member_holds_a_stream_and_the_index_says_the_same()
        room.terms_never_fall()
        room.what_is_neither_held_nor_waited_for_is_a_reservation()
        room.nothing_is_left_of_members_that_are_gone()
