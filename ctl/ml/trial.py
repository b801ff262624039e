"""Dry runs: sends pictures to an ML service as mlbridge does, without a router, and records the results.

Target, deadlines, scheduler and checks of alerts are mlbridge's own; only the bus is left out.
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
from watchout.ctl.ml.report import AlertRecord, FrameRecord, Outcome, ServiceRecord
from watchout.ctl.sources.open import Source
from watchout.ctl.sources.pump import Pump
from watchout.mlbridge.alerts import read_alerts
from watchout.mlbridge.cooldown import Cooldown
from watchout.mlbridge.dispatcher import Dispatcher
from watchout.mlbridge.failover import Failover
from watchout.mlbridge.scheduler import Scheduler
from watchout.mlbridge.targets import OnAlerts, Target, TargetFailure, TargetTimeout, UnusableMessage, open_target

#: Frames of which the time of sending is remembered, for alerts that arrive later.
MAX_REMEMBERED: Final = 10_000
#: Frames that may wait for the second service; more are not compared.
MAX_SHADOW_FRAMES: Final = 16
#: Most frames of one run.
MAX_FRAMES: Final = 500_000

#: Frame rate of the scheduler when the rate is limited by the time of the footage instead.
UNLIMITED_FPS: Final = 1e6

#: Called with each alert, and with the reason for each alert that is refused.
OnAlert = Callable[[AlertRecord], None]
OnRefused = Callable[[str], None]


class RecordingTarget:
    """A target that passes frames to another one and records each frame and each alert. Made by `recording_target`.

    Args:
        target: the target that sends the frames.
        settings: the settings of mlbridge.
        told: called with each valid alert.
        refused: called with the reason for each alert that is refused.

    Attributes:
        record: what was recorded.
        places: time of each frame in the footage, in seconds, by frame id; set before the frame is sent.
    """

    def __init__(self, target: Target, settings: Settings, *, told: OnAlert, refused: OnRefused) -> None:
        self.record = ServiceRecord(target.public_url, Cooldown(settings.alert_cooldown_s))
        self._target = target
        self._timeout_s = settings.ml_timeout_s
        self._told = told
        self._refused = refused
        self._shown: OrderedDict[int, tuple[float, float]] = (
            OrderedDict()
        )  # frame id → time in the footage, time of sending
        self._under_way: set[asyncio.Task[object]] = set()
        self._at_s = 0.0
        self.places: dict[int, float] = {}

    @property
    def public_url(self) -> str:
        """The URL of the inner target."""
        return self._target.public_url

    async def open(self, heard: OnAlerts) -> None:
        """Open the inner target."""

        def hear(values: list[object]) -> None:
            self._said(values, None)
            heard(values)

        await self._target.open(hear)

    async def analyse(self, frame: Frame, *, isolated: bool = False) -> list[object]:
        """Send a frame with the inner target and record the outcome. Raises what the inner target raises."""
        started = time.perf_counter()
        at_s = self.places.pop(frame.frame_id, self._at_s)
        self._at_s = max(self._at_s, at_s)
        self._shown[frame.frame_id] = at_s, started
        if len(self._shown) > MAX_REMEMBERED:
            del self._shown[next(iter(self._shown))]

        def look(outcome: Outcome, reason: str = "") -> None:
            latency_ms = (time.perf_counter() - started) * 1e3
            self.record.shown(FrameRecord(frame.frame_id, at_s, latency_ms, outcome, reason))

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
        """Send a frame with the deadline ``ML_TIMEOUT_S``. Failures are recorded, none is raised."""
        with contextlib.suppress(TimeoutError, TargetFailure, AlertFault):
            async with asyncio.timeout(self._timeout_s):
                await self.analyse(frame)

    async def close(self) -> None:
        """Close the inner target."""
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


def recording_target(settings: Settings, *, told: OnAlert, refused: OnRefused) -> RecordingTarget:
    """Return a recording target for the service of the settings. Raises `Failure` without one, and `StartError`."""
    target = open_target(settings)
    if target is None:
        raise Failure("no ML service is named: give --url, or set ML_SERVICE_URL")
    return RecordingTarget(target, settings, told=told, refused=refused)


class Shadow:
    """Sends the frames that the first service of a dry run gets to a second one, in order, at the pace of the second
    one.

    Made by `play_paced`.

    Args:
        second: the recording target of the second service, already open.

    Attributes:
        left_out: frames that were not sent because too many waited.
    """

    def __init__(self, second: RecordingTarget) -> None:
        self.left_out = 0
        self._second = second
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue(MAX_SHADOW_FRAMES)
        self._task = asyncio.create_task(self._run(), name="shadow")

    def show(self, frame: Frame, at_s: float) -> None:
        """Queue a frame; `at_s` is its time in the footage. It is left out when `MAX_SHADOW_FRAMES` wait."""
        try:
            self._frames.put_nowait(frame)
        except asyncio.QueueFull:
            self.left_out += 1
        else:
            self._second.places[frame.frame_id] = at_s

    async def close(self) -> None:
        """Send the frames that wait, then stop."""
        await self._frames.put(None)
        await self._task

    def cancel(self) -> None:
        """Stop at once."""
        self._task.cancel()

    async def _run(self) -> None:
        while (frame := await self._frames.get()) is not None:
            await self._second.show_in_time(frame)


async def play_fast(
    source: Source,
    stream: str,
    first: RecordingTarget,
    second: RecordingTarget | None,
    *,
    linger_s: float,
    progress: Callable[[int, float], None],
) -> tuple[int, float]:
    """Send every picture of a source, each after the result of the last one.

    The timestamps of the frames are the footage's time, counted from now, so that a service that computes with them
    sees the original intervals. Opens and closes the first service, not the second.

    Args:
        source: the pictures; must have a frame rate.
        stream: stream id of the frames.
        first: the first service.
        second: a second service that gets the same frames, None: none.
        linger_s: how long to wait at the end for alerts without a result, in seconds.
        progress: called with the number of frames and the time in the footage after each frame.

    Returns:
        Number of frames, and length of the footage in seconds.
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
    first: RecordingTarget,
    second: RecordingTarget | None,
    settings: Settings,
    *,
    fps: float,
    speed: float,
    linger_s: float,
    progress: Callable[[int, float], None],
) -> tuple[int, float, int]:
    """Play a source at a multiple of real time through mlbridge's scheduler and dispatcher.

    Opens and closes the first service, not the second.

    Args:
        source: the pictures; must have a frame rate.
        stream: stream id of the frames.
        first: the first service.
        second: a second service that gets the same frames, None: none.
        settings: the settings of mlbridge.
        fps: frames per second of footage that are sent.
        speed: multiple of real time.
        linger_s: how long to wait at the end for alerts without a result, in seconds.
        progress: called with the number of frames and the time in the footage after each frame.

    Returns:
        Number of frames of the footage, its length in seconds, and the number of frames that only the first service
        got.
    """
    assert source.fps is not None, "a live source has no speed"
    shadow = None if second is None else Shadow(second)
    scheduler = Scheduler[Frame](
        Failover(1, settings.ml_in_flight, chance=random.random),
        max_fps=UNLIMITED_FPS,  # frames are limited by the footage's time below
        max_age_s=settings.ml_max_age_s,
        timeout_s=settings.ml_timeout_s,
        max_streams=1,
    )

    turn = -1  # one frame is sent in each turn of 1/fps seconds of the footage

    def turn_of(at_s: float) -> int:
        return math.floor(at_s * fps + 1e-6)

    def sent(frame: Frame) -> None:
        nonlocal turn
        turn = turn_of(first.places[frame.frame_id])
        if shadow is not None:
            shadow.show(frame, first.places[frame.frame_id])

    dispatcher = Dispatcher(
        [first], scheduler, metrics=Metrics(), on_alerts=_passed_on, on_refused=_passed_over, report=_reported,
        max_age_s=settings.ml_max_age_s, on_sent=sent,
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    pump = Pump(source.pictures)
    number = 0
    try:
        await dispatcher.open()
        due = loop.time()
        interval = 1 / (source.fps * speed)
        while number < MAX_FRAMES and (picture := await pump.get()) is not None:
            now = loop.time()
            if now < due:
                await asyncio.sleep(due - now)
            elif now - due > interval:  # a late source is not caught up with
                due = now
            due += interval
            at_s = number / source.fps
            number += 1
            first.places[number] = at_s
            if len(first.places) > MAX_REMEMBERED:
                del first.places[next(iter(first.places))]
            if turn_of(at_s) > turn:
                dispatcher.on_frame(Frame(stream, number, now_ms(), picture=picture).to_bus())
            progress(number, at_s)
        # The last frame gets its turn before the dispatcher stops accepting frames.
        await asyncio.sleep(max(linger_s, min(1 / (fps * speed), settings.ml_max_age_s)))
    except BaseException:
        if shadow is not None:
            shadow.cancel()
        raise
    finally:
        pump.stop()
        await dispatcher.close(settings.ml_timeout_s)
    if shadow is not None:
        await shadow.close()
    return number, number / source.fps, 0 if shadow is None else shadow.left_out


def _passed_on(values: list[object], frame: Frame | None, *, age_ms: int | None = None) -> None:
    """Ignore: `RecordingTarget` has recorded them."""
    del values, frame, age_ms


def _passed_over(_: str) -> None:
    """Ignore: `RecordingTarget` has recorded it."""


def _reported(_: object) -> bool:
    """Return True: there is no router that needs the report."""
    return True
