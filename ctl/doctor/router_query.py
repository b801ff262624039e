"""Queries of the doctor to the running router."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, TypeVar

from watchout.common.bus.messages import Query
from watchout.common.bus.router_links import SlotReplies
from watchout.common.errors import RouterUnavailable
from watchout.common.home_files import CONTROL_SOCKET
from watchout.common.settings import Settings
from watchout.ctl.bus_client import OtherSlots, joined
from watchout.ctl.doctor.check import ASK_S
from watchout.ctl.environment import Failure

R = TypeVar("R")


async def has_router_socket(settings: Settings) -> bool:
    """Whether the file of the router's socket exists; a router that was killed leaves it behind."""
    return await asyncio.to_thread((settings.home / CONTROL_SOCKET).exists)


async def query_router(
    settings: Settings, what: Literal["stats", "processes"], kind: type[R], merge: Callable[[SlotReplies[R], int], R]
) -> R | None:
    """Return the routers' reply to a `Query` as a `kind`; None when no router replies within `ASK_S`.

    `merge` makes one of the replies of so many slots. Streams are left out: the doctor wants their number alone.

    Raises `BusError` when the reply has another form, as from a router of another version, and `OtherSlots` when
    `CLUSTER_SLOTS` here is not that of the routers.
    """
    if not settings.bus and not await has_router_socket(settings):
        return None
    bounded = replace(settings, router_timeout_s=min(settings.router_timeout_s, ASK_S))
    try:
        async with joined(bounded) as links:
            asked = await links.ask_all(lambda _, number: Query(request=number, what=what, rows=0), kind)
            return merge(asked, links.slots)
    except OtherSlots:
        raise
    except (Failure, RouterUnavailable, OSError):
        return None
