"""Asks the routers of all slots and the NATS servers, at the same time."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from watchout.common import clock
from watchout.common.bus.client import BusClient
from watchout.common.bus.messages import Query
from watchout.common.bus.reply_records import ClusterReply
from watchout.common.errors import BusError, RouterUnavailable
from watchout.common.settings import Settings
from watchout.ctl.bus_client import JOIN_TIMEOUT_S, UNEXPECTED_REPLY, member_links
from watchout.ctl.cluster.facts import Facts, SlotAnswer

if TYPE_CHECKING:  # nats-py need not be installed
    from watchout.common.bus.nats.probe import NatsServerFacts
    from watchout.common.bus.nats.site import SiteFacts

#: Seconds within which a router has to accept this command and to reply, each; a slot without one is missing then.
REPLY_S: Final = 2.0
#: Seconds for which beats of router processes are listened for: they come every half second.
LISTEN_S: Final = 1.8
#: Level of a router that knows the query.
CLUSTER_LEVEL: Final = 2


async def survey(settings: Settings) -> Facts:
    """Return what is found about the site of these settings; what does not answer is a fact too.

    Raises `StartError` when a file of ``BUS_*`` cannot be used, or nats-py is not installed.
    """
    host = socket.gethostname()
    if not settings.bus:
        return Facts(host=host, answers=await _ask_routers(settings))
    answers, (site, fault), servers = await asyncio.gather(
        _ask_routers(settings), _look_at_site(settings), _look_at_servers(settings)
    )
    return Facts(
        host=host, slots=settings.slots, cluster=settings.cluster_name, answers=answers, site=site, site_fault=fault,
        servers=servers,
    )  # fmt: skip


async def _ask_routers(settings: Settings) -> dict[int, SlotAnswer]:
    bounded = replace(settings, router_timeout_s=min(settings.router_timeout_s, REPLY_S))
    async with member_links(bounded) as links:
        answers = await asyncio.gather(*(_ask(link) for link in links.all()))
        return dict(enumerate(answers))


async def _ask(link: BusClient) -> SlotAnswer:
    """Return what one router says, or why it says nothing."""
    if not await link.wait_live(JOIN_TIMEOUT_S):
        return SlotAnswer(why=link.explain_absence().rstrip("."))
    if link.level < CLUSTER_LEVEL:
        return SlotAnswer(joined=True, why="the router is of an older release, which does not know this query")
    before_ms = clock.now_ms()
    try:
        reply = await link.query(partial(_query, link), ClusterReply)
    except RouterUnavailable as error:
        return SlotAnswer(joined=True, why=str(error).rstrip("."))
    except BusError:
        return SlotAnswer(joined=True, why=UNEXPECTED_REPLY)
    return SlotAnswer(joined=True, reply=reply, apart_ms=reply.now - (before_ms + clock.now_ms()) // 2)


def _query(_link: BusClient, number: int) -> Query:
    return Query(request=number, what="cluster")


async def _look_at_site(settings: Settings) -> tuple[SiteFacts | None, str]:
    """Return what NATS knows, or None and why that cannot be said."""
    from watchout.common.bus.nats.dialing import DialError
    from watchout.common.bus.nats.site import look_at_site

    try:
        return await look_at_site(settings, LISTEN_S), ""
    except DialError as error:
        return None, str(error).rstrip(".")


async def _look_at_servers(settings: Settings) -> list[NatsServerFacts]:
    from watchout.common.bus.nats.probe import look_at_servers

    return await look_at_servers(settings)
