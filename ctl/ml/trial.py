"""A bridge without a router: shows pictures to an ML service as mlbridge does, and keeps what came of each frame.

The target, the deadlines, the turns and the checks of alerts are mlbridge's own; only the bus is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from watchout.common.alerts.model import Alert, AlertFault
from watchout.common.clock import now_ms
from watchout.common.media.frames import Frame
from watchout.common.metrics import Metrics
from watchout.common.settings import Settings
from watchout.ctl.environment import Failure
from watchout.ctl.ml.report import Look, Outcome, Record, Told
from watchout.ctl.sources.open import Source
from watchout.ctl.sources.pump import Pump
from watchout.mlbridge.alerts import read_alerts
from watchout.mlbridge.cooldown import Cooldown
from watchout.mlbridge.dispatcher import Dispatcher
from watchout.mlbridge.failover import Failover
from watchout.mlbridge.scheduler import Scheduler
from watchout.mlbridge.targets import OnAlerts, Target, TargetFailure, TargetTimeout, UnusableMessage, open_target

#: Frames of which it is remembered when they were shown, for alerts that come by themselves.
MAX_REMEMBERED: Final = 10_000
#: Frames that may wait for the shadow; more are not compared.
MAX_SHADOW_FRAMES: Final = 16
#: Frames of one run.
MAX_FRAMES: Final = 500_000

#: What the scheduler allows, where another rule says how many frames are shown.
UNLIMITED_FPS: Final = 1e6

#: Told each alert as it came, and each reason for which one was refused.
OnAlert = Callable[[Told], None]
OnRefused = Callable[[str], None]


class Witness:
    """A target that stands before another one, and writes down each frame and each alert."""

    def __init__(self, target: Target, settings: Settings, *, told: OnAlert, refused: OnRefused) -> None:
        self.record = Record(target.public_url, Cooldown(settings.alert_cooldown_s))
        self._target = target
        self._timeout_s = settings.ml_timeout_s
        self._told = told
        self._refused = refused
        self._shown: OrderedDict[int, tuple[float, float]] = (
            OrderedDict()
        )  # frame id → place in the footage, when it was shown
        self._under_way: set[asyncio.Task[object]] = set()
        self._at_s = 0.0
        self.places: dict[int, float] = {}

    @property
    def public_url(self) -> str:
        """That of the target behind."""
        return self._target.public_url

    async def open(self, heard: OnAlerts) -> None:
        """Open the target behind."""

        def hear(values: list[object]) -> None:
            self._said(values, None)
            heard(values)

        await self._target.open(hear)

    async def analyse(self, frame: Frame, *, isolated: bool = False) -> list[object]:
        """Show it to the target behind; whatever comes of it is written down."""
        started = time.perf_counter()
        at_s = self.places.pop(frame.frame_id, self._at_s)
        self._at_s = max(self._at_s, at_s)
        self._shown[frame.frame_id] = at_s, started
        if len(self._shown) > MAX_REMEMBERED:
            del self._shown[next(iter(self._shown))]

        def look(outcome: Outcome, reason: str = "") -> None:
            latency_ms = (time.perf_counter() - started) * 1e3
            self.record.shown(Look(frame.frame_id, at_s, latency_ms, outcome, reason))

        try:
            values = await self._target.analyse(frame, isolated=isolated)
        except asyncio.CancelledError:
            look(Outcome.TIMEOUT, f"no answer within {self._timeout_s:g} s")
            raise
        except AlertFault as fault:
            look(Outcome.ANSWERED)
            self._refuse(str(fault), frame.frame_id)
            raise
        except TargetFailure as failure:
            look(Outcome.TIMEOUT if isinstance(failure, TargetTimeout) else Outcome.FAILED, str(failure))
            raise
        look(Outcome.ANSWERED)
        self._said(values, frame)
        return values

    async def show_in_time(self, frame: Frame) -> None:
        """Show it with the deadline of a request; failures are in the record."""
        with contextlib.suppress(TimeoutError, TargetFailure, AlertFault):
            async with asyncio.timeout(self._timeout_s):
                await self.analyse(frame)

    async def close(self) -> None:
        """Close the target behind."""
        await self._target.close()

    def _said(self, values: list[object], frame: Frame | None) -> None:
        for fault in values:
            if isinstance(fault, UnusableMessage):
                self._refuse(fault, None)
        values = [value for value in values if not isinstance(value, UnusableMessage)]
        read = read_alerts(values, frame, now_ms=now_ms())
        for alert, *_ in read.alerts:
            at_s, after_ms = self._place(alert)
            self._told(self.record.alert(alert, at_s, after_ms, self._at_s if at_s is None else at_s))
        for reason in read.refused:
            self._refuse(reason, None if frame is None else frame.frame_id)

    def _place(self, alert: Alert) -> tuple[float | None, float | None]:
        if alert.frame_id is None or alert.frame_id not in self._shown:
            return None, None
        at_s, started = self._shown[alert.frame_id]
        return at_s, (time.perf_counter() - started) * 1e3

    def _refuse(self, reason: str, frame_id: int | None) -> None:
        self.record.refused(reason, frame_id)
        self._refused(reason)


def witness(settings: Settings, *, told: OnAlert, refused: OnRefused) -> Witness:
    """The service that the settings name, with a witness before it. Raises `Failure`, `StartError`."""
    target = open_target(settings)
    if target is None:
        raise Failure("no ML service is named: give --url, or set ML_SERVICE_URL")
    return Witness(target, settings, told=told, refused=refused)


class Shadow:
    """Shows a second service the frames that the first one is shown, in order, at its own pace."""

    def __init__(self, second: Witness) -> None:
        self.left_out = 0
        self._second = second
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue(MAX_SHADOW_FRAMES)
        self._task = asyncio.create_task(self._run(), name="shadow")

    def show(self, frame: Frame, at_s: float) -> None:
        """Take a frame; with too many waiting it is left out of the comparison."""
        try:
            self._frames.put_nowait(frame)
        except asyncio.QueueFull:
            self.left_out += 1
        else:
            self._second.places[frame.frame_id] = at_s

    async def close(self) -> None:
        """Show what waits, then end."""
        await self._frames.put(None)
        await self._task

    def cancel(self) -> None:
        """End now."""
        self._task.cancel()

    async def _run(self) -> None:
        while (frame := await self._frames.get()) is not None:
            await self._second.show_in_time(frame)


async def play_fast(
    source: Source,
    stream: str,
    first: Witness,
    second: Witness | None,
    *,
    linger_s: float,
    progress: Callable[[int, float], None],
) -> tuple[int, float]:
    """Show every picture of the source, each after the last was answered. Frames shown and the footage's length in s.

    Frames carry the footage's time, counted from now: a service that dates events by them sees them as far apart as
    they were. Opens and closes the first service, not the second.
    """
    assert source.fps is not None, "a live source cannot be played fast"
    began = now_ms()
    pump = Pump(source.pictures)
    number = 0
    try:
        await first.open(lambda _: None)
        while number < MAX_FRAMES and (picture := await pump.get()) is not None:
            at_s = number / source.fps
            number += 1
            frame = Frame(stream, number, began + round(at_s * 1e3), picture=picture)
            both = [each for each in (first, second) if each is not None]
            for each in both:
                each.places[number] = at_s
            await asyncio.gather(*(each.show_in_time(frame) for each in both))
            progress(number, at_s)
        await asyncio.sleep(linger_s)
    finally:
        pump.stop()
        await first.close()
    return number, number / source.fps


async def play_paced(
    source: Source,
    stream: str,
    first: Witness,
    second: Witness | None,
    settings: Settings,
    *,
    fps: float,
    speed: float,
    linger_s: float,
    progress: Callable[[int, float], None],
) -> tuple[int, float, int]:
    """Play the source as a camera would, `speed` times as fast, through mlbridge's scheduler and feed.

    `fps` is frames per second of footage that the service is to be shown; `linger_s` is how long is waited at the end
    for alerts that come by themselves. Opens and closes the first service, not the second. Gives the frames of the
    footage, its length in s, and how many of those shown the shadow was not.
    """
    assert source.fps is not None, "a live source has no speed"
    shadow = None if second is None else Shadow(second)
    scheduler = Scheduler[Frame](
        Failover(1, settings.ml_in_flight, chance=random.random),
        max_fps=UNLIMITED_FPS,  # what is shown is counted by the footage's time
        max_age_s=settings.ml_max_age_s,
        timeout_s=settings.ml_timeout_s,
        max_streams=1,
    )

    turn = -1  # the footage is cut into turns of 1/fps seconds, in each of which one frame is shown

    def turn_of(at_s: float) -> int:
        return math.floor(at_s * fps + 1e-6)

    def sent(frame: Frame) -> None:
        nonlocal turn
        turn = turn_of(first.places[frame.frame_id])
        if shadow is not None:
            shadow.show(frame, first.places[frame.frame_id])

    feed = Dispatcher(
        [first], scheduler, metrics=Metrics(), on_alerts=_passed_on, on_refused=_passed_over, report=_reported,
        max_age_s=settings.ml_max_age_s, on_sent=sent,
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    pump = Pump(source.pictures)
    number = 0
    try:
        await feed.open()
        due = loop.time()
        interval = 1 / (source.fps * speed)
        while number < MAX_FRAMES and (picture := await pump.get()) is not None:
            now = loop.time()
            if now < due:
                await asyncio.sleep(due - now)
            elif now - due > interval:  # a source that is late is not caught up with
                due = now
            due += interval
            at_s = number / source.fps
            number += 1
            first.places[number] = at_s
            if len(first.places) > MAX_REMEMBERED:
                del first.places[next(iter(first.places))]
            if turn_of(at_s) > turn:
                feed.on_frame(Frame(stream, number, now_ms(), picture=picture).to_bus())
            progress(number, at_s)
        # The last frame has its turn before the feed takes no more.
        await asyncio.sleep(max(linger_s, min(1 / (fps * speed), settings.ml_max_age_s)))
    except BaseException:
        if shadow is not None:
            shadow.cancel()
        raise
    finally:
        pump.stop()
        await feed.close(settings.ml_timeout_s)
    if shadow is not None:
        await shadow.close()
    return number, number / source.fps, 0 if shadow is None else shadow.left_out


def _passed_on(values: list[object], frame: Frame | None, *, age_ms: int | None = None) -> None:
    """The witness has written it down."""
    del values, frame, age_ms


def _passed_over(_: str) -> None:
    """So it has this."""


def _reported(_: object) -> bool:
    """There is no router to tell."""
    return True
