"""The example ML service on drawn scenes, over HTTP and WebSocket, and on real footage."""

from __future__ import annotations

import base64
import functools
import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer

cv2 = pytest.importorskip("cv2")

ROOT = Path(__file__).parents[3]
FPS = 2.0
#: The first person of the footage comes into the picture then.
FIRST_PERSON_S = 6.0


@pytest.fixture(scope="module")
def service() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ml_service_example", ROOT / "examples/ml_service/service.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT / "examples/ml_service"))  # as when it is started as a script
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.path[0]
    return module


def plain(shade: int = 170) -> np.ndarray:
    return np.full((240, 320, 3), shade, np.uint8)


def room() -> np.ndarray:
    """A wall with pictures, a floor, grain."""
    picture = plain(180)
    picture[160:] = (90, 110, 130)
    cv2.rectangle(picture, (40, 30), (100, 80), (40, 80, 160), -1)
    cv2.rectangle(picture, (210, 20), (280, 150), (120, 60, 50), -1)
    grain = np.random.default_rng(1).normal(0, 6, picture.shape)
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


def with_figure(picture: np.ndarray, x: int, shade: tuple[int, int, int] = (60, 40, 30)) -> np.ndarray:
    picture = picture.copy()
    cv2.circle(picture, (x, 95), 11, shade, -1)
    cv2.rectangle(picture, (x - 12, 106), (x + 12, 190), shade, -1)
    return picture


@functools.cache
def _grain(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, plain().shape)


def as_seen(picture: np.ndarray, noise: int) -> np.ndarray:
    """With the noise of a camera, of which there are 16, and JPEG."""
    return _as_seen(picture.tobytes(), picture.shape, noise % 16)


@functools.lru_cache(64)
def _as_seen(pixels: bytes, shape: tuple[int, ...], noise: int) -> np.ndarray:
    picture = np.frombuffer(pixels, np.uint8).reshape(shape)
    _, data = cv2.imencode(".jpg", np.clip(picture + _grain(noise), 0, 255).astype(np.uint8))
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def alerts_of(service: ModuleType, pictures: Iterable[np.ndarray]) -> list[tuple[int, dict[str, Any]]]:
    """Alerts with the number of their picture, shown at 2 fps."""
    detector = service.Detector()
    looked = ((number, detector.look(picture, number / FPS)) for number, picture in enumerate(pictures))
    return [(number, alert) for number, alert in looked if alert is not None]


@pytest.mark.parametrize("background", [plain(), plain(20), plain(250), room()], ids=["grey", "dark", "white", "room"])
def test_a_still_scene_brings_no_alert(service: ModuleType, background: np.ndarray) -> None:
    assert alerts_of(service, [as_seen(background, number) for number in range(60)]) == []


@pytest.mark.parametrize("background", [plain(), plain(250), room()], ids=["grey", "white", "room"])
@pytest.mark.parametrize("shade", [(60, 40, 30), (120, 120, 120), (40, 40, 220)], ids=["dark", "grey", "red"])
def test_a_walker_who_comes_in_is_reported_within_two_seconds(
    service: ModuleType, background: np.ndarray, shade: tuple[int, int, int]
) -> None:
    enters = 10
    scene = [as_seen(background, number) for number in range(enters)]
    scene += [as_seen(with_figure(background, 30 + 20 * step, shade), 100 + step) for step in range(12)]
    found = alerts_of(service, scene)
    assert found
    number, alert = found[0]
    assert number - enters < 2 * FPS
    x = 30 + 20 * (number - enters)
    location = alert["metadata"]["location"]
    assert abs(location["x"] - x / 320) < 0.12
    assert 0.3 < location["y"] < 0.8
    assert alert["metadata"]["objectType"] == "person"
    assert 0 < alert["metadata"]["confidence"] < 1
    assert alert["severity"] == "medium"
    assert alert["message"]


def test_a_walker_who_is_there_from_the_first_frame_on_is_reported(service: ModuleType) -> None:
    scene = [as_seen(with_figure(plain(), 30 + 20 * step), step) for step in range(12)]
    (first, _), *_ = alerts_of(service, scene)
    assert first <= 2 * FPS


def test_one_event_is_told_once_in_five_seconds(service: ModuleType) -> None:
    scene = [as_seen(with_figure(plain(), 30 + 4 * step), step) for step in range(60)]
    numbers = [number for number, _ in alerts_of(service, scene)]
    assert 2 <= len(numbers) <= 6
    assert all(later - earlier >= 5 * FPS for earlier, later in zip(numbers, numbers[1:], strict=False))  # noqa: RUF007


def lit(picture: np.ndarray, gain: float, offset: float) -> np.ndarray:
    return np.clip(picture * gain + offset, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("background", [plain(120), room()], ids=["grey", "room"])
@pytest.mark.parametrize(("gain", "offset"), [(1.3, 0), (0.6, 0), (1.0, 40), (1.0, -40), (0.3, 0), (1.8, 30)])
def test_a_lamp_is_no_motion(service: ModuleType, background: np.ndarray, gain: float, offset: float) -> None:
    scene = [as_seen(background, number) for number in range(10)]
    scene += [as_seen(lit(background, gain, offset), 100 + number) for number in range(20)]
    scene += [as_seen(background, 200 + number) for number in range(20)]
    assert alerts_of(service, scene) == []


def test_a_cloud_is_no_motion(service: ModuleType) -> None:
    scene = [as_seen(lit(room(), 1 - 0.4 * abs(np.sin(step / 8)), 0), step) for step in range(80)]
    assert alerts_of(service, scene) == []


def test_a_walker_is_seen_while_the_light_changes(service: ModuleType) -> None:
    scene = [as_seen(room(), number) for number in range(10)]
    scene += [as_seen(lit(with_figure(room(), 30 + 20 * step), 0.7, 10), 100 + step) for step in range(8)]
    assert alerts_of(service, scene)


def test_pictures_of_any_size_are_looked_at(service: ModuleType) -> None:
    detector = service.Detector()
    for shape in [(1, 1), (1, 4000), (4000, 1), (480, 640), (640, 480), (2, 3)]:
        for number in range(3):
            detector.look(np.full((*shape, 3), 60 * number, np.uint8), 0.0)


# ── over the wire ────────────────────────────────────────────────────────────────────────────────────────────────


def message(picture: np.ndarray, stream: str = "s", number: int = 1) -> dict[str, Any]:
    _, data = cv2.imencode(".jpg", picture)
    return {
        "streamId": stream,
        "frame": base64.b64encode(data.tobytes()).decode(),
        "timestamp": 1_700_000_000_000 + number,
        "frameId": number,
    }


def walk() -> list[np.ndarray]:
    return [plain()] * 5 + [with_figure(plain(), 30 + 20 * step) for step in range(6)]


@pytest.fixture
async def client(service: ModuleType) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(service.make_app())) as client:
        yield client


async def test_over_http_a_walk_brings_one_alert_with_the_frames_own_figures(client: TestClient[Any, Any]) -> None:
    alerts = []
    for number, picture in enumerate(walk(), 1):
        response = await client.post("/analyze", json=message(picture, number=number))
        assert response.status == 200
        answer = await response.json()
        if "alert" in answer:
            alerts.append(answer["alert"])
    (alert,) = alerts
    assert alert["type"] == "alert"
    assert alert["streamId"] == "s"
    assert alert["timestamp"] == 1_700_000_000_000 + alert["frameId"]
    assert 6 <= alert["frameId"] <= 8


async def test_a_picture_as_it_is_is_looked_at_and_bad_ones_are_refused_with_a_sentence(
    client: TestClient[Any, Any],
) -> None:
    ids = {"X-Stream-Id": "s", "X-Frame-Id": "1", "X-Frame-Time": "5", "Content-Type": "image/jpeg"}
    picture = base64.b64decode(message(plain())["frame"])
    nameless = {name: value for name, value in ids.items() if name != "X-Stream-Id"}
    wrong = {**ids, "X-Frame-Id": "one"}
    for body, headers, status in (
        (picture, ids, 200),
        (b"no", ids, 400),
        (picture, nameless, 400),
        (picture, wrong, 400),
    ):
        response = await client.post("/analyze", data=body, headers=headers)
        assert response.status == status
        assert response.headers["Accept"].startswith("image/*")
        assert status == 200 or (await response.json())["error"]


async def test_over_a_websocket_only_alerts_come_back(client: TestClient[Any, Any]) -> None:
    async with client.ws_connect("/ws") as ws:
        await ws.send_str("no json")
        for number, picture in enumerate(walk(), 1):
            await ws.send_json(message(picture, number=number))
        alert = await ws.receive_json(timeout=30)
        assert (alert["type"], alert["streamId"]) == ("alert", "s")


async def test_streams_do_not_disturb_each_other(client: TestClient[Any, Any]) -> None:
    told = set()
    for number, picture in enumerate(walk(), 1):
        for stream, shown in (("walk", picture), ("still", plain(40))):
            response = await client.post("/analyze", json=message(shown, stream, number))
            if "alert" in await response.json():
                told.add(stream)
    assert told == {"walk"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "JSON"),
        (b"\xff", "JSON"),
        (b"[" * 100_000, "JSON"),
        (b"[]", "streamId"),
        (b'{"frame":""}', "streamId"),
        (b'{"streamId":"s"}', "frame"),
        (b'{"streamId":"s","frame":7}', "frame"),
        (b'{"streamId":"s","frame":""}', "picture"),
        (b'{"streamId":"s","frame":"no base64!"}', "picture"),
        (b'{"streamId":"s","frame":"AAAA"}', "picture"),
    ],
)
async def test_bad_input_gets_400_and_a_sentence(client: TestClient[Any, Any], body: bytes, reason: str) -> None:
    response = await client.post("/analyze", data=body)
    assert response.status == 400
    assert reason in (await response.json())["error"]


def test_detectors_are_bounded_and_those_of_streams_that_ended_go(service: ModuleType) -> None:
    sender = service.Service()
    raw = {name: json.dumps(message(plain(), name)) for name in ("a", "b", "c")}
    sender._look(raw["a"], 0.0)
    sender._look(raw["b"], 30.0)
    assert list(sender.detectors) == ["a", "b"]
    sender._look(raw["c"], 61.0)
    assert list(sender.detectors) == ["b", "c"]
    for number in range(service.MAX_STREAMS + 20):
        sender._look(json.dumps(message(plain(), f"s{number}")), 62.0)
    assert len(sender.detectors) == service.MAX_STREAMS


# ── real footage ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def footage() -> list[np.ndarray]:
    """The footage at 2 fps."""
    path = Path(os.environ.get("WATCHOUT_FOOTAGE") or ROOT.parent / "shared/data/people.mp4")
    if not path.exists():
        if os.environ.get("CI"):
            pytest.fail("the footage is missing: set WATCHOUT_FOOTAGE")
        pytest.skip("the footage is missing: set WATCHOUT_FOOTAGE to people.mp4")
    return list(_frames(path))


def _frames(path: Path) -> Iterator[np.ndarray]:
    video = cv2.VideoCapture(str(path))
    step = round(video.get(cv2.CAP_PROP_FPS) / FPS)
    number = 0
    while True:
        if not video.grab():
            break
        if number % step == 0:
            picture = video.retrieve()[1]
            yield cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 75])[1], cv2.IMREAD_COLOR)
        number += 1
    video.release()


def test_on_footage_the_first_person_is_told_within_two_seconds_and_nothing_before(
    service: ModuleType, footage: list[np.ndarray]
) -> None:
    found = alerts_of(service, footage)
    first = found[0][0] / FPS
    assert FIRST_PERSON_S <= first <= FIRST_PERSON_S + 2.0
    assert 10 <= len(found) <= 28


def test_on_footage_the_empty_room_brings_no_alert(service: ModuleType, footage: list[np.ndarray]) -> None:
    empty = footage[: int(FIRST_PERSON_S * FPS) - 1]
    assert alerts_of(service, empty * 6) == []


async def test_the_service_takes_the_footage_over_http(client: TestClient[Any, Any], footage: list[np.ndarray]) -> None:
    told = []
    for number, picture in enumerate(footage[:16], 1):
        async with client.post("/analyze", json=message(picture, number=number)) as response:
            answer: dict[str, Any] = await response.json()
            told += [number] if "alert" in answer else []
    assert len(told) == 1


def test_a_frame_of_the_contract_needs_nothing_else(service: ModuleType) -> None:
    stream, picture, kept = service.read_frame(json.dumps(message(plain()) | {"later": "field"}))
    assert (stream, picture.shape, sorted(kept)) == ("s", (240, 320, 3), ["frameId", "timestamp"])
