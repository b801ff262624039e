"""`watchout-ctl ml try`, and kinds of services, pictures and headers, as its user runs it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve

from tests.integration.ctl.ml_kit import (
    ALERT,
    Answer,
    say,
    service,
)
from tests.kit.ctl_command import Ctl
from watchout.ctl.ml.pictures import SAMPLE


async def test_try_shows_what_the_service_would_alert(run: Ctl, picture: Path) -> None:
    seen: list[dict[str, Any]] = []

    def answer(frame: dict[str, Any], _: web.Request) -> Any:
        seen.append(frame)
        return {"alert": ALERT | {"metadata": {"confidence": 0.9}}} if frame["frameId"] < 3 else {}

    async with service(answer) as url:
        ended = await run("try", picture, picture, picture, "--url", url, "--stream", "door")
    assert (ended.code, ended.err) == (0, "")
    assert [base64.b64decode(frame["frame"]) for frame in seen] == [SAMPLE] * 3
    assert [(frame["streamId"], frame["frameId"]) for frame in seen] == [("door", 1), ("door", 2), ("door", 3)]
    lines = ended.out.splitlines()
    assert "ALERT high door: a person (frame 1, confidence=0.9)" in lines[2]
    assert "held back by the cooldown" in lines[4]
    assert lines[-1] == "3 of 3 pictures answered, 2 alerts, 0 refused"


async def test_try_as_json_and_with_the_url_of_the_environment(run: Ctl, picture: Path) -> None:
    async with service(lambda frame, _: {"alerts": [ALERT, {"severity": "HIGH", "message": "m"}]}) as url:
        ended = await run("try", picture, "--json", ML_SERVICE_URL=url)
    assert ended.code == 1
    body = json.loads(ended.out)
    assert body["service"] == f"{url}/analyze"
    assert body["pictures"][0]["outcome"] == "answered"
    assert (body["alerts"][0]["message"], body["alerts"][0]["frameId"], body["alerts"][0]["told"]) == (
        "a person",
        1,
        True,
    )
    assert "$.severity" in body["refused"][0]["reason"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda *_: web.Response(status=404), "status 404"),
        (lambda *_: asyncio.sleep(60), "within 0.3 s"),
        (lambda *_: {"alerts": 7}, "REFUSED alerts is a list"),
        (lambda *_: {"alert": ALERT | {"severity": "\x1b[31mred"}}, r"REFUSED Invalid enum value '\x1b[31mred'"),
    ],
)
async def test_try_ends_with_1_when_the_service_fails(run: Ctl, picture: Path, answer: Answer, says: str) -> None:
    async with service(answer) as url:
        ended = await run("try", picture, "--url", url, ML_TIMEOUT_S="0.3" if says == "within 0.3 s" else "30")
    assert (ended.code, ended.err) == (1, "")
    assert says in ended.out


async def test_what_cannot_be_tried_is_a_sentence(run: Ctl, tmp_path: Path, picture: Path, unused_port: int) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    url = f"http://127.0.0.1:{unused_port}"
    for arguments, code, says in (
        (("try", picture), 1, "give --url, or set ML_SERVICE_URL"),
        (("try", "text.jpg", "--url", url), 1, "text.jpg is no JPEG, PNG, WebP, GIF, AVIF or HEIC"),
        (("try", "nowhere.jpg", "--url", url), 1, "nowhere.jpg cannot be read: No such file"),
        (("try", picture, "--url", "gopher://x"), 2, "ML_SERVICE_URL is a gopher:// URL, expected http"),
        (("replay", "nowhere.mp4", "--url", url), 1, "nowhere.mp4 is not a file"),
        (("replay", "test", "--url", url), 1, "has no end"),
        (("replay", ".", "--url", url, "--speed", 2, "--as-fast-as-possible"), 2, "expected one of them"),
        (("check",), 1, "give --url, or set ML_SERVICE_URL"),
    ):
        ended = await run(*arguments)
        assert (ended.code, ended.out) == (code, ""), arguments
        assert says in ended.err
        assert "Traceback" not in ended.err
    away = await run("try", picture, "--url", url)
    assert (away.code, away.err) == (1, "")
    assert "no connection" in away.out


# ── other kinds, raw pictures, headers ───────────────────────────────────────────────────────────────────────────


async def test_raw_pictures_and_headers_go_as_the_settings_say(run: Ctl, picture: Path) -> None:
    seen: list[tuple[bytes, str, str]] = []

    async def handle(request: web.Request) -> web.Response:
        if request.headers.get("X-Api-Key") != "k":
            return web.Response(status=401)
        seen.append((await request.read(), request.headers["X-Stream-Id"], request.headers["Content-Type"]))
        return web.json_response({"alert": ALERT})

    app = web.Application(client_max_size=32 << 20)
    app.router.add_post("/analyze", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        settings = {"ML_HTTP_FORMAT": "raw", "ML_HEADERS": '{"X-Api-Key":"k"}'}
        tried = await run("try", picture, "--url", url, **settings)
        assert (tried.code, seen) == (0, [(SAMPLE, "try", "image/jpeg")])
        checked = await run("check", url, "--load", 0, **settings)
        assert (checked.code, checked.err) == (0, "")
        assert "0 warnings" in checked.out
        assert len(seen) > 8
        refused = await run("check", url, "--load", 0)
        assert "status 401" in refused.out
        assert "ML_HEADERS" in refused.out
    finally:
        await runner.cleanup()


@asynccontextmanager
async def pushing(answer: Callable[[dict[str, Any]], object]) -> AsyncIterator[str]:
    """A service over WebSocket that says something of each frame, unless it is None."""

    async def talk(socket: ServerConnection) -> None:
        async for message in socket:
            said = answer(json.loads(message))
            if said is not None:
                await socket.send(json.dumps(said))

    async with serve(talk, "127.0.0.1", 0, max_size=32 << 20) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


def named(frame: dict[str, Any], **more: Any) -> dict[str, Any]:
    return ALERT | {name: frame[name] for name in ("streamId", "frameId", "timestamp")} | more


async def test_over_a_websocket_alerts_are_tied_to_their_frames(run: Ctl, picture: Path, film: Path) -> None:
    async with pushing(lambda frame: named(frame) if frame["frameId"] == 2 else None) as url:
        ended = await run("try", picture, picture, "--url", url, "--json")
        assert (ended.code, ended.err) == (0, "")
        body = json.loads(ended.out)
        assert [(a["frameId"], a["streamId"]) for a in body["alerts"]] == [(2, "try")]
        played = await run("replay", film, "--url", url, "--speed", 4, "--fps", 10, "--json")
        assert (played.code, played.err) == (0, "")
        checked = await run("check", url, "--load", 0.2)
        assert (checked.code, checked.err) == (0, "")
        assert say(checked, "alerts")[0].startswith("ok")
        assert say(checked, "frame-ids")[0].startswith("ok")


async def test_over_a_websocket_what_is_wrong_is_named_as_well(run: Ctl) -> None:
    for answer, check, says in (
        (lambda frame: named(frame, severity="HIGH"), "alerts", "$.severity"),
        (lambda frame: named(frame, frameId=4_000_000), "frame-ids", "frame 4000000"),
        (lambda frame: ALERT, "alerts", "no streamId"),
        (lambda frame: {"detections": []}, "alerts", "refused"),
    ):
        async with pushing(answer) as url:
            ended = await run("check", url, "--load", 0)
        assert (ended.code, ended.err) == (1, "")
        assert any(line.startswith("wrong") and says in line for line in say(ended, check)), ended.out
