"""Demand, and errors about frames that are no pictures, as publishers are sent them."""

from __future__ import annotations

import struct

import pytest

from tests.kit.hub import DirectViewer, FakePublisher, FakeViewer, HubHarness, ms, remote, subscribe_directly, word
from watchout.common.bus.frames import decode_frame
from watchout.common.bus.messages import (
    BadFrame,
    ErrorForPublisher,
    Forward,
)
from watchout.common.media.codecs import Codec
from watchout.common.media.frames import Frame
from watchout.gateway.hub.streams import MAX_REQUEST_IDS
from watchout.gateway.model import Owner

# ── demand ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def demands(phone: FakePublisher) -> list[tuple[int, float]]:
    return [(m["viewers"], m["fps"]) for m in phone.messages if m["type"] == "demand"]


def test_a_camera_that_asks_for_it_is_told_what_viewers_here_and_elsewhere_want(harness: HubHarness) -> None:
    phone, screen, quick = FakePublisher(), FakeViewer(harness.hub), FakeViewer(harness.hub)
    publication = harness.publish(phone, wants_demand=True)
    harness.hub.notices.send_demand(0.0, ms(0))
    screen.subscribe("door", max_fps=2)
    harness.hub.notices.send_demand(1.0, ms(1))
    harness.hub.on_forward(Forward(stream="door", term=publication.term, wanted=True, max_fps=5.0, viewers=3), 2.0)
    harness.hub.notices.send_demand(2.0, ms(2))
    quick.subscribe("door")
    harness.hub.notices.send_demand(3.0, ms(3))
    assert demands(phone) == [(0, 0), (1, 2), (4, 5), (5, 30)]
    assert phone.messages[0] == {"type": "demand", "streamId": "door", "viewers": 0, "fps": 0, "timestamp": ms(0)}
    quick.leave()
    screen.leave()
    harness.hub.on_forward(Forward(stream="door", term=publication.term, wanted=True, max_fps=1.5), 4.0)  # an mlbridge
    harness.hub.notices.send_demand(4.0, ms(4))
    assert len(demands(phone)) == 4
    harness.hub.notices.send_demand(5.0, ms(5))
    assert demands(phone)[4:] == [(0, 1.5)]


def test_who_wants_only_alerts_demands_no_frames(harness: HubHarness) -> None:
    phone = FakePublisher()
    harness.publish(phone, wants_demand=True)
    FakeViewer(harness.hub).subscribe("door", video=False)
    harness.hub.notices.send_demand(0.0, ms(0))
    assert demands(phone) == [(0, 0)]


def test_a_camera_that_does_not_ask_is_told_nothing(harness: HubHarness) -> None:
    phone = FakePublisher()
    harness.publish(phone)
    FakeViewer(harness.hub).subscribe("door")
    harness.hub.notices.send_demand(0.0, ms(0))
    assert phone.messages == []


def test_a_member_that_joins_again_lets_no_demand_fall_for_a_moment(harness: HubHarness) -> None:
    phone = FakePublisher()
    publication = harness.publish(phone, wants_demand=True)
    told = Forward(stream="door", term=publication.term, wanted=True, viewers=1)
    harness.hub.on_forward(told, 0.0)
    harness.hub.notices.send_demand(0.0, ms(0))
    list(harness.hub.reports.snapshot(5.0))
    harness.hub.notices.send_demand(5.0, ms(5))
    harness.hub.on_forward(told, 5.5)
    harness.hub.notices.send_demand(6.5, ms(6.5))
    assert demands(phone) == [(1, 30)]


# ── frames that cannot be decoded ────────────────────────────────────────────────────────────────────────────────────


def test_a_camera_here_is_told_once_that_its_frames_cannot_be_decoded(harness: HubHarness) -> None:
    phone = FakePublisher()
    publication = harness.publish(phone)
    for number in (1, 2):
        frame = Frame("door", number, 0, text=b'"?"')
        assert harness.hub.notices.on_undecodable(frame, "data is not base64", ms(0)) is None
    harness.hub.notices.on_frame_refused(
        ErrorForPublisher(stream="door", code="INVALID_MESSAGE", message="so says the router"), ms(0)
    )
    (told,) = phone.messages
    assert (told["type"], told["code"], told["streamId"]) == ("error", "INVALID_MESSAGE", "door")
    assert "data is not base64" in told["message"]
    harness.hub.release(publication, ms(0))
    again = FakePublisher()
    harness.publish(again, term=2)
    harness.hub.notices.on_frame_refused(
        ErrorForPublisher(stream="door", code="INVALID_MESSAGE", message="so says the router"), ms(0)
    )
    assert [m["message"] for m in again.messages] == ["so says the router"]


@pytest.mark.parametrize("wants", [True, False])
def test_a_camera_that_wants_the_status_gets_each_once(harness: HubHarness, wants: bool) -> None:
    phone, owner = FakePublisher(), Owner("ann")
    publication = harness.hub.publish(
        "door", owner, phone, term=1, first_frame_id=1, producing=True, wants_alerts=False, wants_status=wants, now=0.0,
        now_ms=ms(0),
    )  # fmt: skip
    harness.hub.tick(6.0, ms(6))
    harness.frame(publication, 7.0)
    assert [message["status"] for message in phone.messages] == ["streaming", "online", "streaming"] * wants


BAD_TEXTS = (b'"null"', b'""', b'"?"', b'"AAAA"')
GOOD_TEXT = b'"/9j/"'


@pytest.mark.parametrize("bad", BAD_TEXTS)
def test_what_is_no_picture_never_becomes_the_newest_frame(harness: HubHarness, bad: bytes) -> None:
    publication = harness.publish(phone := FakePublisher(), term=4)
    harness.frame(publication, text=bad)
    assert harness.hub.delivery.newest_frame("door") is None
    harness.frame(publication, text=GOOD_TEXT)
    harness.frame(publication, text=bad)
    newest = harness.hub.delivery.newest_frame("door")
    assert newest is not None
    assert newest.frame_id == 2
    late = FakeViewer(harness.hub)
    late.subscribe("door")
    assert late.frames == [("door", 2)]
    harness.hub.on_forward(Forward(stream="door", term=4, wanted=True), 0.0)
    assert harness.pushed == [2]
    harness.frame(publication, text=bad)
    assert late.frames == [("door", 2), ("door", 4)], "JSON viewers get every frame"
    harness.publish(phone, term=5, first=5)
    newest = harness.hub.delivery.newest_frame("door")
    assert newest is not None
    assert newest.frame_id == 2
    assert harness.hub.last_frame_id("door") == 4


@pytest.mark.parametrize("bad", BAD_TEXTS)
def test_what_is_no_picture_replaces_no_newest_frame_of_a_camera_elsewhere(harness: HubHarness, bad: bytes) -> None:
    FakeViewer(harness.hub).subscribe("door", "streaming", "ann")
    harness.hub.on_status(word("streaming"), 0.0, ms(0))
    for number, text in ((1, GOOD_TEXT), (2, bad)):
        crossed = decode_frame(Frame("door", number, 0, term=5, text=text).to_bus())
        harness.hub.delivery.on_remote_frame(Frame.from_bus(crossed), 0.0)
    newest = harness.hub.delivery.newest_frame("door")
    assert newest is not None
    assert newest.frame_id == 1


def test_opaque_bytes_go_to_binary_viewers_and_are_no_newest_frame(harness: HubHarness) -> None:
    viewer = DirectViewer(harness.hub, "binary")
    door = harness.publish(phone := FakePublisher())
    subscribe_directly(harness, viewer)
    for picture, codec in ((b"h264", Codec.OPAQUE), (b"h264", Codec.JPEG), (b"\xff\xd8\xff", Codec.OPAQUE)):
        harness.hub.delivery.on_frame(door, text=None, picture=picture, codec=codec, timestamp=1, now=0.0, now_ms=ms(0))
        harness.hub.notices.on_picture_requested("door", ms(0))
    assert [struct.unpack_from(">I", wire, 2 + 4)[0] for wire in viewer.got] == [1, 3]
    newest = harness.hub.delivery.newest_frame("door")
    assert newest is not None
    assert newest.frame_id == 3
    (told,) = phone.messages
    assert told["message"].startswith("frame 2: data begins with 68 32 36 34, expected the first bytes of JPEG")


def test_a_camera_is_told_once_of_a_frame_that_is_wanted_as_a_picture_and_is_none(harness: HubHarness) -> None:
    publication = harness.publish(phone := FakePublisher())
    harness.frame(publication, text=GOOD_TEXT)
    assert harness.hub.notices.on_picture_requested("door", ms(0)) is None
    harness.frame(publication, text=b'"null"')
    assert phone.messages == [], "nobody wanted it"
    for _ in range(2):
        assert harness.hub.notices.on_picture_requested("door", ms(0)) is None
    assert [m["message"][:10] for m in phone.messages] == ["frame 2: d"]


def test_the_error_carries_the_request_id_of_the_frame_wherever_it_was_noticed(harness: HubHarness) -> None:
    for here in (True, False):
        publication = harness.publish(phone := FakePublisher())
        for request_id in ("a", "b", "c"):
            publication.remember_request(request_id)
            harness.frame(publication, text=b'"?"')
        bad = publication.next_frame_id - 2
        if here:
            harness.hub.notices.on_undecodable(Frame("door", bad, 0, text=b'"?"'), "no", ms(0))
        else:
            elsewhere = HubHarness()
            FakeViewer(elsewhere.hub).subscribe("door", "streaming", "ann")
            told = elsewhere.hub.notices.on_undecodable(remote(bad), "no", ms(0))
            assert told is not None
            error = ErrorForPublisher(stream="door", code="INVALID_MESSAGE", message=told.reason)
            harness.hub.notices.on_frame_refused(error, ms(0))
        (message,) = phone.messages
        assert (message["requestId"], message["message"]) == ("b", f"frame {bad}: no")
        harness.hub.release(publication, ms(0))


def test_the_request_ids_of_so_many_frames_are_known(harness: HubHarness) -> None:
    publication = harness.publish(FakePublisher())
    for number in range(MAX_REQUEST_IDS + 2):
        publication.remember_request(str(number))
        harness.frame(publication, text=b'"?"')
    last = publication.next_frame_id - 1
    assert publication.request_ids == {last - back: str(MAX_REQUEST_IDS + 1 - back) for back in range(MAX_REQUEST_IDS)}


def test_of_a_camera_elsewhere_the_router_is_told(harness: HubHarness) -> None:
    FakeViewer(harness.hub).subscribe("door", "streaming", "ann")
    told = harness.hub.notices.on_undecodable(remote(7), "data is empty", ms(0))
    assert told == BadFrame(stream="door", frame_id=7, reason="frame 7: data is empty")
    harness.hub.notices.on_frame_refused(ErrorForPublisher(stream="door", code="INVALID_MESSAGE", message="x"), ms(0))
