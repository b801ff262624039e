"""What the tests of a cluster play on it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

from aiohttp import web

from tests.kit.browser import serving
from tests.kit.clients import eventually
from tests.kit.cluster import Site
from tests.kit.cluster_scenes import Alerts


async def test_an_alert_that_is_under_way_when_posting_ends_is_known_as_accepted() -> None:
    taken: list[str] = []
    answered = asyncio.Event()

    async def take(request: web.Request) -> web.Response:
        taken.append((await request.json())["id"])
        await answered.wait()
        return web.Response(status=202)

    app = web.Application()
    app.router.add_post("/alerts", take)
    async with serving(app) as url:
        site = cast("Site", [SimpleNamespace(url=url.rstrip("/"))])
        alerts = Alerts(site, "cam", hosts=(0,))
        async with alerts.posting(1000):
            await eventually(lambda: taken)
            asyncio.get_running_loop().call_later(0.05, answered.set)
        assert alerts.accepted == taken == ["post-1"]
