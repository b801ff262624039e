"""The disk of the home is full: what was running goes on, everything can be started again, and nothing is lost."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit import disks
from tests.kit.clients import Clients, Viewer, http, new_name
from tests.kit.processes import BIN, JOINED, SERVICE_TOKEN, Watchout, poll

pytestmark = pytest.mark.e2e

COMES_S = 40.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small_disk(tmp_path / "disk") as made:
        yield made


@pytest.fixture
def started(disk: Path, watchout: Callable[..., Watchout]) -> Watchout:
    """A watchout whose home is a small disk."""
    environ = {"WATCHOUT_HOME": str(disk), "ROUTER_TIMEOUT_S": "20"}
    made = watchout(environ=environ, start=False, expected=["No space left", "full"])
    made.home = disk
    return made


async def start_all(started: Watchout) -> None:
    """Start a router, two gateways and a bridge, and wait until they serve together."""
    processes = [started.start(name) for name in ("router", "gateway", "gateway", "mlbridge")]

    for process in processes:
        await asyncio.to_thread(process.wait_for_output, JOINED.get(process.name, "router ready"), COMES_S)
    await asyncio.to_thread(poll, lambda: started.get("/health")[0] == 200, COMES_S, "they are not healthy")


def ctl(started: Watchout, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the operator's."""
    command = [str(BIN / "watchout-ctl"), *words]
    return subprocess.run(command, env=started.environ, capture_output=True, text=True, timeout=120, check=False)


async def alert_comes(started: Watchout, viewer: Viewer, stream: str, text: str) -> None:
    body = {"streamId": stream, "severity": "high", "message": text}
    assert (await http(f"{started.url}/alerts", method="POST", token=SERVICE_TOKEN, body=body)).status == 202
    await viewer.find("alert", message=text)


async def share(started: Watchout, stream: str, token: str) -> Any:
    path = f"{started.url}/streams/{stream}/shares"
    return await http(path, method="POST", token=token, body={"seconds": 3600})


async def test_everything_starts_on_a_full_disk_serves_who_it_knows_and_writes_again_when_there_is_room(
    started: Watchout, clients: Clients, tmp_path: Path
) -> None:
    await start_all(started)
    token, stream = started.token("ann"), new_name()
    camera = await clients.camera(started.url, token)
    await camera.register(stream)
    kept, ended = [(await share(started, stream, token)).json for _ in range(2)]
    await camera.leave()
    for process in reversed(started.processes):
        assert process.terminate() == 0
    assert not list(started.home.glob("sessions.db-*")), "the index of the session store has to be made anew"
    filling = disks.fill(started.home)

    await start_all(started)
    for gateway in started.named("gateway"):
        assert "no room beside the session store" in gateway.output
    camera = await clients.camera(started.url, token)
    await camera.register(stream)
    viewers = [await clients.viewer(started.url, each) for each in (token, token, kept["token"])]
    for viewer in viewers:
        await viewer.subscribe(stream, consumes=["video-frame"] if viewer is viewers[2] else ["video-frame", "alert"])
    async with camera.streaming(10):
        for viewer in viewers:
            await viewer.frame()
        await alert_comes(started, viewers[0], stream, "on a full disk")
        # What is there can be read; what cannot be written is refused, with the reason.
        assert ctl(started, "token", "--user", "ann").stdout.strip() == token
        refused = ctl(started, "token", "--user", "somebody-new")
        assert refused.returncode == 1
        assert "full" in refused.stderr
        refused_share = (await share(started, stream, token)).json
        assert refused_share["error"]["code"] == "ROUTING_ERROR"
        assert refused_share["error"]["message"] == "the share cannot be stored now, try again"
        assert "stream shared" not in started.one("router").output, "it is logged once it is stored"
        end = f"{started.url}/streams/{stream}/shares/{ended['id']}"
        assert (await http(end, method="DELETE", token=token)).status == 503
        assert (await http(f"{started.url}/streams", token=ended["token"])).status == 401, "it is over all the same"
        backup = tmp_path / "backup.tar.gz"
        assert ctl(started, "backup", str(backup)).returncode == 0, "to another disk"

        router = started.one("router")
        assert str(started.home / "shares.db") in router.output
        filling.unlink()
        await asyncio.to_thread(poll, lambda: "shared streams are written again" in router.output, COMES_S, "it is not")
        assert (await share(started, stream, token)).status == 201
        await alert_comes(started, viewers[0], stream, "afterwards")

    for process in started.processes:
        process.kill()
    await start_all(started)
    assert (await http(f"{started.url}/streams", token=ended["token"])).status == 401
    for good in (token, kept["token"]):
        assert (await http(f"{started.url}/streams", token=good)).status == 200
    assert not any("no room beside" in process.output for process in started.named("gateway"))


async def test_a_home_that_was_never_used_is_refused_on_a_full_disk_with_the_reason(started: Watchout) -> None:
    filling = disks.fill(started.home)
    gateway = started.start("gateway")
    assert await gateway.ended(COMES_S) == 1
    assert (
        f"the session store {started.home / 'sessions.db'} cannot be used: database or disk is full" in gateway.output
    )
    filling.unlink()
    await start_all(started)
