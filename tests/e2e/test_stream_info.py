"""What a camera says of itself, through real gateways and a real router: who is told, and when."""

from __future__ import annotations

from typing import Any

from tests.kit.clients import eventually, http


async def infos(url: str, token: str) -> dict[str, Any]:
    """What `GET /streams` shows of each stream."""
    streams = (await http(f"{url}/streams", token=token)).json["streams"]
    return {stream["id"]: stream.get("info") for stream in streams}


async def test_the_info_of_a_camera_is_shown_on_every_gateway_until_it_leaves(in_one_process, clients):
    started = await in_one_process(gateways=2)
    here, there = started.urls
    token, info = started.token(), {"deviceName": "Door \u00fc", "deviceType": "phone", "more": [1, {"x": None}]}
    waiting = await clients.viewer(there, token)
    await waiting.subscribe("cam")
    camera = await clients.camera(here, token)
    await camera.register("cam", info=info, produces=[])
    assert (await waiting.find("status", status="online"))["info"] == info
    for url in (here, there):
        viewer = await clients.viewer(url, token)
        await viewer.send("subscribe", streamId="cam", consumes=["alert"])
        await viewer.expect("success")
        assert (await viewer.expect("status"))["info"] == info
        await viewer.send("subscribe", streamId="cam")
        await viewer.expect("success")
        assert (await viewer.expect("status"))["info"] == info
        assert await infos(url, token) == {"cam": info}
    await started.stop_router()
    await started.start_router()
    await started.healthy()

    async def is_known() -> bool:
        return await infos(there, token) == {"cam": info}

    await eventually(is_known)
    assert [message["status"] for message in waiting.heard if "info" in message] == ["online"], "once"
    await camera.register("cam", info={"n": 2}, produces=[])
    assert (await waiting.find("status"))["info"] == {"n": 2}
    taking = await clients.camera(there, token)
    await taking.register("cam", produces=[], info={"n": 3})
    assert (await waiting.find("status"))["info"] == {"n": 3}
    await taking.register("cam", produces=[])
    assert (await waiting.find("status"))["info"] == {}
    assert await infos(here, token) == {"cam": None}
    await taking.leave()
    assert "info" not in await waiting.find("status", status="offline")


async def test_an_info_over_4_kib_is_refused_and_says_so(one_process, clients):
    token = one_process.token()
    camera = await clients.camera(one_process.url, token)
    await camera.send("register", streamId="cam", info={"a": "x" * 4096}, requestId="r")
    refused = await camera.expect("error", code="INVALID_MESSAGE", streamId="cam", requestId="r")
    assert "4096" in refused["message"]
    await camera.send("register", streamId="cam", info="text")
    await camera.expect("error", code="INVALID_MESSAGE", streamId="cam")
    assert await infos(one_process.url, token) == {}
    await camera.register("cam", info={"a": "x" * 4088})
    assert (await infos(one_process.url, token))["cam"] == {"a": "x" * 4088}


async def test_an_odd_info_does_not_keep_the_list_of_streams_from_anybody(one_process, clients):
    token = one_process.token()
    for number, info in enumerate(('{"s":"\\ud83d"}', '{"\\ud83d":1e400}', '{"a":' + "[" * 99 + "]" * 99 + "}")):
        camera = await clients.camera(one_process.url, token)
        register = '{"type":"register","streamId":"cam%d","requestId":"r","info":'
        await camera.send_raw(register % number + info + "}")
        answer = await camera.expect("error" if "1e400" in info else "success", requestId="r")
        assert camera.open, answer
    listed = await infos(one_process.url, token)
    assert listed["cam0"] == {"s": "\ud83d"}
    assert sorted(listed) == ["cam0", "cam2"]
