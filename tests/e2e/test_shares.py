"""Shared streams as owners and viewers see them: a view-only token for one stream, until it ends or is ended."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.parse
from typing import Any

import pytest

from tests.kit.clients import JPEG, base64_of, eventually, http, new_name
from tests.kit.processes import SERVICE_TOKEN

PAGE = "https://app.example"


async def share(url: str, token: str, stream: str, **wish: Any) -> Any:
    body = {"seconds": 600, **wish}
    answer = await http(f"{url}/streams/{stream}/shares", method="POST", token=token, body=body)
    assert answer.status == 201, answer
    assert answer.headers["location"] == f"/streams/{stream}/shares/{answer.json['id']}"
    return answer.json


async def shares_of(url: str, token: str, stream: str) -> list[Any]:
    answer = await http(f"{url}/streams/{stream}/shares", token=token)
    assert answer.status == 200
    return list(answer.json["shares"])


async def refused(client: Any, type: str, **fields: Any) -> None:
    await client.send(type, **fields)
    assert (await client.find("error"))["code"] == "UNAUTHORIZED"


async def raise_alert(url: str, stream: str) -> None:
    alert = {"id": "a1", "streamId": stream, "severity": "low", "message": "m"}
    assert (await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)).status == 202


async def test_a_share_views_its_one_stream_by_message_header_and_query_and_nothing_else(in_one_process, clients):
    started = await in_one_process(gateways=2, STREAM_ACCESS="authenticated")
    here, there = started.urls
    ann = started.token("ann")
    camera, other = await clients.camera(here, ann), await clients.camera(here, ann)
    await camera.register("cam")
    await other.register("cam2")
    for each in (camera, other):
        await each.show(base64_of(JPEG))
    made = await share(here, ann, "cam", alerts=False)
    token = made["token"]
    assert {name: made[name] for name in ("streamId", "alerts")} == {"streamId": "cam", "alerts": False}
    assert made["endsAt"] - made["createdAt"] == 600_000
    assert "ann" not in token
    for by in ("message", "header", "query"):
        viewer = await clients.viewer(there, token, by)
        await viewer.subscribe("cam", consumes=["video-frame"])
        await viewer.frame(streamId="cam")
        await refused(viewer, "subscribe", streamId="cam2", consumes=["video-frame"])
        await refused(viewer, "subscribe", streamId="cam", consumes=["alert"])
    assert [row["id"] for row in (await http(f"{there}/streams?token={token}")).json["streams"]] == ["cam"]
    assert (await http(f"{there}/streams/cam/frame.jpg", token=token)).body == JPEG
    assert (await http(f"{there}/streams/cam2/frame.jpg", token=token)).status == 404
    await raise_alert(here, "cam")
    assert (await http(f"{there}/alerts?streamId=cam", token=token)).status == 404
    assert (await http(f"{there}/alerts", token=token)).json["alerts"] == []
    # Not to publish, to acknowledge or to share further.
    publisher = await clients.camera(there, token)
    await refused(publisher, "register", streamId="cam", produces=["video-frame"])
    await refused(publisher, "register", streamId="new", produces=["video-frame"])
    await refused(viewer, "acknowledge", streamId="cam", alertId="a1")
    for method, path in (("POST", ""), ("GET", ""), ("DELETE", f"/{made['id']}")):
        answer = await http(f"{there}/streams/cam/shares{path}", method=method, token=token, body={"seconds": 5})
        assert (answer.status, answer.error) == (403, "UNAUTHORIZED")
    for wrong in (token[:-1] + ("A" if token[-1] != "A" else "B"), token[:-43] + "A" * 43, f"wos1_{'A' * 65}"):
        assert (await http(f"{there}/streams", token=wrong)).status == 401


async def test_a_share_with_alerts_gets_them_and_may_not_acknowledge(one_process, clients):
    ann = one_process.token("ann")
    camera = await clients.camera(one_process.url, ann)
    await camera.register("cam")
    token = (await share(one_process.url, ann, "cam", alerts=True))["token"]
    viewer = await clients.viewer(one_process.url, token)
    await viewer.subscribe("cam")
    await raise_alert(one_process.url, "cam")
    await viewer.find("alert", id="a1")
    await refused(viewer, "acknowledge", streamId="cam", alertId="a1")
    assert [alert["id"] for alert in (await http(f"{one_process.url}/alerts", token=token)).json["alerts"]] == ["a1"]


async def test_an_ended_share_closes_its_sockets_on_every_gateway_and_no_other(in_one_process, clients):
    started = await in_one_process(gateways=2, RECHECK_S="3600")  # sessions; shares are looked at each second
    here, there = started.urls
    ann = started.token("ann")
    camera = await clients.camera(here, ann)
    await camera.register("cam")
    first, second = [await share(here, ann, "cam") for _ in range(2)]
    viewers = [await clients.viewer(url, first["token"]) for url in (here, there)]
    stays = await clients.viewer(there, second["token"])
    for each in (*viewers, stays):
        await each.subscribe("cam", consumes=["video-frame"])
    listed = await shares_of(there, ann, "cam")
    assert [row["id"] for row in listed] == [first["id"], second["id"]]
    assert not any("token" in row for row in listed)
    answer = await http(f"{there}/streams/cam/shares/{first['id']}", method="DELETE", token=ann)
    assert (answer.status, answer.body) == (204, b"")
    for each in viewers:
        await each.find("error", code="SESSION_ENDED")
        assert await each.closed() == 4500
    assert (await http(f"{there}/streams", token=first["token"])).status == 401
    again = await http(f"{there}/streams/cam/shares/{first['id']}", method="DELETE", token=ann)
    assert (again.status, again.error) == (404, "NOT_FOUND")
    assert stays.open
    assert (await http(f"{here}/streams", token=second["token"])).status == 200


async def test_a_share_ends_when_its_time_is_over(one_process, clients, monkeypatch):
    ann = one_process.token("ann")
    camera = await clients.camera(one_process.url, ann)
    await camera.register("cam")
    made = await share(one_process.url, ann, "cam", seconds=600)
    viewer = await clients.viewer(one_process.url, made["token"])
    await viewer.subscribe("cam", consumes=["video-frame"])
    assert (await http(f"{one_process.url}/streams", token=made["token"])).status == 200
    clock_s, clock_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: clock_s() + 600)
    monkeypatch.setattr(time, "time_ns", lambda: clock_ns() + 600 * 10**9)
    await viewer.find("error", code="SESSION_ENDED")
    assert await viewer.closed() == 4500
    assert (await http(f"{one_process.url}/streams", token=made["token"])).status == 401
    assert await shares_of(one_process.url, ann, "cam") == []


async def test_only_the_owner_shares_and_a_share_is_void_when_the_stream_is_somebody_elses(in_one_process, clients):
    started = await in_one_process(STREAM_RESERVED_S="0", STREAM_ACCESS="authenticated")
    ann, bob = started.token("ann"), started.token("bob")
    camera = await clients.camera(started.url, ann)
    await camera.register("cam")
    made = await share(started.url, ann, "cam")
    path = f"{started.url}/streams/cam/shares"
    for method, where in (("POST", path), ("GET", path), ("DELETE", f"{path}/{made['id']}")):
        answer = await http(where, method=method, token=bob, body={"seconds": 5})
        assert (answer.status, answer.error) == (403, "UNAUTHORIZED"), "bob may view it, and knows it"
        assert (await http(where, method=method, body={"seconds": 5})).status == 401
        assert (await http(where.replace("cam", "none"), method=method, token=ann, body={"seconds": 5})).status == 404
    await camera.leave()
    viewer = await clients.viewer(started.url, made["token"])
    await viewer.subscribe("cam", consumes=["video-frame"])
    new_owner = await clients.camera(started.url, bob)
    await new_owner.register("cam")
    await viewer.find("error", code="UNAUTHORIZED", streamId="cam")
    await new_owner.show(base64_of(JPEG))
    assert (await http(f"{started.url}/streams/cam/frame.jpg", token=made["token"])).status == 404
    assert (await http(f"{started.url}/streams", token=made["token"])).json["streams"] == []
    assert viewer.frames == []


async def test_what_is_wrong_with_a_request_is_said(in_one_process, clients):
    started = await in_one_process(SHARES_PER_STREAM="2", SHARE_MAX_S="3600")
    ann = started.token("ann")
    camera = await clients.camera(started.url, ann)
    await camera.register("cam")
    path = f"{started.url}/streams/cam/shares"
    for body in (
        b"", b"{", [], {}, {"seconds": 0}, {"seconds": -1}, {"seconds": 3601}, {"seconds": 1.5}, {"seconds": "60"},
        {"seconds": True}, {"seconds": 60, "alerts": "yes"}, {"seconds": 10**30},
    ):  # fmt: skip
        answer = await http(path, method="POST", token=ann, body=body)
        assert (answer.status, answer.error) == (400, "INVALID_MESSAGE"), body
        assert "3600" in answer.json["error"]["message"]
    assert (await http(path, method="POST", token=ann, body=b" " * 5000 + b"{}")).status == 413
    await share(started.url, ann, "cam", seconds=60.0, unknown=1)
    await share(started.url, ann, "cam", seconds=3600)
    answer = await http(path, method="POST", token=ann, body={"seconds": 60})
    assert (answer.status, answer.error) == (409, "TOO_MANY_SHARES")
    at_once = [http(path, method="POST", token=ann, body={"seconds": 60}) for _ in range(50)]
    answer = max(await asyncio.gather(*at_once), key=lambda answer: answer.status)
    assert (answer.status, answer.error) == (429, "RATE_LIMITED")
    assert int(answer.headers["retry-after"]) >= 1
    for method, where, allow in (("PUT", path, "GET, HEAD, POST"), ("GET", f"{path}/x", "DELETE")):
        answer = await http(where, method=method, token=ann)
        assert (answer.status, answer.headers["allow"]) == (405, allow)
    off = await in_one_process(SHARE_MAX_S="0")
    token = off.token("ann")
    camera = await clients.camera(off.url, token)
    await camera.register("cam")
    answer = await http(f"{off.url}/streams/cam/shares", method="POST", token=token, body={"seconds": 1})
    assert (answer.status, "SHARE_MAX_S" in answer.json["error"]["message"]) == (403, True)


async def test_pages_of_allowed_origins_may_share_and_a_cookie_counts_for_no_other(in_one_process, clients):
    started = await in_one_process(ALLOWED_ORIGINS=PAGE)
    ann = started.token("ann")
    camera = await clients.camera(started.url, ann)
    await camera.register("cam")
    path = f"{started.url}/streams/cam/shares"
    preflight = await http(path, method="OPTIONS", headers={"Origin": PAGE, "Access-Control-Request-Method": "POST"})
    assert preflight.status == 204
    assert "POST" in preflight.headers["access-control-allow-methods"]
    preflight = await http(
        f"{path}/x", method="OPTIONS", headers={"Origin": PAGE, "Access-Control-Request-Method": "DELETE"}
    )
    assert preflight.headers["access-control-allow-methods"] == "DELETE"
    alerts = await http(
        f"{started.url}/alerts", method="OPTIONS", headers={"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    )
    assert "POST" not in alerts.headers["access-control-allow-methods"], "those are for services"
    cookie = {"Cookie": f"better-auth.session_token={urllib.parse.quote(ann)}.{'A' * 43}="}
    for headers, status in (
        ({"Origin": PAGE}, 201),
        ({"Origin": "https://evil.example"}, 401),
        ({"Origin": "null"}, 401),
        ({}, 401),
        ({"Sec-Fetch-Site": "same-origin"}, 401),
        ({"Referer": f"{PAGE}/x"}, 401),
    ):
        answer = await http(path, method="POST", body={"seconds": 5}, headers={**cookie, **headers})
        assert answer.status == status, (headers, answer.body)
    assert (await http(path, headers={**cookie, "Referer": f"{PAGE}/x"})).status == 200


async def test_shares_that_cannot_be_stored_are_not_made_and_the_router_being_away_closes_no_socket(
    one_process, clients
):
    ann = one_process.token("ann")
    camera = await clients.camera(one_process.url, ann)
    await camera.register("cam")
    made = await share(one_process.url, ann, "cam")
    viewer = await clients.viewer(one_process.url, made["token"])
    await viewer.subscribe("cam", consumes=["video-frame"])
    await one_process.stop_router()
    late = await clients.viewer(one_process.url, None)
    await late.send("auth", token=made["token"])
    assert (await late.find("error"))["code"] == "AUTH_UNAVAILABLE"
    assert await late.closed() == 1013
    file = one_process.home / "shares.db"
    file.rename(one_process.home / "shares.away")
    file.mkdir()
    await one_process.start_router()
    await one_process.healthy()
    # Without its file the router knows no share: the one that was is over.
    await viewer.find("error", code="SESSION_ENDED")
    path = f"{one_process.url}/streams/cam/shares"
    answer = await http(path, method="POST", token=ann, body={"seconds": 60})
    assert (answer.status, answer.error) == (503, "ROUTING_ERROR")
    assert await shares_of(one_process.url, ann, "cam") == []
    file.rmdir()
    assert (await share(one_process.url, ann, "cam"))["streamId"] == "cam"


async def both_joined(url: str) -> bool:
    """Whether the router knows two gateways: it may be asked of either."""
    return (await http(f"{url}/health")).status == 200 and len(set(await gateways_of(url))) == 2


async def gateways_of(url: str) -> list[str]:
    """The names of the gateways of which the router knows the figures."""
    page = (await http(f"{url}/metrics")).body.decode()
    return re.findall(r'^watchout_sockets\{process="(gateway[^"]*)"\}', page, re.MULTILINE)


@pytest.mark.e2e
async def test_shares_and_their_ends_survive_a_restart_of_every_process(watchout, clients):
    started = watchout(gateways=2)
    ann = started.token("ann")
    stream = new_name()
    camera = await clients.camera(started.url, ann)
    await camera.register(stream)
    kept, ended = [await share(started.url, ann, stream) for _ in range(2)]
    answer = await http(f"{started.url}/streams/{stream}/shares/{ended['id']}", method="DELETE", token=ann)
    assert answer.status == 204
    for process in started.processes:
        process.kill()
    again = [started.start(name) for name in ("router", "gateway", "gateway")]
    for process in again:
        await asyncio.to_thread(process.wait_for_output, f"{process.name} ready")
    await eventually(lambda: both_joined(started.url), what="the gateways have not joined the router again")
    back = await clients.camera(started.url, ann)
    await back.register(stream)
    async with back.streaming(10):
        viewer = await clients.viewer(started.url, kept["token"])
        await viewer.subscribe(stream, consumes=["video-frame"])
        await viewer.frame(streamId=stream)
    assert (await http(f"{started.url}/streams", token=ended["token"])).status == 401
    assert [row["id"] for row in await shares_of(started.url, ann, stream)] == [kept["id"]]
    home = started.home
    for name in ("shares.db", "share.key"):
        assert (home / name).stat().st_mode & 0o777 == 0o600, name
    secret = kept["token"][-43:].encode()
    assert secret not in (home / "shares.db").read_bytes()
    assert not any(kept["token"][-20:] in process.output for process in started.processes)


async def test_a_router_of_the_release_before_is_asked_nothing_that_it_does_not_know(
    in_one_process, clients, monkeypatch
):
    monkeypatch.setattr("watchout.router.outbox.LEVEL", 0)
    started = await in_one_process()
    ann = started.token("ann")
    camera = await clients.camera(started.url, ann)
    await camera.register("cam")
    for method, path in (("POST", ""), ("GET", ""), ("DELETE", "/" + "a" * 22)):
        where = f"{started.url}/streams/cam/shares{path}"
        answer = await http(where, method=method, token=ann, body={"seconds": 5})
        assert (answer.status, answer.error) == (503, "ROUTING_ERROR")
    token = started.gateways[0]._context.share_tokens.token_of("a" * 22)
    assert (await http(f"{started.url}/streams", token=token)).error == "AUTH_UNAVAILABLE"
    assert started.gateways[0]._link.links.bad_messages == 0
    router = (await started.ask()).router
    assert not router.metrics.get("bus_bad_messages_total"), "a message that it does not know costs a membership"
