"""PROTOCOL.md section 3: registering a stream, and the frames of publishers."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

import pytest

from tests.contract.protocol.support import REGISTER, SUBSCRIBE, push
from tests.kit.clients import JPEG, PNG, TEXT, base64_of, new_name, now_ms, pack_frame, web_socket_frame

pytestmark = pytest.mark.e2e


async def test_a_generated_stream_id_stands_in_the_answer_and_in_its_text(url, alice, clients):
    ids = set()
    for _ in range(3):
        camera = await clients.camera(url, alice)
        await camera.send("register", clientType="mobile", produces=["video-frame"], consumes=["alert"])
        answer = await camera.next()
        stream = answer["streamId"]
        assert answer == {
            "type": "success", "message": f"Registration successful. Stream ID: {stream}", "event": "registered",
            "streamId": stream,
            "timestamp": answer["timestamp"],
        }  # fmt: skip
        cut_out = re.search(r"Stream ID: (stream_\w+)", answer["message"], re.ASCII)
        assert cut_out is not None
        assert cut_out[1] == stream
        ids.add(stream)
    assert len(ids) == 3


@pytest.mark.parametrize("stream", ["a", "x" * 128, "A-Z_09.b:c", "-", ".", "..", ":"])
async def test_a_client_may_choose_a_stream_id_of_these_characters(url, alice, clients, stream):
    camera = await clients.camera(url, alice)
    assert await camera.register(stream) == stream
    viewer = await clients.viewer(url, alice)
    assert await viewer.subscribe(stream) == "streaming"
    await camera.leave()
    await viewer.status("offline", streamId=stream)


BAD_IDS = ["", "x" * 129, "a b", "a/b", "a\n", "\n", "ä", "a\0", "%61", "a*", 5, [], {"a": 1}]


async def test_a_bad_stream_id_is_an_invalid_message_and_the_socket_stays(url, alice, clients):
    camera = await clients.camera(url, alice)
    viewer = await clients.viewer(url, alice)
    for stream in BAD_IDS:
        await camera.send("register", streamId=stream)
        await camera.expect("error", code="INVALID_MESSAGE")
        for kind in ("subscribe", "unsubscribe"):
            await viewer.send(kind, streamId=stream)
            await viewer.expect("error", code="INVALID_MESSAGE")
    await viewer.send("subscribe")
    await viewer.expect("error", code="INVALID_MESSAGE")
    await camera.register()
    for stream in BAD_IDS:
        await camera.send("video-frame", streamId=stream, data="AAAA")
        await camera.expect("error", code="INVALID_MESSAGE")


async def test_json_frames_reach_json_viewers_with_the_data_unchanged_to_the_byte(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream)
    datas = [
        base64_of(JPEG), f"data:image/jpeg;base64,{base64_of(JPEG)}", "", "not base64 at all!", 'ü≠😀\\"\n\u2028',
        "A" * 300_000, "====",
    ]  # fmt: skip
    for n, data in enumerate(datas, 1):
        await camera.show(data, streamId=stream, timestamp=1000 + n) if data else await camera.send(
            "video-frame", data=""
        )
        frame = await viewer.frame()
        assert frame["data"] == data
        assert (frame["streamId"], frame["frameId"]) == (stream, n)
        if data:
            assert frame["timestamp"] == 1000 + n
            assert frame.keys() == {"type", "streamId", "data", "timestamp", "frameId"}


async def test_escapes_in_the_data_reach_json_viewers_as_they_came(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    raw = await clients.raw(url)
    await raw.upgrade(f"{SUBSCRIBE}?token={alice}")
    wish = json.dumps({"type": "subscribe", "streamId": stream, "consumes": ["video-frame"]})
    await raw.send(web_socket_frame(TEXT, wish.encode()))
    await raw.json("status")
    token = r'"\/9j\/\u0034AAQ\/\u00e4="'
    await camera.send_raw(f'{{"timestamp" : 7, "data" :{token} ,"type":"video-frame", "more":[1,{{}}]}}')
    frame = await raw.frame()
    assert token.encode() in frame.payload
    assert json.loads(frame.payload)["timestamp"] == 7


async def test_where_a_camera_leaves_the_timestamp_out_the_server_puts_its_own(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    viewers = [await clients.viewer(url, alice) for _ in range(2)]
    for viewer, form in zip(viewers, ("json", "binary"), strict=True):
        await viewer.subscribe(stream, format=form)
    before = now_ms()
    await camera.show()
    await camera.show_binary(timestamp=0)
    for viewer in viewers:
        for _ in range(2):
            assert before - 1000 <= (await viewer.frame())["timestamp"] <= now_ms() + 1000


@pytest.mark.parametrize("sent", ["json", "data", "binary"])
@pytest.mark.parametrize("picture", [JPEG, b"\xff\xd8\xff", PNG + secrets.token_bytes(100_001)])
async def test_a_viewer_gets_the_format_that_it_asked_for_whatever_the_camera_sends(url, alice, clients, sent, picture):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    json_viewer = await clients.viewer(url, alice)
    await json_viewer.subscribe(stream, format="json")
    binary_viewer = await clients.viewer(url, alice)
    await binary_viewer.subscribe(stream, format="binary")
    data = ("data:image/jpeg;base64," if sent == "data" else "") + base64_of(picture)
    for n in (1, 2):
        if sent == "binary":
            await camera.show_binary(picture, timestamp=1000 + n, codec=1 if picture is JPEG else 0)
        else:
            await camera.show(data, timestamp=1000 + n)
        frame = await json_viewer.frame()
        assert (frame["data"], frame["frameId"], frame["timestamp"], frame["streamId"]) == (data, n, 1000 + n, stream)
        frame = await binary_viewer.frame()
        assert (frame["picture"], frame["frameId"], frame["timestamp"]) == (picture, n, 1000 + n)
        assert frame["streamId"] == stream
        if picture is JPEG:
            assert frame["codec"] == 1


async def test_json_and_binary_frames_may_be_mixed(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream, format="binary")
    for n in range(1, 21):
        await (camera.show_binary if n % 3 else camera.show)()
        assert (await viewer.frame(picture=JPEG))["frameId"] == n


async def test_data_that_cannot_be_decoded_reaches_json_viewers_only_and_the_camera_is_told_once(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    json_viewer = await clients.viewer(url, alice)
    await json_viewer.subscribe(stream)
    binary_viewer = await clients.viewer(url, alice)
    await binary_viewer.subscribe(stream, format="binary")
    bad = ["$$$", "data:image/jpeg;base64,$$$", "data:no-comma", "A", ""]
    for n, data in enumerate(bad, 1):
        await camera.send("video-frame", data=data)
        assert (await json_viewer.frame())["data"] == data
        if n == 1:
            await camera.expect("error", code="INVALID_MESSAGE")
    await camera.show()
    assert (await binary_viewer.frame())["frameId"] == len(bad) + 1
    await json_viewer.frame(frameId=len(bad) + 1)
    # What the router might still send to the camera comes before this alert.
    await push(url, {"streamId": stream, "severity": "low", "message": "fence"})
    await json_viewer.find("alert", message="fence")
    assert await camera.rest() == []


async def test_a_frame_for_another_stream_is_unauthorized_and_nobody_gets_it(url, alice, clients):
    camera, other = await clients.camera(url, alice), await clients.camera(url, alice)
    stream, elsewhere = await camera.register(), await other.register()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(elsewhere)
    await camera.show(streamId=elsewhere)
    await camera.expect("error", code="UNAUTHORIZED")
    await camera.show_binary(stream_id=elsewhere)
    await camera.expect("error", code="UNAUTHORIZED")
    await camera.show(streamId="no-such-stream")
    await camera.expect("error", code="UNAUTHORIZED")
    await camera.show(streamId=stream)
    await camera.show_binary(stream_id=stream)
    assert await camera.rest() == []
    await other.show()
    assert (await viewer.frame())["frameId"] == 1


async def test_a_frame_before_the_registration_is_refused(url, alice, clients):
    camera = await clients.camera(url, alice)
    for fields in ({}, {"streamId": new_name()}):
        await camera.show(**fields)
        assert (await camera.expect("error"))["code"] in ("INVALID_MESSAGE", "UNAUTHORIZED")
    await camera.show_binary()
    assert (await camera.expect("error"))["code"] in ("INVALID_MESSAGE", "UNAUTHORIZED")
    await camera.register()
    await camera.show()
    assert await camera.rest() == []


async def test_register_and_frames_are_for_the_register_path_and_subscribe_for_the_other(url, alice, clients):
    camera, viewer = await clients.camera(url, alice), await clients.viewer(url, alice)
    stream = await camera.register()
    for kind in ("subscribe", "unsubscribe"):
        await camera.send(kind, streamId=stream)
        await camera.expect("error", code="INVALID_MESSAGE")
    await camera.send("ack", streamId=stream, frameId=1)
    await camera.expect("error", code="INVALID_MESSAGE")
    await viewer.send("register", produces=["video-frame"])
    await viewer.expect("error", code="INVALID_MESSAGE")
    await viewer.send("video-frame", streamId=stream, data="AAAA")
    await viewer.expect("error", code="INVALID_MESSAGE")
    await viewer.send_raw(pack_frame(JPEG, stream_id=stream))
    await viewer.expect("error", code="INVALID_MESSAGE")
    await viewer.send("alert", streamId=stream, severity="low", message="x")
    await viewer.expect("error", code="INVALID_MESSAGE")
    assert await viewer.subscribe(stream) == "streaming"


@pytest.mark.parametrize("early", [False, True], ids=["after the handshake", "with the handshake"])
async def test_messages_may_be_sent_without_waiting_for_the_answers(url, alice, clients, early):
    raw = await clients.raw(url)
    said: list[Any] = [{"type": "auth", "token": alice}, {"type": "register", "produces": ["video-frame", "alert"]}]
    said += [{"type": "video-frame", "data": base64_of(JPEG)}] * 3
    stream = new_name()
    said[1]["streamId"] = stream
    text = b"".join(web_socket_frame(TEXT, json.dumps(message).encode()) for message in said)
    await raw.send(raw.upgrade_head(REGISTER) + (text if early else b""))
    assert (await raw.answer()).status == 101
    if not early:
        await raw.send(text)
    assert (await raw.json("success"))["message"] == "Authentication successful"
    assert (await raw.json("success"))["streamId"] == stream
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream)
    await viewer.frame(frameId=3)


async def test_unknown_fields_are_ignored(url, alice, clients):
    more = {"unknown": {"deep": [1, None]}, "version": 9, "": 0, "streamid": "x", "Type": 1}
    camera, viewer = await clients.camera(url, alice), await clients.viewer(url, alice)
    stream = await camera.register(new_name(), **more)
    await viewer.subscribe(stream, **more)
    await camera.show(**more)
    frame = await viewer.frame()
    assert frame["frameId"] == 1
    await viewer.send("ack", streamId=stream, frameId=1, **more)
    await viewer.send("unsubscribe", streamId=stream, **more)
    await viewer.expect("success", event="unsubscribed", streamId=stream)
    assert await viewer.rest() == []


async def test_what_is_no_message_is_an_error_and_the_socket_stays(url, alice, clients):
    camera = await clients.camera(url, alice)
    await camera.register()
    invalid = [
        "", "no json", "{", "[]", "5", "null", '"text"', "{}", '{"type":5}', '{"type":null}', '{"type":"register",}',
        "[" * 100_000, '{"type":"register","produces":"video-frame"}', '{"type":"register","consumes":[1]}',
        '{"type":"video-frame"}', '{"type":"video-frame","data":5}', '{"type":"video-frame","data":null}',
        '{"type":"video-frame","data":["a"]}', '{"type":"video-frame","data":"A","timestamp":"now"}',
        '{"type":"video-frame","data":"A","timestamp":-1}', '{"type":"video-frame","data":"A","timestamp":1e999}',
        '{"type":"video-frame","data":"A}', '{"type":"video-frame","data":NaN}', "\ufeff{}", "\0",
        '{"type":"alert","message":"x"}', '{"type":"alert","severity":"low"}', '{"type":"video-frame","data":"a\nb"}',
    ]  # fmt: skip
    for text in invalid:
        await camera.send_raw(text)
        error = await camera.next()
        assert (error["type"], error["code"]) == ("error", "INVALID_MESSAGE"), (text[:50], error)
        assert error["message"]
        assert isinstance(error["timestamp"], int)
    for kind in ("nonsense", "", "Register", "video_frame", "status", "x" * 1000, "\x1b[31m"):
        await camera.send(kind)
        await camera.expect("error", code="UNKNOWN_MESSAGE_TYPE")
    await camera.show()
    assert await camera.rest() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "jpeg"}, {"format": 1}, {"maxFps": 0}, {"maxFps": -1}, {"maxFps": "5"}, {"lastFrame": 1},
        {"alertsSince": "x"}, {"window": 0}, {"window": -1}, {"window": "1"}, {"consumes": "video-frame"},
        {"consumes": [5]},
    ],
)  # fmt: skip
async def test_a_subscription_with_a_field_of_a_wrong_type_is_an_invalid_message(url, alice, clients, fields):
    viewer = await clients.viewer(url, alice)
    await viewer.send("subscribe", **{"streamId": "cam", "consumes": ["video-frame"], **fields})
    await viewer.expect("error", code="INVALID_MESSAGE")
    assert await viewer.subscribe(new_name()) == "offline"


async def test_produces_and_consumes_may_be_left_out(url, alice, clients):
    camera, viewer = await clients.camera(url, alice), await clients.viewer(url, alice)
    stream = new_name()
    await viewer.subscribe(stream)
    await camera.send("register", streamId=stream)
    await camera.expect("success", streamId=stream)
    await viewer.status("online")
    await camera.show()
    assert (await camera.expect("error"))["code"] in ("UNAUTHORIZED", "INVALID_MESSAGE")
    silent = await clients.viewer(url, alice)
    await silent.send("subscribe", streamId=stream)
    await silent.expect("success", streamId=stream)
    await silent.expect("status", status="online")
    await camera.leave()
    await viewer.status("offline")
    assert await silent.rest() == []
