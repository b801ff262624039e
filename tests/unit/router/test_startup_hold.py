"""Requests after a restart of the router: held until the gateways have reported, in order, and not without a bound."""

from __future__ import annotations

import pytest

from watchout.common.bus.messages import OwnerLookup
from watchout.router.startup_hold import MAX_HELD, StartupHold


def test_the_first_router_of_a_home_holds_nothing() -> None:
    hold = StartupHold(syncing=False)
    assert not hold.syncing
    assert hold.release() == []
    with pytest.raises(RuntimeError):
        hold.hold(b"a", OwnerLookup(request=1, stream="cam"))


def test_held_requests_are_released_once_in_their_order() -> None:
    hold = StartupHold(syncing=True)
    requests = [(bytes([number]), OwnerLookup(request=number, stream="cam")) for number in range(5)]
    for member, request in requests:
        hold.hold(member, request)
    assert hold.syncing
    assert hold.release() == requests
    assert not hold.syncing
    assert hold.release() == []


def test_a_full_hold_refuses_further_requests() -> None:
    hold = StartupHold(syncing=True)
    for number in range(MAX_HELD):
        assert not hold.is_full
        hold.hold(b"a", OwnerLookup(request=number, stream="cam"))
    assert hold.is_full
    with pytest.raises(RuntimeError):
        hold.hold(b"a", OwnerLookup(request=MAX_HELD, stream="cam"))
