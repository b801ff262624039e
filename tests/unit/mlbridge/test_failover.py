"""Which endpoint gets a frame: rules by themselves, then a first and a second service in virtual time."""

from __future__ import annotations

from tests.unit.mlbridge.virtual_time import Simulation, VirtualService
from watchout.mlbridge.breaker import LONGEST_PAUSE_S, OPEN_AFTER, BreakerState
from watchout.mlbridge.failover import Failover, Turn


def make(number: int = 2, bound: int = 2) -> Failover:
    return Failover(number, bound, chance=lambda: 0.0)


def breaks(endpoints: Failover, number: int, now: float) -> None:
    """Let it fail until its breaker opens."""
    for _ in range(OPEN_AFTER):
        endpoints.each[number].in_flight += 1
        endpoints.on_failure(Turn(number, now, 1, False), now)
    assert endpoints.each[number].breaker.state is BreakerState.OPEN


def numbers(turns: list[Turn]) -> list[int]:
    return [turn.endpoint for turn in turns]


def test_the_first_gets_all_while_it_is_there() -> None:
    endpoints = make()
    assert [numbers(endpoints.begin(0.0)) for _ in range(3)] == [[0], [0], []]
    assert (endpoints.in_use, endpoints.away) == (0, False)


def test_one_that_is_busy_is_waited_for() -> None:
    endpoints = make(bound=1)
    (turn,) = endpoints.begin(0.0)
    assert endpoints.begin(0.0) == []
    assert endpoints.opens_at(0.0) is None
    endpoints.on_result(turn, 0.1)
    assert numbers(endpoints.begin(0.1)) == [0]


def test_while_the_first_is_away_the_second_gets_all_and_the_first_a_copy_now_and_then() -> None:
    endpoints = make(bound=10)
    breaks(endpoints, 0, 0.0)
    assert (endpoints.in_use, endpoints.away) == (1, False)
    (own,) = endpoints.begin(0.0)
    assert own.endpoint == 1
    endpoints.on_result(own, 0.1)
    probe, own = endpoints.begin(0.1)
    assert (probe.endpoint, probe.probe, own.endpoint, own.probe) == (0, True, 1, False)
    endpoints.on_result(own, 0.2)
    (own,) = endpoints.begin(5.0)
    assert own.endpoint == 1, "one probe at a time"
    endpoints.on_failure(probe, 5.0)
    endpoints.on_result(own, 5.0)
    (own,) = endpoints.begin(5.0)
    assert own.endpoint == 1, "and none before the pause is over"
    endpoints.on_result(own, 5.1)
    probe, own = endpoints.begin(5.0 + LONGEST_PAUSE_S)
    endpoints.on_result(probe, 6.0)
    assert endpoints.in_use == 0
    assert numbers(endpoints.begin(6.0)) == [0]


def test_a_busy_second_costs_no_frame_for_a_probe() -> None:
    endpoints = make(bound=1)
    breaks(endpoints, 0, 0.0)
    assert numbers(endpoints.begin(0.0)) == [1]
    assert endpoints.begin(10.0) == []


def test_while_both_are_away_each_gets_a_probe_in_its_time() -> None:
    endpoints = make()
    breaks(endpoints, 0, 0.0)
    breaks(endpoints, 1, 0.05)
    assert endpoints.away
    assert endpoints.begin(0.05) == []
    assert endpoints.opens_at(0.0) == 0.1
    (first,) = endpoints.begin(1.0)
    (second,) = endpoints.begin(1.0)
    assert (first.endpoint, second.endpoint) == (0, 1)
    assert first.probe
    assert second.probe
    assert endpoints.begin(1.0) == []
    assert endpoints.opens_at(0.0) is None
    endpoints.on_result(second, 1.1)
    assert endpoints.in_use == 1


def test_a_second_service_takes_over_and_gives_back() -> None:
    def first(now: float) -> float | None:
        return 0.001 if 100 <= now < 160 else None

    simulation = Simulation([VirtualService(8, lambda now: 0.1, first), VirtualService(8, lambda now: 0.1)], streams=10)
    simulation.run(250.0)
    by = simulation.served_by
    assert {endpoint for at, endpoint in by if at < 100} == {0}
    assert {endpoint for at, endpoint in by if 101 < at < 160} == {1}
    assert {endpoint for at, endpoint in by if at > 161.0} == {0}
    during = [at for at, _, _ in simulation.answers if 101 < at < 160]
    before = [at for at, _, _ in simulation.answers if 40 < at < 99]
    assert len(during) > 0.95 * len(before), "no stream loses a look to a probe"


def test_a_first_service_that_hangs_costs_a_single_stream_nothing_but_its_deadline() -> None:
    def first(now: float) -> float | None:
        return float("inf") if 100 <= now < 160 else None

    simulation = Simulation(
        [VirtualService(8, lambda now: 0.1, first), VirtualService(8, lambda now: 0.1)], streams=1, timeout_s=2.0
    )
    simulation.run(200.0)
    during = [at for at, _, _ in simulation.answers if 107 < at < 160]
    assert len(during) > 0.9 * 2 * (160 - 107)


def test_while_a_service_is_away_it_is_probed_by_one_frame_at_a_time_and_gets_fresh_ones_on_its_return() -> None:
    service = VirtualService(1, lambda now: 0.04, lambda now: 0.001 if 50 <= now < 350 else None)
    simulation = Simulation([service])
    simulation.run(400.0)
    asked = [at for at in service.asked if 51 <= at < 350]
    assert len(asked) < 300 / (LONGEST_PAUSE_S / 2) + 10, "probes only"
    assert len(asked) > 300 / (LONGEST_PAUSE_S + 0.1)
    first_back = next(at for at, _, _ in simulation.answers if at >= 350)
    assert first_back < 351.0
    assert max(simulation.sent_ages) < 1.0
    burst = [at for at in service.asked if 350 <= at < 351]
    assert len(burst) <= 25 + 4
    counts = simulation.scheduler.counts
    assert counts.away > 0.9 * 100 * 300 - 1000


def test_a_service_that_wants_time_is_left_alone_for_it() -> None:
    service = VirtualService(1, lambda now: 0.04, lambda now: 0.001 if 50 <= now < 100 else None, retry_after_s=10.0)
    simulation = Simulation([service])
    simulation.run(130.0)
    assert 5 <= len([at for at in service.asked if 50 <= at < 100]) <= 5 + 4
    assert next(at for at, _, _ in simulation.answers if at >= 100) < 111.0


def test_a_probe_needs_room_beside_what_is_still_under_way() -> None:
    endpoints = make(number=1, bound=2)
    (first,), (second,) = endpoints.begin(0.0), endpoints.begin(0.0)
    endpoints.on_failure(first, 0.1, retry_after_s=1.0)  # the limit falls to 1, which `second` takes up
    assert endpoints.each[0].limiter.limit == 1
    assert endpoints.begin(5.0) == []
    assert endpoints.opens_at(5.0) is None, "only after an answer or a failure"
    endpoints.on_failure(second, 5.0)
    (probe,) = endpoints.begin(5.0)
    assert probe.probe


def test_a_probe_of_the_preferred_service_needs_room_there_too() -> None:
    endpoints = make(number=2, bound=2)
    (first,), (_,) = endpoints.begin(0.0), endpoints.begin(0.0)
    endpoints.on_failure(first, 0.1, retry_after_s=1.0)
    assert numbers(endpoints.begin(5.0)) == [1]
