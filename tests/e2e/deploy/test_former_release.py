"""Processes of the former release work with those of this one, in both directions, as they do during an upgrade."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.kit.clients import Clients, eventually, http, new_name
from tests.kit.former_release import FormerRelease, former_release
from tests.kit.ml_stub import serving
from tests.kit.ports import free_port
from tests.kit.processes import SERVICE_TOKEN, Watchout

pytestmark = pytest.mark.e2e
COMES_S = 60.0


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> FormerRelease:
    return former_release(tmp_path_factory.mktemp("former"))


@pytest.mark.parametrize(
    ("router", "bridge"), [("former", "new"), ("new", "former")], ids=["former router", "new router"]
)
async def test_frames_and_alerts_go_both_ways_between_two_releases(
    watchout: Any, clients: Clients, former: FormerRelease, router: str, bridge: str
) -> None:
    """Two gateways, one of each release: the camera at one and its viewer at the other, and the other way round."""
    async with serving() as ml:
        started: Watchout = watchout(start=False, environ={"ML_SERVICE_URL": ml.url, "ALERT_COOLDOWN_S": "0"})

        def start(name: str, release: str, **environ: str) -> None:
            if release == "new":
                started.start(name, environ)
            else:
                started.run(name, former.command(name), {**former.environ, **environ})

        ports = {"new": started.port, "former": free_port()}
        start("router", router)
        start("mlbridge", bridge)
        for release, port in ports.items():
            start("gateway", release, WATCHOUT_PORT=str(port))
        await asyncio.to_thread(started.wait_ready)
        urls = {release: f"http://127.0.0.1:{port}" for release, port in ports.items()}
        token = started.token()
        for at, other in (("former", "new"), ("new", "former")):
            stream, alert = new_name(), new_name()
            camera, viewer = await clients.camera(urls[at], token), await clients.viewer(urls[other], token)
            await camera.register(stream, consumes=["alert"])
            await viewer.subscribe(stream)

            async def seen(camera: Any = camera, viewer: Any = viewer) -> bool:
                await camera.show()
                return len(viewer.frames) > 2

            await eventually(seen, COMES_S, f"frames from the {at} gateway to the {other} one")
            body = {"streamId": stream, "severity": "low", "message": "pushed", "id": alert}
            answer = await http(f"{urls[other]}/alerts", method="POST", token=SERVICE_TOKEN, body=body)
            assert answer.status == 202
            ml.mode = "answer"

            async def told(camera: Any = camera, viewer: Any = viewer, alert: str = alert) -> bool:
                await camera.show()
                for client in (camera, viewer):
                    alerts = [message for message in client.heard if message.get("type") == "alert"]
                    if alert not in {each["id"] for each in alerts}:
                        return False
                    if "a person" not in {each["message"] for each in alerts}:
                        return False
                return True

            await eventually(told, COMES_S, f"alerts of a stream at the {at} gateway")
            ml.mode = "none"
            rows = (await http(f"{urls[other]}/streams", token=token)).json["streams"]
            assert stream in [row["id"] for row in rows]
            await camera.leave()
