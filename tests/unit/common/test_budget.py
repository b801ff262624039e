"""A budget holds whatever is held by whom, and the largest gives way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchout.common.toolbox.budget import Budget

STEPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 60)), max_size=80)


@given(STEPS, st.integers(1, 150), st.none() | st.integers(1, 80))
def test_the_bounds_hold_and_whoever_gives_way_was_the_largest(
    steps: list[tuple[int, int, int]], total: int, of_group: int | None
) -> None:
    budget: Budget[int] = Budget(total, of_group)
    held: dict[int, tuple[int, int]] = {}
    for holder, group, size in steps:
        held.pop(holder, None)
        if size:
            held[holder] = group, size
        for each in budget.hold(holder, group, size):
            of, largest = held.pop(each)
            others = [bytes_ for other, bytes_ in held.values() if other == of]
            everybody = [bytes_ for _, bytes_ in held.values()]
            in_group_over = of_group is not None and of == group and sum(others) + largest > of_group
            assert largest >= max(others if in_group_over else everybody, default=0)
        assert budget.total_bytes == sum(bytes_ for _, bytes_ in held.values()) <= total
        for group_ in range(4):
            mine = sum(bytes_ for of, bytes_ in held.values() if of == group_)
            assert budget.of(group_) == mine
            assert of_group is None or mine <= of_group
        assert len(budget) == len(held)


def test_whoever_is_small_stays_while_a_large_one_grows() -> None:
    budget: Budget[str] = Budget(100)
    assert budget.hold("small", "a", 10) == []
    assert budget.hold("large", "b", 80) == []
    assert budget.hold("small", "a", 15) == []
    assert budget.hold("small", "a", 21) == ["large"]
    assert budget.total_bytes == 21


def test_of_a_group_over_its_bound_nobody_else_gives_way() -> None:
    budget: Budget[str] = Budget(1000, 50)
    assert budget.hold("other", "b", 49) == []
    assert budget.hold("one", "a", 40) == []
    assert budget.hold("two", "a", 20) == ["one"]


def test_what_alone_is_over_the_bound_gives_way_itself() -> None:
    budget: Budget[str] = Budget(10)
    assert budget.hold("a", "a", 11) == ["a"]
    assert budget.total_bytes == len(budget) == 0
