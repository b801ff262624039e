"""The stamps of an alert between a process and a router whose clocks may be apart. Pure.

On one machine there is one clock, and everything is left as it is.
"""

from __future__ import annotations

import msgspec

from watchout.common.bus.messages import AlertStamps
from watchout.common.bus.router_clock import RouterClock


def stamps_at_router(given: AlertStamps | None, clock: RouterClock) -> AlertStamps | None:
    """Return the stamps of an alert by the router's clock."""
    if given is None or not clock.offset_ms:
        return given
    return AlertStamps(*(None if at is None else clock.to_router(at) for at in msgspec.structs.astuple(given)))


def stamps_here(given: AlertStamps | None, clock: RouterClock) -> AlertStamps | None:
    """Return the stamps of an alert, which the router sent, by the clock here."""
    if given is None or not clock.offset_ms:
        return given
    return AlertStamps(*(None if at is None else clock.to_local(at) for at in msgspec.structs.astuple(given)))
