"""Readers of answers over HTTP that take nothing, or next to nothing: bounded, ended, and nobody else waits."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import pytest

from tests.kit.clients import Clients, RawSocket, eventually, http
from tests.kit.processes import SERVICE_TOKEN, Watchout
from tests.kit.readers import Reader, all_leave, gateway_figures, own_memory_bytes

pytestmark = pytest.mark.e2e

READERS: Final = 100
#: Readers are cut off after ten seconds without a byte; the machine may be busy.
ENDED_S: Final = 40.0
MIB: Final = 1 << 20


async def many_alerts(started: Watchout, clients: Clients, user: str) -> str:
    """A stream of the user with about 7 MiB of alerts."""
    camera = await clients.camera(started.url, started.token(user))
    stream = await camera.register()
    alert = {"streamId": stream, "severity": "low", "message": "m", "metadata": {"x": "y" * 16_000}}
    for _ in range(18):
        answer = await http(f"{started.url}/alerts", method="POST", token=SERVICE_TOKEN, body=[alert] * 25)
        assert answer.status == 202
    return stream


async def ask_and_read_nothing(started: Watchout, path: str, token: str) -> Reader:
    reader = await Reader.connect(started.port, receive_buffer=4096)
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(reader.sock, head.encode())
    return reader


async def test_a_hundred_readers_that_read_nothing_hold_little_and_are_ended(watchout, clients):
    started = watchout(environ={"MAX_CONNECTIONS_PER_ADDRESS": "1000"})
    stream = await many_alerts(started, clients, "mallory")
    page = f"/alerts?limit=1000&streamId={stream}"
    token = started.token("mallory")
    whole = await http(started.url + page, token=token)
    assert len(whole.body) > 4 * MIB
    gateway = started.one("gateway")
    before = own_memory_bytes(gateway.pid)
    readers = [await ask_and_read_nothing(started, page, token) for _ in range(READERS)]
    async with all_leave(readers):

        async def figure(name: str) -> float:
            return (await gateway_figures(started.url)).get(name, 0.0)

        await eventually(lambda: figure("http_responses_refused_total"), ENDED_S)
        assert await figure("http_responses_waiting_bytes") <= 17 * MIB
        assert own_memory_bytes(gateway.pid) - before < 100 * MIB
        # Somebody else asks, and is answered, meanwhile.
        other = started.token("alice")
        assert (await http(f"{started.url}/alerts", token=other)).status == 200

        async def nothing_waits() -> bool:
            return await figure("http_responses_waiting_bytes") < len(whole.body)  # this very answer waits

        await eventually(nothing_waits, ENDED_S)


async def test_a_reader_that_is_slow_but_reads_gets_it_all(watchout, clients):
    started = watchout()
    stream = await many_alerts(started, clients, "ann")
    reader = await ask_and_read_nothing(started, f"/alerts?limit=1000&streamId={stream}", started.token("ann"))
    async with all_leave([reader]):
        reader.bytes_per_s = 600_000.0  # longer than the ten seconds after which who reads nothing is cut off
        head = await reader._until(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        assert len(await asyncio.wait_for(reader.skim(length), 120)) == length


async def test_a_body_may_be_slow_as_long_as_it_comes(watchout, clients):
    started = watchout()
    raw: RawSocket = await clients.raw(started.url)
    body = b'{"streamId":"cam","severity":"low","message":"m"}'
    await raw.send(
        raw.head("/alerts", f"Content-Length: {len(body)}", f"Authorization: Bearer {SERVICE_TOKEN}", method="POST")
    )
    for part in (body[:20], body[20:30], body[30:]):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(raw.reader.read(1), 3.6)  # over ten seconds in all, and nothing comes meanwhile
        await raw.send(part)
    assert (await raw.answer()).status == 202
