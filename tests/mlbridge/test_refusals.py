"""Whose fault a failed request is, as rules by themselves and over the scheduler; then many streams in virtual time."""

from __future__ import annotations

import pytest

from tests.mlbridge.test_scheduler import make, offer, sent
from tests.mlbridge.virtual_time import Simulation, VirtualService
from watchout.mlbridge.breaker import BreakerState
from watchout.mlbridge.refusals import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    MAX_LINES,
    MAX_TOLD,
    TOLD_EVERY_S,
    Blame,
    LastAnswers,
    Telling,
    Trouble,
)
from watchout.mlbridge.scheduler import Answered, GiveUp, Scheduler, SendFrame


def test_a_pause_doubles_is_bounded_and_ends_with_an_answer() -> None:
    trouble = Trouble()
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
    trouble = Trouble()
    trouble.refuse(1000, 0.0)
    trouble.refuse(800, 0.0)
    trouble.refuse(900, 0.0)
    assert not trouble.offered(800)
    assert not trouble.offered(721)
    assert trouble.offered(720)
    assert trouble.retry_at is None
    assert not trouble.is_clear, "it is still to go apart"
    trouble.refuse(720, 0.0)
    assert not trouble.offered(700)
    assert trouble.offered(600)


def test_the_last_answer_to_others_is_known_of_each_stream() -> None:
    last = LastAnswers()
    assert last.but("a") == float("-inf")
    for stream, now in (("a", 1.0), ("b", 2.0), ("b", 3.0)):
        last.add(stream, now)
    assert (last.but("a"), last.but("b"), last.but("c")) == (3.0, 1.0, 3.0)
    last.add("a", 4.0)
    assert (last.but("a"), last.but("b")) == (3.0, 4.0)


def test_a_stream_is_named_once_a_minute_with_what_was_not_told() -> None:
    telling = Telling()
    assert telling.refused("a", 0.0) == 1
    assert [telling.refused("a", float(now)) for now in range(1, 60)] == [None] * 59
    assert telling.refused("b", 30.0) == 1
    assert telling.refused("a", TOLD_EVERY_S) == 60


def test_lines_and_memory_are_bounded_whatever_the_number_of_streams() -> None:
    telling = Telling()
    told = [telling.refused(f"s{number}", 1.0) for number in range(2 * MAX_TOLD)]
    assert len(told) - told.count(None) == MAX_LINES
    assert telling.unnamed == 2 * MAX_TOLD - MAX_LINES
    assert len(telling._streams) == MAX_TOLD


def one(scheduler: Scheduler[str], now: float) -> SendFrame[str]:
    (command,) = scheduler.due(now)
    assert isinstance(command, SendFrame)
    return command


def test_a_refused_stream_waits_and_its_next_frame_goes_apart() -> None:
    scheduler = make(max_fps=100)
    offer(scheduler, "a", 1, 0.0, size=10)
    first = one(scheduler, 0.0)
    assert not first.apart
    assert scheduler.failed(first.ticket, 0.1, blame=Blame.FRAME) is Blame.FRAME
    assert scheduler.backed_off(0.1) == ["a"]
    offer(scheduler, "a", 2, 0.2, size=10)
    assert scheduler.due(0.2) == []
    assert scheduler.next_at() == pytest.approx(0.1 + FIRST_PAUSE_S)
    again = one(scheduler, 0.1 + FIRST_PAUSE_S)
    assert again.apart
    assert scheduler.answered(again.ticket, 2.0) is Answered.COUNTS
    assert scheduler.backed_off(2.0) == []
    offer(scheduler, "a", 3, 2.1, size=10)
    assert not one(scheduler, 2.1).apart
    assert scheduler.counts.refused == 1


def test_refusals_leave_breaker_and_limit_alone_however_many() -> None:
    scheduler = make(max_fps=1e6, in_flight=8)
    endpoint = scheduler.endpoints.each[0]
    limit = endpoint.limiter.limit
    for number in range(100):
        offer(scheduler, f"s{number}", 1, 1.0)
        scheduler.failed(one(scheduler, 1.0).ticket, 1.0, blame=Blame.FRAME)
    assert endpoint.breaker.state is BreakerState.CLOSED
    assert (endpoint.breaker.opened, endpoint.limiter.limit) == (0, limit)


def test_a_smaller_picture_of_a_refused_stream_goes_at_once() -> None:
    scheduler = make(max_fps=100)
    offer(scheduler, "a", 1, 0.0, size=1000)
    scheduler.failed(one(scheduler, 0.0).ticket, 0.1, blame=Blame.FRAME)
    offer(scheduler, "a", 2, 0.2, size=990)
    assert scheduler.due(0.2) == []
    offer(scheduler, "a", 3, 0.3, size=500)
    assert sent(scheduler.due(0.3)) == ["a3"]


def test_frames_let_go_while_their_stream_is_backed_off_are_counted_so() -> None:
    scheduler = make(max_fps=100, max_age_s=0.5)
    offer(scheduler, "a", 1, 0.0, size=10)
    scheduler.failed(one(scheduler, 0.0).ticket, 0.1, blame=Blame.FRAME)
    offer(scheduler, "a", 2, 0.2, size=10)
    offer(scheduler, "a", 3, 0.3, size=10)
    assert scheduler.due(0.9) == []
    assert (scheduler.counts.backed_off, scheduler.counts.replaced, scheduler.counts.too_old) == (2, 0, 0)


def test_one_retry_of_all_refused_streams_is_under_way_and_they_have_a_share_of_the_time() -> None:
    scheduler = make(max_fps=1e6, in_flight=8)
    for number in range(4):
        offer(scheduler, f"bad{number}", 1, 0.0)
        scheduler.failed(one(scheduler, 0.0).ticket, 0.0, blame=Blame.FRAME)
    for number in range(4):
        offer(scheduler, f"bad{number}", 2, 2.0)
    offer(scheduler, "good", 1, 2.0)
    commands = scheduler.due(2.0)
    assert [frame[:3] for frame in sent(commands)] == ["bad", "goo"]
    tickets = [command.ticket for command in commands if isinstance(command, SendFrame)]
    scheduler.failed(tickets[0], 2.1, blame=Blame.FRAME)
    assert scheduler.due(2.1) == [], "0.1 s were theirs, so the next 1.9 s are not, while another is under way"
    scheduler.answered(tickets[1], 2.2)
    assert len(sent(scheduler.due(2.2))) == 1, "nobody else wants it"


def test_what_may_be_either_is_the_services_while_nobody_else_is_answered() -> None:
    scheduler = make(max_fps=1e6)
    blames = []
    for number in range(3):
        offer(scheduler, "a", number, float(number))
        blames.append(scheduler.failed(one(scheduler, float(number)).ticket, number + 0.1, blame=Blame.UNSURE))
    assert blames == [Blame.SERVICE] * 3
    assert scheduler.endpoints.each[0].breaker.state is BreakerState.OPEN


def test_what_may_be_either_is_the_streams_when_others_are_answered_meanwhile() -> None:
    scheduler = make(max_fps=1e6)

    def fail(number: int, now: float) -> Blame | None:
        offer(scheduler, "a", number, now)
        return scheduler.failed(one(scheduler, now).ticket, now + 0.1, blame=Blame.UNSURE)

    assert fail(1, 0.0) is Blame.SERVICE
    offer(scheduler, "b", 1, 1.0)
    scheduler.answered(one(scheduler, 1.0).ticket, 1.1)
    assert fail(2, 2.0) is Blame.FRAME
    assert scheduler.backed_off(2.1) == ["a"]


def test_a_deadline_that_one_stream_always_misses_is_the_streams() -> None:
    scheduler = make(max_fps=1e6, timeout_s=1.0)
    offer(scheduler, "slow", 1, 0.0)
    scheduler.due(0.0)
    assert scheduler.due(1.0) == [GiveUp(1, "slow", Blame.SERVICE)]
    offer(scheduler, "good", 1, 1.1)
    scheduler.answered(one(scheduler, 1.1).ticket, 1.2)
    offer(scheduler, "slow", 2, 1.3)
    scheduler.due(1.3)
    assert scheduler.due(2.3) == [GiveUp(3, "slow", Blame.FRAME)]


def test_a_connection_that_another_frame_ended_costs_nothing() -> None:
    scheduler = make(max_fps=1e6)
    for number in range(20):
        offer(scheduler, "a", number, float(number))
        assert scheduler.failed(one(scheduler, float(number)).ticket, number + 0.1, blame=Blame.OTHER) is Blame.OTHER
    assert scheduler.backed_off(20.0) == []
    assert scheduler.endpoints.each[0].breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("blame", [Blame.FRAME, Blame.OTHER, Blame.UNSURE, Blame.SERVICE])
def test_a_probe_always_ends(blame: Blame) -> None:
    scheduler = make(max_fps=1e6)
    for number in range(3):
        offer(scheduler, f"a{number}", 1, 0.0)
        scheduler.failed(one(scheduler, 0.0).ticket, 0.0)
    offer(scheduler, "b", 1, 10.0)
    scheduler.failed(one(scheduler, 10.0).ticket, 10.1, blame=blame)
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
        scheduler.answered(command.ticket, 0.1)
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
