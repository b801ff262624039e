"""Whose fault a failed request is, as rules by themselves and over the scheduler; then many streams in virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.examples import seeded
from tests.unit.mlbridge.scheduler_kit import make, offer, sent
from tests.unit.mlbridge.virtual_time import Simulation, VirtualService
from watchout.mlbridge.breaker import BreakerState
from watchout.mlbridge.commands import CancelRequest, ResultOutcome, SendFrame
from watchout.mlbridge.refusals import (
    FIRST_PAUSE_S,
    LOG_EVERY_S,
    LONGEST_PAUSE_S,
    MAX_LINES,
    MAX_LOGGED,
    STUCK_S,
    STUCK_TIMES,
    Blame,
    LatestResults,
    LatestTimes,
    RefusalLog,
    StreamHealth,
)
from watchout.mlbridge.scheduler import Scheduler


def test_a_pause_doubles_is_bounded_and_ends_with_an_answer() -> None:
    trouble = StreamHealth()
    pauses = []
    for _ in range(10):
        trouble.refuse(100, 50.0)
        assert trouble.retry_at is not None
        pauses.append(trouble.retry_at - 50.0)
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    trouble.clear()
    assert trouble.retry_at is None
    assert trouble.is_clear
    trouble.refuse(100, 50.0)
    assert trouble.retry_at == 50.0 + FIRST_PAUSE_S


def test_only_a_clearly_smaller_picture_ends_the_pause_and_the_next_has_to_be_smaller_again() -> None:
    trouble = StreamHealth()
    trouble.refuse(1000, 0.0)
    trouble.refuse(800, 0.0)
    trouble.refuse(900, 0.0)
    assert not trouble.ends_pause(800)
    assert not trouble.ends_pause(721)
    assert trouble.ends_pause(720)
    assert trouble.retry_at is None
    assert not trouble.is_clear, "it is still to go apart"
    trouble.refuse(720, 0.0)
    assert not trouble.ends_pause(700)
    assert trouble.ends_pause(600)


@given(times=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 100)), max_size=30))
def test_the_latest_time_of_others_is_known_of_each_stream(times: list[tuple[str, float]]) -> None:
    latest = LatestTimes()
    for number, (stream, at) in enumerate(sorted(times, key=lambda pair: pair[1])):
        latest.add(stream, at)
        so_far = sorted(times, key=lambda pair: pair[1])[: number + 1]
        assert latest.at == max(at for _, at in so_far)
        for each in "abcd":
            assert latest.except_of(each) == max((at for name, at in so_far if name != each), default=float("-inf"))


def test_a_request_is_stuck_when_one_that_was_sent_later_took_much_less() -> None:
    last = LatestResults()
    assert last.stuck_at(0.0) == float("inf")
    last.add("a", 1.0, 1.5)
    assert last.stuck_at(0.5) == 0.5 + STUCK_TIMES * 0.5
    assert last.stuck_at(1.0) == float("inf"), "none was sent later"
    last.add("a", 2.0, 2.001)
    assert last.stuck_at(1.0) == 1.0 + STUCK_S


def test_a_stream_is_named_once_a_minute_with_what_was_not_told() -> None:
    telling = RefusalLog()
    assert telling.on_refusal("a", 0.0) == 1
    assert [telling.on_refusal("a", float(now)) for now in range(1, 60)] == [None] * 59
    assert telling.on_refusal("b", 30.0) == 1
    assert telling.on_refusal("a", LOG_EVERY_S) == 60


def test_lines_and_memory_are_bounded_whatever_the_number_of_streams() -> None:
    telling = RefusalLog()
    told = [telling.on_refusal(f"s{number}", 1.0) for number in range(2 * MAX_LOGGED)]
    assert len(told) - told.count(None) == MAX_LINES
    assert telling.unnamed == 2 * MAX_LOGGED - MAX_LINES
    assert len(telling._streams) == MAX_LOGGED


def one(scheduler: Scheduler[str], now: float) -> SendFrame[str]:
    (command,) = scheduler.due(now)
    assert isinstance(command, SendFrame)
    return command


def test_a_refused_stream_waits_and_its_next_frame_goes_apart() -> None:
    scheduler = make(max_fps=100)
    offer(scheduler, "a", 1, 0.0, size=10)
    first = one(scheduler, 0.0)
    assert not first.isolated
    assert scheduler.on_failure(first.ticket, 0.1, blame=Blame.FRAME) is Blame.FRAME
    assert scheduler.backed_off(0.1) == ["a"]
    offer(scheduler, "a", 2, 0.2, size=10)
    assert scheduler.due(0.2) == []
    assert scheduler.next_at() == pytest.approx(0.1 + FIRST_PAUSE_S)
    again = one(scheduler, 0.1 + FIRST_PAUSE_S)
    assert again.isolated
    assert scheduler.on_result(again.ticket, 2.0) is ResultOutcome.COUNTS
    assert scheduler.backed_off(2.0) == []
    offer(scheduler, "a", 3, 2.1, size=10)
    assert not one(scheduler, 2.1).isolated
    assert scheduler.counts.refused == 1


def test_refusals_leave_breaker_and_limit_alone_however_many() -> None:
    scheduler = make(max_fps=1e6, in_flight=8)
    endpoint = scheduler.endpoints.each[0]
    limit = endpoint.limiter.limit
    for number in range(100):
        offer(scheduler, f"s{number}", 1, 1.0)
        scheduler.on_failure(one(scheduler, 1.0).ticket, 1.0, blame=Blame.FRAME)
    assert endpoint.breaker.state is BreakerState.CLOSED
    assert (endpoint.breaker.opened, endpoint.limiter.limit) == (0, limit)


def test_a_smaller_picture_of_a_refused_stream_goes_at_once() -> None:
    scheduler = make(max_fps=100)
    offer(scheduler, "a", 1, 0.0, size=1000)
    scheduler.on_failure(one(scheduler, 0.0).ticket, 0.1, blame=Blame.FRAME)
    offer(scheduler, "a", 2, 0.2, size=990)
    assert scheduler.due(0.2) == []
    offer(scheduler, "a", 3, 0.3, size=500)
    assert sent(scheduler.due(0.3)) == ["a3"]


def test_frames_let_go_while_their_stream_is_backed_off_are_counted_so() -> None:
    scheduler = make(max_fps=100, max_age_s=0.5)
    offer(scheduler, "a", 1, 0.0, size=10)
    scheduler.on_failure(one(scheduler, 0.0).ticket, 0.1, blame=Blame.FRAME)
    offer(scheduler, "a", 2, 0.2, size=10)
    offer(scheduler, "a", 3, 0.3, size=10)
    assert scheduler.due(0.9) == []
    assert (scheduler.counts.backed_off, scheduler.counts.replaced, scheduler.counts.too_old) == (2, 0, 0)


def test_one_retry_of_all_refused_streams_is_under_way_and_they_have_a_share_of_the_time() -> None:
    scheduler = make(max_fps=1e6, in_flight=8)
    for number in range(4):
        offer(scheduler, f"bad{number}", 1, 0.0)
        scheduler.on_failure(one(scheduler, 0.0).ticket, 0.0, blame=Blame.FRAME)
    for number in range(4):
        offer(scheduler, f"bad{number}", 2, 2.0)
    offer(scheduler, "good", 1, 2.0)
    commands = scheduler.due(2.0)
    assert [frame[:3] for frame in sent(commands)] == ["bad", "goo"]
    tickets = [command.ticket for command in commands if isinstance(command, SendFrame)]
    scheduler.on_failure(tickets[0], 2.1, blame=Blame.FRAME)
    assert scheduler.due(2.1) == [], "0.1 s were theirs, so the next 1.9 s are not, while another is under way"
    scheduler.on_result(tickets[1], 2.2)
    assert len(sent(scheduler.due(2.2))) == 1, "nobody else wants it"


def test_what_may_be_either_is_the_services_while_nobody_else_is_answered() -> None:
    scheduler = make(max_fps=1e6)
    blames = []
    for number in range(3):
        offer(scheduler, "a", number, float(number))
        blames.append(scheduler.on_failure(one(scheduler, float(number)).ticket, number + 0.1, blame=Blame.UNSURE))
    assert blames == [Blame.SERVICE] * 3
    assert scheduler.endpoints.each[0].breaker.state is BreakerState.OPEN


def test_what_may_be_either_is_the_streams_when_others_are_answered_meanwhile() -> None:
    scheduler = make(max_fps=1e6)

    def fail(number: int, now: float) -> Blame | None:
        offer(scheduler, "a", number, now)
        return scheduler.on_failure(one(scheduler, now).ticket, now + 0.1, blame=Blame.UNSURE)

    assert fail(1, 0.0) is Blame.SERVICE
    offer(scheduler, "b", 1, 1.0)
    scheduler.on_result(one(scheduler, 1.0).ticket, 1.1)
    assert fail(2, 2.0) is Blame.FRAME
    assert scheduler.backed_off(2.1) == ["a"]


def test_a_deadline_that_one_stream_always_misses_is_the_streams() -> None:
    scheduler = make(max_fps=1e6, timeout_s=1.0)
    offer(scheduler, "slow", 1, 0.0)
    scheduler.due(0.0)
    assert scheduler.due(1.0) == [CancelRequest(1, "slow", Blame.SERVICE)]
    offer(scheduler, "good", 1, 1.1)
    scheduler.on_result(one(scheduler, 1.1).ticket, 1.2)
    offer(scheduler, "slow", 2, 1.3)
    scheduler.due(1.3)
    assert scheduler.due(2.3) == [CancelRequest(3, "slow", Blame.FRAME)]


def test_a_connection_that_another_frame_ended_costs_nothing() -> None:
    scheduler = make(max_fps=1e6)
    for number in range(20):
        offer(scheduler, "a", number, float(number))
        assert (
            scheduler.on_failure(one(scheduler, float(number)).ticket, number + 0.1, blame=Blame.OTHER) is Blame.OTHER
        )
    assert scheduler.backed_off(20.0) == []
    assert scheduler.endpoints.each[0].breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("blame", [Blame.FRAME, Blame.OTHER, Blame.UNSURE, Blame.SERVICE])
def test_a_probe_always_ends(blame: Blame) -> None:
    scheduler = make(max_fps=1e6)
    for number in range(3):
        offer(scheduler, f"a{number}", 1, 0.0)
        scheduler.on_failure(one(scheduler, 0.0).ticket, 0.0)
    offer(scheduler, "b", 1, 10.0)
    scheduler.on_failure(one(scheduler, 10.0).ticket, 10.1, blame=blame)
    state = scheduler.endpoints.each[0].breaker.state
    assert state is (BreakerState.CLOSED if blame is Blame.FRAME else BreakerState.OPEN)


def test_frames_under_way_are_bounded_in_bytes_and_small_ones_pass_a_large_one() -> None:
    scheduler = make(in_flight=8, max_waiting_bytes=1 << 40, max_in_flight_bytes=100)
    for stream, size in (("a", 60), ("b", 70), ("c", 30)):
        offer(scheduler, stream, 1, 0.0, size=size)
    commands = scheduler.due(0.0)
    assert sent(commands) == ["a1", "c1"]
    assert scheduler.in_flight_bytes == 90
    for command in commands:
        assert isinstance(command, SendFrame)
        scheduler.on_result(command.ticket, 0.1)
    offer(scheduler, "d", 1, 0.1, size=1000)
    assert sent(scheduler.due(0.1)) == ["b1"]
    assert scheduler.due(0.2) == []


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize("refusal", [Blame.FRAME, Blame.UNSURE])
def test_four_streams_keep_their_rate_beside_twelve_whose_frames_are_refused(workers: int, refusal: Blame) -> None:
    """A look takes 150 ms, a refusal as well. What says whose fault it is does so from the first frame on."""
    learned_at = 0.0 if refusal is Blame.FRAME else 10.0

    def rates(refuses: frozenset[str]) -> tuple[float, Simulation]:
        service = VirtualService(workers, lambda now: 0.15, refuses=refuses, refusal=refusal)
        simulation = Simulation([service], streams=4 + len(refuses))
        simulation.run(60.0)
        return simulation.rate(learned_at), simulation

    alone, _ = rates(frozenset())
    beside, simulation = rates(frozenset(f"s{number}" for number in range(4, 16)))
    assert beside >= 0.9 * alone
    assert simulation.scheduler.counts.refused > 12, "they are tried again"
    if refusal is Blame.FRAME:
        assert simulation.endpoints.each[0].breaker.opened == 0


def test_when_every_stream_is_refused_the_breaker_stays_closed_and_all_are_tried_again() -> None:
    everybody = frozenset(f"s{number}" for number in range(16))
    service = VirtualService(4, lambda now: 0.15, refuses=everybody)
    simulation = Simulation([service], streams=16)
    simulation.run(60.0)
    assert sorted(simulation.scheduler.backed_off(60.0)) == sorted(everybody)
    assert simulation.endpoints.each[0].breaker.opened == 0
    service.refuses = frozenset()
    simulation.run(60.0 + 2 * LONGEST_PAUSE_S)
    assert simulation.scheduler.backed_off(simulation.now) == []
    assert simulation.rate(simulation.now - 10) > 0.9 * 4 / 0.15


POISON = frozenset(f"s{number}" for number in range(4, 16))


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize("timeout_s", [2.0, 5.0])
@seeded(8)
def test_four_streams_keep_their_rate_beside_twelve_that_are_never_answered(
    workers: int, timeout_s: float, seed: int
) -> None:
    """They do so from the tenth second on, and the service is not found to be away."""

    def made(poison: frozenset[str]) -> Simulation:
        service = VirtualService(workers, lambda now: 0.15, never_answers=poison)
        return Simulation([service], streams=4 + len(poison), timeout_s=timeout_s, seed=seed)

    alone, beside = made(frozenset()), made(POISON)
    alone.run(10.0)
    beside.run(10.0)
    found = len(alone.answers), len(beside.answers)
    alone.run(60.0)
    beside.run(60.0)
    assert len(beside.answers) - found[1] >= 0.9 * (len(alone.answers) - found[0])
    assert sorted(beside.scheduler.backed_off(60.0)) == sorted(POISON)
    assert beside.endpoints.each[0].breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_they_keep_it_where_each_such_frame_blocks_a_worker_for_a_while(workers: int) -> None:
    """No bridge can help while all workers are blocked, which twelve frames may do at first: in the end they do not."""
    service = VirtualService(workers, lambda now: 0.15, never_answers=POISON, held_s=2.0)
    simulation = Simulation([service], streams=16, timeout_s=2.0)
    simulation.run(400.0)
    assert simulation.rate(200.0) >= 0.9 * min(8.0, workers / 0.15)


@pytest.mark.parametrize("workers", [1, 2, 16])
def test_cameras_that_turn_to_frames_which_are_never_answered_cost_the_others_one_deadline(workers: int) -> None:
    service = VirtualService(workers, lambda now: 0.15)
    simulation = Simulation([service], streams=16, timeout_s=2.0, max_fps=1.0)
    simulation.run(30.0)
    before = sum(simulation.answered_of[f"s{number}"] for number in range(4)) / 30.0
    service.never_answers = POISON
    simulation.run(45.0)
    looks = len(simulation.answers)
    simulation.run(75.0)
    assert (len(simulation.answers) - looks) / 30.0 >= 0.9 * before
    assert sorted(simulation.scheduler.backed_off(75.0)) == sorted(POISON)


@pytest.mark.parametrize("workers", [1, 2, 16])
def test_a_service_that_answers_nobody_any_more_is_judged_and_no_stream_is(workers: int) -> None:
    service = VirtualService(workers, lambda now: 0.15)
    simulation = Simulation([service], streams=16, timeout_s=2.0)
    simulation.run(30.0)
    service.fails = lambda now: float("inf")
    simulation.run(60.0)
    assert simulation.endpoints.each[0].breaker.opened == 1
    assert simulation.scheduler.backed_off(60.0) == []
    asked = sum(at > 40.0 for at in service.asked)
    assert asked <= 20.0 / 2.0 + 1, "one probe at a time"
    service.fails = lambda now: None
    simulation.run(100.0)
    assert simulation.rate(70.0) >= 0.9 * min(32.0, workers / 0.15)


def test_before_anything_is_answered_one_more_is_asked_after_each_quarter_of_a_second_up_to_the_bound() -> None:
    scheduler = make(in_flight=8, timeout_s=5.0)
    for number in range(12):
        offer(scheduler, f"s{number}", 1, 0.0)
    under_way = {}
    now: float | None = 0.0
    while now is not None and now < 5.0:
        under_way[now] = len(sent(scheduler.due(now)))
        now = scheduler.next_at()
    assert under_way == {0.0: 4, 0.25: 1, 0.5: 1, 0.75: 1, 1.0: 1}


def test_a_request_that_is_never_answered_takes_no_room_when_later_ones_are() -> None:
    scheduler = make(in_flight=4, max_fps=1e6, timeout_s=60.0)
    offer(scheduler, "good", 1, 0.0)
    scheduler.on_result(one(scheduler, 0.0).ticket, 0.1)
    for stream in ("never", "nor"):
        offer(scheduler, stream, 1, 0.2)
    assert len(sent(scheduler.due(0.2))) == 2
    for number in range(2, 40):
        now = number / 5
        offer(scheduler, "good", number, now)
        offer(scheduler, f"new-{number}", number, now)
        commands = scheduler.due(now)
        assert sent(commands)[:1] or now < 1.0
        for command in commands:
            assert isinstance(command, SendFrame)
            scheduler.on_result(command.ticket, now + 0.1)
    assert scheduler.in_flight == 2
    assert scheduler._requests.stuck(8.0) == 2


def test_a_first_frame_that_is_past_its_deadline_is_the_frames_fault_when_later_ones_were_answered() -> None:
    scheduler = make(in_flight=4, max_fps=1e6, timeout_s=1.0)
    offer(scheduler, "never", 1, 0.0)
    number = one(scheduler, 0.0).ticket
    offer(scheduler, "good", 1, 0.1)
    scheduler.on_result(one(scheduler, 0.1).ticket, 0.2)
    assert scheduler.due(1.0) == [CancelRequest(number, "never", Blame.FRAME)]
    assert scheduler.backed_off(1.0) == ["never"]


def test_the_deadline_of_a_stream_on_trial_is_not_the_services_soon_after_another_was_answered() -> None:
    scheduler = make(in_flight=1, max_fps=1e6, timeout_s=2.0)
    offer(scheduler, "good", 1, 0.0)
    scheduler.on_result(one(scheduler, 0.0).ticket, 0.1)
    limit = scheduler.endpoints.each[0].limiter.limit
    for number, expected in ((1, Blame.UNSURE), (5, Blame.SERVICE), (7, Blame.SERVICE), (9, Blame.SERVICE)):
        offer(scheduler, f"never-{number}", 1, float(number))
        ticket = one(scheduler, float(number)).ticket
        assert scheduler.due(number + 2.0) == [CancelRequest(ticket, f"never-{number}", expected)]
        assert scheduler.endpoints.each[0].limiter.limit == limit
    assert scheduler.endpoints.each[0].breaker.state is BreakerState.OPEN, "nobody was answered meanwhile"
