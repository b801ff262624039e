"""`watchout-ctl why` names the causes that these tests bring about, with figures that clients counted too."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Final

import msgspec
import pytest

from tests.kit.clients import JPEG, Camera, Clients, base64_of, eventually, http
from tests.kit.ml_stub import serving
from tests.kit.processes import BIN, Watchout
from tests.kit.readers import Reader
from watchout.common.settings import load
from watchout.ctl.why.explain import explain
from watchout.ctl.why.survey import survey

pytestmark = pytest.mark.e2e

#: Seconds within which what is waited for has come, on the slowest machine.
COMES_S: Final = 90.0
#: A picture that a slow socket does not take at once.
LARGE: Final = base64_of(JPEG + bytes(60_000))


async def ask(started: Watchout, about: str, *, code: int = 0) -> dict[str, Any]:
    """What `why` says about something, decoded."""
    command = started.run("why", [str(BIN / "watchout-ctl"), "why", about, "--json"])
    assert await command.ended(COMES_S) == code, command.output
    found: dict[str, Any] = json.loads(command.output)
    return found


async def said(started: Watchout, about: str, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Ask, as the command does, until what is said holds: the answer is a snapshot of a system at work."""
    settings, found = load(started.environ), {}
    try:
        async with asyncio.timeout(COMES_S):
            while True:
                found = msgspec.to_builtins(explain(await survey(settings, about)))
                if holds(found):
                    return found
    except TimeoutError:
        raise AssertionError(f"what was waited for is not said of {about}: {found}") from None


def causes(sentences: list[dict[str, Any]]) -> set[str]:
    return {sentence["cause"] for sentence in sentences}


def of(sentences: list[dict[str, Any]], cause: str) -> Iterator[dict[str, Any]]:
    return (sentence for sentence in sentences if sentence["cause"] == cause)


def access_lines(started: Watchout) -> list[dict[str, Any]]:
    """The lines of connections that ended."""
    said = [line for process in started.processes for line in process.lines if '"connection closed"' in line]
    return [line for line in map(json.loads, said) if line["module"] == "gateway.why.access_log"]


async def test_why_viewers_get_what_they_get_and_what_became_of_an_alert(watchout, clients: Clients):
    async with serving() as service:
        service.mode, service.takes_s = "answer", 0.05
        started = watchout(environ={"ML_SERVICE_URL": service.url, "ML_FPS": "5", "ALERT_COOLDOWN_S": "600"})
        owner = started.token("owner")
        every, few, hidden = [await clients.viewer(started.url, owner) for _ in range(3)]
        await every.subscribe("cam-1", consumes=["video-frame", "alert"])
        await few.subscribe("cam-1", consumes=["video-frame"], maxFps=2)
        await hidden.subscribe("cam-1", consumes=["alert"])
        slow = await Reader.watch(started.port, owner, "cam-1", receive_buffer=4096, consumes=["video-frame"])
        camera = await clients.camera(started.url, owner)
        await camera.register("cam-1", consumes=["alert"])
        sending = asyncio.create_task(_send(camera))
        async with slow:
            found = await said(
                started, "cam-1",
                lambda one: {"streaming", "all", "asked_rate", "hidden"} <= causes(one["now"])
                and causes(one["now"]) & {"slow_socket", "not_reading"}
                and any(each["cause"].startswith("ml_") for each in one["now"])
                and {"asked_rate", "slow_socket"} <= causes(one["past"]),
            )  # fmt: skip
            (asked,) = of(found["now"], "asked_rate")
            assert "it asked for at most 2 (maxFps)" in asked["text"]
            assert asked["figures"]["fps"] < asked["figures"]["cameraFps"]

            alert = await every.find("alert", COMES_S)
            await every.send("acknowledge", streamId="cam-1", alertId=alert["id"])
            await every.find("alert-acknowledged", COMES_S)
            life = (await said(started, alert["id"], lambda one: "heldBack" in one["now"][0]["figures"]))["now"]
            (sentence,) = life
            assert sentence["cause"] == "acknowledged"
            # `every`, `hidden` and the camera have asked for alerts, `few` and `slow` have not.
            assert {name: sentence["figures"][name] for name in ("frameId", "told", "viewers")} == {
                "frameId": alert["frameId"], "told": 3, "viewers": 2,
            }  # fmt: skip
            assert f"looked at by {service.url}" in sentence["text"]
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await camera.leave()

        # What the gateway says of an ended connection is what the client counted; the newest frame is never dropped.
        await eventually(lambda: any(line["path"] == "/streams/register" for line in access_lines(started)), COMES_S)
        sent = sum(line["frames_in"] for line in access_lines(started))
        await eventually(lambda: every.frame_ids[-1] == sent, COMES_S)
        for viewer in (every, few):
            await viewer.leave()
        await eventually(lambda: len(access_lines(started)) >= 4, COMES_S)
        lines = {line["connection"].rpartition(".")[2]: line for line in access_lines(started)}
        for number in ("1", "2"):
            line = lines[number]
            assert line["frames_out"] + sum(line[name] for name in line if name.startswith("dropped_")) == sent
        assert lines["1"]["frames_out"] == len(every.frames)
        assert lines["2"]["frames_out"] >= len(few.frames)


async def _send(camera: Any) -> None:
    while True:
        await camera.show(LARGE)
        await asyncio.sleep(0.05)


async def test_why_each_connection_ended(watchout, clients: Clients):
    started = watchout(environ={"ALERT_QUEUE_MESSAGES": "20", "ALERT_RATE": "1000", "MAX_MESSAGE_BYTES": "200000"})
    owner = started.token("owner")
    first = await clients.camera(started.url, owner)
    await first.register("cam-1", produces=["video-frame", "alert"])

    stranger = await clients.viewer(started.url, None)
    await stranger.send("auth", token="wrong")
    assert await stranger.closed() == 1008
    async with await Reader.connect(started.port) as refused:
        with pytest.raises(AssertionError, match="401"):
            await refused.upgrade("/streams/subscribe?token=wrong")

    assert (await http(f"{started.url}/alerts", method="POST", token="wrong", body=[])).status == 401

    token = started.token("short")
    short = await clients.viewer(started.url, token)
    await short.subscribe("cam-3")
    broken = await clients.viewer(started.url, owner)
    await broken.subscribe("cam-1")
    await broken.send_raw("no JSON")
    await broken.find("error")
    await broken.send_raw(bytes(1 << 20))
    assert await broken.closed() == 1009

    # Alerts for a viewer that does not read, until they are too many.
    full = await Reader.watch(started.port, started.token("full"), "cam-2", receive_buffer=4096)
    alerting = await clients.camera(started.url, started.token("full"))
    await alerting.register("cam-2", produces=["video-frame", "alert"])
    async with full:
        async with asyncio.timeout(COMES_S):
            while "its outbound queue is full" not in started.output:
                await alerting.send("alert", streamId="cam-2", severity="low", message="x" * 4000)
                await asyncio.sleep(0.005)
    second = await clients.camera(started.url, owner)
    await second.register("cam-1")
    assert await first.closed() == 4501
    with sqlite3.connect(started.home / "sessions.db") as store:  # what a sign-out does
        assert store.execute("DELETE FROM session WHERE token = ?", (token,)).rowcount == 1
    store.close()
    assert await short.closed(COMES_S) == 4500

    found = await said(started, "cam-3", lambda one: "session_ended" in causes(one["past"]))
    (session,) = of(found["past"], "session_ended")
    assert "closed 4500: its session ended: expired, signed out, revoked or banned" in session["text"]

    await eventually(lambda: {4501, 1009, 4400} <= {line["code"] for line in access_lines(started)}, COMES_S)
    (user,) = {line["user"] for line in access_lines(started) if line["code"] in {4501, 1009}}
    of_user = {"taken_over", "too_big", "protocol_error", "claimed"}
    (full_line,) = [line for line in access_lines(started) if line["code"] == 4400]
    of_full, of_address, *_ = await asyncio.gather(  # each answer takes the time of a measurement
        said(started, full_line["user"], lambda one: "too_many_alerts" in causes(one["past"])),
        said(started, "127.0.0.1", lambda one: len([*of(one["past"], "refused_login")]) >= 3),
        said(started, user, lambda one: of_user <= causes(one["past"])),
        said(started, "cam-1", lambda one: {"taken_over", "claimed"} <= causes(one["past"])),
    )
    (waited,) = of(of_full["past"], "too_many_alerts")
    assert "closed 4400: 20 alerts (" in waited["text"]
    assert waited["figures"]["messages_waiting"] == 20
    of_one = await ask(started, full_line["connection"])
    assert (causes(of_one["now"]), of_one["past"]) == ({"not_connected"}, [waited])

    texts = " ".join(sentence["text"] for sentence in of(of_address["past"], "refused_login"))
    assert "closed 1008: its token was not valid" in texts
    assert "a handshake from 127.0.0.1 was refused with 401" in texts
    assert "a request from 127.0.0.1 was refused with 401 by gateway: POST /alerts: AUTH_FAILED" in texts

    found = await ask(started, "cam-l", code=1)
    assert causes(found["now"]) == {"unknown_name"}
    text = found["now"][0]["text"]
    assert "streams known are cam-1, cam-2" in text
    assert "cam-1" in text.partition("nearest: ")[2]


async def test_of_more_connections_than_are_remembered_one_by_one_the_sums_are_known(watchout, clients: Clients):
    started = watchout()
    owner = started.token("owner")
    camera = await clients.camera(started.url, owner)
    await camera.register("cam-1")
    at_once, watched = 20, 120

    async def look() -> int:
        viewer = await clients.viewer(started.url, owner)
        await viewer.subscribe("cam-1", consumes=["video-frame"])
        await viewer.leave()
        return len(viewer.frames)

    shown = 0
    async with camera.streaming(20):
        for _ in range(watched // at_once):
            shown += sum(await asyncio.gather(*(look() for _ in range(at_once))))

    def left(found: dict[str, Any]) -> list[dict[str, Any]]:
        return [each["figures"] for each in of(found["past"], "left")]

    def count(found: dict[str, Any]) -> int:
        return sum(figures["count"] for figures in left(found))

    await eventually(lambda: len(access_lines(started)) == watched, COMES_S)
    (user,) = {line["user"] for line in access_lines(started)}
    found, of_user = await asyncio.gather(
        *(said(started, one, lambda one: count(one) == watched) for one in ("cam-1", user))
    )
    assert max(figures["count"] for figures in left(found)) >= watched - 100, "the sum of those before"
    assert sum(figures.get("frames_out", 0) for figures in left(found)) >= shown
    assert left(of_user)


async def test_a_gateway_that_hangs_and_one_that_was_killed_are_named(watchout, clients: Clients):
    started = watchout(gateways=2, environ={"DRAIN_SPREAD_S": "60"})
    owner = started.token("owner")
    camera = await clients.camera(started.url, owner)
    await camera.register("cam-1")
    pid = started.holder_of(camera.local_port)
    (gateway,) = [each for each in started.named("gateway") if pid in (each.pid, *(c.pid for c in each.children))]
    (other,) = [each for each in started.named("gateway") if each is not gateway]
    there = 0
    while there < 4:
        viewer = await clients.viewer(started.url, owner)
        there += started.holder_of(viewer.local_port) != pid
    other.send_signal(signal.SIGTERM)  # it lets its clients go, one after the other
    found = await said(started, "cam-1", lambda one: "restart" in causes(one["everybody"]))
    (drain,) = of(found["everybody"], "restart")
    assert "was told to end, and asked its clients to reconnect (1012)" in drain["text"]
    gateway.pause()
    found = await ask(started, "cam-1")
    assert "no_answer" in causes(found["limits"]) or "gateway_lost" in causes(found["past"])
    gateway.kill()
    found = await said(started, "cam-1", lambda one: "gateway_lost" in causes(one["past"]))
    (lost,) = of(found["past"], "gateway_lost")
    assert "what it knew of its clients is lost with it, so why they saw nothing is not known" in lost["text"]
    assert {"offline", "started"} <= causes(found["now"]) | causes(found["limits"])
    other.kill()  # told to end once more while it drains, it would say so by its exit code


async def test_a_link_that_carries_no_more_a_camera_asked_for_less_and_a_busy_ml_service_are_named(
    watchout, clients: Clients
):
    async with serving() as service, contextlib.AsyncExitStack() as stack:
        service.takes_s = 3.0
        environ = {"ML_SERVICE_URL": service.url, "ML_IN_FLIGHT": "1", "ML_FPS": "5", "ML_TIMEOUT_S": "60"}
        started = watchout(gateways=2, environ=environ)
        owner = started.token("owner")
        asked = await clients.camera(started.url, owner)
        await asked.register("asked", consumes=["demand"])
        every = await clients.viewer(started.url, owner)
        await every.subscribe("asked", consumes=["video-frame"])
        pace = {"fps": 20.0}
        await stack.enter_async_context(_streaming_at(asked, pace))
        await eventually(lambda: len(every.frames) > 60, COMES_S)
        await every.send("unsubscribe", streamId="asked")
        await every.subscribe("asked", consumes=["video-frame"], maxFps=4)
        await asked.find("demand", COMES_S, fps=5)  # the ML service wants as many
        pace["fps"] = 5.0
        found = await said(started, "asked", lambda one: {"demand", "ml_backlog"} <= causes(one["now"]))
        (less,) = of(found["now"], "demand")
        assert "it was asked for 5, the most that anybody wants" in less["text"]
        (behind,) = of(found["now"], "ml_backlog")
        assert "1 request of at most 1 are under way, each takes" in behind["text"]
        assert behind["figures"]["sent"] >= 1
        pace["fps"] = 1.0

        large = await clients.camera(started.url, owner)
        await large.register("large")
        viewer = await clients.viewer(started.url, owner)
        while started.holder_of(viewer.local_port) == started.holder_of(large.local_port):
            viewer = await clients.viewer(started.url, owner)
        await viewer.subscribe("large", consumes=["video-frame"])
        await stack.enter_async_context(_halting(started.holder_of(viewer.local_port)))
        await stack.enter_async_context(_streaming_at(large, {"fps": 20.0}, JPEG + bytes(1_000_000)))
        found = await said(started, "large", lambda one: "mesh" in causes(one["now"]))
        (few,) = of(found["now"], "mesh")
        assert "on the link from the camera's gateway newer frames take the place of older ones" in few["text"]
        assert few["figures"]["fps"] < few["figures"]["cameraFps"] * 0.95


@contextlib.asynccontextmanager
async def _streaming_at(camera: Camera, pace: dict[str, float], picture: bytes = JPEG) -> AsyncIterator[None]:
    """Show frames, at the rate that `pace` has now."""

    async def show() -> None:
        while True:
            await camera.show_binary(picture)
            await asyncio.sleep(1 / pace["fps"])

    async with beside(show()):
        yield


@contextlib.asynccontextmanager
async def _halting(pid: int) -> AsyncIterator[None]:
    """Let a process stand still again and again, each time for so long that frames for it meet in its link."""

    async def halt() -> None:
        try:
            while True:
                os.kill(pid, signal.SIGSTOP)
                await asyncio.sleep(0.3)
                os.kill(pid, signal.SIGCONT)
                await asyncio.sleep(0.2)
        finally:
            os.kill(pid, signal.SIGCONT)

    async with beside(halt()):
        yield


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_camera_over_its_rate_a_late_viewer_and_a_router_that_was_away_are_named(watchout, clients: Clients):
    started = watchout(environ={"MESSAGE_RATE": "10", "ABUSE_LIMIT": "1000000"})
    owner = started.token("owner")
    camera = await clients.camera(started.url, owner)
    await camera.register("cam-1")
    viewer = await clients.viewer(started.url, owner)
    await viewer.subscribe("cam-1", window=1)
    async with camera.streaming(50):
        found = await said(started, "cam-1", lambda one: {"rate_limit", "window"} <= causes(one["now"]))
        (limited,) = of(found["now"], "rate_limit")
        assert "are over a rate and dropped (MESSAGE_RATE 10/s" in limited["text"]
        (late,) = of(found["now"], "window")
        assert "it acknowledges too late: its window of 1 frame is full" in late["text"]
        assert late["figures"]["dropped.window"] > 0
    started.one("router").terminate()
    started.start("router")
    await eventually(lambda: started.one("gateway").output.count('"router joined"') >= 2, COMES_S)
    found = await said(started, "cam-1", lambda one: {"router_away", "router_back"} <= causes(one["everybody"]))
    assert [each["cause"] for each in found["everybody"]][:2] == ["router_away", "router_back"]
