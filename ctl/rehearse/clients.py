"""Runs the cameras and viewers of a plan with `watchout.client`, and counts what they send and see."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import time
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Final

import msgspec

from watchout.client import (
    Alert,
    AsyncCamera,
    Client,
    ConnectionPhase,
    Frame,
    PhaseChanged,
    Problem,
    Subscription,
    WatchoutClientError,
    connect,
)
from watchout.common.clock import now_ms
from watchout.common.latency.histogram import Histogram
from watchout.common.media.frame_ids import frames_between
from watchout.ctl.rehearse.figures import Counts, Durations, Moment, RoleCounts, StreamTally
from watchout.ctl.rehearse.ml_alerts import captured_at, number_of
from watchout.ctl.rehearse.plan import CameraPlan, LoadPlan, ViewerPlan, ViewerRole
from watchout.ctl.terminal import printable

#: Frames of a camera that may be under way without an acknowledgement, and to a slow viewer.
CAMERA_WINDOW: Final = 8
SLOW_WINDOW: Final = 2
#: Seconds for which cameras go on after the viewers have left, so that no viewer is told of their end.
CAMERAS_LONGER_S: Final = 0.5
#: Seconds after the end in which clients have to be done.
GRACE_S: Final = 5.0
#: Seconds between two measurements of how late this process is.
LAG_EVERY_S: Final = 0.05
#: What a code of a lost connection looks like, and that of one for which the gateway gave a sentence alone.
CODE: Final = re.compile(r"[A-Z][A-Z_]{2,39}")
OTHER_CODE: Final = "CLOSED_BY_GATEWAY"
#: Largest message of a gateway that is read, in bytes.
MAX_MESSAGE_BYTES: Final = 16 << 20


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What one process of clients does. `begin_ms` is the begin of the rehearsal, in ms since the epoch."""

    url: str
    tokens: list[str]
    plan: LoadPlan
    begin_ms: int
    pictures: list[bytes]


class Clients:
    """The clients of one process. `run` runs them; `second` returns what they counted since it was last called.

    Args:
        job: What they do.
        stop: Ends the rehearsal early when it is set.
    """

    def __init__(self, job: Job, stop: asyncio.Event) -> None:
        self.counts = Counts()
        self._job = job
        self._stop = stop
        self._seconds = job.plan.seconds
        self._begin = time.monotonic() + (job.begin_ms - now_ms()) / 1000
        self._glass, self._alert, self._lag = Histogram(), Histogram(), Histogram()
        self._bytes = 0
        self._over: asyncio.Task[None] | None = None
        self._told = Moment(at_s=0)
        self._cpu = time.process_time()

    @property
    def at_s(self) -> float:
        """Seconds of the rehearsal; negative before its begin."""
        return time.monotonic() - self._begin

    async def run(self) -> None:
        """Run all clients to the end of the plan, or to `stop`."""
        for plan in self._job.plan.viewers:
            self.counts.roles.setdefault(plan.role, RoleCounts()).viewers += 1
        lag = asyncio.create_task(self._measure_lag(), name="lag")
        self._over = asyncio.create_task(self._wait_for_end(), name="end")
        try:
            async with asyncio.TaskGroup() as group:
                for camera in self._job.plan.cameras:
                    group.create_task(self._kept(self._camera(camera), f"camera of {camera.stream}"))
                for viewer in self._job.plan.viewers:
                    group.create_task(self._kept(self._viewer(viewer), f"a {viewer.role} viewer"))
        finally:
            lag.cancel()
            self._over.cancel()
            await asyncio.wait({lag, self._over})

    def second(self) -> Moment:
        """Return what was counted since the last call."""
        viewers, told, cpu = self.counts.all_viewers(), self._told, time.process_time()
        self._told = Moment(
            at_s=0, sent=self.counts.sent, received=viewers.received, missing=viewers.missing,
            received_bytes=self._bytes, alerts=viewers.alerts + self.counts.camera_alerts,
        )  # fmt: skip
        moment = Moment(
            at_s=max(0, int(self.at_s - 0.5)),
            sent=self._told.sent - told.sent,
            received=self._told.received - told.received,
            missing=self._told.missing - told.missing,
            received_bytes=self._told.received_bytes - told.received_bytes,
            alerts=self._told.alerts - told.alerts,
            glass=Durations.of(self._glass),
            alert=Durations.of(self._alert),
            lag=Durations.of(self._lag),
            cpu_s=cpu - self._cpu,
        )
        self._glass, self._alert, self._lag, self._cpu = Histogram(), Histogram(), Histogram(), cpu
        return moment

    # ── cameras ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _camera(self, plan: CameraPlan) -> None:
        if not await self._reach(plan.begins_s):
            return
        async with self._client(plan.token, plan.stream) as client:
            camera = client.camera(plan.stream, window=CAMERA_WINDOW, demand=False)
            async with camera:
                listener = asyncio.create_task(self._listen(camera), name="alerts of a camera")
                try:
                    await self._until(self._seconds, [self._send(camera)])
                    await self._reach(self._seconds + CAMERAS_LONGER_S)
                    if self._stop.is_set():
                        await asyncio.sleep(CAMERAS_LONGER_S)
                finally:
                    listener.cancel()
                    await asyncio.wait({listener})

    async def _send(self, camera: AsyncCamera) -> None:
        """Send pictures by the clock, to the end; one that is late or finds no room is left out, and counted."""
        interval, counts = 1 / self._job.plan.fps, self.counts
        pictures: Iterator[bytes] = itertools.cycle(self._job.pictures)
        due = self.at_s
        while due < self._seconds and await self._reach(due):
            late = int((self.at_s - due) / interval)
            counts.due += 1 + late
            counts.held += late
            due += (1 + late) * interval
            if not camera.has_room:
                counts.held += 1
            elif await camera.send(next(pictures)):
                counts.sent += 1
            else:
                counts.held += 1

    async def _listen(self, camera: AsyncCamera) -> None:
        async for event in camera:
            if isinstance(event, Alert):
                self.counts.camera_alerts += 1
                self._alert.add(now_ms() - captured_at(event))

    # ── viewers ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _viewer(self, plan: ViewerPlan) -> None:
        if plan.role is ViewerRole.FLAPPING:
            for begin, end in plan.spans(self._seconds):
                if not await self._reach(begin):
                    return
                await self._view(plan, end)
        elif await self._reach(plan.begins_s):
            await self._view(plan, self._seconds)

    async def _view(self, plan: ViewerPlan, end: float) -> None:
        """View a stream until `end`, in seconds of the rehearsal, over a connection of its own."""
        slow = plan.role is ViewerRole.SLOW
        async with self._client(plan.token, plan.stream) as client:
            subscription = client.subscribe(
                plan.stream,
                window=SLOW_WINDOW if slow else None,
                frames_waiting=SLOW_WINDOW if slow else 1,
                last_frame=False,
            )
            async with subscription:
                eye = Eye(self, plan, subscription)
                tasks = [self._read(subscription, eye)]
                if plan.role is ViewerRole.HIDDEN:
                    tasks.append(self._hide(plan, subscription, eye))
                await self._until(end, tasks)
                eye.leave()

    async def _read(self, subscription: Subscription, eye: Eye) -> None:
        pause = 1 / self._job.plan.slow_fps if eye.role is ViewerRole.SLOW else 0.0
        async for event in subscription:
            if isinstance(event, Frame):
                eye.frame(event)
                if pause:
                    await asyncio.sleep(pause)
            elif isinstance(event, Alert):
                eye.alert(event)

    async def _hide(self, plan: ViewerPlan, subscription: Subscription, eye: Eye) -> None:
        for number, (begin, end) in enumerate(plan.spans(self._seconds)):
            if number:
                await self._reach(begin)
                subscription.resume()
            await self._reach(end)
            if end < self._seconds:
                subscription.pause()
                eye.hide()
        await self._stop.wait()

    def saw(self, plan: ViewerPlan, frame: Frame, missing: int) -> None:
        """Count a frame that a viewer read, and the frames before it that it never got."""
        role, stream = self.counts.roles[plan.role], self._stream(plan.stream)
        role.received += 1
        stream.received += 1
        role.missing += missing
        stream.missing += missing
        self._bytes += len(frame.picture)
        if plan.role is ViewerRole.STEADY:
            self._glass.add(now_ms() - frame.timestamp)

    def heard(self, plan: ViewerPlan, alert: Alert) -> None:
        """Count an alert that a viewer read."""
        self.counts.roles[plan.role].alerts += 1
        if plan.role is not ViewerRole.SLOW:
            self._alert.add(now_ms() - captured_at(alert))

    # ── what all share ───────────────────────────────────────────────────────────────────────────────────────────

    def _client(self, token: int, stream: str) -> Client:
        was_online = False

        def on_phase(change: PhaseChanged) -> None:
            nonlocal was_online
            ended = change.phase is ConnectionPhase.CLOSED and change.reason and was_online  # for good
            was_online = change.phase is ConnectionPhase.ONLINE
            if was_online:
                self._stream(stream).connections += 1
            elif change.phase is ConnectionPhase.WAITING or ended:
                code = change.code if CODE.fullmatch(change.code) else OTHER_CODE
                self.counts.lost[code] = self.counts.lost.get(code, 0) + 1
                self.counts.fault(f"connection lost: {printable(change.reason)}")

        def on_problem(problem: Problem) -> None:
            self.counts.fault(f"the gateway reports {printable(problem.code)}: {printable(problem.message)}")

        return connect(
            self._job.url,
            token=self._job.tokens[token],
            max_message_bytes=MAX_MESSAGE_BYTES,
            on_phase=on_phase,
            on_problem=on_problem,
        )

    def _stream(self, stream: str) -> StreamTally:
        return self.counts.streams.setdefault(stream, StreamTally())

    async def _kept(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run one client; an error ends this one alone, and is counted, as is one that lasts after the end."""
        task = asyncio.create_task(work, name=name)
        assert self._over is not None
        try:
            await asyncio.wait({task, self._over}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # another client failed
            task.cancel()
            await asyncio.wait({task})
            raise
        if not task.done():
            task.cancel()
            self.counts.fault(f"{name} was still waiting for the gateway at the end")
        for result in await asyncio.gather(task, return_exceptions=True):
            if isinstance(result, WatchoutClientError | OSError):
                self.counts.fault(f"{name} ended: {printable(result)}")
            elif isinstance(result, Exception):
                raise result

    async def _wait_for_end(self) -> None:
        """Return some seconds after the end of the rehearsal, or after it was ended early."""
        if not await self._reach(self._seconds + GRACE_S):
            await asyncio.sleep(GRACE_S)

    async def _reach(self, at_s: float) -> bool:
        """Wait until a second of the rehearsal; return False when the rehearsal ends before."""
        if (left := at_s - self.at_s) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._stop.wait()
        return not self._stop.is_set()

    async def _until(self, at_s: float, work: Sequence[Coroutine[Any, Any, None]]) -> None:
        """Run coroutines until a second of the rehearsal, its early end, or until one fails, whose error is raised."""
        tasks = {asyncio.create_task(each) for each in work}
        end = asyncio.create_task(self._stop.wait())
        try:
            done, _ = await asyncio.wait(
                {*tasks, end}, timeout=max(0.0, at_s - self.at_s), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for task in (*tasks, end):
                task.cancel()
            await asyncio.gather(*tasks, end, return_exceptions=True)
        for task in done:
            task.result()

    async def _measure_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            self._lag.add(max(0.0, loop.time() - due) * 1000)


class Eye:
    """What one viewer has seen of its stream on one subscription: which frames and alerts were left out.

    Args:
        clients: Counts for all.
        plan: The viewer.
        subscription: Its subscription.
    """

    def __init__(self, clients: Clients, plan: ViewerPlan, subscription: Subscription) -> None:
        self.role = plan.role
        self._clients = clients
        self._plan = plan
        self._subscription = subscription
        self._last = 0
        self._connection = subscription.connection
        self._replaced = 0
        self._alert = 0
        self._hidden = False

    def frame(self, frame: Frame) -> None:
        """Count a frame, and those left out before it since the last one on the same connection."""
        replaced = self._subscription.replaced
        here, self._replaced = replaced - self._replaced, replaced
        self._clients.counts.roles[self.role].replaced += here
        is_next = self._last and self._subscription.connection == self._connection and not self._hidden
        missing = max(0, frames_between(self._last, frame.frame_id) - here) if is_next else 0
        self._connection = self._subscription.connection
        self._last, self._hidden = frame.frame_id, False
        self._clients.saw(self._plan, frame, missing)

    def alert(self, alert: Alert) -> None:
        """Count an alert; those of the rehearsal's own ML service are numbered, so that a lost one is noticed."""
        counts, number = self._clients.counts.roles[self.role], number_of(alert)
        if number is not None:
            if self._alert and number > self._alert + 1:
                counts.alerts_lost += number - self._alert - 1
            counts.alerts_twice += number <= self._alert
            self._alert = max(self._alert, number)
        self._clients.heard(self._plan, alert)

    def hide(self) -> None:
        """Take the next frame as the first one: until it comes, frames are not wanted."""
        self._hidden = True

    def leave(self) -> None:
        """Count what was replaced since the last frame."""
        self._clients.counts.roles[self.role].replaced += self._subscription.replaced - self._replaced
