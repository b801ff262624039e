"""Publishers at the hub: register, take-over, release, and the reservation of streams that ended."""

from __future__ import annotations

import random

from tests.kit.hub import FakePublisher, FakeViewer, HubHarness, ms, remote, word
from tests.kit.playbook import START_MS
from watchout.common.alerts.model import Alert
from watchout.common.bus.messages import (
    Interest,
    PublicationState,
    ReservationEnded,
    StatusUpdate,
)
from watchout.gateway.hub.delivery import MAX_FRAME_ID
from watchout.gateway.hub.registry import Hub
from watchout.gateway.hub.streams import Publication
from watchout.gateway.model import Owner

# ── cameras and their frames ─────────────────────────────────────────────────────────────────────────────────────────


def test_frames_go_to_everybody_who_watches_numbered_from_the_first_id(harness: HubHarness) -> None:
    screens = [FakeViewer(harness.hub) for _ in range(3)]
    for screen in screens:
        screen.subscribe("door")
    publication = harness.publish(FakePublisher(), first=41)
    for _ in range(3):
        harness.frame(publication)
    assert all(screen.frames == [("door", 41), ("door", 42), ("door", 43)] for screen in screens)
    assert harness.hub.last_frame_id("door") == 43
    newest = harness.hub.delivery.newest_frame("door")
    assert newest is not None
    assert newest.frame_id == 43


def test_frames_go_to_nobody_else(harness: HubHarness) -> None:
    other, quiet = FakeViewer(harness.hub), FakeViewer(harness.hub)
    other.subscribe("yard")
    quiet.subscribe("door", video=False)
    harness.frame(harness.publish(FakePublisher()))
    assert other.frames == quiet.frames == []


def test_a_frame_keeps_the_time_of_its_camera(harness: HubHarness) -> None:
    publication = harness.publish(FakePublisher())
    harness.hub.delivery.on_frame(
        publication, text=None, picture=b"\xff\xd8\xff", codec=None, timestamp=77, now=1.0, now_ms=ms(1.0)
    )
    newest = harness.hub.delivery.newest_frame("door")
    assert newest is not None
    assert (newest.timestamp, newest.picture, newest.term) == (77, b"\xff\xd8\xff", 1)
    assert publication.last_frame_at == ms(1.0)
    assert (harness.hub.delivery.frames_in, harness.hub.delivery.bytes_in) == (1, 3)


def test_the_camera_that_was_taken_over_is_told_and_viewers_stay(harness: HubHarness) -> None:
    screen, old, new = FakeViewer(harness.hub), FakePublisher(), FakePublisher()
    screen.subscribe("door")
    first = harness.publish(old, term=1)
    harness.frame(first)
    second = harness.publish(new, term=2, first=2)
    assert (old.lost, new.lost) == (["door"], [])
    harness.frame(second)
    assert screen.frames == [("door", 1), ("door", 2)]
    assert screen.statuses == ["offline", "streaming"]


def test_a_take_over_lets_frame_ids_jump_but_never_fall(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door")
    first = harness.publish(FakePublisher(), term=1, first=10)
    harness.frame(first)
    harness.frame(first)
    for term, first_id in ((2, 5), (3, 1000), (4, 1)):
        harness.frame(harness.publish(FakePublisher(), term=term, first=first_id))
    assert [number for _, number in screen.frames] == [10, 11, 12, 1000, 1001]


def test_a_camera_that_returns_goes_on_above_what_viewers_have_seen(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door")
    first = harness.publish(FakePublisher(), term=1)
    harness.frame(first)
    harness.hub.release(first, ms(1))
    harness.frame(harness.publish(FakePublisher(), term=2, first=1))
    assert screen.frames == [("door", 1), ("door", 2)]
    assert screen.statuses == ["offline", "streaming", "offline", "streaming"]


def test_a_camera_that_was_taken_over_releases_nothing(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door")
    old = harness.publish(FakePublisher(), term=1)
    new = harness.publish(FakePublisher(), term=2)
    harness.changes()
    harness.hub.release(old, ms(1))
    assert harness.hub.publication("door") is new
    assert harness.changes() == []
    assert screen.statuses == ["offline", "streaming"]


def test_a_revoked_camera_is_told_and_viewers_wait_for_the_other_gateway(harness: HubHarness) -> None:
    screen, phone = FakeViewer(harness.hub), FakePublisher()
    screen.subscribe("door")
    publication = harness.publish(phone, term=3)
    harness.frame(publication)
    harness.changes()
    harness.hub.revoke("door", 3)
    assert phone.lost == ["door"]
    assert harness.hub.publication("door") is None
    assert harness.changes() == []
    harness.hub.delivery.on_remote_frame(remote(70_000, term=4), 0.0)
    harness.hub.on_status(word("streaming", term=4), 0.0, ms(0))
    assert screen.frames == [("door", 1), ("door", 70_000)]
    assert screen.statuses == ["offline", "streaming"]


def test_a_revocation_of_an_older_term_is_void(harness: HubHarness) -> None:
    phone = FakePublisher()
    harness.publish(phone, term=3)
    harness.hub.revoke("door", 2)
    harness.hub.revoke("yard", 9)
    assert phone.lost == []
    assert harness.hub.publication("door") is not None


def test_a_new_owner_does_not_inherit_the_last_picture(harness: HubHarness) -> None:
    FakeViewer(harness.hub).subscribe("door")
    harness.frame(harness.publish(FakePublisher(), user="ann", term=1))
    harness.publish(FakePublisher(), user="bob", term=2)
    assert harness.hub.delivery.newest_frame("door") is None
    assert harness.hub.local_owner("door") == Owner("bob")


def test_the_last_picture_of_a_camera_that_left_goes_to_nobody(harness: HubHarness) -> None:
    own, stranger = FakeViewer(harness.hub), FakeViewer(harness.hub)
    own.subscribe("door")
    publication = harness.publish(FakePublisher())
    harness.frame(publication)
    harness.hub.release(publication, ms(1))
    stranger.subscribe("door", "offline", None)
    assert stranger.frames == []
    assert harness.hub.delivery.newest_frame("door") is None


def test_the_last_picture_of_a_camera_elsewhere_that_left_goes_to_nobody(harness: HubHarness) -> None:
    own, stranger = FakeViewer(harness.hub), FakeViewer(harness.hub)
    own.subscribe("door", "streaming", "ann")
    harness.hub.on_status(word("streaming"), 0.0, ms(0))
    harness.hub.delivery.on_remote_frame(remote(1), 0.0)
    assert own.frames == [("door", 1)]
    harness.hub.on_status(word("offline"), 1.0, ms(1))
    stranger.subscribe("door", "offline", None)
    assert stranger.frames == []


def test_after_the_last_number_a_stream_begins_again_at_one_and_viewers_follow(harness: HubHarness) -> None:
    screen, slow = FakeViewer(harness.hub), FakeViewer(harness.hub)
    screen.subscribe("door")
    slow.subscribe("door", window=1)
    publication = harness.publish(FakePublisher(), first=MAX_FRAME_ID)
    slow.queue.blocked = True
    for _ in range(3):
        harness.frame(publication)
    assert [number for _, number in screen.frames] == [MAX_FRAME_ID, 1, 2]
    slow.queue.blocked = False
    assert slow.queue.next(0.0) is not None
    assert slow.subscriptions[0].last_frame_id == 2
    assert harness.hub.last_frame_id("door") == 2


def test_the_owner_of_a_stream_is_certain_only_while_its_camera_is_here(harness: HubHarness) -> None:
    FakeViewer(harness.hub).subscribe("door", "streaming", "ann")
    assert harness.hub.local_owner("door") is None
    publication = harness.publish(FakePublisher(), user="ann")
    assert harness.hub.local_owner("door") == Owner("ann")
    harness.hub.release(publication, ms(0))
    assert harness.hub.local_owner("door") is None
    assert harness.hub.local_owner("never") is None


def test_when_the_owner_belongs_to_others_the_hold_says_so_and_the_stream_goes_on(harness: HubHarness) -> None:
    screen = FakeViewer(harness.hub)
    screen.subscribe("door")
    publication = harness.publish(FakePublisher(), user="ann")
    harness.frame(publication)
    harness.changes()
    harness.hub.change_owner(publication, Owner("ann", frozenset({"b", "a"})))
    (hold,) = harness.changes()
    assert isinstance(hold, PublicationState)
    assert (hold.user, hold.organizations, hold.term) == ("ann", ("a", "b"), publication.term)
    assert (
        harness.hub.local_owner("door") == harness.hub.last_known_owner("door") == Owner("ann", frozenset({"a", "b"}))
    )
    harness.frame(publication)
    assert [number for _, number in screen.frames] == [1, 2]


def test_a_publication_that_was_taken_over_changes_no_owner(harness: HubHarness) -> None:
    old = harness.publish(FakePublisher(), user="ann", term=1)
    harness.publish(FakePublisher(), user="ann", term=2)
    harness.hub.change_owner(old, Owner("ann", frozenset({"acme"})))
    assert harness.hub.local_owner("door") == Owner("ann")


def test_what_the_router_says_of_the_owner_is_kept_and_told_to_its_successor(harness: HubHarness) -> None:
    FakeViewer(harness.hub).subscribe("door")
    told = StatusUpdate(stream="door", status="streaming", timestamp=0, term=5, user="ann", organizations=("acme",))
    harness.hub.on_status(told, 0.0, ms(0))
    assert harness.hub.last_known_owner("door") == Owner("ann", frozenset({"acme"}))
    (interest,) = harness.hub.reports.snapshot(0.0)
    assert isinstance(interest, Interest)
    assert (interest.user, interest.organizations) == ("ann", ("acme",))


# ── cameras that went ────────────────────────────────────────────────────────────────────────────────────────────────


def published(hub: Hub, stream: str, user: str, term: int) -> Publication:
    return hub.publish(
        stream, Owner(user), FakePublisher(), term=term, first_frame_id=1, producing=True, wants_alerts=False, now=0.0,
        now_ms=START_MS,
    )  # fmt: skip


def gone(hub: Hub, now_ms: int = START_MS) -> dict[str, tuple[str, int]]:
    return {row[0]: (row[1], row[3]) for told in hub.reports.reservations(now_ms) for row in told.rows}


def test_whose_the_streams_were_whose_cameras_went_from_here_is_kept_for_the_next_router() -> None:
    hub = Hub(wake=lambda: None, to_bus=lambda _: None, to_members=lambda *_: None)
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
    hub = Hub(wake=lambda: None, to_bus=lambda _: None, to_members=lambda *_: None)
    published(hub, "a", "ann", 1)
    hub.revoke("a", 2)
    assert gone(hub) == {}


def test_very_many_cameras_that_went_are_told_in_pieces_and_are_bounded() -> None:
    hub = Hub(wake=lambda: None, to_bus=lambda _: None, to_members=lambda *_: None, reserved_per_user=1200)
    for number in range(1500):
        hub.release(published(hub, f"s{number}", "ann", number + 1), START_MS)
    told = list(hub.reports.reservations(START_MS + 2000))
    assert [len(each.rows) for each in told] == [500, 500, 200]
    assert {row[5] for each in told for row in each.rows} == {2.0}


def test_counts_and_rates_are_those_of_who_is_here_whoever_came_and_went() -> None:
    """Kept as viewers come and go, so that nothing has to go through all of them."""
    chance = random.Random(7)
    hub = Hub(wake=lambda: None, to_bus=lambda _: None, to_members=lambda *_: None)
    here: list[FakeViewer] = []
    for _ in range(600):
        if here and chance.random() < 0.45:
            here.pop(chance.randrange(len(here))).leave()
        else:
            screen = FakeViewer(hub)
            screen.subscribe(
                chance.choice("ab"), video=chance.random() < 0.7, alerts=chance.random() < 0.6,
                max_fps=chance.choice([None, 1.0, 5.0, 25.0]),
            )  # fmt: skip
            here.append(screen)
        wishes = [wish for screen in here for wish in screen.subscriptions]
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
    hub = Hub(wake=lambda: None, to_bus=lambda _: None, to_members=lambda *_: None, reserved_per_user=50)
    for number in range(10_000):
        name = f"s{number}"
        screen = FakeViewer(hub)
        screen.subscribe(name)
        publication = published(hub, name, f"u{number % 300}", number + 1)
        hub.delivery.on_frame(
            publication, text=b'"/9j/4AAQ"', picture=None, codec=None, timestamp=1, now=1.0, now_ms=START_MS
        )
        hub.delivery.on_alert(Alert(id="a", stream_id=name, severity="low", message="x", timestamp=1), 0.0)
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
        if hasattr(value, "__len__") and len(value) and name != "_sent_alerts"
    }
    assert left == {}
    assert len(hub.delivery._sent_alerts) == 10_000
