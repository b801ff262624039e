"""Lets the clients of a gateway go before it ends: spread over a while where others serve them, else at once.

Another gateway serves them *here* if it listens on the same port of this machine: this one accepts no more from then
on. It serves them *elsewhere* if the router knows it: then a balancer in front decides, so this one goes on accepting
while its `/health` says that it drains. With none, and when all processes end together, nobody is made to wait.

Cameras go first, and the others a moment after the last one: a viewer that reconnects while the camera of its stream
does sees nothing for the time of both.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import math
from collections.abc import Awaitable, Callable
from typing import Final

from watchout.common import log, metric_names
from watchout.common.errors import RECONNECT_NOW, RESTART, RouterUnavailable
from watchout.gateway.context import Context, MovingPicture, OpenSocket

#: Seconds between two groups of clients that are asked to reconnect.
TICK_S: Final = 0.05
#: Seconds between the last camera and the first of the others, in which that camera comes back; but no more than this
#: share of all the time.
LEAD_S: Final = 0.5
MOST_LEAD: Final = 0.2
#: Seconds between two looks whether the others are still there.
LOOK_EVERY_S: Final = 0.25
#: Seconds that the router has to say which gateways there are. It may have ended too, so nobody waits for long.
ROUTER_S: Final = 2.0

_log = log.get("gateway.drain")


class Successor(enum.StrEnum):
    """Where another gateway serves the clients of one that drains."""

    HERE = "here"
    ELSEWHERE = "elsewhere"
    NONE = "nowhere"


def due(cameras: int, others: int, elapsed_s: float, over_s: float) -> int:
    """Return how many clients are to be asked by now, the cameras first, evenly over `over_s` seconds. Pure."""
    total = cameras + others
    if elapsed_s >= over_s:
        return total
    lead_s = min(LEAD_S, MOST_LEAD * over_s) if cameras and others else 0.0
    each_s = (over_s - lead_s) / max(1, total)
    if elapsed_s < cameras * each_s:
        return math.ceil(elapsed_s / each_s)
    return min(total, cameras + max(0, math.ceil((elapsed_s - lead_s) / each_s) - cameras))


class Drain:
    """The drain of one gateway; `gateway.app` makes one and runs it once.

    Args:
        context: What the gateway's connections share.
        is_shared: Returns whether another gateway listens on this port, and does not drain.
        stop_accepting: Closes the port; may be called twice.
    """

    def __init__(
        self, context: Context, is_shared: Callable[[], bool], stop_accepting: Callable[[], Awaitable[None]]
    ) -> None:
        self._context = context
        self._is_shared = is_shared
        self._stop_accepting = stop_accepting
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """Ask all that are left at once."""
        self._hurry.set()

    async def run(self) -> None:
        """Close all WebSockets and MJPEG responses; return when they are gone.

        Takes `DRAIN_SPREAD_S` where another gateway serves them, and then `DRAIN_S` at most. A WebSocket gets a close
        frame with the code that asks the client to reconnect; those still open in the end are dropped without one.
        """
        context = self._context
        context.draining = True
        context.metrics.set(metric_names.DRAINING, 1)
        context.router.send_metrics()
        successor = await self._look()
        spread_s = context.settings.drain_spread_s if successor is not Successor.NONE else 0.0
        if successor is not Successor.ELSEWHERE:
            await self._stop_accepting()
        reason = RESTART
        if spread_s:
            _log.info("gateway asks its clients to reconnect", clients=len(context.sockets), over_s=spread_s,
                      where=str(successor))  # fmt: skip
            if await self._spread(spread_s, successor):
                reason = RECONNECT_NOW
        await self._stop_accepting()
        context.closed = True
        context.all_gone.clear()
        for socket in list(context.sockets):
            socket.end(reason)
        for moving_picture in list(context.moving_pictures):
            moving_picture.end()
        if not context.sockets:
            context.all_gone.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(context.settings.drain_s):
                await context.all_gone.wait()
        for socket in list(context.sockets):
            socket.abort()

    async def _look(self, before: Successor = Successor.NONE) -> Successor:
        """Return where the clients are served when this gateway has ended.

        `before` is what was found before: gateways elsewhere are still there while a live router does not answer.
        """
        if self._hurry.is_set():
            return Successor.NONE
        if self._is_shared():
            return Successor.HERE
        asking = asyncio.ensure_future(self._knows_another())
        hurried = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait({asking, hurried}, timeout=ROUTER_S, return_when=asyncio.FIRST_COMPLETED)
            found = asking.result() if asking.done() else None
            if self._hurry.is_set():
                return Successor.NONE
            if found is None and before is Successor.ELSEWHERE and self._context.router.live:
                return before
            return Successor.ELSEWHERE if found else Successor.NONE
        finally:
            asking.cancel()
            hurried.cancel()

    async def _knows_another(self) -> bool | None:
        """Return whether the router knows a gateway beside this one that does not drain; None: it does not say."""
        router = self._context.router
        with contextlib.suppress(RouterUnavailable):
            members = (await router.queries.stats()).members
            return any(
                each.kind == "gateway"
                and router.own_id not in (each.id, each.process)
                and not each.metrics.get(metric_names.DRAINING)
                for each in members
            )
        return None

    async def _spread(self, over_s: float, successor: Successor) -> bool:
        """Ask the clients, a few at a time; return False when those that are left have nowhere to go any more."""
        loop, context = asyncio.get_running_loop(), self._context
        cameras: set[object] = {publication.publisher for publication in context.hub.publications()}
        leaving: list[OpenSocket | MovingPicture] = [*context.moving_pictures, *context.sockets]
        leaving.sort(key=cameras.__contains__)  # taken from the end
        total, began = len(leaving), loop.time()
        first = sum(client in cameras for client in leaving)
        look_at = began + LOOK_EVERY_S
        while leaving and (context.sockets or context.moving_pictures):
            now = loop.time()
            for _ in range(due(first, total - first, now - began, over_s) - (total - len(leaving))):
                _ask(leaving.pop(), context)
            if now >= look_at:
                successor = await self._look(successor)
                if successor is Successor.NONE:
                    return False
                look_at = loop.time() + LOOK_EVERY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._hurry.wait()
            if self._hurry.is_set():
                return False
        return True


def _ask(client: OpenSocket | MovingPicture, context: Context) -> None:
    """Ask a client to reconnect, unless it has left already."""
    if client in context.moving_pictures:
        client.end()
    elif client in context.sockets:
        client.end(RECONNECT_NOW)
