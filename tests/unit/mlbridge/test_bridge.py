"""The whole bridge between a fake router and a real HTTP service."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.kit.fake_router import FakeRouter
from tests.kit.ml_stub import ALERT, MlStub, serving
from tests.kit.polling import until
from watchout.common.errors import ErrorCode
from watchout.common.media.frames import Frame
from watchout.common.metric_names import DECLARED
from watchout.common.settings import Settings
from watchout.mlbridge.app import Bridge
from watchout.mlbridge.scrubber import scrubber_of
from watchout.mlbridge.service_outage import ServiceOutage

PICTURE = b"\xff\xd8\xff picture"


def frame(stream: str, number: int, *, term: int = 1) -> Frame:
    return Frame(stream, number, 1_700_000_000_000 + number, term=term, picture=PICTURE)


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("h")


@pytest.fixture
async def router(home: Path) -> AsyncIterator[FakeRouter]:
    router = FakeRouter(home)
    yield router
    router.close()


@pytest.fixture
async def stub() -> AsyncIterator[MlStub]:
    async with serving() as stub:
        yield stub


@pytest.fixture
def logs() -> Iterator[list[EventDict]]:
    with capture_logs() as lines:
        yield lines
    assert not [line for line in lines if line["log_level"] in ("error", "critical")]
    assert not [line for line in lines if "exc_info" in line]


Start = Callable[..., contextlib.AbstractAsyncContextManager[Bridge]]


@pytest.fixture
def bridge(home: Path, logs: list[EventDict]) -> Start:
    @asynccontextmanager
    async def start(url: str | None, **changes: object) -> AsyncIterator[Bridge]:
        values: dict[str, object] = {"ml_fps": 100.0, "ml_timeout_s": 60.0, "drain_s": 60.0, "router_timeout_s": 60.0}
        values["alert_cooldown_s"] = 0.0
        process = Bridge(Settings(home=home, ml_service_url=url, **(values | changes)))  # type: ignore[arg-type]
        await process.start()
        try:
            yield process
        finally:
            await process.stop()

    return start


def metric(process: Bridge, name: str) -> float:
    return process._read_metrics().get(name, 0)


def events(logs: list[EventDict], word: str) -> list[EventDict]:
    return [line for line in logs if word in line["event"]]


async def joined(router: FakeRouter) -> None:
    await until(lambda: router.members and router.told.synced)
    if router.told.hellos[-1].max_fps is not None:
        await until(lambda: router.receivers)


async def test_the_bridge_joins_with_its_group_and_rate(router: FakeRouter, stub: MlStub, bridge: Start) -> None:
    async with bridge(stub.url, ml_fps=2.0, ml_group="people"):
        await joined(router)
        (hello,) = router.told.hellos
        assert (hello.kind, hello.name, hello.group, hello.max_fps) == ("mlbridge", "mlbridge", "people", 2.0)


async def test_the_process_of_honcho_gives_the_name(
    router: FakeRouter, bridge: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HONCHO_PROCESS_NAME", "mlbridge.2")
    async with bridge(None):
        await joined(router)
        assert router.told.hellos[0].name == "mlbridge.2"


async def test_without_a_service_the_bridge_joins_asks_for_no_frames_and_says_so_once(
    router: FakeRouter, bridge: Start, logs: list[EventDict]
) -> None:
    async with bridge(None) as process:
        await joined(router)
        assert router.told.hellos[0].max_fps is None
        assert len(events(logs, "ML_SERVICE_URL is not set")) == 1
        await until(lambda: "ml_configured" in router.told.metrics)
        assert router.told.metrics["ml_configured"] == 0
        await process.drain()


async def test_a_frame_comes_to_the_service_and_its_alert_to_the_router(
    router: FakeRouter, stub: MlStub, bridge: Start
) -> None:
    stub.mode = "answer"
    async with bridge(stub.url) as process:
        await joined(router)
        router.push(frame("stream_1", 7))
        await until(lambda: router.told.alerts)
        (alert,) = router.told.alerts
        assert (alert.stream_id, alert.frame_id, alert.timestamp) == ("stream_1", 7, 1_700_000_000_007)
        assert (alert.severity, alert.message) == ("high", "a person")
        assert len(alert.id) == 32
        await until(lambda: router.told.metrics.get("alerts_total") == 1)
        assert router.told.metrics["ml_requests_total"] == 1
        assert router.told.metrics["ml_latency_seconds"] > 0
        assert router.told.metrics["ml_in_flight"] == 0
        assert router.told.metrics["frames_from_bus_total"] == 1
        assert set(process._read_metrics()) <= set(DECLARED)


async def test_the_services_own_id_is_kept(router: FakeRouter, stub: MlStub, bridge: Start) -> None:
    stub.mode, stub.answer = "answer", {"alert": ALERT | {"id": "their-own"}}
    async with bridge(stub.url) as process:
        await joined(router)
        router.push(frame("s", 1))
        await until(lambda: router.told.alerts)
        router.push(frame("s", 2))
        await until(lambda: metric(process, "alerts_repeated_total") == 1)
        assert [alert.id for alert in router.told.alerts] == ["their-own"]


async def test_a_slow_service_gets_the_newest_frame_and_never_two_of_a_stream(
    router: FakeRouter, stub: MlStub, bridge: Start
) -> None:
    stub.mode = "hang"
    async with bridge(stub.url) as process:
        await joined(router)
        router.push(frame("s", 1))
        await until(lambda: stub.requests)
        for number in range(2, 50):
            router.push(frame("s", number))
        await until(lambda: metric(process, "frames_from_bus_total") == 49)
        assert len(stub.requests) == 1
        stub.released.set()
        await until(lambda: len(stub.requests) == 2)
        assert [request["frameId"] for request in stub.requests] == [1, 49]
        assert metric(process, "ml_frames_replaced_total") == 47


async def test_no_more_requests_are_under_way_than_allowed_and_all_streams_have_their_turn(
    router: FakeRouter, stub: MlStub, bridge: Start
) -> None:
    stub.mode = "hang"
    async with bridge(stub.url, ml_in_flight=3) as process:
        await joined(router)
        for number in range(10):
            router.push(frame(f"s{number}", 1))
        await until(lambda: metric(process, "frames_from_bus_total") == 10 and len(stub.requests) == 3)
        assert metric(process, "ml_in_flight") == 3
        stub.released.set()
        await until(lambda: len(stub.requests) == 10)
        assert stub.most_under_way <= 3


async def test_each_stream_is_shown_at_the_rate(router: FakeRouter, stub: MlStub, bridge: Start) -> None:
    async with bridge(stub.url, ml_fps=10.0):
        await joined(router)
        began = time.monotonic()
        number = 0
        while len(stub.requests) < 10:
            assert time.monotonic() - began < 30
            number += 1
            router.push(frame("s", number))
            await asyncio.sleep(0.005)
        assert time.monotonic() - began > 0.7


@pytest.mark.parametrize(
    ("mode", "answer"),
    [("status", 500), ("status", 404), ("redirect", None), ("huge", None), ("announced", None), ("hang", None),
     ("drip", None)],
)  # fmt: skip
async def test_a_service_that_fails_is_counted_and_told_once_and_its_return_once(
    router: FakeRouter, stub: MlStub, bridge: Start, logs: list[EventDict], mode: str, answer: object
) -> None:
    stub.mode, stub.answer = mode, answer
    async with bridge(stub.url, ml_timeout_s=0.1 if mode in ("hang", "drip") else 60.0) as process:
        await joined(router)
        number = 0

        async def push_until(condition: Callable[[], bool]) -> None:
            nonlocal number
            give_up_at = time.monotonic() + 30
            while not condition():
                assert time.monotonic() < give_up_at
                number += 1
                router.push(frame("s", number))
                await asyncio.sleep(0.01)

        await push_until(lambda: metric(process, "ml_failures_total") >= 4)
        assert not router.told.alerts
        assert len(events(logs, "fails")) == 1
        if mode in ("hang", "drip"):
            assert metric(process, "ml_timeouts_total") == metric(process, "ml_failures_total")
        else:
            assert metric(process, "ml_timeouts_total") == 0
        stub.mode, stub.answer = "answer", {"alert": ALERT}
        await push_until(lambda: bool(router.told.alerts))
        assert len(events(logs, "answers again")) == 1


async def test_a_service_that_comes_late_or_goes_and_comes_back_is_found_within_a_second(
    router: FakeRouter, stub: MlStub, bridge: Start, logs: list[EventDict]
) -> None:
    stub.mode = "answer"
    await stub.stop()
    async with bridge(stub.url, ml_fps=2.0) as process:
        await joined(router)
        number = 0

        async def show_until(condition: Callable[[], bool]) -> None:
            nonlocal number
            give_up_at = time.monotonic() + 30
            while not condition():
                assert time.monotonic() < give_up_at
                number += 1
                router.push(frame("s", number))
                await asyncio.sleep(0.03)

        began = time.monotonic()
        await show_until(lambda: time.monotonic() > began + 1.5 and metric(process, "ml_failures_total") >= 1)
        assert metric(process, "ml_failures_total") <= 4 * (time.monotonic() - began)
        await stub.start()
        newest_before = number
        await show_until(lambda: bool(router.told.alerts))
        assert (router.told.alerts[0].frame_id or 0) >= newest_before - 1, "fresh, not what waited"
        assert len(events(logs, "fails")) == 1
        assert len(events(logs, "answers again")) == 1


@pytest.mark.parametrize(
    ("mode", "answer", "refused"),
    [
        ("text", "no json", 0),
        ("text", '{"alert":{"severity":"low","message":"m","metadata":{"c":NaN}}}', 1),
        ("answer", {"alert": "no"}, 1),
        ("answer", {"alerts": "no"}, 1),
        ("answer", {"alerts": [ALERT] * 101}, 1),
        ("answer", {"alerts": [1, {"severity": "worst", "message": "m"}, {}]}, 3),
        ("answer", [], 0),
        ("gzip", None, 0),
    ],
)
async def test_what_is_no_alert_reaches_nobody_and_is_no_failure(
    router: FakeRouter, stub: MlStub, bridge: Start, mode: str, answer: object, refused: int
) -> None:
    stub.mode, stub.answer = mode, answer
    async with bridge(stub.url) as process:
        await joined(router)
        router.push(frame("s", 1))
        await until(lambda: metric(process, "ml_latency_seconds") or metric(process, "ml_results_unusable_total"))
        assert metric(process, "alerts_refused_total") == refused
        assert metric(process, "ml_failures_total") == 0
        stub.mode, stub.answer = "answer", {"alert": ALERT}
        router.push(frame("s", 2))
        await until(lambda: router.told.alerts)
        assert [alert.frame_id for alert in router.told.attempts] == [2]


async def test_refused_alerts_do_not_flood_the_log(
    router: FakeRouter, stub: MlStub, bridge: Start, logs: list[EventDict]
) -> None:
    stub.mode, stub.answer = "answer", {"alerts": ["no"] * 100}
    async with bridge(stub.url) as process:
        await joined(router)
        router.push(frame("s", 1))
        await until(lambda: metric(process, "alerts_refused_total") == 100)
        assert 1 <= len(events(logs, "refused")) <= 6


async def test_a_frame_that_cannot_be_decoded_is_told_once_and_never_shown(
    router: FakeRouter, stub: MlStub, bridge: Start
) -> None:
    def bad(stream: str, number: int) -> Frame:
        return Frame(stream, number, 1, term=1, text=b'"not base64!"')

    async with bridge(stub.url) as process:
        await joined(router)
        for number in range(1, 4):
            router.push(bad("s", number))
        router.push(bad("t", 1))
        await until(lambda: metric(process, "frames_undecodable_total") == 4 and len(router.told.bad_frames) == 2)
        assert [(told.stream, told.frame_id) for told in router.told.bad_frames] == [("s", 1), ("t", 1)]
        assert "base64" in router.told.bad_frames[0].reason
        router.push(frame("s", 4))
        await until(lambda: stub.requests)
        router.push(bad("s", 5))
        await until(lambda: len(router.told.bad_frames) == 3)
        assert [request["frameId"] for request in stub.requests] == [4]


async def test_json_frames_of_cameras_are_shown_as_plain_base64(
    router: FakeRouter, stub: MlStub, bridge: Start
) -> None:
    async with bridge(stub.url):
        await joined(router)
        text = json.dumps("data:image/jpeg;base64," + base64.b64encode(PICTURE).decode()).encode()
        router.push(Frame("s", 1, 1, term=1, text=text))
        await until(lambda: stub.requests)
        assert base64.b64decode(stub.requests[0]["frame"], validate=True) == PICTURE


async def test_bytes_that_are_no_frame_are_counted(router: FakeRouter, stub: MlStub, bridge: Start) -> None:
    async with bridge(stub.url) as process:
        await joined(router)
        for data in (b"", b"x", bytes(100), frame("s", 1).to_bus()[:30], Frame("no id!", 1, 1, picture=b"x").to_bus()):
            router.push_bytes(data)
        await until(lambda: metric(process, "bus_bad_messages_total") == 5)
        router.push(frame("s", 1))
        await until(lambda: stub.requests)


async def test_alerts_wait_while_the_router_is_away_and_come_in_order_with_their_ids(
    home: Path, stub: MlStub, bridge: Start
) -> None:
    first = FakeRouter(home)
    stub.mode, stub.answer = "answer", {"alerts": [ALERT | {"message": f"m{number}"} for number in range(20)]}
    async with bridge(stub.url) as process:
        await joined(first)
        first.push(frame("s", 1))
        await until(lambda: stub.requests)
        first.close()
        second = FakeRouter(home, epoch=2, told=first.told)
        try:
            try:
                await until(lambda: len(first.told.alerts) == 20)
            except AssertionError:
                told, sent = second.told, metric(process, "alerts_total")
                raise AssertionError(
                    f"{len(told.alerts)} alerts of {len(told.attempts)} attempts, {second.members} members of the "
                    f"second router, {len(stub.requests)} requests, {sent} alerts of the bridge"
                ) from None
            assert [alert.message for alert in first.told.alerts] == [f"m{number}" for number in range(20)]
            await until(lambda: metric(process, "alerts_total") == 20)
        finally:
            second.close()


async def test_an_alert_whose_answer_was_lost_is_sent_again_under_the_same_id(
    router: FakeRouter, stub: MlStub, bridge: Start
) -> None:
    router.withheld_answers = 1
    stub.mode, stub.answer = "answer", {"alerts": [ALERT, ALERT | {"message": "another person"}]}
    async with bridge(stub.url, router_timeout_s=0.1) as process:
        await joined(router)
        router.push(frame("s", 1))
        await until(lambda: len(router.told.alerts) == 2)
        one, two = router.told.alerts
        assert one.id != two.id
        ids = [attempt.id for attempt in router.told.attempts]
        assert [each for each, _ in itertools.groupby(ids)] == [one.id, two.id]
        assert ids.count(one.id) >= 2
        await until(lambda: metric(process, "alerts_duplicate_total") >= 1)


async def test_an_alert_that_the_router_refuses_is_counted_and_not_sent_again(
    router: FakeRouter, stub: MlStub, bridge: Start
) -> None:
    router.refusal = ErrorCode.INVALID_MESSAGE
    stub.mode = "answer"
    async with bridge(stub.url) as process:
        await joined(router)
        router.push(frame("s", 1))
        await until(lambda: metric(process, "alerts_refused_total") == 1)
        router.refusal = None
        router.push(frame("s", 2))
        await until(lambda: router.told.alerts)
        assert len(router.told.attempts) == 2


async def test_an_alert_that_the_router_cannot_take_now_is_sent_again(
    router: FakeRouter, stub: MlStub, bridge: Start
) -> None:
    router.refusal = ErrorCode.ROUTING_ERROR
    stub.mode = "answer"
    async with bridge(stub.url):
        await joined(router)
        router.push(frame("s", 1))
        await until(lambda: router.told.attempts)
        router.refusal = None
        await until(lambda: router.told.alerts)


async def test_alerts_past_the_bound_are_dropped_oldest_first_and_counted(
    home: Path, stub: MlStub, bridge: Start
) -> None:
    router = FakeRouter(home)
    async with bridge(stub.url) as process:
        await joined(router)
        router.close()
        outbox = process._alert_sender
        assert outbox is not None
        await until(lambda: process._links is not None and not process._links.live)
        for number in range(1_010):
            outbox.on_alerts([ALERT | {"message": str(number)}], frame("s", 1))
        assert metric(process, "alerts_dropped_total") == 10
        assert metric(process, "router_lost_total") == 1
        router = FakeRouter(home, epoch=2)
        try:
            await until(lambda: len(router.told.alerts) == 1_000)
            assert [alert.message for alert in router.told.alerts] == [str(number) for number in range(10, 1_010)]
        finally:
            router.close()


async def test_a_drain_lets_requests_under_way_end_and_brings_their_alerts(
    router: FakeRouter, stub: MlStub, bridge: Start
) -> None:
    stub.mode = "hang"
    async with bridge(stub.url) as process:
        await joined(router)
        router.push(frame("s", 1))
        await until(lambda: stub.requests)
        router.push(frame("s", 2))
        await until(lambda: metric(process, "frames_from_bus_total") == 2)
        drain = asyncio.create_task(process.drain())
        await asyncio.sleep(0)
        router.push(frame("t", 1))
        stub.released.set()
        await drain
        assert [alert.frame_id for alert in router.told.alerts] == [1]
        assert len(stub.requests) == 1
    await until(lambda: router.told.byes == 1)


async def test_a_drain_ends_in_time_whatever_hangs(home: Path, stub: MlStub, bridge: Start) -> None:
    router = FakeRouter(home)
    stub.mode = "answer"
    async with bridge(stub.url, ml_timeout_s=60.0, drain_s=0.4) as process:
        await joined(router)
        router.push(frame("s", 1))
        await until(lambda: router.told.alerts)
        router.close()
        stub.mode = "hang"
        assert process._dispatcher is not None
        assert process._alert_sender is not None
        process._dispatcher.on_frame(frame("s", 2).to_bus())
        await until(lambda: len(stub.requests) == 2)
        process._alert_sender.on_alerts([ALERT], frame("s", 2))
        began = time.monotonic()
        await process.drain()
        await process.stop()
        assert time.monotonic() - began < 30
    await until(lambda: stub.cancelled == 1)


async def test_the_bridge_starts_and_ends_without_a_router_and_without_a_service(bridge: Start) -> None:
    async with bridge("http://127.0.0.1:9") as process:
        await process.drain()


def test_an_outage_is_told_once_and_so_is_its_end() -> None:
    outage = ServiceOutage()
    assert outage.on_result(0.0) is None
    assert outage.on_failure(1.0)
    assert not any(outage.on_failure(1.0 + number) for number in range(100))
    assert outage.on_result(200.0) == 199.0
    assert outage.on_result(201.0) is None


def test_a_service_that_fails_now_and_then_does_not_flood_the_log() -> None:
    outage = ServiceOutage()
    told = 0
    for second in range(100):
        told += outage.on_failure(float(second))
        outage.on_result(second + 0.5)
    assert told == 10


def test_a_second_outage_soon_after_the_first_is_told_when_it_is_sure() -> None:
    outage = ServiceOutage()
    assert outage.on_failure(0.0)
    outage.on_result(1.0)
    assert [outage.on_failure(2.0), outage.on_failure(2.1), outage.on_failure(2.2), outage.on_failure(2.3)] == [
        False,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("answer", ["{}", {"alert": {"severity": "{}", "message": "m"}}])
async def test_secrets_that_the_service_echoes_do_not_reach_the_log(
    router: FakeRouter, stub: MlStub, bridge: Start, logs: list[EventDict], answer: object
) -> None:
    header, user, password, query = "Bearer canary-in-a-header", "canary-user", "canary/pass", "canary-in-the-query"
    echo = f"<p>{header} {user}:{password} canary%2Fpass {query}</p>"
    stub.mode, stub.answer = "answer", json.loads(json.dumps(answer).replace("{}", echo))
    url = stub.url.replace("http://", f"http://{user}:canary%2Fpass@") + f"/?key={query}"
    async with bridge(url, ml_headers=(("X-Key", header),)) as process:
        await joined(router)
        router.push(frame("cam", 1))
        await until(lambda: metric(process, "ml_results_unusable_total") or metric(process, "alerts_refused_total"))
    assert [line for line in logs if "***" in str(line)]
    assert not [line for line in logs if "canary" in str(line)]


@pytest.mark.parametrize("cut", [*range(8, 25), *range(-24, -7)])
def test_a_secret_that_is_cut_off_is_found(cut: int) -> None:
    scrub = scrubber_of(Settings(ml_headers=(("X-Key", "0123456789abcdefghijklmn"),)))
    secret = "0123456789abcdefghijklmn"
    shown = scrub(f"it said '{secret[:cut] if cut > 0 else secret[cut:]}...'")
    assert "***" in shown
    assert not set("0123ijklmn") & set(shown.replace("***", "").replace("it said", ""))
