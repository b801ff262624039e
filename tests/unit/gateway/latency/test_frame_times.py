"""When a frame was captured that an alert names, by the sampled frames around it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.gateway.latency.frame_times import APART_MS, LONGEST_GAP_MS, MAX_KEPT, MAX_STREAMS, FrameTimes

#: The camera's clock minus the right one, in ms.
AHEAD = 180_000
#: A time that is that of no frame.
NONE_OF_THEM = 0


def steady(frames: int, *, fps: float = 10.0, every: int = 5, begin: float = 1_000_000.0) -> FrameTimes:
    """A stream "cam" with frames 1, 2, … of which each so many-th was sampled."""
    made = FrameTimes()
    for number in range(1, frames + 1, every):
        captured = begin + (number - 1) * 1000 / fps
        made.add("cam", number, int(captured + AHEAD), captured)
    return made


@given(
    st.integers(0, 300), st.integers(0, 600), st.floats(1, 60), st.sampled_from([NONE_OF_THEM, 1_000_000, 1_300_000])
)
def test_a_frame_of_a_steady_camera_was_captured_when_it_was(
    further: int, later_ms: int, fps: float, timestamp: int
) -> None:
    """Whatever is said to be its timestamp: one that does not fit counts for nothing."""
    step = 1000 / fps
    of_one_sample = math.ceil(APART_MS / step)
    times = steady(1 + further + of_one_sample, fps=fps, every=1)
    captured = 1_000_000.0 + further * step
    found = times.find("cam", 1 + further, timestamp, captured + later_ms)
    assert found is not None or 1 + further + of_one_sample > MAX_KEPT * of_one_sample, "a minute is kept"
    assert found is None or abs(found - captured) <= step + 1


def test_the_timestamp_of_the_frame_makes_it_exact() -> None:
    """Here the camera is late with one frame, by less than the time between two."""
    times = steady(41)
    captured = 1_000_000.0 + 2_270
    assert times.find("cam", 23, NONE_OF_THEM, captured + 50) == pytest.approx(1_000_000 + 2_200)
    assert times.find("cam", 23, int(captured + AHEAD), captured + 50) == pytest.approx(captured)
    assert times.find("cam", 23, int(captured + AHEAD) + 500, captured + 50) == pytest.approx(1_000_000 + 2_200)


def test_a_frame_after_the_last_sample_follows_as_those_before_it() -> None:
    times = steady(41)
    assert times.find("cam", 45, NONE_OF_THEM, 1_004_500.0) == pytest.approx(1_004_400)
    assert times.find("cam", 45, NONE_OF_THEM, 1_004_350.0) == 1_004_350.0, "none is captured after now"
    assert times.find("cam", 45, NONE_OF_THEM, 1_004_200.0) is None, "there is no such frame yet"
    assert times.find("cam", 45, int(1_004_430 + AHEAD), 1_004_500.0) == pytest.approx(1_004_430)
    assert times.find("cam", 41 + 26, NONE_OF_THEM, 1_100_000.0) is None, "there would be a sample between"


def test_nothing_is_known_of_a_stream_without_samples_of_frames_before_them_and_of_one_sample_alone() -> None:
    assert FrameTimes().find("cam", 1, NONE_OF_THEM, 1e9) is None
    times = FrameTimes()
    times.add("cam", 10, AHEAD, 1_000.0)
    assert times.find("cam", 10, NONE_OF_THEM, 1e9) == 1_000.0
    assert times.find("cam", 9, NONE_OF_THEM, 1e9) is None
    assert times.find("cam", 11, NONE_OF_THEM, 1e9) is None
    assert times.find("other", 10, NONE_OF_THEM, 1e9) is None


def test_a_pause_of_the_camera_tells_nothing_of_the_frames_at_its_ends() -> None:
    times = FrameTimes()
    for number, captured in ((1, 0.0), (11, 1_000.0), (21, 2_000.0 + LONGEST_GAP_MS)):
        times.add("cam", number, int(captured), captured)
    assert times.find("cam", 6, NONE_OF_THEM, 1e9) == 500.0
    assert times.find("cam", 15, NONE_OF_THEM, 1e9) is None
    assert times.find("cam", 11, NONE_OF_THEM, 1e9) == 1_000.0


def test_a_new_stream_of_the_same_id_begins_anew_and_a_frame_counts_once() -> None:
    times = steady(101)
    times.add("cam", 101, NONE_OF_THEM, 7_777_777.0)
    assert times.find("cam", 101, NONE_OF_THEM, 1e9) == 1_010_000.0
    times.add("cam", 1, AHEAD, 2_000_000.0)
    times.add("cam", 11, AHEAD, 2_001_000.0)
    assert times.find("cam", 6, NONE_OF_THEM, 1e9) == 2_000_500.0
    assert times.find("cam", 91, NONE_OF_THEM, 1e9) is None


def test_a_minute_of_each_stream_is_kept_and_so_many_streams() -> None:
    times = steady(100_001, every=1)
    assert times.find("cam", 100_001 - MAX_KEPT * 9 - 9, NONE_OF_THEM, 1e12) is None
    assert times.find("cam", 100_001 - MAX_KEPT * 9 + 9, NONE_OF_THEM, 1e12) is not None
    for number in range(MAX_STREAMS):
        times.add(f"cam-{number}", 1, 0, 0.0)
    assert len(times) == MAX_STREAMS
    assert times.find("cam", 100_001, NONE_OF_THEM, 1e12) is None, "that of the oldest sample gives way"
    times.add("cam-0", 100, 0, 99_000.0)
    times.add("new", 1, 0, 0.0)
    assert times.find("cam-0", 100, NONE_OF_THEM, 1e12) is not None
    assert times.find("cam-1", 1, NONE_OF_THEM, 1e12) is None
