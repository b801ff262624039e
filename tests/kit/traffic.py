"""Cameras, viewers and alerts of the Python SDK while processes come and go; who missed what, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

import watchout.client as watchout_client
from tests.kit.clients import eventually, http, new_name
from tests.kit.ctl_command import TINY_JPEG
from tests.kit.processes import SERVICE_TOKEN
from watchout.client import Alert, Frame

#: What a slow machine may take for anything.
COMES_S: Final = 60.0


@dataclass
class Watcher:
    """One viewer of one stream: when frames came, and which alerts; `name` is its name in `Traffic.said`."""

    stream: str
    name: str = ""
    frames_at: list[float] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)

    async def read(self, events: Any) -> None:
        async for event in events:
            if isinstance(event, Frame):
                self.frames_at.append(time.monotonic())
            elif isinstance(event, Alert):
                self.alerts.append(event.id)

    def longest_gap(self, since: float, until: float) -> tuple[float, float]:
        """The longest time without a frame between two moments of the monotonic clock, and when it began."""
        times = [since, *(at for at in self.frames_at if since < at < until), until]
        return max((after - before, before) for before, after in itertools.pairwise(times))


@dataclass
class Traffic:
    """All clients of one watchout; made by `traffic`. `said` is what clients say of their connections: when, who, what.

    `raised` are the alerts that a gateway has accepted, by stream. `refused` says of each new connection, one every few
    milliseconds, that got no answer why not.
    """

    url: str
    watchers: list[Watcher] = field(default_factory=list)
    raised: dict[str, list[str]] = field(default_factory=dict)
    served: int = 0
    refused: list[str] = field(default_factory=list)
    said: list[tuple[float, str, str]] = field(default_factory=list)

    def client(self, token: str, name: str) -> Any:
        """A connection of the SDK whose phases and problems are written down."""

        def note(what: object) -> None:
            self.said.append((time.monotonic(), name, str(what)))

        return watchout_client.connect(self.url, token=token, on_phase=note, on_problem=note)

    def between(self, since: float, until: float, *names: str) -> list[str]:
        """What these clients said in this time, with the seconds since its begin."""
        return [
            f"{at - since:+.2f} s {who}: {what}" for at, who, what in self.said if since <= at <= until and who in names
        ]

    async def goes_on(self) -> None:
        """Return when each viewer got frames, and each stream an alert, after this moment."""
        now, alerts = time.monotonic(), {stream: len(ids) for stream, ids in self.raised.items()}
        await eventually(lambda: all(each.frames_at and each.frames_at[-1] > now for each in self.watchers), COMES_S)
        await eventually(lambda: all(len(ids) > alerts[stream] for stream, ids in self.raised.items()), COMES_S)

    async def all_alerts_come(self) -> None:
        """Wait until each viewer has every alert of its stream that was accepted so far."""
        wanted = {stream: set(ids) for stream, ids in self.raised.items()}

        def missing() -> list[list[str]]:
            lacks = (sorted(wanted[each.stream] - set(each.alerts)) for each in self.watchers)
            return [ids for ids in lacks if ids]

        await eventually(lambda: not missing(), COMES_S, lambda: f"alerts that a viewer did not get: {missing()}")


@contextlib.asynccontextmanager
async def traffic(
    url: str, token: str, *, cameras: int = 2, viewers: int = 2, fps: float = 20.0
) -> AsyncIterator[Traffic]:
    """So many cameras, each with so many viewers that see frames; alerts and new connections go on all the time."""
    found = Traffic(url)
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[None]] = []
        for stream in [new_name() for _ in range(cameras)]:
            client = await stack.enter_async_context(found.client(token, f"camera of {stream}"))
            camera = await stack.enter_async_context(client.camera(stream))
            tasks.append(group.create_task(_film(camera, fps)))
            found.raised[stream] = []
            for number in range(viewers):  # each with a socket of its own
                name = f"viewer {number} of {stream}"
                viewer = await stack.enter_async_context(found.client(token, name))
                events = await stack.enter_async_context(viewer.subscribe(stream))
                found.watchers.append(Watcher(stream, name))
                tasks.append(group.create_task(found.watchers[-1].read(events)))
        tasks += [group.create_task(_raise_alerts(found, stream)) for stream in found.raised]
        over = threading.Event()
        group.create_task(asyncio.to_thread(_knock, found, over))
        try:
            await found.goes_on()
            yield found
        finally:
            over.set()
            for task in tasks:
                task.cancel()


async def _film(camera: Any, fps: float) -> None:
    while True:
        await camera.room()
        await camera.send(TINY_JPEG)
        await asyncio.sleep(1 / fps)


async def _raise_alerts(found: Traffic, stream: str) -> None:
    """Alerts, one after the other: each is told again until a gateway has accepted it."""
    for number in range(1_000_000):
        name = f"{stream}-{number}"
        alert = {"streamId": stream, "severity": "low", "message": name, "id": name}
        while True:
            with contextlib.suppress(OSError, aiohttp.ClientError):
                answer = await http(f"{found.url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)
                if answer.status == 202:
                    break
            await asyncio.sleep(0.05)
        found.raised[stream].append(name)
        await asyncio.sleep(0.2)


def _knock(found: Traffic, over: threading.Event) -> None:
    """New connections, one after the other, each with a request that any gateway answers."""
    host, _, port = found.url.removeprefix("http://").partition(":")
    while not over.wait(0.01):
        try:
            with socket.create_connection((host, int(port)), timeout=COMES_S) as one:
                one.sendall(b"GET /health/live HTTP/1.1\r\nHost: tests\r\nConnection: close\r\n\r\n")
                said = one.recv(15)
        except OSError as error:
            found.refused.append(repr(error))
        else:
            if said.startswith(b"HTTP/1.1 200"):
                found.served += 1
            else:
                found.refused.append(repr(said))
