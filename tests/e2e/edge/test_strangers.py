"""Connections without a user: how many, from which address, and behind which proxies."""

from __future__ import annotations

import contextlib
import json

import psutil

from tests.e2e.edge.support import SUBSCRIBE, asks, from_elsewhere
from tests.kit.clients import PING, PONG, TEXT, Clients, RawSocket, eventually, http, web_socket_frame
from tests.kit.processes import Watchout

#: Nobody's time is over while a test counts them.
PATIENT = {"AUTH_TIMEOUT_S": "120", "HANDSHAKE_TIMEOUT_S": "60"}


async def stranger(clients: Clients, url: str, *headers: str) -> RawSocket:
    """A socket that does not say who it is."""
    raw = await from_elsewhere(clients, url)
    await raw.upgrade(SUBSCRIBE, *headers)
    return raw


async def is_full(raw: RawSocket) -> bool:
    """Whether the server closes this socket because there are too many."""
    await raw.send(web_socket_frame(PING, b"?"))
    frame = await raw.frame()
    if frame.opcode == PONG:
        return False
    assert json.loads(frame.payload)["code"] == "TOO_MANY_CONNECTIONS"
    assert await raw.close_code() == 1013
    return True


async def test_strangers_of_one_address_are_limited_and_good_users_connect(watchout, clients):
    started = watchout(environ={**PATIENT, "MAX_UNAUTHENTICATED_PER_ADDRESS": "10"})
    token = started.token()
    held = [await stranger(clients, started.url) for _ in range(10)]
    assert await is_full(await stranger(clients, started.url))
    raw = await from_elsewhere(clients, started.url)
    await raw.send(raw.head("/"))
    answer = await raw.answer()
    assert (answer.status, answer.error, answer.headers["retry-after"]) == (503, "TOO_MANY_CONNECTIONS", "1")
    assert (await clients.viewer(started.url, token)).open
    await held[0].send(web_socket_frame(TEXT, json.dumps({"type": "auth", "token": token}).encode()))
    await held[0].json("success")  # no stranger any more
    assert not await is_full(await stranger(clients, started.url))
    assert await is_full(await stranger(clients, started.url))
    await held[1].leave()
    await eventually(lambda: _takes_another(clients, started.url))


async def _takes_another(clients: Clients, url: str) -> bool:
    raw = await stranger(clients, url)
    full = await is_full(raw)
    await raw.leave()
    return not full


async def test_connections_that_say_nothing_are_strangers_until_their_time_is_over(watchout, clients):
    started = watchout(environ={"MAX_UNAUTHENTICATED_PER_ADDRESS": "5", "HANDSHAKE_TIMEOUT_S": "1"})

    async def five_fill_it() -> bool:
        silent = [await from_elsewhere(clients, started.url) for _ in range(5)]
        await silent[0].send(b"GET /hea")
        full = False
        with contextlib.suppress(OSError, EOFError):  # too late itself
            full = await is_full(await stranger(clients, started.url))
        for raw in silent:
            await raw.gone()
        return full

    await eventually(five_fill_it)  # on a busy machine their second may be over before the sixth comes

    async def another_comes_in() -> bool:
        with contextlib.suppress(OSError, EOFError):
            return await _takes_another(clients, started.url)
        return False

    await eventually(another_comes_in)


async def test_all_strangers_together_have_no_more_than_half_of_the_connections(watchout, clients):
    started = watchout(environ={**PATIENT, "MAX_CONNECTIONS": "20", "MAX_CONNECTIONS_PER_ADDRESS": "20"})
    token = started.token()
    known = [await clients.viewer(started.url, token) for _ in range(5)]
    for _ in range(10):
        await stranger(clients, started.url)
    assert await is_full(await stranger(clients, started.url))
    await known[0].rest()
    assert all(viewer.open for viewer in known)


async def test_of_connections_far_over_a_limit_the_rest_is_cut_off(watchout, clients):
    started = watchout(environ={**PATIENT, "MAX_UNAUTHENTICATED_PER_ADDRESS": "2"})
    pid = started.one("gateway").pid
    for _ in range(2):
        await stranger(clients, started.url)
    crowd = [await from_elsewhere(clients, started.url) for _ in range(200)]
    await eventually(lambda: psutil.Process(pid).num_fds() < 140)
    assert (await http(f"{started.url}/health/live")).status == 200
    for raw in crowd:
        await raw.leave()
    await eventually(lambda: _takes_another_now(clients, started))


async def _takes_another_now(clients: Clients, started: Watchout) -> bool:
    raw = await clients.raw(started.url)
    await raw.upgrade(SUBSCRIBE)
    return not await is_full(raw)


async def test_a_header_of_somebody_who_is_no_trusted_proxy_does_not_move_him(watchout, clients):
    started = watchout(environ={**PATIENT, "MAX_UNAUTHENTICATED_PER_ADDRESS": "3"})
    for number in range(3):
        assert not await is_full(await stranger(clients, started.url, f"X-Forwarded-For: 192.0.2.{number}"))
    assert await is_full(await stranger(clients, started.url, "X-Forwarded-For: 192.0.2.99"))


async def test_behind_a_trusted_proxy_each_client_has_a_limit_of_its_own(watchout, clients):
    proxies = {"TRUSTED_PROXIES": "127.0.0.0/8, 10.0.0.0/8"}
    started = watchout(environ={**PATIENT, **proxies, "MAX_UNAUTHENTICATED_PER_ADDRESS": "2"})

    async def full(forwarded: str) -> bool:
        return await is_full(await stranger(clients, started.url, f"X-Forwarded-For: {forwarded}"))

    assert [await full("192.0.2.1") for _ in range(3)] == [False, False, True]
    assert not await full("192.0.2.2")
    assert await full("198.51.100.9, 192.0.2.1, 10.0.0.3")  # what stands left is invented
    assert [await full(f"2001:db8::{n}") for n in (1, 2, 3)] == [False, False, True]  # IPv6 by its first 64 bits
    assert not await full("2001:db8:0:1::1")
    assert await full("::ffff:192.0.2.1")
    raw = await from_elsewhere(clients, started.url)
    await raw.send(raw.head("/", "X-Forwarded-For: 192.0.2.1"))
    assert (await raw.answer()).status == 503


async def test_a_kept_connection_of_a_proxy_becomes_a_stranger_when_it_becomes_a_socket(watchout, clients):
    started = watchout(environ={**PATIENT, "MAX_UNAUTHENTICATED_PER_ADDRESS": "1"})
    sockets = []
    for _ in range(2):
        raw = await from_elsewhere(clients, started.url)
        assert (await asks(raw, "/streams", f"Authorization: Bearer {started.token()}")).status == 200
        sockets.append(raw)
    for raw in sockets:
        await raw.upgrade(SUBSCRIBE)
    assert [await is_full(raw) for raw in sockets] == [False, True]
