"""The window of a camera, through a real gateway and router: which frames are acknowledged, and how."""

from __future__ import annotations

import json
import math

from tests.kit.clients import BINARY, JPEG, TEXT, now_ms, pack_frame, web_socket_frame


async def test_a_camera_with_a_window_gets_its_frames_acknowledged(one_process, clients):
    camera = await clients.camera(one_process.url, one_process.token())
    await camera.register("cam", window=2)
    await camera.show(timestamp=1_000)
    await camera.expect("ack", streamId="cam", frameId=1, timestamp=1_000, received=1)
    await camera.show_binary(timestamp=2_000)
    await camera.expect("ack", streamId="cam", frameId=2, timestamp=2_000, received=2)
    await camera.show_binary(b"opaque", timestamp=3_000, codec=0)
    await camera.expect("ack", frameId=3, timestamp=3_000)
    await camera.show("data:image/jpeg;base64,\\u002f9j/", timestamp=4_000, rotation=90)
    await camera.expect("ack", frameId=4, timestamp=4_000)
    before = now_ms()
    await camera.show()
    assert before <= (await camera.expect("ack", frameId=5))["timestamp"] <= now_ms(), "the server's own time"
    await camera.show("no base64!", timestamp=5_000)
    await camera.expect("ack", frameId=6, timestamp=5_000, received=6)


async def test_a_refused_frame_does_not_stall_the_window(one_process, clients):
    camera = await clients.camera(one_process.url, one_process.token())
    await camera.register("cam", window=1)
    await camera.show(streamId="other", timestamp=1_000)
    await camera.expect("error", code="UNAUTHORIZED", streamId="other")
    await camera.expect("ack", streamId="cam", frameId=0, timestamp=1_000, received=1)
    await camera.send_raw(b"\x57\x09")
    await camera.expect("error", code="INVALID_MESSAGE", streamId="cam")
    await camera.expect("ack", frameId=0, received=2)
    await camera.send_raw(json.dumps({"type": "video-frame", "data": "AAAA", "score": math.nan, "timestamp": 2_000}))
    await camera.expect("error", code="INVALID_MESSAGE", streamId="cam")
    await camera.expect("ack", frameId=0, timestamp=2_000, received=3)
    await camera.send_raw(pack_frame(JPEG, stream_id="other", timestamp=2_500))
    await camera.expect("error", code="UNAUTHORIZED", streamId="other")
    await camera.expect("ack", frameId=0, timestamp=2_500, received=4)
    await camera.show(timestamp=3_000)
    await camera.expect("ack", frameId=1, timestamp=3_000, received=5)


async def test_frames_over_the_rate_are_acknowledged_too(in_one_process, clients):
    started = await in_one_process(MESSAGE_RATE="5")
    camera = await clients.camera(started.url, started.token())
    await camera.register("cam", window=1)
    for number in range(1, 31):  # as a camera with a window does: one after the other
        await camera.show(timestamp=number)
        await camera.find("ack", timestamp=number, received=number)
    assert [message.get("code") for message in camera.heard].count("RATE_LIMITED") >= 1


async def test_one_message_acknowledges_the_frames_of_one_read(one_process, clients):
    token = one_process.token()
    viewer = await clients.viewer(one_process.url, token)
    await viewer.subscribe("cam")
    raw = await clients.raw(one_process.url)
    await raw.upgrade("/streams/register")
    await raw.sign_in(token)
    body = {"type": "register", "streamId": "cam", "produces": ["video-frame"], "window": 32}
    await raw.send(web_socket_frame(TEXT, json.dumps(body).encode()))
    await raw.json("success")
    frames = [web_socket_frame(BINARY, pack_frame(JPEG, timestamp=number)) for number in range(1, 21)]
    await raw.send(b"".join(frames))
    acks = [await raw.json("ack")]
    while acks[-1]["received"] < 20:
        acks.append(await raw.json("ack"))
    assert (acks[-1]["frameId"], acks[-1]["timestamp"]) == (20, 20)
    assert len(acks) < 20
    assert [ack["timestamp"] for ack in acks] == sorted({ack["timestamp"] for ack in acks})
    await viewer.frame(frameId=20)


async def test_a_window_holds_until_the_next_registration(one_process, clients):
    camera = await clients.camera(one_process.url, one_process.token())
    await camera.register("cam")
    await camera.show(timestamp=1)
    await camera.register("cam", window=2)
    await camera.show(timestamp=2)
    await camera.expect("ack", frameId=2, timestamp=2, received=1)
    await camera.register("other", window=2)
    for number in range(3, 9):  # more than the window: the server does not mind
        await camera.show(timestamp=number)
    await camera.find("ack", streamId="other", timestamp=8, received=7)
    await camera.register("other")
    await camera.show(timestamp=9)
    assert "ack" not in [message["type"] for message in await camera.rest()]
