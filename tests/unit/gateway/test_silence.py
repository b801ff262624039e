"""When the sockets that are pinged in a silence are looked at."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchout.gateway.silence import LOOK_EVERY_S, SilenceTable

TIMES = st.floats(0, 100)
STEPS = st.lists(
    st.tuples(st.just("enter"), st.integers(0, 4), TIMES)
    | st.tuples(st.just("remove"), st.integers(0, 4), TIMES)
    | st.tuples(st.just("look"), st.just(0), st.floats(0, 3) | TIMES),
    max_size=40,
)


@given(STEPS)
def test_each_is_found_once_never_early_and_at_most_one_look_late(steps: list[tuple[str, int, float]]) -> None:
    table: SilenceTable[int] = SilenceTable()
    due: dict[int, float] = {}
    now = 0.0
    for what, member, value in steps:
        if what == "enter":
            table.enter(member, now + value)
            due[member] = now + value
        elif what == "remove":
            table.remove(member)
            due.pop(member, None)
        else:
            now += value
            found = table.take_due(now)
            assert len(found) == len(set(found))
            for each in found:
                assert due.pop(each) <= now, "never early"
            assert all(at > now - LOOK_EVERY_S for at in due.values()), "at most one look late"
        assert len(table) == len(due)


def test_who_is_due_already_is_found_at_the_next_look() -> None:
    table: SilenceTable[str] = SilenceTable()
    assert table.take_due(1000.0) == []
    table.enter("late", 3.0)
    assert table.take_due(1000.0 + LOOK_EVERY_S) == ["late"]
    assert len(table) == 0


def test_a_member_is_looked_at_once_however_often_it_was_entered() -> None:
    table: SilenceTable[str] = SilenceTable()
    for at in (5.0, 1.0, 9.0):
        table.enter("a", at)
    assert table.take_due(8.9) == []
    assert table.take_due(9.0) == ["a"]
    assert table.take_due(1e6) == []


def test_between_two_looks_nobody_is_found_early() -> None:
    table: SilenceTable[str] = SilenceTable()
    table.enter("a", 10 + LOOK_EVERY_S * 0.9)
    assert table.take_due(10 + LOOK_EVERY_S * 0.1) == []
    assert table.take_due(10 + LOOK_EVERY_S * 0.8) == []
    assert table.take_due(10 + LOOK_EVERY_S) == ["a"]
