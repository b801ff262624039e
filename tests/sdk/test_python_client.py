"""watchout.client against real processes: both faces, faults of network and processes, tokens, freshness."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

import watchout.client as watchout_client
from tests.kit.clients import eventually, http, new_name
from tests.kit.ctl_command import TINY_JPEG
from tests.kit.processes import REPOSITORY, SERVICE_TOKEN, Watchout, clean_environ, poll
from tests.kit.proxies import SilentProxy
from tests.kit.session_stores import end_session
from tests.kit.slow_link import SlowLink
from watchout.client import Acknowledged, Alert, ConnectionPhase, Frame, Recovery, Status
from watchout.common.clock import now_ms

pytestmark = pytest.mark.e2e

SECRET = "a secret of forty characters, not shorter"
COMES_S = 60.0


class Reader:
    """Reads a subscription, and keeps what came."""

    def __init__(self, events: Any) -> None:
        self.events: list[Any] = []
        self._task = asyncio.create_task(self._read(events), name="reader")

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def alert_ids(self) -> list[str]:
        return [alert.id for alert in self.of(Alert)]

    async def ended(self) -> None:
        await self._task

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self, events: Any) -> None:
        async for event in events:
            self.events.append(event)


async def raise_alert(started: Watchout, stream: str, name: str) -> None:
    """An alert of the ML side, told until the gateway takes it."""
    alert = {"streamId": stream, "severity": "low", "message": name, "id": name}

    async def accepted() -> bool:
        try:
            return (await http(f"{started.url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)).status == 202
        except OSError:
            return False

    await eventually(accepted, COMES_S)


async def stream_on(camera: watchout_client.AsyncCamera, fps: float = 20.0) -> None:
    """Send pictures until cancelled."""
    while True:
        await camera.room()
        await camera.send(TINY_JPEG)
        await asyncio.sleep(1 / fps)


async def test_publish_watch_alert_and_acknowledge(plain_watchout: Watchout) -> None:
    stream, token = new_name(), plain_watchout.token(new_name("user"))
    async with watchout_client.connect(plain_watchout.url, token=token) as client:
        info = {"deviceName": "a phone", "deviceType": "test"}
        async with client.camera(stream, info=info) as camera, client.subscribe(stream) as events:
            assert (camera.stream_id, camera.state, client.state) == (stream, ConnectionPhase.ONLINE, "online")
            first = await anext(events)
            assert (type(first), first.status, first.info) == (Status, "streaming", info)
            taken_at = now_ms()
            assert await camera.send(TINY_JPEG, timestamp=taken_at)
            frame = await anext(events)
            assert (frame.picture, frame.frame_id, frame.timestamp) == (TINY_JPEG, 1, taken_at)
            assert frame.content_type == "image/jpeg"
            await eventually(lambda: camera.under_way == 0, COMES_S, "the gateway acknowledges frames")
            alert_id = await camera.alert("critical", "help", metadata={"button": 1}, floor=3)
            told = await anext(events)
            assert (told.id, told.severity, told.metadata, told.body["floor"]) == (
                alert_id,
                "critical",
                {"button": 1},
                3,
            )
            await client.acknowledge(told, note="coming")
            news = await anext(events)
            assert (type(news), news.alert_id, news.note) == (Acknowledged, alert_id, "coming")
            assert await eventually(lambda: camera.demand is not None and camera.demand.viewers == 1, COMES_S)
            (row,) = await client.streams()
            assert (row["id"], row["info"]) == (stream, info)
            assert [alert.id for alert in await client.alerts(stream)] == [alert_id]
            snapshot = await eventually(lambda: client.snapshot(stream), COMES_S)
            assert (snapshot.picture, snapshot.frame_id) == (TINY_JPEG, 1)
            assert await client.snapshot("no-such-stream") is None
            events.pause()
            events.resume()
            await camera.send(TINY_JPEG)
            while not isinstance(event := await anext(events), Frame) or event.frame_id != 2:
                pass


async def test_of_two_subscriptions_exactly_the_forbidden_one_fails(plain_watchout: Watchout) -> None:
    mine, other = new_name(), new_name()
    url = plain_watchout.url
    async with (
        watchout_client.connect(url, token=plain_watchout.token(new_name("ann"))) as ann,
        watchout_client.connect(url, token=plain_watchout.token(new_name("bob"))) as bob,
        bob.camera(other),
        ann.camera(mine) as camera,
        ann.subscribe(mine) as events,
    ):
        with pytest.raises(watchout_client.Unauthorized) as refused:
            async with ann.subscribe(other):
                pass
        assert refused.value.stream_id == other
        with pytest.raises(watchout_client.Unauthorized):
            async with ann.camera(other):
                pass
        await camera.send(TINY_JPEG)
        while not isinstance(await anext(events), Frame):
            pass
        assert ann.state == "online"


@pytest.mark.parametrize("victim", ["gateway", "router", "mlbridge"])
async def test_after_kill_9_everything_goes_on_and_each_alert_comes_once(watchout: Any, victim: str) -> None:
    started: Watchout = watchout()
    stream = new_name()
    async with (
        watchout_client.connect(started.url, token=started.token(), silence_s=10) as client,
        client.camera(stream) as camera,
        client.subscribe(stream) as events,
    ):
        sender = asyncio.create_task(stream_on(camera))
        reader = Reader(events)
        try:
            await raise_alert(started, stream, "before")
            await eventually(lambda: reader.alert_ids == ["before"] and reader.of(Frame), COMES_S)
            started.one(victim).kill()
            started.start(victim)
            await raise_alert(started, stream, "meanwhile")
            await eventually(lambda: "meanwhile" in reader.alert_ids, COMES_S)
            seen = len(reader.of(Frame))
            await eventually(lambda: len(reader.of(Frame)) > seen + 5, COMES_S)
            await raise_alert(started, stream, "after")
            await eventually(lambda: "after" in reader.alert_ids, COMES_S)
            assert reader.alert_ids == ["before", "meanwhile", "after"]
            numbers = [(frame.frame_id, frame.timestamp) for frame in reader.of(Frame)]
            assert len(set(numbers)) == len(numbers), "no frame comes twice"
            assert not sender.done()
        finally:
            sender.cancel()
            await reader.stop()
            await asyncio.gather(sender, return_exceptions=True)


async def test_behind_a_proxy_that_goes_silent_it_says_waiting_and_recovers_every_alert(
    plain_watchout: Watchout,
) -> None:
    stream, token = new_name(), plain_watchout.token(new_name("user"))
    proxy = SilentProxy(plain_watchout.port)
    phases: list[Any] = []
    async with proxy.running():
        url = f"ws://127.0.0.1:{proxy.port}"
        async with (
            watchout_client.connect(url, token=token, silence_s=10, on_phase=phases.append) as client,
            client.subscribe(stream) as events,
        ):
            reader = Reader(events)
            await raise_alert(plain_watchout, stream, "a1")
            await eventually(lambda: reader.alert_ids == ["a1"], COMES_S)
            proxy.silence()
            names = [f"a{number}" for number in range(2, 8)]
            for name in names:
                await raise_alert(plain_watchout, stream, name)
            await eventually(lambda: any(each.phase == "waiting" for each in phases), COMES_S)
            assert next(each.code for each in phases if each.phase == "waiting") == "NETWORK_SILENT"
            await proxy.heal()
            await eventually(lambda: len(reader.alert_ids) == 7, COMES_S)
            assert reader.alert_ids == ["a1", *names]
            assert [event.recovered for event in reader.of(Recovery)] == [True]
            assert all(alert.recovered for alert in reader.of(Alert))
            await reader.stop()


def jwt_of(user: str, seconds: float) -> str:
    now = time.time()
    return jwt.encode({"sub": user, "iat": now, "exp": now + seconds}, SECRET, "HS256")


async def test_a_jwt_is_renewed_on_the_open_sockets_with_one_call_for_all(
    watchout: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "watchout.client")
    started: Watchout = watchout(environ={"JWT_SECRET": SECRET})
    reasons: list[str] = []
    phases: list[Any] = []
    failing = 0

    async def token(why: str) -> str:
        nonlocal failing
        reasons.append(why)
        if why == "expiring" and failing < 2:  # a callback that fails for a while
            failing += 1
            raise OSError("no network")
        return jwt_of("ann", 20)

    stream = new_name()
    async with (
        watchout_client.connect(started.url, token=token, on_phase=phases.append) as client,
        client.camera(stream) as camera,
        client.subscribe(stream) as events,
    ):
        reader = Reader(events)
        await eventually(lambda: reasons.count("expiring") >= 4, COMES_S)
        await eventually(lambda: camera.state == "online", COMES_S)
        await camera.send(TINY_JPEG)
        await eventually(lambda: reader.of(Frame), COMES_S)
        await reader.stop()
    assert reasons[0] == "connect"
    assert set(reasons[1:]) == {"expiring"}
    assert [each.phase for each in phases if each.phase == "waiting"] == [], "no connection was lost"


async def test_a_session_that_ends_asks_for_a_token_once_and_then_it_is_over(watchout: Any) -> None:
    started: Watchout = watchout()
    session = started.token("ann")
    reasons: list[str] = []

    def token(why: str) -> str:
        reasons.append(why)
        if why != "connect":
            raise watchout_client.NoToken("signed out")
        return session

    async with watchout_client.connect(started.url, token=token) as client, client.subscribe(new_name()) as events:
        end_session(started.home, session)
        with pytest.raises(watchout_client.SessionEnded, match="4500"):
            await asyncio.wait_for(Reader(events).ended(), COMES_S)
        with pytest.raises(watchout_client.SessionEnded):
            await anext(events)
    assert reasons == ["connect", "ended"]


async def test_a_stream_is_shared_until_the_share_is_ended(plain_watchout: Watchout) -> None:
    stream, token = new_name(), plain_watchout.token(new_name("user"))
    async with watchout_client.connect(plain_watchout.url, token=token) as owner, owner.camera(stream) as camera:
        made = await owner.share(stream, 600)
        assert await owner.shares(stream) == [{key: made[key] for key in made if key != "token"}]
        async with (
            watchout_client.connect(plain_watchout.url, token=made["token"]) as guest,
            guest.subscribe(stream, alerts=False) as events,
        ):
            reader = Reader(events)
            await camera.send(TINY_JPEG)
            await eventually(lambda: reader.of(Frame), COMES_S)
            with pytest.raises(watchout_client.WatchoutClientError):
                await guest.share(stream, 60)
            await owner.unshare(stream, made["id"])
            with pytest.raises(watchout_client.SessionEnded):
                await asyncio.wait_for(reader.ended(), COMES_S)
        assert await owner.shares(stream) == []
        with pytest.raises(watchout_client.Refused):
            await owner.unshare(stream, made["id"])


async def test_a_take_over_ends_the_first_camera_and_not_the_viewer(plain_watchout: Watchout) -> None:
    stream, token = new_name(), plain_watchout.token(new_name("user"))
    async with (
        watchout_client.connect(plain_watchout.url, token=token) as client,
        client.camera(stream) as first,
        client.subscribe(stream) as events,
        client.camera(stream) as second,
    ):
        with pytest.raises(watchout_client.TakenOver):
            await asyncio.wait_for(stream_on(first), COMES_S)
        await second.send(TINY_JPEG)
        while not isinstance(await anext(events), Frame):
            pass


async def test_a_camera_behind_a_slow_uplink_sends_new_pictures(plain_watchout: Watchout) -> None:
    """60 kB/s, pictures of 30 kB: two a second get through, and none of them is old."""
    stream, token = new_name(), plain_watchout.token(new_name("user"))
    picture = TINY_JPEG + bytes(30_000)
    async with (
        SlowLink(plain_watchout.port, 60_000).running() as link,
        watchout_client.connect(plain_watchout.url, token=token) as viewer,
        watchout_client.connect(f"ws://127.0.0.1:{link.port}", token=token) as publisher,
        publisher.camera(stream) as camera,
        viewer.subscribe(stream) as events,
    ):
        ages: list[int] = []

        async def watch() -> None:
            async for frame in events.frames():
                ages.append(frame.age_ms)  # noqa: PERF401 - while they come

        async def publish() -> None:
            while True:
                await camera.room()
                await camera.send(picture)

        tasks = [asyncio.create_task(watch()), asyncio.create_task(publish())]
        try:
            await eventually(lambda: len(ages) >= 20 or any(task.done() for task in tasks), COMES_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    assert len(ages) >= 20
    # The first ones measure the link; on a busy machine some are late for reasons of their own, a queue makes all late.
    assert sorted(ages[3:])[len(ages[3:]) * 3 // 4] < 1500, ages


# ── plain loops ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_numpy_loop_slower_than_the_camera_gets_the_newest_frame(plain_watchout: Watchout) -> None:
    """Each turn gets a frame that is not older than one interval of the camera, whatever the loop takes."""
    np = pytest.importorskip("numpy")
    pytest.importorskip("cv2")
    stream, token = new_name(), plain_watchout.token(new_name("user"))
    fps, ended = 10, threading.Event()
    sent: list[int] = []

    def publish() -> None:
        with watchout_client.Camera(stream, url=plain_watchout.url, token=token) as camera:
            number = 0
            while not ended.wait(1 / fps):
                at_ms = now_ms()
                camera.send(np.full((48, 64, 3), number % 256, np.uint8), timestamp=at_ms)
                sent.append(at_ms)
                number += 1

    camera = threading.Thread(target=publish)
    camera.start()
    try:
        behind = []
        with watchout_client.frames(stream, url=plain_watchout.url, token=token, timeout_s=COMES_S) as frames:
            for frame, image in frames:
                newer = [at_ms for at_ms in sent if at_ms > frame.timestamp]
                behind.append(len(newer))
                assert image.shape == (48, 64, 3)
                if len(behind) == 12:
                    break
                time.sleep(0.45)  # the work of the loop: longer than four frames
    finally:
        ended.set()
        camera.join()
    # Frames that were sent this moment may still be under way, many while a process pauses; in a queue it would be four
    # more each turn.
    assert sorted(behind)[len(behind) // 2] <= 2, behind


def test_send_does_not_wait_for_a_network_that_is_gone(plain_watchout: Watchout) -> None:
    with watchout_client.Camera("cam", url="ws://127.0.0.1:1", token="none", on_event=print) as camera:
        for _ in range(1000):
            assert camera.send(TINY_JPEG)
        assert camera.dropped == 999
        with pytest.raises(TimeoutError):
            camera.wait_registered(0.01)
        camera._flushed.set()  # nothing to wait for


def test_what_ends_the_connection_is_raised_in_the_loop_and_no_thread_stays(plain_watchout: Watchout) -> None:
    frames = watchout_client.frames("cam", url=plain_watchout.url, token="no session", decode=False)
    with pytest.raises(watchout_client.TokenRefused):
        next(frames)
    frames.close()
    with pytest.raises(watchout_client.TokenRefused):
        watchout_client.Camera("cam", url=plain_watchout.url, token="no session").wait_registered(COMES_S)
    frames = watchout_client.frames(
        new_name(), url=plain_watchout.url, token=plain_watchout.token(), decode=False, timeout_s=0.2
    )
    with pytest.raises(TimeoutError, match="no frame"):
        next(frames)
    del frames  # nobody closes it
    poll(lambda: not threads_of_frames(), COMES_S, f"{threads_of_frames()} are left")


def threads_of_frames() -> list[str]:
    gc.collect()
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("watchout frames")]


PROGRAM = """
import asyncio, sys
import watchout.client

async def main():
    async with watchout.client.connect(sys.argv[1], token=sys.argv[2]) as client:
        async with client.camera(sys.argv[4]) as camera, client.subscribe(sys.argv[4]) as events:
            await camera.send(bytes.fromhex("ffd8ffe0"))
            async for event in events:
                if isinstance(event, watchout.client.Frame):
                    break
            if sys.argv[3] == "raise":
                raise RuntimeError("an error of the program")
            if sys.argv[3] == "cancel":
                asyncio.current_task().cancel()
                await asyncio.sleep(1)

asyncio.run(main(), debug=True)
"""


@pytest.mark.parametrize("how", ["end", "raise", "cancel"])
def test_a_program_ends_without_a_word_of_asyncio_and_keeps_its_own_traceback(
    plain_watchout: Watchout, tmp_path: Path, how: str
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "program.py", plain_watchout.url, plain_watchout.token(), how,
         new_name()],
        cwd=tmp_path, env=clean_environ(), capture_output=True, text=True, timeout=COMES_S, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    for word in ("Task was destroyed", "never retrieved", "never awaited", "ResourceWarning", "unclosed"):
        assert word not in said, said
    assert (done.returncode == 0) == (how == "end"), said
    if how == "raise":
        assert "RuntimeError: an error of the program" in said


async def test_the_example_camera_publishes_and_encodes_only_what_is_wanted(watchout: Any, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    started: Watchout = watchout()
    token = started.token()
    command = [sys.executable, str(REPOSITORY / "examples/camera_python/camera.py"), "--url", started.url,
               "--stream", "pi-1", "--source", "pattern"]  # fmt: skip
    process = started.run("camera", command, {"WATCHOUT_TOKEN": token})
    await eventually(lambda: "publishing as stream pi-1" in process.output, COMES_S)
    async with watchout_client.connect(started.url, token=token) as client:
        async with client.subscribe("pi-1") as events:
            async with asyncio.timeout(COMES_S):
                while not isinstance(event := await anext(events), Frame):
                    pass
            assert event.image.shape == (720, 1280, 3)
            await raise_alert(started, "pi-1", "a1")
            await eventually(lambda: "alert, low: a1" in process.output, COMES_S)
        (row,) = await client.streams()
        assert row["info"]["deviceType"] == "camera_python"
    process.send_signal(15)
    assert await process.ended(COMES_S) == 0
    assert "sent " in process.output
