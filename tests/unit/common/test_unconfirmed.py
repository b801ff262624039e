"""What a router accepted is kept for a while, for the next router."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchout.common.alerts.model import Alert
from watchout.common.alerts.unconfirmed import Raised, UnconfirmedAlerts


def raised(number: int, size_bytes: int = 10) -> Raised:
    return Raised(Alert(id=f"a{number}", stream_id="s", severity="low", message="m", timestamp=1), size_bytes)


def test_what_another_router_accepted_is_taken_out_once_and_in_order() -> None:
    kept = UnconfirmedAlerts()
    first, second, third = (raised(number) for number in range(3))
    kept.add(first, 1, 0.0)
    kept.add(second, 1, 1.0)
    kept.add(third, 2, 2.0)
    assert kept.take_other(2) == [first, second]
    assert kept.take_other(2) == []
    assert (len(kept), kept.bytes) == (1, 10)
    assert kept.take_other(3) == [third]
    assert (len(kept), kept.bytes) == (0, 0)


def test_while_the_router_lives_the_old_ones_are_let_go() -> None:
    kept = UnconfirmedAlerts(keep_s=10)
    kept.add(raised(1), 1, 0.0)
    kept.add(raised(2), 1, 5.0)
    kept.prune(10.0)
    assert len(kept) == 2
    kept.add(raised(3), 1, 10.1)
    assert [each.alert.id for each in kept.take_other(2)] == ["a2", "a3"]


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 5)), max_size=60))
def test_what_is_kept_is_bounded_and_the_newest_of_all(alerts: list[tuple[int, float]]) -> None:
    kept = UnconfirmedAlerts(keep_s=10, max_alerts=5, max_bytes=100)
    now = 0.0
    for number, (size, pause) in enumerate(alerts):
        now += pause
        kept.add(raised(number, size), 1, now)
        assert len(kept) <= 5
        assert kept.bytes <= 100
    numbers = [int(each.alert.id[1:]) for each in kept.take_other(0)]
    assert numbers == list(range(len(alerts) - len(numbers), len(alerts)))
    assert bool(numbers) is bool(alerts)


def test_each_slot_has_its_own_epochs() -> None:
    kept = UnconfirmedAlerts()
    first, second, third = raised(1), raised(2), raised(3)
    kept.add(first, 5, 0.0, slot=0)
    kept.add(second, 7, 0.0, slot=1)
    kept.add(third, 5, 0.0, slot=0)
    assert kept.take_other(7, slot=0) == [first, third]
    assert kept.take_other(7, slot=1) == []
    assert kept.take_other(8, slot=1) == [second]
    assert len(kept) == 0
