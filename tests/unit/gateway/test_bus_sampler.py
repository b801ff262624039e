"""What a receiver on the bus gets of any schedule of frames: at its rate, the newest of each kind, in order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit import fake_codec
from tests.kit.hub import FakePublisher, HubHarness, ms
from tests.unit.common.test_rate import most_in_any_window
from watchout.common.bus.messages import Forward, FrameReceiver
from watchout.common.media.frames import Frame
from watchout.gateway.hub.bus_sampler import APART, BusSampler
from watchout.gateway.hub.streams import Publication

PICTURE, OTHER = b'"/9j/"', b'"!!!"'
RATES = st.sampled_from([0.5, 2.0, 10.0])


def frame(number: int, text: bytes = PICTURE) -> Frame:
    return Frame("door", number, 0, text=text)


class Receiver:
    """Gets what a sampler selects, as the hub asks it: at each frame, and at the time that `release_at` says."""

    def __init__(self, max_fps: float | None) -> None:
        self.sampler = BusSampler(max_fps)
        self.got: list[tuple[float, Frame]] = []

    @property
    def ids(self) -> list[int]:
        return [frame.frame_id for _, frame in self.got]

    def pass_time(self, until: float) -> None:
        while (at := self.sampler.release_at()) is not None and at <= until:
            released = self.sampler.release(at)
            assert released is not None
            self.got.append((at, released))

    def offer(self, frame: Frame, now: float) -> None:
        self.pass_time(now)
        if self.sampler.offer(frame, now):
            self.got.append((now, frame))


@settings(max_examples=200)
@given(RATES, st.lists(st.tuples(st.floats(0, 2), st.booleans()), min_size=1, max_size=60))
def test_of_any_schedule_the_last_frame_and_the_last_picture_come_within_an_interval(
    rate: float, schedule: list[tuple[float, bool]]
) -> None:
    receiver, now = Receiver(rate), 10.0
    came: dict[int, float] = {}
    for number, (gap, is_picture) in enumerate(schedule, 1):
        now += gap / rate
        came[number] = now
        receiver.offer(frame(number, PICTURE if is_picture else OTHER), now)
    receiver.pass_time(now + 99)
    assert receiver.ids == sorted(set(receiver.ids))
    assert receiver.ids[-1] == len(schedule)
    assert receiver.got[-1][0] <= now + (1 + APART + 1e-6) / rate
    pictures = [number for number, (_, is_picture) in enumerate(schedule, 1) if is_picture]
    if pictures:
        (at,) = (at for at, got in receiver.got if got.frame_id == pictures[-1])
        assert at <= came[pictures[-1]] + (1 + 1e-6) / rate
    for of_kind in (True, False):
        times = [at for at, got in receiver.got if got.is_picture is of_kind]
        assert most_in_any_window(times, rate) <= 2 + 1e-6


@settings(max_examples=100)
@given(RATES, st.lists(st.floats(0, 2), min_size=1, max_size=40), st.sets(st.integers(0, 40)))
def test_frames_that_are_no_pictures_take_nothing_from_pictures(rate: float, gaps: list[float], bad: set[int]) -> None:
    """The pictures come as if no other frames were there."""
    alone, mixed, now = Receiver(rate), Receiver(rate), 10.0
    for number, gap in enumerate(gaps):
        now += gap / rate
        if number in bad:
            mixed.offer(frame(2 * number + 1, OTHER), now)
        alone.offer(frame(2 * number + 2), now)
        mixed.offer(frame(2 * number + 2), now)
        if number in bad:
            mixed.offer(frame(2 * number + 3, OTHER), now)
    for receiver in (alone, mixed):
        receiver.pass_time(now + 99)
    pictures = [(at, got.frame_id) for at, got in mixed.got if got.is_picture]
    assert pictures == [(at, got.frame_id) for at, got in alone.got]


@settings(max_examples=100)
@given(RATES, st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_no_delta_frame_comes_without_its_predecessor_and_the_last_key_frame_comes(
    rate: float, schedule: list[tuple[float, bool]]
) -> None:
    with fake_codec.registered():
        receiver, decoder, now = Receiver(rate), fake_codec.Decoder(), 10.0
        for number, (gap, key) in enumerate(schedule, 1):
            now += gap / rate
            receiver.offer(fake_codec.frame(number, key=key), now)
        receiver.pass_time(now + 99)
        for _, got in receiver.got:
            decoder.decode(got.picture)
        keys = [number for number, (_, key) in enumerate(schedule, 1) if key]
        assert not keys or keys[-1] in receiver.ids
        assert most_in_any_window([at for at, _ in receiver.got], rate) <= 2 + 1e-6


def test_a_key_frame_that_was_released_is_followed_by_its_delta_frame() -> None:
    with fake_codec.registered():
        receiver = Receiver(1.0)
        for number, (now, key) in enumerate([(10.0, True), (10.2, True), (10.4, False), (12.0, False)], 1):
            receiver.offer(fake_codec.frame(number, key=key), now)
        assert receiver.ids == [1, 2]
        receiver = Receiver(1.0)
        for number, (now, key) in enumerate([(10.0, True), (10.2, True), (11.9, False)], 1):
            receiver.offer(fake_codec.frame(number, key=key), now)
        assert receiver.ids == [1, 2, 3]


def test_what_is_no_picture_keeps_its_distance_to_the_picture_before_it() -> None:
    receiver = Receiver(1.0)
    receiver.offer(frame(1), 10.0)
    receiver.offer(frame(2, OTHER), 10.01)
    assert (receiver.ids, receiver.sampler.release_at()) == ([1], pytest.approx(10.01 + 1))
    receiver = Receiver(1.0)
    for number, (now, text) in enumerate([(7.0, OTHER), (10.0, PICTURE), (10.05, OTHER), (10.1, OTHER)], 1):
        receiver.offer(frame(number, text), now)
    assert (receiver.ids, receiver.sampler.release_at()) == ([1, 2], pytest.approx(10.25))


def test_without_a_rate_each_frame_comes() -> None:
    receiver = Receiver(None)
    for number in range(1, 50):
        receiver.offer(frame(number, OTHER if number % 3 else PICTURE), 1.0)
    assert receiver.ids == list(range(1, 50))


def test_when_the_rate_ends_what_waits_is_due() -> None:
    receiver = Receiver(0.1)
    for number, text in enumerate((OTHER, PICTURE, PICTURE, OTHER), 1):
        receiver.offer(frame(number, text), 1.0)
    assert receiver.ids == [1, 2]
    receiver.sampler.set_rate(None)
    assert [(receiver.sampler.release(1.0) or frame(0)).frame_id for _ in range(3)] == [3, 4, 0]


# ── in the hub ───────────────────────────────────────────────────────────────────────────────────────────────────


def forward(harness: HubHarness, *rates: float | None, bus: float | None = None, now: float = 0.0) -> None:
    receivers = tuple(FrameReceiver(f"m{number}", rate) for number, rate in enumerate(rates))
    harness.hub.on_forward(
        Forward(stream="door", term=1, wanted=bus is not None, max_fps=bus, receivers=receivers), now
    )


@pytest.fixture(name="camera")
def _camera(harness: HubHarness) -> Publication:
    """Receivers with 2, 1 and all frames per second, the router with 2, and a burst of three frames."""
    camera = harness.publish(FakePublisher())
    forward(harness, 2.0, 1.0, None, bus=2.0)
    for number in (1, 2, 3):
        harness.frame(camera, 10 + number / 10)
    assert harness.direct == [("m0", 1), ("m1", 1), ("m2", 1), ("m2", 2), ("m2", 3)]
    assert harness.pushed == [1]
    harness.direct.clear()
    return camera


def test_each_receiver_gets_the_last_frame_of_a_burst_at_its_time(harness: HubHarness, camera: Publication) -> None:
    harness.pass_time(10.4)
    assert harness.direct == []
    harness.pass_time(10.6)
    assert (harness.direct, harness.pushed) == ([("m0", 3)], [1, 3])
    harness.pass_time(11.1)
    assert harness.direct == [("m0", 3), ("m1", 3)]
    harness.pass_time(99)
    assert (len(harness.direct), len(harness.hub.delivery.rate_waits)) == (2, 0)


@pytest.mark.parametrize("bus", [None, 1.0])
def test_a_frame_that_was_released_has_no_stamps(harness: HubHarness, bus: float | None) -> None:
    """Its age is no latency."""
    camera = harness.publish(FakePublisher())
    forward(harness, *([] if bus else [1.0]), bus=bus)
    for number in (1, 2):
        harness.frame(camera, 10 + number / 10)
    stream = harness.hub.stream("door")
    assert stream is not None
    assert stream.newest is not None
    stamped: Any = stream.newest
    stamped.stamps = object()
    harness.pass_time(99)
    assert (harness.pushed, harness.direct) == (([1, 2], []) if bus else ([], [("m0", 1), ("m0", 2)]))
    assert stamped.stamps is None


@pytest.mark.parametrize("end", ["released", "revoked", "taken over", "not wanted"])
def test_nothing_is_sent_after_the_end(harness: HubHarness, camera: Publication, end: str) -> None:
    if end == "released":
        harness.hub.release(camera, ms(10.4))
    elif end == "revoked":
        harness.hub.revoke("door", 9)
    elif end == "taken over":
        harness.publish(FakePublisher(), term=2, now=10.4)
    else:
        forward(harness, now=10.4)
    harness.pass_time(99)
    assert (harness.direct, harness.pushed) == ([], [1])
    assert all(sampler.picture is None for sampler in camera.samplers()) or end == "not wanted"


def test_who_wants_more_gets_what_waits_at_once(harness: HubHarness, camera: Publication) -> None:
    forward(harness, None, 1.0, None, bus=100.0, now=10.31)
    assert harness.direct == [("m0", 3)]
    harness.pass_time(10.32)
    assert harness.pushed == [1, 3]
    harness.frame(camera, 10.6)
    assert harness.direct == [("m0", 3), ("m0", 4), ("m2", 4)]


def test_a_picture_that_waits_goes_with_the_newest_frame_that_counts_its_bytes(
    harness: HubHarness, camera: Publication
) -> None:
    delivery = harness.hub.delivery
    before = delivery.newest_frames.total
    assert all(
        sampler.picture is not None for sampler in camera.samplers() if sampler is not camera.receivers[2].sampler
    )
    delivery.newest_frames._max_bytes = before
    yard = harness.publish(FakePublisher(), "yard")
    harness.frame(yard, 10.4)
    assert all(sampler.picture is None for sampler in camera.samplers())
    harness.pass_time(99)
    assert harness.direct == []


def test_what_waits_and_is_no_picture_counts_with_the_newest_frames(harness: HubHarness, camera: Publication) -> None:
    newest = harness.hub.delivery.newest_frames
    harness.pass_time(20)
    pictures = newest.total
    for number in (1, 2):
        harness.frame(camera, 20 + number / 10, OTHER)
    assert newest.total > pictures
    harness.pass_time(30)
    assert newest.total == pictures
    for number in (1, 2):
        harness.frame(camera, 40 + number / 10, OTHER)
    assert newest.total > pictures
    newest._max_bytes = 1
    yard = harness.publish(FakePublisher(), "yard")
    harness.frame(yard, 41.0)
    assert all(sampler.other is None for sampler in camera.samplers())
    harness.hub.release(camera, ms(42))
    assert len(newest) == 1
