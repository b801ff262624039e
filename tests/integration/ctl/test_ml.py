"""`watchout-ctl ml` as its user runs it: against the example service, and against services that are wrong."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import signal
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve

from tests.kit.ctl_command import Ctl, Ended, Start
from tests.kit.ports import free_port
from tests.kit.services import missing
from watchout.common.settings import load
from watchout.ctl.ml.pictures import GARBAGE, SAMPLE
from watchout.ctl.ml.trial import play_paced, recording_target
from watchout.ctl.sources.open import Source

REPOSITORY = Path(__file__).parents[3]
FOOTAGE = Path(os.environ.get("WATCHOUT_FOOTAGE", REPOSITORY / "../shared/data/people.mp4"))
#: The first person of the footage is in the picture by then.
FIRST_PERSON_S = 6.0
ALERT = {"severity": "high", "message": "a person"}
#: The command may take so long on a machine that is busy.
ENDS_S = 180

Answer = Callable[[dict[str, Any], web.Request], Any]


@asynccontextmanager
async def service(answer: Answer, *, max_bytes: int = 32 << 20) -> AsyncIterator[str]:
    """A service that decodes the frame and answers as `answer` says: an object, or a whole response."""

    async def handle(request: web.Request) -> web.StreamResponse:
        given = answer(await request.json(), request)
        given = await given if asyncio.iscoroutine(given) else given
        return given if isinstance(given, web.StreamResponse) else web.json_response(given)

    app = web.Application(client_max_size=max_bytes)
    app.router.add_post("/analyze", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "room.jpg"
    path.write_bytes(SAMPLE)
    return path


@pytest.fixture
def run(start: Start) -> Ctl:
    async def run(*arguments: object, **environ: str) -> Ended:
        return await (await start("ml", *arguments, **environ)).end(ENDS_S)

    return run


def say(ended: Ended, check: str) -> list[str]:
    """Level and sentence of one check."""
    assert "Traceback" not in ended.err
    return [" ".join(m.groups()) for m in re.finditer(rf"^(\w+) +{check} +(.+)$", ended.out, re.MULTILINE)]


# ── try ──────────────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── replay ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Forty pictures, told apart by what follows the JPEG."""
    folder = tmp_path / "film"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:03d}.jpg").write_bytes(SAMPLE + bytes([number]))
    return folder


def number_of(frame: dict[str, Any]) -> int:
    return base64.b64decode(frame["frame"])[-1]


async def test_as_fast_as_possible_every_frame_is_shown_once_and_in_order(run: Ctl, film: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def answer(frame: dict[str, Any], _: web.Request) -> Any:
        seen.append((number_of(frame), frame["timestamp"]))
        return {"alert": ALERT} if frame["frameId"] in (5, 6, 30) else {}

    async with service(answer) as url:
        ended = await run(
            "replay", film, "--url", url, "--as-fast-as-possible", "--fps", 4, "--report", tmp_path / "report"
        )
    assert (ended.code, ended.err) == (0, "")
    assert [number for number, _ in seen] == list(range(40))
    assert {b - a for (_, a), (_, b) in itertools.pairwise(seen)} == {250}
    body = json.loads((tmp_path / "report/report.json").read_text())
    assert (body["frames"], body["lengthS"], body["service"]["coverage"]) == (40, 10.0, 1.0)
    assert [(a["frameId"], a["atS"], a["told"]) for a in body["service"]["alerts"]] == [
        (5, 1.0, True), (6, 1.25, False), (30, 7.25, True),
    ]  # fmt: skip
    assert sum(bar["answers"] for bar in body["service"]["histogram"]) == 40
    text = (tmp_path / "report/report.txt").read_text()
    assert text in ended.out
    assert "0:07.2 high a person (frame 30)" in text
    assert ET.parse(tmp_path / "report/report.svg").getroot().get("role") == "img"


async def test_at_a_speed_a_slow_service_gets_the_newest_frame_and_misses_others(run: Ctl, film: Path) -> None:
    seen: list[int] = []

    async def answer(frame: dict[str, Any], _: web.Request) -> Any:
        seen.append(number_of(frame))
        await asyncio.sleep(0.5)
        return {}

    async with service(answer) as url:
        ended = await run("replay", film, "--url", url, "--speed", 2, "--fps", 10, "--json")
    assert (ended.code, ended.err) == (0, "")
    body = json.loads(ended.out)
    assert body["frames"] == 40
    assert seen == sorted(set(seen))
    assert 0 < body["service"]["shown"] == len(seen) < 15  # 2 s of time at 0.5 s each; all 40 would be a queue
    assert body["service"]["latencyMs"]["p50"] >= 490


async def test_a_replay_shows_so_many_frames_of_each_second_of_footage_however_long_it_takes() -> None:
    def slowly():
        give_up = time.monotonic() + 30
        for number in range(60):  # of 6 s, at 20 times the speed due in 0.3 s; this takes more
            while len(seen) < (number + 9) // 10 and time.monotonic() < give_up:  # the turn before has had its frame
                time.sleep(0.005)
            time.sleep(0.02)
            yield SAMPLE + bytes([number])

    seen: list[int] = []

    def answer(frame: dict[str, Any], _: web.Request) -> Any:
        seen.append(frame["frameId"])
        return {}

    async with service(answer) as url:
        settings = load({"ML_SERVICE_URL": url})
        first = recording_target(settings, told=lambda _: None, refused=lambda _: None)
        await play_paced(
            Source("slow", 10.0, slowly), "try", first, None, settings,
            fps=1, speed=20, linger_s=0, progress=lambda *_: None,
        )  # fmt: skip
    assert seen == [1, 11, 21, 31, 41, 51]


async def test_a_shadow_is_shown_the_same_frames_and_what_differs_is_listed(run: Ctl, film: Path) -> None:
    seen: tuple[list[int], list[int]] = ([], [])

    def answerer(which: int, numbers: tuple[int, ...]) -> Answer:
        def answer(frame: dict[str, Any], _: web.Request) -> Any:
            seen[which].append(frame["frameId"])
            return {"alert": ALERT} if frame["frameId"] in numbers else {}

        return answer

    async with service(answerer(0, (3, 9))) as first, service(answerer(1, (9, 12))) as second:
        for pace in (("--as-fast-as-possible",), ("--speed", 4, "--fps", 10)):
            for each in seen:
                each.clear()
            ended = await run("replay", film, "--url", first, "--shadow", second, "--json", *pace)
            assert (ended.code, ended.err) == (0, "")
            assert seen[0] == seen[1]
            body = json.loads(ended.out)
            found = {d["frameId"]: (d["onlyFirst"], d["onlySecond"]) for d in body["comparison"]["disagreements"]}
            expected = {3: (["message a person"], []), 12: ([], ["message a person"])}
            assert found == {frame: kinds for frame, kinds in expected.items() if frame in seen[0]}
            assert body["comparison"]["compared"] == len(seen[0])


async def test_a_service_that_is_away_is_in_the_report_and_the_code(run: Ctl, film: Path, unused_port: int) -> None:
    url = f"http://127.0.0.1:{unused_port}"
    for pace in (("--as-fast-as-possible",), ("--speed", 20)):
        ended = await run("replay", film, "--url", url, *pace)
        assert (ended.code, ended.err) == (1, "")
        assert "answered 0" in ended.out
        assert "no connection" in ended.out
        assert "coverage 0.0%" in ended.out


async def test_an_interrupted_replay_reports_what_was_seen(start: Start, film: Path, tmp_path: Path) -> None:
    fifth = asyncio.Event()

    async def answer(frame: dict[str, Any], _: web.Request) -> Any:
        if frame["frameId"] == 5:
            fifth.set()
        await asyncio.sleep(0.05)
        return {"alert": ALERT} if frame["frameId"] == 2 else {}

    async with service(answer) as url, asyncio.timeout(ENDS_S):
        command = await start(
            "ml", "replay", film, "--url", url, "--as-fast-as-possible", "--fps", 4, "--report", tmp_path / "report"
        )
        await fifth.wait()
        command.process.send_signal(signal.SIGINT)
        ended = await command.end()
    assert ended.code == 130
    body = json.loads((tmp_path / "report/report.json").read_text())
    assert body["interrupted"] is True
    assert 4 <= body["frames"] < 40
    assert body["lengthS"] == body["frames"] / 4
    assert [alert["frameId"] for alert in body["service"]["alerts"]] == [2]
    assert "then interrupted" in ended.out


@pytest.fixture
def example() -> Iterator[str]:
    """The example service as a process; its URL."""
    pytest.importorskip("cv2")
    port = free_port()
    process = psutil.Popen(
        [sys.executable, REPOSITORY / "examples/ml_service/service.py", "--port", str(port)],
        stdout=-3,
        stderr=-3,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


async def listens(url: str) -> None:
    port = int(url.rpartition(":")[2])
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.1)


async def test_footage_through_the_example_service_alerts_on_the_first_person(
    run: Ctl, example: str, tmp_path: Path
) -> None:
    pytest.importorskip("av")
    if not FOOTAGE.is_file():
        missing(f"no footage at {FOOTAGE}, name some in WATCHOUT_FOOTAGE")
    await listens(example)
    ended = await run("replay", FOOTAGE, "--url", example, "--as-fast-as-possible", "--report", tmp_path / "r")
    assert (ended.code, ended.err) == (0, "")
    body = json.loads((tmp_path / "r/report.json").read_text())
    assert body["service"]["coverage"] == 1
    assert body["service"]["alerts"][0]["atS"] <= FIRST_PERSON_S + 2


async def test_the_example_service_passes_every_check(run: Ctl, example: str) -> None:
    await listens(example)
    ended = await run("check", example, "--json")
    assert (ended.code, ended.err) == (0, "")
    levels = {finding["check"]: finding["level"] for finding in json.loads(ended.out)["findings"]}
    # A still picture brings no alert. The load is that of the machine that tests.
    assert {check for check, level in levels.items() if level != "ok"} <= {"alerts", "load"}
    assert len(levels) == 12


# ── check ────────────────────────────────────────────────────────────────────────────────────────────────────────


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
