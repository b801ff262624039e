from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from watchout.common.toolbox.largest import OUTDATED_PER_KEY, OUTDATED_SPARE, Largest


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(-5, 9)), max_size=300))
def test_the_largest_is_the_largest_whatever_came_before(changes: list[tuple[str, int]]) -> None:
    largest: Largest[str] = Largest()
    model: Counter[str] = Counter()
    for key, wish in changes:
        change = max(wish, -model[key])
        largest.add(key, change)
        model[key] += change
        model += Counter()
        found = largest.largest()
        assert largest.total == model.total()
        assert len(largest) == len(model)
        assert largest.size(key) == model[key]
        assert model[found] == max(model.values()) if found is not None else not model


def test_what_is_outdated_is_not_kept() -> None:
    largest: Largest[int] = Largest()
    for _ in range(1000):
        for key in range(10):
            largest.add(key, 1)
    assert len(largest._heap) <= 10 * OUTDATED_PER_KEY + OUTDATED_SPARE
