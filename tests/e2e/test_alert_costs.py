"""What a sender of alerts can cost others: rates, values in metadata, memory of the router; on the real processes."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.kit.clients import Answer, Camera, Clients, eventually, http, new_name
from tests.kit.processes import SERVICE_TOKEN, Watchout, running
from watchout.common.alerts.model import MAX_METADATA_VALUES

pytestmark = pytest.mark.e2e

MIB = 1 << 20
RATE = 5
#: 5400 values in 16 KiB, and as nasty as is allowed.
REFUSED_METADATA = {"a": [{}] * 5400}
NASTY_METADATA = {"a": [{}] * (MAX_METADATA_VALUES - 2)}


@pytest.fixture(scope="module")
def watchout_with_small_rates() -> Iterator[Watchout]:
    with running(gateways=1, environ={"ALERT_RATE": str(RATE), "SERVICE_ALERT_RATE": "50"}) as started:
        yield started


async def panic_camera(started: Watchout, clients: Clients, user: str) -> Camera:
    camera = await clients.camera(started.url, started.token(user))
    await camera.register(new_name(), produces=["video-frame", "alert"], consumes=["alert"])
    return camera


def errors(camera: Camera, code: str) -> list[dict[str, Any]]:
    return [each for each in camera.heard if each["type"] == "error" and each["code"] == code]


async def test_a_users_alerts_are_bounded_over_all_his_sockets_and_nobody_elses_are(
    watchout_with_small_rates: Watchout, clients: Clients
) -> None:
    started = watchout_with_small_rates
    many = [await panic_camera(started, clients, "flood") for _ in range(4)]
    other = await panic_camera(started, clients, "other")
    began = time.monotonic()

    async def all_were_told() -> bool:
        for camera in many:
            await camera.send("alert", severity="low", message="x", metadata=NASTY_METADATA)
        return all(errors(camera, "RATE_LIMITED") for camera in many)

    await eventually(all_were_told, 30, "not every socket was told")
    for camera in many:
        (said, *_) = errors(camera, "RATE_LIMITED")
        assert f"{RATE} alerts per second" in said["message"]
        assert camera.open
    came = sum(each["type"] == "alert" for camera in many for each in camera.heard)
    assert came <= 2 * RATE + RATE * (time.monotonic() - began) + 1
    await other.send("alert", severity="high", message="help")
    await other.find("alert", message="help")
    answer = await http(f"{started.url}/metrics")
    assert "watchout_alerts_over_rate_total" in answer.body.decode()


async def test_metadata_of_too_many_values_is_refused_with_what_came_and_what_was_expected(
    watchout_with_small_rates: Watchout, clients: Clients
) -> None:
    started = watchout_with_small_rates
    camera = await panic_camera(started, clients, "nasty")
    await camera.send("alert", severity="low", message="x", metadata=REFUSED_METADATA)
    said = await camera.find("error", code="INVALID_MESSAGE")
    assert str(MAX_METADATA_VALUES) in said["message"]
    alert = {"streamId": camera.stream, "severity": "low", "message": "x", "metadata": REFUSED_METADATA}
    answer = await http(f"{started.url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)
    assert (answer.status, answer.error) == (400, "INVALID_MESSAGE")
    assert str(MAX_METADATA_VALUES) in answer.body.decode()
    await camera.send("alert", severity="low", message="fits", metadata=NASTY_METADATA)
    assert (await camera.find("alert", message="fits"))["metadata"] == NASTY_METADATA


async def test_a_service_that_brings_too_many_is_told_when_to_come_again(
    watchout_with_small_rates: Watchout,
) -> None:
    started = watchout_with_small_rates
    alert = {"streamId": "nobody", "severity": "low", "message": "x"}

    async def post() -> Answer:
        return await http(f"{started.url}/alerts", method="POST", token=SERVICE_TOKEN, body=[alert] * 60)

    assert (await post()).status == 202
    answers = await asyncio.gather(*(post() for _ in range(15)))  # 18 s of the rate, in a moment
    assert {answer.status for answer in answers} <= {202, 429}
    refused = [answer for answer in answers if answer.status == 429]
    assert refused
    for answer in refused:
        assert answer.error == "RATE_LIMITED"
        assert 1 <= int(answer.headers["retry-after"]) <= 2


async def accepted(started: Watchout, count: int) -> bool:
    page = (await http(f"{started.url}/metrics")).body.decode()
    found = re.search(r'^watchout_alerts_total\{process="router"\} (\S+)$', page, re.MULTILINE)
    return found is not None and float(found[1]) == count


async def test_the_router_keeps_encoded_bytes_and_no_more_than_is_said(clients: Clients) -> None:
    """Alerts that are as nasty as is allowed, many times more than are kept, raise its memory by what is said."""
    with running(environ={"RECENT_ALERTS": "100000", "RECENT_ALERT_BYTES": str(8 * MIB), "ALERT_RATE": "10000"}) as own:
        router = psutil.Process(own.one("router").pid)
        camera = await clients.camera(own.url, own.token("ann"))
        await camera.register(new_name(), produces=["alert"])

        async def send(first: int, count: int) -> None:
            for number in range(first, first + count):
                await camera.send("alert", severity="low", message="x", id=f"a{number}", metadata=NASTY_METADATA)
            await eventually(lambda: accepted(own, first + count), 60.0, "not all were accepted")

        await send(0, 10)
        before = router.memory_info().rss
        await send(10, 3990)
        # 4000 alerts are 12 MB on the wire: of one stream 2 MiB are recent, and all are for gateways that missed some.
        assert router.memory_info().rss - before < 40 * MIB
