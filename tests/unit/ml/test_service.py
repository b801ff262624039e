"""The service around a function: HTTP, WebSocket, batches, bounds, failures."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from tests.kit.clients import eventually
from watchout import ml
from watchout.common.media.arrays import PictureFault
from watchout.common.media.frames import Frame as SentFrame
from watchout.ml import service as ml_service
from watchout.ml.function_calls import WAITING_PER_CALL
from watchout.mlbridge.targets.http import HttpTarget

JPEG = b"\xff\xd8\xff\xe0picture"


def shown(stream: str = "cam-1", number: int = 7, picture: bytes = JPEG) -> dict[str, Any]:
    return {"streamId": stream, "frame": base64.b64encode(picture).decode(), "timestamp": 5, "frameId": number}


@contextlib.asynccontextmanager
async def serving(look: Callable[..., Any], **options: Any) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(ml.Service(look, **options).app())) as client:
        yield client


async def test_a_function_is_a_service_over_json_and_raw_pictures() -> None:
    frames: list[ml.Frame] = []

    def look(frame: ml.Frame) -> list[ml.Alert]:
        frames.append(frame)
        return [ml.Alert("high", f"seen {frame.frame_id}", confidence=0.5)]

    async with serving(look) as client:
        answer = await client.post("/analyze", json=shown())
        assert (answer.status, (await answer.json())["alerts"][0]["message"]) == (200, "seen 7")
        headers = {"Content-Type": "image/jpeg", "X-Stream-Id": "cam-2", "X-Frame-Id": "9", "X-Frame-Time": "6"}
        answer = await client.post("/analyze", data=JPEG, headers=headers)
        assert (await answer.json())["alerts"][0]["message"] == "seen 9"
    assert [(frame.stream_id, frame.picture, frame.timestamp) for frame in frames] == [
        ("cam-1", JPEG, 5), ("cam-2", JPEG, 6)
    ]  # fmt: skip


async def test_mlbridge_sends_pictures_as_they_are_because_each_response_accepts_them() -> None:
    async with serving(lambda frame: ml.Alert("low", frame.picture.hex())) as client:
        target = HttpTarget(str(client.make_url("/")), timeout_s=60, connections=1)
        await target.open(lambda _: None)
        for number in range(2):
            (alert,) = await target.analyse(SentFrame("cam", number, 5, picture=JPEG))
            assert isinstance(alert, dict)
            assert alert["message"] == JPEG.hex()
        refused = await client.post("/analyze", data=b"no json")
        await target.close()
        assert target._accepted == {"image/*", "application/json"}
        assert (refused.status, refused.headers["Accept"]) == (400, ml_service.ACCEPT)


async def test_a_coroutine_function_serves_as_well() -> None:
    async def look(frame: ml.Frame) -> ml.Alert:
        await asyncio.sleep(0)
        return ml.Alert("low", frame.stream_id)

    async with serving(look) as client:
        assert (await (await client.post("/analyze", json=shown())).json())["alerts"][0]["message"] == "cam-1"


async def test_an_error_in_the_function_is_500_with_its_reason_and_the_service_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def look(frame: ml.Frame) -> Any:
        if frame.frame_id == 1:
            raise RuntimeError("the model is on fire")
        return "nonsense" if frame.frame_id == 2 else None

    async with serving(look) as client:
        for number, status, said in ((1, 500, "RuntimeError: the model is on fire"), (2, 500, "got str"), (3, 200, "")):
            answer = await client.post("/analyze", json=shown(number=number))
            assert answer.status == status
            assert said in (await answer.json()).get("error", "")
        health = await (await client.get("/health")).json()
    assert (health["status"], health["frames"], health["failures"]) == ("healthy", 1, 2)
    assert "got str" in health["lastFailure"]
    assert "the model is on fire" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_broken_picture_is_400_and_harms_nobody_else() -> None:
    def look(frame: ml.Frame) -> None:
        if frame.picture != JPEG:
            raise PictureFault("cannot be decoded")

    async with serving(look) as client:
        for body, status in ((shown(picture=b"rubbish"), 400), ({"streamId": "cam"}, 400), ([1], 400), (shown(), 200)):
            assert (await client.post("/analyze", json=body)).status == status
        assert (await client.post("/analyze", data=b"{", headers={"Content-Type": "application/json"})).status == 400
        assert (await (await client.get("/health")).json())["failures"] == 0


async def test_batches_are_one_call_whether_they_come_together_or_beside_each_other() -> None:
    calls: list[int] = []

    def look(frames: list[ml.Frame]) -> list[Any]:
        calls.append(len(frames))
        return [ml.Alert("low", str(frame.frame_id)) if frame.frame_id else None for frame in frames]

    async with serving(look, batch=8, batch_wait_s=0.05) as client:
        answer = await client.post("/analyze", json={"frames": [shown(number=n) for n in range(3)] + [{"no": 1}]})
        answers = (await answer.json())["answers"]
        assert [len(each.get("alerts", [])) for each in answers] == [0, 1, 1, 0]
        assert "error" in answers[3]
        alone = await asyncio.gather(*(client.post("/analyze", json=shown(number=n)) for n in (4, 5, 6, 7)))
        assert [(await each.json())["alerts"][0]["message"] for each in alone] == ["4", "5", "6", "7"]
    assert calls[0] == 3
    assert sum(calls) == 7
    assert len(calls) < 6


async def test_a_batch_whose_results_do_not_fit_fails_and_the_next_one_does_not() -> None:
    def look(frames: list[ml.Frame]) -> Any:
        return [None] * (len(frames) + (frames[0].frame_id == 1))

    async with serving(look, batch=4) as client:
        bad = await client.post("/analyze", json=shown(number=1))
        assert (bad.status, "2 results for 1 frames" in (await bad.json())["error"]) == (500, True)
        assert (await client.post("/analyze", json=shown(number=2))).status == 200


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_calls_at_a_time_and_frames_that_wait_are_bounded(concurrency: int) -> None:
    lock, go = threading.Lock(), threading.Event()
    running = most = 0

    def look(_: ml.Frame) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        assert go.wait(30)
        with lock:
            running -= 1

    count = concurrency * (WAITING_PER_CALL + 1) + 5
    async with serving(look, concurrency=concurrency) as client:
        posts = [asyncio.create_task(client.post("/analyze", json=shown(number=n))) for n in range(count)]
        await eventually(lambda: sum(post.done() for post in posts) >= 5, what="not all that are too many are refused")
        for first in (post.result() for post in posts if post.done()):
            assert (first.status, first.headers["Retry-After"]) == (503, "1")
        await eventually(lambda: running == concurrency, what="the calls do not all run")
        go.set()
        statuses = sorted([(await post).status for post in posts])
    assert statuses.count(503) == 5
    assert statuses.count(200) == count - 5
    assert most == concurrency


async def test_a_websocket_answers_each_frame_with_its_names_in_any_order() -> None:
    go = threading.Event()

    def look(frame: ml.Frame) -> ml.Alert | None:
        if frame.frame_id == 1:
            assert go.wait(30)
            raise RuntimeError("no")
        return ml.Alert("low", "m") if frame.frame_id == 2 else None

    async with serving(look, concurrency=2) as client, client.ws_connect("/ws") as socket:
        for message in (shown(number=1), shown(number=2), shown(number=3)):
            await socket.send_str(json.dumps(message))
        await socket.send_str("{")
        first = [await socket.receive_json(timeout=30) for _ in range(3)]
        go.set()
        last = await socket.receive_json(timeout=30)
    by_number = {each.get("frameId"): each for each in first}
    assert len(by_number[2]["alerts"]) == 1
    assert by_number[3] == {"streamId": "cam-1", "frameId": 3, "timestamp": 5, "alerts": []}
    assert "not JSON" in by_number[None]["error"]
    assert (last["frameId"], last["error"]) == (1, "RuntimeError: no")


async def test_the_end_waits_for_the_call_that_runs() -> None:
    began, go = threading.Event(), threading.Event()

    def look(_: ml.Frame) -> ml.Alert:
        began.set()
        assert go.wait(30)
        return ml.Alert("low", "the last")

    server = TestServer(ml.Service(look).app())
    async with TestClient(server) as client:
        post = asyncio.create_task(client.post("/analyze", json=shown()))
        await asyncio.to_thread(began.wait, 30)
        ending = asyncio.create_task(server.close())
        await asyncio.sleep(0)
        go.set()
        assert (await (await post).json())["alerts"][0]["message"] == "the last"
        await ending


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(TypeError, match="expected a function"):
        ml.Service("look")  # type: ignore[arg-type]
    for options in ({"batch": 0}, {"concurrency": 0}, {"batch": 5000}):
        with pytest.raises(ValueError, match="expected 1 to 1024"):
            ml.Service(print, **options)


def test_at_the_top_of_an_imported_module_serve_does_nothing() -> None:
    source = "from watchout import ml\n@ml.serve\ndef look(frame): ...\n@ml.serve(port=1)\ndef again(frame): ...\n"
    space: dict[str, Any] = {"__name__": "imported"}
    exec(compile(source + "ml.serve(look)\n", "imported.py", "exec"), space)
    assert callable(space["look"])
    assert space["again"].__name__ == "again"


class Coroutines:
    """A model whose call is a coroutine."""

    async def __call__(self, frame: ml.Frame) -> ml.Alert:
        await asyncio.sleep(0)
        return ml.Alert("low", frame.stream_id)


async def cancels_a_task(_: ml.Frame) -> None:
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await task


def runs_out(_: ml.Frame) -> Any:
    return next(iter(()))


def leaves(_: ml.Frame) -> Any:
    raise SystemExit(1)


@pytest.mark.parametrize(
    ("look", "said"), [(runs_out, "StopIteration"), (leaves, "SystemExit"), (cancels_a_task, "cancelled")]
)
async def test_whatever_the_function_raises_is_answered_and_takes_no_call_away(
    look: Callable[..., Any], said: str
) -> None:
    async with asyncio.timeout(30), serving(look) as client:
        for _ in range(3):
            answer = await client.post("/analyze", json=shown())
            assert answer.status == 500
            assert said in (await answer.json())["error"]
        assert (await (await client.get("/health")).json())["failures"] == 3


async def test_an_object_that_is_called_as_a_coroutine_serves_as_well() -> None:
    async with serving(Coroutines()) as client:
        assert (await (await client.post("/analyze", json=shown())).json())["alerts"][0]["message"] == "cam-1"


async def test_frames_of_one_request_are_bounded() -> None:
    async with serving(lambda _: None) as client:
        answer = await client.post("/analyze", json={"frames": [0] * 1025})
        assert answer.status == 400
        assert (await answer.json())["error"] == "1025 frames in one request, expected at most 1024"
