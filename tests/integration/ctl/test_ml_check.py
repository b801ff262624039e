"""`watchout-ctl ml check` against services that are right, wrong, slow or away, as its user runs it."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.integration.ctl.ml_kit import (
    ALERT,
    Answer,
    say,
    service,
)
from tests.kit.ctl_command import Ctl
from watchout.ctl.ml.pictures import GARBAGE


async def test_a_service_that_is_right_is_told_so(run: Ctl, picture: Path) -> None:
    def answer(frame: dict[str, Any], _: web.Request) -> Any:
        return {"alert": ALERT | {k: frame[k] for k in ("streamId", "frameId", "timestamp")}}

    async with service(answer) as url:
        ended = await run("check", url, "--picture", picture)
    assert (ended.code, ended.err) == (0, "")
    assert "and all fit" in say(ended, "alerts")[0]
    assert "warnings, " in ended.out.splitlines()[-1]
    assert ended.out.splitlines()[-1].startswith("0 wrong")


def strict(frame: dict[str, Any], _: web.Request) -> Any:
    if set(frame) != {"streamId", "frame", "timestamp", "frameId"}:
        return web.json_response({"detail": "extra fields not permitted"}, status=422)
    return {}


class OneAtATime:
    """Refuses a second frame while it works on one; the pair comes after the frame with the unknown field."""

    def __init__(self) -> None:
        self.busy = False
        self.pair_comes = False
        self.refused = asyncio.Event()

    async def __call__(self, frame: dict[str, Any], _: web.Request) -> Any:
        if self.busy:
            self.refused.set()
            return web.Response(status=503, text="busy")
        self.busy = True
        try:
            if self.pair_comes:  # it works until the other has come, however late that is
                await asyncio.wait_for(self.refused.wait(), 20)
            self.pair_comes |= "watchoutCheck" in frame
        finally:
            self.busy = False
        return {}


class MixedUp:
    """Answers each frame with the stream of the one that came before."""

    def __init__(self) -> None:
        self.last = "check-1"

    async def __call__(self, frame: dict[str, Any], _: web.Request) -> Any:
        await asyncio.sleep(0.05)
        stream, self.last = self.last, frame["streamId"]
        return {"alert": ALERT | {"streamId": stream}}


class DiesOfGarbage:
    """Answers nobody any more after the first broken picture."""

    def __init__(self) -> None:
        self.dead = False

    def __call__(self, frame: dict[str, Any], request: web.Request) -> Any:
        self.dead |= base64.b64decode(frame["frame"]) == GARBAGE
        if self.dead:
            assert request.transport is not None
            request.transport.abort()
        return {}


def no_keep_alive(*_: object) -> web.Response:
    response = web.json_response({})
    response.force_close()
    return response


@pytest.mark.parametrize(
    ("answer", "check", "level", "says"),
    [
        (lambda *_: web.Response(status=404), "answers", "wrong", "status 404"),
        (lambda *_: web.Response(status=500, text="KeyError"), "answers", "wrong", "status 500 with 'KeyError'"),
        (lambda *_: web.Response(status=307, headers={"Location": "/v2"}), "answers", "wrong", "Give the URL that"),
        (lambda *_: asyncio.sleep(60), "answers", "wrong", "expected a whole answer within 1 s"),
        (lambda *_: web.Response(text="fine"), "json", "wrong", "no JSON: 'fine'"),
        (lambda *_: [ALERT], "json", "wrong", "is a list"),
        (lambda *_: ALERT, "json", "wrong", "itself an alert"),
        (lambda *_: web.Response(text="{}"), "json", "warning", "text/plain"),
        (lambda *_: {"alert": {"severity": "high"}}, "alerts", "wrong", "missing required field `message`"),
        (lambda *_: {"alerts": [ALERT] * 101}, "alerts", "wrong", "101 alerts at once"),
        (lambda *_: web.Response(text='{"alert":{"severity":"low","message":"m","metadata":{"p":NaN}}}'),
         "alerts", "wrong", "not finite"),
        (lambda *_: {"alert": ALERT | {"frameId": 4_000_000}}, "frame-ids", "wrong", "never shown"),
        (lambda *_: {"alert": ALERT | {"streamId": "mine"}}, "frame-ids", "wrong", "never shown"),
        (MixedUp(), "frame-ids", "wrong", "mixed up"),
        (strict, "unknown-field", "wrong", "status 422"),
        (OneAtATime(), "two-at-once", "wrong", "status 503"),
        (DiesOfGarbage(), "garbage", "wrong", "is harmed"),
        (lambda *_: {"mask": "x" * 100_000}, "answer-size", "warning", "100 kB"),
        (lambda *_: {"mask": "x" * 2_000_000}, "answers", "wrong", "over 1048576 bytes"),
        (no_keep_alive, "keep-alive", "warning", "new connection"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named(run: Ctl, answer: Answer, check: str, level: str, says: str) -> None:
    async with service(answer) as url:
        ended = await run("check", url, "--load", 0, ML_TIMEOUT_S="1" if says.endswith("within 1 s") else "30")
    assert ended.err == ""
    assert ended.code == (1 if "wrong" in [line.split()[0] for line in ended.out.splitlines()[:-1]] else 0)
    assert any(line.startswith(level) and says in line for line in say(ended, check)), ended.out


async def test_a_small_limit_of_the_body_is_told_with_its_setting(run: Ctl) -> None:
    async with service(lambda *_: {}, max_bytes=1 << 20) as url:
        ended = await run("check", url, "--load", 0)
    (line,) = say(ended, "large-frame")
    assert "status 413" in line
    assert "client_max_size" in line


async def test_a_service_that_fails_or_is_late_under_load_is_told(run: Ctl) -> None:
    count = 0

    async def late(*_: object) -> Any:
        nonlocal count
        count += 1
        await asyncio.sleep(0.3 if count > 12 else 0)
        return {}

    async with service(late) as url:
        ended = await run("check", url, "--load", 1, ML_MAX_AGE_S="0.2")
    (line,) = say(ended, "load")
    assert line.startswith("warning")
    assert "ML_MAX_AGE_S is 0.2" in line
    assert ended.code == 0


async def test_who_is_not_there_is_told_and_nothing_else_is_asked(run: Ctl, unused_port: int) -> None:
    ended = await run("check", f"http://127.0.0.1:{unused_port}")
    assert (ended.code, ended.err) == (1, "")
    assert "cannot be reached" in ended.out
    assert ended.out.splitlines()[-1] == "1 wrong, 0 warnings, 0 ok"


async def test_a_password_in_the_url_is_never_shown(run: Ctl, picture: Path, film: Path) -> None:
    async with service(lambda *_: web.Response(status=401)) as url:
        secret = url.replace("http://", "http://user:hunter2hunter2@") + "?key=hunter2hunter2"
        for arguments in (
            ("check", secret),
            ("try", picture, "--url", secret),
            ("replay", film, "--url", secret, "--as-fast-as-possible"),
        ):
            ended = await run(*arguments)
            assert ended.code == 1
            assert "hunter2" not in ended.out + ended.err


async def test_what_a_service_echoes_of_its_credentials_is_not_shown(run: Ctl) -> None:
    def echo(_: object, request: web.Request) -> web.Response:
        return web.Response(status=500, text=f"{request.headers} {request.path_qs}")

    async with service(echo) as url:
        headers = '{"Authorization":"Bearer canary-bearer","X-Key":"canary-key"}'
        ended = await run("check", f"{url}?key=canary-query", ML_HEADERS=headers)
    assert ended.code == 1
    assert "status 500" in ended.out
    assert "canary" not in ended.out + ended.err
