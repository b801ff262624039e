"""The latency ledger through real processes: a camera whose clock is wrong, and an ML service that takes its time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
from collections.abc import AsyncIterator
from typing import Any

from tests.kit.clients import JPEG, Camera, Viewer, base64_of, eventually, http
from tests.kit.ml_stub import serving
from tests.kit.processes import BIN, Watchout
from tests.kit.slow_link import SlowLink
from watchout.common.bus.slots import slot_of
from watchout.common.clock import now_ms
from watchout.gateway.latency.camera_clock import OWN_TIME

#: Longest wait for what the ledger is to say.
PATIENCE_S = float(os.environ.get("WATCHOUT_LATENCY_S", "150"))
STATS_TOKEN = "for-operators-0123456789abcdef"
#: The camera's clock minus the right one, and what the ML service takes for a frame.
AHEAD_MS = 3_000
ML_MS = 200
FPS = 10.0
#: The camera's uplink, on which a frame takes 50 ms and more, and the size of a frame.
UPLINK_BYTES_PER_S = 200_000
PICTURE = JPEG + bytes(8_000)
LEAST_UPLINK_MS = 30.0
#: Alerts that are compared with what the viewers saw.
ALERTS = 24
#: What the way from the gateway's write to this process may take on a busy machine, in ms.
READ_MS = 60.0


@contextlib.asynccontextmanager
async def streaming(camera: Camera, *, stamped: bool) -> AsyncIterator[None]:
    """Send frames that are stamped by the camera's own clock, or not at all."""

    async def send() -> None:
        while True:
            await camera.show(base64_of(PICTURE), **({"timestamp": now_ms() + AHEAD_MS} if stamped else {}))
            await asyncio.sleep(1 / FPS)

    task = asyncio.create_task(send())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def watching(viewer: Viewer, seen: list[float]) -> AsyncIterator[None]:
    """Note of each alert how long after the capture of its frame it was read, in ms."""

    async def read() -> None:
        while True:
            alert = await viewer.find("alert", PATIENCE_S)
            seen.append(now_ms() - (alert["timestamp"] - AHEAD_MS))

    task = asyncio.create_task(read())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ctl(started: Watchout, *words: str) -> tuple[int, str]:
    command = started.run("latency", [str(BIN / "watchout-ctl"), "latency", *words])
    return await command.ended(PATIENCE_S), command.output


async def told(started: Watchout, stream: str) -> dict[str, Any] | None:
    """What ``watchout-ctl latency STREAM --json`` says; None: it has nothing to say yet."""
    code, said = await ctl(started, stream, "--json")
    return dict(json.loads(said)) if code == 0 else None


def hops(figures: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {hop["hop"]: hop for hop in figures["hops"]}


async def test_the_ledger_says_how_late_a_camera_with_a_wrong_clock_is(watchout, clients):
    """Its figures are those that the viewers measure; the clock is three seconds ahead, and the uplink is slow."""
    async with contextlib.AsyncExitStack() as stack:
        stub = await stack.enter_async_context(serving())
        stub.mode, stub.takes_s = "answer", ML_MS / 1000
        started = watchout(
            gateways=2,
            environ={
                "ML_SERVICE_URL": stub.url, "ML_FPS": "4", "ALERT_COOLDOWN_S": "0", "LATENCY_OBJECTIVE_MS": "600000",
                "ALERT_LATENCY_OBJECTIVE_MS": "100", "STATS_TOKEN": STATS_TOKEN,
            },
        )  # fmt: skip
        token, seen = started.token(), []
        link = await stack.enter_async_context(SlowLink(started.port, UPLINK_BYTES_PER_S).running())
        camera = await clients.camera(f"http://127.0.0.1:{link.port}", token)
        await camera.register("cam")
        plain = await clients.camera(started.url, token)
        await plain.register("plain")
        for _ in range(3):
            viewer = await clients.viewer(started.url, token)
            await viewer.subscribe("cam")
            await stack.enter_async_context(watching(viewer, seen))
        await stack.enter_async_context(streaming(camera, stamped=True))
        await stack.enter_async_context(streaming(plain, stamped=False))
        last: list[Any] = []

        async def agrees() -> bool:
            """Polled: the ledger is told every two seconds, and clocks are found better with time."""
            found = await told(started, "cam")
            if found is None or found["clock"] is None or found["clock"]["offsetMs"] is None:
                return False
            clock, of = found["clock"], hops(found)
            last[:] = [found, statistics.median(seen or [0.0])]
            return (
                abs(clock["offsetMs"] - AHEAD_MS) <= clock["errorMs"] + 2
                and of.keys() >= {"gateway_to_ml", "ml", "ml_to_accepted", "accepted_to_written", "glass_to_glass"}
                and "glass_to_alert" in of
                and of["glass_to_alert"]["count"] >= ALERTS
                and of["ml"]["p50Ms"] >= ML_MS * 0.97
                and of["glass_to_alert"]["p50Ms"] >= of["ml"]["p50Ms"]
                and abs(of["glass_to_alert"]["p50Ms"] - last[1]) <= 0.1 * last[1] + READ_MS
                and LEAST_UPLINK_MS <= of["capture_to_gateway"]["p50Ms"] <= of["glass_to_glass"]["p50Ms"] * 1.1
                and of["glass_to_glass"]["p50Ms"] < AHEAD_MS / 2
            )

        assert await eventually(agrees, PATIENCE_S), last
        burns = {burn["hop"]: burn["burn5m"] for burn in last[0]["objectives"]}
        assert burns == {"glass_to_glass": 0.0, "glass_to_alert": 100.0}, "all in time, and all late"

        code, said = await ctl(started)
        assert (code, "glass to alert" in said, "10000%" in said) == (0, True, True), said
        code, said = await ctl(started, "cam")
        assert (code, "ahead of the gateway's, within" in said) == (0, True), said
        code, said = await ctl(started, "nosuch")
        assert (code, "nothing was measured of stream nosuch" in said) == (1, True), said

        async def plain_is_unknown() -> bool:
            found = await told(started, "plain")
            return found is not None and found["clock"] is not None and found["clock"]["unknown"] == OWN_TIME

        assert await eventually(plain_is_unknown, PATIENCE_S), "a frame without a timestamp has no time of capture"
        found = await told(started, "plain")
        assert found is not None
        assert not hops(found).keys() & {"capture_to_gateway", "glass_to_glass", "glass_to_alert"}

        page = (await http(f"{started.url}/metrics", token=STATS_TOKEN)).body.decode()
        assert 'watchout_latency_seconds_bucket{hop="ml",le="0.128",process="mlbridge"} 0.0' in page
        assert 'hop="glass_to_alert",le="+Inf"' in page
        assert (await http(f"{started.url}/latency")).status == 401
        shown = (await http(f"{started.url}/latency", token=STATS_TOKEN)).json
        assert {stream["streamId"] for stream in shown["streams"]} == {"cam", "plain"}
        own = (await http(f"{started.url}/streams/cam/latency", token=token)).json
        assert "glass_to_alert" in hops(own)
        assert (await http(f"{started.url}/streams/cam/latency", token=started.token("somebody"))).status == 404


async def test_streams_of_all_slots_and_gateways_are_in_one_answer(in_one_process, clients):
    """Each slot has a router of its own, which knows the latencies of its streams; all together are told to one."""
    started = await in_one_process(slots=4, gateways=2)
    names = [next(f"cam-{n}" for n in range(100) if slot_of(f"cam-{n}", 4) == slot) for slot in range(4)]
    token = started.token()
    async with contextlib.AsyncExitStack() as stack:
        for number, name in enumerate(names):
            camera = await clients.camera(started.urls[number % 2], token)
            viewer = await clients.viewer(started.urls[1], token)
            await camera.register(name)
            await viewer.subscribe(name)
            await stack.enter_async_context(streaming(camera, stamped=True))

        async def all_told() -> bool:
            answer = await http(f"{started.urls[0]}/latency")
            page = answer.json if answer.status == 200 else {"total": None, "streams": []}
            glass = [hops(stream).get("glass_to_glass", {}).get("count", 0) for stream in page["streams"]]
            whole = hops(page["total"]).get("glass_to_glass", {}).get("count", 0) if page["total"] else 0
            known = sum(stream["clock"] is not None for stream in page["streams"])
            return len(glass) == known == 4 and min(glass) >= 2 and whole >= max(glass) + min(glass)

        assert await eventually(all_told, PATIENCE_S)
        for url in started.urls:
            shown = (await http(f"{url}/streams/{names[2]}/latency", token=token)).json
            assert shown["streamId"] == names[2]
            assert shown["clock"] is not None
        assert b'hop="glass_to_glass"' in (await http(f"{started.urls[0]}/metrics")).body
