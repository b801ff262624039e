"""The newest frames are bounded in total, with all copies of them, and the one that came first gives way."""

from __future__ import annotations

import pybase64
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.hub import FakePublisher, FakeViewer
from tests.kit.playbook import START_MS
from watchout.common.media.codecs import Codec
from watchout.common.media.frames import Frame
from watchout.gateway import wire
from watchout.gateway.hub.newest_frames import NewestFrames
from watchout.gateway.hub.registry import IDLE_AFTER_S, Hub
from watchout.gateway.hub.streams import Publication
from watchout.gateway.model import Owner

PICTURE = b"\xff\xd8\xff\xe0" + bytes(30_000)
STEPS = ("came", "came", "grew", "drop")
TOKEN = b'"' + pybase64.b64encode(PICTURE) + b'"'


@given(
    st.integers(0, 100),
    st.lists(
        st.tuples(st.sampled_from(["came", "came", "grew", "drop"]), st.sampled_from("abcde"), st.integers(1, 60))
    ),
)
def test_the_bound_holds_and_the_one_that_came_first_gives_way(most: int, steps: list[tuple[str, str, int]]) -> None:
    newest = NewestFrames(most)
    model: dict[str, int] = {}
    for what, stream, size in steps:
        if what == "drop":
            newest.remove(stream)
            model.pop(stream, None)
        elif what == "came" or stream in model:
            gone = newest.put(stream, size) if what == "came" else newest.resize(stream, size)
            if what == "came":
                model.pop(stream, None)
            model[stream] = size
            expected = []
            while sum(model.values()) > most and len(model) > 1:
                first = next(iter(model))
                expected.append(first)
                del model[first]
            assert gone == expected
        else:
            assert newest.resize(stream, size) == []
        assert newest.total == sum(model.values())
        assert len(newest) == len(model)


def test_a_stream_that_sends_again_is_behind_the_others() -> None:
    newest = NewestFrames(30)
    for stream in "aba":
        assert newest.put(stream, 10) == []
    assert newest.put("c", 20) == ["b"]


def made_hub(newest_bytes: int) -> Hub:
    return Hub(wake=lambda: None, to_bus=lambda _: None, to_members=lambda *_: None, newest_bytes=newest_bytes)


def camera(hub: Hub, stream: str, term: int = 1) -> Publication:
    return hub.publish(
        stream, Owner("ann"), FakePublisher(), term=term, first_frame_id=1, producing=True, wants_alerts=False, now=0.0,
        now_ms=START_MS,
    )  # fmt: skip


def shows(hub: Hub, publication: Publication, *, text: bool = True, now: float = 0.0) -> None:
    token, picture, codec = (TOKEN, None, None) if text else (None, PICTURE, Codec.JPEG)
    hub.delivery.on_frame(publication, text=token, picture=picture, codec=codec, timestamp=1, now=now, now_ms=START_MS)


def test_of_many_quiet_cameras_the_newest_pictures_are_kept_within_the_bytes() -> None:
    hub = made_hub(3 * len(TOKEN) + 1000)
    cameras = [camera(hub, f"cam-{number}") for number in range(10)]
    for publication in cameras:
        shows(hub, publication)
    kept = [publication.stream for publication in cameras if hub.delivery.newest_frame(publication.stream) is not None]
    assert kept == ["cam-7", "cam-8", "cam-9"]
    assert hub.delivery.newest_frames.evicted == 7
    shows(hub, cameras[0])
    assert hub.delivery.newest_frame("cam-0") is not None
    assert hub.delivery.newest_frame("cam-7") is None


def test_a_viewer_of_a_stream_whose_picture_gave_way_waits_for_the_next() -> None:
    hub = made_hub(len(TOKEN) + 1000)
    first, second = camera(hub, "a"), camera(hub, "b")
    shows(hub, first)
    shows(hub, second)
    screen = FakeViewer(hub)
    screen.subscribe("a")
    assert screen.frames == []
    shows(hub, first)
    assert len(screen.frames) == 1


def test_copies_that_were_made_for_readers_count_and_are_let_go_of_when_the_camera_is_quiet() -> None:
    hub = made_hub(1 << 30)
    publication = camera(hub, "a")
    shows(hub, publication)
    sent = hub.delivery.newest_frames.total
    frame = hub.delivery.newest_frame("a")
    assert frame is not None
    assert frame.picture == PICTURE
    wire.frame_message(frame, "binary")
    hub.tick(1.0, START_MS)
    assert hub.delivery.newest_frames.total > sent + 2 * len(PICTURE)
    hub.tick(IDLE_AFTER_S + 1, START_MS)
    assert hub.delivery.newest_frames.total <= sent + 1000
    assert hub.delivery.newest_frame("a") is frame
    assert frame.picture == PICTURE


def test_what_is_gone_does_not_count() -> None:
    hub = made_hub(1 << 30)
    cameras = [camera(hub, f"cam-{number}") for number in range(5)]
    for publication in cameras:
        shows(hub, publication)
    for publication in cameras[:2]:
        hub.release(publication, START_MS)
    hub.revoke("cam-2", 9)
    hub.publish(
        "cam-3", Owner("bob"), FakePublisher(), term=9, first_frame_id=1, producing=True, wants_alerts=False, now=0.0,
        now_ms=START_MS,
    )  # fmt: skip
    assert len(hub.delivery.newest_frames) == 1
    hub.release(cameras[4], START_MS)
    assert (len(hub.delivery.newest_frames), hub.delivery.newest_frames.total) == (0, 0)


@pytest.mark.parametrize("sent_as", ["text", "picture", "message", "wrongly named"])
def test_a_compact_frame_is_the_same_frame(sent_as: str) -> None:
    def make() -> Frame:
        match sent_as:
            case "text":
                return Frame("cam", 7, 1, text=TOKEN)
            case "picture":
                return Frame("cam", 7, 1, picture=PICTURE, codec=Codec.JPEG)
        message = wire.frame_message(Frame("cam", 7, 1, picture=PICTURE, codec=Codec.JPEG), "binary")
        codec = 1 if sent_as == "message" else 2
        return Frame.of_message("cam", 7, 1, 0, message, len(message) - len(PICTURE), len(message), codec)

    plain = make()
    expected = wire.frame_message(plain, "json"), wire.frame_message(plain, "binary"), plain.picture, bytes(plain.text)
    frame, small = make(), make().size_bytes
    for _ in range(2):
        assert wire.frame_message(frame, "json") == expected[0]
        assert wire.frame_message(frame, "binary") == expected[1]
        assert (frame.picture, bytes(frame.text)) == expected[2:]
        assert frame.size_bytes > small
        frame.compact()
        assert frame.size_bytes <= small + 200
