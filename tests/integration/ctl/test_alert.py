from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.ctl_command import Ctl
from tests.kit.stats_router import FakeRouter
from watchout.common.clock import now_ms


@pytest.fixture
async def router(home: Path) -> Iterator[FakeRouter]:
    router = FakeRouter(home, {})
    yield router
    router.close()


async def test_an_alert_goes_over_the_bus_and_its_id_and_receivers_are_printed(router: FakeRouter, ctl: Ctl) -> None:
    ended = await ctl("alert", "cam:1", "--severity", "critical", "fire", "--metadata", '{"confidence": 0.5}')
    assert (ended.code, ended.err) == (0, "")
    (alert,) = router.alerts
    assert (alert.stream_id, alert.severity, alert.message) == ("cam:1", "critical", "fire")
    assert alert.metadata == {"confidence": 0.5}
    assert abs(alert.timestamp - now_ms()) < 20_000
    assert ended.out == f"alert {alert.id} was sent to 3 receivers\n"
    assert router.hellos[0].kind == "ctl"


async def test_two_alerts_have_two_ids(router: FakeRouter, ctl: Ctl) -> None:
    for _ in range(2):
        await ctl("alert", "cam", "--severity", "low", "again")
    assert len({alert.id for alert in router.alerts}) == 2


async def test_a_refusal_is_told_with_the_routers_words(router: FakeRouter, ctl: Ctl) -> None:
    router.refusal = "not for you"
    ended = await ctl("alert", "cam", "--severity", "low", "m")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "watchout-ctl: not for you (UNAUTHORIZED)\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cam", "m", "--severity", "loud"], "loud"),
        (["cam", "m"], "--severity"),
        (["a b", "m", "--severity", "low"], "is not a stream id"),
        (["cam", "", "--severity", "low"], "the alert is invalid"),
        (["cam", "m", "--severity", "low", "--metadata", "[1]"], "expected a JSON object"),
        (["cam", "m", "--severity", "low", "--metadata", "{"], "not JSON"),
        (["cam", "m", "--severity", "low", "--metadata", '{"a": "' + "x" * 20_000 + '"}'], "metadata has"),
    ],
)
async def test_what_does_not_fit_is_wrong_usage(ctl: Ctl, arguments: list[str], said: str) -> None:
    ended = await ctl("alert", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert "Traceback" not in ended.err


async def test_an_alert_that_nobody_gets_is_a_failure_that_names_the_streams_that_are_there(
    router: FakeRouter, ctl: Ctl
) -> None:
    router.receivers = 0
    router.stats = [
        {"streamId": "cam-1", "status": "streaming"}, {"streamId": "front", "status": "online"},
        {"streamId": "gone", "status": "offline"},
    ]  # fmt: skip
    ended = await ctl("alert", "cam-l", "--severity", "low", "m")
    assert (ended.code, ended.out) == (1, "")
    assert "cam-l has no publisher and no viewer" in ended.err
    assert "existing streams: cam-1, front; did you mean cam-1?" in ended.err
    ended = await ctl("alert", "front", "--severity", "low", "m")
    assert ended.code == 1
    assert "neither the publisher of front nor a viewer subscribes to alerts" in ended.err
