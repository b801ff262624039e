"""Which server is tried first: one on this machine, and the one that was just lost last."""

from __future__ import annotations

import pytest

from watchout.common.bus.nats.dialing import Dialer
from watchout.common.settings import load

#: Of documentation (RFC 5737, RFC 3849).
FAR = ("203.0.113.1", "203.0.113.2", "2001:db8::1")


@pytest.mark.parametrize("here", ["127.0.0.1", "::1"])
async def test_a_server_of_this_machine_is_tried_first_and_the_lost_one_last(here: str) -> None:
    hosts = [f"[{host}]" if ":" in host else host for host in (FAR[0], here, *FAR[1:])]
    settings = load({"WATCHOUT_BUS": ",".join(f"nats://{host}:4222" for host in hosts)})
    dialer = Dialer.of(settings, "inbox")
    orders = set()
    for _ in range(50):
        tried = [candidate.address for candidate in await dialer._candidates(None)]
        assert tried[0] == here
        orders.add(tuple(tried[1:]))
    assert len(orders) > 1, "the others in random order"
    own = settings.bus[1]
    assert [candidate.address for candidate in await dialer._candidates(own)][-1] == here
