"""Alerts that reach nobody: no viewer, no router, a webhook that fails, and a person who does not answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from tests.kit.clients import Viewer
from tests.kit.ml_stub import MlStub
from tests.rules.breakage import Shows, breaks
from tests.rules.stage import COMES_S, Kit, Stage, again, eventually

SECRET: Final = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU2Nzg5"
GIVE_UP_S: Final = 45
#: The router is away for longer than the ten minutes of the rule, which are 40 s here.
AWAY_S: Final = 50.0
BRIEFLY_S: Final = 20.0
#: A bridge holds a thousand alerts.
MANY: Final = [{"severity": "low", "message": f"person {number}"} for number in range(40)]


@dataclass
class Hook:
    """A webhook that answers with `status`."""

    status: int = 204
    taken: int = 0
    url: str = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Hook]:
        """Serve while the block runs."""

        async def take(_request: web.Request) -> web.Response:
            self.taken += 1
            return web.Response(status=self.status)

        app = web.Application()
        app.router.add_post("/hook", take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
            yield self
        finally:
            await runner.cleanup()


@dataclass
class Told(Stage):
    """A system whose alerts go to a viewer and a webhook."""

    hook: Hook = field(default_factory=Hook)
    service: MlStub = field(default_factory=MlStub)
    stream: str = ""
    watcher: Viewer | None = None


@contextlib.asynccontextmanager
async def scene(kit: Kit) -> AsyncIterator[Told]:
    """The system, with an alert now and then."""
    async with contextlib.AsyncExitStack() as stack:
        hook = await stack.enter_async_context(Hook().running())
        service = MlStub()
        await service.start()
        stack.push_async_callback(service.stop)
        system = kit.watchout(
            start=False, expected=("Connect call failed", "failed"),
            environ={
                "ALERT_COOLDOWN_S": "0", "ALERT_WEBHOOK_URL": hook.url, "ALERT_WEBHOOK_SECRETS": SECRET,
                "ALERT_WEBHOOK_ALLOW_PRIVATE": "true", "ALERT_WEBHOOK_GIVE_UP_S": str(GIVE_UP_S),
                "ALERT_ESCALATE_S": "3", "ALERT_ESCALATE_SEVERITY": "high", "ML_SERVICE_URL": service.url,
            },
        )  # fmt: skip
        here = Told(system, kit.clients, stack, [system.port], hook=hook, service=service)
        await here.start("router", "router")
        await here.start("gateway", "gateway")
        await here.start("mlbridge", "mlbridge")
        await here.ready()
        here.stream = (await here.camera()).stream
        here.watcher = await here.viewer(here.stream)
        await stack.enter_async_context(again(lambda: here.post_alerts(here.stream), 0.5))
        await eventually(lambda: hook.taken and service.looks, COMES_S)
        yield here


@breaks(
    "WatchoutNobodyTold",
    how="the only viewer leaves, while alerts arrive",
    shows=[Shows(("stats",), r"· 0 alert viewers")],
)
async def nobody_there(here: Told) -> AsyncIterator[None]:
    assert here.watcher is not None
    await here.watcher.leave()
    yield
    here.watcher = await here.viewer(here.stream)


@breaks("WatchoutAlertsEscalated", how="nobody acknowledges an alert of severity `high` within `ALERT_ESCALATE_S`")
async def nobody_acknowledges(here: Told) -> AsyncIterator[None]:
    await here.post_alerts(here.stream, severity="high")
    yield


@breaks(
    "WatchoutWebhookBehind", "WatchoutWebhookAlertsLost",
    how=f"the webhook answers with 500; `ALERT_WEBHOOK_GIVE_UP_S` is {GIVE_UP_S}",
    shows=[Shows(("stats", "--json"), r"\"webhook\"(?s:.)*500")],
)  # fmt: skip
async def webhook_fails(here: Told) -> AsyncIterator[None]:
    here.hook.status = 500
    yield
    here.hook.status = 204


@breaks(
    "WatchoutWebhookAlertsLost",
    how="the webhook answers with 410",
    shows=[Shows(("stats", "--json"), r"\"webhook\"(?s:.)*410")],
)
async def webhook_gone(here: Told) -> AsyncIterator[None]:
    here.hook.status = 410
    yield
    here.hook.status = 204
    router = here.system.one("router")
    await asyncio.to_thread(router.terminate)
    await here.start("router", "router")


async def lose_alerts(here: Told, away_s: float) -> None:
    """The router is away for so long, while the ML service raises more alerts than a bridge holds."""
    router = here.system.one("router")
    await asyncio.to_thread(router.kill)
    here.service.mode, here.service.answer = "answer", {"alerts": MANY}
    await asyncio.sleep(away_s)  # how long it is away is what this is about
    here.service.mode = "none"
    await here.start("router", "router")


@breaks("WatchoutAlertsLost", how="the router is away for a while, and the ML service raises thousands of alerts")
async def too_many_wait_briefly(here: Told) -> AsyncIterator[None]:
    await lose_alerts(here, BRIEFLY_S)
    yield


@breaks(
    "WatchoutAlertsLost",
    how="the router is away for longer than the window of the rule, while the ML service raises thousands of alerts",
)
async def too_many_wait(here: Told) -> AsyncIterator[None]:
    await lose_alerts(here, AWAY_S)
    yield


STEPS: Final = (
    (nobody_there, nobody_acknowledges, webhook_fails),
    (webhook_gone,),
    (too_many_wait_briefly,),
    (too_many_wait,),
)
