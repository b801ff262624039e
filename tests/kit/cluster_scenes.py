"""What is played on a site of three hosts: cameras with viewers elsewhere, alerts of every slot, and what they felt."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from tests.kit.clients import Answer, Camera, Clients, Viewer, eventually, http, new_name
from tests.kit.cluster import COMES_S, FIGURES, HEALED_S, SLOTS, Site, told
from tests.kit.processes import SERVICE_TOKEN
from watchout.common.bus.slots import slot_of

#: No viewer may wait longer for a frame because something else ends. Among other tests processes pause for a second
#: now and then; whoever depended on what ends would wait longer still.
GAP_S: Final = 0.3 if FIGURES else 4.0


@contextlib.asynccontextmanager
async def aside(fault: AbstractContextManager[None]) -> AsyncIterator[None]:
    """A fault that holds while the block lasts, begun and ended in a thread: cameras and viewers go on meanwhile."""
    await asyncio.to_thread(fault.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(fault.__exit__, None, None, None)


def stream_of(slot: int) -> str:
    """A stream of this slot that no other test has."""
    return next(name for name in iter(new_name, None) if slot_of(name, SLOTS) == slot)


class Scene:
    """A camera on one host that sends while the block lasts, and viewers on others; what they felt is measured."""

    def __init__(self, site: Site, stream: str, camera: Camera, viewers: list[Viewer]) -> None:
        self.site, self.stream, self.camera, self.viewers = site, stream, camera, viewers

    def mark(self) -> list[int]:
        """How many messages each viewer has heard: what follows is what a fault did."""
        return [len(viewer.heard) for viewer in self.viewers]

    async def flows(self, count: int = 5) -> None:
        """Each viewer gets so many more frames."""
        for viewer in self.viewers:
            have = len(viewer.frames)
            await eventually(
                lambda viewer=viewer, have=have: len(viewer.frames) >= have + count, COMES_S,
                f"no frames of {self.stream}",
            )  # fmt: skip

    def longest_gap_s(self, viewer: Viewer, since: int = 0) -> float:
        """The longest time between two frames after so many messages."""
        found = list(zip(viewer.heard, viewer.heard_at, strict=True))[since:]
        at = [when for message, when in found if message["type"] == "video-frame"]
        return max((later - earlier for earlier, later in itertools.pairwise(at)), default=0.0)

    def felt_s(self, since: Sequence[int]) -> float:
        """The longest time that a viewer waited for a frame since so many messages, which `mark` gave."""
        return max(self.longest_gap_s(viewer, mark) for viewer, mark in zip(self.viewers, since, strict=True))

    def assert_frame_ids_rise(self) -> None:
        """`frameId` never falls, and no frame comes twice."""
        for viewer in self.viewers:
            ids = [m["frameId"] for m in viewer.frames if m["streamId"] == self.stream]
            assert ids == sorted(set(ids)), ids


class Scenes:
    """Scenes of several streams."""

    def __init__(self, each: Sequence[Scene]) -> None:
        self.each = each

    def __iter__(self) -> Iterator[Scene]:
        return iter(self.each)

    def __getitem__(self, index: int) -> Scene:
        return self.each[index]

    @property
    def viewers(self) -> list[Viewer]:
        """All viewers."""
        return [viewer for scene in self.each for viewer in scene.viewers]

    def of_viewers(self, count: int) -> Scenes:
        """The same with the first so many viewers of each."""
        return Scenes([Scene(each.site, each.stream, each.camera, each.viewers[:count]) for each in self.each])

    def mark(self) -> list[list[int]]:
        """How many messages each viewer has heard."""
        return [scene.mark() for scene in self.each]

    async def flows(self, count: int = 5) -> None:
        """Each viewer gets so many more frames."""
        await asyncio.gather(*(scene.flows(count) for scene in self.each))

    def assert_no_gap(self, what: str, since: Sequence[Sequence[int]]) -> None:
        """Since what `mark` gave no viewer waited longer for a frame than is promised."""
        gap = max(scene.felt_s(marks) for scene, marks in zip(self.each, since, strict=True))
        told(f"longest gap of frames: {what}", gap)
        assert gap < GAP_S


@contextlib.asynccontextmanager
async def scene(
    site: Site, clients: Clients, stream: str, *, camera_at: int = 0, viewers_at: Sequence[int] = (1,), fps: float = 10
) -> AsyncIterator[Scene]:
    """A camera and viewers, whose frames flow."""
    token = site.token()
    camera = await clients.camera(site[camera_at].url, token)
    await claim(camera, stream, COMES_S, consumes=["alert"])
    viewers = []
    for index in viewers_at:
        viewer = await clients.viewer(site[index].url, token)
        await viewer.subscribe(stream, lastFrame=False)
        viewers.append(viewer)
    async with camera.streaming(fps):
        made = Scene(site, stream, camera, viewers)
        await made.flows()
        yield made
        made.assert_frame_ids_rise()


@contextlib.asynccontextmanager
async def scene_of_each_slot(
    site: Site, clients: Clients, *, camera_at: int = 0, viewers_at: Sequence[int] = (1,), fps: float = 10
) -> AsyncIterator[Scenes]:
    """A camera and viewers of a stream of each slot."""
    async with contextlib.AsyncExitStack() as stack:
        yield Scenes(
            [
                await stack.enter_async_context(
                    scene(site, clients, stream_of(slot), camera_at=camera_at, viewers_at=viewers_at, fps=fps)
                )
                for slot in range(SLOTS)
            ]
        )


async def claim(camera: Camera, stream: str, within_s: float, **fields: Any) -> None:
    """Register a stream within this time, again after each `ROUTING_ERROR`, as clients do."""
    await camera.register(stream, within_s=within_s, **fields)


async def claims_work(
    site: Site, clients: Clients, hosts: Sequence[int] = (0, 1, 2), *, slots: Sequence[int] = range(SLOTS),
    within_s: float = HEALED_S, what: str = "",
) -> None:  # fmt: skip
    """New streams of these slots can be registered at each of these hosts, and are seen at each.

    Args:
        site: The site.
        clients: Makes the cameras.
        hosts: The hosts, by index.
        slots: The slots.
        within_s: All of it has to be so within this time.
        what: What was done, for the figure.
    """
    token, began = site.token(), time.monotonic()

    async def register(host: int, slot: int) -> tuple[Camera, str]:
        camera, stream = await clients.camera(site[host].url, token), stream_of(slot)
        await claim(camera, stream, within_s)
        return camera, stream

    made = await asyncio.gather(*(register(host, slot) for host in hosts for slot in slots))
    claimed_s = time.monotonic() - began
    streams = {stream for _, stream in made}

    async def known(url: str) -> bool:
        listed = await http(f"{url}/streams", token=token)
        return listed.status == 200 and streams <= {row["id"] for row in listed.json["streams"]}

    for host in hosts:
        await eventually(lambda host=host: known(site[host].url), within_s, f"host {host} knows the new streams")
    if what:
        told(f"claims are granted, and seen everywhere, after: {what} ({claimed_s:.3f} s)", time.monotonic() - began)
    await asyncio.gather(*(camera.leave() for camera, _ in made))


async def assert_one_truth(
    site: Site, made: Scenes | Scene, *, at: int = 0, others: int = 0, within_s: float = HEALED_S, what: str = ""
) -> None:
    """Every host says the same: the streams come from the host of their cameras; they and others have so many viewers.

    Args:
        site: The site.
        made: What is played.
        at: The host of the cameras, by index.
        others: How many viewers there are besides.
        within_s: It has to be so within this time.
        what: What was done, for the figure.
    """
    token, began = site.token(), time.monotonic()
    streams = [made.stream] if isinstance(made, Scene) else [scene.stream for scene in made]

    async def same() -> bool:
        for machine in site:
            for stream in streams:
                where = await http(f"{machine.url}/streams/{stream}/where", token=token)
                if where.status != 200 or where.json["url"] != site[at].url:
                    return False
            stats = await http(f"{machine.url}/stats")
            if stats.status != 200 or "missingSlots" in stats.json:
                return False
            if stats.json["totalVideoConsumers"] != len(made.viewers) + others:
                return False
        return True

    await eventually(same, within_s, "every host says the same")
    if what:
        told(f"one truth again after: {what}", time.monotonic() - began)


@dataclass
class Alerts:
    """Alerts that are posted one after another, at any host that takes them; `accepted` are their ids."""

    site: Site
    stream: str
    hosts: Sequence[int] = (0, 1, 2)
    accepted: list[str] = field(default_factory=list)
    refused: int = 0
    _number: int = 0

    async def post(self) -> bool:
        """Post the next alert until a host accepts it: the same id again after an error, as a client does."""
        self._number += 1
        alert_id = f"post-{self._number}"
        body = {"streamId": self.stream, "id": alert_id, "severity": "low", "message": alert_id}
        until = time.monotonic() + COMES_S
        for host in self._in_turn():
            answer: Answer | None = None
            with contextlib.suppress(OSError, TimeoutError, aiohttp.ClientError):  # it may have been killed just now
                async with asyncio.timeout(3.0):
                    answer = await http(f"{self.site[host].url}/alerts", method="POST", token=SERVICE_TOKEN, body=body)
            if answer is not None and answer.status == 202:
                self.accepted.append(alert_id)
                return True
            self.refused += 1
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.05)
        return False

    def _in_turn(self) -> Iterator[int]:
        while True:
            yield from self.hosts

    @contextlib.asynccontextmanager
    async def posting(self, per_s: float) -> AsyncIterator[None]:
        """Post while the block lasts, and then to the end of the last one: it may have been accepted already."""
        over = asyncio.Event()
        task = asyncio.get_running_loop().create_task(self._run(per_s, over), name="alerts")
        try:
            yield
            assert not task.done(), f"alerts of {self.stream} could not be posted: {task}"
            over.set()
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self, per_s: float, over: asyncio.Event) -> None:
        while not over.is_set():
            await self.post()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1 / per_s):
                    await over.wait()

    async def all_came(self, *receivers: Viewer | Camera) -> None:
        """Every accepted alert came to each of these once, and in order."""
        for receiver in receivers:

            def ids(receiver: Viewer | Camera = receiver) -> list[str]:
                alerts = [m for m in receiver.heard if m["type"] == "alert" and m["streamId"] == self.stream]
                return [alert["id"] for alert in alerts if alert["id"].startswith("post-")]

            def missing(ids: Any = ids) -> set[str]:
                return set(self.accepted) - set(ids())

            await eventually(lambda missing=missing: not missing(), COMES_S, "an accepted alert did not come")
            numbers = [int(each.removeprefix("post-")) for each in ids()]
            assert numbers == sorted(set(numbers)), f"each once, and in order: {numbers}"


class AlertsOfStreams:
    """Alerts of several streams, which are posted at the same time; those of one stream one after another."""

    def __init__(self, made: Scenes, hosts: Sequence[int] = (0, 1, 2)) -> None:
        self._scenes = made
        self.each = [Alerts(scene.site, scene.stream, (*hosts[i % len(hosts) :], *hosts[: i % len(hosts)]))
                     for i, scene in enumerate(made)]  # fmt: skip

    def __len__(self) -> int:
        """How many were accepted."""
        return sum(len(alerts.accepted) for alerts in self.each)

    @contextlib.asynccontextmanager
    async def posting(self, per_s: float) -> AsyncIterator[None]:
        """Post while the block lasts, so many a second of each stream."""
        async with contextlib.AsyncExitStack() as stack:
            for alerts in self.each:
                await stack.enter_async_context(alerts.posting(per_s))
            yield

    async def more(self, count: int, within_s: float = COMES_S) -> None:
        """Wait until so many more of each stream were accepted."""
        wanted = [len(alerts.accepted) + count for alerts in self.each]
        await eventually(
            lambda: all(len(each.accepted) >= least for each, least in zip(self.each, wanted, strict=True)),
            within_s, "alerts are accepted",
        )  # fmt: skip

    async def all_came(self) -> None:
        """Every accepted alert came once and in order to all viewers of its stream, and to its camera."""
        for alerts, scene in zip(self.each, self._scenes, strict=True):
            await alerts.all_came(*scene.viewers, scene.camera)
