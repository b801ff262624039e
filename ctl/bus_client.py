"""Joins the bus as ``watchout-ctl``: a member without streams that sends queries."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import click
import msgspec

from watchout.common.bus.merged_replies import merge_stats
from watchout.common.bus.messages import FromRouter, Hello, Message, Query
from watchout.common.bus.reply_records import StatsReply
from watchout.common.bus.router_links import RouterLinks
from watchout.common.bus.stream_walk import StreamWalk
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


class OtherSlots(Failure):
    """Ends a command that the routers do not let join: `CLUSTER_SLOTS` here is not theirs."""


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
    """Join the running routers, and leave them at the end. Raises `Failure` when none replies, and
    `OtherSlots` when none lets this command join.

    A router that runs on this home gets `BUSY_S` more.
    """
    async with member_links(settings) as links:
        is_live = await links.wait_live(JOIN_TIMEOUT_S)
        if not is_live and not settings.bus and who_holds(settings.home / ROUTER_LOCK) is not None:
            is_live = await links.wait_live(BUSY_S)
        if not is_live and (why := links.explain_slots()):
            raise OtherSlots(f"{why}.")
        if not is_live:
            raise Failure(links.explain_absence()) if settings.bus else nothing_runs(settings)
        yield links


async def stats_without_streams(links: RouterLinks) -> StatsReply:
    """Return the stats of all routers, with the number of streams only. Raises `RouterUnavailable` and `BusError`."""
    asked = await links.ask_all(lambda _, number: Query(request=number, what="stats", rows=0), StatsReply)
    return merge_stats(asked.by_slot, asked.missing, slots=links.slots)


async def whole_stats(links: RouterLinks) -> StatsReply:
    """Return the stats of all routers with all streams. Raises `RouterUnavailable` and `BusError`.

    A slot that does not answer to the end is missing.
    """
    reply = await stats_without_streams(links)
    if reply.totals.streams is msgspec.UNSET:
        return reply  # of a router that knows no pages: it replied with all
    walk = StreamWalk(links, coverage=True)
    streams = [row async for rows in walk.pages() for row in rows]
    known = () if reply.missing_slots is msgspec.UNSET else reply.missing_slots
    missing = sorted({*known, *walk.missing})
    return msgspec.structs.replace(reply, streams=streams, missing_slots=missing or msgspec.UNSET)


async def published_streams(links: RouterLinks) -> list[str]:
    """Return the ids of the streams that are not offline. Raises `RouterUnavailable` and `BusError`."""
    walk = StreamWalk(links)
    return [row.stream_id async for rows in walk.pages() for row in rows if row.status != "offline"]


def warn_missing(missing: Sequence[int]) -> None:
    """Say on stderr that what is printed lacks the streams of some slots: no router answers, or it cannot say yet.

    Args:
        missing: The slots that did not answer; with none nothing is said.
    """
    if missing:
        slots = ("slot " if len(missing) == 1 else "slots ") + ", ".join(map(str, missing))
        click.echo(
            click.style(f"without the streams of {slots}: no router answered there, or it cannot say yet", "yellow"),
            err=True,
        )


async def _nothing(_slot: int) -> AsyncIterator[Message]:
    """Yield the state that a member restores at the router: none."""
    nothing: tuple[Message, ...] = ()
    for message in nothing:
        yield message


def _ignore(_slot: int, _body: FromRouter) -> None:
    """Ignored: this member has subscribed to nothing."""
