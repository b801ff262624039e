"""A cluster in one process: four slots with a router each, over the in-memory bus of `tests.kit.memory_transport`.

First what holds for one router holds for several; then what is new: a slot without a router, one that changes its
router, two live routers of one slot, and clocks that are apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.e2e import test_acknowledgements, test_one_process, test_shares
from tests.e2e.test_one_process import stub  # noqa: F401 - a fixture
from tests.kit.clients import Clients, Viewer, eventually, http
from tests.kit.ml_stub import MlStub
from tests.kit.one_process import OneProcess
from tests.kit.processes import SERVICE_TOKEN
from watchout.common import clock, metric_names
from watchout.common.alerts.model import Alert
from watchout.common.bus.messages import (
    AlertNotification,
    Forward,
    FromRouter,
    GrantedReply,
    Rejoin,
    Revoke,
    StatusUpdate,
    Welcome,
    encode,
)
from watchout.common.bus.router_links import RouterLinks
from watchout.common.bus.slots import slot_of
from watchout.router import handler, slot_router
from watchout.router.record_file import RecordFile

SLOTS = 4
#: A stream of each slot.
CAMS = [next(f"cam-{n}" for n in range(100) if slot_of(f"cam-{n}", SLOTS) == slot) for slot in range(SLOTS)]
SAME_AS_WITH_ONE = {
    test_one_process: lambda name: name != "test_it_is_ready_in_half_a_second",
    test_acknowledgements: lambda name: (
        "survives_the_router" in name or "who_comes_back" in name or "lost_mess" in name
    ),
    test_shares: lambda name: "an_ended_share" in name or "its_one_stream" in name or "only_the_owner" in name,
}


@pytest.fixture
async def in_one_process(in_one_process: Callable[..., Any]) -> Callable[..., Any]:
    def start(**options: Any) -> Any:
        return in_one_process(slots=SLOTS, **options)

    return start


@pytest.fixture
async def one_process(in_one_process: Callable[..., Any]) -> OneProcess:
    started: OneProcess = await in_one_process()
    return started


for _module, _wanted in SAME_AS_WITH_ONE.items():
    globals().update({n: t for n, t in vars(_module).items() if n.startswith("test_") and callable(t) and _wanted(n)})


async def post_alert(url: str, stream: str, alert_id: str) -> int:
    alert = {"id": alert_id, "streamId": stream, "severity": "high", "message": alert_id}
    return (await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)).status


def alerts_of(viewer: Viewer) -> list[str]:
    return [message["id"] for message in viewer.heard if message["type"] == "alert"]


def gateway_links(started: OneProcess, slot: int) -> list[Any]:
    return [gateway._link.links.at(slot) for gateway in started.gateways]


async def joined(started: OneProcess, slot: int, epoch: int) -> None:
    """Wait until all gateways are members of this router."""
    await eventually(lambda: all(link.live and link.epoch == epoch for link in gateway_links(started, slot)))


async def test_each_stream_is_at_the_router_of_its_slot_and_replies_are_of_all(in_one_process, clients):
    started = await in_one_process(gateways=2)
    here, there = started.urls
    ann = started.token("ann")
    for stream in CAMS:
        camera = await clients.camera(here, ann)
        await camera.register(stream)
        await camera.show()
        assert await post_alert(there, stream, f"of-{stream}") == 202
    for slot, router in started.slot_routers.items():
        assert [row.id for row in router._streams._table.streams.values()] == [CAMS[slot]]
    rows = await eventually(lambda: listed(there, ann, len(CAMS)))
    assert rows == {"streams": rows["streams"]}, "no word of slots while all are there"
    stats = await started.stats()
    assert stats["activeStreams"] == sorted(CAMS)
    assert stats["totalConnections"] == len(CAMS), "each socket counts once, not at each router"
    assert "missingSlots" not in stats
    found = (await http(f"{here}/alerts?limit=3", token=ann)).json
    assert [alert["id"] for alert in found["alerts"]] == [f"of-{stream}" for stream in CAMS[1:]], "the newest, by time"
    assert list(found) == ["alerts"]
    asked = await started.ask()
    assert sorted(m.kind for m in asked.members) == ["ctl", "gateway", "gateway"], "each process once"
    page = (await http(f"{here}/metrics")).body.decode()
    assert 'watchout_streams{process="router-3"} 1.0' in page
    assert "watchout_slots_missing 0.0" in page
    assert "watchout_active_streams 4.0" in page


async def known_for_a_while(started: OneProcess) -> None:
    """Wait until the routers know which gateways report to a new one."""
    loop = asyncio.get_running_loop()
    await eventually(lambda: all(each.reporters(loop.time()).is_certain for each in started.slot_routers.values()))


async def test_a_new_router_decides_when_all_have_reported_that_the_others_know(in_one_process, clients, monkeypatch):
    """The time for which it would wait otherwise is an hour here. Nothing is stored of the stream."""
    started = await in_one_process(gateways=2, STREAM_RESERVED_S="0")
    ann, bob = started.token("ann"), started.token("bob")
    camera = await clients.camera(started.urls[0], ann)
    await camera.register(CAMS[1])
    await known_for_a_while(started)
    monkeypatch.setattr(handler, "SYNC_GRACE_S", 3600.0)
    await started.stop_slot(1)
    await started.start_slot(1)
    other = await clients.camera(started.urls[1], bob)
    await other.send("register", streamId=CAMS[1], produces=["video-frame"])
    assert (await other.find("error"))["code"] == "UNAUTHORIZED", "the other one's stream was reported before"


@pytest.fixture
def may_load(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """While it is not set, what is stored cannot be loaded."""
    may_load, load = asyncio.Event(), RecordFile.load
    may_load.set()

    async def late(store: RecordFile) -> dict[str, bytes]:
        await may_load.wait()
        return await load(store)

    monkeypatch.setattr(RecordFile, "load", late)
    return may_load


async def shared_stream(started: OneProcess, clients: Clients) -> str:
    """Let ann publish a stream of slot 1 and share it; the token of the share."""
    ann = started.token("ann")
    camera = await clients.camera(started.url, ann)
    await camera.register(CAMS[1])
    return str((await test_shares.share(started.url, ann, CAMS[1]))["token"])


async def test_a_share_has_not_ended_because_shares_are_not_loaded_yet(in_one_process, clients, may_load):
    """Gateways ask for the shares of their viewers each second."""
    started = await in_one_process(gateways=1)
    token = await shared_stream(started, clients)
    viewer = await clients.viewer(started.url, token)
    await viewer.subscribe(CAMS[1], consumes=["video-frame"])
    failed = started.gateways[0]._context.metrics.values
    may_load.clear()
    await started.stop_slot(1)
    await started.start_slot(1)

    async def unavailable() -> bool:
        return (await http(f"{started.url}/streams", token=token)).status == 503

    await eventually(unavailable, what="whoever comes is asked to try again")
    before = failed.get(metric_names.REVALIDATION_FAILED, 0)
    await eventually(lambda: failed.get(metric_names.REVALIDATION_FAILED, 0) >= before + 2)
    assert viewer.open
    ann, path = started.token("ann"), f"/streams/{CAMS[1]}/shares"
    answer = await http(f"{started.url}{path}", method="POST", token=ann, body={"seconds": 600})
    assert answer.status == 503
    assert b"the shares are not loaded yet, try again" in answer.body
    may_load.set()

    async def found() -> bool:
        return (await http(f"{started.url}/streams", token=token)).status == 200

    await eventually(found)
    assert viewer.open


async def test_a_share_has_not_ended_because_shares_cannot_be_loaded(in_one_process, clients, may_load, monkeypatch):
    """Not because the store is away, which ends, but by a fault of whatever kind."""
    started = await in_one_process(gateways=1)
    token = await shared_stream(started, clients)

    async def faulty(_: RecordFile) -> dict[str, bytes]:
        await may_load.wait()
        raise RuntimeError("a fault")

    monkeypatch.setattr(RecordFile, "load", faulty)
    may_load.clear()
    await started.stop_slot(1)
    router = await started.start_slot(1)
    may_load.set()
    await joined(started, 1, router.epoch)
    await eventually(lambda: not router._handler.hold.syncing)
    assert (await http(f"{started.url}/streams", token=token)).status == 503


async def test_what_is_asked_of_shares_waits_until_they_are_loaded(in_one_process, clients, may_load, monkeypatch):
    """They are late, so the new router has opened the bus by then."""
    started = await in_one_process(gateways=1)
    token = await shared_stream(started, clients)
    await known_for_a_while(started)
    may_load.clear()
    monkeypatch.setattr(handler, "SYNC_GRACE_S", 3600.0)
    monkeypatch.setattr(slot_router, "SYNC_GRACE_S", 3600.0)
    await started.stop_slot(1)
    await started.start_slot(1)
    asked = asyncio.ensure_future(http(f"{started.url}/streams", token=token))
    await joined(started, 1, started.slot_routers[1].epoch)
    hold = started.slot_routers[1]._handler.hold
    await eventually(lambda: hold._held, what="the gateway asks for the share")
    assert not asked.done()
    may_load.set()
    answer = await asked
    assert (answer.status, [row["id"] for row in answer.json["streams"]]) == (200, [CAMS[1]])


async def listed(url: str, token: str, count: int) -> Any:
    found = (await http(f"{url}/streams", token=token)).json
    return found if len(found["streams"]) == count else None


@pytest.fixture
async def streams() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as stack:
        yield stack


async def test_a_slot_without_a_router_is_named_refused_in_time_and_delays_no_other(in_one_process, clients, streams):
    started = await in_one_process(gateways=2, ROUTER_TIMEOUT_S="1")
    here, there = started.urls
    ann = started.token("ann")
    lost, kept = CAMS[0], CAMS[1]
    viewers = {}
    for stream in (lost, kept):
        camera = await clients.camera(here, ann)
        await camera.register(stream)
        viewers[stream] = await clients.viewer(there, ann)
        await viewers[stream].subscribe(stream)
        await streams.enter_async_context(camera.streaming(20))
        await viewers[stream].frame()
    assert await post_alert(here, lost, "a0") == 202
    await started.stop_slot(0)
    await eventually(lambda: all(not link.live for link in gateway_links(started, 0)))
    for viewer in viewers.values():
        before = len(viewer.frames)
        await eventually(lambda v=viewer, n=before: len(v.frames) > n + 3, what="frames go on")
    for path, key in (("/stats", "activeStreams"), ("/streams", "streams"), ("/alerts", "alerts")):
        reply = await http(f"{there}{path}", token=ann)
        assert (reply.status, reply.json["missingSlots"]) == (200, [0]), path
        assert lost not in str(reply.json[key]), path
    health = await http(f"{there}/health")
    assert (health.status, health.json["status"], health.json["missingSlots"]) == (200, "degraded", [0])
    assert (await http(f"{there}/health/live")).status == 200
    assert "watchout_slots_missing 1.0" in (await http(f"{there}/metrics")).body.decode()

    async def it_is_named() -> bool:
        return (await started.ask(within_s=3)).missing_slots == [0]

    await eventually(it_is_named, what="watchout-ctl stats does not name the slot alone")
    # What concerns the lost slot is refused, with an error that says so; all else works.
    other = await clients.camera(there, ann)
    await other.send("register", clientType="mobile", produces=["video-frame"], streamId=lost)
    error = await other.find("error")
    assert error["code"] == "ROUTING_ERROR"
    assert await post_alert(there, lost, "a1") == 503
    assert await post_alert(there, kept, "a2") == 202
    await viewers[kept].find("alert", id="a2")
    assert (await http(f"{there}/alerts/a2/frame.jpg", token=ann)).error == "NO_FRAME"
    assert (await http(f"{there}/alerts/a0/frame.jpg", token=ann)).status == 503, "it may be of the missing slot"
    fresh = await clients.camera(there, ann)
    await fresh.register(CAMS[2])
    router = await started.start_slot(0)
    await joined(started, 0, router.epoch)
    await started.healthy()
    assert await post_alert(there, lost, "a3") == 202
    await viewers[lost].find("alert", id="a3")
    assert alerts_of(viewers[lost]) == ["a0", "a3"]
    assert (await started.stats())["activeStreams"] == sorted([lost, kept, CAMS[2]])


async def test_without_any_router_it_is_as_without_the_only_one(in_one_process, monkeypatch):
    started = await in_one_process(ROUTER_TIMEOUT_S="0.5")
    await started.stop_router()
    await eventually(lambda: not started.gateways[0]._link.live)
    health = await http(f"{started.url}/health")
    assert (health.status, health.json["reason"]) == (503, "the router is unreachable")
    monkeypatch.setattr(RouterLinks, "explain_slots", lambda _: "CLUSTER_SLOTS is 2 here, and the routers have 4")
    health = await http(f"{started.url}/health")
    assert (health.status, health.json["reason"]) == (503, "CLUSTER_SLOTS is 2 here, and the routers have 4")
    assert (await http(f"{started.url}/streams", token=started.token())).status == 503
    assert (await http(f"{started.url}/stats")).status == 503


async def test_the_words_of_a_router_that_has_a_successor_have_no_effect(in_one_process, clients):
    started = await in_one_process(gateways=2)
    here, there = started.urls
    ann, stream = started.token("ann"), CAMS[0]
    camera, viewer = await clients.camera(here, ann), await clients.viewer(there, ann)
    await camera.register(stream, consumes=["alert"])
    await viewer.subscribe(stream)
    old = started.slot_routers[0]
    new = await started.start_slot(0)  # the old one lives on
    await joined(started, 0, new.epoch)
    async with camera.streaming(20):
        await viewer.frame()
        publication = started.gateways[0]._link.hub.publication(stream)
        await eventually(lambda: publication.receivers)
        end, _ = started.bus.routers[0]
        alert = Alert.from_json(
            b'{"type":"alert","id":"old","streamId":"%b","timestamp":1,"severity":"high","message":"m"}'
            % stream.encode()
        )
        words: list[FromRouter] = [
            Revoke(stream=stream, term=2**62),
            Forward(stream=stream, term=publication.term, wanted=False),
            StatusUpdate(stream=stream, status="offline", timestamp=1, term=2**62, user="bob"),
            AlertNotification(alert=alert, number=1),
            GrantedReply(request=1, stream=stream, term=2**62, first_frame_id=2**31),
            *(Welcome(attempt=attempt) for attempt in range(12)),
            Rejoin(),
        ]
        before = [link._membership.attempt for link in gateway_links(started, 0)]
        for member in [m for m, transport in started.bus.members.items() if transport.slot == 0]:
            for number, word in enumerate(words):
                for seq in (0, number, number + 1):
                    end.send_control(member, encode(old.epoch, seq, word))
        count = len(viewer.frames)
        await eventually(lambda: len(viewer.frames) > count + 5, what="frames go on")
        assert await post_alert(there, stream, "new") == 202
        await viewer.find("alert", id="new")
        await camera.find("alert", id="new")
        assert [link._membership.attempt for link in gateway_links(started, 0)] == before, "nobody greeted it"
        assert all(link.live and link.epoch == new.epoch for link in gateway_links(started, 0))
    assert alerts_of(viewer) == ["new"]
    assert (camera.open, viewer.open) == (True, True)
    assert "offline" not in viewer.statuses[1:]
    ids = viewer.frame_ids
    assert ids == sorted(set(ids)), "frame ids rise"
    await old.stop()


async def test_two_holders_of_one_stream_come_to_one_and_the_later_claim_holds(in_one_process, clients):
    """A gateway that is cut off with the former router keeps its camera, until it hears of the successor."""
    started = await in_one_process(gateways=2)
    here, there = started.urls
    ann, stream = started.token("ann"), CAMS[0]
    first = await clients.camera(here, ann)
    await first.register(stream)
    old = started.slot_routers[0]
    (old_end,) = started.bus.routers[0]
    (alone,) = (link._transport for link in gateway_links(started, 0)[:1])
    started.bus.passes = lambda router, member: (router is old_end) == (member is alone) or member.slot != 0
    new = await started.start_slot(0)
    await eventually(lambda: gateway_links(started, 0)[1].epoch == new.epoch)
    second = await clients.camera(there, ann)
    await second.register(stream)
    async with first.streaming(20), second.streaming(20):
        near, far = await clients.viewer(here, ann), await clients.viewer(there, ann)
        await near.subscribe(stream)
        await far.subscribe(stream)
        await near.frame()
        await far.frame()
        started.bus.passes = lambda _router, _member: True  # healed, with both routers alive
        assert (await first.find("error", code="STREAM_TAKEN_OVER"))["code"] == "STREAM_TAKEN_OVER"
        count = len(near.frames)
        await eventually(lambda: len(near.frames) > count + 3, what="the frames of the holder come")
        assert near.frame_ids == sorted(set(near.frame_ids))
    assert all(link.epoch == new.epoch for link in gateway_links(started, 0))
    await old.stop()


async def test_an_id_stays_its_owners_when_the_records_of_its_slot_are_lost(in_one_process, clients):
    started = await in_one_process()
    camera = await clients.camera(started.url, started.token("ann"))
    await camera.register(CAMS[1])
    await camera.leave()
    await eventually(lambda: not started.gateways[0]._link.hub.publication(CAMS[1]))
    await started.stop_slot(1)
    router = await started.start_slot(1, records="empty")
    await joined(started, 1, router.epoch)
    stranger = await clients.camera(started.url, started.token("bob"))
    await stranger.send("register", clientType="mobile", produces=["video-frame"], streamId=CAMS[1])
    assert (await stranger.find("error"))["code"] == "UNAUTHORIZED"


async def test_the_end_of_shares_is_not_taken_from_a_missing_slot(in_one_process, clients):
    started = await in_one_process(ROUTER_TIMEOUT_S="1")
    ann = started.token("ann")
    tokens, ends = {}, {}
    for stream in CAMS[:2]:
        camera = await clients.camera(started.url, ann)
        await camera.register(stream)
        made = await http(f"{started.url}/streams/{stream}/shares", method="POST", token=ann, body={"seconds": 600})
        tokens[stream], ends[stream] = made.json["token"], made.headers["location"]
    viewers = [await clients.viewer(started.url, token) for token in tokens.values()]
    for viewer, stream in zip(viewers, tokens, strict=True):
        await viewer.subscribe(stream, consumes=["video-frame"])
    await started.stop_slot(0)
    await eventually(lambda: not gateway_links(started, 0)[0].live)
    assert (await http(f"{started.url}/streams", token=tokens[CAMS[1]])).status == 200, "its slot is there"
    assert (await http(f"{started.url}/streams", token=tokens[CAMS[0]])).status == 503
    counts = started.gateways[0]._context.metrics.values
    before = counts.get(metric_names.REVALIDATION_FAILED, 0)
    await eventually(lambda: counts.get(metric_names.REVALIDATION_FAILED, 0) >= before + 2)
    assert all(viewer.open for viewer in viewers)
    ended = await http(f"{started.url}{ends[CAMS[1]]}", method="DELETE", token=ann)
    assert ended.status == 204
    assert await viewers[1].closed() == 4500, "its router says so, whichever other is missing"
    assert viewers[0].open


@pytest.mark.parametrize("seed", range(2))
async def test_alerts_come_once_and_in_order_while_the_routers_of_slots_are_killed(in_one_process, clients, seed):
    started = await in_one_process(gateways=2, ROUTER_TIMEOUT_S="3", STREAM_ACCESS="authenticated")
    chance = random.Random(seed)
    ann = started.token("ann")
    viewers: list[tuple[str, Viewer]] = []
    for stream in CAMS:
        for url in started.urls:
            viewer = await clients.viewer(url, ann)
            await viewer.subscribe(stream, consumes=["alert"])
            viewers.append((stream, viewer))
    accepted: dict[str, list[str]] = {stream: [] for stream in CAMS}
    over = False

    async def raise_alerts(stream: str) -> None:
        number, refused = 0, False
        while refused or not over:  # one that was refused is posted again: a router may have accepted it all the same
            name = f"{stream}-{number}"
            refused = await post_alert(chance.choice(started.urls), stream, name) != 202
            if not refused:
                accepted[stream].append(name)
                number += 1
            await asyncio.sleep(chance.uniform(0, 0.05))

    tasks = [asyncio.create_task(raise_alerts(stream)) for stream in CAMS]
    for _ in range(6):
        await asyncio.sleep(chance.uniform(0.1, 0.5))
        slot = chance.randrange(SLOTS)
        if chance.random() < 0.5:  # the successor comes before the former one has ended
            former = started.slot_routers[slot]
            await started.start_slot(slot)
            await asyncio.sleep(chance.uniform(0, 0.1))
            await former.stop()
        else:
            await started.stop_slot(slot)
            await asyncio.sleep(chance.uniform(0, 0.5))
            await started.start_slot(slot)
    await eventually(lambda: all(len(names) > 5 for names in accepted.values()), what="alerts of each stream")
    over = True
    await asyncio.gather(*tasks)
    for stream, viewer in viewers:
        await eventually(lambda s=stream, v=viewer: len(alerts_of(v)) >= len(accepted[s]), what=f"alerts of {stream}")
        assert alerts_of(viewer) == accepted[stream], "each once, in the order of their acceptance"


async def test_alerts_of_a_bridge_wait_for_their_slot_and_no_other(
    one_process: OneProcess,
    clients: Clients,
    stub: MlStub,  # noqa: F811
) -> None:
    ann = one_process.token("ann")
    stub.mode = "answer"
    viewers = {}
    for stream in CAMS[:2]:
        viewers[stream] = await clients.viewer(one_process.url, ann)
        await viewers[stream].subscribe(stream)
    await one_process.start_bridge(stub.url, ALERT_COOLDOWN_S="0.2")
    lost, kept = CAMS[0], CAMS[1]
    cameras = {stream: await clients.camera(one_process.url, ann) for stream in CAMS[:2]}
    for stream, camera in cameras.items():
        await camera.register(stream)
    async with cameras[lost].streaming(10), cameras[kept].streaming(10):
        for viewer in viewers.values():
            await viewer.find("alert")
        await one_process.stop_slot(0)
        await eventually(lambda: not gateway_links(one_process, 0)[0].live)
        count, waiting = len(alerts_of(viewers[kept])), len(alerts_of(viewers[lost]))
        await eventually(lambda: len(alerts_of(viewers[kept])) > count + 3, what="the other slot's alerts go on")
        await one_process.start_slot(0)
        await eventually(lambda: len(alerts_of(viewers[lost])) > waiting, what="what waited comes")
    for viewer in viewers.values():
        assert len(set(alerts_of(viewer))) == len(alerts_of(viewer))


def shift_routers(monkeypatch: pytest.MonkeyPatch, by_ms: int) -> None:
    """Let the clock of all routers be wrong."""

    def now_ms() -> int:
        return clock.now_ms() + by_ms

    def both() -> tuple[float, int]:
        monotonic, wall = clock.both()
        return monotonic, wall + by_ms

    wrong = SimpleNamespace(now_ms=now_ms, both=both)
    shifted = 0
    for name, module in list(sys.modules.items()):
        if name.startswith("watchout.router") and hasattr(module, "clock"):
            monkeypatch.setattr(module, "clock", wrong)
            shifted += 1
    assert shifted > 3


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_a_router_whose_clock_is_wrong_by_minutes_is_understood(in_one_process, clients, monkeypatch, minutes):
    shift_routers(monkeypatch, minutes * 60_000)
    started = await in_one_process(gateways=2)
    here, there = started.urls
    ann, stream = started.token("ann"), CAMS[2]
    began = clock.now_ms()
    camera = await clients.camera(here, ann)
    await camera.register(stream)
    await camera.show()

    async def with_a_frame() -> Any:
        (row,) = (await http(f"{there}/streams", token=ann)).json["streams"]
        return row if row["lastFrameAt"] else None

    row = await eventually(with_a_frame)
    assert abs(row["startedAt"] - began) < 5_000
    assert abs(row["lastFrameAt"] - began) < 5_000
    uptimes = [each["uptime"] for each in (await started.stats())["streams"]]
    assert uptimes[0] < 30
    # Recent alerts by time, and the recovery of a viewer.
    assert await post_alert(there, stream, "before") == 202
    await asyncio.sleep(0.3)
    middle = clock.now_ms()
    await asyncio.sleep(0.3)
    standing = await clients.viewer(there, ann)
    await standing.subscribe(stream, consumes=["alert"])
    assert await post_alert(here, stream, "after") == 202
    await standing.find("alert", id="after")
    for query in (f"since={middle}", f"since={middle}&streamId={stream}"):
        found = (await http(f"{there}/alerts?{query}", token=ann)).json["alerts"]
        assert [alert["id"] for alert in found] == ["after"], query
    back = await clients.viewer(there, ann)
    await back.send("subscribe", clientType="dashboard", consumes=["alert"], streamId=stream, alertsSince=middle)
    assert (await back.find("success", message="Subscription successful"))["recovered"] is True
    assert (await back.find("alert"))["id"] == "after"
    # An acknowledgement, by the clock here.
    await back.send("acknowledge", streamId=stream, alertId="after")
    told = await standing.find("alert-acknowledged")
    assert abs(told["timestamp"] - clock.now_ms()) < 5_000
    # What the former router accepted comes from its successor, whose clock is wrong the other way: to those who were
    # there, once, and to nobody who came later.
    late = await clients.viewer(there, ann)
    await late.subscribe(stream, consumes=["alert"])
    shift_routers(monkeypatch, -minutes * 60_000)
    await started.stop_slot(2)
    router = await started.start_slot(2, records="others")
    await joined(started, 2, router.epoch)
    assert await post_alert(here, stream, "last") == 202
    for viewer, expected in ((standing, ["after", "last"]), (back, ["after", "last"]), (late, ["last"])):
        await viewer.find("alert", id="last")
        assert alerts_of(viewer) == expected
    found = (await http(f"{there}/alerts?since={middle}", token=ann)).json["alerts"]
    assert [alert["id"] for alert in found] == ["after", "last"]
    # A share ends after its time.
    made = (
        await http(f"{here}/streams/{stream}/shares", method="POST", token=ann, body={"seconds": 60})
    ).json  # fmt: skip
    assert abs(made["endsAt"] - clock.now_ms() - 60_000) < 5_000
    guest = await clients.viewer(there, made["token"])
    await guest.subscribe(stream, consumes=["video-frame"])
