"""Who publishes and who watches what on one gateway: each rule as a short history, then all of them at once."""

from __future__ import annotations

import itertools
import json
import random
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.kit.playbook import START_MS, owned_by, read
from watchout.common.alerts.model import Alert
from watchout.common.bus.frames import decode_frame
from watchout.common.bus.messages import (
    BadFrame,
    ErrorForPublisher,
    Forward,
    Interest,
    PublicationState,
    Release,
    ReservationEnded,
    StatusUpdate,
    StreamReport,
    StreamStatus,
)
from watchout.common.media.codecs import Codec
from watchout.common.media.frames import Frame
from watchout.common.settings import Settings
from watchout.gateway.hub.delivery import MAX_FRAME_ID, MAX_HELD_ALERTS
from watchout.gateway.hub.outbound_queue import OutboundQueue, OutboundQueueFull
from watchout.gateway.hub.registry import IDLE_AFTER_S, Hub
from watchout.gateway.hub.streams import CLOSED_KEPT_S, Publication
from watchout.gateway.hub.subscription import DropReason, Subscription
from watchout.gateway.model import Owner, StreamState
from watchout.gateway.wire import Format, frame_message
from watchout.identity import Identity

ANN = Identity("ann", "1")


class Screen:
    """A viewer with real queue: what was written to it, decoded."""

    def __init__(self, hub: Hub, **limits: int) -> None:
        self.hub = hub
        self.queue = OutboundQueue(Settings(**limits), lambda subscription, frame: frame.to_json())  # type: ignore[arg-type]
        self.frames: list[tuple[str, int]] = []
        self.messages: list[dict[str, Any]] = []
        self.wishes: list[Subscription] = []
        self.order: list[str] = []

    def watch(
        self,
        stream: str,
        found: StreamStatus = "offline",
        owner: str | None = None,
        *,
        now: float = 0.0,
        video: bool = True,
        alerts: bool = True,
        **wishes: Any,
    ) -> bool:
        """Subscribe; whether the newest frame is to be asked of the router."""
        subscription = Subscription(stream, ANN, video=video, alerts=alerts, **wishes)
        self.wishes.append(subscription)
        return self.hub.subscribe(subscription, self, StreamState(found, owned_by(owner)), now, ms(now))

    def leave(self) -> None:
        """Unsubscribe from everything."""
        for subscription in self.wishes:
            self.queue.remove(subscription)
            self.hub.unsubscribe(subscription)
        self.wishes.clear()

    def send_frame(self, subscription: Subscription, frame: Frame, now: float) -> None:
        self.order.append("frame")
        if self.queue.offer_frame(subscription, frame, now):
            self.frames.append((frame.stream_id, frame.frame_id))

    def send_message(self, message: bytes) -> None:
        self.order.append("message")
        try:
            self.queue.offer_message(message)
        except OutboundQueueFull:
            self.leave()
        else:
            self.messages.append(read(message))

    def on_permission_lost(self, stream: str) -> None:
        """Nothing: the room that asks for it is tested elsewhere."""

    @property
    def statuses(self) -> list[str]:
        return [m["status"] for m in self.messages if m["type"] == "status"]

    @property
    def alerts(self) -> list[str]:
        return [m["id"] for m in self.messages if m["type"] == "alert"]


class Phone:
    """A camera."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.lost: list[str] = []

    def send_message(self, message: bytes) -> None:
        self.messages.append(read(message))

    def on_taken_over(self, stream: str) -> None:
        self.lost.append(stream)


class House:
    """A hub with its link: what was pushed to the bus, and how often it was woken."""

    def __init__(self) -> None:
        self.pushed: list[int] = []
        self.woken = 0
        self.hub = Hub(wake=self._wake, to_bus=lambda frame: self.pushed.append(frame.frame_id))

    def _wake(self) -> None:
        self.woken += 1

    def publish(
        self,
        phone: Phone,
        stream: str = "door",
        *,
        user: str = "ann",
        term: int = 1,
        first: int = 1,
        producing: bool = True,
        wants_alerts: bool = False,
        wants_demand: bool = False,
        now: float = 0.0,
    ) -> Publication:
        return self.hub.publish(
            stream,
            Owner(user),
            phone,
            term=term,
            first_frame_id=first,
            producing=producing,
            wants_alerts=wants_alerts,
            wants_demand=wants_demand,
            now=now,
            now_ms=ms(now),
        )

    def frame(self, publication: Publication, now: float = 0.0, text: bytes = b'"/9j/"') -> None:
        self.hub.delivery.on_frame(
            publication, text=text, picture=None, codec=None, timestamp=ms(now), now=now, now_ms=ms(now)
        )

    def told(self, now: float = 0.0) -> list[PublicationState | Interest | Release]:
        """What changed, as it is told to the router."""
        return list(self.hub.reports.changes(now))


def ms(now: float) -> int:
    return START_MS + round(now * 1000)


def remote(number: int, *, stream: str = "door", term: int = 5) -> Frame:
    return Frame(stream, number, 0, term=term, text=b'"/9j/"')


def word(status: StreamStatus, *, stream: str = "door", term: int = 5, user: str | None = "ann") -> StatusUpdate:
    return StatusUpdate(stream=stream, status=status, timestamp=0, term=term, user=user)


def alert(number: int = 1, stream: str = "door") -> Alert:
    return Alert(id=f"a{number}", stream_id=stream, severity="low", message="m", timestamp=number)


@pytest.fixture
def house() -> House:
    return House()


# ── cameras and their frames ─────────────────────────────────────────────────────────────────────────────────────


def test_frames_go_to_everybody_who_watches_numbered_from_the_first_id(house: House) -> None:
    screens = [Screen(house.hub) for _ in range(3)]
    for screen in screens:
        screen.watch("door")
    publication = house.publish(Phone(), first=41)
    for _ in range(3):
        house.frame(publication)
    assert all(screen.frames == [("door", 41), ("door", 42), ("door", 43)] for screen in screens)
    assert house.hub.last_frame_id("door") == 43
    newest = house.hub.delivery.newest_frame("door")
    assert newest is not None
    assert newest.frame_id == 43


def test_frames_go_to_nobody_else(house: House) -> None:
    other, quiet = Screen(house.hub), Screen(house.hub)
    other.watch("yard")
    quiet.watch("door", video=False)
    house.frame(house.publish(Phone()))
    assert other.frames == quiet.frames == []


def test_a_frame_keeps_the_time_of_its_camera(house: House) -> None:
    publication = house.publish(Phone())
    house.hub.delivery.on_frame(
        publication, text=None, picture=b"\xff\xd8\xff", codec=None, timestamp=77, now=1.0, now_ms=ms(1.0)
    )
    newest = house.hub.delivery.newest_frame("door")
    assert newest is not None
    assert (newest.timestamp, newest.picture, newest.term) == (77, b"\xff\xd8\xff", 1)
    assert publication.last_frame_at == ms(1.0)
    assert (house.hub.delivery.frames_in, house.hub.delivery.bytes_in) == (1, 3)


def test_the_camera_that_was_taken_over_is_told_and_viewers_stay(house: House) -> None:
    screen, old, new = Screen(house.hub), Phone(), Phone()
    screen.watch("door")
    first = house.publish(old, term=1)
    house.frame(first)
    second = house.publish(new, term=2, first=2)
    assert (old.lost, new.lost) == (["door"], [])
    house.frame(second)
    assert screen.frames == [("door", 1), ("door", 2)]
    assert screen.statuses == ["offline", "streaming"]


def test_a_take_over_lets_frame_ids_jump_but_never_fall(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door")
    first = house.publish(Phone(), term=1, first=10)
    house.frame(first)
    house.frame(first)
    for term, first_id in ((2, 5), (3, 1000), (4, 1)):
        house.frame(house.publish(Phone(), term=term, first=first_id))
    assert [number for _, number in screen.frames] == [10, 11, 12, 1000, 1001]


def test_a_camera_that_returns_goes_on_above_what_viewers_have_seen(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door")
    first = house.publish(Phone(), term=1)
    house.frame(first)
    house.hub.release(first, ms(1))
    house.frame(house.publish(Phone(), term=2, first=1))
    assert screen.frames == [("door", 1), ("door", 2)]
    assert screen.statuses == ["offline", "streaming", "offline", "streaming"]


def test_a_camera_that_was_taken_over_releases_nothing(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door")
    old = house.publish(Phone(), term=1)
    new = house.publish(Phone(), term=2)
    house.told()
    house.hub.release(old, ms(1))
    assert house.hub.publication("door") is new
    assert house.told() == []
    assert screen.statuses == ["offline", "streaming"]


def test_a_revoked_camera_is_told_and_viewers_wait_for_the_other_gateway(house: House) -> None:
    screen, phone = Screen(house.hub), Phone()
    screen.watch("door")
    publication = house.publish(phone, term=3)
    house.frame(publication)
    house.told()
    house.hub.revoke("door", 3)
    assert phone.lost == ["door"]
    assert house.hub.publication("door") is None
    assert house.told() == []
    house.hub.delivery.on_remote_frame(remote(70_000, term=4), 0.0)
    house.hub.on_status(word("streaming", term=4), 0.0, ms(0))
    assert screen.frames == [("door", 1), ("door", 70_000)]
    assert screen.statuses == ["offline", "streaming"]


def test_a_revocation_of_an_older_term_is_void(house: House) -> None:
    phone = Phone()
    house.publish(phone, term=3)
    house.hub.revoke("door", 2)
    house.hub.revoke("yard", 9)
    assert phone.lost == []
    assert house.hub.publication("door") is not None


def test_a_new_owner_does_not_inherit_the_last_picture(house: House) -> None:
    Screen(house.hub).watch("door")
    house.frame(house.publish(Phone(), user="ann", term=1))
    house.publish(Phone(), user="bob", term=2)
    assert house.hub.delivery.newest_frame("door") is None
    assert house.hub.local_owner("door") == Owner("bob")


def test_the_last_picture_of_a_camera_that_left_goes_to_nobody(house: House) -> None:
    own, stranger = Screen(house.hub), Screen(house.hub)
    own.watch("door")
    publication = house.publish(Phone())
    house.frame(publication)
    house.hub.release(publication, ms(1))
    stranger.watch("door", "offline", None)
    assert stranger.frames == []
    assert house.hub.delivery.newest_frame("door") is None


def test_the_last_picture_of_a_camera_elsewhere_that_left_goes_to_nobody(house: House) -> None:
    own, stranger = Screen(house.hub), Screen(house.hub)
    own.watch("door", "streaming", "ann")
    house.hub.on_status(word("streaming"), 0.0, ms(0))
    house.hub.delivery.on_remote_frame(remote(1), 0.0)
    assert own.frames == [("door", 1)]
    house.hub.on_status(word("offline"), 1.0, ms(1))
    stranger.watch("door", "offline", None)
    assert stranger.frames == []


def test_after_the_last_number_a_stream_begins_again_at_one_and_viewers_follow(house: House) -> None:
    screen, slow = Screen(house.hub), Screen(house.hub)
    screen.watch("door")
    slow.watch("door", window=1)
    publication = house.publish(Phone(), first=MAX_FRAME_ID)
    slow.queue.blocked = True
    for _ in range(3):
        house.frame(publication)
    assert [number for _, number in screen.frames] == [MAX_FRAME_ID, 1, 2]
    slow.queue.blocked = False
    assert slow.queue.next(0.0) is not None
    assert slow.wishes[0].last_frame_id == 2
    assert house.hub.last_frame_id("door") == 2


def test_whose_a_stream_is_is_known_for_certain_only_with_its_camera_here(house: House) -> None:
    Screen(house.hub).watch("door", "streaming", "ann")
    assert house.hub.local_owner("door") is None
    publication = house.publish(Phone(), user="ann")
    assert house.hub.local_owner("door") == Owner("ann")
    house.hub.release(publication, ms(0))
    assert house.hub.local_owner("door") is None
    assert house.hub.local_owner("never") is None


def test_when_the_owner_belongs_to_others_the_hold_says_so_and_the_stream_goes_on(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door")
    publication = house.publish(Phone(), user="ann")
    house.frame(publication)
    house.told()
    house.hub.change_owner(publication, Owner("ann", frozenset({"b", "a"})))
    (hold,) = house.told()
    assert isinstance(hold, PublicationState)
    assert (hold.user, hold.organizations, hold.term) == ("ann", ("a", "b"), publication.term)
    assert house.hub.local_owner("door") == house.hub.last_known_owner("door") == Owner("ann", frozenset({"a", "b"}))
    house.frame(publication)
    assert [number for _, number in screen.frames] == [1, 2]


def test_a_publication_that_was_taken_over_changes_no_owner(house: House) -> None:
    old = house.publish(Phone(), user="ann", term=1)
    house.publish(Phone(), user="ann", term=2)
    house.hub.change_owner(old, Owner("ann", frozenset({"acme"})))
    assert house.hub.local_owner("door") == Owner("ann")


def test_what_the_router_says_of_the_owner_is_kept_and_told_to_its_successor(house: House) -> None:
    Screen(house.hub).watch("door")
    told = StatusUpdate(stream="door", status="streaming", timestamp=0, term=5, user="ann", organizations=("acme",))
    house.hub.on_status(told, 0.0, ms(0))
    assert house.hub.last_known_owner("door") == Owner("ann", frozenset({"acme"}))
    (interest,) = house.hub.reports.snapshot(0.0)
    assert isinstance(interest, Interest)
    assert (interest.user, interest.organizations) == ("ann", ("acme",))


# ── viewers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_viewer_gets_the_status_and_then_the_newest_frame(house: House) -> None:
    publication = house.publish(Phone())
    house.frame(publication)
    house.frame(publication)
    screen = Screen(house.hub)
    assert not screen.watch("door", "offline", None)
    assert screen.order == ["message", "frame"]
    assert screen.statuses == ["streaming"]
    assert screen.frames == [("door", 2)]


@pytest.mark.parametrize("wishes", [{"last_frame": False}, {"video": False}])
def test_whoever_does_not_want_the_newest_frame_does_not_get_it(house: House, wishes: dict[str, bool]) -> None:
    house.frame(house.publish(Phone()))
    screen = Screen(house.hub)
    assert not screen.watch("door", **wishes)
    assert screen.frames == []
    assert screen.statuses == ["streaming"]


def test_the_newest_frame_of_a_camera_elsewhere_is_asked_for_once_it_is_not_here(house: House) -> None:
    first, second, third = Screen(house.hub), Screen(house.hub), Screen(house.hub)
    assert first.watch("door", "streaming", "ann")
    assert not third.watch("door", last_frame=False)
    house.hub.on_status(word("streaming"), 0.0, ms(0))
    house.hub.delivery.on_remote_frame(remote(9), 0.0)
    assert not second.watch("door", "streaming", "ann")
    assert second.frames == [("door", 9)]


def test_a_camera_here_without_a_frame_yet_is_not_asked_for_elsewhere(house: House) -> None:
    house.publish(Phone())
    assert not Screen(house.hub).watch("door", "streaming", "ann")


def test_the_first_viewer_believes_the_router_and_the_next_what_is_known_here(house: House) -> None:
    first, second = Screen(house.hub), Screen(house.hub)
    first.watch("door", "online", "ann")
    second.watch("door", "offline", None)
    assert (first.statuses, second.statuses) == (["online"], ["online"])
    assert house.hub.newest_state("door", StreamState()).status == "online"
    assert house.hub.newest_state("never", StreamState()).status == "offline"


def test_a_viewer_of_several_streams_gets_each(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door")
    screen.watch("yard")
    house.frame(house.publish(Phone(), "door"))
    house.frame(house.publish(Phone(), "yard"))
    assert screen.frames == [("door", 1), ("yard", 1)]


def test_whoever_left_gets_nothing_more(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door")
    publication = house.publish(Phone())
    screen.leave()
    house.frame(publication)
    house.hub.delivery.on_alert(alert())
    house.hub.release(publication, ms(1))
    assert (screen.frames, screen.alerts, screen.statuses) == ([], [], ["offline", "streaming"])


def test_leaving_twice_changes_nothing(house: House) -> None:
    screen, other = Screen(house.hub), Screen(house.hub)
    other.watch("door")
    screen.watch("door")
    (subscription,) = screen.wishes
    screen.leave()
    house.told()
    house.hub.unsubscribe(subscription)
    assert house.told() == []
    assert [s for s, _ in house.hub.viewers_of("door")] == other.wishes


def test_a_viewer_that_is_closed_by_its_first_status_leaves_nothing_behind(house: House) -> None:
    publication = house.publish(Phone())
    house.frame(publication)
    screen = Screen(house.hub, alert_lane_messages=1)
    screen.queue.blocked = True
    screen.queue.offer_message(b"full")
    assert not screen.watch("door")
    assert house.hub.viewers_of("door") == []
    assert house.hub.counts() == {"publishers": 1, "video_viewers": 0, "alert_viewers": 0}
    house.frame(publication)
    assert screen.frames == []


def test_a_viewer_that_is_closed_by_a_status_does_not_keep_it_from_others(house: House) -> None:
    full, other = Screen(house.hub, alert_lane_messages=1), Screen(house.hub)
    full.watch("door")
    other.watch("door")
    full.queue.blocked = True
    full.queue.offer_message(b"full")
    publication = house.publish(Phone())
    house.hub.release(publication, ms(1))
    assert other.statuses == ["offline", "streaming", "offline"]
    assert full.wishes == []


# ── the last word on a stream ────────────────────────────────────────────────────────────────────────────────────

ANNS, BOBS = StreamState("offline", Owner("ann"), 4), StreamState("streaming", Owner("bob"), 5)


def test_of_a_stream_that_nobody_here_has_to_do_with_the_router_has_the_last_word(house: House) -> None:
    assert house.hub.newest_state("door", ANNS) == ANNS


def test_an_answer_that_waited_while_the_stream_changed_hands_is_not_the_last_word(house: House) -> None:
    Screen(house.hub).watch("door", "offline", "ann")
    house.hub.on_status(word("streaming", user="bob", term=5), 0.0, ms(0))
    assert house.hub.newest_state("door", ANNS) == BOBS


def test_nor_is_it_when_everybody_lost_the_right_to_the_stream_at_once(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door", "offline", "ann")
    screen.leave()  # as the link has it before the hub takes in the word
    house.hub.on_status(word("streaming", user="bob", term=5), 0.0, ms(0))
    assert house.hub.newest_state("door", ANNS) == BOBS
    assert house.hub.newest_state("door", StreamState("online", Owner("eve"), 6)) == StreamState(
        "online", Owner("eve"), 6
    )


def test_the_routers_word_counts_also_of_what_was_known_a_while_ago_and_no_older_one_does(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door", "offline", "ann")
    house.hub.on_status(word("offline", user="ann", term=4), 0.0, ms(0))
    screen.leave()
    house.hub.tick(0.0, ms(0))
    house.hub.on_status(word("streaming", user="bob", term=5), 0.0, ms(0))
    house.hub.on_status(word("offline", user="ann", term=4), 0.0, ms(0))
    assert house.hub.newest_state("door", ANNS) == BOBS


def test_live_alerts_that_come_too_fast_for_a_replay_are_neither_sent_past_it_nor_kept(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door")
    (subscription,) = screen.wishes
    subscription.held_alerts = {}
    for number in range(MAX_HELD_ALERTS + 5):
        house.hub.delivery.on_alert(alert(number))
    assert screen.alerts == []
    assert len(subscription.held_alerts) == MAX_HELD_ALERTS
    assert subscription.held_alerts_overflowed


def test_what_was_known_lately_is_forgotten(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door", "streaming", "bob")
    house.hub.on_status(word("streaming", user="bob", term=5), 0.0, ms(0))
    screen.leave()
    house.hub.tick(0.0, ms(0))
    assert house.hub.newest_state("door", ANNS) == BOBS
    house.hub.tick(CLOSED_KEPT_S, ms(0))
    house.hub.tick(2 * CLOSED_KEPT_S, ms(0))
    assert house.hub.newest_state("door", ANNS) == ANNS


def test_of_streams_that_ended_so_many_are_remembered_and_the_oldest_is_forgotten(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchout.gateway.hub.streams.CLOSED_KEPT", 3)
    for number in range(5):
        screen = Screen(house.hub)
        screen.watch(f"door-{number}", "streaming", "bob")
        house.hub.on_status(word("streaming", stream=f"door-{number}", user="bob", term=5), 0.0, ms(0))
        screen.leave()
    found = [house.hub.newest_state(f"door-{number}", ANNS) == ANNS for number in range(5)]
    assert found == [True, True, False, False, False]


def test_a_camera_here_is_the_last_word(house: House) -> None:
    house.publish(Phone(), user="ann", term=4)
    assert house.hub.newest_state("door", BOBS) == StreamState("streaming", Owner("ann"), 4)


def test_a_viewer_who_comes_back_in_the_same_moment_goes_on_with_the_frames_of_that_term(house: House) -> None:
    screen, again = Screen(house.hub), Screen(house.hub)
    screen.watch("door", "streaming", "ann")
    house.hub.on_status(word("streaming"), 0.0, ms(0))
    screen.leave()
    again.hub.subscribe(
        subscription := Subscription("door", ANN, video=True, alerts=False), again,
        house.hub.newest_state("door", StreamState("streaming", Owner("ann"), 5)), 0.0, ms(0),
    )  # fmt: skip
    house.hub.delivery.on_remote_frame(remote(1), 0.0)  # the router saw no change of interest, and says nothing
    assert again.frames == [("door", 1)]
    house.hub.unsubscribe(subscription)


# ── status ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_change_of_status_is_told_once(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door", video=False)
    publication = house.publish(Phone(), now=0.0)
    for tenth in range(31):
        house.frame(publication, tenth / 10)
    for second in range(4, 20):
        house.hub.tick(float(second), ms(second))
    house.frame(publication, 20.0)
    house.frame(publication, 20.1)
    house.hub.release(publication, ms(21))
    assert screen.statuses == ["offline", "streaming", "online", "streaming", "offline"]
    assert [m["timestamp"] - START_MS for m in screen.messages] == [0, 0, 9000, 20_000, 21_000]


def test_a_camera_that_registers_to_produce_and_sends_nothing_is_online_after_five_seconds(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door")
    house.publish(Phone(), now=100.0)
    house.hub.tick(100.0 + IDLE_AFTER_S, ms(0))
    assert screen.statuses == ["offline", "streaming"]
    house.hub.tick(100.0 + IDLE_AFTER_S + 0.1, ms(0))
    assert screen.statuses == ["offline", "streaming", "online"]


def test_a_camera_that_does_not_produce_is_online(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door")
    house.publish(Phone(), producing=False)
    house.hub.tick(60.0, ms(60))
    assert screen.statuses == ["offline", "online"]


def test_a_quiet_camera_that_is_taken_over_streams_again(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door")
    house.publish(Phone(), term=1)
    house.hub.tick(6.0, ms(6))
    house.publish(Phone(), term=2, now=7.0)
    assert screen.statuses == ["offline", "streaming", "online", "streaming"]


def test_the_router_tells_the_status_of_cameras_elsewhere(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door")
    statuses: list[StreamStatus] = ["streaming", "streaming", "online", "streaming", "offline", "offline"]
    for status in statuses:
        house.hub.on_status(word(status), 1.0, ms(1))
    assert screen.statuses == ["offline", "streaming", "online", "streaming", "offline"]
    house.hub.on_status(word("online", stream="never"), 1.0, ms(1))


def test_what_the_router_says_is_its_last_word_except_of_a_camera_here(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door", "streaming", "ann")
    house.hub.on_status(word("online", term=5), 1.0, ms(1))
    house.hub.on_status(word("offline", term=0), 1.0, ms(1))  # a new router that never heard of the stream
    assert screen.statuses == ["streaming", "online", "offline"]
    house.hub.delivery.on_remote_frame(remote(1, term=4), 1.0)
    assert screen.frames == []
    publication = house.publish(Phone(), term=6)
    house.hub.on_status(word("offline", term=7), 1.0, ms(1))
    assert screen.statuses == ["streaming", "online", "offline", "streaming"]
    house.hub.release(publication, ms(2))


def test_a_new_owner_elsewhere_does_not_inherit_the_last_picture(house: House) -> None:
    Screen(house.hub).watch("door", "streaming", "ann")
    house.hub.delivery.on_remote_frame(remote(1, term=5), 0.0)
    house.hub.on_status(word("streaming", term=6, user="bob"), 1.0, ms(1))
    assert house.hub.delivery.newest_frame("door") is None


# ── frames of cameras elsewhere ──────────────────────────────────────────────────────────────────────────────────


def test_frames_of_a_camera_elsewhere_reach_the_viewers_here(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door", "streaming", "ann")
    house.hub.on_status(word("streaming"), 0.0, ms(0))
    for number in (3, 4, 4, 2, 6):
        house.hub.delivery.on_remote_frame(remote(number), 0.0)
    assert [number for _, number in screen.frames] == [3, 4, 6]
    newest = house.hub.delivery.newest_frame("door")
    assert newest is not None
    assert newest.frame_id == 6


def test_frames_of_an_older_term_are_dropped_and_counted(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door", "streaming", "ann")
    house.hub.on_status(word("streaming", term=5), 0.0, ms(0))
    house.hub.delivery.on_remote_frame(remote(3, term=5), 0.0)
    house.hub.delivery.on_remote_frame(remote(9, term=4), 0.0)
    house.hub.on_status(word("online", term=6), 0.0, ms(0))
    house.hub.delivery.on_remote_frame(remote(10, term=5), 0.0)
    assert [number for _, number in screen.frames] == [3]
    assert house.hub.delivery.old_term_frames == 2


def test_a_frame_of_a_term_that_is_not_known_yet_waits_for_the_word_whose_it_is(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door", "streaming", "ann")
    house.hub.delivery.on_remote_frame(remote(3, term=6), 0.0)
    house.hub.delivery.on_remote_frame(remote(4, term=6), 0.0)
    assert screen.frames == []
    house.hub.on_status(word("streaming", term=6), 0.0, ms(0))
    assert screen.frames == [("door", 4)]


def test_ids_that_begin_again_elsewhere_reach_the_viewers_here(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door", "streaming", "ann")
    house.hub.on_status(word("streaming", term=6), 0.0, ms(0))
    house.hub.delivery.on_remote_frame(remote(MAX_FRAME_ID, term=6), 0.0)
    house.hub.delivery.on_remote_frame(remote(1, term=6), 0.0)
    assert [number for _, number in screen.frames] == [MAX_FRAME_ID, 1]


def test_an_alert_that_is_told_again_comes_once(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door")
    house.hub.delivery.on_alert(alert(1))
    house.hub.delivery.on_alert(alert(1))
    assert screen.alerts == ["a1"]


def test_an_alert_that_is_told_again_after_a_loss_is_for_those_who_were_here_when_it_was_accepted(house: House) -> None:
    early, late, asked = Screen(house.hub), Screen(house.hub), Screen(house.hub)
    for screen, now in ((early, 1.0), (late, 3.0), (asked, 2.0)):
        screen.watch("door", now=now)
    asked.wishes[0].replayed = frozenset({"a1"})
    house.hub.delivery.on_alert(alert(1), ms(2.0))
    house.hub.delivery.on_alert(alert(2), ms(3.0))
    house.hub.delivery.on_alert(alert(3), ms(0.5))
    house.hub.delivery.on_alert(alert(4))
    assert early.alerts == ["a1", "a2", "a4"]
    assert late.alerts == ["a2", "a4"]
    assert asked.alerts == ["a2", "a4"]


def test_what_was_told_before_a_loss_is_not_told_again(house: House) -> None:
    phone, screen = Phone(), Screen(house.hub)
    house.publish(phone, wants_alerts=True)
    screen.watch("door", now=0.0)
    house.hub.delivery.on_alert(alert(1))
    house.hub.delivery.on_alert(alert(1), ms(1.0))
    house.hub.delivery.on_alert(alert(2), ms(1.0))
    house.hub.delivery.on_alert(alert(3), ms(-5.0))
    assert screen.alerts == [m["id"] for m in phone.messages] == ["a1", "a2"]


def test_frames_that_nobody_here_watches_or_whose_camera_is_here_are_dropped(house: House) -> None:
    house.hub.delivery.on_remote_frame(remote(3), 0.0)
    assert house.hub.delivery.newest_frame("door") is None
    screen = Screen(house.hub)
    screen.watch("door")
    house.publish(Phone(), term=1)
    house.hub.delivery.on_remote_frame(remote(3, term=9), 0.0)
    assert screen.frames == []


# ── frames to the bus ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_newest_frame_goes_to_the_bus_when_the_router_begins_to_want_it_and_then_all(house: House) -> None:
    publication = house.publish(Phone(), term=4)
    house.frame(publication)
    house.frame(publication)
    assert house.pushed == []
    house.hub.on_forward(Forward(stream="door", term=4, wanted=True), 0.0)
    house.frame(publication)
    house.frame(publication)
    house.hub.on_forward(Forward(stream="door", term=4, wanted=False), 0.0)
    house.frame(publication)
    assert house.pushed == [2, 3, 4]


def test_the_bus_gets_no_more_than_the_router_wants(house: House) -> None:
    publication = house.publish(Phone(), term=4)
    house.hub.on_forward(Forward(stream="door", term=4, wanted=True, max_fps=2), 0.0)
    for n in range(300):
        house.frame(publication, n / 30)
    assert len(house.pushed) == pytest.approx(20, abs=2)
    house.hub.on_forward(Forward(stream="door", term=4, wanted=True, max_fps=None), 0.0)
    before = len(house.pushed)
    for n in range(30):
        house.frame(publication, 10 + n / 30)
    assert len(house.pushed) == before + 30


def test_viewers_here_get_all_frames_whatever_the_bus_wants(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door")
    publication = house.publish(Phone(), term=4)
    house.hub.on_forward(Forward(stream="door", term=4, wanted=True, max_fps=1), 0.0)
    for n in range(30):
        house.frame(publication, n / 30)
    assert len(screen.frames) == 30


def test_a_wish_for_another_term_or_stream_does_not_count(house: House) -> None:
    publication = house.publish(Phone(), term=4)
    house.hub.on_forward(Forward(stream="door", term=3, wanted=True), 0.0)
    house.hub.on_forward(Forward(stream="door", term=5, wanted=True), 0.0)
    house.hub.on_forward(Forward(stream="yard", term=4, wanted=True), 0.0)
    house.frame(publication)
    assert house.pushed == []


def test_a_snapshot_forgets_what_the_former_router_wanted_and_nothing_later(house: House) -> None:
    publications = [house.publish(Phone(), name, term=4) for name in ("a", "b", "c")]
    for publication in publications:
        house.hub.on_forward(Forward(stream=publication.stream, term=4, wanted=True), 0.0)
    snapshot = house.hub.reports.snapshot(0.0)
    next(snapshot)
    house.hub.on_forward(Forward(stream="c", term=4, wanted=True), 0.0)
    assert len(list(snapshot)) == 2
    for publication in publications:
        house.frame(publication)
    assert house.pushed == [1]
    assert publications[2].bus_sampler is not None


# ── demand ───────────────────────────────────────────────────────────────────────────────────────────────────────


def demands(phone: Phone) -> list[tuple[int, float]]:
    return [(m["viewers"], m["fps"]) for m in phone.messages if m["type"] == "demand"]


def test_a_camera_that_asks_for_it_is_told_what_viewers_here_and_elsewhere_want(house: House) -> None:
    phone, screen, quick = Phone(), Screen(house.hub), Screen(house.hub)
    publication = house.publish(phone, wants_demand=True)
    house.hub.notices.send_demand(0.0, ms(0))
    screen.watch("door", max_fps=2)
    house.hub.notices.send_demand(1.0, ms(1))
    house.hub.on_forward(Forward(stream="door", term=publication.term, wanted=True, max_fps=5.0, viewers=3), 2.0)
    house.hub.notices.send_demand(2.0, ms(2))
    quick.watch("door")
    house.hub.notices.send_demand(3.0, ms(3))
    assert demands(phone) == [(0, 0), (1, 2), (4, 5), (5, 30)]
    assert phone.messages[0] == {"type": "demand", "streamId": "door", "viewers": 0, "fps": 0, "timestamp": ms(0)}
    quick.leave()
    screen.leave()
    house.hub.on_forward(Forward(stream="door", term=publication.term, wanted=True, max_fps=1.5), 4.0)  # an mlbridge
    house.hub.notices.send_demand(4.0, ms(4))
    assert len(demands(phone)) == 4
    house.hub.notices.send_demand(5.0, ms(5))
    assert demands(phone)[4:] == [(0, 1.5)]


def test_who_wants_only_alerts_demands_no_frames(house: House) -> None:
    phone = Phone()
    house.publish(phone, wants_demand=True)
    Screen(house.hub).watch("door", video=False)
    house.hub.notices.send_demand(0.0, ms(0))
    assert demands(phone) == [(0, 0)]


def test_a_camera_that_does_not_ask_is_told_nothing(house: House) -> None:
    phone = Phone()
    house.publish(phone)
    Screen(house.hub).watch("door")
    house.hub.notices.send_demand(0.0, ms(0))
    assert phone.messages == []


def test_a_bond_that_is_made_anew_costs_no_demand_that_falls_for_a_moment(house: House) -> None:
    phone = Phone()
    publication = house.publish(phone, wants_demand=True)
    told = Forward(stream="door", term=publication.term, wanted=True, viewers=1)
    house.hub.on_forward(told, 0.0)
    house.hub.notices.send_demand(0.0, ms(0))
    list(house.hub.reports.snapshot(5.0))
    house.hub.notices.send_demand(5.0, ms(5))
    house.hub.on_forward(told, 5.5)
    house.hub.notices.send_demand(6.5, ms(6.5))
    assert demands(phone) == [(1, 30)]


# ── alerts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_alerts_reach_those_who_consume_them_in_order(house: House) -> None:
    screen, mute, other = Screen(house.hub), Screen(house.hub), Screen(house.hub)
    screen.watch("door", video=False)
    mute.watch("door", alerts=False)
    other.watch("yard")
    for number in range(5):
        house.hub.delivery.on_alert(alert(number))
    assert screen.alerts == ["a0", "a1", "a2", "a3", "a4"]
    assert mute.alerts == other.alerts == []
    assert house.hub.delivery.alerts_out == 5


@pytest.mark.parametrize("wants", [True, False])
def test_a_camera_gets_the_alerts_of_its_stream_when_it_wants_them(house: House, wants: bool) -> None:
    phone = Phone()
    house.publish(phone, wants_alerts=wants)
    house.hub.delivery.on_alert(alert())
    house.hub.delivery.on_alert(alert(2, "yard"))
    assert [m["id"] for m in phone.messages] == (["a1"] if wants else [])


def test_alerts_wait_while_recent_ones_are_fetched(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door")
    held = screen.wishes[0].held_alerts = {}
    house.hub.delivery.on_alert(alert(1))
    assert (screen.alerts, list(held)) == ([], ["a1"])
    screen.wishes[0].held_alerts = None
    house.hub.delivery.on_alert(alert(2))
    assert screen.alerts == ["a2"]


def test_an_alert_of_a_stream_that_nobody_here_knows_is_nothing(house: House) -> None:
    house.hub.delivery.on_alert(alert())
    assert house.hub.delivery.alerts_out == 0


# ── frames that cannot be decoded ────────────────────────────────────────────────────────────────────────────────


def test_a_camera_here_is_told_once_that_its_frames_cannot_be_decoded(house: House) -> None:
    phone = Phone()
    publication = house.publish(phone)
    for number in (1, 2):
        frame = Frame("door", number, 0, text=b'"?"')
        assert house.hub.notices.on_undecodable(frame, "data is not base64", ms(0)) is None
    house.hub.notices.on_frame_refused(
        ErrorForPublisher(stream="door", code="INVALID_MESSAGE", message="so says the router"), ms(0)
    )
    (told,) = phone.messages
    assert (told["type"], told["code"], told["streamId"]) == ("error", "INVALID_MESSAGE", "door")
    assert "data is not base64" in told["message"]
    house.hub.release(publication, ms(0))
    again = Phone()
    house.publish(again, term=2)
    house.hub.notices.on_frame_refused(
        ErrorForPublisher(stream="door", code="INVALID_MESSAGE", message="so says the router"), ms(0)
    )
    assert [m["message"] for m in again.messages] == ["so says the router"]


@pytest.mark.parametrize("wants", [True, False])
def test_a_camera_that_wants_the_status_gets_each_once(house: House, wants: bool) -> None:
    phone, owner = Phone(), Owner("ann")
    publication = house.hub.publish(
        "door", owner, phone, term=1, first_frame_id=1, producing=True, wants_alerts=False, wants_status=wants, now=0.0,
        now_ms=ms(0),
    )  # fmt: skip
    house.hub.tick(6.0, ms(6))
    house.frame(publication, 7.0)
    assert [message["status"] for message in phone.messages] == ["streaming", "online", "streaming"] * wants


BAD_TEXTS = (b'"null"', b'""', b'"?"', b'"AAAA"')
GOOD_TEXT = b'"/9j/"'


@pytest.mark.parametrize("bad", BAD_TEXTS)
def test_what_is_no_picture_never_becomes_the_newest_frame(house: House, bad: bytes) -> None:
    publication = house.publish(phone := Phone(), term=4)
    house.frame(publication, text=bad)
    assert house.hub.delivery.newest_frame("door") is None
    house.frame(publication, text=GOOD_TEXT)
    house.frame(publication, text=bad)
    newest = house.hub.delivery.newest_frame("door")
    assert newest is not None
    assert newest.frame_id == 2
    late = Screen(house.hub)
    late.watch("door")
    assert late.frames == [("door", 2)]
    house.hub.on_forward(Forward(stream="door", term=4, wanted=True), 0.0)
    assert house.pushed == [2]
    house.frame(publication, text=bad)
    assert late.frames == [("door", 2), ("door", 4)], "JSON viewers get every frame"
    house.publish(phone, term=5, first=5)
    newest = house.hub.delivery.newest_frame("door")
    assert newest is not None
    assert newest.frame_id == 2
    assert house.hub.last_frame_id("door") == 4


@pytest.mark.parametrize("bad", BAD_TEXTS)
def test_what_is_no_picture_replaces_no_newest_frame_of_a_camera_elsewhere(house: House, bad: bytes) -> None:
    Screen(house.hub).watch("door", "streaming", "ann")
    house.hub.on_status(word("streaming"), 0.0, ms(0))
    for number, text in ((1, GOOD_TEXT), (2, bad)):
        crossed = decode_frame(Frame("door", number, 0, term=5, text=text).to_bus())
        house.hub.delivery.on_remote_frame(Frame.from_bus(crossed), 0.0)
    newest = house.hub.delivery.newest_frame("door")
    assert newest is not None
    assert newest.frame_id == 1


def test_opaque_bytes_go_to_binary_viewers_and_are_no_newest_frame(house: House) -> None:
    viewer = Flowing(house.hub, "binary")
    door = house.publish(phone := Phone())
    flowing(house, viewer)
    for picture, codec in ((b"h264", Codec.OPAQUE), (b"h264", Codec.JPEG), (b"\xff\xd8\xff", Codec.OPAQUE)):
        house.hub.delivery.on_frame(door, text=None, picture=picture, codec=codec, timestamp=1, now=0.0, now_ms=ms(0))
        house.hub.notices.on_picture_requested("door", ms(0))
    assert [struct.unpack_from(">I", wire, 2 + 4)[0] for wire in viewer.got] == [1, 3]
    newest = house.hub.delivery.newest_frame("door")
    assert newest is not None
    assert newest.frame_id == 3
    (told,) = phone.messages
    assert told["message"].startswith("frame 2: data begins with 68 32 36 34, expected the first bytes of JPEG")


def test_a_camera_is_told_once_of_a_frame_that_is_wanted_as_a_picture_and_is_none(house: House) -> None:
    publication = house.publish(phone := Phone())
    house.frame(publication, text=GOOD_TEXT)
    assert house.hub.notices.on_picture_requested("door", ms(0)) is None
    house.frame(publication, text=b'"null"')
    assert phone.messages == [], "nobody wanted it"
    for _ in range(2):
        assert house.hub.notices.on_picture_requested("door", ms(0)) is None
    assert [m["message"][:10] for m in phone.messages] == ["frame 2: d"]


def test_of_a_camera_elsewhere_the_router_is_told(house: House) -> None:
    Screen(house.hub).watch("door", "streaming", "ann")
    told = house.hub.notices.on_undecodable(remote(7), "data is empty", ms(0))
    assert told == BadFrame(stream="door", frame_id=7, reason="data is empty")
    house.hub.notices.on_frame_refused(ErrorForPublisher(stream="door", code="INVALID_MESSAGE", message="x"), ms(0))


# ── what the router is told ──────────────────────────────────────────────────────────────────────────────────────


def test_a_stream_that_is_held_is_told_as_it_now_is(house: House) -> None:
    publication = house.publish(Phone(), term=4, first=10, wants_alerts=True)
    for n in range(11):
        house.frame(publication, n / 10)
    assert house.told(1.0) == [
        PublicationState(
            stream="door", user="ann", term=4, status="streaming", producing=True, wants_alerts=True, frame_id=20,
            total_frames=11, fps=10.0, started_at=ms(0), last_frame_at=ms(1),
        )
    ]  # fmt: skip
    assert house.told(1.0) == []


def test_frames_alone_change_no_state(house: House) -> None:
    publication = house.publish(Phone())
    house.told()
    woken = house.woken
    for n in range(10):
        house.frame(publication, n / 10)
    assert house.told() == []
    assert house.woken == woken


def test_a_change_of_status_is_a_change_of_state(house: House) -> None:
    publication = house.publish(Phone())
    house.told()
    house.hub.tick(6.0, ms(6))
    (hold,) = house.told(6.0)
    assert isinstance(hold, PublicationState)
    assert hold.status == "online"
    house.frame(publication, 7.0)
    (hold,) = house.told(7.0)
    assert isinstance(hold, PublicationState)
    assert hold.status == "streaming"


def test_a_release_names_term_and_last_frame(house: House) -> None:
    publication = house.publish(Phone(), term=4, first=10)
    house.frame(publication)
    house.hub.release(publication, ms(1))
    assert house.told() == [Release(stream="door", term=4, frame_id=10)]
    assert house.told() == []


def test_a_stream_that_is_left_and_taken_again_at_once_is_told_in_that_order(house: House) -> None:
    house.hub.release(house.publish(Phone(), term=4), ms(0))
    house.publish(Phone(), term=5)
    release, hold = house.told()
    assert isinstance(release, Release)
    assert isinstance(hold, PublicationState)
    assert (release.term, hold.term) == (4, 5)


def test_interest_is_the_sum_of_the_viewers_and_the_highest_rate(house: House) -> None:
    screens = [Screen(house.hub) for _ in range(4)]
    screens[0].watch("door", max_fps=2, alerts=False)
    screens[1].watch("door", max_fps=5)
    screens[2].watch("door", video=False)
    assert house.told() == [Interest(stream="door", viewers=2, alert_viewers=2, max_fps=5)]
    screens[3].watch("door", alerts=False)
    assert house.told() == [Interest(stream="door", viewers=3, alert_viewers=2, max_fps=None)]
    for screen in (screens[0], screens[1], screens[3]):
        screen.leave()
    assert house.told() == [Interest(stream="door", viewers=0, alert_viewers=1)]
    screens[2].leave()
    assert house.told() == [Interest(stream="door", viewers=0, alert_viewers=0)]


def test_interest_names_the_highest_frame_that_was_seen(house: House) -> None:
    screen = Screen(house.hub)
    screen.watch("door", "streaming", "ann")
    house.hub.on_status(word("streaming"), 0.0, ms(0))
    house.hub.delivery.on_remote_frame(remote(99), 0.0)
    Screen(house.hub).watch("door")
    (interest,) = house.told()
    assert isinstance(interest, Interest)
    assert interest.floor == 99


def test_the_snapshot_tells_everything_that_is_held_and_wanted(house: House) -> None:
    house.publish(Phone(), "door")
    gone = house.publish(Phone(), "gone")
    Screen(house.hub).watch("door")
    Screen(house.hub).watch("yard")
    house.hub.release(gone, ms(0))
    told = list(house.hub.reports.snapshot(0.0))
    assert sorted(m.stream for m in told if isinstance(m, PublicationState)) == ["door"]
    assert sorted(m.stream for m in told if isinstance(m, Interest)) == ["door", "yard"]
    assert not any(isinstance(m, Release) for m in house.told())


def test_what_goes_during_a_snapshot_is_not_told_as_held(house: House) -> None:
    publications = {name: house.publish(Phone(), name) for name in ("a", "b", "c")}
    snapshot = house.hub.reports.snapshot(0.0)
    first = next(snapshot)
    gone = next(name for name in publications if name != first.stream)
    house.hub.release(publications[gone], ms(0))
    assert gone not in {m.stream for m in snapshot}
    assert any(isinstance(m, Release) and m.stream == gone for m in house.told())


def test_reports_tell_the_streams_that_moved_in_chunks(house: House) -> None:
    publications = [house.publish(Phone(), f"s{n}") for n in range(5)]
    for publication in publications[:3]:
        for n in range(11):
            house.frame(publication, n / 10)
    reports = list(house.hub.reports.stream_metrics(1.0, 2))
    assert [len(r.rows) for r in reports] == [2, 1]
    rows = sorted(row for report in reports for row in report.rows)
    assert rows == [(f"s{n}", 11, 11, 10.0, ms(1)) for n in range(3)]
    assert list(house.hub.reports.stream_metrics(1.0, 2)) == []


def test_reports_go_on_while_a_camera_is_quiet_so_that_its_rate_falls(house: House) -> None:
    publication = house.publish(Phone())
    for n in range(11):
        house.frame(publication, n / 10)
    list(house.hub.reports.stream_metrics(1.0, 10))
    house.hub.tick(9.0, ms(9))
    assert list(house.hub.reports.stream_metrics(9.0, 10)) == [StreamReport(rows=[("door", 11, 11, 0.0, ms(1))])]


def test_what_viewers_missed_is_in_one_report_added_up(house: House) -> None:
    house.hub.reports.count_dropped("door", {DropReason.SLOW: 2, DropReason.RATE: 1})
    house.hub.reports.count_dropped("door", {DropReason.SLOW: 3})
    house.hub.reports.count_dropped("gate", {DropReason.GONE: 1})
    reports = list(house.hub.reports.stream_metrics(0.0, 2))
    assert [row for report in reports for row in report.dropped] == [
        ("door", "slow", 5), ("door", "rate", 1), ("gate", "gone", 1),
    ]  # fmt: skip
    assert all(len(report.dropped) <= 2 for report in reports)
    assert list(house.hub.reports.stream_metrics(0.0, 2)) == []


def test_a_camera_that_left_is_in_no_report(house: House) -> None:
    publication = house.publish(Phone())
    house.frame(publication)
    house.hub.release(publication, ms(0))
    assert list(house.hub.reports.stream_metrics(0.0, 10)) == []


def test_what_is_here_is_counted(house: House) -> None:
    house.publish(Phone(), "door", wants_alerts=True)
    screen = Screen(house.hub)
    screen.watch("door")
    screen.watch("yard", video=False)
    assert house.hub.counts() == {"publishers": 1, "video_viewers": 1, "alert_viewers": 3}


@pytest.mark.parametrize(
    "change",
    [
        lambda house: house.publish(Phone(), "new"),
        lambda house: house.hub.release(house.hub.publication("door"), ms(1)),
        lambda house: Screen(house.hub).watch("door"),
        lambda house: house.hub.tick(6.0, ms(6)),
    ],
)
def test_each_change_wakes_the_link(house: House, change: Callable[[House], None]) -> None:
    house.publish(Phone())
    woken = house.woken
    change(house)
    assert house.woken > woken


# ── all of it at once ────────────────────────────────────────────────────────────────────────────────────────────

STREAMS = ("a", "b")


class AnyHistory(RuleBasedStateMachine):
    """One gateway with cameras that come, go and move elsewhere, and viewers that come, go, fill up and drain."""

    @initialize()
    def begin(self) -> None:
        self.house = House()
        self.hub = self.house.hub
        self.now = 0.0
        self.screens = [Screen(self.hub) for _ in range(3)]
        self.alerts = 0
        self.term = 0
        self.highest = dict.fromkeys(STREAMS, 0)
        self.cameras: dict[str, tuple[Publication, Phone]] = {}
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
        phone = Phone()
        publication = self.house.publish(
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
                self.house.frame(self.cameras[stream][0], self.now)
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
        if all(s.stream != stream for s in screen.wishes):
            screen.watch(
                stream, now=self.now, video=video, alerts=not video or who == 0, window=window, last_frame=last
            )
            assert screen.statuses[-1] == self.hub.newest_state(stream, StreamState()).status

    @rule(who=st.integers(0, 2))
    def a_viewer_leaves(self, who: int) -> None:
        self.screens[who].leave()
        self.screens[who] = Screen(self.hub)

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
        self.hub.delivery.on_alert(alert(self.alerts, stream))
        self.hub.delivery.on_alert(alert(self.alerts, stream))  # told again, it has no second effect
        for screen, count in zip(self.screens, before, strict=True):
            wants = any(s.stream == stream and s.alerts for s in screen.wishes)
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
                if any(s.stream == stream for s in screen.wishes):
                    assert told[-1] == self.hub.newest_state(stream, StreamState()).status

    @invariant()
    def the_router_knows_who_is_here(self) -> None:
        self.hear()
        for stream in STREAMS:
            wishes = [s for screen in self.screens for s in screen.wishes if s.stream == stream]
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
    """A message of the queue: a finished one, or a frame as `Screen` encodes it."""
    return json.loads(wire) if wire.startswith(b"{") else read(wire)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=80, stateful_step_count=40)


# ── viewers that take every frame as it comes ────────────────────────────────────────────────────────────────────────


class Flowing:
    """A viewer as `gateway.client.socket` is one: asked once, it flows until its socket is full."""

    def __init__(self, hub: Hub, format: Format = "json", room: int = 10**9) -> None:
        self.hub = hub
        self.room = room
        self.queue = OutboundQueue(Settings(), lambda subscription, frame: frame_message(frame, subscription.format))
        self.subscription = Subscription("door", Identity("ann", None), video=True, alerts=False, format=format)
        self.got: list[bytes] = []
        self.queued = 0

    def write(self, wire: bytes) -> None:
        assert not self.queue.blocked
        self.got.append(wire)
        self.room -= 1
        if self.room <= 0:
            self.queue.blocked = True
            self.hub.delivery.stop_direct_writes(self.subscription)

    def drained(self, room: int) -> None:
        self.room, self.queue.blocked = room, False
        while not self.queue.blocked and (wire := self.queue.next(0.0)) is not None:
            self.write(wire)

    def send_frame(self, subscription: Subscription, frame: Frame, now: float) -> None:
        self.queued += 1
        if subscription.format == "binary" and not frame.has_binary:
            subscription.drop(DropReason.UNDECODABLE)
            return
        if self.queue.offer_frame(subscription, frame, now):
            self.write(frame_message(frame, subscription.format))
            if not self.queue.blocked:
                self.hub.delivery.start_direct_writes(subscription, self.write)

    def send_message(self, message: bytes) -> None:
        """StatusUpdate."""

    def on_permission_lost(self, stream: str) -> None:
        """Not here."""

    @property
    def dropped(self) -> dict[DropReason, int]:
        return self.subscription.dropped or {}


def flowing(house: House, *viewers: Flowing) -> None:
    for viewer in viewers:
        house.hub.subscribe(viewer.subscription, viewer, StreamState("streaming", Owner("ann"), 1), 0.0, ms(0))


def test_a_viewer_that_takes_all_frames_is_asked_once_and_gets_the_shared_bytes() -> None:
    house = House()
    door = house.publish(Phone())
    first, second, binary = Flowing(house.hub), Flowing(house.hub), Flowing(house.hub, "binary")
    flowing(house, first, second, binary)
    for _ in range(5):
        house.frame(door)
    assert [viewer.queued for viewer in (first, second, binary)] == [1, 1, 1]
    assert [read(wire)["frameId"] for wire in first.got] == [1, 2, 3, 4, 5]
    assert all(one is other for one, other in zip(first.got, second.got, strict=True))
    assert len(binary.got) == 5
    assert house.hub.delivery.frames_out == 12  # what was written when asked is counted by the socket
    assert house.hub.delivery.frame_bytes_out == sum(map(len, [*first.got[1:], *second.got[1:], *binary.got[1:]]))


def test_a_viewer_whose_socket_is_full_is_asked_again_and_misses_only_what_a_newer_one_replaced() -> None:
    house = House()
    door = house.publish(Phone())
    slow, other = Flowing(house.hub, room=3), Flowing(house.hub)
    flowing(house, slow, other)
    for _ in range(6):
        house.frame(door)
    assert [read(wire)["frameId"] for wire in slow.got] == [1, 2, 3]
    assert slow.dropped == {DropReason.SLOW: 2}
    slow.drained(100)
    for _ in range(3):
        house.frame(door)
    assert [read(wire)["frameId"] for wire in slow.got] == [1, 2, 3, 6, 7, 8, 9]
    assert [read(wire)["frameId"] for wire in other.got] == list(range(1, 10))
    assert (slow.queued, other.queued) == (1 + 3 + 1, 1)


def test_who_left_gets_no_more_frames_and_who_was_not_up_to_date_does_not_flow() -> None:
    house = House()
    door = house.publish(Phone())
    viewer = Flowing(house.hub)
    flowing(house, viewer)
    house.frame(door)
    late = Flowing(house.hub)
    house.hub.delivery.start_direct_writes(late.subscription, late.write)  # nobody's yet
    house.hub.delivery.stop_direct_writes(late.subscription)
    flowing(house, late)
    late.subscription.last_frame_id = 0
    house.hub.unsubscribe(viewer.subscription)
    house.hub.delivery.stop_direct_writes(viewer.subscription)
    house.hub.delivery.start_direct_writes(viewer.subscription, viewer.write)
    house.frame(door)
    assert len(viewer.got) == 1
    assert [read(wire)["frameId"] for wire in late.got] == [1, 2]


def test_a_frame_that_cannot_be_had_in_a_format_is_skipped_by_each_who_wants_it_so() -> None:
    house = House()
    door = house.publish(Phone())
    binary, plain = Flowing(house.hub, "binary"), Flowing(house.hub)
    flowing(house, binary, plain)
    for text in (b'"/9j/"', b'"?"', b'"/9j/"', b'"/9j/"'):
        house.frame(door, text=text)
    assert [struct.unpack_from(">I", wire, 2 + 4)[0] for wire in binary.got] == [1, 3, 4]
    assert binary.dropped == {DropReason.UNDECODABLE: 1}
    assert len(plain.got) == 4


def test_an_old_frame_of_elsewhere_goes_to_nobody_who_flows() -> None:
    house = House()
    viewer = Flowing(house.hub)
    house.hub.subscribe(viewer.subscription, viewer, StreamState("streaming", Owner("ann"), 5), 0.0, ms(0))
    for number in (1, 3, 2, 3, 4):
        house.hub.delivery.on_remote_frame(remote(number), 0.0)
    assert [read(wire)["frameId"] for wire in viewer.got] == [1, 3, 4]
    assert viewer.dropped == {DropReason.OLD: 2}


STEPS = st.one_of(st.just("frame"), st.tuples(st.integers(0, 2), st.integers(0, 3)), st.integers(0, 2))


@given(st.lists(STEPS, max_size=60))
def test_flowing_or_not_every_frame_is_sent_once_in_order_or_waits_or_is_counted(
    steps: list[str | int | tuple[int, int]],
) -> None:
    house = House()
    door = house.publish(Phone())
    viewers = [Flowing(house.hub, room=room) for room in (1, 2, 50)]
    flowing(house, *viewers)
    sent = 0
    for step in steps:
        if step == "frame":
            house.frame(door)
            sent += 1
        elif isinstance(step, tuple):
            viewers[step[0]].drained(step[1] + 1)
        else:
            house.hub.delivery.stop_direct_writes(viewers[int(step)].subscription)
    for viewer in viewers:
        numbers = [read(wire)["frameId"] for wire in viewer.got]
        assert numbers == sorted(set(numbers))
        assert sent == len(numbers) + (viewer.subscription.waiting_frame is not None) + sum(viewer.dropped.values())


# ── cameras that went ────────────────────────────────────────────────────────────────────────────────────────────


def published(hub: Hub, stream: str, user: str, term: int) -> Publication:
    return hub.publish(
        stream, Owner(user), Phone(), term=term, first_frame_id=1, producing=True, wants_alerts=False, now=0.0,
        now_ms=START_MS,
    )  # fmt: skip


def gone(hub: Hub, now_ms: int = START_MS) -> dict[str, tuple[str, int]]:
    return {row[0]: (row[1], row[3]) for told in hub.reports.reservations(now_ms) for row in told.rows}


def test_whose_the_streams_were_whose_cameras_went_from_here_is_kept_for_the_next_router() -> None:
    hub = Hub(wake=lambda: None, to_bus=lambda _: None)
    for name, user, term in (("a", "ann", 1), ("b", "bob", 2), ("c", "cy", 3)):
        hub.release(published(hub, name, user, term), START_MS)
    assert gone(hub) == {"a": ("ann", 1), "b": ("bob", 2), "c": ("cy", 3)}
    published(hub, "a", "ann", 4)  # it is told as a `PublicationState` now
    hub.reports.on_unreserved(ReservationEnded(stream="b", term=2))
    hub.reports.on_unreserved(ReservationEnded(stream="c", term=2))  # of a camera before this one
    assert gone(hub) == {"c": ("cy", 3)}
    hub.tick(0.0, START_MS + 604_801_000)
    assert gone(hub) == {}


def test_a_stream_that_was_taken_over_elsewhere_is_told_by_who_has_it() -> None:
    hub = Hub(wake=lambda: None, to_bus=lambda _: None)
    published(hub, "a", "ann", 1)
    hub.revoke("a", 2)
    assert gone(hub) == {}


def test_very_many_cameras_that_went_are_told_in_pieces_and_are_bounded() -> None:
    hub = Hub(wake=lambda: None, to_bus=lambda _: None, reserved_per_user=1200)
    for number in range(1500):
        hub.release(published(hub, f"s{number}", "ann", number + 1), START_MS)
    told = list(hub.reports.reservations(START_MS + 2000))
    assert [len(each.rows) for each in told] == [500, 500, 200]
    assert {row[5] for each in told for row in each.rows} == {2.0}


def test_counts_and_rates_are_those_of_who_is_here_whoever_came_and_went() -> None:
    """Kept as viewers come and go, so that nothing has to go through all of them."""
    chance = random.Random(7)
    hub = Hub(wake=lambda: None, to_bus=lambda _: None)
    here: list[Screen] = []
    for _ in range(600):
        if here and chance.random() < 0.45:
            here.pop(chance.randrange(len(here))).leave()
        else:
            screen = Screen(hub)
            screen.watch(
                chance.choice("ab"), video=chance.random() < 0.7, alerts=chance.random() < 0.6,
                max_fps=chance.choice([None, 1.0, 5.0, 25.0]),
            )  # fmt: skip
            here.append(screen)
        wishes = [wish for screen in here for wish in screen.wishes]
        counts = hub.counts()
        assert counts["video_viewers"] == sum(wish.video for wish in wishes)
        assert counts["alert_viewers"] == sum(wish.alerts for wish in wishes)
        told = {told.stream: told for told in hub.reports.changes(0.0) if isinstance(told, Interest)}
        for name, interest in told.items():
            of_stream = [wish for wish in wishes if wish.stream == name]
            rates = [wish.max_fps for wish in of_stream if wish.video]
            assert interest.viewers == len(rates)
            assert interest.alert_viewers == sum(wish.alerts for wish in of_stream)
            assert interest.max_fps == (None if None in rates else max((r for r in rates if r), default=None))
    for screen in here:
        screen.leave()
    assert hub.counts() == {"publishers": 0, "video_viewers": 0, "alert_viewers": 0}


def test_of_ten_thousand_streams_that_came_and_went_nothing_is_left_but_what_is_bounded() -> None:
    hub = Hub(wake=lambda: None, to_bus=lambda _: None, reserved_per_user=50)
    for number in range(10_000):
        name = f"s{number}"
        screen = Screen(hub)
        screen.watch(name)
        publication = published(hub, name, f"u{number % 300}", number + 1)
        hub.delivery.on_frame(
            publication, text=b'"/9j/4AAQ"', picture=None, codec=None, timestamp=1, now=1.0, now_ms=START_MS
        )
        hub.delivery.on_alert(Alert(id="a", stream_id=name, severity="low", message="x", timestamp=1))
        hub.delivery.newest_frame(name)
        hub.release(publication, START_MS)
        screen.leave()
        if number % 100 == 0:
            list(hub.reports.changes(0.0))
            list(hub.reports.stream_metrics(0.0, 100))
            hub.tick(float(number), START_MS)
            hub.notices.send_demand(float(number), START_MS)
    for now in (20_000.0, 20_020.0, 20_040.0):
        list(hub.reports.changes(now))
        list(hub.reports.stream_metrics(now, 100))
        hub.notices.send_demand(now, START_MS)
        hub.tick(now, START_MS + 605_000_000)
    left = {
        name: len(value)
        for name, value in vars(hub).items()
        if hasattr(value, "__len__") and len(value) and name != "_alerts_seen"
    }
    assert left == {}
    assert len(hub.delivery._alerts_seen) == 10_000
