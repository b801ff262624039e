"""RFC 6455 section 7: the end of the connection."""

from __future__ import annotations

import asyncio
import json
import socket as socketlib
import struct

import pytest

from tests.contract.rfc6455.support import HELLO, PART, SUBSCRIBE
from tests.kit.clients import BINARY, CLOSE, TEXT, RawSocket, http, new_name, web_socket_frame
from tests.kit.dialogue import close, dialogue, say
from tests.kit.processes import SERVICE_TOKEN

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("reason", [b"", b"bye", b"*" * 123])
@pytest.mark.parametrize("code", [1000, 1001, 4999])
async def test_7_the_close_is_answered_with_its_own_code_and_the_server_ends_the_connection(socket, code, reason):
    heard = await dialogue(socket, [close(code, reason)], ends=True)
    assert heard.close is not None
    assert heard.close[:2] == struct.pack("!H", code)
    assert heard.close[2:] in (b"", reason)


async def test_7_an_end_of_the_connection_without_a_close_frees_it(url, token, clients):
    for frames in ([], [PART], [b"\x81"], [b"\x81\xfe\x01"], [web_socket_frame(BINARY, bytes(100))[:50]]):
        for ends in ("eof", "abort"):
            raw = await clients.raw(url)
            await raw.upgrade(f"{SUBSCRIBE}?token={token}")
            await raw.sign_in(token)
            await say(raw, frames)
            if ends == "eof":
                raw.writer.write_eof()
                await raw.gone()
            await raw.leave()
    assert (await http(f"{url}/health/live")).status == 200


async def test_7_a_server_that_closes_first_waits_for_the_answer_and_no_longer(url, token, clients):
    raw = await clients.raw(url)
    await raw.upgrade(f"{SUBSCRIBE}?token={token}")
    await raw.sign_in(token)
    await say(raw, [web_socket_frame(TEXT, b"\xff")])
    assert await raw.close_code() == 1007
    await say(raw, [*HELLO, close(1007)])
    assert await raw.gone() == b""


async def test_7_alerts_that_wait_for_a_viewer_that_closes_are_not_written_after_the_close(url, token, clients):
    stream = new_name()
    camera = await clients.camera(url, token)
    await camera.register(stream)
    narrow = socketlib.socket()
    narrow.setsockopt(socketlib.SOL_SOCKET, socketlib.SO_RCVBUF, 4096)
    narrow.connect(("127.0.0.1", int(url.rpartition(":")[2])))
    narrow.setblocking(False)
    raw = RawSocket(*await asyncio.open_connection(sock=narrow, limit=1024), url.removeprefix("http://"))
    async with raw:
        await raw.upgrade(f"{SUBSCRIBE}?token={token}")
        await raw.sign_in(token)
        wish = {"type": "subscribe", "streamId": stream, "consumes": ["alert"]}
        await raw.send(web_socket_frame(TEXT, json.dumps(wish).encode()))
        await raw.json("status")
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        alert = {"streamId": stream, "severity": "low", "message": "x", "metadata": {"x": "y" * 15_000}}
        for _ in range(3):  # the kernel takes some of 900 kB, the lane keeps the others
            answer = await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=[alert] * 20)
            assert answer.status == 202
        await raw.send(close())
        assert (await http(f"{url}/health/live")).status == 200
        raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
        while (frame := await raw.frame()).opcode != CLOSE:
            assert frame.opcode == TEXT
        assert await raw.gone() == b""
    assert (await http(f"{url}/health/live")).status == 200
