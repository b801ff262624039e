"""Clients take turns: bounded time in each turn of the loop, users one after another, and nobody is forgotten."""

from __future__ import annotations

from collections.abc import Callable

from watchout.gateway.client.turns import TURN_S, Turns


class Loop:
    """A loop whose clock moves only as work says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[Callable[[], None]] = []
        self.turns = Turns(self.due.append, lambda: self.now)

    def turn(self) -> None:
        due, self.due[:] = list(self.due), []
        for each in due:
            each()


def test_a_turn_that_takes_too_long_is_over_until_the_next() -> None:
    loop = Loop()
    assert not loop.turns.is_over
    loop.now += TURN_S * 2
    assert loop.turns.is_over
    loop.turn()
    assert not loop.turns.is_over


def test_users_go_on_one_after_another_whoever_has_many() -> None:
    loop, done = Loop(), []

    def work(name: str) -> Callable[[], None]:
        def go_on() -> None:
            done.append(name)
            loop.now += TURN_S * 2  # each takes the whole turn

        return go_on

    for number in range(5):
        loop.turns.enqueue("mallory", work(f"mallory {number}"))
    loop.turns.enqueue("ann", work("ann"))
    for _ in range(2):
        loop.turn()
    assert done == ["mallory 0", "ann"]
    for _ in range(10):
        loop.turn()
    assert done == ["mallory 0", "ann", *(f"mallory {number}" for number in range(1, 5))]
    assert not loop.due or loop.turn() is None


def test_who_asks_again_waits_for_the_next_turn() -> None:
    loop, times = Loop(), []

    def go_on() -> None:
        times.append(len(times))
        if len(times) < 3:
            loop.turns.enqueue("ann", go_on)

    loop.turns.enqueue("ann", go_on)
    for count in (1, 2, 3, 3):
        loop.turn()
        assert len(times) == count
    loop.turn()
    assert loop.due == []
