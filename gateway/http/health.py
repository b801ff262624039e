"""The paths for operators: `/health`, `/health/live`, `/stats` and `/metrics`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from aiohttp import web

from watchout.common import supervisor
from watchout.common.bus.messages import HopRow
from watchout.common.bus.reply_records import MetricValues, StatsReply
from watchout.common.errors import BusError, RouterUnavailable, StoreUnavailable
from watchout.common.toolbox.single_flight import SingleFlight
from watchout.gateway.context import HEALTH_TIMEOUT_S, Context
from watchout.gateway.http import queries
from watchout.gateway.http.auth import StatsAuth
from watchout.gateway.http.public_stats import PublicStreams, missing_slots, stats_page
from watchout.gateway.http.responses import json_response

#: How long `/stats` waits for the list of streams, in times of `ROUTER_TIMEOUT_S`, which each page of it has.
LIST_TIMEOUTS: Final = 5


class HealthPages:
    """Handlers of the paths for operators and load balancers: `/health`, `/health/live`, `/stats` and `/metrics`.

    Concurrent requests share their calls to the router. `stats` and `metrics` raise `HttpError` 401, and `stats` also
    `RouterUnavailable`; `health` responds 503 with the reason instead.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._auth = StatsAuth(context.settings)
        #: The check that is under way, or the last one; concurrent requests share it.
        self._checking: asyncio.Task[tuple[str | None, StatsReply | None]] | None = None
        self._stats = SingleFlight(self._ask_router, context.tasks)
        self._streams = SingleFlight(self._list_streams, context.tasks)
        self._metrics = SingleFlight(self._render_metrics, context.tasks)

    async def live(self, _request: web.Request) -> web.Response:
        """Respond 200: the process works."""
        return json_response({"status": "live"})

    async def health(self, request: web.Request) -> web.Response:
        """Respond 200 when this gateway can serve clients, else 503 with the reason.

        Where only some slots have a router, it serves the streams of these: "degraded", with the missing slots. A load
        balancer that took all gateways out for one slot would make an outage of it. When the list of streams takes too
        long, the response is without it: many streams make nobody unhealthy.
        """
        part = queries.ListPart.of(request)
        if self._checking is None or self._checking.done():
            self._checking = self._context.tasks.start(self._check(), "health")
        reason, stats = await asyncio.shield(self._checking)
        missing = [] if stats is None else missing_slots(stats)
        body: dict[str, object] = {
            "status": "unhealthy" if reason is not None else "degraded" if missing else "healthy",
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        if reason is not None:
            body["reason"] = reason
        if missing:
            body["missingSlots"] = missing
        if stats is not None and self._auth.permits(request):
            streams = await self._fetch_streams(HEALTH_TIMEOUT_S, part)
            if streams is not None:
                page, rows = _page(stats, streams, part)
                body["stats"], body["metrics"] = msgspec.Raw(page), msgspec.Raw(rows)
        return json_response(body, 200 if reason is None else 503)

    async def stats(self, request: web.Request) -> web.Response:
        """Return the counts of all gateways as JSON, and the streams: all, or those that `limit` and `after` select.

        Raises `HttpError` 400 and 401, `RouterUnavailable`.
        """
        self._auth.require(request)
        part = queries.ListPart.of(request)
        stats, streams = await asyncio.gather(
            self._fetch_stats(), self._fetch_streams(LIST_TIMEOUTS * self._context.settings.router_timeout_s, part)
        )
        if stats is None or streams is None:
            raise RouterUnavailable("no stats")
        return json_response(msgspec.Raw(_page(stats, streams, part)[0]))

    async def metrics(self, request: web.Request) -> web.Response:
        """Return the metrics of all processes for Prometheus; of this process alone without a router.

        Raises `HttpError` 401.
        """
        self._auth.require(request)
        text = await self._metrics.result()
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _check(self) -> tuple[str | None, StatsReply | None]:
        """Return why this gateway is not healthy (None: it is), and the router's stats when they were fetched."""
        if self._context.draining:
            return "the gateway drains", None
        if self._context.connections.is_full:
            return "there is no room for more connections", None
        if stalled := supervisor.current().stalled():
            return f"periodic work has stalled: {', '.join(stalled)}", None
        router = self._context.router
        if not router.live and (why := router.links.explain_slots()):
            return why, None
        if not router.live or (stats := await self._fetch_stats(HEALTH_TIMEOUT_S)) is None:
            return "the router is unreachable", None
        if stats.router.state != "active":
            return "the router has just begun and waits for the reports of the gateways", stats
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                await self._context.authenticator.check()
        except StoreUnavailable as exc:
            return exc.public, stats
        except TimeoutError:
            return StoreUnavailable.public, stats
        return None, stats

    async def _fetch_stats(self, timeout_s: float | None = None) -> StatsReply | None:
        """Return the router's stats; None when they do not arrive in `timeout_s`, by default `ROUTER_TIMEOUT_S`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s or self._context.settings.router_timeout_s):
                return await self._stats.result()
        return None

    async def _fetch_streams(self, timeout_s: float, part: queries.ListPart | None) -> PublicStreams | None:
        """Return the list of streams, empty where none is wanted; None when it does not arrive in `timeout_s`."""
        if part is not None and not part.limit:
            return PublicStreams()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                return await self._streams.result()
        return None

    async def _ask_router(self) -> StatsReply | None:
        try:
            return await self._context.router.queries.stats()
        except RouterUnavailable:
            return None

    async def _list_streams(self) -> PublicStreams | None:
        walk, found = self._context.router.queries.stream_walk(coverage=True), PublicStreams()
        try:
            async for rows in walk.pages():
                found.add(rows)
        except (RouterUnavailable, BusError):
            return None
        found.missing.update(walk.missing)
        return found

    async def _render_metrics(self) -> bytes:
        stats = await self._fetch_stats() if self._context.router.live else None
        own, latencies = self._context.router.metrics(), self._context.router.latency.ledger.since_start()
        return await asyncio.to_thread(_metrics_page, stats, own, latencies)


def _metrics_page(stats: StatsReply | None, own: tuple[str, MetricValues], latencies: Sequence[HopRow]) -> bytes:
    """Return the page of ``/metrics``. Called in a thread, as the first page loads the library that writes it."""
    from watchout.gateway.http.prometheus import render_metrics

    return render_metrics(stats, own, latencies)


def _page(stats: StatsReply, streams: PublicStreams, part: queries.ListPart | None) -> tuple[bytes, bytes]:
    """Return the JSON of ``/stats``, and that of the list of streams in it."""
    ids, rows, following = (*streams.lists(), None) if part is None else streams.part(part.after, part.limit)
    return stats_page(stats, ids, rows, missing=missing_slots(stats, streams), following=following), rows
