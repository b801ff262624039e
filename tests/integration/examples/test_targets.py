"""Each example of an ML service through its target: real processes, real servers, real footage, the same alerts."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kit.brokers import Broker
from tests.kit.ports import free_port
from tests.kit.services import missing
from watchout.common.media.frames import Frame
from watchout.common.settings import Settings
from watchout.mlbridge.targets import Target, TargetFailure, open_target

cv2 = pytest.importorskip("cv2")

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples/ml_service"
FOOTAGE = Path(os.environ.get("WATCHOUT_FOOTAGE", ROOT / "../shared/data/people.mp4"))
FPS = 2
SECONDS = 25
READY_S = 60.0
#: Kind → the program, what the target is told besides the URL, and the server between the two.
KINDS: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "http, as it accepts": ("service.py", {}, None),
    "http json": ("service.py", {"ml_http_format": "json"}, None),
    "http raw": ("over_http_raw.py", {"ml_http_format": "raw"}, None),
    "http batch": ("over_http_batch.py", {"ml_batch": 4}, None),
    "http raw batch": ("over_http_raw.py", {"ml_http_format": "raw", "ml_batch": 4}, None),
    "websocket, alerts alone": ("service.py", {}, None),
    "websocket": ("over_websocket.py", {}, None),
    "redis pub/sub": ("over_redis_pubsub.py", {}, "valkey"),
    "redis streams": ("over_redis_streams.py", {"ml_redis_mode": "streams"}, "valkey"),
    "nats": ("over_nats.py", {}, "nats"),
    "zeromq": ("over_zeromq.py", {}, None),
}


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    """The first seconds of the footage at 2 fps, as JPEG."""
    if not FOOTAGE.is_file():
        missing(f"no footage at {FOOTAGE}, name some in WATCHOUT_FOOTAGE")
    video = cv2.VideoCapture(str(FOOTAGE))
    step = round(video.get(cv2.CAP_PROP_FPS) / FPS)
    found = []
    for number in range(SECONDS * FPS * step):
        _, picture = video.read()
        if number % step == 0:
            found.append(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 75])[1].tobytes())
    video.release()
    return found


def frames_of(pictures: list[bytes]) -> list[Frame]:
    return [Frame("door", n, 1_700_000_000_000 + n * 1000 // FPS, picture=p) for n, p in enumerate(pictures, 1)]


@pytest.fixture(scope="module")
def expected(pictures: list[bytes]) -> list[dict[str, Any]]:
    """What the detector says of the footage when it is asked without any target."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        from watcher import Watcher, decode
    finally:
        del sys.path[0]
    watcher = Watcher()
    alerts = [
        watcher.look(f.stream_id, decode(f.picture), {"timestamp": f.timestamp, "frameId": f.frame_id}, 0.0)
        for f in frames_of(pictures)
    ]
    watcher.close()
    return [alert for alert in alerts if alert is not None]


@asynccontextmanager
async def running(kind: str, start_broker: Callable[..., Broker]) -> AsyncIterator[str]:
    """The example as a process; the URL for the bridge."""
    program, _, server = KINDS[kind]
    if server is None:
        port = free_port()
        scheme = {"h": "http", "w": "ws", "z": "tcp"}[kind[0]]
        url = f"{scheme}://127.0.0.1:{port}" + ("/ws" if program == "service.py" and scheme == "ws" else "")
        options = ["--port", str(port)]
    else:
        url = start_broker(server).url
        options = ["--url", url]
    if program == "over_redis_streams.py":
        options += ["--max-age-s", "60"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / program), *options,
        env={**os.environ, "PYTHONUNBUFFERED": "1"}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        if options[0] == "--port":
            await until_open(port)
        else:
            assert await asyncio.wait_for(process.stdout.readline(), READY_S) == b"ready\n"
        yield url
    finally:
        process.terminate()
        try:
            await asyncio.wait_for(process.communicate(), READY_S)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0


async def until_open(port: int) -> None:
    async with asyncio.timeout(READY_S):
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                await asyncio.sleep(0.05)
            else:
                return


async def show(target: Target, frame: Frame) -> list[Any]:
    """Show one frame, again while the service is not there yet."""
    async with asyncio.timeout(READY_S):
        while True:
            try:
                return await target.analyse(frame)
            except TargetFailure:
                await asyncio.sleep(0.05)


@pytest.mark.e2e
@pytest.mark.parametrize("kind", KINDS)
async def test_the_footage_brings_the_same_alerts_over_every_target(
    kind: str, start_broker: Callable[..., Broker], pictures: list[bytes], expected: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert len(expected) >= 2
    # No frame may be lost here, also when the example pauses: ZeroMQ would be connected anew after half a second.
    monkeypatch.setattr("watchout.mlbridge.targets.zeromq.CONNECTION_WAIT_S", READY_S)
    heard: list[Any] = []
    async with running(kind, start_broker) as url:
        target = open_target(Settings(ml_service_url=url, ml_timeout_s=30.0, **KINDS[kind][1]))
        assert target is not None
        await target.open(heard.extend)
        try:
            for frame in frames_of(pictures):
                heard += await show(target, frame)
            async with asyncio.timeout(READY_S):
                while len(heard) < len(expected):
                    await asyncio.sleep(0.01)
        finally:
            await target.close()
    assert sorted(heard, key=lambda alert: alert["frameId"]) == expected


@pytest.mark.parametrize("program", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_says_at_its_top_how_it_is_run(program: Path) -> None:
    if program.name in ("detector.py", "watcher.py"):
        return
    head = program.read_text().split('"""')[1]
    assert f"python {program.name}" in head
    assert "ML_SERVICE_URL=" in head
    assert "pip install" in head
