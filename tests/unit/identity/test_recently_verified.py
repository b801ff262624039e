"""Accepted callers, remembered for a moment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchout.identity import Identity
from watchout.identity.recently_verified import RecentlyVerified

ANN = Identity("ann", "s1")


def test_who_was_accepted_is_remembered_for_a_moment() -> None:
    memory = RecentlyVerified(2.0, 10)
    memory.put("a", ANN, 5.0)
    assert memory.get("a", 6.9) is ANN
    assert memory.get("a", 7.0) is None
    assert len(memory) == 0
    assert memory.get("b", 5.0) is None


def test_without_a_lifetime_nothing_is_remembered() -> None:
    memory = RecentlyVerified(0.0, 10)
    memory.put("a", ANN, 5.0)
    assert memory.get("a", 5.0) is None


def test_what_a_look_up_finds_otherwise_is_forgotten_under_every_key() -> None:
    memory = RecentlyVerified(2.0, 10)
    memory.put("a", ANN, 0.0)
    memory.put("b", ANN, 0.0)
    memory.put("c", Identity("bob", "s2"), 0.0)
    memory.put("d", Identity("eve"), 0.0)
    memory.put("e", Identity("dan", "s3"), 0.0)
    memory.put("f", Identity("fay", "s4"), 0.0)
    live = {"s3": Identity("dan", "s3", roles=frozenset({"admin"})), "s4": Identity("fay", "s4", 99.0)}
    memory.drop_changed(frozenset({"s1", "s3", "s4", "s9"}), live)
    assert [memory.get(key, 1.0) is not None for key in "abcdef"] == [False, False, True, True, False, True]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 3)), max_size=60), st.integers(1, 4))
def test_it_never_holds_more_than_it_may_nor_longer(puts: list[tuple[str, float]], size: int) -> None:
    memory, now = RecentlyVerified(2.0, size), 0.0
    at: dict[str, float] = {}
    for key, gap in puts:
        now += gap
        memory.put(key, ANN, now)
        at[key] = now
        assert len(memory) <= size
        for known, since in at.items():
            assert memory.get(known, now) is None or now < since + 2.0
        assert memory.get(key, now) is ANN
