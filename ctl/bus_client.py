"""Joins the bus as ``watchout-ctl``: a member without streams that sends queries."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import click

from watchout.common.bus.messages import FromRouter, Hello, Message
from watchout.common.bus.router_links import RouterLinks
from watchout.common.bus.transport_choice import gateway_carrier
from watchout.common.home import who_holds
from watchout.common.home_files import ROUTER_LOCK
from watchout.common.metrics import Metrics
from watchout.common.process import missing
from watchout.common.settings import Settings
from watchout.ctl.environment import Failure

#: Seconds within which a running router accepts a member; after it there is none.
JOIN_TIMEOUT_S: Final = 1.8
#: Seconds more for a router that runs on this home: it is just starting, or has to wait for its turn.
BUSY_S: Final = 8.0
#: The error of a command whose query got a reply of another kind: the router is of another release.
UNEXPECTED_REPLY: Final = "unexpected reply of the router"


def nothing_runs(settings: Settings) -> Failure:
    """Return the failure for a command when no router replies."""
    return Failure(missing.nothing_answers(settings.home))


@asynccontextmanager
async def member_links(settings: Settings) -> AsyncIterator[RouterLinks]:
    """Connect to the routers of all slots, and leave them at the end. Some may be away, or all."""
    metrics = Metrics()
    links = RouterLinks(
        Hello(kind="ctl", name="ctl", pid=os.getpid()),
        carrier=gateway_carrier(settings),
        request_timeout_s=settings.router_timeout_s,
        snapshot=_nothing,
        metrics=metrics.read,
        on_message=_ignore,
    )
    links.open()
    try:
        yield links
    finally:
        await links.close()


@asynccontextmanager
async def joined(settings: Settings) -> AsyncIterator[RouterLinks]:
    """Join the running routers, and leave them at the end. Raises `Failure` when none replies.

    A router that runs on this home gets `BUSY_S` more.
    """
    async with member_links(settings) as links:
        is_live = await links.wait_live(JOIN_TIMEOUT_S)
        if not is_live and not settings.bus and who_holds(settings.home / ROUTER_LOCK) is not None:
            is_live = await links.wait_live(BUSY_S)
        if not is_live:
            raise Failure(links.explain_absence()) if settings.bus else nothing_runs(settings)
        yield links


def warn_missing(missing: Sequence[int]) -> None:
    """Say on stderr that what is printed lacks the streams of some slots.

    Args:
        missing: The slots that did not answer; with none nothing is said.
    """
    if missing:
        slots = ("slot " if len(missing) == 1 else "slots ") + ", ".join(map(str, missing))
        click.echo(click.style(f"without the streams of {slots}: no router answers there", "yellow"), err=True)


async def _nothing(_slot: int) -> AsyncIterator[Message]:
    """Yield the state that a member restores at the router: none."""
    nothing: tuple[Message, ...] = ()
    for message in nothing:
        yield message


def _ignore(_slot: int, _body: FromRouter) -> None:
    """Ignored: this member has subscribed to nothing."""
