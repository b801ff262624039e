"""Byte budgets: the bounds hold, the largest holders are evicted, and small ones are not kept out by large ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchout.common.toolbox.budget import ByteBudget, Share

EACH, TOTAL = 100, 400
STEPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 60)), max_size=80)


@given(STEPS, st.integers(1, 150), st.none() | st.integers(1, 80))
def test_the_bounds_hold_and_only_the_largest_holder_is_evicted(
    steps: list[tuple[int, int, int]], total: int, per_group: int | None
) -> None:
    budget: ByteBudget[int] = ByteBudget(total, per_group)
    held: dict[int, tuple[int, int]] = {}
    for holder, group, size in steps:
        held.pop(holder, None)
        if size:
            held[holder] = group, size
        for each in budget.hold(holder, group, size):
            of, largest = held.pop(each)
            others = [bytes_ for other, bytes_ in held.values() if other == of]
            everybody = [bytes_ for _, bytes_ in held.values()]
            in_group_over = per_group is not None and of == group and sum(others) + largest > per_group
            assert largest >= max(others if in_group_over else everybody, default=0)
        assert budget.total_bytes == sum(bytes_ for _, bytes_ in held.values()) <= total
        for group_ in range(4):
            mine = sum(bytes_ for of, bytes_ in held.values() if of == group_)
            assert budget.size_of_group(group_) == mine
            assert per_group is None or mine <= per_group
        assert len(budget) == len(held)


def test_a_small_holder_stays_while_a_large_one_grows() -> None:
    budget: ByteBudget[str] = ByteBudget(100)
    assert budget.hold("small", "a", 10) == []
    assert budget.hold("large", "b", 80) == []
    assert budget.hold("small", "a", 15) == []
    assert budget.hold("small", "a", 21) == ["large"]
    assert budget.total_bytes == 21


def test_a_group_over_its_bound_evicts_no_other_group() -> None:
    budget: ByteBudget[str] = ByteBudget(1000, 50)
    assert budget.hold("other", "b", 49) == []
    assert budget.hold("one", "a", 40) == []
    assert budget.hold("two", "a", 20) == ["one"]


def test_a_holder_that_alone_exceeds_the_total_is_evicted() -> None:
    budget: ByteBudget[str] = ByteBudget(10)
    assert budget.hold("a", "a", 11) == ["a"]
    assert budget.total_bytes == len(budget) == 0


# ── shares ───────────────────────────────────────────────────────────────────────────────────────────────────────


def made() -> tuple[ByteBudget[Share], list[str]]:
    return ByteBudget(TOTAL, EACH), []


def opened(budget: ByteBudget[Share], key: str, gone: list[str], *sizes: int) -> list[Share]:
    shares = []
    for number, size in enumerate(sizes):
        share = Share(budget, key, lambda number=number: gone.append(f"{key}{number}"))
        assert share.grow(size)
        shares.append(share)
    return shares


def test_a_group_has_a_bound_but_one_share_may_have_any_size():
    budget, gone = made()
    opened(budget, "a", gone, 60, 40)
    assert not Share(budget, "a", list).grow(1)
    opened(budget, "b", gone, 250)
    assert not Share(budget, "b", list).grow(1)
    assert budget.total_bytes == 350
    assert gone == []


def test_a_share_that_is_alone_in_its_group_may_exceed_the_bound():
    budget, gone = made()
    (first,) = opened(budget, "a", gone, 90)
    assert first.grow(50)
    (other,) = opened(budget, "b", gone, 50)
    second = Share(budget, "b", list)
    assert second.grow(50)
    assert not other.grow(1)
    second.release()
    assert other.grow(60)


def test_past_the_total_the_oldest_share_of_the_largest_group_is_evicted():
    budget, gone = made()
    opened(budget, "a", gone, 50, 50)
    opened(budget, "b", gone, 20, 20, 20, 20)
    opened(budget, "c", gone, 90)
    opened(budget, "d", gone, 90)
    opened(budget, "e", gone, 45)
    assert gone == ["a0"]
    assert (budget.total_bytes, budget.evicted) == (355, 1)


def test_a_group_that_would_be_the_largest_is_refused():
    budget, gone = made()
    for key in "abcd":
        opened(budget, key, gone, 50, 50)
    assert not Share(budget, "e", list).grow(100)
    assert Share(budget, "e", list).grow(50)
    assert gone == ["a0"]
    assert not Share(budget, "b", list).grow(1)
    assert budget.total_bytes == TOTAL


def test_a_share_may_be_released_again_and_after_its_eviction():
    budget, gone = made()
    (share,) = opened(budget, "a", gone, 300)
    opened(budget, "b", gone, 90)
    opened(budget, "c", gone, 90)
    assert gone == ["a0"]
    share.release()
    share.release()
    assert budget.total_bytes == 180


@given(st.lists(st.tuples(st.sampled_from("abcdefg"), st.integers(1, 120), st.booleans()), max_size=80))
def test_the_bounds_of_shares_hold_in_any_order_of_events(events):
    budget: ByteBudget[Share] = ByteBudget(TOTAL, EACH)
    alive: dict[int, Share] = {}
    keys: dict[Share, str] = {}
    for number, (key, size, ends) in enumerate(events):
        if ends and alive:
            alive.pop(next(iter(alive))).release()
        share = Share(budget, key, lambda number=number: alive.pop(number, None))
        keys[share] = key
        if share.grow(size):
            alive[number] = share
        assert budget.total_bytes == sum(each.size for each in alive.values()) <= TOTAL
        for name in "abcdefg":
            sizes = [each.size for each in alive.values() if keys[each] == name]
            assert sum(sizes) <= EACH or len(sizes) == 1
    for share in list(alive.values()):
        share.release()
    assert budget.total_bytes == 0


def test_a_holder_that_grew_by_nothing_leaves_nothing_behind() -> None:
    budget: ByteBudget[str] = ByteBudget(100)
    assert budget.grow("idle", "a", 0) == (True, [])
    budget.release("idle")
    assert budget.grow("large", "a", 90) == (True, [])
    assert budget.grow("other", "b", 50) == (True, ["large"])
