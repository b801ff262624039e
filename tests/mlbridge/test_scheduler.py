"""The scheduler's rules, each as a short history; then all of them at once, over random histories."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from mlbridge.scheduler import (
    FIRST_PAUSE_S,
    FORGET_AFTER_S,
    LONGEST_PAUSE_S,
    Command,
    GiveUp,
    Offered,
    Scheduler,
    SendFrame,
)


def make(
    *,
    max_fps: float = 2.0,
    in_flight: int = 2,
    timeout_s: float = 5.0,
    max_streams: int = 100,
    max_waiting_bytes: int = 1 << 20,
) -> Scheduler[str]:
    return Scheduler(
        max_fps=max_fps,
        in_flight=in_flight,
        timeout_s=timeout_s,
        max_streams=max_streams,
        max_waiting_bytes=max_waiting_bytes,
    )


def sent(commands: list[Command[str]]) -> list[str]:
    return [command.frame for command in commands if isinstance(command, SendFrame)]


def offer(scheduler: Scheduler[str], stream: str, number: int, now: float, size: int = 1) -> Offered:
    return scheduler.offer(stream, (1, number), f"{stream}{number}", size, now)


def ticket(commands: list[Command[str]]) -> int:
    (command,) = commands
    assert isinstance(command, SendFrame)
    return command.ticket


def test_a_frame_is_sent_at_once_when_the_service_is_free() -> None:
    scheduler = make()
    assert offer(scheduler, "a", 1, 10.0) is Offered.WAITS
    assert scheduler.due(10.0) == [SendFrame(1, "a", "a1", 15.0)]
    assert scheduler.in_flight == 1


def test_the_newest_frame_takes_the_place_of_the_one_that_waits() -> None:
    scheduler = make(max_fps=100)
    offer(scheduler, "a", 1, 0.0)
    first = ticket(scheduler.due(0.0))
    assert offer(scheduler, "a", 2, 0.1) is Offered.WAITS
    assert offer(scheduler, "a", 3, 0.2) is Offered.REPLACED_ONE
    assert scheduler.due(0.2) == []
    assert scheduler.answered(first, 0.3)
    assert sent(scheduler.due(0.3)) == ["a3"]
    assert scheduler.counts.replaced == 1


def test_a_frame_older_than_one_that_was_offered_is_never_sent() -> None:
    scheduler = make(max_fps=100)
    offer(scheduler, "a", 5, 0.0)
    assert offer(scheduler, "a", 4, 0.0) is Offered.TOO_OLD
    assert offer(scheduler, "a", 5, 0.0) is Offered.TOO_OLD
    assert sent(scheduler.due(0.0)) == ["a5"]
    assert scheduler.counts.replaced == 2


def test_a_new_term_may_count_its_frames_from_one_again() -> None:
    scheduler = make()
    scheduler.offer("a", (1, 900), "old", 1, 0.0)
    assert scheduler.offer("a", (2, 1), "new", 1, 0.0) is Offered.REPLACED_ONE
    assert scheduler.offer("a", (1, 901), "zombie", 1, 0.0) is Offered.TOO_OLD
    assert sent(scheduler.due(0.0)) == ["new"]


def test_no_more_requests_are_under_way_than_allowed() -> None:
    scheduler = make(in_flight=2)
    for stream in "abc":
        offer(scheduler, stream, 1, 0.0)
    commands = scheduler.due(0.0)
    assert sent(commands) == ["a1", "b1"]
    assert isinstance(commands[1], SendFrame)
    scheduler.answered(commands[1].ticket, 0.1)
    assert sent(scheduler.due(0.1)) == ["c1"]


def test_a_stream_is_shown_at_its_rate_and_then_with_its_newest_frame() -> None:
    scheduler = make(max_fps=2)
    offer(scheduler, "a", 1, 0.0)
    scheduler.answered(ticket(scheduler.due(0.0)), 0.01)
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
            scheduler.answered(command.ticket, now)
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
        scheduler.answered(command.ticket, now)
        for stream in "cba":  # whoever comes first does not matter
            offer(scheduler, stream, turn, now)
    assert "".join(order) == "abcabcabc"


def test_a_stream_that_joins_waits_for_those_that_are_there() -> None:
    scheduler = make(in_flight=1, max_fps=1000)
    offer(scheduler, "a", 1, 0.0)
    offer(scheduler, "b", 1, 0.0)
    first = ticket(scheduler.due(0.0))
    offer(scheduler, "new", 1, 0.1)
    scheduler.answered(first, 0.2)
    assert sent(scheduler.due(0.2)) == ["b1"]


def test_a_request_past_its_deadline_is_given_up_once_and_its_answer_does_not_count() -> None:
    scheduler = make(timeout_s=1)
    offer(scheduler, "a", 1, 0.0)
    number = ticket(scheduler.due(0.0))
    assert scheduler.next_at() == 1.0
    assert scheduler.due(0.999) == []
    assert scheduler.due(1.0) == [GiveUp(number, "a")]
    assert scheduler.due(1.1) == []
    assert not scheduler.answered(number, 1.2)
    assert not scheduler.failed(number, 1.2)
    assert scheduler.counts.late == 1
    assert scheduler.in_flight == 0


def test_an_answer_after_the_deadline_but_before_the_timer_does_not_count() -> None:
    scheduler = make(timeout_s=1)
    offer(scheduler, "a", 1, 0.0)
    number = ticket(scheduler.due(0.0))
    assert not scheduler.answered(number, 1.5)
    assert scheduler.due(1.5) == [GiveUp(number, "a")]


def test_a_given_up_stream_goes_on_with_its_newest_frame() -> None:
    scheduler = make(timeout_s=1, in_flight=1)
    offer(scheduler, "a", 1, 0.0)
    number = ticket(scheduler.due(0.0))
    offer(scheduler, "a", 2, 0.5)
    offer(scheduler, "a", 3, 0.9)
    assert scheduler.due(1.0) == [GiveUp(number, "a")]
    at = scheduler.next_at()
    assert at == 1.0 + FIRST_PAUSE_S
    assert sent(scheduler.due(at)) == ["a3"]


def test_failures_in_a_row_make_pauses_that_grow_to_a_bound_and_an_answer_ends_them() -> None:
    scheduler = make(max_fps=1000, in_flight=1)
    now, pauses = 0.0, []
    for number in range(11):
        offer(scheduler, f"s{number}", 1, now)
        assert scheduler.failed(ticket(scheduler.due(now)), now)
        offer(scheduler, f"s{number}", 2, now)
        assert scheduler.due(now) == []
        scheduler.clear()
        offer(scheduler, f"t{number}", 1, now)
        at = scheduler.next_at()
        assert at is not None
        pauses.append(round(at - now, 6))
        now = at
        scheduler.clear()
    assert pauses[:4] == [0.05, 0.1, 0.2, 0.4]
    assert set(pauses[4:]) == {LONGEST_PAUSE_S}
    offer(scheduler, "b", 1, now)
    scheduler.answered(ticket(scheduler.due(now)), now)
    offer(scheduler, "c", 1, now)
    assert sent(scheduler.due(now)) == ["c1"]


def test_after_a_long_outage_the_service_is_asked_again_within_a_second() -> None:
    scheduler = make(max_fps=2, in_flight=4)
    now, asked = 0.0, []
    for number in range(200):
        now = number * 0.5
        offer(scheduler, "a", number, now)
        for _ in range(3):
            for command in scheduler.due(now):
                assert isinstance(command, SendFrame)
                asked.append(now)
                scheduler.failed(command.ticket, now)
            at = scheduler.next_at()
            now = now if at is None or at > number * 0.5 + 0.49 else at
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert max(gaps) < 1.0
    assert len(asked) < 250


def test_a_stream_that_is_not_seen_is_forgotten_with_its_frame() -> None:
    scheduler = make(in_flight=1, timeout_s=300)
    offer(scheduler, "busy", 1, 0.0)
    scheduler.due(0.0)
    offer(scheduler, "gone", 1, 0.0)
    assert scheduler.next_at() == FORGET_AFTER_S
    scheduler.due(FORGET_AFTER_S)
    assert (scheduler.streams, scheduler.waiting) == (1, 0)  # the one with a request under way is kept
    assert scheduler.counts.dropped == 1


def test_a_forgotten_stream_may_begin_anew() -> None:
    scheduler = make()
    offer(scheduler, "a", 900, 0.0)
    scheduler.answered(ticket(scheduler.due(0.0)), 0.1)
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
    assert scheduler.counts.dropped == 1
    assert sent(scheduler.due(4.0)) == ["b1"]
    offer(scheduler, "e", 1, 5.0)  # b has a request under way: c goes
    assert scheduler.streams == 3
    assert scheduler.due(9.0) == [GiveUp(1, "b")]
    assert sent(scheduler.due(9.0 + FIRST_PAUSE_S)) == ["d1"]


def test_frames_that_wait_are_bounded_in_bytes_and_the_one_that_waits_longest_goes() -> None:
    scheduler = make(in_flight=1, max_waiting_bytes=100)
    for number, stream in enumerate("abc"):
        offer(scheduler, stream, 1, float(number), size=40)
    assert scheduler.waiting_bytes == 80
    assert sent(scheduler.due(3.0)) == ["b1"]
    assert offer(scheduler, "d", 1, 4.0, size=1000) is Offered.WAITS  # one frame may always wait
    assert scheduler.waiting == 1
    assert scheduler.counts.dropped == 2


def test_clear_lets_go_of_what_waits_and_not_of_what_is_under_way() -> None:
    scheduler = make(in_flight=1)
    offer(scheduler, "a", 1, 0.0)
    number = ticket(scheduler.due(0.0))
    offer(scheduler, "b", 1, 0.0)
    scheduler.clear()
    assert (scheduler.waiting, scheduler.waiting_bytes, scheduler.in_flight) == (0, 0, 1)
    assert scheduler.answered(number, 0.1)
    assert scheduler.due(0.1) == []


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["offer", "offer", "offer", "old", "answer", "fail", "wait", "jump", "clear"]),
        st.integers(0, 7),
        st.floats(0.0, 2.0),
    ),
    max_size=120,
)


@settings(max_examples=200, deadline=None)
@given(steps=STEPS, in_flight=st.integers(1, 3), max_streams=st.integers(2, 6), fps=st.sampled_from([0.5, 2.0, 50.0]))
def test_whatever_happens_the_rules_hold(
    steps: list[tuple[str, int, float]], in_flight: int, max_streams: int, fps: float
) -> None:
    scheduler = make(in_flight=in_flight, max_streams=max_streams, max_fps=fps, timeout_s=1.5, max_waiting_bytes=20)
    now, number = 0.0, 0
    flying: dict[int, tuple[str, float]] = {}
    newest_sent: dict[str, int] = {}
    given_up: list[int] = []

    def forget() -> None:
        for forgotten in newest_sent.keys() - scheduler._streams.keys():
            del newest_sent[forgotten]

    def obey() -> None:
        forget()
        for command in scheduler.due(now):
            match command:
                case SendFrame(ticket, stream, frame, deadline):
                    assert stream not in [other for other, _ in flying.values()], "two of one stream"
                    assert int(frame) > newest_sent.get(stream, -1), "an older frame after a newer one"
                    newest_sent[stream] = int(frame)
                    flying[ticket] = stream, deadline
                    assert len(flying) <= in_flight
                case GiveUp(ticket):
                    assert flying.pop(ticket)[1] <= now
                    given_up.append(ticket)
        assert all(deadline > now for _, deadline in flying.values())
        assert scheduler.in_flight == len(flying)
        counts = scheduler.counts
        assert counts.offered == counts.sent + counts.replaced + counts.dropped + scheduler.waiting
        assert scheduler.streams <= max(max_streams, in_flight + 1)
        assert scheduler.waiting_bytes <= 20 or scheduler.waiting == 1
        at = scheduler.next_at()
        assert at is None or at > now, "due has done all there is to do"
        assert at is not None or not scheduler.streams
        queued = [*scheduler._ready, *scheduler._later]
        assert sorted(place.stream for place in queued) == sorted(
            stream for stream in scheduler._waiting if stream not in [other for other, _ in flying.values()]
        )
        forget()

    for what, which, length in steps:
        match what:
            case "offer" | "old":
                number += 1
                order = number if what == "offer" else max(0, number - 3)
                scheduler.offer(f"s{which}", (0, order), str(order), 1 + which, now)
            case "answer" | "fail" if flying:
                ticket = list(flying)[which % len(flying)]
                assert (scheduler.answered if what == "answer" else scheduler.failed)(ticket, now)
                del flying[ticket]
            case "answer" if given_up:
                assert not scheduler.answered(given_up[which % len(given_up)], now)
            case "wait":
                now += length
            case "jump":
                at = scheduler.next_at()
                now = now if at is None else max(now, at)
            case "clear":
                scheduler.clear()
        obey()
    total = scheduler.counts
    scheduler.clear()
    assert total.offered == total.sent + total.replaced + total.dropped


@settings(max_examples=100, deadline=None)
@given(
    arrivals=st.lists(st.tuples(st.integers(0, 4), st.floats(0.0, 0.05)), min_size=20, max_size=200),
    answer_after=st.floats(0.0, 0.2),
    in_flight=st.integers(1, 3),
)
def test_nobody_is_served_twice_while_another_waits_that_could_be_served(
    arrivals: list[tuple[int, float]], answer_after: float, in_flight: int
) -> None:
    scheduler = make(in_flight=in_flight, max_fps=1e6)
    now, under_way = 0.0, []
    waits_since_turn: dict[str, set[str]] = {}
    for number, (which, gap) in enumerate(arrivals):
        now += gap
        for at, done in [pair for pair in under_way if pair[0] <= now]:
            under_way.remove((at, done))
            scheduler.answered(done, now)
        stream = f"s{which}"
        offer(scheduler, stream, number, now)
        for command in scheduler.due(now):
            assert isinstance(command, SendFrame)
            for passed_over in waits_since_turn.values():
                assert command.stream not in passed_over
            waits_since_turn.pop(command.stream, None)
            for passed_over in waits_since_turn.values():
                passed_over.add(command.stream)
            under_way.append((now + answer_after, command.ticket))
        for place in scheduler._ready:
            waits_since_turn.setdefault(place.stream, set())
