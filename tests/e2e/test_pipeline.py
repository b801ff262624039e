"""The main job, as a user sees it: footage to viewers, a real detector, its alerts on both screens, real sign-in."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.clients import JPEG, base64_of, eventually
from tests.kit.processes import BIN, REPOSITORY, Watchout, clean_environ, free_port, poll
from tests.kit.proxies import answers
from tests.kit.services import missing
from watchout.ctl.sources.scene import CYCLE_S, EMPTY_S

FOOTAGE = Path(os.environ.get("WATCHOUT_FOOTAGE", REPOSITORY / "../shared/data/people.mp4"))
#: The first person of the footage is in the picture by then.
FIRST_PERSON_S = 6.0
FPS = 10


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of real footage as a folder of JPEGs."""
    av = pytest.importorskip("av")
    if not FOOTAGE.is_file():
        missing(f"no footage at {FOOTAGE}, name some in WATCHOUT_FOOTAGE")
    folder = tmp_path_factory.mktemp("footage")
    with av.open(str(FOOTAGE)) as film:
        for number, frame in enumerate(film.decode(video=0)):
            if number == 10 * FPS:
                break
            frame.to_image().save(folder / f"{number:04d}.jpg", quality=75)
    return folder


def ctl(started, *words: str) -> list[str]:
    return [str(BIN / "watchout-ctl"), *words, "--url", started.url.replace("http", "ws")]


async def test_footage_reaches_a_viewer_byte_by_byte_and_every_frame_is_accounted_for(watchout, tmp_path, pictures):
    started = watchout()
    saved = tmp_path / "saved"
    viewer = started.run("watch", ctl(started, "watch", "cam-1", "--save", str(saved), "--json"))
    await eventually(lambda: "offline" in viewer.output, 30)
    camera = started.run("publish", ctl(started, "publish", str(pictures), "--stream", "cam-1", "--fps", str(FPS)))
    await eventually(lambda: '"streaming"' in viewer.output, 30)
    assert await camera.ended(60) == 0
    sent = [path.read_bytes() for path in sorted(pictures.glob("*.jpg"))]
    # The newest wins, so a machine that stops for a moment may lose frames between; the last one always comes.
    await eventually(lambda: any(path.read_bytes() == sent[-1] for path in saved.glob("*.jpg")), 30)
    frame_id_of = {path: int(path.stem.rpartition("-")[2]) for path in saved.glob("*.jpg")}
    came = sorted(frame_id_of, key=lambda path: frame_id_of[path])
    assert [path.suffix for path in came] == [".jpg"] * len(came)
    number = -1
    for path in came:  # in the order in which they were sent, none changed and none twice
        number = sent.index(path.read_bytes(), number + 1)
    published, dropped = map(int, re.findall(r"sent (\d+) frames, .*; dropped (\d+)", camera.output)[-1])
    assert published + dropped == len(sent)
    assert frame_id_of[came[-1]] == published

    def frames() -> list[dict[str, Any]]:
        return [json.loads(line) for line in re.findall(r'^.*"video-frame".*\n', viewer.output, re.MULTILINE)]

    await eventually(lambda: len(frames()) == len(came), 30, "a frame that was saved is not printed")
    assert frame_id_of[came[0]] - 1 + len(came) + sum(frame["missed"] for frame in frames()) == published
    assert len(came) > len(sent) / 2


async def test_the_table_of_stats_shows_a_stream_that_is_streaming(watchout, clients):
    started = watchout()
    camera = await clients.camera(started.url, started.token())
    await camera.register("cam-1")
    async with camera.streaming(5):
        table = await asyncio.to_thread(stats_of, started)
    assert "cam-1" in table
    assert "streaming" in table


def stats_of(started: Watchout, *options: str) -> str:
    """What ``watchout-ctl stats`` prints."""
    return subprocess.run(
        [BIN / "watchout-ctl", "stats", *options], env=clean_environ() | {"WATCHOUT_HOME": str(started.home)},
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip


def alerts_of(output: str) -> list[int]:
    """The frame ids of the alerts that a `watch` or `publish` printed."""
    return [int(number) for number in re.findall(r"ALERT .*\(frame (\d+)", output)]


@pytest.fixture
def detector(watchout) -> Iterator[tuple[object, str]]:
    """A watchout with the example ML service."""
    pytest.importorskip("cv2")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    # At the end the service may be gone before the bridge.
    started = watchout(environ={"ML_SERVICE_URL": url}, expected=["Connect call failed"])
    service = REPOSITORY / "examples/ml_service/service.py"
    ml = started.run("ml", [str(BIN / "python"), str(service), "--port", str(port)])
    poll(lambda: answers(port) or not ml.running, 60, "the service does not listen")
    return started, url


@pytest.mark.parametrize(("source", "moves_at_s"), [("test", EMPTY_S), ("footage", FIRST_PERSON_S)])
async def test_the_detectors_alerts_are_on_both_screens_within_2_s_of_something_moving(detector, source, moves_at_s):
    started, _ = detector
    if source == "footage" and not FOOTAGE.is_file():
        missing(f"no footage at {FOOTAGE}, name some in WATCHOUT_FOOTAGE")
    name = str(FOOTAGE) if source == "footage" else source
    viewer = started.run("watch", ctl(started, "watch", "cam-1", "--alerts-only"))
    await eventually(lambda: "offline" in viewer.output, 30)
    camera = started.run("publish", ctl(started, "publish", name, "--stream", "cam-1"))
    await eventually(lambda: alerts_of(viewer.output) and alerts_of(camera.output), moves_at_s + CYCLE_S + 30)
    seen = alerts_of(viewer.output)[0]
    assert alerts_of(camera.output)[0] == seen
    members = json.loads(await asyncio.to_thread(stats_of, started, "--json"))["members"]
    bridge = next(member for member in members if member["kind"] == "mlbridge")
    assert bridge["figures"]["ml_requests_total"] > 0
    camera.send_signal(signal.SIGTERM)
    await camera.ended(30)
    (dropped,) = map(int, re.findall(r"sent \d+ frames, .*; dropped (\d+)", camera.output))
    # The alert names its frame: between the first movement and two seconds later. Frames that a busy machine drops have
    # no number.
    assert moves_at_s * FPS - dropped <= seen <= (moves_at_s + 2) * FPS


async def test_make_demo_runs_everything_and_alerts_appear(watchout):
    started = watchout(start=False)
    ml_port = free_port()
    environ = {"ML_SERVICE_URL": f"http://127.0.0.1:{ml_port}", "ML_PORT": str(ml_port), "FOOTAGE": "test"}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    honcho = f"exec {BIN}/honcho -e {os.devnull} -f Procfile.demo start"
    command = ["sh", "-c", f"cd '{REPOSITORY}' && {honcho}"]
    demo = started.run("demo", command, environ | {"PATH": path})
    await eventually(lambda: len(re.findall(r"alerts\.1.*ALERT", demo.output)) >= 2, 120)
    await eventually(lambda: re.search(r"camera\.1.*ALERT", demo.output), 30)


async def test_a_user_of_a_real_better_auth_publishes_and_watches(watchout, clients, postgres_url, start_better_auth):
    web_app = start_better_auth(postgres_url)
    ann, bob = web_app.sign_up("ann"), web_app.sign_up("bob")
    started = watchout(environ={"DATABASE_URL": postgres_url})
    camera = await clients.camera(started.url, ann.token)
    stream = await camera.register("door")
    viewer = await clients.viewer(started.url, ann.token, by="query")
    await viewer.subscribe(stream)
    await camera.show(base64_of(JPEG))
    assert (await viewer.frame())["data"] == base64_of(JPEG)
    stranger = await clients.viewer(started.url, bob.token, by="header")
    await stranger.send("subscribe", streamId=stream, consumes=["video-frame"])
    assert (await stranger.expect("error"))["code"] == "UNAUTHORIZED"
    await asyncio.to_thread(web_app.sign_out, ann.token)
    late = await clients.viewer(started.url, None)
    await late.send("auth", token=ann.token)
    assert (await late.expect("error"))["code"] == "AUTH_FAILED"
    assert await late.closed() == 1008
