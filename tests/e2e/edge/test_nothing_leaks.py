"""What stands in no log, metric or response, and what strangers can make the gateway do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time

import pytest

from tests.e2e.edge.support import LOOPS, REGISTER, SIGNED, SUBSCRIBE, asks, cookie, patched_gateway, push, shake_hands
from tests.kit.clients import TEXT, RawSocket, http, web_socket_frame
from tests.kit.processes import SERVICE_TOKEN


async def test_no_token_and_no_picture_reaches_a_log_or_a_metric(watchout, clients):
    started = watchout(environ={**SIGNED, "LOG_LEVEL": "debug"})
    url, canary, good = started.url, "canary" + secrets.token_hex(16), started.token()
    for token in (canary, good):
        for path in (SUBSCRIBE, f"{REGISTER}?token={token}", f"{SUBSCRIBE}?ticket={token}"):
            await shake_hands(clients, url, path=path)
            await shake_hands(clients, url, f"Authorization: Bearer {token}", path=path)
            await shake_hands(clients, url, cookie(token), f"Origin: {url}", path=path)
            await shake_hands(clients, url, cookie(token), f"Origin: http://{canary}.example", path=path)
        raw = await clients.raw(url)
        await raw.upgrade(SUBSCRIBE)
        await raw.send(web_socket_frame(TEXT, json.dumps({"type": "auth", "token": token}).encode()))
        await raw.frame()
        await raw.send(web_socket_frame(TEXT, f'{{"type":"{canary}"}}'.encode()))
        for path in ("/streams", f"/streams?token={token}", f"/streams/{canary}/frame.jpg", f"/{token}"):
            await http(url + path, token=token, headers={"Cookie": cookie(token).partition(": ")[2]})
        await http(f"{url}/alerts", method="POST", token=token, body={"message": canary})
        await push(url, canary, {"message": canary}, headers={"webhook-signature": f"v1,{canary}"})
        for head in (f"GET /?token={token} HTTP/1.1", f"{canary}", f"GET / HTTP/1.1\r\n{canary}"):
            raw = await clients.raw(url)
            await raw.send(f"{head}\r\n\r\n".encode())
            await raw.answer()
    camera, viewer = await clients.camera(url, good), await clients.viewer(url, good)
    stream = await camera.register()
    await viewer.subscribe(stream, format="binary")
    await camera.show(f"!{canary}!")  # no base64
    await camera.show(canary * 1000)
    await camera.show_binary(canary.encode())
    await camera.send_raw(f'{{"type":"video-frame","data":"{canary}"'.encode())  # no JSON
    await camera.rest()
    page = (await http(f"{url}/metrics")).body.decode()
    for secret in (canary, good, SERVICE_TOKEN, good.partition(".")[0]):
        assert secret not in started.output
        assert secret not in page


async def test_an_exception_in_the_handshake_says_nothing_to_the_stranger(watchout, clients):
    canary = "canary" + secrets.token_hex(8)
    started = watchout(start=False, expected=("Traceback", "failed"))
    started.start("router")
    patched_gateway(
        started,
        "import watchout.gateway.client.socket_reader as w\n"
        f"def broken(*_): raise RuntimeError({canary!r})\n"
        "w.ServerProtocol.accept = broken",
    )
    started.wait_ready()
    answer = await shake_hands(clients, started.url)
    assert (answer.status, answer.error) == (500, "INTERNAL_ERROR")
    assert canary.encode() not in answer.body
    assert (await http(f"{started.url}/health/live")).status == 200
    assert started.output.count("Traceback (most recent call last)") <= 1


async def test_the_metrics_have_no_names_of_streams_or_users(watchout, clients):
    started = watchout(environ={"STATS_TOKEN": "s" * 16})
    token = started.token("canary-user")
    camera = await clients.camera(started.url, token)
    await camera.register("canary-stream")
    await camera.show()
    for path in ("/metrics", "/stats"):
        assert (await http(started.url + path)).status == 401
        assert (await http(started.url + path, token=token)).status == 401
    page = (await http(f"{started.url}/metrics", token="s" * 16)).body.decode()
    assert "watchout_frames_in_total" in page
    assert "canary" not in page
    assert "canary" not in (await http(f"{started.url}/health")).body.decode()


# ── work for strangers, and the end ──────────────────────────────────────────────────────────────────────────────

SLOW_ROUTER = """
import asyncio
from watchout.gateway.router_queries import RouterQueries
query, asking = RouterQueries._ask_all, 0
async def slow(self, *args, **kw):
    global asking
    asking += 1
    print(f"asks {asking}", flush=True)
    await asyncio.sleep(0.05)
    try:
        return await query(self, *args, **kw)
    finally:
        asking -= 1
RouterQueries._ask_all = slow
"""


async def test_however_many_ask_for_the_metrics_the_router_is_asked_once_at_a_time(watchout, clients):
    started = watchout(start=False)
    started.start("router")
    gateway = patched_gateway(started, SLOW_ROUTER)
    started.wait_ready()
    token = started.token()
    before, begun, answered = gateway.output.count("asks "), time.monotonic(), 0
    paths = ("/stats", "/metrics", "/health")

    async def ask_again_and_again(raw: RawSocket, path: str) -> None:
        nonlocal answered
        while answered < 400:
            assert (await asks(raw, path)).status == 200
            answered += 1

    opened = [await clients.raw(started.url) for _ in range(60)]
    await asyncio.gather(*(ask_again_and_again(raw, paths[number % 3]) for number, raw in enumerate(opened)))
    asked = gateway.output.count("asks ") - before
    assert "asks 2" not in gateway.output
    assert asked <= (time.monotonic() - begun) / 0.25 + 2  # it rests in between, so that the router is free for others
    streams: list[str] = []
    for _ in range(3):  # what is asked now is answered as it is now
        streams.append(await (await clients.camera(started.url, token)).register())
        assert sorted((await http(f"{started.url}/stats")).json["activeStreams"]) == sorted(streams)


LATE_ANSWERS = """
import asyncio, random
import watchout.gateway.http.responses, watchout.gateway.http.health
async def late(self, request):
    await asyncio.sleep(random.random())
    return watchout.gateway.http.responses.json_response({})
watchout.gateway.http.health.HealthPages.live = late
"""


@pytest.mark.parametrize("loop", LOOPS)
async def test_a_gateway_ends_in_time_and_without_a_word_under_a_flood_of_requests(watchout, clients, loop):
    started = watchout(loop=loop, start=False)
    started.start("router")
    gateway = patched_gateway(started, LATE_ANSWERS)
    started.wait_ready()

    async def flood(raw: RawSocket) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                await raw.send(raw.head("/health/live"))
                await raw.answer()

    opened = [await clients.raw(started.url) for _ in range(1000)]
    flooding = [asyncio.create_task(flood(raw)) for raw in opened]
    await asyncio.sleep(1.0)
    assert await asyncio.to_thread(gateway.terminate, 10.0) == 0  # 5 s, and what a busy machine adds
    await asyncio.wait_for(asyncio.gather(*flooding), 30)
    for word in ("Traceback", "InvalidStateError", "did not close everything"):
        assert word not in gateway.output
    assert "gateway ended" in gateway.output
