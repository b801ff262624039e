"""The scheduler's rules, each as a short history; then all of them at once, over random histories."""

from __future__ import annotations

import pytest

from tests.unit.mlbridge.scheduler_kit import make, offer, sent, ticket
from watchout.mlbridge.breaker import FIRST_PAUSE_S, OPEN_AFTER
from watchout.mlbridge.commands import CancelRequest, OfferOutcome, ResultOutcome, SendFrame
from watchout.mlbridge.concurrency_limit import MEASURE_EVERY_S
from watchout.mlbridge.requests_in_flight import IDLE_S
from watchout.mlbridge.scheduled_stream import LOWER_AFTER_S
from watchout.mlbridge.scheduler import FORGET_AFTER_S, REPORTED_FOR_S


def test_a_frame_is_sent_at_once_when_the_service_is_free() -> None:
    scheduler = make()
    assert offer(scheduler, "a", 1, 10.0) is OfferOutcome.WAITS
    assert scheduler.due(10.0) == [SendFrame(1, "a", "a1", 15.0, 10.0)]
    assert scheduler.in_flight == 1


def test_the_newest_frame_takes_the_place_of_the_one_that_waits() -> None:
    scheduler = make(max_fps=100)
    offer(scheduler, "a", 1, 0.0)
    first = ticket(scheduler.due(0.0))
    assert offer(scheduler, "a", 2, 0.1) is OfferOutcome.WAITS
    assert offer(scheduler, "a", 3, 0.2) is OfferOutcome.REPLACED_ONE
    assert scheduler.due(0.2) == []
    assert scheduler.on_result(first, 0.3) is ResultOutcome.COUNTS
    assert sent(scheduler.due(0.3)) == ["a3"]
    assert scheduler.counts.replaced == 1


def test_a_frame_older_than_one_that_was_offered_is_never_sent() -> None:
    scheduler = make(max_fps=100)
    offer(scheduler, "a", 5, 0.0)
    assert offer(scheduler, "a", 4, 0.0) is OfferOutcome.OVERTAKEN
    assert offer(scheduler, "a", 5, 0.0) is OfferOutcome.OVERTAKEN
    assert sent(scheduler.due(0.0)) == ["a5"]
    assert scheduler.counts.replaced == 2


def test_a_new_term_may_count_its_frames_from_one_again() -> None:
    scheduler = make()
    scheduler.offer("a", (1, 900), "old", 1, 0.0)
    assert scheduler.offer("a", (2, 1), "new", 1, 0.0) is OfferOutcome.REPLACED_ONE
    assert scheduler.offer("a", (1, 901), "zombie", 1, 0.0) is OfferOutcome.OVERTAKEN
    assert sent(scheduler.due(0.0)) == ["new"]


@pytest.mark.parametrize("false", [(2**61, 1), (1, 2**31)])
def test_a_frame_with_a_number_that_nobody_gave_it_stops_its_stream_for_a_while_only(false: tuple[int, int]) -> None:
    scheduler = make(max_fps=100)
    scheduler.offer("a", (1, 5), "a5", 1, 0.0)
    assert scheduler.offer("a", false, "false", 1, 0.0) is OfferOutcome.REPLACED_ONE
    outcomes = [scheduler.offer("a", (1, 6 + second), "x", 1, float(second)) for second in range(13)]
    first = int(LOWER_AFTER_S)
    assert outcomes == [OfferOutcome.OVERTAKEN] * first + [OfferOutcome.REPLACED_ONE] * (13 - first)
    for second in range(19, 40):  # on two ways, one of which is behind
        scheduler.offer("a", (1, second), "x", 1, float(second))
        assert scheduler.offer("a", (1, second - 10), "behind", 1, float(second)) is OfferOutcome.OVERTAKEN
    assert {scheduler.offer("a", (1, 1), "again", 1, 60.0 + second) for second in range(20)} == {OfferOutcome.OVERTAKEN}


def test_no_more_requests_are_under_way_than_allowed() -> None:
    scheduler = make(in_flight=2)
    for stream in "abc":
        offer(scheduler, stream, 1, 0.0)
    commands = scheduler.due(0.0)
    assert sent(commands) == ["a1", "b1"]
    assert isinstance(commands[1], SendFrame)
    scheduler.on_result(commands[1].ticket, 0.1)
    assert sent(scheduler.due(0.1)) == [], "one that was never answered leaves the room to the other"
    assert isinstance(commands[0], SendFrame)
    scheduler.on_result(commands[0].ticket, 0.2)
    assert sent(scheduler.due(0.2)) == ["c1"]


def test_a_stream_is_shown_at_its_rate_and_then_with_its_newest_frame() -> None:
    scheduler = make(max_fps=2)
    offer(scheduler, "a", 1, 0.0)
    scheduler.on_result(ticket(scheduler.due(0.0)), 0.01)
    offer(scheduler, "a", 2, 0.1)
    offer(scheduler, "a", 3, 0.2)
    assert scheduler.due(0.2) == []
    at = scheduler.next_at()
    assert at is not None
    assert 0.2 < at <= 0.5
    assert sent(scheduler.due(at)) == ["a3"]


def test_the_rate_holds_over_a_long_time() -> None:
    scheduler = make(max_fps=2)
    count = 0
    for step in range(1000):
        now = step * 0.033
        offer(scheduler, "a", step, now)
        for command in scheduler.due(now):
            assert isinstance(command, SendFrame)
            count += 1
            scheduler.on_result(command.ticket, now)
    assert 64 <= count <= 68


def test_the_stream_that_was_served_longest_ago_goes_first() -> None:
    scheduler = make(in_flight=1, max_fps=1000)
    for stream in "abc":
        offer(scheduler, stream, 1, 0.0)
    order = []
    now = 0.0
    for turn in range(2, 11):
        (command,) = scheduler.due(now)
        assert isinstance(command, SendFrame)
        order.append(command.stream)
        now += 0.01
        scheduler.on_result(command.ticket, now)
        for stream in "cba":  # whoever comes first does not matter
            offer(scheduler, stream, turn, now)
    assert "".join(order) == "abcabcabc"


def test_a_stream_that_joins_waits_for_those_that_are_there() -> None:
    scheduler = make(in_flight=1, max_fps=1000)
    offer(scheduler, "a", 1, 0.0)
    offer(scheduler, "b", 1, 0.0)
    first = ticket(scheduler.due(0.0))
    offer(scheduler, "new", 1, 0.1)
    scheduler.on_result(first, 0.2)
    assert sent(scheduler.due(0.2)) == ["b1"]


def test_a_request_past_its_deadline_is_given_up_once_and_its_answer_does_not_count() -> None:
    scheduler = make(timeout_s=1)
    offer(scheduler, "a", 1, 0.0)
    number = ticket(scheduler.due(0.0))
    assert scheduler.next_at() == 1.0
    assert scheduler.due(0.999) == []
    assert scheduler.due(1.0) == [CancelRequest(number, "a")]
    assert scheduler.due(1.1) == []
    assert scheduler.on_result(number, 1.2) is ResultOutcome.LATE
    assert not scheduler.on_failure(number, 1.2)
    assert scheduler.counts.late == 1
    assert scheduler.in_flight == 0


def test_an_answer_after_the_deadline_but_before_the_timer_does_not_count() -> None:
    scheduler = make(timeout_s=1)
    offer(scheduler, "a", 1, 0.0)
    number = ticket(scheduler.due(0.0))
    assert scheduler.on_result(number, 1.5) is ResultOutcome.LATE
    assert scheduler.due(1.5) == [CancelRequest(number, "a")]


def test_a_given_up_stream_goes_on_with_its_newest_frame() -> None:
    scheduler = make(timeout_s=1, in_flight=1)
    offer(scheduler, "a", 1, 0.0)
    number = ticket(scheduler.due(0.0))
    offer(scheduler, "a", 2, 0.5)
    offer(scheduler, "a", 3, 0.9)
    given_up, sent_again = scheduler.due(1.0)
    assert given_up == CancelRequest(number, "a")
    assert sent([sent_again]) == ["a3"]


def test_failures_in_a_row_make_a_pause_and_then_one_frame_goes() -> None:
    scheduler = make(max_fps=1000, in_flight=1)
    for number in range(OPEN_AFTER):
        offer(scheduler, "a", number, 1.0 + number)
        assert scheduler.on_failure(ticket(scheduler.due(1.0 + number)), 1.0 + number)
    now = 0.0 + OPEN_AFTER
    for stream in "abc":
        offer(scheduler, stream, 100, now)
    assert scheduler.due(now) == []
    at = scheduler.next_at()
    assert at == now + FIRST_PAUSE_S
    probe = ticket(scheduler.due(at))
    assert scheduler.due(at + 1.0) == []
    assert scheduler.on_result(probe, at + 1.0) is ResultOutcome.COUNTS
    assert len(sent(scheduler.due(at + 1.0))) == 1


def test_what_was_replaced_or_became_too_old_while_the_service_was_away_is_counted_as_that() -> None:
    scheduler = make(max_fps=1000, in_flight=1, max_age_s=0.05)
    for number in range(OPEN_AFTER):
        offer(scheduler, "a", number, float(number))
        scheduler.on_failure(ticket(scheduler.due(float(number))), float(number))
    now = OPEN_AFTER - 1.0
    offer(scheduler, "a", 10, now)
    offer(scheduler, "a", 11, now)
    assert scheduler.next_at() == now + 0.05
    assert scheduler.due(now + 0.05) == []
    counts = scheduler.counts
    assert (counts.away, counts.replaced, counts.too_old) == (2, 0, 0)


def test_a_frame_that_waited_past_the_age_limit_is_not_sent() -> None:
    scheduler = make(max_fps=1000, in_flight=1, max_age_s=1.0)
    offer(scheduler, "a", 1, 0.0)
    first = ticket(scheduler.due(0.0))
    offer(scheduler, "a", 2, 0.5)
    offer(scheduler, "b", 1, 0.6)
    assert scheduler.next_at() == 1.5
    assert scheduler.due(1.5) == []
    assert (scheduler.counts.too_old, scheduler.waiting) == (1, 1)
    scheduler.on_result(first, 1.59)
    assert sent(scheduler.due(1.59)) == ["b1"]


def test_a_frame_whose_turn_comes_with_its_limit_is_not_sent() -> None:
    scheduler = make(max_fps=1000, in_flight=1, max_age_s=1.0)
    offer(scheduler, "a", 1, 0.0)
    first = ticket(scheduler.due(0.0))
    offer(scheduler, "b", 1, 0.0)
    scheduler.on_result(first, 1.0)
    assert scheduler.due(1.0) == []


def test_a_stream_whose_frame_became_too_old_keeps_its_turn() -> None:
    scheduler = make(max_fps=1000, in_flight=1, max_age_s=1.0)
    offer(scheduler, "a", 1, 0.0)
    offer(scheduler, "b", 1, 0.0)
    first = ticket(scheduler.due(0.0))
    scheduler.due(1.0)
    offer(scheduler, "a", 2, 1.9)
    offer(scheduler, "b", 2, 2.0)
    scheduler.on_result(first, 2.1)
    assert sent(scheduler.due(2.1)) == ["b2"]


def test_a_frame_that_came_too_long_ago_is_not_taken_but_known() -> None:
    scheduler = make(max_age_s=1.0)
    assert scheduler.offer("a", (0, 5), "late", 1, 10.0, came_at=8.5) is OfferOutcome.TOO_OLD
    assert scheduler.offer("a", (0, 4), "older", 1, 10.0) is OfferOutcome.OVERTAKEN
    assert scheduler.offer("a", (0, 6), "in time", 1, 10.0, came_at=9.5) is OfferOutcome.WAITS
    (command,) = scheduler.due(10.0)
    assert isinstance(command, SendFrame)
    assert (command.frame, command.came_at) == ("in time", 9.5)


def test_a_frame_cannot_have_come_before_one_that_was_read_before_it() -> None:
    scheduler = make(in_flight=1, max_age_s=1.0)
    offer(scheduler, "busy", 1, 0.0)
    scheduler.due(0.0)
    scheduler.offer("a", (0, 1), "a1", 1, 5.0, came_at=4.9)
    scheduler.offer("b", (0, 1), "b1", 1, 5.0, came_at=4.5)
    scheduler.due(5.0)
    assert scheduler.next_at() == 5.9
    scheduler.due(5.9)
    assert scheduler.waiting == 0


def test_a_copy_tries_an_endpoint_and_holds_no_stream() -> None:
    scheduler = make(max_fps=1000, endpoints=2, timeout_s=5.0)
    for number in range(OPEN_AFTER):
        offer(scheduler, "a", number, number / 10)
        scheduler.on_failure(ticket(scheduler.due(number / 10)), number / 10)
    offer(scheduler, "a", 10, 1.0)
    copy, own = scheduler.due(1.0)
    assert isinstance(copy, SendFrame)
    assert isinstance(own, SendFrame)
    assert (copy.endpoint, copy.copy, own.endpoint, own.copy) == (0, True, 1, False)
    assert scheduler.in_flight == 2
    scheduler.on_result(own.ticket, 1.1)
    offer(scheduler, "a", 11, 1.2)
    again = ticket(scheduler.due(1.2))
    scheduler.on_result(again, 1.3)
    assert scheduler.due(6.0) == [CancelRequest(copy.ticket, "a")]
    offer(scheduler, "a", 12, 7.0)
    copy, own = scheduler.due(7.0)
    assert isinstance(copy, SendFrame)
    assert scheduler.on_result(copy.ticket, 7.1) is ResultOutcome.COPY
    assert (scheduler.counts.sent, scheduler.counts.copies) == (OPEN_AFTER + 3, 2)


def test_coverage_is_told_of_streams_that_are_there() -> None:
    scheduler = make(in_flight=1)
    offer(scheduler, "a", 1, 0.5)
    scheduler.on_result(ticket(scheduler.due(0.5)), 0.6)
    offer(scheduler, "b", 1, 5.5)
    offer(scheduler, "a", 2, 5.6)
    assert dict(scheduler.coverage(6.5)) == {"a": 1 / 6, "b": 0.0}
    assert dict(scheduler.coverage(5.55 + REPORTED_FOR_S)) == {"a": 1 / 6}


def test_a_stream_that_is_not_seen_is_forgotten_with_its_frame() -> None:
    scheduler = make(in_flight=1, timeout_s=300)
    offer(scheduler, "busy", 1, 0.0)
    scheduler.due(0.0)
    offer(scheduler, "gone", 1, 0.0)
    assert scheduler.next_at() == FORGET_AFTER_S
    scheduler.due(FORGET_AFTER_S)
    assert (scheduler.streams, scheduler.waiting) == (1, 0)  # the one with a request under way is kept
    assert scheduler.counts.forgotten == 1


def test_a_forgotten_stream_may_begin_anew() -> None:
    scheduler = make()
    offer(scheduler, "a", 900, 0.0)
    scheduler.on_result(ticket(scheduler.due(0.0)), 0.1)
    scheduler.due(FORGET_AFTER_S + 1)
    assert scheduler.streams == 0
    assert scheduler.next_at() is None
    offer(scheduler, "a", 1, FORGET_AFTER_S + 2)
    assert sent(scheduler.due(FORGET_AFTER_S + 2)) == ["a1"]


def test_past_the_most_streams_the_one_not_seen_for_longest_is_forgotten() -> None:
    scheduler = make(max_streams=3, in_flight=1)
    for number, stream in enumerate("abcd"):
        offer(scheduler, stream, 1, float(number))
    assert scheduler.streams == 3
    assert scheduler.counts.forgotten == 1
    assert sent(scheduler.due(4.0)) == ["b1"]
    offer(scheduler, "e", 1, 5.0)  # b has a request under way: c goes
    assert scheduler.streams == 3
    given_up, next_one = scheduler.due(9.0)
    assert given_up == CancelRequest(1, "b")
    assert sent([next_one]) == ["d1"]


def test_frames_that_wait_are_bounded_in_bytes_and_the_one_that_waits_longest_goes() -> None:
    scheduler = make(in_flight=1, max_waiting_bytes=100)
    for number, stream in enumerate("abc"):
        offer(scheduler, stream, 1, float(number), size=40)
    assert scheduler.waiting_bytes == 80
    assert sent(scheduler.due(3.0)) == ["b1"]
    assert offer(scheduler, "d", 1, 4.0, size=1000) is OfferOutcome.WAITS  # one frame may always wait
    assert scheduler.waiting == 1
    assert scheduler.counts.over_bytes == 2


def test_clear_lets_go_of_what_waits_and_not_of_what_is_under_way() -> None:
    scheduler = make(in_flight=1)
    offer(scheduler, "a", 1, 0.0)
    number = ticket(scheduler.due(0.0))
    offer(scheduler, "b", 1, 0.0)
    scheduler.drop_waiting()
    assert (scheduler.waiting, scheduler.waiting_bytes, scheduler.in_flight) == (0, 0, 1)
    assert scheduler.on_result(number, 0.1) is ResultOutcome.COUNTS
    assert scheduler.due(0.1) == []


@pytest.mark.parametrize("is_idle", [True, False])
def test_a_new_stream_waits_for_a_measurement_only_while_others_send(is_idle: bool) -> None:
    """The frame of a camera that sends one burst now and then must not become too old for others that sent theirs."""
    scheduler = make(in_flight=4, max_fps=100.0)
    limiter = scheduler.endpoints.each[0].limiter
    now, number = 0.0, 0
    while not limiter.measures(now + 0.01):
        now, number = now + 0.1, number + 1
        assert now < 2 * MEASURE_EVERY_S
        offer(scheduler, "old", number, now)
        scheduler.on_result(ticket(scheduler.due(now)), now + 0.01)
    offer(scheduler, "new", 1, now + 0.02)
    assert sent(scheduler.due(now + 0.02)) == []
    if is_idle:
        assert scheduler.next_at() == pytest.approx(now + 0.01 + IDLE_S)
        assert sent(scheduler.due(now + 0.02 + IDLE_S)) == ["new1"]
    else:
        offer(scheduler, "old", number + 1, now + 0.3)
        assert sent(scheduler.due(now + 0.3)) == [f"old{number + 1}"]
        assert sent(scheduler.due(now + 0.02 + IDLE_S)) == []
