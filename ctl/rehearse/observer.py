"""Asks the processes of the system, as a member of the bus: their stats meanwhile, latency and memory at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

from watchout.common.bus.merged_replies import merge_stats
from watchout.common.bus.messages import Query
from watchout.common.bus.reply_records import LatencyReply, StatsReply
from watchout.common.bus.router_links import RouterLinks
from watchout.common.errors import BusError, RouterUnavailable
from watchout.common.latency.rows import HopFigures, merge_replies, page_of
from watchout.common.settings import Settings
from watchout.ctl.bus_client import joined
from watchout.ctl.environment import Failure
from watchout.ctl.rehearse.explained import StreamMemory, memory_of, sampled
from watchout.ctl.rehearse.figures import StreamTally
from watchout.ctl.rehearse.memory import Watched
from watchout.ctl.why.survey import survey

#: Seconds between two looks at the stats, and for a process to join.
EVERY_S: Final = 2.0
JOIN_S: Final = 60.0
#: Seconds in which the memory of a stream may still get the ends of its connections, and between two questions.
REMEMBER_S: Final = 10.0
ASK_EVERY_S: Final = 0.5


class Observer:
    """What the system says of itself. Made by `observing`.

    Args:
        settings: Where the system is.
        links: The connections to its routers.
    """

    def __init__(self, settings: Settings, links: RouterLinks) -> None:
        self.watched = Watched()
        #: The members, as kind and name, of the last look.
        self.members: list[tuple[str, str]] = []
        self._settings = settings
        self._links = links

    async def look(self, at_s: float) -> bool:
        """Look at the stats at a second of the rehearsal; return False when no router answered."""
        try:
            asked = await self._links.ask_all(lambda _, number: Query(request=number, what="stats"), StatsReply)
        except (RouterUnavailable, BusError):
            return False
        reply = merge_stats(asked.by_slot, asked.missing, slots=self._links.slots)
        self.members = [(member.kind, member.name) for member in reply.members]
        self.watched.add(at_s, reply)
        return True

    async def wait_for(self, kinds: Sequence[str], check: Callable[[], None]) -> None:
        """Wait until members of these kinds have joined. Raises `Failure` when they have not in time.

        Args:
            kinds: The kinds.
            check: Called again and again; raises `Failure` when there is nothing to wait for.
        """
        try:
            async with asyncio.timeout(JOIN_S):
                while not await self.look(0.0) or not {kind for kind, _ in self.members} >= set(kinds):
                    check()
                    await asyncio.sleep(ASK_EVERY_S / 2)
        except TimeoutError:
            raise Failure(f"{', '.join(kinds)} did not join the router within {JOIN_S:g} s") from None
        self.watched = Watched()

    async def watch(self, at_s: Callable[[], float]) -> None:
        """Look at the stats again and again."""
        while True:
            await self.look(at_s())
            await asyncio.sleep(EVERY_S)

    async def hops(self) -> list[HopFigures]:
        """Return what the ledger measured over all streams; nothing when it is not known."""
        try:
            asked = await self._links.ask_all(
                lambda _, number: Query(request=number, what="latency", limit=1), LatencyReply
            )
        except (RouterUnavailable, BusError):
            return []
        page = page_of(merge_replies(list(asked.by_slot.values()), 1))
        return list(page.total.hops) if page.total is not None else []

    async def memories(self, counted: Mapping[str, StreamTally]) -> dict[str, StreamMemory]:
        """Return what gateways remember of the streams, or of a sample of them, once all their connections ended."""
        found: dict[str, StreamMemory] = {}
        for stream in sampled(sorted(counted)):
            found[stream] = await self._memory(stream, counted[stream].connections)
        return found

    async def _memory(self, stream: str, connections: int) -> StreamMemory:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + REMEMBER_S
        while True:
            try:
                memory = memory_of(await survey(self._settings, stream))
            except Failure as failure:
                return StreamMemory(incomplete=failure.message)
            if memory.incomplete or sum(memory.closes.values()) >= connections or loop.time() >= give_up_at:
                return memory
            await asyncio.sleep(ASK_EVERY_S)


@contextlib.asynccontextmanager
async def observing(settings: Settings) -> AsyncIterator[Observer]:
    """Join the routers of a system. Raises `Failure` when there is none."""
    async with joined(settings) as links:
        yield Observer(settings, links)
