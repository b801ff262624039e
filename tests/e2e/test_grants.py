"""Grants in JWTs as clients see them: just these rights, on every path, whoever owns the stream."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
import pytest

from tests.kit.clients import JPEG, TEXT, base64_of, eventually, http, web_socket_frame
from tests.kit.one_process import OneProcess
from tests.kit.processes import SERVICE_TOKEN
from watchout.common.toolbox import wildcards

SECRET = "a-canary-that-is-shared-by-two-parties-and-64-characters-long-ok"


def token_of(user: str, claim: Any = None, **more: Any) -> str:
    payload = {"sub": user, "exp": int(time.time()) + 600, **more}
    if claim is not None:
        payload["watchout"] = claim
    return jwt.encode(payload, SECRET, algorithm="HS256")


@pytest.fixture
async def started(in_one_process) -> OneProcess:
    made: OneProcess = await in_one_process(gateways=2, JWT_SECRET=SECRET)
    return made


async def refused(client: Any, type: str, **fields: Any) -> str:
    await client.send(type, **fields)
    error = await client.find("error")
    assert error["code"] == "UNAUTHORIZED", error
    return str(error["message"])


async def streams_of(url: str, token: str) -> list[str]:
    return sorted(row["id"] for row in (await http(f"{url}/streams", token=token)).json["streams"])


async def test_view_and_alerts_are_granted_apart_on_sockets_and_over_http(started, clients):
    here, there = started.urls
    camera = await clients.camera(here, token_of("ann"))
    await camera.register("site-1")
    other = await clients.camera(here, token_of("ann"))
    await other.register("house-1")
    for each in (camera, other):
        await each.show(base64_of(JPEG))
    alert = {"id": "a1", "streamId": "site-1", "severity": "low", "message": "m"}
    for stream in ("site-1", "house-1"):
        body = {**alert, "streamId": stream}
        assert (await http(f"{here}/alerts", method="POST", token=SERVICE_TOKEN, body=body)).status == 202
    watching, guard = token_of("eve", {"view": ["site-?"]}), token_of("eve", {"alerts": ["site-*"]})
    for url in (here, there):
        assert await streams_of(url, watching) == await streams_of(url, guard) == ["site-1"]
        for path, may in (("streams/site-1/frame.jpg", (200, 404)), ("streams/house-1/frame.jpg", (404, 404)),
                          ("alerts?streamId=site-1", (404, 200)), ("alerts?streamId=house-1", (404, 404))):  # fmt: skip
            got = [(await http(f"{url}/{path}", token=token)).status for token in (watching, guard)]
            assert tuple(got) == may, path
        found = (await http(f"{url}/alerts?limit=1", token=guard)).json["alerts"]
        assert [(each["id"], each["streamId"]) for each in found] == [("a1", "site-1")], "others do not fill the limit"
        assert (await http(f"{url}/alerts", token=watching)).json["alerts"] == []
        assert (await http(f"{url}/streams/house-1/mjpeg", method="HEAD", token=watching)).status == 404
        assert (await http(f"{url}/streams/site-1/mjpeg", method="HEAD", token=watching)).status == 200
        viewer = await clients.viewer(url, watching)
        assert "alert" in await refused(viewer, "subscribe", streamId="site-1", consumes=["video-frame", "alert"])
        assert "token" in await refused(viewer, "subscribe", streamId="house-1", consumes=["video-frame"])
        await viewer.subscribe("site-1", consumes=["video-frame"])
        await viewer.frame(streamId="site-1")
        await refused(viewer, "acknowledge", streamId="site-1", alertId="a1")
        listener = await clients.viewer(url, guard)
        assert "video-frame" in await refused(listener, "subscribe", streamId="site-1", consumes=["video-frame"])
        await listener.subscribe("site-1", consumes=["alert"], alertsSince=0)
        await listener.find("alert", id="a1", streamId="site-1")
        await listener.send("acknowledge", streamId="site-1", alertId="a1")
        await listener.find("success", event="acknowledged")
        publisher = await clients.camera(url, watching)
        await refused(publisher, "register", streamId="site-1", produces=["video-frame"])
        await refused(publisher, "register", produces=["video-frame"])


async def test_a_token_with_the_largest_grants_signs_in_and_one_that_is_too_long_is_told_so(started, clients):
    here, _ = started.urls

    def largest(count: int, **more: Any) -> str:
        names = [f"{number:03}-" + "x" * (wildcards.MAX_PATTERN_CHARS - 4) for number in range(count)]
        return token_of("ann", {"publish": ["door", *names[1:]], "view": ["door", *names[1:]], "alerts": names}, **more)

    whole, part = largest(wildcards.MAX_PATTERNS), largest(14)
    camera = await clients.camera(here, whole)
    await camera.register("door")
    await camera.show(base64_of(JPEG))
    await (await clients.viewer(here, whole)).subscribe("door", consumes=["video-frame"])
    assert await streams_of(here, part) == ["door"]
    assert (await http(f"{here}/streams?token={part}")).status == 200
    for path in ("/streams/register", f"/streams/register?token={part}"):
        raw = await clients.raw(here)
        await raw.upgrade(path, *([f"Authorization: Bearer {part}"] if path.endswith("register") else []))
    assert "first message" in (await http(f"{here}/streams", token=whole)).json["error"]["message"]
    for more in (15_000, 20_000):
        long = largest(wildcards.MAX_PATTERNS, pad="x" * more)
        raw = await clients.raw(here)
        await raw.upgrade("/streams/register")
        await raw.send(web_socket_frame(TEXT, json.dumps({"type": "auth", "token": long}).encode()))
        told = await raw.json("error")
        if more == 15_000:
            assert told["message"] == f"the token has {len(long)} characters, expected at most 49152"
        else:
            assert f"this message has {len(long) + 29} bytes, an `auth` has at most 57344" in told["message"]


async def test_a_grantee_publishes_whoever_owns_the_stream_and_the_owner_keeps_it(started, clients):
    here, there = started.urls
    ann, eve = token_of("ann"), token_of("eve", {"publish": ["site-*"]})
    first = await clients.camera(here, ann)
    await first.register("site-1")
    viewer = await clients.viewer(here, ann)
    await viewer.subscribe("site-1")
    second = await clients.camera(there, eve)
    assert "streamId" in await refused(second, "register", produces=["video-frame"])
    await refused(second, "register", streamId="house", produces=["video-frame"])
    await second.register("site-1", produces=["video-frame", "alert"])
    await first.find("error", code="STREAM_TAKEN_OVER")
    assert await first.closed() == 4501
    await second.show(base64_of(JPEG))
    await viewer.frame(streamId="site-1")
    await second.send("alert", severity="high", message="help")
    await viewer.find("alert", message="help")
    rows = (await http(f"{here}/streams", token=ann)).json["streams"]
    assert [(row["id"], row["userId"]) for row in rows] == [("site-1", "ann")]
    assert await streams_of(here, eve) == [], "publishing is all that is granted"
    # It is reserved for its owner, who takes it over, and for whoever is granted it; nobody else.
    await second.leave()
    stranger = await clients.camera(here, token_of("bob"))
    await refused(stranger, "register", streamId="site-1", produces=["video-frame"])
    again = await clients.camera(there, eve)
    await again.register("site-1")
    back = await clients.camera(here, ann)
    await back.register("site-1")
    assert await again.closed() == 4501
    # A stream that nobody owns is the grantee's.
    fresh = await clients.camera(there, eve)
    await fresh.register("site-9")
    assert await streams_of(here, token_of("eve")) == ["site-9"]


async def test_ownership_survives_a_router_that_comes_back_while_a_grantee_publishes(started, clients):
    here, there = started.urls
    ann = token_of("ann")
    first = await clients.camera(here, ann)
    await first.register("site-1")
    await first.leave()
    camera = await clients.camera(there, token_of("eve", {"publish": ["site-1"]}))
    await camera.register("site-1")
    await started.stop_router()
    await started.start_router()
    await started.healthy()
    await eventually(lambda: streams_of(here, ann), what="the owner does not see the stream")
    assert await streams_of(here, token_of("eve")) == []
    back = await clients.camera(here, ann)
    await back.register("site-1")


async def test_a_malformed_claim_opens_nothing(started, clients):
    for claim in ({"view": "*"}, {"veiw": ["*"]}, [], "x"):
        token = token_of("ann", claim)
        assert (await http(f"{started.url}/streams", token=token)).error == "AUTH_FAILED"
        client = await clients.viewer(started.url, None)
        await client.send("auth", token=token)
        assert (await client.find("error"))["code"] == "AUTH_FAILED"
        assert await client.closed() == 1008
    null = jwt.encode({"sub": "ann", "exp": int(time.time()) + 60, "watchout": None}, SECRET, algorithm="HS256")
    assert (await http(f"{started.url}/streams", token=null)).status == 401


async def test_a_renewal_changes_the_rights_of_an_open_socket_at_once(started, clients):
    ann = token_of("ann")
    for stream in ("site-1", "site-2"):
        camera = await clients.camera(started.url, ann)
        await camera.register(stream)
    viewer = await clients.viewer(started.url, token_of("eve", {"view": ["site-*"]}))
    for stream in ("site-1", "site-2"):
        await viewer.subscribe(stream, consumes=["video-frame"])
    await viewer.send("auth", token=token_of("eve", {"view": ["site-2"]}), renew=True)
    await viewer.find("success", event="authenticated")
    await viewer.find("error", code="UNAUTHORIZED", streamId="site-1")
    publisher = await clients.camera(started.url, token_of("eve", {"publish": ["site-*"]}))
    await publisher.register("site-3")
    await publisher.send("auth", token=token_of("eve", {"publish": ["site-4"]}), renew=True)
    await publisher.find("error", code="UNAUTHORIZED")
    assert "site-3" not in await streams_of(started.url, token_of("root", {"view": ["*"]}))
    assert publisher.open
    assert viewer.open
    await viewer.rest()


async def test_a_token_with_grants_shares_nothing_not_even_the_streams_of_its_user(started, clients):
    camera = await clients.camera(started.url, token_of("ann"))
    await camera.register("site-1")
    path = f"{started.url}/streams/site-1/shares"
    rights = {"publish": ["*"], "view": ["*"], "alerts": ["*"]}
    for method in ("POST", "GET"):
        answer = await http(path, method=method, token=token_of("ann", rights), body={"seconds": 5})
        assert (answer.status, answer.error) == (403, "UNAUTHORIZED")
    assert (await http(path, method="POST", token=token_of("ann"), body={"seconds": 5})).status == 201
