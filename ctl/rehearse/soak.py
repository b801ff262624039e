"""A soak: everything at once on a system of its own, and whether any of its processes grows."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

import aiohttp

from watchout.client import WatchoutClientError, connect
from watchout.common import metric_names
from watchout.common.alerts.model import MAX_ALERTS
from watchout.ctl.rehearse import samples
from watchout.ctl.rehearse.even_samples import EvenSamples
from watchout.ctl.rehearse.growth import growth_of
from watchout.ctl.rehearse.own_system import OwnSystem
from watchout.ctl.rehearse.soak_result import Soak

#: How many gateways a soak has, at one port.
GATEWAYS: Final = 2
#: Settings of bounds that would take hours to be reached: memory that fills up to one is no leak.
SMALL_BOUNDS: Final = {"WHY_BYTES": "262144"}
#: Alerts that services post first, many at once, so that ids of alerts are remembered up to the bound of each gateway
#: long before the warm-up ends; afterwards one by one. Python lays out a dictionary of the newest 65 536 for the last
#: time when 87 381 have come.
ALERTS_FIRST: Final = 90_000
#: Seconds between two samples.
SAMPLE_EVERY_S: Final = 10.0
#: Most samples of one quantity, all of 24 hours.
MAX_SAMPLES: Final = 9_000
#: Growth an hour that is permitted, of each quantity, and its unit.
LIMITS: Final = {"memory": (1.0, "MB"), "descriptors": (1.0, ""), "threads": (1.0, ""), "tasks": (1.0, "")}
MB: Final = 1_000_000
#: Seconds in which one act has to be over, and for which a reader of MJPEG stays.
ACT_S: Final = 30.0
READ_S: Final = 20.0
MJPEG_READERS: Final = 3
READ_BYTES: Final = 1 << 16
#: What tokens that no session has begin with.
NOBODY: Final = "rehearse-no-such-session-"
#: The first act comes after this share of a soak at the latest, so that a short one has all.
FIRST: Final = 1 / 8
#: Most different faults that are kept.
MAX_FAULTS: Final = 20


class ActFailed(Exception):
    """An act did not have its effect; the text says what came and what was expected."""


class Soaking:
    """Samples the processes of a system, and does to it what clients of the load do not. `run` does until cancelled.

    Args:
        own: The system.
        token: A session token of it.
        streams: The ids of its streams.
        told: Returns what a process told of itself: process id, and name of a metric; None: nothing yet.
    """

    def __init__(
        self, own: OwnSystem, token: str, streams: Sequence[str], told: Callable[[int, str], float | None]
    ) -> None:
        self._own = own
        self._token = token
        self._streams = itertools.cycle(streams)
        self._told = told
        self._http = own.url.replace("ws", "http", 1)
        self._samples: dict[tuple[str, int, str], EvenSamples[tuple[float, float]]] = {}
        self._acts: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._acting: Mapping[str, tuple[float, Callable[[aiohttp.ClientSession], Awaitable[None]]]] = {
            "POST /alerts": (1.0, self._post_alert),
            "refused logins": (2.0, self._refused_login),
            "MJPEG readers": (5.0, self._read_mjpeg),
            "GET /metrics": (5.0, self._get_metrics),
            "watchout-ctl stats": (60.0, self._ctl_stats),
            "SIGHUP": (120.0, self._hang_up),
        }
        self._read_s = READ_S
        self._posted = 0

    async def run(self, at_s: Callable[[], float], seconds: float) -> None:
        """Sample and act until cancelled.

        Args:
            at_s: Returns the second of the rehearsal; nothing is done before 0.
            seconds: How long the load lasts.
        """
        self._read_s = min(READ_S, FIRST * seconds)
        await asyncio.sleep(max(0.0, -at_s()))
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            group.create_task(self._sample_on(at_s), name="samples")
            for name, (every_s, act) in self._acting.items():
                first_s = min(every_s, FIRST * seconds)
                for _ in range(MJPEG_READERS if name == "MJPEG readers" else 1):
                    group.create_task(self._repeat(name, first_s, every_s, partial(act, session)), name=name)

    def result(self) -> Soak:
        """Return what was found."""
        return Soak(
            growth=[
                growth_of(process=process, pid=pid, quantity=quantity, unit=LIMITS[quantity][1],
                          limit=LIMITS[quantity][0], samples=found.values())
                for (process, pid, quantity), found in self._samples.items()
            ],
            acts=dict(self._acts),
            faults=dict(self._faults),
        )  # fmt: skip

    # ── samples ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _sample_on(self, at_s: Callable[[], float]) -> None:
        while True:
            self.sample(at_s())
            await asyncio.sleep(SAMPLE_EVERY_S)

    def sample(self, at_s: float) -> None:
        """Sample each process of the system. One that has ended has no more samples; `OwnSystem.check` notices it."""
        for name, pid in self._own.pids():
            with contextlib.suppress(OSError):
                values = {
                    "memory": round(samples.private_bytes(pid) / MB, 3),
                    "descriptors": samples.descriptors(pid),
                    "threads": samples.threads(pid),
                    "tasks": self._told(pid, metric_names.ASYNCIO_TASKS),
                }
                for quantity, value in values.items():
                    if value is not None:
                        found = self._samples.setdefault((name, pid, quantity), EvenSamples(MAX_SAMPLES))
                        found.add((round(at_s, 1), float(value)))

    # ── acts ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _repeat(self, name: str, first_s: float, every_s: float, act: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(first_s)
        while True:
            try:
                async with asyncio.timeout(ACT_S):
                    await act()
                self._acts[name] += 1
            except (ActFailed, aiohttp.ClientError, WatchoutClientError, TimeoutError, OSError) as error:
                text = f"{name}: {str(error) or type(error).__name__}"
                if text in self._faults or len(self._faults) < MAX_FAULTS:
                    self._faults[text] += 1
            await asyncio.sleep(every_s)

    async def _post_alert(self, session: aiohttp.ClientSession) -> None:
        number = MAX_ALERTS if self._posted < ALERTS_FIRST else 1
        alerts = [
            {"streamId": next(self._streams), "severity": "low", "message": "soak: an alert of a service"}
            for _ in range(number)
        ]
        headers = {"Authorization": f"Bearer {self._own.settings.service_token}"}
        async with session.post(f"{self._http}/alerts", json=alerts, headers=headers) as response:
            await self._expect(response, 202)
        self._posted += number

    async def _refused_login(self, session: aiohttp.ClientSession) -> None:
        """Try a token of nobody, each time another one, over HTTP and on a socket: both are refused."""
        token = NOBODY + secrets.token_hex(8)
        headers = {"Authorization": f"Bearer {token}"}
        async with session.get(f"{self._http}/streams", headers=headers) as response:
            await self._expect(response, 401)
        with contextlib.suppress(WatchoutClientError):
            async with connect(self._own.url, token=token, wait_s=0.0) as client, client.subscribe("soak"):
                raise ActFailed("a token of nobody was accepted on a socket, expected to be refused")

    async def _read_mjpeg(self, session: aiohttp.ClientSession) -> None:
        """Read moving pictures for a while, then leave in the middle of one."""
        url = f"{self._http}/streams/{next(self._streams)}/mjpeg"
        async with session.get(url, headers={"Authorization": f"Bearer {self._token}"}) as response:
            await self._expect(response, 200)
            leaves_at = asyncio.get_running_loop().time() + self._read_s
            while asyncio.get_running_loop().time() < leaves_at:
                if not await response.content.read(READ_BYTES):
                    raise ActFailed("the gateway ended the pictures, expected them to go on")

    async def _get_metrics(self, session: aiohttp.ClientSession) -> None:
        token = self._own.settings.stats_token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with session.get(f"{self._http}/metrics", headers=headers) as response:
            await self._expect(response, 200)
            await response.read()

    async def _ctl_stats(self, _: aiohttp.ClientSession) -> None:
        if (code := await self._own.command("watchout.ctl", "stats", "--json")) != 0:
            raise ActFailed(f"exit code {code}, expected 0")

    async def _hang_up(self, _: aiohttp.ClientSession) -> None:
        self._own.signal(signal.SIGHUP)

    async def _expect(self, response: aiohttp.ClientResponse, status: int) -> None:
        if response.status != status:
            raise ActFailed(f"status {response.status}, expected {status}: {(await response.text())[:200]}")
