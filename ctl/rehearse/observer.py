"""Asks the processes of the system, as a member of the bus: their stats meanwhile, latency and memory at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

from watchout.common.bus.messages import Query
from watchout.common.bus.reply_records import LatencyReply
from watchout.common.bus.router_links import RouterLinks
from watchout.common.errors import BusError, RouterUnavailable
from watchout.common.latency.rows import HopFigures, merge_replies, page_of
from watchout.common.settings import Settings
from watchout.ctl.bus_client import joined, stats_without_streams
from watchout.ctl.environment import Failure
from watchout.ctl.rehearse.explained import MAX_USERS, StreamMemory, is_whole, memory_of, sampled, streamless_of
from watchout.ctl.rehearse.figures import StreamTally
from watchout.ctl.rehearse.memory import Watched
from watchout.ctl.why.survey import survey

#: Seconds between two looks at the stats, and for a process to join.
EVERY_S: Final = 2.0
JOIN_S: Final = 60.0
#: Seconds in which gateways may still remember the ends of connections, members tell of latencies, and between two
#: questions.
REMEMBER_S: Final = 20.0
TELL_S: Final = 10.0
ASK_EVERY_S: Final = 0.5

T = TypeVar("T")


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
            reply = await stats_without_streams(self._links)
        except (RouterUnavailable, BusError):
            return False
        self.members = [(member.kind, member.name) for member in reply.members]
        self.watched.add(at_s, reply)
        return True

    async def wait_for(self, kinds: Sequence[str], check: Callable[[], None]) -> None:
        """Wait until members of these kinds have joined. Raises `Failure` when they have not in time.

        Args:
            kinds: The kinds, each as often as there are such members.
            check: Called again and again; raises `Failure` when there is nothing to wait for.
        """
        try:
            async with asyncio.timeout(JOIN_S):
                while not await self.look(0.0) or not Counter(kind for kind, _ in self.members) >= Counter(kinds):
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
        """Return what the ledger measured over all streams, once it tells of something; nothing when it does not."""
        return await _until_told(self._hops, bool, asyncio.get_running_loop().time() + TELL_S)

    async def _hops(self) -> list[HopFigures]:
        try:
            asked = await self._links.ask_all(
                lambda _, number: Query(request=number, what="latency", limit=1), LatencyReply
            )
        except (RouterUnavailable, BusError):
            return []
        page = page_of(merge_replies(list(asked.by_slot.values()), 1))
        return list(page.total.hops) if page.total is not None else []

    async def memories(self, counted: Mapping[str, StreamTally], began_ms: int) -> dict[str, StreamMemory]:
        """Return what gateways remember of the streams, or of a sample of them, once all their connections ended.

        Args:
            counted: What clients counted, by stream.
            began_ms: When the rehearsal began, in ms since the epoch.
        """
        give_up_at = asyncio.get_running_loop().time() + REMEMBER_S
        found: dict[str, StreamMemory] = {}
        for stream in sampled(sorted(counted)):
            connections = counted[stream].connections
            found[stream] = await _until_told(
                partial(self._memory, stream, began_ms), partial(is_whole, connections=connections), give_up_at
            )
        return found

    async def streamless(self, remembered: Mapping[str, StreamMemory], began_ms: int) -> dict[str, int]:
        """Return how many connections of the users of these streams ended before they had one, by cause.

        Args:
            remembered: What gateways remember of the streams.
            began_ms: When the rehearsal began, in ms since the epoch.
        """
        found: Counter[str] = Counter()
        for user in sorted({user for memory in remembered.values() for user in memory.users})[:MAX_USERS]:
            with contextlib.suppress(Failure):
                found.update(streamless_of(await survey(self._settings, user), began_ms=began_ms))
        return found

    async def _memory(self, stream: str, began_ms: int) -> StreamMemory:
        try:
            return memory_of(await survey(self._settings, stream), began_ms=began_ms)
        except Failure as failure:
            return StreamMemory(incomplete=failure.message)


async def _until_told(ask: Callable[[], Awaitable[T]], is_enough: Callable[[T], bool], give_up_at: float) -> T:
    """Ask until the answer is enough, or until a time of the loop's clock; at least once. Return the last answer."""
    while True:
        answer = await ask()
        if is_enough(answer) or asyncio.get_running_loop().time() >= give_up_at:
            return answer
        await asyncio.sleep(ASK_EVERY_S)


@contextlib.asynccontextmanager
async def observing(settings: Settings) -> AsyncIterator[Observer]:
    """Join the routers of a system. Raises `Failure` when there is none."""
    async with joined(settings) as links:
        yield Observer(settings, links)
