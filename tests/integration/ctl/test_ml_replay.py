"""`watchout-ctl ml replay` over footage, and the example service, as its user runs it."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web

from tests.integration.ctl.ml_kit import (
    ALERT,
    ENDS_S,
    FIRST_PERSON_S,
    FOOTAGE,
    REPOSITORY,
    Answer,
    listens,
    number_of,
    service,
)
from tests.kit.ctl_command import Ctl, Start
from tests.kit.ports import free_port
from tests.kit.services import missing
from watchout.common.settings import load
from watchout.ctl.ml.pictures import SAMPLE
from watchout.ctl.ml.trial import play_paced, recording_target
from watchout.ctl.sources.open import Source


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
