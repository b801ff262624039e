"""Which frames and alerts a viewer of a rehearsal notices as missing."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from watchout.client import Alert, Frame
from watchout.common.clock import now_ms
from watchout.common.media.frame_ids import FRAME_ID_JUMP
from watchout.common.media.frames import Frame as WireFrame
from watchout.ctl.rehearse.clients import Clients, Eye, Job
from watchout.ctl.rehearse.figures import RoleCounts
from watchout.ctl.rehearse.ml_alerts import alert_body
from watchout.ctl.rehearse.plan import LoadPlan, ViewerPlan, ViewerRole


class World:
    """One viewer and its subscription."""

    def __init__(self, role: ViewerRole = ViewerRole.STEADY) -> None:
        plan = LoadPlan(seconds=60.0, fps=10.0, slow_fps=2.0, cameras=[], viewers=[])
        job = Job(url="ws://localhost", tokens=["t"], plan=plan, begin_ms=now_ms(), pictures=[])
        self.clients = Clients(job, asyncio.Event())
        self.counts = self.clients.counts.roles[role] = RoleCounts(viewers=1)
        self.subscription: Any = SimpleNamespace(connection=1, replaced=0)
        viewer = ViewerPlan(stream="s", token=0, begins_s=0.0, role=role)
        self.eye = Eye(self.clients, viewer, self.subscription)

    def see(self, *numbers: int) -> None:
        for number in numbers:
            self.eye.frame(Frame(WireFrame("s", number, now_ms() - 20, picture=b"\xff\xd8\xff")))

    def hear(self, *numbers: int) -> None:
        for number in numbers:
            body = alert_body(number, now_ms() - 30)
            self.eye.alert(Alert(id=str(number), stream_id="s", timestamp=0, **body))


async def test_a_client_ends_with_the_others_when_one_of_them_failed() -> None:
    clients = World().clients
    clients._over = asyncio.create_task(asyncio.sleep(3600))
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("work")

    kept = asyncio.create_task(clients._kept(work(), "a viewer"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    kept.cancel()
    await asyncio.gather(kept, return_exceptions=True)
    assert ended == ["work"]
    clients._over.cancel()


def test_numbers_between_two_frames_are_missing() -> None:
    world = World()
    world.see(5, 6, 7, 10, 11, 15)
    assert (world.counts.received, world.counts.missing) == (6, 5)
    stream = world.clients.counts.streams["s"]
    assert (stream.received, stream.missing) == (6, 5)
    moment = world.clients.second()
    assert (moment.received, moment.missing, moment.received_bytes) == (6, 5, 18)
    assert world.clients.second().received == 0


def test_numbers_that_a_moved_stream_leaves_out_are_not_missing() -> None:
    world = World()
    world.see(5, 6, 7 + FRAME_ID_JUMP, 8 + FRAME_ID_JUMP, 10 + FRAME_ID_JUMP)
    assert (world.counts.received, world.counts.missing) == (5, 1)


def test_frames_that_came_and_were_replaced_here_were_not_dropped_on_the_way() -> None:
    world = World()
    world.see(1)
    world.subscription.replaced = 2
    world.see(4, 6)
    assert (world.counts.missing, world.counts.replaced) == (1, 2)
    world.subscription.replaced = 5
    world.eye.leave()
    assert world.counts.replaced == 5


def test_frames_of_a_time_without_connection_or_view_are_not_missing() -> None:
    world = World(ViewerRole.HIDDEN)
    world.see(1, 2)
    world.eye.hide()
    world.see(20, 22)
    assert world.counts.missing == 1
    world.subscription.connection = 2
    world.see(50, 51)
    assert world.counts.missing == 1


def test_alerts_left_out_or_told_twice_are_noticed() -> None:
    world = World()
    world.hear(3, 4, 7, 7, 8, 5)
    assert (world.counts.alerts, world.counts.alerts_lost, world.counts.alerts_twice) == (6, 2, 2)
    foreign = Alert(id="x", stream_id="s", severity="low", message="of a phone", timestamp=now_ms())
    world.eye.alert(foreign)
    assert (world.counts.alerts, world.counts.alerts_lost, world.counts.alerts_twice) == (7, 2, 2)
    assert world.clients.second().alert.histogram().count == 7


@pytest.mark.parametrize(("role", "counted"), [(ViewerRole.STEADY, 1), (ViewerRole.SLOW, 0), (ViewerRole.HIDDEN, 0)])
def test_latency_of_frames_is_that_of_steady_viewers(role: ViewerRole, counted: int) -> None:
    world = World(role)
    world.see(1)
    found = world.clients.second().glass.histogram()
    assert found.count == counted
    assert found.sum_ms >= 20 * counted
