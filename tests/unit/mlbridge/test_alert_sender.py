"""Alerts on their way to a router: marked, with their picture, once more to the next router; closing at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kit.fake_router import FakeRouter
from tests.kit.ml_stub import ALERT
from tests.kit.polling import until
from watchout.common.bus.client import BusClient
from watchout.common.bus.frames import FOR_ALERT, decode_frame
from watchout.common.bus.messages import Hello
from watchout.common.bus.transport_choice import local_member
from watchout.common.media.frames import Frame
from watchout.common.metrics import Metrics
from watchout.mlbridge import alert_lane
from watchout.mlbridge.alert_sender import AlertSender
from watchout.mlbridge.app import _no_snapshot
from watchout.mlbridge.shown_frames import ShownFrames

FRAME = Frame("s", 1, 1, picture=b"x")
PICTURE = b"\xff\xd8\xff picture"


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("h")


def frame(number: int, stream: str = "s") -> Frame:
    return Frame(stream, number, 1_700_000_000_000 + number, term=9, picture=PICTURE + b"%d" % number)


class Bench:
    """An outbox with its ring and figures, joined to whatever router is at `home`."""

    def __init__(self, home: Path, **options: Any) -> None:
        self.metrics = Metrics()
        self.ring = ShownFrames(max_bytes=1 << 20, max_age_s=30, clock=time.monotonic)
        self.link = BusClient(
            Hello(kind="mlbridge", name="test", pid=1),
            open_transport=local_member(home, 1 << 20),
            request_timeout_s=60,
            snapshot=_no_snapshot,
            metrics=dict,
            on_message=lambda _: None,
            on_frame=lambda _: None,
            on_joined=lambda _: self.outbox.on_joined(),
            on_lost=lambda: self.outbox.on_lost(),
        )
        self.outbox = AlertSender([self.link], metrics=self.metrics, frames=self.ring, **options)

    def says(self, number: int, *messages: str, age_ms: int | None = None, **fields: Any) -> None:
        """The service saw a frame, and says something of it."""
        shown = frame(number)
        self.ring.add(shown)
        self.outbox.on_alerts([ALERT | {"message": each} | fields for each in messages], shown, age_ms=age_ms)


Start = Callable[..., contextlib.AbstractAsyncContextManager[Bench]]


@pytest.fixture
def bench(home: Path) -> Start:
    @contextlib.asynccontextmanager
    async def start(**options: Any) -> AsyncIterator[Bench]:
        found = Bench(home, **options)
        try:
            yield found
        finally:
            await found.outbox.close(0)
            await found.link.close()

    return start


@pytest.fixture
async def router(home: Path) -> AsyncIterator[FakeRouter]:
    router = FakeRouter(home)
    yield router
    router.close()


def messages(router: FakeRouter) -> list[str]:
    return [alert.message for alert in router.told.alerts]


async def test_what_is_said_twice_comes_once_and_what_is_said_all_the_time_comes_with_its_count(
    router: FakeRouter, bench: Start
) -> None:
    async with bench(cooldown_s=3600.0) as found:
        found.says(1, "a person")
        found.says(1, "a person")
        found.says(2, "a person")
        found.says(3, "a person", severity="critical")
        await until(lambda: len(router.told.alerts) == 2)
        assert router.told.alerts[1].metadata == {"suppressed": 1}
        assert found.metrics.values["alerts_suppressed_total"] == 1
        assert found.metrics.values["alerts_repeated_total"] == 1
        assert found.metrics.values["alerts_total"] == 2


@pytest.mark.parametrize(("age_ms", "stale"), [(None, False), (0, False), (1_000, False), (1_001, True)])
async def test_an_alert_of_a_frame_over_the_age_limit_is_still_an_alert_and_marked(
    router: FakeRouter, bench: Start, age_ms: int | None, stale: bool
) -> None:
    async with bench(max_age_s=1.0) as found:
        found.says(1, "a person", age_ms=age_ms)
        await until(lambda: router.told.alerts)
        assert router.told.alerts[0].metadata == ({"ageMs": age_ms, "stale": True} if stale else None)


async def test_the_very_frame_goes_before_its_alerts_and_once(router: FakeRouter, bench: Start) -> None:
    async with bench() as found:
        found.says(7, "one", "two")
        for number in range(8, 100):
            found.ring.add(frame(number))
        await until(lambda: len(router.told.alerts) == 2)
        await until(lambda: router.told.frames)
        (data,) = router.told.frames
        came = decode_frame(data)
        assert (came.stream, came.term, came.frame_id, bytes(came.payload)) == ("s", 9, 7, PICTURE + b"7")
        assert came.to == FOR_ALERT
        assert [raised.term for raised in router.told.raised] == [9, 9]


async def test_an_alert_that_names_its_frame_itself_gets_that_one_and_of_a_foreign_one_none(
    router: FakeRouter, bench: Start
) -> None:
    async with bench() as found:
        for number in (1, 2):
            found.ring.add(frame(number))
        found.outbox.on_alerts([{**ALERT, "streamId": "s", "frameId": 1}], None)
        found.outbox.on_alerts([{**ALERT, "streamId": "s", "frameId": 99}], None)
        found.outbox.on_alerts([{**ALERT, "streamId": "another", "frameId": 1}], frame(2))
        await until(lambda: len(router.told.alerts) == 3)
        assert [raised.term for raised in router.told.raised] == [9, 0, 0]
        await until(lambda: router.told.frames)
        assert [decode_frame(data).frame_id for data in router.told.frames] == [1]


async def test_what_a_router_accepted_a_moment_before_it_ended_is_raised_again_first_and_in_order(
    home: Path, bench: Start
) -> None:
    first = FakeRouter(home, epoch=5)
    async with bench() as found:
        found.says(1, "1", "2", "3")
        await until(lambda: len(found.outbox._accepted) == 3)
        first.close()
        found.says(2, "4", "5")
        second = FakeRouter(home, epoch=6)
        try:
            await until(lambda: len(second.told.alerts) == 5)
            assert messages(second) == ["1", "2", "3", "4", "5"]
            assert [each.id for each in second.told.alerts[:3]] == [each.id for each in first.told.alerts]
            await until(lambda: {decode_frame(data).frame_id for data in second.told.frames} == {1, 2})
            assert found.metrics.values["alerts_raised_again_total"] == 3
            found.says(3, "6")
            await until(lambda: len(second.told.alerts) == 6)
            assert len(second.told.attempts) == 6
        finally:
            second.close()


async def test_what_a_router_accepted_in_its_last_moment_is_sent_to_the_next_one_however_late_the_reply_is_seen(
    router: FakeRouter, bench: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bridge did not run for a while: it finds the reply and the welcome of another router at once."""
    monkeypatch.setattr(alert_lane, "RETRY_S", 3600.0)  # a new router is not kept waiting
    epochs = iter([5, 5, 6])  # when it is sent, in the request, and when the reply is seen
    async with bench() as found:
        assert await found.link.wait_live(30)
        monkeypatch.setattr(BusClient, "epoch", property(lambda _: next(epochs, 6)))
        found.says(1, "1")
        await until(lambda: len(router.told.attempts) == 2)
        await until(lambda: len(found.outbox._accepted) == 1)
        assert found.outbox._accepted.joined(0, 6, time.monotonic()) == []


async def test_a_router_of_the_same_epoch_is_told_nothing_again(router: FakeRouter, bench: Start) -> None:
    async with bench() as found:
        found.says(1, "1")
        await until(lambda: router.told.alerts)
        found.outbox.on_lost()
        found.outbox.on_joined()
        found.says(2, "2")
        await until(lambda: len(router.told.alerts) == 2)
        assert messages(router) == ["1", "2"]
        assert len(router.told.attempts) == 2


async def test_the_outbox_closes_whatever_step_of_a_send_it_is_at(home: Path) -> None:
    router = FakeRouter(home)
    link = BusClient(
        Hello(kind="mlbridge", name="test", pid=1),
        open_transport=local_member(home, 1 << 20),
        request_timeout_s=60,
        snapshot=_no_snapshot,
        metrics=dict,
        on_message=lambda _: None,
    )
    assert await link.wait_live(30)
    for turns in range(20):
        outbox = AlertSender([link], metrics=Metrics())
        for _ in range(20):
            outbox.on_alerts([ALERT], FRAME)
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await outbox.close(0)
    await link.close()
    router.close()
