"""Bytes that are held: never more than allowed, and who holds little is not kept out by those who hold much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchout.gateway.budget import Budget, Share

EACH, TOTAL = 100, 400


def made() -> tuple[Budget, list[str]]:
    return Budget(EACH, TOTAL), []


def opened(budget: Budget, key: str, gone: list[str], *sizes: int) -> list[Share]:
    shares = []
    for number, size in enumerate(sizes):
        share = budget.open(key, lambda number=number: gone.append(f"{key}{number}"))
        assert share.grow(size)
        shares.append(share)
    return shares


def test_one_key_holds_so_much_or_one_share_of_any_size():
    budget, gone = made()
    opened(budget, "a", gone, 60, 40)
    assert not budget.open("a", list).grow(1)
    opened(budget, "b", gone, 250)
    assert not budget.open("b", list).grow(1)
    assert budget.held_bytes == 350
    assert gone == []


def test_a_share_that_grows_alone_may_go_on_and_beside_others_it_may_not():
    budget, gone = made()
    (first,) = opened(budget, "a", gone, 90)
    assert first.grow(50)
    (other,) = opened(budget, "b", gone, 50)
    second = budget.open("b", list)
    assert second.grow(50)
    assert not other.grow(1)
    second.release()
    assert other.grow(60)


def test_past_the_total_the_oldest_share_of_whoever_holds_the_most_gives_way():
    budget, gone = made()
    opened(budget, "a", gone, 50, 50)
    opened(budget, "b", gone, 20, 20, 20, 20)
    opened(budget, "c", gone, 90)
    opened(budget, "d", gone, 90)
    opened(budget, "e", gone, 45)
    assert gone == ["a0"]
    assert (budget.held_bytes, budget.gave_way) == (355, 1)


def test_who_would_hold_the_most_is_refused_and_nobody_gives_way_to_him():
    budget, gone = made()
    for key in "abcd":
        opened(budget, key, gone, 50, 50)
    assert not budget.open("e", list).grow(100)
    assert budget.open("e", list).grow(50)
    assert gone == ["a0"]
    assert not budget.open("b", list).grow(1)
    assert budget.held_bytes == TOTAL


def test_a_share_may_be_released_again_and_after_it_gave_way():
    budget, gone = made()
    (share,) = opened(budget, "a", gone, 300)
    opened(budget, "b", gone, 90)
    opened(budget, "c", gone, 90)
    assert gone == ["a0"]
    share.release()
    share.release()
    assert budget.held_bytes == 180


@given(st.lists(st.tuples(st.sampled_from("abcdefg"), st.integers(1, 120), st.booleans()), max_size=80))
def test_whatever_happens_the_bounds_hold(events):
    budget, alive = Budget(EACH, TOTAL), {}
    for number, (key, size, ends) in enumerate(events):
        if ends and alive:
            alive.pop(next(iter(alive))).release()
        share = budget.open(key, lambda number=number: alive.pop(number, None))
        if share.grow(size):
            alive[number] = share
        assert budget.held_bytes == sum(each.size for each in alive.values()) <= TOTAL
        for name in "abcdefg":
            sizes = [each.size for each in alive.values() if each.key == name]
            assert sum(sizes) <= EACH or len(sizes) == 1
    for share in list(alive.values()):
        share.release()
    assert budget.held_bytes == 0
