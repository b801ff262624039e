from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common import reservations
from watchout.common.reservations import Reservation, Reservations

KEEP_S, PER_USER, TOTAL = 100.0, 3, 6


def reservation(user: str, ended_at: float = 0.0) -> Reservation:
    return Reservation(user, (), 1, 1, ended_at)


def made(**changes: Any) -> Reservations:
    return Reservations(**{"keep_s": KEEP_S, "per_user": PER_USER, "total": TOTAL} | changes)


def test_of_one_user_the_oldest_gives_way() -> None:
    kept = made()
    for number in range(PER_USER):
        assert kept.put(f"s{number}", reservation("ann")) == []
    assert kept.put("new", reservation("ann")) == ["s0"]
    assert kept.of_user("ann") == ["s1", "s2", "new"]
    assert kept.evicted == 1


def test_what_comes_again_is_the_newest_of_its_user() -> None:
    kept = made()
    for name in ("a", "b", "c", "a"):
        kept.put(name, reservation("ann"))
    assert kept.put("d", reservation("ann")) == ["b"]


def test_of_all_whoever_has_the_most_gives_way_and_nobody_with_fewer() -> None:
    kept = made(per_user=1000, total=10)
    kept.put("door", reservation("ann"))
    kept.put("yard", reservation("bob"))
    for number in range(1000):
        kept.put(f"squat{number}", reservation("mallory"))
    assert len(kept) == 10
    assert kept.get("door") is not None
    assert kept.get("yard") is not None
    assert kept.of_user("mallory") == [f"squat{number}" for number in range(992, 1000)]


def test_what_is_too_old_is_forgotten_and_nothing_is_left_of_it() -> None:
    kept = made()
    kept.put("a", reservation("ann", 0))
    kept.put("b", reservation("bob", 50))
    assert kept.prune(KEEP_S) == []
    assert kept.prune(KEEP_S + 1) == ["a"]
    assert kept.take("b") == reservation("bob", 50)
    assert (len(kept), kept.users, len(kept._counts)) == (0, 0, 0)


@given(
    st.lists(st.tuples(st.sampled_from(["put", "put", "put", "take"]), st.sampled_from("abcdefghij"),
                       st.sampled_from(["ann", "bob", "cy"]))),
)  # fmt: skip
def test_the_bounds_hold_and_the_indexes_agree(steps: list[tuple[str, str, str]]) -> None:
    kept = made()
    for what, name, user in steps:
        if what == "take":
            kept.take(name)
            continue
        before = Counter(r.user for _, r in kept.items())
        gone = kept.put(name, reservation(user))
        assert kept.get(name) is not None
        assert len(gone) <= 1
        if gone and before[user] < PER_USER:  # by the bound of all
            assert max(before.values()) >= PER_USER - 1
        counts = Counter(r.user for _, r in kept.items())
        assert all(count <= PER_USER for count in counts.values())
        assert len(kept) <= TOTAL
        assert {user: kept.of_user(user) for user in counts} == {
            user: [n for n, r in kept.items() if r.user == user] for user in counts
        }


def test_of_many_that_are_too_old_one_call_forgets_so_many_and_the_next_ones_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reservations, "MAX_PRUNED", 2)
    kept = made()
    for name in ("a", "b", "c"):
        kept.put(name, reservation(name))
    assert [kept.prune(KEEP_S + 1) for _ in range(3)] == [["a", "b"], ["c"], []]
