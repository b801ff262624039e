"""Joins the bus as an operator: a member that holds nothing and asks something."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from watchout.common.bus.client import BusClient
from watchout.common.bus.messages import FromRouter, Hello, Message
from watchout.common.bus.transport_choice import gateway_transport
from watchout.common.metrics import Metrics
from watchout.common.process import missing
from watchout.common.settings import Settings
from watchout.ctl.environment import Failure

#: A running router answers within a few heartbeats; past this there is none.
JOIN_TIMEOUT_S: Final = 1.8


def nothing_runs(settings: Settings) -> Failure:
    """What to say when no router answers."""
    return Failure(missing.nothing_answers(settings.home))


@asynccontextmanager
async def joined(settings: Settings) -> AsyncIterator[BusClient]:
    """The bond with the running router. Raises `Failure` when there is none."""
    metrics = Metrics()
    link = BusClient(
        Hello(kind="ctl", name="ctl", pid=os.getpid()),
        open_transport=gateway_transport(settings),
        request_timeout_s=settings.router_timeout_s,
        snapshot=_nothing,
        metrics=metrics.read,
        on_message=_pass_over,
    )
    try:
        if not await link.wait_live(JOIN_TIMEOUT_S):
            raise nothing_runs(settings)
        yield link
    finally:
        await link.close()


async def _nothing() -> AsyncIterator[Message]:
    nothing: tuple[Message, ...] = ()
    for message in nothing:
        yield message


def _pass_over(_: FromRouter) -> None:
    """An operator's member asked for nothing that comes by itself."""
