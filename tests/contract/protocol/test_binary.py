"""PROTOCOL.md section 5: binary frames, compression and fragments."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from tests.contract.protocol.support import MIB, REGISTER, SUBSCRIBE
from tests.kit.clients import (
    BINARY,
    CONTINUATION,
    JPEG,
    PING,
    PNG,
    TEXT,
    WEBP,
    base64_of,
    new_name,
    pack_frame,
    unpack_frame,
    web_socket_frame,
)

pytestmark = pytest.mark.e2e


async def test_a_binary_frame_has_the_documented_header(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register(new_name())
    raw = await clients.raw(url)
    await raw.upgrade(f"{SUBSCRIBE}?token={alice}")
    wish = {"type": "subscribe", "streamId": stream, "consumes": ["video-frame"], "format": "binary"}
    await raw.send(web_socket_frame(TEXT, json.dumps(wish).encode()))
    await raw.json("status")
    for n, (codec, picture) in enumerate(((0, b"anything"), (1, JPEG), (2, PNG), (3, WEBP)), 1):
        await camera.show_binary(picture, codec=codec, timestamp=2**40 + n, frame_id=77, stream_id=stream)
        frame = await raw.frame()
        name = stream.encode()
        expected = (
            bytes((0x57, 1, 1, 0)) + n.to_bytes(4, "big") + (2**40 + n).to_bytes(8, "big") + bytes((codec, len(name)))
            + name + picture
        )  # fmt: skip
        assert (frame.opcode, frame.fin, frame.payload) == (BINARY, True, expected)
        assert unpack_frame(frame.payload)["picture"] == picture


async def test_deflate_is_negotiated_without_context_takeover_and_frames_are_sent_uncompressed(url, alice, clients):
    raw = await clients.raw(url)
    answer = await raw.upgrade(f"{SUBSCRIBE}?token={alice}", "Sec-WebSocket-Extensions: permessage-deflate")
    words = {word.strip().partition("=")[0] for word in answer.headers["sec-websocket-extensions"].split(";")}
    assert words >= {"permessage-deflate", "server_no_context_takeover", "client_no_context_takeover"}
    camera = await clients.camera(url, alice, extensions=[ClientPerMessageDeflateFactory()])
    stream = await camera.register()
    wish = {"type": "subscribe", "streamId": stream, "consumes": ["video-frame"]}
    await raw.send(web_socket_frame(TEXT, json.dumps(wish).encode()))
    await raw.json("status")
    data = "A" * 100_000  # which deflate would make small
    for _ in range(3):
        await camera.show(data)
        frame = await raw.frame()
        assert (frame.opcode, frame.rsv, json.loads(frame.payload)["data"]) == (TEXT, 0, data)


async def test_compressed_messages_of_clients_are_taken(url, alice, clients):
    camera = await clients.camera(url, alice, compression="deflate")
    assert camera.connection.protocol.extensions
    stream = await camera.register()
    viewer = await clients.viewer(url, alice, compression="deflate")
    await viewer.subscribe(stream, format="binary")
    for n in range(1, 6):
        await (camera.show if n % 2 else camera.show_binary)()
        await viewer.frame(frameId=n, picture=JPEG)


async def test_an_unknown_extension_is_not_negotiated(url, alice, clients):
    raw = await clients.raw(url)
    answer = await raw.upgrade(f"{SUBSCRIBE}?token={alice}", "Sec-WebSocket-Extensions: x-unknown; a=1")
    assert "sec-websocket-extensions" not in answer.headers


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_a_frame_may_come_in_a_thousand_fragments_with_pings_between(url, alice, clients, opcode):
    raw = await clients.raw(url)
    await raw.upgrade(f"{REGISTER}?token={alice}")
    stream = new_name()
    wish = {"type": "register", "streamId": stream, "produces": ["video-frame"]}
    await raw.send(web_socket_frame(TEXT, json.dumps(wish).encode()))
    await raw.json("success")
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream, format="json" if opcode == TEXT else "binary")
    picture = secrets.token_bytes(50_000)
    if opcode == TEXT:
        whole = json.dumps({"type": "video-frame", "data": base64_of(picture)}).encode()
    else:
        whole = pack_frame(picture, codec=0)
    size = len(whole) // 999
    parts = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert len(parts) >= 1000
    sent = web_socket_frame(opcode, parts[0], fin=False)
    for n, part in enumerate(parts[1:], 1):
        if n % 100 == 0:
            sent += web_socket_frame(PING, b"between")
        sent += web_socket_frame(CONTINUATION, part, fin=n == len(parts) - 1)
    await raw.send(sent)
    frame = await viewer.frame(frameId=1)
    if opcode == TEXT:
        assert frame["data"] == base64_of(picture)
    else:
        assert frame["picture"] == picture


async def test_everything_may_come_byte_by_byte(url, alice, clients):
    raw = await clients.raw(url)
    raw.writer.get_extra_info("socket").setsockopt(6, 1, 1)  # TCP_NODELAY
    stream = new_name()
    said = [
        raw.upgrade_head(REGISTER),
        web_socket_frame(TEXT, json.dumps({"type": "auth", "token": alice}).encode()),
        web_socket_frame(
            TEXT, json.dumps({"type": "register", "streamId": stream, "produces": ["video-frame"]}).encode()
        ),
        web_socket_frame(BINARY, pack_frame(b"\xff\xd8\xff", codec=0)),
    ]
    for n, data in enumerate(said):
        for at in range(len(data)):
            await raw.send(data[at : at + 1])
            await asyncio.sleep(0)
        if n == 0:
            assert (await raw.answer()).status == 101
    assert (await raw.json("success"))["message"] == "Authentication successful"
    assert (await raw.json("success"))["streamId"] == stream
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream, format="binary")
    assert (await viewer.frame())["picture"] == b"\xff\xd8\xff"


@pytest.mark.parametrize("sent", ["json", "binary"])
async def test_a_frame_of_16_mib_goes_through_and_a_byte_more_does_not(url, alice, clients, sent):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream, format=sent)
    if sent == "json":
        empty = len(json.dumps({"type": "video-frame", "data": ""}))
        data = "A" * (16 * MIB - empty)
        await camera.show(data)
        assert (await viewer.frame())["data"] == data
        with contextlib.suppress(ConnectionClosed):  # the server need not take it to its end
            await camera.show(data + "A")
    else:
        picture = bytes(16 * MIB - 18)
        await camera.show_binary(picture, codec=0)
        assert (await viewer.frame())["picture"] == picture
        with contextlib.suppress(ConnectionClosed):
            await camera.show_binary(picture + b"x", codec=0)
    assert await camera.closed() == 1009
    await viewer.status("offline")
