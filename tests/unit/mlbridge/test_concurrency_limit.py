"""The limit follows the latency: rules by themselves, then whole services in virtual time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.mlbridge.virtual_time import Simulation, VirtualService
from watchout.mlbridge.concurrency_limit import ALONE, FIRST_LIMIT, MEASURE_EVERY_S, ConcurrencyLimit


def test_it_begins_low_and_within_the_bound() -> None:
    assert ConcurrencyLimit(100).limit == FIRST_LIMIT
    assert ConcurrencyLimit(2).limit == 2
    assert ConcurrencyLimit(0).limit == 1


def test_a_failure_halves_it_and_those_sent_before_count_as_one() -> None:
    limiter = ConcurrencyLimit(100)
    for _ in range(4):
        limiter.on_failure(0.0, 5.0)
    assert limiter.limit == FIRST_LIMIT // 2
    for number in range(10):
        limiter.on_failure(6.0 + number, 6.0 + number)
    assert limiter.limit == 1


def test_what_was_sent_before_a_change_moves_nothing() -> None:
    limiter = ConcurrencyLimit(100)
    limiter.on_failure(1.0, 5.0)
    before = limiter.limit
    for _ in range(100):
        limiter.on_result(4.0, 2, 6.0)
    assert limiter.limit <= before


def test_what_is_not_made_use_of_does_not_grow() -> None:
    limiter = ConcurrencyLimit(100)
    now = 0.0
    for _ in range(500):
        limiter.on_result(now, 1, now + 0.05)
        now += 0.06
    assert limiter.limit <= FIRST_LIMIT


def test_the_latency_alone_is_measured_again_and_again_with_one_request_at_a_time() -> None:
    limiter = ConcurrencyLimit(8)
    limiter.on_result(0.0, 1, 0.1)
    assert limiter.alone_s == pytest.approx(0.1)
    now = 0.2
    while now < 0.2 + MEASURE_EVERY_S:
        limiter.on_result(now, 8, now + 0.1)
        now += 0.1
    assert limiter.limit == 1
    for _ in range(ALONE):
        assert limiter.limit == 1
        limiter.on_result(now, 1, now + 0.3)
        now += 0.3
    assert limiter.limit > 1
    assert limiter.alone_s == pytest.approx(0.3)


def test_what_was_under_way_with_others_does_not_count_as_alone() -> None:
    limiter = ConcurrencyLimit(8)
    limiter.on_result(0.0, 1, 0.1)
    now = 1.0 + MEASURE_EVERY_S
    limiter.on_result(now - 0.1, 5, now)
    assert limiter.limit == 1
    for _ in range(10):
        limiter.on_result(now - 0.5, 4, now)
    assert limiter.alone_s == pytest.approx(0.1)
    assert limiter.limit == 1


def test_a_failure_ends_a_measurement() -> None:
    limiter = ConcurrencyLimit(8)
    limiter.on_result(0.0, 1, 0.1)
    limiter.on_result(100.0, 4, 100.1)
    assert limiter.limit == 1
    limiter.on_failure(100.2, 105.2)
    assert limiter.limit == 2
    limiter.on_result(105.3, 2, 105.4)
    assert limiter.limit == 2, "and the next one is not at once"


@given(
    bound=st.integers(1, 64),
    steps=st.lists(st.tuples(st.booleans(), st.floats(0, 10), st.integers(1, 64), st.floats(0, 40)), max_size=200),
)
def test_whatever_happens_the_limit_is_from_one_to_the_bound(
    bound: int, steps: list[tuple[bool, float, int, float]]
) -> None:
    limiter, now = ConcurrencyLimit(bound), 0.0
    for answered, latency, in_flight, wait in steps:
        now += wait
        if answered:
            limiter.on_result(now - latency, min(in_flight, bound), now)
        else:
            limiter.on_failure(now - latency, now)
        assert 1 <= limiter.limit <= bound


def test_a_service_of_one_worker_gets_few_frames_at_once_and_keeps_its_rate() -> None:
    simulation = Simulation([VirtualService(1, lambda now: 0.04)], bound=64)
    simulation.run(200.0)
    assert simulation.endpoints.each[0].limiter.limit <= 4
    assert simulation.rate(50.0) > 0.98 / 0.04
    late = [age for at, _, age in simulation.answers if at > 50.0]
    assert max(late) < 1.0, "so its answers are of fresh frames"


def test_a_slow_service_of_one_worker_gets_few_too() -> None:
    simulation = Simulation([VirtualService(1, lambda now: 1.0)], bound=64)
    simulation.run(400.0)
    assert simulation.endpoints.each[0].limiter.limit <= 4
    assert simulation.rate(100.0) > 0.95
    assert not simulation.endpoints.each[0].breaker.opened


@pytest.mark.parametrize("latency", [0.2, 1.0])
def test_a_service_of_many_workers_gets_up_to_the_bound(latency: float) -> None:
    chance = random.Random(3)
    simulation = Simulation(
        [VirtualService(1000, lambda now: latency * chance.uniform(0.3, 2.0))],
        bound=16, streams=60, camera_fps=10.0, max_fps=10.0,
    )  # fmt: skip
    simulation.run(3.0 + 25 * latency)
    assert simulation.endpoints.each[0].limiter.limit >= 12
    assert simulation.most_in_flight == 16


def test_latencies_of_milliseconds_are_no_queue_however_they_vary() -> None:
    limiter, chance, now = ConcurrencyLimit(64), random.Random(5), 0.0
    limiter.on_result(0.0, 1, 0.0005)
    for _ in range(2000):
        now += 0.02
        limiter.on_result(now - chance.uniform(0.0005, 0.02), limiter.limit, now)
    assert limiter.limit in (1, 64), "it is measured now and then"


def test_a_service_that_takes_five_seconds_gets_up_to_the_bound() -> None:
    simulation = Simulation([VirtualService(1000, lambda now: 5.0)], bound=16, timeout_s=10.0)
    simulation.run(600.0)
    assert simulation.rate(100.0) > 0.85 * 16 / 5.0


@pytest.mark.parametrize(
    "slower_s", [0.12, 0.5], ids=["a bit, the limit is above 1 with what it knows", "much, it is 1"]
)
def test_a_service_that_becomes_slower_is_learned_anew(slower_s: float) -> None:
    simulation = Simulation(
        [VirtualService(1000, lambda now: 0.05 if now < 20 else slower_s)], bound=16, camera_fps=10.0, max_fps=10.0
    )
    simulation.run(19.0)
    limiter = simulation.endpoints.each[0].limiter
    assert limiter.limit == 16
    simulation.run(80.0)
    assert limiter.alone_s == pytest.approx(slower_s, rel=0.1)
    assert simulation.rate(50.0) > 0.8 * 16 / slower_s
