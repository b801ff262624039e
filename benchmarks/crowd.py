"""Streams by the thousand over the slots of a cluster: `python -m benchmarks.crowd`.

Three hosts on one machine, each with a home and a router of its own, joined by a NATS server, and the bus of three
gateways (`RouterClient` with its `Hub`) in one process. Measured:

- **claims**: registrations a second over all slots, from a gateway's request to the grant, so many of them at once;
- **idle streams**: what the routers hold for each registered stream, how long queries take then, and after how long
  all streams are known again when a router was killed.

WebSockets are left out: one process may not open so many files, and what one costs is measured by the point `idle`.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import msgspec
import uvloop

from benchmarks import meter
from benchmarks.systems import Failed, process, tail
from benchmarks.systems.watchout import joined_hosts
from watchout.common import clock, log
from watchout.common.bus.messages import GrantedReply
from watchout.common.metrics import Metrics
from watchout.common.process import garbage
from watchout.common.settings import load, table
from watchout.gateway.hub.registry import Hub
from watchout.gateway.model import Owner
from watchout.gateway.router_client import RouterClient

HOSTS: Final = 3
#: Claims that are under way at once, of all gateways.
AT_ONCE: Final = 256
#: The users who own the streams.
USERS: Final = 1_000
JOIN_S: Final = 30.0
AGAIN_S: Final = 120.0


class _Camera:
    """A publisher that sends nothing and hears nothing."""

    def send_message(self, message: bytes) -> None:
        """It hears nothing."""

    def send_ping(self, data: bytes) -> None:
        """It answers nothing."""

    def on_taken_over(self, stream: str) -> None:
        """It notices nothing."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The bus of a gateway."""

    hub: Hub
    link: RouterClient

    async def register(self, stream: str, user: str) -> None:
        """Register a stream as a camera's socket does. Raises `Failed` when the claim is refused."""
        owner = Owner(user)
        reply = await self.link.claim(stream, owner, producing=True, floor=0)
        if not isinstance(reply, GrantedReply):
            raise Failed(f"{stream} was refused: {reply.message}")
        self.hub.publish(
            stream, owner, _CAMERA, term=reply.term, first_frame_id=reply.first_frame_id, producing=True,
            wants_alerts=False, now=asyncio.get_running_loop().time(), now_ms=clock.now_ms(),
        )  # fmt: skip


_CAMERA: Final = _Camera()


def gateway_of(environ: dict[str, str]) -> Gateway:
    """Return the bus of a gateway with these settings, which begins to join its routers."""
    settings = load(environ)
    link = RouterClient(settings, Metrics(), sockets=lambda: 0)
    hub = Hub(wake=link.wake, to_bus=link.frame_to_bus, to_members=link.frame_to_members)
    link.start(hub)
    return Gateway(hub, link)


@dataclass(slots=True)
class Site:
    """The running cluster; `routers` are processes, by host."""

    gateways: list[Gateway]
    routers: list[asyncio.subprocess.Process]

    async def whole(self, streams: int, within_s: float) -> float:
        """Wait until the routers know so many streams, and none of a slot is missing; the seconds that it took."""
        began = time.perf_counter()
        found: object = None
        while time.perf_counter() - began < within_s:
            if not any(gateway.link.links.missing for gateway in self.gateways):
                reply = await self.gateways[0].link.queries.stats()
                found = reply.stream_count
                if found >= streams and reply.missing_slots is msgspec.UNSET:
                    return time.perf_counter() - began
            await asyncio.sleep(0.1)
        raise Failed(f"{found} of {streams} streams are known after {within_s:.0f} s")


@asynccontextmanager
async def _site(streams: int) -> AsyncIterator[Site]:
    scripts = Path(sys.executable).parent
    async with AsyncExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wo-")))
        hosts, _ = await stack.enter_async_context(joined_hosts(work, work / "home", HOSTS))
        more = {"MAX_STREAMS": str(max(20_000, streams)), "LOG_LEVEL": "warning", "ROUTER_TIMEOUT_S": "10"}
        cleared: dict[str, str | None] = {spec.env: None for _, spec, _ in table()}
        routers = []
        for number, host in enumerate(hosts):
            output = work / f"router-{number}.log"
            routers.append(
                await stack.enter_async_context(
                    process([scripts / "watchout-router"], log=output, env={**cleared, **host, **more}, cwd=work)
                )
            )
        gateways = [gateway_of({**host, **more}) for host in hosts]
        for gateway in gateways:
            stack.push_async_callback(gateway.link.close)
        give_up = time.perf_counter() + JOIN_S
        while any(gateway.link.links.missing for gateway in gateways):
            if time.perf_counter() > give_up:
                raise Failed("the gateways did not join:\n" + tail(work / "router-0.log"))
            await asyncio.sleep(0.05)
        yield Site(gateways, routers)


async def register(gateways: Sequence[Gateway], names: Sequence[str]) -> None:
    """Register these streams, spread over the gateways, `AT_ONCE` at a time."""
    waiting = iter(enumerate(names))

    async def one() -> None:
        for number, name in waiting:
            await gateways[number % len(gateways)].register(name, f"user{number % USERS}")

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(one())


async def _measured(streams: int, *, kill: bool) -> list[str]:
    said: list[str] = []
    garbage.relax()
    async with _site(streams) as site:
        alive = [router.pid for router in site.routers]
        own_before, routers_before, before = time.process_time(), _cpu_s(alive), meter.pss(alive)
        began = time.perf_counter()
        await register(site.gateways, [f"crowd-{number}" for number in range(streams)])
        took_s = time.perf_counter() - began
        await site.whole(streams, AGAIN_S)
        own_us, routers_us = (
            1e6 * (now - then) / streams
            for now, then in ((time.process_time(), own_before), (_cpu_s(alive), routers_before))
        )
        said.append(f"claims: {streams / took_s:.0f} a second over all slots, {AT_ONCE} at once ({took_s:.1f} s)")
        said.append(f"CPU for each stream: routers {routers_us:.0f} µs, gateways {own_us:.0f} µs")
        said.append(f"memory of the routers for each stream: {(meter.pss(alive) - before) / streams / 1000:.2f} kB")
        said.append(f"stats over all slots: {await _slowest_ms(site):.0f} ms, the slowest of 5")
        routers_before = _cpu_s(alive)
        await asyncio.sleep(10)
        said.append(
            f"CPU of the routers when nothing happens: {100 * (_cpu_s(alive) - routers_before):.1f} ms a second"
        )
        if kill:
            site.routers[0].kill()
            await site.routers[0].wait()
            began = time.perf_counter()
            await asyncio.sleep(2)  # its members do not miss it at once
            await site.whole(streams, AGAIN_S)
            said.append(f"a router killed: all streams are known again after {time.perf_counter() - began:.1f} s")
    return said


async def _slowest_ms(site: Site) -> float:
    slowest = 0.0
    for _ in range(5):
        began = time.perf_counter()
        await site.gateways[1].link.queries.stats()
        slowest = max(slowest, time.perf_counter() - began)
    return 1000 * slowest


def _cpu_s(pids: Sequence[int]) -> float:
    return sum(meter.cpu_s(pid) for pid in pids)


@click.command()
@click.option("--streams", type=click.IntRange(100, 1_000_000), default=100_000, show_default=True)
@click.option("--kill/--no-kill", default=True, help="Kill a router at the end, and wait for its streams.")
def main(streams: int, kill: bool) -> None:
    """Register many streams over three hosts, and say what they cost."""
    log.setup(level="error", format="text", process="benchmark", take_streams=False)
    click.echo(f"Python {platform.python_version()}, {os.cpu_count()} cores, {streams} streams over {HOSTS} hosts")
    try:
        lines = uvloop.run(_measured(streams, kill=kill))
    except Failed as fault:
        raise click.ClickException(str(fault)) from None
    for line in lines:
        click.echo(line)


if __name__ == "__main__":
    main()
