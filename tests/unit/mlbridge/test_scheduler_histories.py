"""Whatever happens to a scheduler, its rules hold; and how it shares slow services over a long time."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.mlbridge.scheduler_kit import make, offer
from tests.unit.mlbridge.virtual_time import Simulation, VirtualService
from watchout.mlbridge.commands import CancelRequest, ResultOutcome, SendFrame
from watchout.mlbridge.refusals import FIRST_PAUSE_S as FIRST_PAUSE_OF_A_STREAM_S
from watchout.mlbridge.refusals import Blame
from watchout.mlbridge.scheduler import Scheduler

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "offer",
                "offer",
                "offer",
                "old",
                "answer",
                "fail",
                "later",
                "refuse",
                "unsure",
                "other",
                "wait",
                "jump",
                "clear",
            ]
        ),
        st.integers(0, 7),
        st.floats(0.0, 2.0),
    ),
    max_size=120,
)


BLAMES = {"refuse": Blame.FRAME, "unsure": Blame.UNSURE, "other": Blame.OTHER}


class History:
    """Carries out what the scheduler says, and looks at each command and at the state after it."""

    def __init__(self, scheduler: Scheduler[str], in_flight: int, max_streams: int, max_age_s: float) -> None:
        self.scheduler = scheduler
        self.now = 0.0
        self.flying: dict[int, SendFrame[str]] = {}
        self.given_up: list[int] = []
        self._in_flight = in_flight
        self._max_streams = max_streams
        self._max_age_s = max_age_s
        self._number = 0
        self._answered = [False, False]
        self._came: dict[tuple[str, str], float] = {}
        self._newest_sent: dict[str, int] = {}
        self._refused_until: dict[str, float] = {}

    def offer(self, which: int, back: int) -> None:
        self._number += 1
        stream, order = f"s{which}", max(0, self._number - back)
        self._came[stream, str(order)] = self.now
        self.scheduler.offer(stream, (0, order), str(order), 1 + which, self.now)  # each stream of one size

    def end(self, which: int, what: str, length: float) -> None:
        command = self.flying.pop(list(self.flying)[which % len(self.flying)])
        if what == "answer":
            expected = ResultOutcome.COPY if command.copy else ResultOutcome.COUNTS
            self._answered[command.endpoint] = True
            assert self.scheduler.on_result(command.ticket, self.now) is expected
        else:
            later = length if what == "later" else None
            assert self.scheduler.on_failure(command.ticket, self.now, later, BLAMES.get(what, Blame.SERVICE))
            if what == "refuse" and not command.copy:
                self._refused_until[command.stream] = self.now + FIRST_PAUSE_OF_A_STREAM_S

    def obey(self) -> None:
        self._forget()
        for command in self.scheduler.due(self.now):
            if isinstance(command, CancelRequest):
                assert self.flying.pop(command.ticket).deadline <= self.now
                self.given_up.append(command.ticket)
            else:
                self._send(command)
        self._look()
        self._forget()

    def _send(self, command: SendFrame[str]) -> None:
        if not command.copy:
            assert command.stream not in self._streams_flying(), "two of one stream"
            assert int(command.frame) > self._newest_sent.get(command.stream, -1), "an older frame after a newer one"
            self._newest_sent[command.stream] = int(command.frame)
            assert self.now >= self._refused_until.pop(command.stream, 0.0), "a stream that is backed off"
        assert self.now - self._came[command.stream, command.frame] < self._max_age_s, "a frame older than the limit"
        limit = self.scheduler.endpoints.each[command.endpoint].limiter.limit
        before = self._at_endpoint(command.endpoint)
        assert limit <= self._in_flight
        # Past the limit: while nothing was answered at all, and beside those of streams that are never answered.
        room = limit if self._answered[command.endpoint] else self._in_flight
        aside = min(self._in_flight // 2, self.scheduler._requests.trials)
        assert before < min(self._in_flight, room + aside) or before == 0
        self.flying[command.ticket] = command

    def _look(self) -> None:
        scheduler, now = self.scheduler, self.now
        assert all(command.deadline > now for command in self.flying.values())
        assert scheduler.in_flight == len(self.flying)
        assert scheduler.in_flight_bytes == sum(1 + int(command.stream[1:]) for command in self.flying.values())
        assert sum(request.retry for request in scheduler._requests._requests.values()) <= 1
        for which, endpoint in enumerate(scheduler.endpoints.each):
            assert endpoint.in_flight == self._at_endpoint(which) <= self._in_flight
        counts = scheduler.counts
        assert counts.offered == counts.sent + counts.not_sent + scheduler.waiting
        most_in_flight = len(scheduler.endpoints.each) * self._in_flight
        assert scheduler.streams <= max(self._max_streams, most_in_flight + 1)
        assert scheduler.waiting_bytes <= 20 or scheduler.waiting == 1
        at = scheduler.next_at()
        assert at is None or at > now, "due has done all there is to do"
        assert at is not None or not scheduler.streams
        ready = [*scheduler._queues.ready, *scheduler._queues.ready_on_trial]
        queued = sorted(place.stream for place in [*ready, *scheduler._queues.later, *scheduler._queues.retries])
        assert queued == sorted(set(scheduler._waiting.streams()) - self._streams_flying())
        assert all(0 <= share <= 1 for _, share in scheduler.coverage(now))

    def _streams_flying(self) -> set[str]:
        return {command.stream for command in self.flying.values() if not command.copy}

    def _at_endpoint(self, number: int) -> int:
        return sum(command.endpoint == number for command in self.flying.values())

    def _forget(self) -> None:
        for forgotten in self._newest_sent.keys() - self.scheduler._streams.keys():
            del self._newest_sent[forgotten]
        for forgotten in self._refused_until.keys() - self.scheduler._streams.keys():
            del self._refused_until[forgotten]


@settings(max_examples=1000)
@given(
    steps=STEPS,
    in_flight=st.integers(1, 6),
    max_streams=st.integers(2, 6),
    fps=st.sampled_from([0.5, 2.0, 50.0]),
    max_age=st.sampled_from([0.2, 1.0, 100.0]),
    endpoints=st.integers(1, 2),
)
def test_whatever_happens_the_rules_hold(
    steps: list[tuple[str, int, float]], in_flight: int, max_streams: int, fps: float, max_age: float, endpoints: int
) -> None:
    scheduler = make(
        in_flight=in_flight, max_streams=max_streams, max_fps=fps, timeout_s=1.5, max_age_s=max_age,
        max_waiting_bytes=20, endpoints=endpoints,
    )  # fmt: skip
    history = History(scheduler, in_flight, max_streams, max_age)
    for what, which, length in steps:
        match what:
            case "offer" | "old":
                history.offer(which, 0 if what == "offer" else 3)
            case "answer" | "fail" | "later" | "refuse" | "unsure" | "other" if history.flying:
                history.end(which, what, length)
            case "answer" if history.given_up:
                given_up = history.given_up[which % len(history.given_up)]
                assert scheduler.on_result(given_up, history.now) is ResultOutcome.LATE
            case "wait":
                history.now += length
            case "jump":
                history.now = max(history.now, scheduler.next_at() or 0.0)
            case "clear":
                scheduler.drop_waiting()
        history.obey()
    scheduler.drop_waiting()
    assert scheduler.counts.offered == scheduler.counts.sent + scheduler.counts.not_sent


class Service:
    """Answers what a scheduler sends; knows which of the streams that wait could be served by what it saw itself.

    One of which nothing was answered yet is on trial: one place is left to the others, and while trials take more than
    twice what the last answer took, half of the places. Those that are answered are always to be had.
    """

    def __init__(self, scheduler: Scheduler[str], answer_after: float) -> None:
        self._scheduler = scheduler
        self._answer_after = answer_after
        self._under_way: list[tuple[SendFrame[str], float]] = []
        self._proven: set[str] = set()
        self._last_took = 0.0

    def answer(self, now: float) -> None:
        for command, sent_at in list(self._under_way):
            if sent_at + self._answer_after <= now:
                self._under_way.remove((command, sent_at))
                assert self._scheduler.on_result(command.ticket, now) is ResultOutcome.COUNTS
                self._proven.add(command.stream)
                self._last_took = now - sent_at

    def take(self, command: SendFrame[str], now: float) -> None:
        self._under_way.append((command, now))

    def may_take(self, stream: str, now: float) -> bool:
        """Whether its frame, which waits, could be the next one."""
        if any(command.stream == stream for command, _ in self._under_way):
            return False
        trials = [sent_at for command, sent_at in self._under_way if command.stream not in self._proven]
        if stream in self._proven or not self._proven or not trials:
            return True
        limit = self._scheduler.endpoints.each[0].limiter.limit
        late = sum(sent_at < now - 2 * self._last_took for sent_at in trials)
        return len(trials) < limit - 1 and late < max(1, limit // 2)


@settings(max_examples=300)
@given(
    arrivals=st.lists(st.tuples(st.integers(0, 4), st.floats(0.0, 0.05)), min_size=20, max_size=200),
    answer_after=st.floats(0.0, 0.02),
    in_flight=st.integers(1, 4),
)
@example(
    arrivals=[(0, 0.0)] * 15 + [(2, 0.0), (1, 0.0), (3, 0.0), (2, 0.03125), (0, 0.03125)],
    answer_after=0.015625,
    in_flight=2,
)
def test_nobody_is_served_twice_while_another_waits_that_could_be_served(
    arrivals: list[tuple[int, float]], answer_after: float, in_flight: int
) -> None:
    scheduler = make(in_flight=in_flight, max_fps=1e6)
    service = Service(scheduler, answer_after)
    now = 0.0
    passed_over_by: dict[str, set[str]] = {}  # those that wait, and who was served since while they could have been
    for number, (which, gap) in enumerate(arrivals):
        now += gap
        service.answer(now)
        offer(scheduler, f"s{which}", number, now)
        for command in scheduler.due(now):
            assert isinstance(command, SendFrame)
            passed_over_by.pop(command.stream, None)
            for waits, by in passed_over_by.items():
                if service.may_take(waits, now):
                    assert command.stream not in by, f"{waits} waits"
                    by.add(command.stream)
            service.take(command, now)
        for place in [*scheduler._queues.ready, *scheduler._queues.ready_on_trial]:
            passed_over_by.setdefault(place.stream, set())


def test_a_stream_on_trial_that_leaves_its_turn_for_the_room_of_others_is_the_next_one_on_trial() -> None:
    scheduler = make(in_flight=2, max_fps=1e6)
    tickets = {}
    for now, answered, join, expected in (
        (0.0, "", "abcd", "ab"),
        (0.1, "ab", "", "ca"),  # one place of two is not for c and d: nothing of them was answered yet
        (0.2, "a", "", "b"),
        (0.3, "c", "", "d"),  # before a, which was served after d came
        (0.4, "b", "", "c"),  # served longest ago
        (0.5, "d", "e", "a"),  # served longer ago than e is there
        (0.6, "a", "", "b"),
        (0.7, "c", "", "d"),
        (0.8, "b", "", "c"),
        (0.9, "d", "", "e"),
    ):
        for stream in answered:
            assert scheduler.on_result(tickets[stream], now) is ResultOutcome.COUNTS
        for stream in answered + join:
            offer(scheduler, stream, round(now * 10) + 1, now)
        commands = scheduler.due(now)
        assert [command.stream for command in commands if isinstance(command, SendFrame)] == list(expected), now
        tickets |= {command.stream: command.ticket for command in commands if isinstance(command, SendFrame)}


def test_fifty_streams_share_a_service_of_25_frames_per_second_evenly() -> None:
    simulation = Simulation([VirtualService(1, lambda now: 0.04)], streams=50)
    simulation.run(200.0)
    shares = simulation.coverage()
    mean = sum(shares) / len(shares)
    assert len(shares) == 50
    assert 0.45 < mean < 0.55
    assert max(abs(share - mean) for share in shares) <= 0.1 * mean
    looks = simulation.answered_of.values()
    assert max(looks) - min(looks) <= 0.05 * max(looks)


def test_streams_of_other_rates_than_most_have_their_share_too() -> None:
    simulation = Simulation([VirtualService(1, lambda now: 0.04)], streams=50, camera_fps=30.0, max_fps=2.0)
    simulation.run(70.0)
    shares = simulation.coverage()
    mean = sum(shares) / len(shares)
    assert max(abs(share - mean) for share in shares) <= 0.1 * mean


def test_a_service_that_takes_five_seconds_is_told_truly_and_answers_within_the_deadline() -> None:
    simulation = Simulation([VirtualService(16, lambda now: 5.0)], streams=50, timeout_s=6.0)
    simulation.run(700.0)
    shares = simulation.coverage()
    seconds: dict[str, set[int]] = {}
    for at, stream, _ in simulation.answers:
        if 639 <= at < 699:
            seconds.setdefault(stream, set()).add(int(at))
    truly = sum(len(looked) for looked in seconds.values()) / 50 / 60
    assert abs(sum(shares) / len(shares) - truly) < 0.1 * truly
    assert 0.03 < truly < 16 / 5.0 / 50 + 0.01
    assert max(age for _, _, age in simulation.answers) < 1.0 + 6.0
    assert simulation.scheduler.waiting <= 50


def test_a_service_slower_than_its_deadline_is_not_asked_more_and_more() -> None:
    service = VirtualService(16, lambda now: 7.0)
    simulation = Simulation([service], streams=50, timeout_s=5.0)
    simulation.run(300.0)
    assert simulation.answers == []
    assert len([at for at in service.asked if at > 20]) < 280 / 5.0 + 2, "one probe at a time"
    assert simulation.coverage() == [0.0] * 50
