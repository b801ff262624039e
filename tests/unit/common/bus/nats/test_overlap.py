"""What two connections bring is handled once and in each sender's order, whatever their pace, and without a loss."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.bus.nats import overlap as overlap_module
from watchout.common.bus.nats.overlap import Overlap

#: Sender and number.
Message = tuple[int, int]


def made() -> Overlap[Message]:
    return Overlap(lambda message: message, lambda message: 1)


@given(st.data())
def test_each_message_is_handled_once_and_in_the_order_of_its_sender(data: st.DataObject) -> None:
    """A sender's messages come over each connection in order; the new one misses the first, the old one the last."""
    old: list[Message] = []
    new: list[Message] = []
    sent: list[Message] = []
    for sender in range(data.draw(st.integers(1, 3))):
        count = data.draw(st.integers(0, 8))
        since = data.draw(st.integers(0, count))
        until = data.draw(st.integers(since, count))
        sent += [(sender, number) for number in range(count)]
        old += [(sender, number) for number in range(until)]
        new += [(sender, number) for number in range(since, count)]
    overlap, handled = made(), []
    # How many of the new connection's messages come before the change, and how the old one's are mixed with them.
    early = data.draw(st.integers(0, len(new)))
    turns = data.draw(st.permutations([True] * len(old) + [False] * early))
    came = {True: iter(old), False: iter(new)}
    for is_old in turns:
        message = next(came[is_old])
        handled += overlap.from_old(message) if is_old else overlap.from_new(message)
    handled += overlap.change()
    for message in came[False]:
        handled += overlap.from_new(message)
    assert sorted(handled) == sorted(sent)
    for sender in range(3):
        own = [number for one, number in handled if one == sender]
        assert own == sorted(own)


def test_what_the_old_connection_brings_after_the_change_is_not_handled_again() -> None:
    overlap = made()
    assert overlap.from_new((0, 1)) == []
    assert overlap.change() == [(0, 1)]
    assert overlap.from_new((0, 2)) == [(0, 2)]
    assert overlap.from_old((0, 1)) == overlap.from_old((0, 2)) == []
    assert overlap.from_new((0, 2)) == [(0, 2)], "it is another one"


def test_equal_messages_are_counted() -> None:
    overlap = made()
    assert overlap.from_old((0, 1)) == [(0, 1)]
    for _ in range(3):
        assert overlap.from_new((0, 1)) == []
    assert overlap.change() == [(0, 1), (0, 1)]


@pytest.mark.parametrize("bound", ["MAX_HELD", "MAX_HELD_BYTES"])
def test_what_is_held_is_bounded_and_the_old_connection_goes_on(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap_module, bound, 10)
    overlap = made()
    for number in range(20):
        overlap.from_new((0, number))
    assert overlap.is_full
    assert not overlap._held
    for number in range(20):
        assert overlap.from_old((1, number)) == [(1, number)]
    assert not overlap._brought
