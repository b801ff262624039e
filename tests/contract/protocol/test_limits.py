"""PROTOCOL.md section 4: status, errors, limits and close codes."""

from __future__ import annotations

import asyncio
import contextlib
import time
import zlib

import pytest
from websockets.exceptions import ConnectionClosed

from tests.contract.protocol.support import REGISTER, SUBSCRIBE, push
from tests.kit.clients import (
    BINARY,
    CLOSE,
    CONTINUATION,
    DEADLINE_S,
    JPEG,
    PING,
    PONG,
    TEXT,
    eventually,
    http,
    new_name,
    now_ms,
    pack_frame,
    web_socket_frame,
)
from tests.kit.services import not_permitted

pytestmark = pytest.mark.e2e


async def test_the_status_goes_streaming_online_streaming_offline(url, alice, clients):
    stream = new_name()
    viewer = await clients.viewer(url, alice)
    assert await viewer.subscribe(stream) == "offline"
    camera = await clients.camera(url, alice)
    await camera.register(stream)
    status = await viewer.next()
    assert status == {"type": "status", "streamId": stream, "status": "streaming", "timestamp": status["timestamp"]}
    assert abs(status["timestamp"] - now_ms()) < 10_000
    began = time.monotonic()
    await camera.show()
    await viewer.frame()
    await viewer.expect("status", status="online")
    assert time.monotonic() - began > 4.5
    late = await clients.viewer(url, alice)
    assert await late.subscribe(stream) == "online"
    await camera.show()
    await viewer.expect("status", status="streaming")
    await viewer.frame()
    camera.cut()
    await viewer.expect("status", status="offline")


async def test_every_message_has_a_type_and_a_timestamp(url, alice, clients):
    camera, viewer = await clients.camera(url, alice), await clients.viewer(url, alice)
    stream = await camera.register()
    await viewer.subscribe(stream)
    await camera.show()
    await push(url, {"streamId": stream, "severity": "low", "message": "x"})
    await viewer.find("alert")
    await viewer.rest()
    assert {message["type"] for message in viewer.heard} == {"success", "status", "video-frame", "alert", "error"}
    assert all(isinstance(message["timestamp"], int) for message in viewer.heard + camera.heard)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"W", pack_frame(JPEG)[:17], pack_frame(b""), pack_frame(JPEG, magic=0x58), pack_frame(JPEG, version=2),
        pack_frame(JPEG, kind=2), pack_frame(JPEG, flags=1), pack_frame(JPEG, codec=9),
        pack_frame(JPEG, stream_id=b"a b"), pack_frame(JPEG, stream_id=b"\xff"), pack_frame(b"", stream_id="x" * 128),
        pack_frame(JPEG, stream_id="x" * 129), bytes(100),
    ],
)  # fmt: skip
async def test_a_bad_binary_header_is_an_invalid_message_and_the_socket_stays(url, alice, clients, data):
    camera = await clients.camera(url, alice)
    await camera.register()
    await camera.send_raw(data)
    await camera.expect("error", code="INVALID_MESSAGE")
    await camera.show_binary()
    assert await camera.rest() == []


async def test_repeated_abuse_closes_with_1008(strict_watchout, strict_user, clients):
    viewer = await clients.viewer(strict_watchout.url, strict_user)
    with contextlib.suppress(ConnectionClosed):
        for _ in range(15):
            await viewer.send_raw("no json")
    assert await viewer.closed() == 1008
    codes = [message["code"] for message in viewer.heard if message["type"] == "error"]
    assert 8 <= codes.count("INVALID_MESSAGE") <= 13


async def test_over_the_message_rate_frames_are_dropped_and_the_camera_stays(strict_watchout, strict_user, clients):
    camera = await clients.camera(strict_watchout.url, strict_user)
    await camera.register()
    # In one write: sent one by one on a busy machine, they may stay within the rate.
    frame = web_socket_frame(TEXT, b'{"type":"video-frame","data":"AAAA"}')
    camera.connection.transport.write(frame * 105)
    await camera.find("error", code="RATE_LIMITED")
    assert camera.open

    async def allowed() -> bool:
        await camera.send("auth", token="again")
        try:
            await camera.find("error", 0.1, code="ALREADY_AUTHENTICATED")
        except AssertionError:
            return False
        return True

    await eventually(allowed)


async def test_over_the_message_rate_for_long_is_abuse(strict_watchout, strict_user, clients):
    camera = await clients.camera(strict_watchout.url, strict_user)
    await camera.register()
    with contextlib.suppress(Exception):
        for _ in range(2000):
            await camera.show("AAAA")
    assert await camera.closed() == 1008


async def test_over_the_byte_rate_the_camera_is_told(strict_watchout, strict_user, clients):
    camera = await clients.camera(strict_watchout.url, strict_user)
    await camera.register()
    # In one write; spread over seven seconds they would be allowed.
    camera.connection.transport.write(web_socket_frame(BINARY, pack_frame(bytes(60_000), codec=0)) * 8)
    error = await camera.find("error", code="RATE_LIMITED")
    assert "bytes" in error["message"]
    assert camera.open


async def test_pings_count_as_messages(strict_watchout, strict_user, clients):
    raw = await clients.raw(strict_watchout.url)
    await raw.upgrade(f"{SUBSCRIBE}?token={strict_user}")
    with contextlib.suppress(ConnectionError):
        for _ in range(100):
            await raw.send(web_socket_frame(PING, b"x") * 20)
    assert await raw.close_code() == 1008


async def test_too_many_connections_of_a_user_close_with_1013(strict_watchout, clients):
    token = strict_watchout.token(new_name("frank"))
    held = [await clients.viewer(strict_watchout.url, token) for _ in range(5)]
    for by in ("message", "header"):
        viewer = await clients.viewer(strict_watchout.url, token, by)
        await viewer.expect("error", code="TOO_MANY_CONNECTIONS")
        assert await viewer.closed() == 1013
    await held[0].leave()

    async def again() -> bool:
        viewer = await clients.viewer(strict_watchout.url, token, "header")
        with contextlib.suppress(ConnectionClosed):  # there is one too many still
            await viewer.send("auth", token=token)
        return (await viewer.next())["type"] == "success"

    await eventually(again)


async def test_too_many_connections_from_an_address_close_with_1013(strict_watchout, strict_user, clients):
    url = strict_watchout.url
    source = ("127.0.0.3", 0)
    try:
        held = [await clients.raw(url, local_addr=source) for _ in range(30)]
    except OSError as error:
        not_permitted(f"this system has no second address on loopback: {error}")
    viewer = await clients.viewer(url, strict_user, "header", local_addr=source)
    await viewer.expect("error", code="TOO_MANY_CONNECTIONS")
    assert await viewer.closed() == 1013
    raw = await clients.raw(url, local_addr=source)
    await raw.send(raw.head("/"))
    answer = await raw.answer()
    assert (answer.status, answer.error) == (503, "TOO_MANY_CONNECTIONS")
    assert (await http(f"{url}/health/live")).status == 200
    for socket in held:
        await socket.leave()


async def test_a_viewer_whose_alert_queue_is_full_is_closed_with_4400_and_nobody_else_notices(
    watchout, watchout_loop, clients
):
    started = watchout(loop=watchout_loop, environ={"ALERT_QUEUE_MESSAGES": "20"})
    token = started.token()
    stuck = await clients.raw(started.url)
    await stuck.upgrade(f"{SUBSCRIBE}?token={token}")
    await stuck.send(web_socket_frame(TEXT, b'{"type":"subscribe","streamId":"cam","consumes":["alert"]}'))
    await stuck.json("status")
    stuck.writer.transport.pause_reading()
    good = await clients.viewer(started.url, token)
    await good.subscribe("cam")
    alert = {"streamId": "cam", "severity": "low", "metadata": {"filling": "x" * 14_000}}
    said = 0
    while "closed" not in started.one("gateway").output:
        assert said < 2000, "28 MB of alerts wait for a viewer that does not read"
        said += 10
        await push(started.url, [{**alert, "message": str(n)} for n in range(said - 9, said + 1)])
        await good.find("alert", message=str(said))
    stuck.writer.transport.resume_reading()
    assert (await stuck.json("error"))["code"] == "SLOW_CONSUMER"
    assert await stuck.close_code() == 4400
    await push(started.url, {**alert, "message": "last"})
    await good.find("alert", message="last")
    assert sum(message["type"] == "alert" for message in good.heard) == said + 1


async def test_a_client_that_answers_no_ping_is_closed_and_one_that_does_stays(watchout, watchout_loop, clients):
    started = watchout(loop=watchout_loop, environ={"IDLE_TIMEOUT_S": "3"})
    token = started.token()
    viewer = await clients.viewer(started.url, token)
    raw = await clients.raw(started.url)
    await raw.upgrade(f"{SUBSCRIBE}?token={token}")
    assert (await raw.frame()).opcode == PING
    await raw.gone()
    await viewer.rest()


async def test_a_ping_is_answered_with_its_payload(url, alice, clients):
    raw = await clients.raw(url)
    await raw.upgrade(f"{SUBSCRIBE}?token={alice}")
    await raw.send(web_socket_frame(PING, b"payload"))
    frame = await raw.frame()
    assert (frame.opcode, frame.payload) == (PONG, b"payload")
    await raw.send(web_socket_frame(PONG, b"unasked"))
    await raw.send(web_socket_frame(CLOSE, b"\x03\xe8bye"))
    assert await raw.close_code() == 1000
    assert await raw.gone() == b""


async def test_a_message_over_the_limit_closes_with_1009_and_one_at_the_limit_does_not(
    strict_watchout, strict_user, clients
):
    limit = 65536
    viewer = await clients.viewer(strict_watchout.url, strict_user)
    text = '{"type":"auth","token":"x"}'
    await viewer.send_raw(text + " " * (limit - len(text)))
    await viewer.expect("error", code="ALREADY_AUTHENTICATED")
    await viewer.send_raw(text + " " * (limit - len(text) + 1))
    assert await viewer.closed() == 1009


@pytest.mark.parametrize("way", ["binary", "fragments", "declared", "compressed", "unauthenticated"])
async def test_whatever_way_a_message_is_over_the_limit_it_closes_with_1009(strict_watchout, strict_user, clients, way):
    raw = await clients.raw(strict_watchout.url)
    query = "" if way == "unauthenticated" else f"?token={strict_user}"
    headers = ("Sec-WebSocket-Extensions: permessage-deflate",) if way == "compressed" else ()
    await raw.upgrade(REGISTER + query, *headers)
    with contextlib.suppress(ConnectionError):
        if way == "fragments":
            await raw.send(web_socket_frame(TEXT, b"{", fin=False))
            for _ in range(70):
                await raw.send(web_socket_frame(CONTINUATION, b" " * 1000, fin=False))
        elif way == "declared":
            await raw.send(b"\x82\xff" + (65537).to_bytes(8, "big"))
        elif way == "compressed":
            packer = zlib.compressobj(wbits=-12)
            bomb = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_SYNC_FLUSH)
            await raw.send(web_socket_frame(TEXT, bomb[:-4], rsv=4))
        else:
            await raw.send(web_socket_frame(BINARY, bytes(65537)))
    assert await raw.close_code() == 1009


@pytest.mark.parametrize(
    "frames",
    [
        [web_socket_frame(TEXT, b"\xff")],
        [web_socket_frame(TEXT, b'{"type":"\xed\xa0\x80"}')],
        [web_socket_frame(TEXT, "ä".encode()[:1], fin=False), web_socket_frame(CONTINUATION, b"x")],
        [web_socket_frame(CLOSE, b"\x03\xe8\xff")],
    ],
)
@pytest.mark.parametrize("authenticated", [True, False])
async def test_broken_utf_8_closes_with_1007(url, alice, clients, frames, authenticated):
    raw = await clients.raw(url)
    await raw.upgrade(REGISTER + (f"?token={alice}" if authenticated else ""))
    await raw.send(b"".join(frames))
    assert await raw.close_code() == 1007


@pytest.mark.parametrize(
    "frames",
    [
        [web_socket_frame(TEXT, b"{}", masked=False)],
        [web_socket_frame(0x3)],
        [web_socket_frame(0xB)],
        [web_socket_frame(TEXT, b"{}", rsv=4)],
        [web_socket_frame(TEXT, b"{}", rsv=1)],
        [web_socket_frame(PING, b"x", fin=False)],
        [web_socket_frame(PING, b"x" * 126)],
        [web_socket_frame(CLOSE, b"x")],
        [web_socket_frame(CLOSE, b"\x03\xed")],
        [web_socket_frame(CONTINUATION, b"x")],
        [web_socket_frame(TEXT, b"x", fin=False), web_socket_frame(TEXT, b"x")],
        [b"\x81\xff" + b"\xff" * 8],
    ],
)
async def test_a_protocol_error_closes_with_1002(url, alice, clients, frames):
    raw = await clients.raw(url)
    await raw.upgrade(f"{REGISTER}?token={alice}")
    await raw.send(b"".join(frames))
    assert await raw.close_code() in ((1002,) if not frames[0].startswith(b"\x81\xff") else (1002, 1009))
    assert (await http(f"{url}/health/live")).status == 200


async def test_sigterm_closes_clients_with_1012_and_ends_within_5_seconds(watchout, watchout_loop, clients):
    # Less patience with the client that answers nothing, so that a machine that halts for a moment is in time as well.
    started = watchout(loop=watchout_loop, environ={"DRAIN_S": "1"})
    token = started.token()
    camera, viewer = await clients.camera(started.url, token), await clients.viewer(started.url, token)
    await camera.register("cam")
    await viewer.subscribe("cam")
    unauthenticated = await clients.viewer(started.url, None)
    deaf = await clients.raw(started.url)
    await deaf.upgrade(f"{SUBSCRIBE}?token={token}")
    half = await clients.raw(started.url)
    await half.send(b"GET / HTTP/1.1\r\n")
    kept_alive = await clients.raw(started.url)
    await kept_alive.send(kept_alive.head("/health/live"))
    assert (await kept_alive.answer()).status == 200
    async with asyncio.timeout(DEADLINE_S):
        for name in ("gateway", "mlbridge", "router"):
            process = started.one(name)
            began = time.monotonic()
            process.send_signal(15)
            if name == "gateway":
                for client in (camera, viewer, unauthenticated):
                    assert await client.closed() == 1012
                assert await deaf.close_code() == 1012
            assert await process.ended() == 0
            assert time.monotonic() - began < 5
