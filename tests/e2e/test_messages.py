"""What messages hold and how they may be written, sentence by sentence (docs/protocol.md), with the real processes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.kit.clients import JPEG, base64_of, eventually, http, new_name
from tests.kit.processes import SERVICE_TOKEN

pytestmark = pytest.mark.e2e

#: Fields that the protocol does not name, as JSON text: every form of value that `JSON.parse` takes.
MORE = (
    rb'"width":640,"rotation":-90.50,"exp":1E+3,"big":123456789012345678901234567890,"none":null,"yes":true,'
    rb'"label":"K\u00fcche \/ \ud83d","\ud83d":"half","nested":{"a":[1,[2.0,{"b":{}}]],"":""},"bbox":[0.1, 0.2,4e-1]'
)
ALERT = b'{"type":"alert","streamId":"%b","severity":"high","message":"m\\ud83d","id":"a%d","timestamp":%b,%b}'
FIELDS: dict[str, Any] = json.loads(b"{" + MORE + b"}")


@pytest.fixture
def url(plain_watchout) -> str:
    return str(plain_watchout.url)


@pytest.fixture
def alice(plain_watchout) -> str:
    return str(plain_watchout.token(new_name("alice")))


# ── fields that are passed on ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("spaced", [False, True])
async def test_fields_of_a_frame_that_are_not_named_reach_json_viewers_as_they_came(url, alice, clients, spaced):
    camera, viewer = await clients.camera(url, alice), await clients.viewer(url, alice)
    binary = await clients.viewer(url, alice)
    stream = await camera.register()
    await viewer.subscribe(stream)
    await binary.subscribe(stream, format="binary")
    space = b" \n" if spaced else b""
    for number in range(1, 4):
        sent = b'{"frameId":9,%b%b,"type":"video-frame","data":%b"%b","timestamp":%d.25,"id":%d}' % (
            space,
            MORE,
            space,
            base64_of(JPEG).encode(),
            number,
            number,
        )
        await camera.send_raw(sent.decode())
        frame = await viewer.frame(frameId=number)
        assert frame == {
            "type": "video-frame", "streamId": stream, "frameId": number, "timestamp": number, "id": number,
            "data": base64_of(JPEG), **FIELDS,
        }  # fmt: skip
        assert (await binary.frame(frameId=number))["picture"] == JPEG
    late = await clients.viewer(url, alice)
    await late.subscribe(stream)
    assert (await late.frame(frameId=3)).items() >= FIELDS.items()


async def test_fields_of_an_alert_that_are_not_named_reach_everybody_who_has_it(url, alice, clients):
    camera, viewer = await clients.camera(url, alice), await clients.viewer(url, alice)
    stream = await camera.register(produces=["video-frame", "alert"], consumes=["alert"])
    await viewer.subscribe(stream)
    for number, timestamp in ((1, b"1729943200000.123"), (2, b"1.7299432e12")):
        body = ALERT % (
            stream.encode(), number, timestamp, MORE,
        )  # fmt: skip
        if number == 1:
            await camera.send_raw(body.decode())
        else:
            answer = await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=body)
            assert answer.status == 202, answer
        expected = {
            "type": "alert", "id": f"a{number}", "streamId": stream, "severity": "high", "message": "m\ud83d",
            "timestamp": 1729943200000, **FIELDS,
        }  # fmt: skip
        assert await viewer.find("alert") == await camera.find("alert") == expected
    kept = (await http(f"{url}/alerts?streamId={stream}", token=alice)).json["alerts"]
    assert [alert.items() >= FIELDS.items() for alert in kept] == [True, True]
    late = await clients.viewer(url, alice)
    await late.subscribe(stream, alertsSince=0)
    assert (await late.find("alert")).items() >= FIELDS.items()


async def test_half_an_emoji_is_text(url, alice, clients):
    camera = await clients.camera(url, alice)
    await camera.send_raw(r'{"type":"register","deviceName":"A\ud83d","produces":["video-frame"]}')
    await camera.expect("success", event="registered")


@pytest.mark.parametrize("text", [b"NaN", b"[1,]", b"{'a':1}", b"01", b"undefined", b"\xef\xbb\xbf1"])
async def test_what_browsers_do_not_read_is_refused_and_the_socket_stays(url, alice, clients, text):
    camera = await clients.camera(url, alice)
    await camera.send_raw((b'{"type":"register","x":%b}' % text).decode())
    await camera.expect("error", code="INVALID_MESSAGE")
    await camera.register()


# ── register again, status ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_stream_that_is_registered_again_goes_on(url, alice, clients):
    camera, viewer = await clients.camera(url, alice), await clients.viewer(url, alice)
    stream = await camera.register()
    await viewer.subscribe(stream)
    await camera.show()
    await viewer.frame(frameId=1)
    assert await camera.register(stream, consumes=["alert"]) == stream
    await camera.expect("status", status="streaming", streamId=stream)
    await camera.show()
    await viewer.frame(frameId=2)
    assert "offline" not in viewer.statuses
    alert = {"streamId": stream, "severity": "low", "message": "m"}
    answer = await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)
    assert answer.status == 202
    await camera.find("alert", message="m")


async def test_another_stream_lets_go_of_the_first(url, alice, clients):
    camera, viewer = await clients.camera(url, alice), await clients.viewer(url, alice)
    first, second = new_name("first"), new_name("second")
    await camera.register(first)
    await viewer.subscribe(first)
    await viewer.subscribe(second)
    await camera.register(second)

    def told() -> set[tuple[str, str]]:
        return {(each["streamId"], each["status"]) for each in viewer.heard if each["type"] == "status"}

    await eventually(lambda: told() >= {(first, "offline"), (second, "streaming")})
    await camera.show(streamId=first)
    await camera.find("error", code="UNAUTHORIZED")
    await camera.show(streamId=second)
    assert (await viewer.frame(streamId=second))["frameId"] == 1
    other = await clients.camera(url, alice)
    assert await other.register(first) == first
    assert not [message for message in await camera.rest() if message["type"] == "error"]


async def test_a_registration_that_is_refused_leaves_what_was(plain_watchout, url, alice, clients):
    camera = await clients.camera(url, alice)
    strange = await clients.camera(url, plain_watchout.token(new_name("bob")))
    taken, viewer = await strange.register(new_name("taken")), await clients.viewer(url, alice)
    stream = await camera.register()
    await viewer.subscribe(stream)
    await camera.send("register", streamId=taken, produces=["video-frame"])
    await camera.expect("error", code="UNAUTHORIZED")
    await camera.show()
    await viewer.frame(frameId=1)


async def test_a_camera_that_consumes_anything_gets_the_status(url, alice, clients):
    camera, quiet = await clients.camera(url, alice), await clients.camera(url, alice)
    stream = await camera.register(consumes=["alert"])
    await camera.expect("status", streamId=stream, status="streaming")
    await camera.find("status", streamId=stream, status="online")
    await camera.show()
    await camera.expect("status", streamId=stream, status="streaming")
    await quiet.register()
    assert await quiet.rest() == []


async def test_unsubscribe_is_answered(url, alice, clients):
    viewer, name = await clients.viewer(url, alice), new_name("cam")
    await viewer.subscribe(name)
    for _ in range(2):
        await viewer.send("unsubscribe", streamId=name)
        await viewer.expect("success", event="unsubscribed", streamId=name)


# ── what ML is asked ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_frames_that_are_no_pictures_are_counted_and_reported_but_cost_no_socket(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    for _ in range(200):
        await camera.show("null", requestId="bad")
    assert (await http(f"{url}/streams/{stream}/frame.jpg", token=alice)).status == 404
    await camera.expect("error", code="INVALID_MESSAGE", streamId=stream, requestId="bad")
    await camera.show()

    async def shown() -> bool:
        return (await http(f"{url}/streams/{stream}/frame.jpg", token=alice)).status == 200

    await eventually(shown)
    assert await camera.rest() == []
