"""HTTP below the WebSocket: kept-alive connections, heads that are none, and slow requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time

import pytest

from tests.contract.protocol.support import SUBSCRIBE
from tests.kit.clients import TEXT, Clients, RawSocket, eventually, http, new_name, web_socket_frame

pytestmark = pytest.mark.e2e


async def served(url: str, clients: Clients, token: str, socket: RawSocket) -> None:
    """An upgraded connection works as any."""
    stream = new_name()
    wish = {"type": "subscribe", "streamId": stream, "consumes": ["video-frame"]}
    await socket.send(web_socket_frame(TEXT, json.dumps(wish).encode()))
    assert (await socket.json("status"))["status"] == "offline"
    camera = await clients.camera(url, token)
    await camera.register(stream)
    await camera.show()
    assert (await socket.json("video-frame"))["frameId"] == 1


@pytest.mark.parametrize("how", ["whole", "two pieces", "byte by byte", "pipelined"])
async def test_a_later_request_of_a_kept_alive_connection_may_be_the_upgrade(url, alice, clients, how):
    raw = await clients.raw(url)
    first, upgrade = raw.head("/health/live"), raw.upgrade_head(f"{SUBSCRIBE}?token={alice}")
    if how == "pipelined":
        await raw.send(first + upgrade)
        assert (await raw.answer()).status == 200
    else:
        for _ in range(2):
            await raw.send(first)
            assert (await raw.answer()).status == 200
        if how == "whole":
            await raw.send(upgrade)
        elif how == "two pieces":
            await raw.send(upgrade[:30])
            assert (await http(f"{url}/health/live")).status == 200  # the piece has arrived by now
            await raw.send(upgrade[30:])
        else:
            for at in range(len(upgrade)):
                await raw.send(upgrade[at : at + 1])
                await asyncio.sleep(0)
    answer = await raw.answer()
    if how == "pipelined" and answer.status == 426:  # no client and no proxy does that; an error is good enough
        return
    assert answer.status == 101
    await served(url, clients, alice, raw)


async def test_http_requests_follow_each_other_on_one_connection(url, alice, clients):
    raw = await clients.raw(url)
    for path, status in (("/health/live", 200), ("/nothing", 404), ("/streams", 401), ("/", 200), ("/stats", 200)):
        await raw.send(raw.head(path))
        assert (await raw.answer()).status == status
    await raw.send(raw.head("/streams", f"Authorization: Bearer {alice}", "Connection: close"))
    assert (await raw.answer()).status == 200
    assert await raw.gone() == b""


@pytest.mark.parametrize(
    "lines",
    [
        ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
        ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x"),
        ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + "A" * 100),
        ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        (
            "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 8",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
        ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        ("Upgrade: h2c", "Connection: Upgrade"),
        ("Upgrade: websocket", "Connection: Upgrade", "no header line"),
        ("Upgrade: websocket", "Connection: Upgrade", "Authorization: Bearer a", "Authorization: Bearer b"),
    ],
)  # fmt: skip
async def test_a_handshake_that_is_none_is_a_4xx_with_a_json_body(url, clients, lines):
    raw = await clients.raw(url)
    await raw.send(raw.head(SUBSCRIBE, *lines))
    answer = await raw.answer()
    assert 400 <= answer.status < 500
    assert answer.error
    if "Sec-WebSocket-Version: 8" in lines:
        assert answer.headers.get("sec-websocket-version") == "13"  # RFC 6455 section 4.4
    assert (await http(f"{url}/health/live")).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"GARBAGE\r\n\r\n", b"\r\n\r\n\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
        b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"\0" * 40_000, b"A" * 40_000,
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"GET \xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /alerts HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /streams/subscribe HTTP/1.1\r\nUpgrade: websocket\r\n\r\n\xff\xff\xff\xff",
    ],
)  # fmt: skip
async def test_what_is_no_http_is_answered_with_4xx_or_closed(url, clients, data):
    raw = await clients.raw(url)
    with contextlib.suppress(ConnectionError):
        await raw.send(data)
        raw.writer.write_eof()
    said = await raw.gone()
    assert said == b"" or re.match(rb"HTTP/1\.[01] 4\d\d ", said), said[:200]
    if said:
        body = json.loads(said.partition(b"\r\n\r\n")[2].partition(b"HTTP/1.")[0])
        assert body["error"]["code"]
    assert (await http(f"{url}/health/live")).status == 200


@pytest.mark.parametrize("upgrade", [True, False])
@pytest.mark.parametrize("lines", [["X-Long: " + "x" * 17 * 1024], [f"X-{n}: {'x' * 100}" for n in range(170)]])
async def test_a_head_of_17_kib_is_refused(url, clients, upgrade, lines):
    raw = await clients.raw(url)
    with contextlib.suppress(ConnectionError):
        await raw.send((raw.upgrade_head if upgrade else raw.head)(SUBSCRIBE if upgrade else "/health/live", *lines))
    answer = await raw.answer()
    assert 400 <= answer.status < 500
    assert answer.error


async def test_a_thousand_headers_do_no_harm(url, clients):
    raw = await clients.raw(url)
    await raw.send(raw.head("/health/live", *[f"A{n}: b" for n in range(1000)]))
    assert (await raw.answer()).status in (200, 400, 431)
    assert (await http(f"{url}/health/live")).status == 200


@pytest.mark.parametrize("data", [b"", b"G", b"GET / HTTP/1.1\r\n", b"GET /streams/subscribe HTTP/1.1\r\nUpgrade: w"])
async def test_half_a_request_is_closed_when_its_time_is_over(hasty_watchout, clients, data):
    raw = await clients.raw(hasty_watchout.url)
    if data:
        await raw.send(data)
    said = await raw.gone()
    assert said == b"" or said.startswith(b"HTTP/1.1 4")


async def test_a_slow_head_is_served_in_time_and_closed_past_it(url, hasty_watchout, clients):
    quick = await clients.raw(url)
    head = quick.head("/health/live")
    for at in range(len(head)):
        await quick.send(head[at : at + 1])
    assert (await quick.answer()).status == 200
    began = time.monotonic()
    slow = await clients.raw(hasty_watchout.url)

    async def drip() -> bool:
        try:
            await slow.send(b"x" if slow.reader.at_eof() else b"G")
        except ConnectionError:
            return True
        return slow.reader.at_eof()

    await slow.send(b"GET /")
    reading = asyncio.create_task(slow.gone(60))
    await eventually(drip)  # a deadline that each byte prolongs would never be over
    await reading
    assert time.monotonic() - began > 0.9


@pytest.mark.parametrize("cut", [True, False])
async def test_a_client_that_is_gone_before_its_handshake_is_answered_does_no_harm(url, alice, clients, cut):
    for query in ("", f"?token={alice}", "?token=" + "w" * 32):
        raw = await clients.raw(url)
        await raw.send(raw.upgrade_head(SUBSCRIBE + query))
        if cut:
            await raw.leave()
        else:
            raw.writer.write_eof()
            await raw.gone()
    viewer = await clients.viewer(url, alice)
    await viewer.rest()


async def test_a_head_request_has_no_body(url, clients):
    answer = await http(f"{url}/health/live", method="HEAD")
    assert answer.status in (200, 405)
    assert answer.body == b""


async def test_connections_that_come_and_go_leave_nothing_behind(watchout, watchout_loop, clients):
    started = watchout(loop=watchout_loop)
    token = started.token()
    for n in range(30):
        made = Clients()
        camera, viewer = await made.camera(started.url, token), await made.viewer(started.url, token, "query")
        await camera.register("cam" if n % 2 else None)
        await viewer.subscribe(camera.stream)
        await camera.show()
        if n % 3:
            camera.cut()
            viewer.cut()
        raw = await made.raw(started.url)
        await raw.send(raw.upgrade_head(SUBSCRIBE)[: 20 + 5 * n])
        await made.close()
    names = ("totalConnections", "totalProducers", "totalVideoConsumers", "activeStreams")

    async def nothing_is_left() -> bool:
        stats = (await http(f"{started.url}/stats")).json
        return [stats.get(name) for name in names] == [0, 0, 0, []]

    await eventually(nothing_is_left)
