"""How far a camera's clock is from the gateway's: always within what is said, or told as not known."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchout.gateway.latency.clock_offset import (
    NO_ROUND_TRIP,
    NOT_RUNNING,
    TOO_SHORT,
    ClockOffset,
)


class World:
    """A camera with a clock of its own behind a network, in ms of the gateway's clock."""

    def __init__(
        self, *, ahead: float, ppm: float, up: tuple[float, float], down: tuple[float, float], seed: int
    ) -> None:
        self.ahead, self.ppm, self.up, self.down = ahead, ppm, up, down
        self.random = random.Random(seed)
        self.clock = ClockOffset()
        self._last_arrival = 0.0

    def true_offset(self, at: float) -> float:
        return self.ahead + at * self.ppm * 1e-6

    def send(self, at: float, answers: float | None = None, held: float = 0.0) -> float:
        """The camera stamps a frame at `at`, and sends it `held` later; when it arrived."""
        stamp = math.floor(at + self.true_offset(at))
        arrived = max(self._last_arrival, at + held + self.random.uniform(*self.up))  # one connection: in their order
        self._last_arrival = arrived
        self.clock.on_frame(stamp, arrived, answers)
        return arrived

    def ping(self, sent: float) -> tuple[float, float]:
        """When the camera reads a ping that was sent at `sent`, and when its pong arrives."""
        read = sent + self.random.uniform(*self.down)
        arrived = max(self._last_arrival, read + self.random.uniform(*self.up))
        self._last_arrival = arrived
        self.clock.on_round_trip(sent, arrived)
        return read, arrived

    def run(self, seconds: float, fps: float, ping_every_s: float) -> Iterator[float]:
        """Stream for so long; yields the time after each frame."""
        at, next_ping, answers = 1_000.0, 1_000.0 + min(ping_every_s, 1e9) * 500, None
        while at < seconds * 1000:
            if at >= next_ping:
                read, _ = self.ping(next_ping)
                at = max(at, read)
                answers, next_ping = next_ping, at + ping_every_s * 1000
            arrived = self.send(at, answers)
            answers = None
            yield arrived
            at = max(at + 1000 / fps, at)


delays = st.tuples(st.floats(0.1, 300), st.floats(0, 2_000)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@settings(max_examples=25, deadline=None)
@given(
    ahead=st.floats(-1e12, 1e12), ppm=st.floats(-200, 200), up=delays, down=delays, seed=st.integers(0, 99),
    fps=st.floats(1, 15), ping_every_s=st.floats(1, 8),
)  # fmt: skip
def test_the_true_offset_is_within_the_error_that_is_said(
    ahead: float,
    ppm: float,
    up: tuple[float, float],
    down: tuple[float, float],
    seed: int,
    fps: float,
    ping_every_s: float,
) -> None:
    """Whatever the delays of each direction are, and however the clocks drift within what is allowed."""
    world = World(ahead=ahead, ppm=ppm, up=up, down=down, seed=seed)
    seen = 0
    for now in world.run(25, fps, ping_every_s):
        found = world.clock.estimate(now)
        if found is not None:
            seen += 1
            assert abs(found.offset_ms - world.true_offset(now)) <= found.error_ms + 1e-3 + abs(ahead) * 1e-12
    assert seen > 0


def test_a_good_network_and_a_few_pings_make_it_exact() -> None:
    world = World(ahead=180_000.0, ppm=40.0, up=(2.0, 20.0), down=(2.0, 20.0), seed=1)
    *_, now = world.run(60, 15, 1)
    found = world.clock.estimate(now)
    assert found is not None
    assert found.offset_ms == pytest.approx(world.true_offset(now), abs=5.0)
    assert found.error_ms < 60.0


def test_the_drift_is_found_within_its_error() -> None:
    world = World(ahead=5_000.0, ppm=150.0, up=(1.0, 4.0), down=(1.0, 4.0), seed=2)
    drift = None
    for now in world.run(300, 5, 1):
        drift = world.clock.drift(now, world.clock.estimate(now))
    assert drift is not None
    assert abs(drift[0] - 150.0) <= drift[1]
    assert drift[1] < 500.0


def test_without_a_round_trip_nothing_is_said() -> None:
    world = World(ahead=3_000.0, ppm=0.0, up=(2.0, 9.0), down=(2.0, 9.0), seed=3)
    for now in world.run(30, 10, math.inf):
        assert world.clock.estimate(now) is None
    assert world.clock.unknown(30_000.0) == NO_ROUND_TRIP


def test_within_the_first_second_nothing_is_said() -> None:
    clock = ClockOffset()
    clock.on_frame(5_000, 100.0, 90.0)
    clock.on_frame(5_400, 500.0, 490.0)
    assert (clock.estimate(500.0), clock.unknown(500.0)) == (None, TOO_SHORT)


@pytest.mark.parametrize("step_ms", [-3_600_000, -5_000, 2_000, 3_600_000])
def test_a_clock_that_is_set_is_known_again_with_the_next_round_trip(step_ms: int) -> None:
    world = World(ahead=1_000.0, ppm=0.0, up=(2.0, 9.0), down=(2.0, 9.0), seed=4)
    assert len(list(world.run(30, 10, 1))) > 100
    world.ahead += step_ms
    at = 30_000.0
    while at < 40_000.0:
        now = world.send(at, at - 20 if at % 1000 == 0 else None)
        found = world.clock.estimate(now)
        if found is not None:
            assert abs(found.offset_ms - world.true_offset(now)) <= found.error_ms
        at += 100.0
    assert found is not None
    assert world.clock.steps == 1


@pytest.mark.parametrize("rate", [0.0, 0.01, 3.0])
def test_stamps_that_do_not_run_like_a_clock_are_not_believed(rate: float) -> None:
    clock, now = ClockOffset(), 0.0
    for number in range(300):
        now = number * 100.0
        clock.on_frame(round(1_000_000 + now * rate), now, now - 10 if number % 10 == 0 else None)
    assert clock.estimate(now) is None
    assert clock.unknown(now) == (NO_ROUND_TRIP if rate > 1 else NOT_RUNNING)


def test_frames_that_are_held_back_for_different_times_do_not_look_like_a_clock_that_is_set() -> None:
    """A camera that stamps before it encodes: its frames are older by the least of these times, else all is right."""
    world = World(ahead=2_000.0, ppm=0.0, up=(2.0, 4.0), down=(2.0, 4.0), seed=5)
    found = None
    for number in range(600):
        at = 1_000.0 + number * 100
        world.send(at, at + 20 if number % 5 == 0 else None, held=world.random.uniform(30.0, 90.0))
        found = world.clock.estimate(at + 95)
    assert world.clock.steps == 0
    assert found is not None
    assert found.offset_ms == pytest.approx(world.true_offset(0) - 30.0, abs=40.0)


def test_a_congested_minute_is_forgotten_again() -> None:
    """Behind a full uplink pongs wait with the frames: the error that is said grows, and shrinks afterwards."""
    world = World(ahead=0.0, ppm=0.0, up=(2_000.0, 2_100.0), down=(2.0, 4.0), seed=6)
    *_, now = world.run(20, 10, 1)
    congested = world.clock.estimate(now)
    assert congested is not None
    assert congested.error_ms > 500.0
    world.up = (2.0, 4.0)
    at = 23_000.0
    for number in range(100):
        now = world.send(at + number * 100, at + number * 100 - 5 if number % 10 == 0 else None)
    found = world.clock.estimate(now)
    assert found is not None
    assert found.error_ms < 20.0
    assert abs(found.offset_ms) <= found.error_ms


def test_what_was_seen_a_minute_ago_is_believed_less() -> None:
    """A clock that loses 200 ppm, behind a network that was good only at first: the bounds widen as it drifts."""
    world = World(ahead=0.0, ppm=-200.0, up=(0.1, 0.2), down=(0.1, 0.2), seed=7)
    for number in range(10):
        at = 1_000.0 + number * 200
        world.send(at, at - 0.1)
    world.up = (400.0, 500.0)
    for number in range(100):
        now = world.send(4_000.0 + number * 500)
        found = world.clock.estimate(now)
        assert found is not None
        assert abs(found.offset_ms - world.true_offset(now)) <= found.error_ms
    assert found.error_ms > 5.0
