"""Fragments without end and floods of messages: bounded, counted, and felt by nobody else."""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections.abc import Iterator

import psutil
import pytest

from tests.e2e.edge.support import SUBSCRIBE, UNFINISHED, patched_gateway
from tests.kit.clients import (
    CONTINUATION,
    JPEG,
    PING,
    PONG,
    TEXT,
    Clients,
    RawSocket,
    base64_of,
    new_name,
    web_socket_frame,
)
from tests.kit.processes import Watchout, running


async def closed_with(raw: RawSocket, data: bytes, timeout_s: float = 30.0) -> int:
    """Send this for ever; the code with which the server closes."""

    async def flood() -> None:
        while True:
            await raw.send(data)

    flooding = asyncio.get_running_loop().create_task(flood())
    try:
        return await raw.close_code(timeout_s)
    finally:
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)


@pytest.mark.parametrize(("known", "payload"), [(True, b"x"), (False, b""), (False, b"x")])
async def test_endless_fragments_end_at_their_bound_and_hold_little(watchout, clients, known, payload):
    started = watchout(environ={"MESSAGE_RATE": "1000000"})
    pid = started.one("gateway").pid
    raw = await clients.raw(started.url)
    await raw.upgrade(f"{SUBSCRIBE}?token={started.token()}" if known else SUBSCRIBE)
    before = psutil.Process(pid).memory_info().rss
    await raw.send(web_socket_frame(TEXT, payload, fin=False))
    # A stranger's fragments with bytes in them reach the largest message of strangers (1009) before their number does.
    code = 1008 if known or not payload else 1009
    assert await closed_with(raw, web_socket_frame(CONTINUATION, payload, fin=False) * 500) == code
    assert psutil.Process(pid).memory_info().rss - before < 16 << 20


async def test_as_many_fragments_as_allowed_make_a_message(plain_watchout, clients):
    raw = await clients.raw(plain_watchout.url)
    await raw.upgrade(SUBSCRIBE)
    empty = web_socket_frame(CONTINUATION, b"", fin=False)
    await raw.send(web_socket_frame(TEXT, b"hello", fin=False) + empty * 16_382 + web_socket_frame(CONTINUATION, b"!"))
    assert (await raw.json("error"))["code"] == "AUTH_REQUIRED"


async def test_messages_of_many_tiny_fragments_break_the_message_rate(plain_watchout, clients):
    raw = await clients.raw(plain_watchout.url)
    await raw.upgrade(f"{SUBSCRIBE}?token={plain_watchout.token()}")
    empty = web_socket_frame(CONTINUATION, b"", fin=False)
    message = web_socket_frame(TEXT, b"x", fin=False) + empty * 1000 + web_socket_frame(CONTINUATION, b"")
    assert await closed_with(raw, message) == 1008


async def test_a_message_whose_last_fragment_closes_the_socket_ends_with_its_code(watchout, clients):
    """Every 16th fragment counts as a message, and here it is the last one of a message as well."""
    started = watchout(environ={"MESSAGE_RATE": "20"})
    empty = web_socket_frame(CONTINUATION, b"", fin=False)
    ack = json.dumps({"type": "ack", "streamId": "cam", "frameId": 1}).encode()
    message = web_socket_frame(TEXT, ack, fin=False) + empty * 14 + web_socket_frame(CONTINUATION, b"")
    for _ in range(5):
        raw = await clients.raw(started.url)
        await raw.upgrade(f"{SUBSCRIBE}?token={started.token()}")
        assert await closed_with(raw, message * 20) == 1008


@pytest.mark.parametrize("opcode", [PING, PONG])
@pytest.mark.parametrize("known", [True, False])
async def test_a_flood_of_pings_or_pongs_is_closed_and_nobody_else_waits(plain_watchout, clients, opcode, known):
    url, token = plain_watchout.url, plain_watchout.token()
    camera, viewer = await clients.camera(url, token), await clients.viewer(url, token)
    await viewer.subscribe(await camera.register())
    raw = await clients.raw(url)
    await raw.upgrade(f"{SUBSCRIBE}?token={token}" if known else SUBSCRIBE)
    async with camera.streaming(fps=20):
        await viewer.frame()
        flooded = asyncio.get_running_loop().create_task(closed_with(raw, web_socket_frame(opcode, b"x") * 200))
        late = 0.0
        while not flooded.done():
            asked = time.monotonic()
            await viewer.frame()
            late = max(late, time.monotonic() - asked)
        assert await flooded == 1008
    assert late < 15.0


async def test_a_few_pongs_that_nobody_asked_for_do_no_harm(plain_watchout, clients):
    raw = await clients.raw(plain_watchout.url)
    await raw.upgrade(SUBSCRIBE)
    await raw.send(web_socket_frame(PONG, b"") * 100 + web_socket_frame(PING, b"x"))
    assert (await raw.frame()).opcode == PONG


def start_judging(started: Watchout, over_s: float, least_bytes_per_s: int) -> Watchout:
    started.start("router")
    patched_gateway(started, UNFINISHED.format(over_s, least_bytes_per_s))
    started.wait_ready()
    return started


@pytest.fixture(scope="module")
def impatient() -> Iterator[Watchout]:
    """One in which a message must come on within a second and a half."""
    with running(environ={"IDLE_TIMEOUT_S": "4"}, start=False) as started:
        yield start_judging(started, 1.5, 2000)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dripping", [False, True])
async def test_a_message_that_does_not_come_on_is_ended_and_may_come_back(impatient, clients, compressed, dripping):
    raw = await clients.raw(impatient.url)
    headers = ("Sec-WebSocket-Extensions: permessage-deflate",) if compressed else ()
    await raw.upgrade(SUBSCRIBE, *headers)
    # An empty stored block of DEFLATE, so that there is something to inflate in each piece.
    piece, rsv = (b"\x00\x00\x00\xff\xff", 4) if compressed else (b"x", 0)
    await raw.send(web_socket_frame(TEXT, piece, fin=False, rsv=rsv))
    closing = asyncio.get_running_loop().create_task(raw.close_code())
    while dripping and not closing.done():
        await raw.send(web_socket_frame(CONTINUATION, piece, fin=False) + web_socket_frame(PONG, b"p" * 125))
        await asyncio.sleep(0.1)
    assert await closing == 4408


@pytest.mark.parametrize("dripping", [False, True])
async def test_a_frame_that_does_not_come_on_is_ended_and_the_reason_said(impatient, clients, dripping):
    raw = await clients.raw(impatient.url)
    await raw.upgrade(f"{SUBSCRIBE}?token={impatient.token(new_name('alice'))}")
    await raw.send(web_socket_frame(TEXT, b"x" * 10_000)[:20])
    closing = asyncio.get_running_loop().create_task(raw.json("error"))
    while not closing.done():
        if dripping:
            await raw.send(b"y")
        await asyncio.sleep(0.05)
    assert (await closing)["code"] == "MESSAGE_TIMEOUT"
    assert await raw.close_code() == 4408


async def test_a_message_that_comes_on_may_take_as_long_as_it_takes(watchout, clients):
    """Half a picture, a pause, and then a thin uplink: longer than the time over which it is judged.

    That is much longer than any step, and asks for much less than is sent, so that a busy machine is none too slow.
    """
    started = start_judging(watchout(start=False), 4.0, 500)
    forms = ("whole", "in fragments", "compressed")
    await asyncio.gather(*(_takes_its_time(started, clients, form) for form in forms))


async def _takes_its_time(started: Watchout, clients: Clients, form: str) -> None:
    token = started.token(new_name("alice"))
    camera, viewer = await clients.raw(started.url), await clients.viewer(started.url, token)
    headers = ("Sec-WebSocket-Extensions: permessage-deflate",) if form == "compressed" else ()
    await camera.upgrade(f"/streams/register?token={token}", *headers)
    wish = {"type": "register", "streamId": (stream := new_name("cam")), "produces": ["video-frame"]}
    await camera.send(web_socket_frame(TEXT, json.dumps(wish).encode()))
    await camera.json("success")
    await viewer.subscribe(stream)
    text = base64_of(JPEG[:3] + bytes(range(256)) * 120)
    message = json.dumps({"type": "video-frame", "data": text}).encode()
    if form == "whole":
        sent = web_socket_frame(TEXT, message)
    elif form == "compressed":
        deflate = zlib.compressobj(0, zlib.DEFLATED, -15)
        packed = deflate.compress(message) + deflate.flush(zlib.Z_SYNC_FLUSH)
        sent = web_socket_frame(TEXT, packed[:-4], rsv=4)
    else:
        parts = [message[at : at + 700] for at in range(0, len(message), 700)]
        sent = b"".join(
            web_socket_frame(TEXT if n == 0 else CONTINUATION, part, fin=n == len(parts) - 1)
            for n, part in enumerate(parts)
        )
    began = time.monotonic()
    await camera.send(sent[: len(sent) // 2])
    await asyncio.sleep(1.0)
    for at in range(len(sent) // 2, len(sent), 500):
        await camera.send(sent[at : at + 500])
        await asyncio.sleep(0.11)
    assert time.monotonic() - began > 5.0
    assert (await viewer.frame())["data"] == text
    await camera.send(web_socket_frame(TEXT, json.dumps({"type": "video-frame", "data": text}).encode()))
    assert (await viewer.frame())["frameId"] == 2
