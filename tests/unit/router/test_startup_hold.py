"""Requests after a restart of the router: held until the gateways have reported, in order, and not without a bound."""

from __future__ import annotations

import itertools

import pytest

from watchout.common.alerts.model import Alert
from watchout.common.bus.messages import EndShare, OwnerLookup, Query, RaiseAlert
from watchout.router.startup_hold import MAX_HELD, HeldRequest, Reporters, StartupHold, expected_of


def released(hold: StartupHold) -> list[tuple[bytes, HeldRequest]]:
    """Release what is held and take all of it."""
    hold.release()
    return list(iter(hold.take, None))


def test_the_first_router_of_a_home_holds_nothing() -> None:
    hold = StartupHold(syncing=False)
    assert not hold.syncing
    assert released(hold) == []
    with pytest.raises(RuntimeError):
        hold.hold(b"a", OwnerLookup(request=1, stream="cam"))


def test_held_requests_are_released_once_in_their_order() -> None:
    hold = StartupHold(syncing=True)
    requests = [(bytes([number]), OwnerLookup(request=number, stream="cam")) for number in range(5)]
    for member, request in requests:
        hold.hold(member, request)
    assert hold.syncing
    assert hold.take() is None
    assert released(hold) == requests
    assert not hold.syncing
    assert released(hold) == []


def test_what_a_former_router_accepted_is_decided_first_whoever_brings_it_and_when() -> None:
    """The gateway that comes back first raises a new alert before another one has sent again what was before it."""

    def alert(number: int, accepted_at: int | None) -> RaiseAlert:
        raised = Alert(id=f"{number}", stream_id="cam", severity="low", message="m", timestamp=0)
        return RaiseAlert(request=number, alert=raised, accepted_at=accepted_at)

    hold = StartupHold(syncing=True)
    for member, request in [(b"a", alert(4, None)), (b"a", alert(2, 20)), (b"b", alert(1, 10)), (b"b", alert(3, 20)),
                            (b"b", OwnerLookup(request=5, stream="cam"))]:  # fmt: skip
        hold.hold(member, request)
    assert [(member, request.request) for member, request in released(hold)] == [
        (b"b", 1), (b"a", 2), (b"b", 3), (b"a", 4), (b"b", 5),
    ]  # fmt: skip


REPORTS = ("records", "a", "b", "b", "c", None)


@pytest.mark.parametrize("order", sorted(set(itertools.permutations(REPORTS)), key=str))
def test_nothing_more_is_awaited_with_the_last_of_the_expected_reports_and_the_records(
    order: tuple[str | None, ...],
) -> None:
    """A second report, and one of a process that was not expected, or has no id, change nothing."""
    hold = StartupHold(syncing=True, expected=["a", "b"])
    complete = [hold.loaded() if each == "records" else hold.reported(each) for each in order]
    last = max(order.index(each) for each in ("records", "a", "b"))
    assert complete == [place == last for place in range(len(order))]


def test_what_is_awaited_is_never_complete_where_it_is_not_known_who_reports() -> None:
    hold = StartupHold(syncing=True)
    assert not hold.loaded()
    assert not hold.reported("a")


@pytest.mark.parametrize(("known", "expected"), [
    ([], set()),
    ([(["a", "b"], True)], {"a", "b"}),
    ([(["a", "b"], False)], set()),
    ([(["a"], True), (["a", "b"], False), ([], False)], {"a", "b"}),  # b has not joined everywhere yet
    ([(["a"], True), (["a", None], False)], set()),  # a former release: it would not be told from others
    ([([], False)], set()),
])  # fmt: skip
def test_all_are_expected_that_any_other_slot_hears_if_one_is_certain(
    known: list[tuple[list[str | None], bool]], expected: set[str]
) -> None:
    assert expected_of(Reporters(frozenset(heard), certain) for heard, certain in known) == expected


@pytest.mark.parametrize("released", [True, False])
@pytest.mark.parametrize("others", [True, False])
def test_requests_about_shares_are_taken_by_themselves(released: bool, others: bool) -> None:
    hold = StartupHold(syncing=True)
    shares = Query(request=1, what="shares", stream="cam"), EndShare(request=2, id="a" * 22, stream="cam", user="ann")
    lookups = [OwnerLookup(request=number, stream="cam") for number in (3, 4)] if others else []
    for request in (shares[0], *lookups, shares[1]):
        hold.hold(b"a", request)
    if released:
        hold.release()
    assert hold.take_about_shares() == [(b"a", each) for each in shares]
    assert hold.take_about_shares() == []
    assert hold.syncing is (others or not released)
    hold.release()
    assert list(iter(hold.take, None)) == [(b"a", each) for each in lookups]
    assert not hold.syncing
    assert hold.take_about_shares() == []


def test_a_full_hold_refuses_further_requests() -> None:
    hold = StartupHold(syncing=True)
    for number in range(MAX_HELD):
        assert not hold.is_full
        hold.hold(b"a", OwnerLookup(request=number, stream="cam"))
    assert hold.is_full
    with pytest.raises(RuntimeError):
        hold.hold(b"a", OwnerLookup(request=MAX_HELD, stream="cam"))
