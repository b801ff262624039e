"""A camera's clock: which frames are sampled, when it is pinged, and what its acknowledgements tell."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.gateway.latency.camera_clock import (
    LOOKED_AT,
    OWN_TIME,
    PING_EVERY_S,
    PING_SOON_S,
    PINGS_SOON,
    SAMPLE_EVERY_S,
    AckTimes,
    CameraClock,
)


@given(window=st.integers(1, 32), per_ack=st.integers(1, 40), seed=st.integers(0, 1000), frames=st.integers(1, 200))
def test_the_camera_had_read_what_the_acknowledgements_say_that_it_had(
    window: int, per_ack: int, seed: int, frames: int
) -> None:
    """A camera that keeps to its window: no frame is said to answer an acknowledgement that it had not read yet."""
    chance, acks = random.Random(seed), AckTimes(window)
    sent_at: list[float] = []  # when the acknowledgement was sent that covers as many frames
    now, covered = 0.0, 0
    for number in range(1, frames + 1):
        if number - covered > window:  # it waits for an acknowledgement
            now += chance.uniform(0, 50)
            acks.add(now)
            sent_at += [now] * (acks.received - covered)
            covered = acks.received
        now += chance.uniform(0, 5)
        answers = acks.read_before()
        needed = number - window
        if needed > 0 and answers is not None:
            assert answers <= sent_at[needed - 1]
        acks.received += 1
        if acks.received - covered >= per_ack:
            acks.add(now)
            sent_at += [now] * (acks.received - covered)
            covered = acks.received


def test_an_acknowledgement_that_is_forgotten_tells_nothing() -> None:
    acks = AckTimes(1)
    for at in range(200):
        acks.received += 1
        acks.add(float(at))
    assert acks.read_before() == 199.0
    acks.window = 120  # the camera needed one of long ago
    assert acks.read_before() is None
    acks.window = 1_000
    assert acks.read_before() is None


def test_frames_that_have_the_gateways_time_tell_nothing_of_a_clock() -> None:
    clock = CameraClock()
    for number in range(2 * LOOKED_AT):
        at = 1_000_000 + number * 100
        clock.on_frame(at, at, float(number * 100))
        looked = number + 1 < LOOKED_AT
        assert clock.next_sample_s(7.0) == (7.0 if looked else 7.0 + SAMPLE_EVERY_S)
    assert clock.delay_ms(at, 0.0) is None
    assert clock.ping_due_in(9.0, lambda: 10.0) is None
    assert clock.row(0.0, 0.0).unknown == OWN_TIME


def known(error_of_ms: float = 4.0) -> CameraClock:
    """A camera 3 s ahead of the monotonic clock, known after a ping of 2 ms."""
    clock = CameraClock()
    clock.on_frame(3_000, 1, 10.0)
    assert clock.make_ping(7, 1_200.0)
    assert clock.on_pong(7, 1_202.0)
    clock.on_frame(4_200 + 1, 1, 1_202.0 + error_of_ms)
    return clock


def test_a_ping_and_the_frame_after_its_pong_tell_the_clock() -> None:
    clock = known()
    row = clock.row(1_300.0, 500_000.0 + 1_300.0)
    assert row.offset_ms == pytest.approx(3_000 - 500_000, abs=5)
    assert row.error_ms is not None
    assert row.error_ms < 10
    assert clock.delay_ms(4_300, 1_350.0) == pytest.approx(50, abs=6)
    assert clock.delay_ms(9_000, 1_350.0) == 0.0, "nothing comes before it was captured"


def test_only_the_pong_of_the_last_ping_counts() -> None:
    clock = CameraClock()
    assert clock.make_ping(1, 0.0)
    assert not clock.make_ping(2, 1_000.0), "one is under way"
    assert not clock.on_pong(2, 1_010.0)
    assert clock.make_ping(3, 40_000.0), "the first one was not answered"
    assert not clock.on_pong(1, 40_001.0)
    assert clock.on_pong(3, 40_002.0)
    assert not clock.on_pong(3, 40_003.0)


def test_pings_are_frequent_until_the_clock_is_known_well() -> None:
    clock = CameraClock()
    clock.on_frame(3_000, 1, 10.0)
    assert clock.ping_due_in(1.0, lambda: 10.0) is not None
    assert clock.ping_due_in(1.5, lambda: 10.0) is None
    due_in = clock.ping_due_in(1.0 + PING_SOON_S, lambda: 10.0)
    assert due_in is not None
    assert 0 < due_in < 0.1, "before the next frame"
    clock = known()
    assert clock.ping_due_in(1.3, lambda: 10.0) is not None
    assert clock.ping_due_in(1.3 + PING_EVERY_S - 1, lambda: 10.0) is None


def test_a_camera_whose_clock_is_never_known_well_is_pinged_rarely_all_the_same() -> None:
    clock = CameraClock()
    clock.on_frame(3_000, 1, 10.0)
    asked = [second for second in range(1, 101) if clock.ping_due_in(float(second), lambda: 10.0) is not None]
    assert len(asked) <= PINGS_SOON + 100 / PING_EVERY_S
