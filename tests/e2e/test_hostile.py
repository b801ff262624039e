"""Clients that mean harm, or that are merely odd: nobody else notices, nothing grows, and the gateway still ends."""

from __future__ import annotations

import asyncio
import zlib

import psutil

from tests.kit.clients import CLOSE, JPEG, PING, PONG, TEXT, base64_of, eventually, http, web_socket_frame
from tests.kit.processes import SERVICE_TOKEN

SUBSCRIBE = "/streams/subscribe"


def resident_mib(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 2**20


def cpu_s(pid: int) -> float:
    return float(sum(psutil.Process(pid).cpu_times()[:2]))


async def test_the_gateway_ends_in_time_although_requests_are_not_finished(watchout, clients):
    started = watchout(environ={"DRAIN_S": "1"})
    gateway = started.one("gateway")
    raw = await clients.raw(started.url)
    await raw.send(raw.head("/alerts", "Content-Length: 100000", method="POST"))
    assert (await raw.answer()).status == 401
    reader = await clients.raw(started.url)
    await reader.send(reader.head("/streams/x/frame.jpg", "Authorization: Bearer x")[:-2])
    assert await asyncio.to_thread(gateway.terminate, 5.0) == 0


async def test_a_message_and_the_close_in_one_piece_are_both_answered(watchout, clients):
    raw = await clients.raw(watchout().url)
    assert (await raw.upgrade(SUBSCRIBE)).status == 101
    await raw.send(web_socket_frame(TEXT, b"hi") + web_socket_frame(CLOSE, b"\x03\xe8"))
    assert (await raw.json("error"))["code"] == "AUTH_REQUIRED"
    assert await raw.close_code() == 1000


async def test_a_ping_that_comes_with_the_handshake_is_answered_after_it(watchout, clients):
    raw = await clients.raw(watchout().url)
    await raw.send(raw.upgrade_head(SUBSCRIBE) + web_socket_frame(PING, b"x"))
    assert (await raw.answer()).status == 101
    assert (await raw.frame()).opcode == PONG


async def test_a_header_that_is_no_text_is_refused_like_any_wrong_token(watchout, clients):
    started = watchout(environ={"STATS_TOKEN": "s" * 16})
    for path, method in (("/alerts", "POST"), ("/stats", "GET"), ("/metrics", "GET")):
        raw = await clients.raw(started.url)
        head = raw.head(path, "Authorization: Bearer XX", "Content-Length: 0", method=method)
        await raw.send(head.replace(b"XX", b"\xff\xfe"))
        assert (await raw.answer()).status == 401


async def test_deflate_bombs_of_a_stranger_take_neither_memory_nor_anybodys_time(watchout, clients):
    started = watchout()
    token, pid = started.token(), started.one("gateway").pid
    camera, viewer = await clients.camera(started.url, token), await clients.viewer(started.url, token)
    stream = await camera.register("cam")
    await viewer.subscribe(stream)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflate.compress(b"a" * (1 << 20)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    frame = web_socket_frame(TEXT, bomb[:-4], rsv=4)
    before = resident_mib(pid)
    raw = await clients.raw(started.url)
    assert (await raw.upgrade(SUBSCRIBE, "Sec-WebSocket-Extensions: permessage-deflate")).status == 101
    async with camera.streaming(fps=20):
        await viewer.frame()
        peak, worked_s = before, cpu_s(pid)
        raw.writer.write(frame * 1500)
        for _ in range(40):
            await viewer.frame()
            peak = max(peak, resident_mib(pid))
    assert peak - before < 256  # inflated it is 1500 MiB
    assert cpu_s(pid) - worked_s < 1.0  # that takes several seconds, in which it does nothing else


async def test_pings_of_a_client_that_reads_nothing_do_not_pile_up(watchout, clients):
    started = watchout()
    pid = started.one("gateway").pid
    raw = await clients.raw(started.url)
    assert (await raw.upgrade(f"{SUBSCRIBE}?token={started.token()}")).status == 101
    raw.reader._transport.pause_reading()
    before = resident_mib(pid)
    ping = web_socket_frame(PING, b"p" * 125)
    for _ in range(100):  # below the rate of messages: 15 000 pings, 2 MB of pongs, in about 8 s
        raw.writer.write(ping * 150)
        await asyncio.sleep(0.08)
    assert resident_mib(pid) - before < 16


async def test_more_kept_alerts_than_the_queue_holds_are_replayed_in_order(watchout, clients):
    started = watchout(environ={"SERVICE_TOKEN": SERVICE_TOKEN})
    token = started.token()
    camera = await clients.camera(started.url, token)
    stream = await camera.register("cam")
    await camera.show(base64_of(JPEG))
    metadata = {"x": "y" * 15_000}
    for first in range(0, 200, 50):
        alerts = [
            {"streamId": stream, "severity": "low", "message": str(number), "metadata": metadata}
            for number in range(first, first + 50)
        ]
        answer = await http(f"{started.url}/alerts", token=SERVICE_TOKEN, method="POST", body=alerts)
        assert answer.status == 202
    viewer = await clients.viewer(started.url, token)
    await viewer.subscribe(stream, alertsSince=0)
    await eventually(lambda: sum(m["type"] == "alert" for m in viewer.heard) == 200, 30)
    assert [m["message"] for m in viewer.heard if m["type"] == "alert"] == [str(n) for n in range(200)]


async def test_the_router_restart_shows_a_stranger_nothing_and_loses_no_alert(watchout, clients):
    started = watchout(gateways=2, environ={"SERVICE_TOKEN": SERVICE_TOKEN})
    ann, bob = started.token("ann"), started.token("bob")
    camera = await clients.camera(started.url, ann)
    stream = await camera.register("secret")
    viewers = [await clients.viewer(started.url, ann) for _ in range(4)]
    for viewer in viewers:
        await viewer.subscribe(stream)
    await camera.show(base64_of(JPEG))
    for viewer in viewers:
        await viewer.frame()
    started.one("router").kill()
    started.start("router")
    strangers = [await clients.viewer(started.url, bob) for _ in range(4)]
    alert = {"streamId": stream, "severity": "high", "message": "fire"}
    pictures, pushed = await asyncio.gather(
        asyncio.gather(*(http(f"{started.url}/streams/{stream}/frame.jpg", token=bob) for _ in range(4))),
        http(f"{started.url}/alerts", token=SERVICE_TOKEN, method="POST", body=alert),
    )
    assert {answer.status for answer in pictures} <= {404, 503}
    assert pushed.status == 202
    for stranger in strangers:
        await stranger.send("subscribe", streamId=stream, consumes=["video-frame", "alert"])
        assert (await stranger.expect("error"))["code"] in ("UNAUTHORIZED", "ROUTING_ERROR")
    for viewer in viewers:
        await viewer.find("alert", message="fire")


async def test_one_user_cannot_wait_for_so_many_streams_that_nobody_else_can(watchout, clients):
    started = watchout(environ={"MAX_WAITS_PER_USER": "2"})
    mallory, alice = started.token("mallory"), started.token("alice")
    camera = await clients.camera(started.url, mallory)
    own = await camera.register()
    first, second = await clients.viewer(started.url, mallory), await clients.viewer(started.url, mallory)
    await first.subscribe("a")
    await second.subscribe("b")
    await second.send("subscribe", streamId="c", consumes=["alert"])
    await second.expect("error", code="RATE_LIMITED")
    await second.subscribe(own)  # its own is no waiting
    await (await clients.viewer(started.url, alice)).subscribe("c")
    await first.send("unsubscribe", streamId="a")
    await first.expect("success", event="unsubscribed", streamId="a")
    await second.subscribe("c")
    await first.send("subscribe", streamId="a", consumes=["alert"])
    await first.expect("error", code="RATE_LIMITED")
    await second.leave()

    async def room() -> bool:
        await first.send("subscribe", streamId="a", consumes=["alert"])
        return (await first.next())["type"] == "success"

    await eventually(room)
