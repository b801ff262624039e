"""Processes that are killed, stopped, started again and again or cannot do their work, and cameras that leave."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.kit.clients import Camera, eventually
from tests.kit.ports import free_port
from tests.rules.breakage import Shows, breaks
from tests.rules.stage import COMES_S, Kit, Stage, again

TOKEN: Final = "t" * 32
STORE: Final = """
create table "user" (id text primary key, name text);
create table session (id text primary key, "expiresAt" timestamptz not null, token text not null unique,
  "userId" text not null references "user" (id) on delete cascade);
insert into "user" values ('u1', 'alice');
insert into session values ('s1', now() + interval '1 day', '{token}', 'u1');
"""
CAMERAS: Final = 5


@dataclass
class Site(Stage):
    """A system with two gateways, four bridges and PostgreSQL."""

    cameras: list[Camera] = field(default_factory=list)
    database: Any = None
    folder: Path = Path()

    async def bridge(self, name: str) -> None:
        """Start a bridge; its `ALIVE_FILE` is in a folder of its own."""
        place = self.folder / name
        await asyncio.to_thread(place.mkdir, exist_ok=True)
        await self.start("mlbridge", name, ALIVE_FILE=str(place / "alive"))

    async def come(self) -> None:
        """Cameras come until all are there."""
        while len(self.cameras) < CAMERAS:
            self.cameras.append(await self.camera())

    async def leave(self, number: int) -> None:
        """So many cameras leave."""
        for _ in range(number):
            await self.cameras.pop().leave()


@contextlib.asynccontextmanager
async def scene(kit: Kit) -> AsyncIterator[Site]:
    """The system, with cameras and a viewer."""
    async with contextlib.AsyncExitStack() as stack:
        database = await asyncio.to_thread(kit.start_postgres, "18")
        url = await asyncio.to_thread(database.create_database)
        await asyncio.to_thread(database.run_sql, url, STORE.format(token=TOKEN))
        system = kit.watchout(start=False, expected=("Traceback", "failed"), environ={"DATABASE_URL": url})
        folder = kit.folder / "alive"
        folder.mkdir()
        here = Site(
            system, kit.clients, stack, [system.port, free_port()], TOKEN, database=database, folder=folder
        )  # fmt: skip
        await here.start("router", "router")
        for number, port in enumerate(here.ports, 1):
            await here.start("gateway", f"gateway.{number}", WATCHOUT_PORT=str(port))
        for name in ("killed", "flaps", "late", "stuck"):
            await here.bridge(name)
        await here.ready()
        await here.come()
        yield here


@breaks(
    "WatchoutProcessAway",
    how="a bridge is killed",
    where={"process": "killed"},
    shows=[Shows(("stats",), r"(?s)\A(?!.*killed).*flaps")],
)
async def killed(here: Site) -> AsyncIterator[None]:
    await asyncio.to_thread(here.named["killed"].kill)
    yield
    await here.bridge("killed")


@breaks("WatchoutRestarting", how="a bridge is killed and started four times", where={"process": "flaps"})
async def flaps(here: Site) -> AsyncIterator[None]:
    for _ in range(4):
        before = here.named["flaps"]
        await asyncio.to_thread(before.kill)
        await here.bridge("flaps")
        after = here.named["flaps"]
        await eventually(lambda process=after: "joined the router" in process.output, COMES_S)
        await asyncio.sleep(3.0)  # it runs for three scrapes
    yield


@breaks("WatchoutEventLoopLag", how="a bridge is stopped for 0.9 s again and again", where={"process": "late"})
async def late(here: Site) -> AsyncIterator[None]:
    process = here.named["late"]

    async def stop() -> None:
        await asyncio.to_thread(process.pause)
        await asyncio.sleep(0.9)
        process.resume()

    async with again(stop, 5.0):
        yield
    process.resume()


@breaks(
    "WatchoutTaskStalled", "WatchoutTaskFailures", how="the folder of a bridge's `ALIVE_FILE` is deleted",
    where={"process": "stuck"},
)  # fmt: skip
async def stuck(here: Site) -> AsyncIterator[None]:
    await asyncio.to_thread(shutil.rmtree, here.folder / "stuck")
    yield
    (here.folder / "stuck").mkdir()


@breaks("WatchoutGatewayUnreachable", how="a gateway is stopped (SIGSTOP)")
async def gateway_hangs(here: Site) -> AsyncIterator[None]:
    gateway = here.named["gateway.2"]
    await asyncio.to_thread(gateway.pause)
    yield
    gateway.resume()


@breaks("WatchoutSessionStoreAway", how="PostgreSQL is stopped", shows=[Shows(("doctor",), r"wrong +store")])
async def store_away(here: Site) -> AsyncIterator[None]:
    await asyncio.to_thread(here.database.stop)

    async def sign_in() -> None:
        await (await here.clients.viewer(here.url, TOKEN)).leave()

    async with again(sign_in, 0.5):
        yield
    await asyncio.to_thread(here.database.start)


@breaks("WatchoutCamerasLost", how=f"{CAMERAS - 1} of {CAMERAS} cameras leave")
async def some_leave(here: Site) -> AsyncIterator[None]:
    await here.leave(CAMERAS - 1)
    yield
    await here.come()


@breaks("WatchoutNoCameras", how="all cameras leave")
async def all_leave(here: Site) -> AsyncIterator[None]:
    await here.leave(CAMERAS)
    yield
    await here.come()


@breaks("WatchoutRouterAway", how="the router is killed", shows=[Shows(("doctor",), r"wrong .*router")])
async def router_away(here: Site) -> AsyncIterator[None]:
    await asyncio.to_thread(here.system.one("router").kill)
    yield
    await here.start("router", "router")


STEPS: Final = (
    (killed, flaps, late, stuck, gateway_hangs, some_leave), (all_leave,), (store_away,), (router_away,),
)  # fmt: skip
