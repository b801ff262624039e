"""``make demo-cluster``: three hosts on one machine, of which parts are killed; prints what was felt.

One camera (``door``) is at host a and is watched at hosts b and c, where the ML service is; another one (``yard``) is
at host b and is watched at host c. Alerts are posted and streams claimed all the time. Then a NATS server, a router
and a whole host are killed, one after another, and come back.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from examples.cluster import clients
from examples.cluster.felt import AlertBook, Arrivals, Claims
from examples.cluster.machines import Unable
from examples.cluster.site import Failed, Host, Site

SLOTS: Final = 4
FAULTS: Final = ("nats", "router", "host")
#: After a fault, all works again within this, or the demo says that it does not.
HEALED_S: Final = 60.0
#: Between two lines of progress.
EVERY_S: Final = 2.0
#: Where the console is reached from elsewhere, over ssh.
PORT_HERE: Final = 3031
#: Where the viewers are: name, stream, host.
VIEWERS: Final = (("door at b", "door", "b"), ("door at c", "door", "c"), ("yard at c", "yard", "c"))


@dataclass(frozen=True)
class Felt:
    """What was felt in one part of the demo: a row of the table."""

    what: str
    gaps: list[float]
    alerts: int
    lost: int
    twice: int
    ml: int
    claims: float


class Demo:
    """The site with its clients; `play` breaks it, part by part."""

    def __init__(self, site: Site, seconds: float, say: Callable[[str], None]) -> None:
        self._site, self._seconds, self._say = site, seconds, say
        self._lost_host = ""
        self._ml: list[str] = []
        self.book = AlertBook()
        self.arrivals = [Arrivals(name) for name, _, _ in VIEWERS]
        self.claims = [Claims(slot) for slot in range(SLOTS)]
        self.rows: list[Felt] = []

    def urls(self) -> list[str]:
        """The hosts that clients connect to: those that are there."""
        return [host.url for host in self._site.hosts if host.name != self._lost_host]

    @contextlib.asynccontextmanager
    async def cameras(self) -> AsyncIterator[None]:
        """The cameras send while the block lasts."""
        token, site = self._site.token(), self._site
        door, yard = await asyncio.gather(*(asyncio.to_thread(clients.pictures, seed) for seed in (7, 42)))
        async with running(
            clients.camera("door", [site["a"].url, site["b"].url], token, door, self._say),
            clients.camera("yard", [site["b"].url, site["c"].url], token, yard, self._say),
        ):
            yield

    @contextlib.asynccontextmanager
    async def others(self) -> AsyncIterator[None]:
        """Viewers watch, alerts are posted and streams claimed while the block lasts."""
        token, site = self._site.token(), self._site
        viewers = [
            clients.viewer(name, stream, site[host].url, token, arrivals, self.book, self._ml)
            for (name, stream, host), arrivals in zip(VIEWERS, self.arrivals, strict=True)
        ]
        async with running(*viewers):
            await self._until(lambda: all(each.at for each in self.arrivals), "the first frames came to no viewer")
            async with running(
                clients.poster("door", self.urls, site.service_token, self.book),
                *(clients.claimer(SLOTS, self.urls, token, claims) for claims in self.claims),
            ):
                yield

    async def play(self, faults: Sequence[str]) -> None:
        """A while without a fault, then each of these. Raises `Failed` when something does not heal."""
        await self._part("nothing is broken", None)
        for fault in faults:
            await getattr(self, f"_{fault}")()

    async def _nats(self) -> None:
        host = self._site["b"]
        await self._part("NATS server of host b killed", lambda: self._kill(host, "nats-server"))

    async def _router(self) -> None:
        host = await asyncio.to_thread(self._site.host_with_slot, 0)
        await self._part(f"router of host {host.name} killed", lambda: self._kill(host, "watchout-router"))

    async def _host(self) -> None:
        host = self._site["a"]
        began = time.monotonic()

        async def lose() -> None:
            self._say(
                "host a is lost with its NATS server, router and gateway, and the camera's connection; nobody is told"
            )
            self._lost_host = host.name
            await asyncio.to_thread(self._site.lose, host)

        async def find() -> None:
            await asyncio.sleep(max(0.0, began + self._seconds - time.monotonic()))
            self._say("host a is started again")
            self._site.find(host)
            await self._site.wait_healthy([host])
            self._lost_host = ""
            self._say("host a is healthy")

        await self._part("host a lost, and started again", lose, find)

    async def _kill(self, host: Host, program: str) -> None:
        pid = host.kill(program)
        self._say(f"kill -9 {pid}: {program} of host {host.name}")

    async def _part(
        self,
        what: str,
        fault: Callable[[], Coroutine[Any, Any, None]] | None,
        heal: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """Let a fault happen, watch until all works again, and note what was felt."""
        self._say(f"── {what} ──")
        since, accepted, ml = time.monotonic(), len(self.book.accepted), len(self._ml)
        if fault is not None:
            await fault()
        broken = time.monotonic()
        async with running(self._progress()):
            if heal is not None:
                await heal()
            healed = time.monotonic()
            await asyncio.sleep(max(0.0, since + self._seconds - time.monotonic()))
            await self._until(
                lambda: (
                    all(each.rate(healed, time.monotonic()) > 0 for each in self.arrivals)
                    and all(each.works(broken) for each in self.claims)
                    and len(self.book.accepted) > accepted
                ),
                f"{what}: not all works again",
            )
            await self._site.wait_healthy(self._site.hosts)
        now, count = time.monotonic(), len(self.book.accepted)
        names = [name for name, stream, _ in VIEWERS if stream == "door"]
        with contextlib.suppress(Failed):  # what does not come is lost: the table says so
            await self._until(lambda: not self._missing(names, accepted, count), "", 15.0)
        self.rows.append(
            Felt(
                what,
                [each.longest_gap(since, now) for each in self.arrivals],
                count - accepted,
                self._missing(names, accepted, count),
                self.book.twice(accepted),
                len(self._ml) - ml,
                max(each.longest(since, now) for each in self.claims),
            )
        )

    def _missing(self, names: Sequence[str], since: int, until: int) -> int:
        return AlertBook(self.book.accepted[since:until], self.book.came).lost(names)

    async def _progress(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(EVERY_S)
            now = time.monotonic()
            rates = "   ".join(f"{each.name} {each.rate(before, now):4.1f}/s" for each in self.arrivals)
            waiting = [each.slot for each in self.claims if each.open_since is not None and now - each.open_since > 1]
            claims = f"claims of slot {', '.join(map(str, waiting))} wait" if waiting else "claims work"
            self._say(
                f"   {rates}   {len(self.book.accepted)} alerts accepted, {len(self._ml)} of the ML service   {claims}"
            )

    async def _until(self, condition: Callable[[], bool], what: str, within_s: float = HEALED_S) -> None:
        give_up = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > give_up:
                raise Failed(f"{what} within {within_s:g} s")
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def running(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """These run while the block lasts; the block ends with the first that fails."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in coroutines]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


def table(rows: Sequence[Felt]) -> Table:
    """The rows as a table."""
    made = Table(title="What was felt: longest time without a frame at each viewer, alerts, longest claim of a stream")
    made.add_column("", no_wrap=True)
    for name, _, _ in VIEWERS:
        made.add_column(name, justify="right", no_wrap=True)
    for title in ("alerts", "lost", "twice", "by the ML", "claim"):
        made.add_column(title, justify="right")
    for row in rows:
        gaps = [f"{gap:.2f} s" for gap in row.gaps]
        made.add_row(
            row.what, *gaps, str(row.alerts), str(row.lost), str(row.twice), str(row.ml), f"{row.claims:.2f} s"
        )
    return made


def how_to_use(site: Site) -> str:
    """Where the site is reached, and what can be done with it."""
    on, holder = f"{os.path.relpath(site.home)}/on", site.host_with_slot(0)
    lines = [
        "The site stands until Ctrl-C. In another terminal of this machine, as root:",
        *(f"  console of host {host.name}    {host.url}" for host in site.hosts),
        f"  token               {site.token()}",
        f"  from elsewhere      ssh -L {PORT_HERE}:{site['a'].machine.address}:3000 THIS-MACHINE, then http://localhost:{PORT_HERE}",
        f"  look                {on} a watchout-ctl stats",
        f"                      {on} b watchout-ctl cluster",
        f"                      {on} c watchout-ctl doctor",
        f"  watch               {on} c watchout-ctl watch door --token TOKEN",
        f"  break               kill -9 {site['b'].pid_of('nats-server')}   (the NATS server of host b)",
        f"                      kill -9 {holder.pid_of('watchout-router')}   (the router of host {holder.name})",
        f"  logs                {os.path.relpath(site.home)}/a/log, …/b/log, …/c/log",
    ]
    return "\n".join(lines)


class Hold:
    """Keeps the site standing at the end of the demo, until a signal ends both."""

    def __init__(self) -> None:
        self._holds = False
        self._over = asyncio.Event()

    async def wait(self) -> None:
        """Return when the demo is told to end."""
        self._holds = True
        await self._over.wait()

    def end(self, demo: asyncio.Task[Any]) -> None:
        """End the demo: one that only holds goes on to its end, however long that takes; any other is cancelled."""
        if self._holds:
            self._over.set()
        else:
            demo.cancel()


async def run(site: Site, options: argparse.Namespace, say: Callable[[str], None], hold: Hold) -> list[Felt]:
    """Start the site, play, and hold it until it is told to end if that is wanted; what was felt."""
    site.make(say)
    say(f"three hosts start: {', '.join(f'{host.name} {host.url}' for host in site.hosts)}")
    await site.start()
    say("all are healthy: NATS, router and gateway on each, the ML service with its bridge on host c")
    demo = Demo(site, options.seconds, say)
    async with demo.cameras():
        if options.faults:
            async with demo.others():
                await demo.play(options.faults)
            Console(width=max(120, Console().width)).print(table(demo.rows))
        if options.hold:
            print(how_to_use(site), flush=True)
            await hold.wait()
    return demo.rows


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="make demo-cluster", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="folder of the demo, removed at the end")
    parser.add_argument("--net", default="10.77.0", help="first three numbers of the hosts' addresses")
    parser.add_argument(
        "--faults", nargs="*", choices=FAULTS, default=list(FAULTS), help="what is killed, in this order"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="least time for each part")
    parser.add_argument("--hold", action="store_true", help="leave the site standing afterwards, until Ctrl-C")
    return parser.parse_args()


async def main() -> int:
    """Run the demo; its exit code: 0, or 1 when something did not heal or an alert was lost or came twice."""
    options = arguments()
    began, loop, hold = time.monotonic(), asyncio.get_running_loop(), Hold()
    site = Site(options.home, options.net)

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    task = loop.create_task(run(site, options, say, hold), name="demo")
    stopped: list[int] = []

    def stop(number: int) -> None:
        if not stopped and not task.done():
            say("everything is ended and removed")
            stopped.append(number)
            hold.end(task)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    await asyncio.wait([task])
    await asyncio.to_thread(site.remove)
    if task.cancelled():
        return 128 + (stopped or [signal.SIGINT])[0]
    error = task.exception()
    if error is not None:
        known = leaves(error)
        if not all(isinstance(each, Failed | Unable) for each in known):
            raise error
        print(*(f"make demo-cluster: {each}" for each in known), sep="\n", file=sys.stderr)
        return 1
    return 1 if any(row.lost or row.twice for row in task.result()) else 0


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in a group, or the one that is none."""
    return (
        [leaf for each in error.exceptions for leaf in leaves(each)]
        if isinstance(error, BaseExceptionGroup)
        else [error]
    )


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
