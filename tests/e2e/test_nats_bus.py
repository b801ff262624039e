"""A watchout whose processes are joined by NATS: all of it with real servers, some of which are killed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e import test_alert_pictures
from tests.e2e.test_alert_pictures import LOOKS_AT_ALL, Service
from tests.e2e.test_bus import House
from tests.kit.clients import JPEG, Camera, Clients, Viewer, base64_of, eventually, http
from tests.kit.nats_servers import NatsServer, NatsSite
from tests.kit.processes import BIN, SERVICE_TOKEN, Watchout, poll

pytestmark = pytest.mark.e2e
service = test_alert_pictures.service

COMES_S: Final = 60.0
#: A newer frame may take the place of one that waits, so a process that pauses for a second costs ten in a row here.
MOST_MISSED: Final = 25
#: A gateway that stands still for this time is no member any more, and gets then what NATS held for it.
STOPPED_S: Final = 4.0
PAGE: Final = Path(__file__).parents[2] / "docs" / "bus.md"


def permissions() -> str:
    """The block of docs/bus.md."""
    (block,) = re.findall(r"<!-- permissions: .*?-->\n```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return block


def environ_of(bus: str, **more: str) -> dict[str, str]:
    return {"WATCHOUT_BUS": bus, "CLUSTER_NAME": "watchout", "MESSAGE_RATE": "1000", **more}


def asked(started: Watchout) -> Any:
    """What `watchout-ctl stats` is told; None: nobody answered in time."""
    told = subprocess.run(
        [str(BIN / "watchout-ctl"), "stats", "--json"], env=started.environ, capture_output=True, text=True,
        timeout=COMES_S, check=False,
    )  # fmt: skip
    return None if told.returncode else json.loads(told.stdout)


async def two_gateways(started: Watchout, **of_the_second: str) -> tuple[House, str, str]:
    house = House(started)
    return house, await house.add_gateway(), await house.add_gateway(**of_the_second)


async def test_everything_works_with_the_documented_permissions_and_no_frame_crosses_nats(
    watchout: Any,
    clients: Clients,
    service: Service,
    start_nats: Callable[..., NatsSite],
) -> None:
    users = f'authorization {{ users: [ {{ user: "w", password: "p", {permissions()} }} ] }}'
    site = start_nats(1, users)
    environ = environ_of(site.url_of("w", "p"), ML_SERVICE_URL=service.url, **LOOKS_AT_ALL)
    started = watchout(start=False, environ=environ, expected=["Connect call failed"])
    house, near, far = await two_gateways(started)
    token = started.token()
    camera = await clients.camera(near, token)
    stream = await camera.register()
    viewer = await clients.viewer(far, token)
    await viewer.subscribe(stream)
    bridge = started.start("mlbridge")
    await asyncio.to_thread(bridge.wait_for_output, "joined the router")

    picture = JPEG + b"\0" * 100_000
    for _ in range(20):
        await camera.show(base64_of(picture))
        await viewer.frame()
    await camera.show(base64_of(picture + b"!"))
    alert = await viewer.find("alert", COMES_S)

    async def shown() -> bytes:
        """The picture of the alert, which comes to the router by another way."""
        answer = await http(f"{far}/alerts/{alert['id']}/frame.jpg", token=token)
        return answer.body if answer.status == 200 else b""

    assert await eventually(shown, COMES_S, "the picture of the alert did not come") == picture + b"!"
    listed = await http(f"{far}/alerts?streamId={stream}", token=token)
    assert [each["id"] for each in listed.json["alerts"]] == [alert["id"]]

    assert stream in json.dumps(
        await eventually(lambda: asyncio.to_thread(asked, started), COMES_S, "no router answers")
    )
    assert house.figure("", "frames_routed_total") == 1, "only the picture of the alert, which was asked for once"
    crossed = site.servers[0].monitor("/varz")[1]["in_bytes"]
    assert crossed < 1_000_000, f"{crossed} bytes crossed NATS, of 2.8 MB of frames"
    assert "lacks a permission" not in started.output

    camera.cut()
    camera = await clients.camera(far, token)
    await camera.register(stream)
    await camera.show()
    await eventually(lambda: viewer.frame_ids[-1] > 22, COMES_S)


# ── while servers end ────────────────────────────────────────────────────────────────────────────────────────────────


class Alerts:
    """Raises numbered alerts, each again until it is accepted, and knows which were."""

    def __init__(self, url: str, stream: str) -> None:
        self._url = url
        self._stream = stream
        self.accepted: list[str] = []

    async def run(self) -> None:
        number = 0
        while True:
            number += 1
            body = {"id": f"n{number}", "streamId": self._stream, "severity": "low", "message": "m"}
            while (status := await self._post(body)) >= 500:
                await asyncio.sleep(0.05)
            assert status == 202, "it is not accepted, and will not be"
            self.accepted.append(body["id"])
            await asyncio.sleep(0.02)

    async def _post(self, body: dict[str, str]) -> int:
        return (await http(f"{self._url}/alerts", method="POST", token=SERVICE_TOKEN, body=body)).status


@contextlib.asynccontextmanager
async def going_on(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def missed(viewer: Viewer) -> int:
    """The most frames in a row that did not come."""
    ids = viewer.frame_ids
    return max((later - earlier - 1 for earlier, later in itertools.pairwise(ids)), default=0)


def heard_alerts(viewer: Viewer) -> list[str]:
    return [message["id"] for message in viewer.heard if message["type"] == "alert"]


async def killed(server: NatsServer, site: NatsSite) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(1.0)
    await asyncio.to_thread(site.start)


async def replaced(server: NatsServer, site: NatsSite) -> None:
    """Lame duck mode, and a new server once all clients have left."""
    server.signal(signal.SIGUSR2)
    await eventually(lambda: asyncio.to_thread(server.is_left), COMES_S, "clients stay with a server that will end")
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(site.start)


@pytest.mark.parametrize("end", [killed, replaced])
async def test_a_server_that_ends_costs_no_alert_and_frames_go_on(
    watchout: Any, clients: Clients, nats_cluster: NatsSite, end: Any
) -> None:
    started = watchout(start=False, environ=environ_of(nats_cluster.url, CLUSTER_NAME=f"t{secrets.token_hex(4)}"))
    house, near, far = await two_gateways(started)
    token = started.token()
    camera = await clients.camera(near, token)
    stream = await camera.register()
    viewer = await clients.viewer(far, token)
    await viewer.subscribe(stream)
    alerts = Alerts(near, stream)
    async with camera.streaming(10), going_on(alerts.run()):
        await eventually(lambda: viewer.frames and alerts.accepted, COMES_S)
        for server in nats_cluster.servers:
            await end(server, nats_cluster)
            count, seen = len(alerts.accepted), len(viewer.frames)
            await eventually(lambda count=count: len(alerts.accepted) > count + 10, COMES_S, "no alert is accepted")
            await eventually(lambda seen=seen: len(viewer.frames) > seen + 5, COMES_S)
        assert missed(viewer) <= MOST_MISSED
        (_, (gateway, _)) = house.gateways
        await asyncio.to_thread(gateway.pause)
        count = len(alerts.accepted)
        await eventually(lambda: len(alerts.accepted) > count + 20, COMES_S)
        await asyncio.sleep(STOPPED_S)
        gateway.resume()
    accepted = list(alerts.accepted)
    await eventually(lambda: len(heard_alerts(viewer)) >= len(accepted), COMES_S, "an accepted alert is lost")
    assert heard_alerts(viewer)[: len(accepted)] == accepted
    viewer.cut()
    await asyncio.to_thread(gateway.terminate)
    router = started.one("router")
    await eventually(
        lambda: re.search(r'"ended".*"member gone"', router.output), COMES_S, "its last words did not come"
    )


def told_of_nats(url: str, wanted: float, processes: int) -> Callable[[], Awaitable[bool]]:
    """Whether the page of metrics tells this of the connections of so many processes to NATS, for `eventually`."""

    async def told() -> bool:
        page = (await http(f"{url}/metrics")).body.decode()
        found = re.findall(r"^watchout_nats_connected\{[^}]+\} (\S+)$", page, re.MULTILINE)
        return len(found) >= processes and {float(value) for value in found} == {wanted}

    return told


async def test_without_any_server_frames_go_on_and_new_cameras_are_told_in_time(
    watchout: Any, clients: Clients, start_nats: Callable[..., NatsSite]
) -> None:
    site = start_nats()
    started = watchout(start=False, environ=environ_of(site.url, ROUTER_TIMEOUT_S="2"))
    _, near, far = await two_gateways(started)
    token = started.token()
    camera = await clients.camera(near, token)
    stream = await camera.register()
    viewer = await clients.viewer(far, token)
    await viewer.subscribe(stream)
    async with camera.streaming(10):
        await viewer.frame()
        await eventually(told_of_nats(near, 1, processes=3), COMES_S)
        await asyncio.to_thread(site.servers[0].kill)
        began = time.monotonic()
        late = await clients.camera(near, token)
        await late.send("register", clientType="mobile", produces=["video-frame"])
        refusal = await late.find("error", COMES_S)
        assert refusal["code"] == "ROUTING_ERROR"
        await eventually(lambda: time.monotonic() - began > 6, COMES_S)
        seen = len(viewer.frames)
        await eventually(lambda: len(viewer.frames) > seen + 10, COMES_S, "frames ended with NATS")
        gateway = started.named("gateway")[0]
        await eventually(lambda: "no NATS server of WATCHOUT_BUS can be used" in gateway.output, COMES_S)
        await eventually(told_of_nats(near, 0, processes=1), COMES_S)
        await asyncio.to_thread(site.start)

        async def registered() -> bool:
            again: Camera = await clients.camera(far, token)
            await again.send("register", clientType="mobile", produces=["video-frame"])
            answer = await again.next(COMES_S)
            while answer["type"] not in ("success", "error"):
                answer = await again.next(COMES_S)
            return answer["type"] == "success" and "streamId" in answer

        await eventually(registered, COMES_S)
    assert missed(viewer) <= MOST_MISSED


# ── what is not there ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def no_nats(tmp_path: Path) -> dict[str, str]:
    """An environment in which nats-py cannot be imported."""
    package = tmp_path / "nats"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('there is no nats here')\n")
    return {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def test_one_machine_needs_nothing_of_nats(watchout: Any, no_nats: dict[str, str]) -> None:
    started = watchout(environ=no_nats, prefork=False)
    poll(lambda: asked(started), COMES_S, "no router answers")


def test_without_nats_py_a_process_says_how_to_get_it(watchout: Any, no_nats: dict[str, str]) -> None:
    started = watchout(start=False, environ={**no_nats, "WATCHOUT_BUS": "nats://127.0.0.1"}, prefork=False)
    process = started.start("gateway")
    assert process.wait(COMES_S) == 1
    assert "pip install 'watchout[nats]'" in process.output
