"""Asks the routers for what concerns more than one stream, or what they keep: stats, streams, recent alerts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from watchout.common import clock
from watchout.common.alerts.model import Severity
from watchout.common.bus.client import BusClient
from watchout.common.bus.merged_replies import Merged, merge_alerts, merge_stats
from watchout.common.bus.messages import LATENCY_LEVEL, AlertScope, Query
from watchout.common.bus.reply_records import (
    AlertFrameRow,
    LatencyReply,
    R,
    RecentAlertRow,
    RecentAlertsReply,
    StatsReply,
    read_reply,
)
from watchout.common.bus.router_clock import RouterClock
from watchout.common.bus.router_links import RouterLinks, SlotReplies
from watchout.common.bus.stream_walk import StreamWalk
from watchout.common.errors import BusError, RouterUnavailable
from watchout.common.latency.rows import merge_replies
from watchout.gateway.router_times import alerts_here, frames_here, recent_here, streams_here

#: A time that clients ask from is of a clock that is ahead, when it is later than now by more than this, in ms.
AHEAD_MS: Final = 2_000


class RouterQueries:
    """The queries of one gateway to the routers of all slots; made by `RouterClient`.

    What concerns one stream is asked of the router of its slot, all else of all slots, and the replies are merged. All
    methods raise `RouterUnavailable` when no router replies in time, or one of another release replies something else.

    Args:
        links: The connections to the routers.
        send_counts: Sends the routers this gateway's latest counts.
    """

    def __init__(self, links: RouterLinks, send_counts: Callable[[], None]) -> None:
        self._links = links
        self._send_counts = send_counts

    async def stats(self) -> StatsReply:
        """Return the routers' stats, with this gateway's latest counts, and without streams: `stream_walk` has them."""
        self._send_counts()
        asked = await self._ask_all(lambda _, n: Query(request=n, what="stats", rows=0), StatsReply)
        return merge_stats(asked.by_slot, asked.missing, slots=self._links.slots)

    def stream_walk(self, *, coverage: bool = False) -> StreamWalk:
        """Return a walk over the streams with a publisher, on any gateway, with this gateway's latest counts.

        Its pages raise `BusError` too.

        Args:
            coverage: Whether the rows have the coverage, in the place of what cameras say of themselves.
        """
        self._send_counts()
        return StreamWalk(self._links, coverage=coverage, here=lambda rows, link: streams_here(rows, link.clock))

    async def latencies(self, stream: str | None = None, limit: int = 100) -> LatencyReply:
        """Return what was measured of one stream, or of all together and up to `limit` streams.

        Slots whose router is away or of a former release are left out.
        """
        links = self._links.all() if stream is None else [self._links.of(stream)]
        asked = [link for link in links if link.live and link.level >= LATENCY_LEVEL]
        if not asked:
            raise RouterUnavailable("no router is there that knows of latencies")

        async def ask(link: BusClient) -> LatencyReply | None:
            try:
                return await self._ask(
                    link, lambda n: Query(request=n, what="latency", stream=stream, limit=limit), LatencyReply
                )
            except RouterUnavailable:
                return None

        replies = [reply for reply in await asyncio.gather(*map(ask, asked)) if reply is not None]
        if not replies:
            raise RouterUnavailable("no router answered in time")
        return merge_replies(replies, limit)

    async def alerts_of(
        self, stream: str, *, since: int = 0, limit: int = 1000, severity: Severity = "low"
    ) -> list[RecentAlertRow]:
        """Return recent alerts of a stream since a time in ms, oldest first."""
        link = self._links.of(stream)
        rows = await self._ask(
            link,
            lambda n: Query(
                request=n,
                what="alerts",
                stream=stream,
                since=link.clock.to_router(since) if since else 0,
                limit=limit,
                severity=severity,
            ),
            list[RecentAlertRow],
        )
        return alerts_here(rows, link.clock, since)

    async def alerts(
        self, *, since: int = 0, limit: int = 1000, severity: Severity = "low", scope: AlertScope | None = None
    ) -> Merged[list[RecentAlertRow]]:
        """Return the newest alerts of all streams within `scope` since a time in ms, oldest first."""
        asked = await self._ask_all(
            lambda link, n: Query(
                request=n,
                what="alerts",
                stream=None,
                since=link.clock.to_router(since) if since else 0,
                limit=limit,
                severity=severity,
                scope=scope,
            ),
            list[RecentAlertRow],
        )
        here = [alerts_here(rows, self._clock(slot), since) for slot, rows in asked.by_slot.items()]
        return Merged(here[0] if self._links.slots == 1 else merge_alerts(here, limit), asked.missing)

    def meant_here(self, stream: str, since: int) -> int:
        """Return the time of the clock here that a client means, in ms.

        A client asks by the clock of the gateway that it was connected to before, which may be another machine's. A
        time that is still to come here, and not at the router, is of a clock that agrees with the router's: the one
        here is behind.
        """
        now_ms, times = clock.now_ms(), self._links.of(stream).clock
        if now_ms + AHEAD_MS < since <= times.to_router(now_ms) + AHEAD_MS:
            return times.to_local(since)
        return since

    async def alerts_since(self, stream: str, since: int) -> RecentAlertsReply:
        """Return the alerts of a stream that came, or were acknowledged, since a time in ms; and what is missing.

        A time that is still to come is of a machine whose clock is ahead: what the client missed is not known. A
        router of the former release does not say so: its alerts may be missing up to the present.
        """
        link = self._links.of(stream)
        body: object = await self._ask(
            link,
            lambda n: Query(
                request=n,
                what="alerts",
                stream=stream,
                since=link.clock.to_router(since) if since else 0,
                limit=1000,
                or_acknowledged=True,
                tell_missing=True,
            ),
            object,
        )
        try:
            if not isinstance(body, list):
                found = recent_here(read_reply(body, RecentAlertsReply), link.clock, since)
                if self._links.fenced and since > (now_ms := clock.now_ms()) + AHEAD_MS:
                    return msgspec.structs.replace(found, missing_before=now_ms)
                return found
            alerts = read_reply(body, list[RecentAlertRow])
        except BusError as exc:
            raise RouterUnavailable(str(exc)) from None
        return RecentAlertsReply(alerts=alerts, missing_before=alerts[0].at if alerts else clock.now_ms())

    async def alert_frames(self, alert_id: str, stream: str | None = None) -> list[AlertFrameRow]:
        """Return the recent alerts with this id and the frames they refer to, one for each stream.

        Args:
            alert_id: The id.
            stream: The stream that is meant; None: any. Rows of others may be among the result.

        Raises:
            RouterUnavailable: Also when there is none, and a slot is missing that may have it.
        """
        if stream is not None:
            link = self._links.of(stream)
            rows = await self._ask(link, lambda n: Query(request=n, what="alert", id=alert_id), list[AlertFrameRow])
            return frames_here(rows, link.clock)
        asked = await self._ask_all(lambda _, n: Query(request=n, what="alert", id=alert_id), list[AlertFrameRow])
        found = [row for slot, rows in asked.by_slot.items() for row in frames_here(rows, self._clock(slot))]
        if not found and asked.missing:
            raise RouterUnavailable(f"slots without a router: {', '.join(map(str, asked.missing))}")
        return found

    def _clock(self, slot: int) -> RouterClock:
        return self._links.at(slot).clock

    async def _ask(self, link: BusClient, make: Callable[[int], Query], kind: type[R]) -> R:
        try:
            return await link.query(make, kind)
        except BusError as exc:
            raise RouterUnavailable(str(exc)) from None

    async def _ask_all(self, make: Callable[[BusClient, int], Query], kind: type[R]) -> SlotReplies[R]:
        try:
            return await self._links.ask_all(make, kind)
        except BusError as exc:
            raise RouterUnavailable(str(exc)) from None
