"""How far a peer is behind, by its unanswered PINGs: on a model of a link with a round trip, a rate, and stops."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.bus.zeromq.echoes import (
    GONE_S,
    MAX_BEHIND_S,
    MAX_UNANSWERED_BYTES,
    MIN_UNANSWERED_BYTES,
    PING_EVERY_BYTES,
    PING_EVERY_S,
    Echoes,
)

FRAME = 44_000


class Link:
    """A sender with a frame every `every_s`, and a peer that answers after `round_trip_s` unless it is stopped."""

    def __init__(self, round_trip_s: float, every_s: float, size: int = FRAME) -> None:
        self.echoes = Echoes()
        self.round_trip_s, self.every_s, self.size = round_trip_s, every_s, size
        self.now = 100.0
        self.under_way: deque[tuple[float, int]] = deque()
        self.sent = self.held = self.pings = 0

    def run(self, seconds: float, *, stopped: bool = False) -> None:
        until = self.now + seconds
        while self.now < until:
            while not stopped and self.under_way and self.under_way[0][0] <= self.now:
                at, number = self.under_way.popleft()
                self.echoes.answered(number, at)
            self.echoes.look(self.now)
            if self.echoes.behind:
                self.held += 1
            else:
                self.sent += 1
                number = self.echoes.written(self.size, self.now)
                if number is not None:
                    self.pings += 1
                    self.under_way.append((self.now + self.round_trip_s, number))
            self.now += self.every_s


@pytest.mark.parametrize(
    ("round_trip_s", "every_s"),
    [
        (round_trip_s, every_s)
        for round_trip_s in (0.0002, 0.005, 0.1, 0.3)
        for every_s in (0.1, 0.01, 0.001)
        if FRAME / every_s * round_trip_s <= MAX_UNANSWERED_BYTES / 2
    ],
)
def test_a_peer_that_answers_gets_every_frame_for_few_pings(round_trip_s: float, every_s: float) -> None:
    link = Link(round_trip_s, every_s)
    link.run(5)
    assert link.held == 0
    assert link.pings <= 5 / PING_EVERY_S + link.sent * FRAME / PING_EVERY_BYTES + 1


@pytest.mark.parametrize("every_s", [0.1, 0.01, 0.001, 0.0001])
def test_a_peer_that_stops_gets_little_more(every_s: float) -> None:
    link = Link(0.001, every_s)
    link.run(2)
    before = link.sent
    link.run(4, stopped=True)
    more = link.sent - before
    assert more * every_s <= PING_EVERY_S + MAX_BEHIND_S + 0.01 + 2 * every_s
    assert more * FRAME <= MIN_UNANSWERED_BYTES + 2 * FRAME
    assert link.held > 0.9 * 3 / every_s
    before = link.sent
    link.run(1)
    assert link.sent - before >= 0.9 / every_s, "it gets frames again as soon as it answers"


def test_a_peer_that_leaves_a_ping_unanswered_is_gone() -> None:
    echoes = Echoes()
    assert not echoes.is_gone(1e9)
    assert echoes.written(FRAME, 10.0) == 1
    assert not echoes.is_gone(10.0 + GONE_S - 0.01)
    assert echoes.is_gone(10.0 + GONE_S)
    echoes.answered(1, 16.0)
    assert not echoes.is_gone(1e9)


def test_a_link_with_a_longer_way_may_have_more_under_way_and_another_route_is_noticed() -> None:
    near, far = Link(0.0005, 0.01), Link(0.15, 0.01)
    near.run(2)
    far.run(2)
    assert near.echoes.max_unanswered_bytes == MIN_UNANSWERED_BYTES
    assert far.echoes.max_unanswered_bytes > 5 << 20
    assert far.echoes.max_behind_s == pytest.approx(MAX_BEHIND_S + 0.225)
    near.round_trip_s = 0.08
    near.run(20)
    assert near.echoes.round_trip_s == pytest.approx(0.08, rel=0.05)


@given(st.lists(st.tuples(st.integers(0, 20 << 20), st.floats(0, 1), st.integers(-1, 6))))
def test_whatever_is_answered_frames_never_wait_for_nothing(
    steps: list[tuple[int, float, int]],
) -> None:
    echoes = Echoes()
    now, last, answered = 0.0, 0, 0
    for size, later, back in steps:
        now += later
        echoes.look(now)
        if not echoes.behind:
            last = echoes.written(size, now) or last
        if back >= 0:
            answered = max(answered, last - back)
            echoes.answered(last - back, now)
        if echoes.behind:
            assert answered < last, "an answer is still to come"
    echoes.answered(last, now)
    assert not echoes.behind
    assert echoes.look(now) is None
