"""Random histories of the whole hub: its invariants hold."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.kit.hub import FakePublisher, FakeViewer, HubHarness, alert, ms, remote, word
from tests.kit.playbook import read
from watchout.common.bus.messages import (
    Interest,
    PublicationState,
    Release,
    StreamStatus,
)
from watchout.gateway.hub.streams import Publication
from watchout.gateway.model import StreamState

STREAMS = ("a", "b")


class AnyHistory(RuleBasedStateMachine):
    """One gateway with cameras that come, go and move elsewhere, and viewers that come, go, fill up and drain."""

    @initialize()
    def begin(self) -> None:
        self.harness = HubHarness()
        self.hub = self.harness.hub
        self.now = 0.0
        self.screens = [FakeViewer(self.hub) for _ in range(3)]
        self.alerts = 0
        self.term = 0
        self.highest = dict.fromkeys(STREAMS, 0)
        self.cameras: dict[str, tuple[Publication, FakePublisher]] = {}
        self.elsewhere: dict[str, int] = {}
        self.holds: dict[str, int] = {}
        self.interests: dict[str, tuple[int, int]] = {}

    def hear(self) -> None:
        """What the router makes of what it is told."""
        for body in self.hub.reports.changes(self.now):
            match body:
                case PublicationState():
                    self.holds[body.stream] = body.term
                case Release():
                    if self.holds.get(body.stream) == body.term:
                        del self.holds[body.stream]
                case Interest():
                    self.interests[body.stream] = (body.viewers, body.alert_viewers)

    @rule(gap=st.floats(0, 7))
    def time_passes(self, gap: float) -> None:
        self.now += gap
        self.hub.tick(self.now, ms(self.now))

    @rule(stream=st.sampled_from(STREAMS), user=st.sampled_from(["ann", "bob"]), jump=st.integers(-5, 5))
    def a_camera_comes(self, stream: str, user: str, jump: int) -> None:
        self.term += 1
        phone = FakePublisher()
        publication = self.harness.publish(
            phone, stream, user=user, term=self.term, first=max(1, self.highest[stream] + jump), now=self.now
        )
        if stream in self.cameras:
            assert self.cameras[stream][1].lost == [stream]
        self.cameras[stream] = (publication, phone)
        self.elsewhere.pop(stream, None)

    @rule(stream=st.sampled_from(STREAMS), count=st.integers(1, 3))
    def frames_come(self, stream: str, count: int) -> None:
        if stream in self.cameras:
            for _ in range(count):
                self.harness.frame(self.cameras[stream][0], self.now)
                number = self.cameras[stream][0].next_frame_id - 1
                assert number > self.highest[stream] or not self.hub.viewers_of(stream)
                self.highest[stream] = max(self.highest[stream], number)

    @rule(stream=st.sampled_from(STREAMS))
    def a_camera_leaves(self, stream: str) -> None:
        if stream in self.cameras:
            publication, _ = self.cameras.pop(stream)
            self.hub.release(publication, ms(self.now))
            assert self.hub.delivery.newest_frame(stream) is None
            if not self.hub.viewers_of(stream):
                self.highest[stream] = 0  # nobody here has seen them; the router remembers

    @rule(stream=st.sampled_from(STREAMS))
    def a_camera_moves_elsewhere(self, stream: str) -> None:
        if stream in self.cameras:
            self.hear()
            publication, phone = self.cameras.pop(stream)
            self.term += 1
            self.hub.revoke(stream, publication.term)
            assert phone.lost == [stream]
            self.holds.pop(stream, None)
            self.elsewhere[stream] = self.term
            if not self.hub.viewers_of(stream):
                self.highest[stream] = 0  # nobody here has seen them; the router remembers

    @rule(stream=st.sampled_from(STREAMS), back=st.integers(0, 2), step=st.integers(-3, 5))
    def a_frame_comes_from_elsewhere(self, stream: str, back: int, step: int) -> None:
        term = self.elsewhere.get(stream, 1) - back
        if term >= 0:
            number = max(1, self.highest[stream] + step)
            self.hub.delivery.on_remote_frame(remote(number, stream=stream, term=term), self.now)
            self.highest[stream] = max(self.highest[stream], self.hub.last_frame_id(stream))

    @rule(stream=st.sampled_from(STREAMS), status=st.sampled_from(["streaming", "online", "offline"]))
    def the_router_says_how_a_stream_stands(self, stream: str, status: StreamStatus) -> None:
        term = self.elsewhere.get(stream, 0)
        self.hub.on_status(word(status, stream=stream, term=term), self.now, ms(self.now))

    @rule(
        who=st.integers(0, 2),
        stream=st.sampled_from(STREAMS),
        video=st.booleans(),
        window=st.none() | st.integers(1, 2),
        last=st.booleans(),
    )
    def a_viewer_comes(self, who: int, stream: str, video: bool, window: int | None, last: bool) -> None:
        screen = self.screens[who]
        if all(s.stream != stream for s in screen.subscriptions):
            screen.subscribe(
                stream, now=self.now, video=video, alerts=not video or who == 0, window=window, last_frame=last
            )
            assert screen.statuses[-1] == self.hub.newest_state(stream, StreamState()).status

    @rule(who=st.integers(0, 2))
    def a_viewer_leaves(self, who: int) -> None:
        self.screens[who].leave()
        self.screens[who] = FakeViewer(self.hub)

    @rule(who=st.integers(0, 2))
    def a_viewer_fills_up(self, who: int) -> None:
        self.screens[who].queue.blocked = True

    @rule(who=st.integers(0, 2))
    def a_viewer_drains(self, who: int) -> None:
        screen = self.screens[who]
        screen.queue.blocked = False
        while (wire := screen.queue.next(self.now)) is not None:
            message = read_payload(wire)
            if message["type"] == "video-frame":
                screen.frames.append((message["streamId"], message["frameId"]))

    @rule(stream=st.sampled_from(STREAMS))
    def an_alert_comes(self, stream: str) -> None:
        before = [len(screen.alerts) for screen in self.screens]
        self.alerts += 1
        self.hub.delivery.on_alert(alert(self.alerts, stream), self.now)
        self.hub.delivery.on_alert(alert(self.alerts, stream), self.now)  # told again, it has no second effect
        for screen, count in zip(self.screens, before, strict=True):
            wants = any(s.stream == stream and s.alerts for s in screen.subscriptions)
            assert len(screen.alerts) - count == wants

    @precondition(lambda self: self.holds)
    @rule()
    def the_router_restarts(self) -> None:
        self.hear()
        self.holds.clear()
        self.interests.clear()
        for body in self.hub.reports.snapshot(self.now):
            if isinstance(body, PublicationState):
                self.holds[body.stream] = body.term
            else:
                self.interests[body.stream] = (body.viewers, body.alert_viewers)

    @invariant()
    def the_frames_of_each_viewer_rise(self) -> None:
        for screen in self.screens:
            for stream in STREAMS:
                numbers = [number for name, number in screen.frames if name == stream]
                assert numbers == sorted(set(numbers))

    @invariant()
    def each_status_is_told_once(self) -> None:
        for screen in self.screens:
            for stream in STREAMS:
                told = [m["status"] for m in screen.messages if m["type"] == "status" and m["streamId"] == stream]
                assert all(before != after for before, after in itertools.pairwise(told))
                if any(s.stream == stream for s in screen.subscriptions):
                    assert told[-1] == self.hub.newest_state(stream, StreamState()).status

    @invariant()
    def the_router_knows_who_is_here(self) -> None:
        self.hear()
        for stream in STREAMS:
            wishes = [s for screen in self.screens for s in screen.subscriptions if s.stream == stream]
            present = (sum(s.video for s in wishes), sum(s.alerts for s in wishes))
            assert self.interests.get(stream, (0, 0)) == present
            camera = self.cameras.get(stream)
            assert self.holds.get(stream) == (camera[0].term if camera else None)
            assert self.hub.publication(stream) is (camera[0] if camera else None)

    def teardown(self) -> None:
        if hasattr(self, "hub"):
            for screen in self.screens:
                screen.leave()
            for publication, _ in self.cameras.values():
                self.hub.release(publication, ms(self.now))
            self.cameras.clear()
            self.the_router_knows_who_is_here()
            assert not self.hub._streams
            assert not self.hub._publications
            assert list(self.hub.reports.snapshot(self.now)) == []
            assert self.hub.counts() == {"publishers": 0, "video_viewers": 0, "alert_viewers": 0}


def read_payload(wire: bytes) -> dict[str, Any]:
    """A message of the queue: a finished one, or a frame as `FakeViewer` encodes it."""
    return json.loads(wire) if wire.startswith(b"{") else read(wire)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=80, stateful_step_count=40)
