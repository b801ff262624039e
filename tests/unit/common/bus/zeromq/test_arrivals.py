"""Who may connect to a port of the bus before he has proved who he is: on a model that keeps every arrival."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchout.common.bus.zeromq.arrivals import Arrivals

WITHIN_S = 5.0
ADDRESSES = ("a", "b", "c")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("comes"), st.sampled_from(ADDRESSES)),
        st.tuples(st.just("proved"), st.sampled_from(ADDRESSES)),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 2.0, WITHIN_S])),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 6), st.integers(1, 6))
def test_no_more_wait_than_are_said_of_all_and_of_one_and_each_is_let_go(steps, most, most_of_one) -> None:
    arrivals, now, waiting = Arrivals(most, most_of_one, WITHIN_S), 0.0, []
    for what, value in steps:
        if what == "wait":
            now += value
        elif what == "proved":
            arrivals.proved(value)
            oldest = next((entry for entry in waiting if entry[1] == value), None)
            if oldest is not None:
                waiting.remove(oldest)
        else:
            waiting = [entry for entry in waiting if entry[0] > now - WITHIN_S]
            room = len(waiting) < most and sum(address == value for _, address in waiting) < most_of_one
            assert arrivals.comes(value, now) is room
            if room:
                waiting.append((now, value))


def test_one_address_leaves_room_for_another() -> None:
    arrivals = Arrivals(4, 2, WITHIN_S)
    assert [arrivals.comes("a", 0.0) for _ in range(5)] == [True, True, False, False, False]
    assert arrivals.comes("b", 0.0)


def test_who_has_proved_who_he_is_makes_room() -> None:
    arrivals = Arrivals(4, 1, WITHIN_S)
    assert arrivals.comes("a", 0.0)
    assert not arrivals.comes("a", 0.0)
    arrivals.proved("b")
    assert not arrivals.comes("a", 0.0)
    arrivals.proved("a")
    assert arrivals.comes("a", 0.0)
