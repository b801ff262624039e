"""HTTP requests without a user: limits, slow bodies, kept connections, and heads that are none."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Final

import pytest

from tests.e2e.edge.support import ALERT, HURRIED, SUBSCRIBE, asks, from_elsewhere, patched_gateway, signature
from tests.kit.clients import RawSocket, eventually, http
from tests.kit.processes import SERVICE_TOKEN, Watchout

#: Less than the 30 s for which the connection of who is known is kept.
LONGER_S: Final = 20.0


#: Nobody's connection is closed for its silence while a test counts them.
PATIENT = (
    "import watchout.gateway.listen.dispatch, watchout.gateway.http.server\n"
    "watchout.gateway.listen.dispatch.UNAUTHENTICATED_KEEPALIVE_S = 600.0\n"
    "watchout.gateway.http.server.KEEPALIVE_S = 600.0"
)


def patient(watchout: Callable[..., Watchout], **environ: str) -> Watchout:
    started = watchout(environ=environ, start=False)
    started.start("router")
    patched_gateway(started, PATIENT)
    started.wait_ready()
    return started


async def is_open(raw: RawSocket) -> bool:
    """Whether the server has not ended this connection by now."""
    with contextlib.suppress(TimeoutError):
        await raw.gone(0.05)
        return False
    return True


async def test_kept_http_connections_of_a_stranger_leave_room_for_everybody(watchout, clients):
    started = patient(watchout, MAX_CONNECTIONS="20", MAX_UNAUTHENTICATED_PER_ADDRESS="20")
    token, crowd = started.token(), []
    for _ in range(40):
        raw = await from_elsewhere(clients, started.url)
        answer = await asks(raw, "/health/live")
        assert answer.status == 200
        crowd.append((raw, answer.headers.get("connection")))
    kept = [raw for raw, said in crowd if said != "close"]
    assert len(kept) == 7  # three quarters of the ten that strangers may have
    for raw, said in crowd:
        if said == "close":
            await raw.gone()
    assert all([await is_open(raw) for raw in kept])
    viewers = [await clients.viewer(started.url, token) for _ in range(10)]
    assert (await http(f"{started.url}/health")).status == 200
    assert all(viewer.open for viewer in viewers)


async def test_one_address_full_of_kept_connections_lets_its_users_in(watchout, clients):
    started = patient(watchout, MAX_CONNECTIONS="20", MAX_UNAUTHENTICATED_PER_ADDRESS="8")
    held = []
    for _ in range(20):
        raw = await clients.raw(started.url)
        assert (await asks(raw, "/streams", "Authorization: Bearer wrong")).status == 401
        held.append(raw)
    assert (await clients.viewer(started.url, started.token(), "header")).open
    assert (await http(f"{started.url}/health/live")).status == 200

    async def six_are_open() -> bool:
        return sum([await is_open(raw) for raw in held]) == 6

    await eventually(six_are_open)


async def test_the_connection_of_a_stranger_is_kept_for_a_short_time(hurried, clients):
    async def is_kept(path: str) -> RawSocket | None:
        """The connection, after 0.9 s and four answers, each of which gives it 0.6 s anew."""
        raw = await clients.raw(hurried.url)
        for number in range(4):
            await asyncio.sleep(0.3 if number else 0)
            try:
                answer = await asks(raw, path)
            except (OSError, EOFError):  # on a busy machine 0.6 s may be over
                return None
            assert answer.status in (200, 401, 404)
            assert "connection" not in answer.headers
        return raw

    async def is_kept_and_closed(path: str) -> None:
        kept: RawSocket = await eventually(lambda: is_kept(path))
        await kept.gone(LONGER_S)

    paths = ("/health", "/health/live", "/", "/nowhere", "/streams", "/streams?token=wrong", "/stats")
    await asyncio.gather(*map(is_kept_and_closed, paths))


async def test_bytes_of_a_request_that_is_never_whole_keep_nothing(hurried, clients):
    raw = await clients.raw(hurried.url)
    assert (await asks(raw, "/health/live")).status == 200
    dripping = asyncio.get_running_loop().create_task(_drip(raw, raw.head("/health/live", "X: " + "y" * 3000)))
    try:
        assert await raw.gone(LONGER_S) == b""
    finally:
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def test_the_connection_of_who_is_known_is_kept_for_longer(hurried, clients):
    token, body = hurried.token(), json.dumps(ALERT).encode()
    requests = [
        ("GET", "/streams", [f"Authorization: Bearer {token}"], b""),
        ("GET", f"/streams/nothing/frame.jpg?token={token}", [], b""),
        ("GET", "/health", ["Authorization: Bearer " + "s" * 16], b""),
        ("GET", "/metrics", ["Authorization: Bearer " + "s" * 16], b""),
        ("POST", "/alerts", [f"Authorization: Bearer {SERVICE_TOKEN}"], body),
        ("POST", "/alerts", signature("known", body), body),
    ]
    opened = []
    for method, path, headers, content in requests:
        raw = await clients.raw(hurried.url)
        await raw.send(raw.head(path, *headers, f"Content-Length: {len(content)}", method=method) + content)
        assert (await raw.answer()).status in (200, 202, 404)
        opened.append(raw)
    await asyncio.sleep(1.5)
    for raw in opened:
        assert (await asks(raw, "/health/live")).status == 200
    await asyncio.sleep(1.0)
    assert all([await is_open(raw) for raw in opened])


async def test_what_only_looks_like_a_signature_makes_nobody_known(hurried, clients):
    body = json.dumps(ALERT).encode()
    for headers in (signature("bad", b"other"), ["Authorization: Bearer wrong"]):
        raw = await clients.raw(hurried.url)
        await raw.send(raw.head("/alerts", *headers, f"Content-Length: {len(body)}", method="POST") + body)
        assert (await raw.answer()).status == 401
        await raw.gone(LONGER_S)


async def test_the_kept_connection_of_a_trusted_proxy_is_not_closed_for_a_short_silence(watchout, clients):
    started = watchout(environ={"TRUSTED_PROXIES": "127.0.0.0/8"}, start=False)
    started.start("router")
    patched_gateway(started, HURRIED)
    started.wait_ready()
    raw = await clients.raw(started.url)
    for client in ("192.0.2.1", "192.0.2.2"):
        answer = await asks(raw, "/health/live", f"X-Forwarded-For: {client}")
        assert answer.status == 200
        assert "connection" not in answer.headers
        await asyncio.sleep(1.5)
    assert await is_open(raw)


# ── heads ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["X: " + "y" * 4000] * 5, 431),
        (["X: y"] * 100, 431),
        (["X: " + "y" * 17_000], 431),
        (["Host: other"], 400),
        (["X: a\0b"], 400),
        (["X: a", " folded"], 400),
        (["X : a"], 400),
        (["no colon"], 400),
    ],
)
@pytest.mark.parametrize("path", ["/health/live", SUBSCRIBE])
async def test_a_head_that_is_too_much_or_none_is_refused(plain_watchout, clients, first, lines, status, path):
    raw = await clients.raw(plain_watchout.url)
    if not first:
        await raw.send(raw.head("/health/live"))
        assert (await raw.answer()).status == 200
    await raw.send((raw.upgrade_head if path == SUBSCRIBE else raw.head)(path, *lines))
    answer = await raw.answer()
    assert answer.status == status if first else answer.status in (status, 400)
    assert answer.error
    await raw.gone()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /health/live HTTP/1.1\r\n\r\n", 400),
        (b"GET /streams/subscribe HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 400),
        (b"\r\n\r\nGET /health/live HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (b"GET /health/live HTTP/1.0\r\n\r\n", 200),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400),
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"A" * 60, 400),
    ],
)
async def test_what_begins_a_connection_is_a_request_or_refused_at_once(plain_watchout, clients, data, status):
    raw = await clients.raw(plain_watchout.url)
    await raw.send(data)
    assert (await raw.answer()).status == status


async def test_a_head_that_drips_is_answered_and_closed_when_its_time_is_over(watchout, clients):
    started = watchout(environ={"HANDSHAKE_TIMEOUT_S": "1"})
    raw = await clients.raw(started.url)
    head = raw.head("/health/live", "X: " + "y" * 3000)
    dripping = asyncio.get_running_loop().create_task(_drip(raw, head))
    try:
        answer = await raw.answer()
    finally:
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
    assert (answer.status, answer.error) == (408, "TIMEOUT")  # long before the head is whole
    await raw.gone()


async def _drip(raw: RawSocket, data: bytes) -> None:
    for at in range(len(data)):
        await raw.send(data[at : at + 1])
        await asyncio.sleep(0.02)
