"""Brings a process back to the NATS server of its own host: when that stays, and is joined with the others.

A server that is there and has lost the others of its cluster would cut the process off. So messages have to cross from
the server in use to the own one and back, for some seconds, before anything is changed. Then both connections overlap
(`common.bus.nats.overlap`): no message is lost by the change, and none is handled twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import secrets
from collections.abc import Callable
from typing import Final

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from watchout.common import supervisor
from watchout.common.bus.nats.dialing import DialedClient, Dialer, DialError
from watchout.common.bus.nats.line import Line
from watchout.common.bus.nats.return_plan import ReturnPlan
from watchout.common.bus.nats.subscriptions import Subscriptions

#: So many times, so many seconds apart, messages have to cross between both servers.
CHECKS: Final = 10
CHECK_EVERY_S: Final = 1.0
#: A message that does not cross within this time, sent again every `SEND_EVERY_S`, does not cross, in seconds.
CROSS_S: Final = 1.0
SEND_EVERY_S: Final = 0.1
#: Both connections are subscribed for this time before the change, in seconds: every server knows of it then.
OVERLAP_S: Final = 0.5
#: So often what was subscribed meanwhile is subscribed at the own server too; then the change is put off.
ROUNDS: Final = 5
#: What was sent over the former connection has so long to arrive before more is sent over the next one, in seconds.
ARRIVE_S: Final = 0.1
#: Messages may come twice, and replies over the former connection, for so long after the change, in seconds.
LINGER_S: Final = 2.0
#: Deadline of a round trip to a server, in seconds.
FLUSH_S: Final = 2


class Homeward:
    """The way of one `NatsConnection`, which makes it, back to a server of its own host.

    Args:
        dialer: Connects to servers.
        subscriptions: All subscriptions of the connection.
        inbox: First parts of subjects that this process may use.
        make_line: Makes a line of the connection.
        writing: Held by whoever sends what was published.
        take: Called with the line that is used from now on; what is published is sent over it.

    """

    def __init__(
        self,
        dialer: Dialer,
        subscriptions: Subscriptions,
        inbox: str,
        make_line: Callable[[], Line],
        writing: asyncio.Lock,
        take: Callable[[Line], None],
    ) -> None:
        self._dialer = dialer
        self._subscriptions = subscriptions
        self._inbox = inbox
        self._make_line = make_line
        self._writing = writing
        self._take = take
        self.plan = ReturnPlan()

    async def run(self, used: Line) -> None:
        """Return when the connection uses a server of its own host in place of this one.

        Args:
            used: The line that is used now.

        """
        while True:
            await asyncio.sleep(self.plan.pause_s(random.random()))
            with supervisor.current().guarding("the return to the own NATS server"):
                if await self._try(used):
                    return
            self.plan.failed()

    async def end_of(self, former: Line) -> None:
        """End the line that was used before, once what was asked over it is answered.

        Args:
            former: The line.

        """
        try:
            await asyncio.sleep(LINGER_S)
        finally:
            self.forget(former)

    def forget(self, line: Line) -> None:
        """Close a line that is not used, and expect nothing of it; one that is closed is ignored.

        Args:
            line: The line.

        """
        self._subscriptions.end_overlap()
        self._subscriptions.end(line.client)
        line.client.abandon()

    async def _try(self, used: Line) -> bool:
        """Change to an own server, if there is one that is good; return whether it was."""
        own, changed = self._make_line(), False
        try:
            await own.dial(self._dialer, only_here=True)
        except DialError:
            return False
        try:
            if await is_steady(used, own, self._inbox) and used.is_good:
                changed = await self._change(used, own)
        except (NatsError, OSError, TimeoutError):
            changed = False  # the own server is lost again
        finally:
            if not changed:
                self.forget(own)
        return changed

    async def _change(self, used: Line, own: Line) -> bool:
        """Change from one connection to another; return False if one is not good, or more was subscribed meanwhile."""
        subscriptions = self._subscriptions
        subscriptions.begin_overlap(own.client)
        for _ in range(ROUNDS):
            await subscriptions.extend(own.client)
            await own.client.flush(FLUSH_S)
            await asyncio.sleep(OVERLAP_S)
            async with self._writing:  # what is published meanwhile waits
                if subscriptions.is_full or not own.is_good or not used.is_good or own.denied - used.denied:
                    return False
                if not subscriptions.turn_to(own.client):
                    continue
                with contextlib.suppress(NatsError, OSError, TimeoutError):  # if it breaks now, the own one has it all
                    await used.client.flush(FLUSH_S)
                with contextlib.suppress(NatsError, OSError, TimeoutError):
                    await subscriptions.drain(used.client)
                await asyncio.sleep(ARRIVE_S)
                subscriptions.change()
                self._take(own)
            return True
        return False


async def is_steady(used: Line, own: Line, inbox: str) -> bool:
    """Return whether the own server stays, and messages cross between it and the one in use, in both directions.

    Args:
        used: The line that is used.
        own: A line to the own server.
        inbox: First parts of subjects that this process may use.

    """
    if own.client.max_payload < used.client.max_payload:
        return False  # what waits to be sent was divided for the larger one
    crossing = _Crossing(f"{inbox}.{secrets.token_hex(8)}", used.client, own.client)
    try:
        await crossing.open()
        for number in range(CHECKS):
            if not own.is_good or not await crossing.works(b"%d" % number):
                return False
            await asyncio.sleep(CHECK_EVERY_S)
    except (NatsError, OSError, TimeoutError):
        return False
    finally:
        await crossing.close()
    return own.is_good


class _Crossing:
    """Sends messages from each of two servers to the other; a server sends none back where it came from."""

    def __init__(self, subject: str, *clients: DialedClient) -> None:
        self._subject = subject
        self._clients = clients
        self._received: dict[DialedClient, bytes] = {}
        self._subscriptions: list[Subscription] = []

    async def open(self) -> None:
        for client in self._clients:
            handle = functools.partial(self._receive, client)
            self._subscriptions.append(await client.subscribe(self._subject, cb=handle))

    async def works(self, payload: bytes) -> bool:
        """Return whether a message crosses in both directions."""
        now = asyncio.get_running_loop().time
        until = now() + CROSS_S
        while now() < until:
            for client in self._clients:
                await client.publish(self._subject, payload)
            await asyncio.sleep(SEND_EVERY_S)
            if all(self._received.get(client) == payload for client in self._clients):
                return True
        return False

    async def close(self) -> None:
        for subscription in self._subscriptions:
            with contextlib.suppress(NatsError, OSError):  # its connection may have ended
                await subscription.unsubscribe()

    async def _receive(self, client: DialedClient, message: Msg) -> None:
        self._received[client] = message.data
