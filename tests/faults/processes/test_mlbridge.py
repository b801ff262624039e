"""An mlbridge that is killed while frames flow."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.faults.processes.support import MIB, assert_never_fell, health, more_frames, push
from tests.kit.clients import JPEG, base64_of, eventually, now_ms
from watchout.common.bus.membership import BRIDGE_LOST_AFTER_S

pytestmark = pytest.mark.e2e


class MlService:
    """An ML service that sees something in every frame."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.url = ""

    async def analyze(self, request: web.Request) -> web.Response:
        frame = await request.json()
        self.frames.append(frame)
        alert = {"severity": "medium", "message": "seen", "metadata": {"confidence": 0.5}}
        return web.json_response({"alert": alert})


@pytest.fixture
async def ml_service() -> AsyncIterator[MlService]:
    service = MlService()
    app = web.Application(client_max_size=64 * MIB)
    app.router.add_post("/analyze", service.analyze)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield service
    await runner.cleanup()


async def test_alerts_of_the_ml_service_come_back_after_a_kill_of_mlbridge_and_frames_never_stop(
    watchout, clients, ml_service
):
    started = watchout(environ={"ML_SERVICE_URL": ml_service.url, "ML_FPS": "10", "ALERT_COOLDOWN_S": "0"})
    url, token = started.url, started.token()
    camera, viewer = await clients.camera(url, token), await clients.viewer(url, token)
    stream = await camera.register("cam", consumes=["alert"])
    await viewer.subscribe(stream)

    def alerts() -> list[dict[str, Any]]:
        return [message for message in viewer.heard if message["type"] == "alert" and message["message"] != "fence"]

    def gone() -> bool:
        lines = started.one("router").output.splitlines()
        return any("member gone" in line and "mlbridge" in line for line in lines)

    async with camera.streaming(fps=10):
        await eventually(lambda: len(alerts()) >= 3, 30)
        started.one("mlbridge").kill()
        await more_frames(viewer, 15)
        assert await health(url) == 200
        # What the former bridge sent is with the viewer before anything of the next one is looked at.
        await eventually(gone, 30)
        await push(url, stream, "fence")
        await viewer.find("alert", message="fence")
        seen, when = len(alerts()), now_ms()
        started.start("mlbridge")
        await eventually(lambda: len(alerts()) >= seen + 3, 30)
        await eventually(lambda: any(message["type"] == "alert" for message in camera.heard), 30)
    gaps = [late - early for early, late in itertools.pairwise(viewer.heard_at[4:])]
    assert max(gaps) < BRIDGE_LOST_AFTER_S, "frames waited until the bridge was taken for gone"
    assert_never_fell(viewer)
    times = {frame["frameId"]: frame["timestamp"] for frame in viewer.frames}
    for alert in alerts():
        assert (alert["streamId"], alert["severity"], alert["message"]) == (stream, "medium", "seen")
        assert alert["metadata"] == {"confidence": 0.5}
        assert alert["timestamp"] == times.get(alert["frameId"], alert["timestamp"])
    assert len({alert["id"] for alert in alerts()}) == len(alerts())
    assert all(alert["timestamp"] >= when - 1000 for alert in alerts()[seen:]), "old frames were sent on return"
    sent = ml_service.frames[0]
    assert sent.keys() == {"streamId", "frame", "timestamp", "frameId"}
    assert sent["frame"] == base64_of(JPEG)
