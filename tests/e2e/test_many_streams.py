"""Lists of more streams than one page has: complete, in order, in parts on request, and never made in one piece."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.kit.clients import DEADLINE_S, Answer, http
from tests.kit.one_process import OneProcess
from watchout.common import clock
from watchout.common.bus.messages import GrantedReply
from watchout.common.bus.reply_records import StreamRow
from watchout.common.bus.stream_walk import PAGE_ROWS, StreamWalk
from watchout.gateway.http import health
from watchout.gateway.model import Owner
from watchout.router.streams.registry import Streams

MANY = 2 * PAGE_ROWS + 3
NAMES = sorted(f"cam-{number}" for number in range(MANY))


class SilentCamera:
    """A publisher that sends nothing and hears nothing."""

    def send_message(self, message: bytes) -> None:
        """It hears nothing."""

    def send_ping(self, data: bytes) -> None:
        """It answers nothing."""

    def on_taken_over(self, stream: str) -> None:
        """It notices nothing."""


async def publish(started: OneProcess, user: str, names: list[str]) -> None:
    """Publish these streams at the first gateway, without a socket for each."""
    gateway, camera, now = started.gateways[0], SilentCamera(), asyncio.get_running_loop().time()
    router, hub = gateway._context.router, gateway._context.hub

    async def one(name: str) -> None:
        reply = await router.claim(name, Owner(user), producing=True, floor=0)
        assert isinstance(reply, GrantedReply)
        hub.publish(
            name, Owner(user), camera, term=reply.term, first_frame_id=reply.first_frame_id, producing=True,
            wants_alerts=False, now=now, now_ms=clock.now_ms(),
        )  # fmt: skip

    for begin in range(0, len(names), 100):
        await asyncio.gather(*map(one, names[begin : begin + 100]))


async def asked(url: str, token: str | None = None) -> Answer:
    """The answer of a path, asked again while the router is too busy for one: on a machine that is."""
    give_up = time.monotonic() + DEADLINE_S
    while (response := await http(url, token=token)).status == 503 and time.monotonic() < give_up:
        await asyncio.sleep(0.05)
    return response


async def parts(url: str, path: str, limit: int, token: str) -> list[list[dict[str, Any]]]:
    """The streams of a path, in parts one after the other."""
    found: list[list[dict[str, Any]]] = []
    after: str | None = ""
    while after is not None:
        response = await asked(f"{url}{path}?limit={limit}&after={after}", token=token)
        assert response.status == 200
        found.append(response.json["streams"])
        assert len(found[-1]) <= limit
        after = response.json.get("next")
    return found


@pytest.mark.parametrize("slots", [1, 2])
async def test_lists_are_whole_and_no_router_makes_one_in_one_piece(
    in_one_process: Any, monkeypatch: pytest.MonkeyPatch, slots: int
) -> None:
    started: OneProcess = await in_one_process(slots=slots, gateways=2, STREAM_ACCESS="authenticated")
    await publish(started, "ann", NAMES)

    def in_one_piece(*_: Any) -> Any:
        raise AssertionError("all rows were made at once")

    monkeypatch.setattr(Streams, "rows", in_one_piece)
    monkeypatch.setattr(Streams, "published", in_one_piece)
    here, there = started.urls
    token = started.token()
    stats = (await asked(f"{there}/stats")).json
    assert stats["activeStreams"] == NAMES
    assert [row["streamId"] for row in stats["streams"]] == NAMES
    assert (stats["totalProducers"], "next" in stats, "missingSlots" in stats) == (MANY, False, False)
    health = (await asked(f"{there}/health")).json
    assert (health["status"], health["stats"]["activeStreams"], len(health["metrics"])) == ("healthy", NAMES, MANY)
    listed = (await asked(f"{there}/streams", token=token)).json
    assert [row["id"] for row in listed["streams"]] == NAMES
    assert "next" not in listed
    assert f"watchout_active_streams {MANY}.0" in (await asked(f"{here}/metrics")).body.decode()

    for path, key in (("/stats", "streamId"), ("/streams", "id")):
        found = await parts(there, path, 700, token)
        assert [row[key] for part in found for row in part] == NAMES
        assert [len(part) for part in found] == [700, MANY - 700]
    for path in ("/stats", "/health"):
        body = (await asked(f"{there}{path}?limit=0")).json
        totals = body.get("stats", body)
        assert (totals["totalProducers"], totals["activeStreams"], totals["streams"]) == (MANY, [], [])
    for path, wrong in (
        ("/stats", "limit=1001"),
        ("/stats", "after=%21"),
        ("/streams", "limit=0"),
        ("/health", "limit=x"),
    ):
        refused = await asked(f"{there}{path}?{wrong}", token=token)
        assert (refused.status, refused.json["error"]["code"]) == (400, "INVALID_MESSAGE")


async def test_a_part_of_the_list_has_only_what_the_user_may_view(one_process: OneProcess, clients: Any) -> None:
    token = one_process.token("ann")
    await (await clients.camera(one_process.url, token)).register("cam-11")
    me = (await http(f"{one_process.url}/streams", token=token)).json["streams"][0]["userId"]
    await publish(one_process, "somebody", [f"cam-{number}" for number in range(6)])
    await publish(one_process, me, ["cam-31", "cam-51", "cam-52"])
    found = await parts(one_process.url, "/streams", 2, token)
    assert [[row["id"] for row in part] for part in found] == [["cam-11", "cam-31"], ["cam-51", "cam-52"]]
    assert [len(part) for part in await parts(one_process.url, "/streams", 3, token)] == [3, 1]


async def test_a_list_that_takes_too_long_makes_no_gateway_unhealthy(
    one_process: OneProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_walk: StreamWalk) -> AsyncIterator[list[StreamRow]]:
        await asyncio.Event().wait()
        yield []

    monkeypatch.setattr(StreamWalk, "pages", never)
    monkeypatch.setattr(health, "LIST_TIMEOUTS", 0.1)
    without = (await http(f"{one_process.url}/health")).json
    assert without["status"] == "healthy"
    assert not {"stats", "metrics"} & without.keys()
    assert (await http(f"{one_process.url}/health?limit=0")).json["stats"]["streams"] == []
    assert (await http(f"{one_process.url}/stats?limit=0")).json["totalProducers"] == 0
    refused = await http(f"{one_process.url}/stats")
    assert (refused.status, refused.error) == (503, "ROUTING_ERROR")
