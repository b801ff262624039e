from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.kit.ctl_command import Ctl, Start
from tests.kit.fake_gateway import until
from tests.kit.stats_router import FakeRouter
from watchout.common.bus.reply_records import StatsReply, read_reply
from watchout.ctl.stats_view import compact, duration, render, to_compare

NOW_MS = int(time.time() * 1000)


def body(*, streams: int = 4, scale: float = 1) -> dict[str, Any]:
    def metrics(up: float, **more: float) -> dict[str, float]:
        return {"uptime_seconds": up, "cpu_seconds_total": up * 0.25 * scale, "resident_bytes": 61_400_000, **more}

    states = ("streaming", "online", "offline")
    in_gateway = {"frames_in_total": 1_234_567 * scale, "frames_out_total": 98_765_432 * scale}
    in_bridge = {"frames_in_total": 1200 * scale, "ml_requests_total": 1100 * scale, "alerts_total": 7,
                 "ml_in_flight": 3, "ml_in_flight_limit": 8, "ml_latency_p50_seconds": 0.045, "ml_failures_total": 5,
                 "ml_latency_p99_seconds": 0.31, "ml_streams": 12, "ml_coverage_mean": 0.524, "ml_coverage_min": 0.48,
                 "ml_frames_replaced_total": 90 * scale, "ml_frames_too_old_total": 0, "ml_frames_away_total": 4,
                 "ml_breaker_state": 0, "ml_endpoint": 0}  # fmt: skip
    up = 7384.2 + scale
    return {
        "router": {"epoch": 1729943200, "uptimeS": up, "pid": 4001, "state": "active",
                   "figures": metrics(up, frames_in_total=52_000 * scale, frames_routed_total=104_000 * scale,
                                  frames_dropped_bus_total=2)},
        "members": [
            {"id": "02" * 8, "name": "mlbridge.1", "kind": "mlbridge", "pid": 4003, "group": "default", "aliveS": 61,
             "figures": metrics(60 + scale, **in_bridge)},
            {"id": "01" * 8, "name": "gateway.1", "kind": "gateway", "pid": 4002, "group": "", "aliveS": 7300,
             "figures": metrics(7300 + scale, sockets=46, publishers=12, video_viewers=30, frames_dropped_slow_total=17,
                                **in_gateway)},
            {"id": "0c" * 8, "name": "ctl", "kind": "ctl", "pid": 1, "group": "", "aliveS": 0, "figures": {}},
        ],
        "webhook": None, "streams": [
            {"streamId": f"stream_17299432{n:05d}_k3j9x", "userId": "user_8f3b2c", "organizations": [],
             "fps": 29.97, "status": states[n % 3], "totalFrames": 1000 * n, "uptime": 60,
             "viewers": n, "alertViewers": 1, "gateway": "gateway.1",
             "mlbridge": "mlbridge.1" if n else None, "coverage": 0.73 if n else None, "startedAt": NOW_MS - 60_000,
             "lastFrameAt": NOW_MS - 1500 if n else None, "frameId": n, "skipped": {}}
            for n in range(streams)
        ],
        "totals": {"producers": 12, "videoConsumers": 1, "alertConsumers": 4, "connections": 46},
    }  # fmt: skip


def draw(width: int, answer: dict[str, Any], before: dict[str, Any] | None = None, rows: int = 20) -> str:
    out = StringIO()
    Console(file=out, width=width, highlight=False).print(
        render(
            read_reply(answer, StatsReply),
            before=None if before is None else read_reply(before, StatsReply),
            width=width,
            rows=rows,
            own_id="0c" * 8,
        )
    )
    return out.getvalue()


@pytest.fixture
async def router(home: Path) -> Iterator[FakeRouter]:
    router = FakeRouter(home, body())
    yield router
    router.close()


@pytest.mark.parametrize("width", [80, 100, 140, 200])
@pytest.mark.parametrize("rates", [False, True])
def test_every_line_fits_and_no_number_is_cut(width: int, rates: bool) -> None:
    text = draw(width, body(scale=2), body() if rates else None)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    for line in text.splitlines():
        assert line.count("…") <= line.count("stream_") + line.count("more")
    assert "29.97" not in text
    assert "30.0" in text


def test_a_wide_table_shows_names_whole() -> None:
    text = draw(140, body())
    for whole in ("stream_1729943200001_k3j9x", "user_8f3b2c", "mlbridge.1", "gateway.1", "4002"):
        assert whole in text


def test_streams_that_flow_come_first_then_the_most_watched() -> None:
    rows = [line.split()[0] for line in draw(140, body(streams=7)).splitlines() if line.startswith("stream_")]
    assert [int(name[15:20]) for name in rows] == [6, 3, 0, 4, 1, 5, 2]


def test_rows_over_the_limit_are_counted() -> None:
    text = draw(80, body(streams=1000), rows=5)
    assert text.count("stream_") == 5
    assert "… and 995 more" in text


def test_the_first_answer_shows_totals_and_the_next_one_rates() -> None:
    first, second = body(), body(scale=2)
    assert "1.23M" in draw(140, first) or "1.2M" in draw(140, first)
    text = draw(140, second, first)
    assert "in/s" in text
    gateway = next(line for line in text.splitlines() if line.startswith("gateway.1"))
    assert "1.2M" in gateway  # 1 234 567 frames in the one second between the two


def test_a_process_that_told_nothing_new_is_shown_with_its_last_rates() -> None:
    """Processes tell their metrics once a second, and somebody may look four times."""
    first, second, third = (read_reply(body(scale=scale), StatsReply) for scale in (1, 2, 3))

    def gateway(reply: StatsReply, before: StatsReply) -> list[str]:
        out = StringIO()
        Console(file=out, width=140, highlight=False).print(render(reply, before=before, width=140, rows=9))
        return next(line.split() for line in out.getvalue().splitlines() if line.startswith("gateway.1"))

    before = to_compare(second, first, None)
    assert before == first
    shown = gateway(second, before)
    for _ in range(3):
        before = to_compare(second, second, before)
        assert gateway(second, before) == shown
        assert before.router == second.router, "the router's own metrics are those of now"
    assert to_compare(third, second, before) == second
    assert to_compare(second, second, None) == second, "there is nothing older"


def test_a_bridge_has_a_row_with_its_service_and_its_coverage() -> None:
    row = next(line.split() for line in draw(140, body()).splitlines() if "first" in line)
    assert row == ["mlbridge.1", "first", "3/8", "45ms", "310ms", "12", "52%", "48%", "5", "90", "0", "4"]


def test_an_open_breaker_and_the_endpoint_in_use_are_named() -> None:
    answer = body()
    answer["members"][0]["figures"] |= {"ml_breaker_state": 2, "ml_endpoint": 1}
    assert "fallback, open" in draw(140, answer)


def test_without_a_bridge_that_serves_there_is_no_such_table() -> None:
    answer = body()
    del answer["members"][0]["figures"]["ml_in_flight_limit"]
    assert "in flight" not in draw(140, answer)


def test_in_a_cluster_each_slot_has_a_row_and_a_missing_one_is_named() -> None:
    def answer(scale: float) -> dict[str, Any]:
        of_all = body(scale=scale)
        routers = [{"slot": slot, "router": of_all["router"] | {"epoch": 100 + slot}} for slot in (0, 2)]
        return of_all | {"routers": routers, "missingSlots": [1]}

    for text in (draw(140, answer(1)), draw(140, answer(2), answer(1))):
        names = [line.split("  ")[0] for line in text.splitlines() if line.startswith("router of slot")]
        assert names == ["router of slot 0", "router of slot 2"]
        assert "no router answers for slot 1: its streams are not shown" in text
    rates = [line for line in draw(140, answer(2), answer(1)).splitlines() if line.startswith("router of slot")]
    assert all("104.0k" in line or "104k" in line for line in rates), rates
    assert "no router answers" not in draw(140, body())


def test_a_stream_shows_its_coverage() -> None:
    lines = draw(160, body()).splitlines()
    assert sum("73%" in line for line in lines if line.startswith("stream_")) == 3


def test_the_asking_member_is_not_among_the_processes_and_the_router_comes_first() -> None:
    names = [line.split()[0] for line in draw(100, body()).splitlines() if " 400" in line]
    assert names == ["router", "gateway.1", "mlbridge.1"]


def test_an_answer_that_lacks_everything_is_still_shown() -> None:
    assert "no streams" in draw(80, {})


def test_names_from_outside_cannot_steer_the_terminal() -> None:
    answer = body(streams=1)
    answer["streams"][0]["userId"] = "\x1b[2J[red]x"
    answer["members"][0]["name"] = "\x1b[2Jname"
    assert "\x1b" not in draw(140, answer)
    assert "[red]x" in draw(140, answer)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (9999, "9999"), (12_345, "12.3k"), (123_456, "123k"), (4_560_000, "4.6M"), (2e12, "2000G")],
)
def test_large_numbers_are_short(value: float, shown: str) -> None:
    assert compact(value) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0s"), (61, "1m01s"), (7384, "2h03m"), (200_000, "2d07h")])
def test_durations_have_two_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_frames_dropped_for_viewers_are_summed_up() -> None:
    answer = body(streams=1)
    answer["streams"][0]["skipped"] = {"slow": 12_000, "rate": 345}
    assert "12.3k" in draw(160, answer)
    assert "dropped" in draw(160, answer)


def as_printed(reply: dict[str, Any]) -> dict[str, Any]:
    """The reply with the former names of renamed metrics beside the new ones."""
    former = {"publishers": "cameras", "frames_dropped_slow_total": "frames_skipped_slow_total",
              "frames_dropped_bus_total": "frames_skipped_bus_total"}  # fmt: skip
    found: dict[str, Any] = copy.deepcopy(reply)
    for owner in (found["router"], *found["members"]):
        owner["figures"] |= {former[name]: value for name, value in owner["figures"].items() if name in former}
    return found


async def test_json_is_the_routers_answer_and_the_member_says_good_bye(router: FakeRouter, ctl: Ctl) -> None:
    ended = await ctl("stats", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out) == as_printed(router.stats)
    assert router.hellos[0].kind == "ctl"
    await until(lambda: router.byes == 1)


async def test_json_has_all_streams_of_a_router_that_tells_them_in_pages(router: FakeRouter, ctl: Ctl) -> None:
    router.page_rows = 1
    ended = await ctl("stats", "--json")
    assert (ended.code, ended.err) == (0, "")
    expected = as_printed(router.stats)
    assert len(expected["streams"]) > router.page_rows
    expected["totals"]["streams"] = len(expected["streams"])
    assert json.loads(ended.out) == expected


async def test_a_table_is_printed_once_without_watch(router: FakeRouter, ctl: Ctl) -> None:
    ended = await ctl("stats", COLUMNS="140")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("gateway.1") == 1 + 4
    assert "12 publishers · 1 viewer · 4 alert viewers · 46 connections" in ended.out


async def test_watch_goes_on_until_ctrl_c(router: FakeRouter, start: Start) -> None:
    command = await start("stats", "--watch", "0.3", "--json")
    for _ in range(3):
        assert json.loads(await command.line()) == as_printed(router.stats)
    command.process.send_signal(2)
    ended = await command.end()
    assert (ended.code, ended.err) == (130, "")


async def test_watch_without_a_number_refreshes(router: FakeRouter, start: Start) -> None:
    command = await start("stats", "--watch", COLUMNS="100")
    seen = ""
    while "in/s" not in seen:
        seen += await command.line()
    command.process.send_signal(2)
    assert (await command.end()).code == 130


@pytest.mark.parametrize("arguments", [["stats"], ["stats", "--json"], ["alert", "cam", "m", "--severity", "low"]])
async def test_with_nothing_running_it_says_so_within_two_seconds(ctl: Ctl, home: Path, arguments: list[str]) -> None:
    started = asyncio.get_running_loop().time()
    ended = await ctl(*arguments)
    assert asyncio.get_running_loop().time() - started < 30
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"watchout-ctl: nothing is running on WATCHOUT_HOME={home} (is `honcho start` up?)\n"


async def test_a_router_that_does_not_answer_is_a_sentence(router: FakeRouter, ctl: Ctl) -> None:
    router.mute = True
    ended = await ctl("stats", ROUTER_TIMEOUT_S="0.3")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "watchout-ctl: the router did not answer in time\n"
