"""The paths `/latency`, for operators, and `/streams/{id}/latency`, for whoever may view the stream."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from watchout.common.errors import RouterUnavailable
from watchout.common.latency.rows import LatencyPage, figures_of, nothing_of, page_of
from watchout.common.toolbox.single_flight import SingleFlight
from watchout.gateway.context import Context
from watchout.gateway.http.auth import StatsAuth, UserAuth
from watchout.gateway.http.responses import json_response

#: Streams that `/latency` shows at most: those with the slowest alerts and frames.
MAX_STREAMS: Final = 100


class LatencyPages:
    """Handlers of the two paths. They raise `HttpError` and `RouterUnavailable`."""

    def __init__(self, context: Context, auth: UserAuth) -> None:
        self._context = context
        self._users = auth
        self._operators = StatsAuth(context.settings)
        self._page = SingleFlight(self._ask, context.tasks)

    async def of_all(self, request: web.Request) -> web.Response:
        """Return the latencies of all streams together, and of the slowest ones."""
        self._operators.require(request)
        page = await self._page.result()
        if page is None:
            raise RouterUnavailable("the router did not send the latencies in time")
        return json_response(page)

    async def of_stream(self, request: web.Request) -> web.Response:
        """Return the latencies of one stream."""
        stream = request.match_info["id"]
        await self._users.viewable(request, stream)
        reply = await self._context.router.queries.latencies(stream)
        found = next((figures_of(row) for row in reply.streams if row.stream == stream), None)
        return json_response(found or nothing_of(stream))

    async def _ask(self) -> LatencyPage | None:
        try:
            return page_of(await self._context.router.queries.latencies(limit=MAX_STREAMS))
        except RouterUnavailable:
            return None
