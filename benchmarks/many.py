"""How long event loops stand still while there are many streams: `python -m benchmarks.many`.

A router and a gateway with a probe in their loops (`benchmarks.stall_probe`), and the bus of some more gateways in this
process, which register the streams and report that frames of all of them came, each second. Measured are the longest
stalls while nothing is asked, while each list is asked for once a second, and when something happens to many streams at
once: bridges join and leave, viewers want all streams and go, streams are taken over and end, a gateway is lost, the
router is started again.

A stall by CPU time is what the process causes itself; by the wall clock it also has what the machine did otherwise.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click
import uvloop

from benchmarks import stall_probe
from benchmarks.crowd import AT_ONCE, Gateway, gateway_of, register
from benchmarks.systems import Failed, listening, process, tail
from tests.kit.ports import free_port
from watchout.common import clock, log
from watchout.common.bus.messages import Interest
from watchout.common.process import garbage
from watchout.common.settings import table

#: Gateways that have the streams, besides the one that is asked.
OWNERS: Final = 4
JOIN_S: Final = 60.0
PHASE_S: Final = 6.0
#: The probe's last line of a phase may come so much later.
LINE_S: Final = 1.5
REPORT_S: Final = 1.0


@dataclass(slots=True)
class Site:
    """One machine with a router and a gateway that is asked.

    `owners` have the streams, `viewing` gets viewers, `taking` takes streams over.
    """

    work: Path
    environ: dict[str, str | None]
    port: int
    token: str
    stack: AsyncExitStack
    viewing: Gateway = field(init=False)
    taking: Gateway = field(init=False)
    owners: list[Gateway] = field(default_factory=list)
    router: asyncio.subprocess.Process | None = None
    bridges: list[asyncio.subprocess.Process] = field(default_factory=list)
    starts: int = 0

    @property
    def probes(self) -> dict[str, Path]:
        """Where the probes write, by process."""
        return {"router": self.work / f"router-{self.starts}.jsonl", "gateway": self.work / "gateway.jsonl"}

    async def start_router(self) -> None:
        """Start the router, or start it again."""
        self.starts += 1
        self.router = await self._start("router", self.probes["router"])

    async def start_gateway(self) -> None:
        """Start the gateway that is asked."""
        child = await self._start("gateway", self.probes["gateway"])
        await listening(self.port, child, self.work / "gateway.log")

    async def start_bridge(self) -> None:
        """Start a bridge of the one group; its ML service does not answer."""
        self.environ["ML_SERVICE_URL"] = "http://127.0.0.1:9"
        output = self.work / f"mlbridge-{len(self.bridges)}.jsonl"
        self.bridges.append(await self._start("mlbridge", output))

    async def end_bridge(self) -> None:
        """End the bridge that was started last."""
        self.bridges[-1].terminate()
        await self.bridges[-1].wait()

    async def _start(self, name: str, probe: Path) -> asyncio.subprocess.Process:
        argv: list[str | Path] = [sys.executable, "-m", "benchmarks.stall_probe", probe, name]
        environ = {**self.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        started = process(argv, log=self.work / f"{name}.log", env=environ, cwd=self.work)
        return await self.stack.enter_async_context(started)

    async def get(self, path: str) -> bytes:
        """Return the body of a response of the gateway. Raises `Failed`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {self.token}\r\n\r\n"
        writer.write(head.encode())
        answer = await reader.read(-1)
        writer.close()
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise Failed(f"{path}: {answer[:300].decode(errors='replace')}")
        return answer

    async def whole(self, streams: int) -> None:
        """Wait until the gateway lists so many streams."""
        give_up = time.perf_counter() + JOIN_S
        body = b""
        while time.perf_counter() < give_up:
            try:
                body = await self.get("/stats")
            except (Failed, OSError):
                body = b""
            if body.count(b'"streamId"') >= streams:
                return
            await asyncio.sleep(0.5)
        raise Failed(f"{body.count(b'streamId')} of {streams} streams are listed after {JOIN_S:.0f} s")


@asynccontextmanager
async def _site() -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wo-")))
        port = free_port()
        shared = {
            "WATCHOUT_HOME": str(work / "home"), "WATCHOUT_HOST": "127.0.0.1", "WATCHOUT_PORT": str(port),
            "MAX_STREAMS": "100000", "LOG_LEVEL": "warning", "ROUTER_TIMEOUT_S": "10", "STREAM_ACCESS": "authenticated",
        }  # fmt: skip
        environ: dict[str, str | None] = {spec.env: None for _, spec, _ in table()}
        site = Site(work, {**environ, **shared}, port, "", stack)
        await site.start_router()
        await site.start_gateway()
        command = Path(sys.executable).parent / "watchout-ctl"
        async with process([command, "token"], log=work / "token", env=site.environ, cwd=work) as child:
            await child.wait()
        site.token = tail(work / "token").splitlines()[-1]
        gateways = [gateway_of(shared) for _ in range(OWNERS + 2)]
        for gateway in gateways:
            stack.push_async_callback(gateway.link.close)
        *site.owners, site.viewing, site.taking = gateways
        give_up = time.perf_counter() + JOIN_S
        while any(gateway.link.links.missing for gateway in gateways):
            if time.perf_counter() > give_up:
                raise Failed("the gateways did not join:\n" + tail(work / "router.log"))
            await asyncio.sleep(0.05)
        yield site


async def _report_frames(site: Site) -> None:
    """Report each second that frames of all streams came."""
    while True:
        for owner in [*site.owners, site.taking]:
            owner.hub.reports.active.update(each.stream for each in owner.hub.publications())
        await asyncio.sleep(REPORT_S)


async def _phase(site: Site, name: str, work: Callable[[], Awaitable[None]], *, last_s: float = PHASE_S) -> str:
    probes, since = site.probes, time.time()
    slowest, asked = 0.0, 0
    while time.time() < since + last_s:
        began = time.perf_counter()
        await work()
        asked += 1
        slowest = max(slowest, time.perf_counter() - began)
        await asyncio.sleep(max(0.0, began + 1 - time.perf_counter()))
    until = time.time() + LINE_S
    await asyncio.sleep(LINE_S)
    line = f"{name:<28}"
    for process_name, file in {**probes, **site.probes}.items():
        found = stall_probe.longest(file, since, until)
        line += f"  {process_name} " + ("–" if found is None else f"{found.cpu_ms:6.1f} ms ({found.wall_ms:6.1f})")
    return f"{line}  slowest of {asked}: {1000 * slowest:.0f} ms"


async def _nothing() -> None:
    """Ask nothing."""


async def _measured(streams: int) -> AsyncIterator[str]:
    garbage.relax()
    async with _site() as site:
        await register(site.owners, [f"crowd-{number}" for number in range(streams)])
        reporting = asyncio.create_task(_report_frames(site))
        await site.whole(streams)
        yield await _phase(site, "nothing is asked", _nothing)
        for path in ("/stats", "/health", "/metrics", "/streams"):

            async def ask(path: str = path) -> None:
                await site.get(path)

            yield await _phase(site, f"{path} each second", ask)
        command = Path(sys.executable).parent / "watchout-ctl"

        async def stats() -> None:
            argv: list[str | Path] = [command, "stats", "--json"]
            async with process(argv, log=site.work / "stats", env=site.environ, cwd=site.work) as child:
                if await child.wait():
                    raise Failed(tail(site.work / "stats"))

        yield await _phase(site, "watchout-ctl stats --json", stats)
        yield await _phase(site, "a bridge joins", _once(site.start_bridge))
        yield await _phase(site, "another one joins its group", _once(site.start_bridge))
        yield await _phase(site, "it leaves", _once(site.end_bridge))

        async def view() -> None:
            link = site.viewing.link.links.at(0)
            for number in range(streams):
                link.send(Interest(stream=f"crowd-{number}", viewers=1, alert_viewers=1))

        yield await _phase(site, "viewers want every stream", _once(view))
        yield await _phase(site, "their gateway leaves", _once(site.viewing.link.close))

        async def take_over() -> None:
            found = site.owners[0].hub.publications()
            for begin in range(0, len(found), AT_ONCE):
                claims = (site.taking.register(p.stream, p.owner.user_id) for p in found[begin : begin + AT_ONCE])
                await asyncio.gather(*claims)

        yield await _phase(site, "streams are taken over", _once(take_over))

        async def end_streams() -> None:
            for each in site.owners[1].hub.publications():
                site.owners[1].hub.release(each, clock.now_ms())

        yield await _phase(site, "streams end", _once(end_streams))
        lost = site.owners.pop()
        yield await _phase(site, "a gateway leaves", _once(lost.link.close))

        async def again() -> None:
            assert site.router is not None
            site.router.terminate()
            await site.router.wait()
            await site.start_router()

        yield await _phase(site, "the router starts again", _once(again), last_s=2 * PHASE_S)
        reporting.cancel()


def _once(work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """Return what does a work the first time, and then nothing."""
    waiting = [work]

    async def next_one() -> None:
        if waiting:
            await waiting.pop()()

    return next_one


async def _print_all(streams: int) -> None:
    async for line in _measured(streams):
        click.echo(line)


@click.command()
@click.option("--streams", type=click.IntRange(100, 100_000), default=20_000, show_default=True)
def main(streams: int) -> None:
    """Say how long loops stand still with so many streams: by CPU time, and in brackets by the wall clock."""
    log.setup(level="error", format="text", process="benchmark", take_streams=False)
    click.echo(f"Python {platform.python_version()}, {os.cpu_count()} cores, {streams} streams")
    try:
        uvloop.run(_print_all(streams))
    except Failed as fault:
        raise click.ClickException(str(fault)) from None


if __name__ == "__main__":
    main()
