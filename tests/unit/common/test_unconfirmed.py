"""What a router accepted is kept for a while, for the next router."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchout.common.alerts.model import Alert
from watchout.common.alerts.unconfirmed import MISSING_KEEP_S, Raised, UnconfirmedAlerts


def raised(number: int, size_bytes: int = 10) -> Raised:
    return Raised(Alert(id=f"a{number}", stream_id="s", severity="low", message="m", timestamp=1), size_bytes)


def ids(alerts: list[Raised]) -> list[str]:
    return [each.alert.id for each in alerts]


def test_what_another_router_accepted_is_taken_out_once_and_in_order() -> None:
    kept = UnconfirmedAlerts()
    first, second, third = (raised(number) for number in range(3))
    kept.add(first, 1, 0.0)
    kept.add(second, 1, 1.0)
    kept.add(third, 2, 2.0)
    assert kept.joined(0, 2, 2.0) == [first, second]
    assert kept.joined(0, 2, 2.0) == []
    assert (len(kept), kept.bytes) == (1, 10)
    assert kept.joined(0, 3, 2.0) == [third]
    assert (len(kept), kept.bytes) == (0, 0)


def test_while_the_router_lives_the_old_ones_are_let_go() -> None:
    kept = UnconfirmedAlerts(keep_s=10)
    kept.add(raised(1), 1, 0.0)
    kept.add(raised(2), 1, 5.0)
    kept.missing(1, 10.0)
    assert len(kept) == 2
    kept.add(raised(3), 1, 10.1)
    assert ids(kept.joined(0, 2, 10.1)) == ["a2", "a3"]


def test_while_a_slot_is_missing_its_alerts_stay_and_those_of_others_go() -> None:
    kept = UnconfirmedAlerts(keep_s=10)
    kept.add(raised(1), 1, 0.0)
    kept.add(raised(2), 1, 5.0)
    kept.add(raised(3), 1, 5.0, slot=1)
    kept.missing(0, 11.0)
    kept.missing(0, 12.0)
    kept.add(raised(4), 7, 300.0, slot=1)
    assert len(kept) == 2, "of slot 1 the new one is left"
    assert ids(kept.joined(0, 2, 311.0)) == ["a2"], "the first was delivered before the slot was lost"
    assert kept.take_given_up(0) == 0


def test_the_age_goes_on_when_the_same_router_is_back() -> None:
    kept = UnconfirmedAlerts(keep_s=10)
    kept.add(raised(1), 1, 0.0)
    kept.missing(0, 6.0)
    assert kept.joined(0, 1, 100.0) == []
    kept.add(raised(2), 1, 103.9)
    assert len(kept) == 2
    kept.add(raised(3), 1, 104.1)
    assert len(kept) == 2
    kept.missing(0, 105.0)
    assert ids(kept.joined(0, 2, 200.0)) == ["a2", "a3"]


def test_those_of_a_slot_that_is_missing_for_too_long_are_given_up_and_counted() -> None:
    kept = UnconfirmedAlerts(keep_s=10)
    for number in range(3):
        kept.add(raised(number), 1, 0.0)
    kept.missing(0, 1.0)
    assert kept.joined(0, 2, 1.1 + MISSING_KEEP_S) == []
    assert (len(kept), kept.take_given_up(0), kept.take_given_up(0)) == (0, 3, 0)


def test_what_is_dropped_for_room_is_counted_where_its_slot_is_missing() -> None:
    kept = UnconfirmedAlerts(max_alerts=2)
    kept.add(raised(1), 1, 0.0)
    kept.add(raised(2), 1, 0.0, slot=1)
    kept.missing(0, 0.0)
    kept.add(raised(3), 1, 0.0, slot=1)
    kept.add(raised(4), 1, 0.0, slot=1)
    assert (kept.take_given_up(0), kept.take_given_up(1), kept.take_given_up(2)) == (1, 0, 0)
    assert kept.joined(0, 2, 0.0) == []


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 5), st.integers(0, 2), st.booleans()), max_size=60))
def test_what_is_kept_is_bounded_and_the_newest_of_all(alerts: list[tuple[int, float, int, bool]]) -> None:
    kept = UnconfirmedAlerts(keep_s=10, max_alerts=5, max_bytes=100)
    now = 0.0
    for number, (size, pause, slot, is_missing) in enumerate(alerts):
        now += pause
        kept.add(raised(number, size), 1, now, slot)
        if is_missing:
            kept.missing(slot, now)
        assert len(kept) <= 5
        assert kept.bytes <= 100
    by_slot = [[int(each[1:]) for each in ids(kept.joined(slot, 0, now))] for slot in range(3)]
    assert all(numbers == sorted(numbers) for numbers in by_slot)
    assert any(by_slot) is bool(alerts)
    assert (len(kept), kept.bytes) == (0, 0)


def test_each_slot_has_its_own_epochs() -> None:
    kept = UnconfirmedAlerts()
    first, second, third = raised(1), raised(2), raised(3)
    kept.add(first, 5, 0.0, slot=0)
    kept.add(second, 7, 0.0, slot=1)
    kept.add(third, 5, 0.0, slot=0)
    assert kept.joined(0, 7, 0.0) == [first, third]
    assert kept.joined(1, 7, 0.0) == []
    assert kept.joined(1, 8, 0.0) == [second]
    assert len(kept) == 0
