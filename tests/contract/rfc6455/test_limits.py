"""Large messages, messages in many fragments, and lengths over the limit."""

from __future__ import annotations

import asyncio
import json
import secrets
import struct

import pytest

from tests.contract.rfc6455.support import AFTER, KIB, LIMIT, MIB, SUBSCRIBE, stream, wired
from tests.kit.clients import BINARY, CLOSE, CONTINUATION, PING, TEXT, base64_of, pack_frame, web_socket_frame
from tests.kit.dialogue import HI, again, dialogue, message, ping, split, text

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("form", ["json", "binary"])
async def test_9_1_and_9_2_large_messages_arrive_unchanged(url, token, clients, form):
    wire = await wired(url, token, clients, form=form)
    head = 18 if form == "binary" else len('{"type":"video-frame","data":""}')
    for length in (64 * KIB, 256 * KIB, MIB, 4 * MIB, LIMIT):
        picture = (secrets.token_bytes(KIB) if form == "binary" else base64_of(secrets.token_bytes(768)).encode()) * (
            length // KIB
        )
        picture = picture[: length - head]
        whole = pack_frame(picture, codec=0) if form == "binary" else b'{"type":"video-frame","data":"%b"}' % picture
        assert len(whole) == length
        await wire.camera.send(web_socket_frame(BINARY if form == "binary" else TEXT, whole))
        assert await wire.picture() == picture


@pytest.mark.parametrize("size", [64, 256, KIB, 4 * KIB, 64 * KIB, 256 * KIB, MIB])
@pytest.mark.parametrize("form", ["json", "binary"])
async def test_9_3_and_9_4_large_messages_in_fragments_arrive_unchanged(url, token, clients, form, size):
    wire = await wired(url, token, clients, form=form)
    if form == "binary":
        picture = secrets.token_bytes(min(MIB, size * 4000))
        frames = message(BINARY, *split(pack_frame(picture, codec=0), size))
    else:
        picture = base64_of(secrets.token_bytes(min(MIB, size * 4000) // 4 * 3)).encode()
        frames = text(*split(b'{"type":"video-frame","data":"%b"}' % picture, size))
    await stream(wire.camera, frames)
    assert await wire.picture() == picture


@pytest.mark.parametrize("size", [64, 128, 256, 512, 1024, 2048])
async def test_9_5_and_9_6_large_messages_that_come_in_small_pieces_arrive_unchanged(url, token, clients, size):
    wire = await wired(url, token, clients)
    picture = secrets.token_bytes(min(MIB, size * 1000))
    for piece in split(web_socket_frame(BINARY, pack_frame(picture, codec=0)), size):
        await wire.camera.send(piece)
        await asyncio.sleep(0)
    assert await wire.picture() == picture


async def test_9_5_a_message_that_comes_byte_by_byte_arrives_unchanged(url, token, clients):
    wire = await wired(url, token, clients)
    picture = secrets.token_bytes(4 * KIB)
    for piece in split(web_socket_frame(BINARY, pack_frame(picture, codec=0)), 1):
        await wire.camera.send(piece)
        await asyncio.sleep(0)
    assert await wire.picture() == picture


@pytest.mark.parametrize("length", [27, 64, 256, KIB, 4 * KIB])
async def test_9_7_and_9_8_a_thousand_messages_are_answered_one_by_one(socket, length):
    sent = web_socket_frame(TEXT, again(length))
    for _ in range(1000):
        await socket.send(sent)
        assert (await socket.json("error"))["code"] == HI


async def test_10_1_1_a_message_in_frames_of_1300_bytes_arrives_unchanged(url, token, clients):
    wire = await wired(url, token, clients)
    for opcode in (BINARY, TEXT):
        picture = b"\xff\xd8\xff\xe0" + secrets.token_bytes(64 * KIB)
        whole = pack_frame(picture, codec=0)
        if opcode == TEXT:
            whole = json.dumps({"type": "video-frame", "data": base64_of(picture)}).encode()
        await wire.camera.send(b"".join(message(opcode, *split(whole, 1300))))
        assert await wire.picture() == picture


@pytest.mark.parametrize("length", [LIMIT + 1, 1 << 32, (1 << 63) - 1])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_a_length_over_the_limit_closes_with_1009_before_any_of_it_came(socket, opcode, length):
    heard = await dialogue(socket, [bytes((0x80 | opcode, 0xFF)) + struct.pack("!Q", length)], ends=True)
    assert (heard.said, heard.code) == ([], 1009)


@pytest.mark.parametrize("length", [MIB + 1, LIMIT])
async def test_a_strangers_length_over_1_mib_closes_with_1009_before_any_of_it_came(url, clients, length):
    raw = await clients.raw(url)
    await raw.upgrade(SUBSCRIBE)
    assert (await dialogue(raw, [b"\x81\xff" + struct.pack("!Q", length)], ends=True)).code == 1009


async def test_fragments_count_together_and_close_with_1009_where_they_pass_the_limit(socket):
    frames = message(BINARY, *[bytes(4 * MIB)] * 3, b"")[:3]
    await stream(socket, frames)
    over = b"\x80\xff" + struct.pack("!Q", 4 * MIB + 1)
    assert (await dialogue(socket, [ping(b"between"), over], ends=True)).code == 1009


@pytest.mark.parametrize("length", [1 << 63, (1 << 63) + 5, 0xFFFFFFFFFFFFFFF0, (1 << 64) - 1])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CONTINUATION, PING, CLOSE])
async def test_a_length_with_the_top_bit_set_ends_the_connection(socket, opcode, length):
    # RFC 6455 section 5.2: the bit must be 0. It is over every limit as well, so that 1009 says it as rightly as 1002.
    heard = await dialogue(socket, [bytes((0x80 | opcode, 0xFF)) + struct.pack("!Q", length), *AFTER], ends=True)
    assert heard.said == []
    assert heard.code in (1002, 1009)
