"""Joins the bus as ``watchout-ctl``: a member without streams that sends queries."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from watchout.common.bus.client import BusClient
from watchout.common.bus.messages import FromRouter, Hello, Message
from watchout.common.bus.transport_choice import gateway_carrier
from watchout.common.metrics import Metrics
from watchout.common.process import missing
from watchout.common.settings import Settings
from watchout.ctl.environment import Failure

#: Seconds within which a running router accepts a member; after it there is none.
JOIN_TIMEOUT_S: Final = 1.8
#: The error of a command whose query got a reply of another kind: the router is of another release.
UNEXPECTED_REPLY: Final = "unexpected reply of the router"


def nothing_runs(settings: Settings) -> Failure:
    """Return the failure for a command when no router replies."""
    return Failure(missing.nothing_answers(settings.home))


@asynccontextmanager
async def joined(settings: Settings) -> AsyncIterator[BusClient]:
    """Join the running router, and leave it at the end. Raises `Failure` when none replies."""
    metrics = Metrics()
    link = BusClient(
        Hello(kind="ctl", name="ctl", pid=os.getpid()),
        open_transport=gateway_carrier(settings).opener(0),
        request_timeout_s=settings.router_timeout_s,
        snapshot=_nothing,
        metrics=metrics.read,
        on_message=_ignore,
    )
    try:
        if not await link.wait_live(JOIN_TIMEOUT_S):
            raise Failure(link.explain_absence()) if settings.bus else nothing_runs(settings)
        yield link
    finally:
        await link.close()


async def _nothing() -> AsyncIterator[Message]:
    """Yield the state that a member restores at the router: none."""
    nothing: tuple[Message, ...] = ()
    for message in nothing:
        yield message


def _ignore(_: FromRouter) -> None:
    """Ignored: this member has subscribed to nothing."""
