"""Many phones at once: a storm of reconnects, and sessions that end under a thousand open sockets.

Each test prints what it took (`pytest -s`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import math
import os
import random
import resource
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.kit.clients import CLOSE, TEXT, eventually, http, web_socket_frame
from tests.kit.processes import READY_S, Watchout
from tests.kit.services import BetterAuth, Postgres, not_permitted

pytestmark = [pytest.mark.e2e, pytest.mark.real]

PHONES: Final = 2000
#: Far more than a storm takes on any machine: it only ends a test that hangs.
HANGS_S: Final = 120.0
#: If set, the deadlines are the shipped ones, and all phones must be back within this many seconds: on a quiet machine.
BACK_WITHIN_S: Final = float(os.environ.get("WATCHOUT_TEST_STORM_S", "inf"))
SOCKETS: Final = 1000
REVOKED: Final = 100
REVOKED_OVER_S: Final = 8.0
CLOSED_WITHIN_S: Final = 2.0
QUIET_S: Final = 5.0
RECHECK_S: Final = 1.0
STORE_CONNECTIONS: Final = 5
#: How soon all are in depends on the machine; that nobody is turned away does not, with deadlines that none will miss.
NO_DEADLINES: Final = (
    {"HANDSHAKE_TIMEOUT_S": "60", "STORE_TIMEOUT_S": "60", "AUTH_TIMEOUT_S": "300"} if math.inf == BACK_WITHIN_S else {}
)
#: What the test and the gateway need besides the sockets.
SPARE_DESCRIPTORS: Final = 500

SESSIONS: Final = """
insert into "user" (id, name, email, "emailVerified", "createdAt", "updatedAt")
  select 'user-' || i, 'user-' || i, 'user-' || i || '@example.com', true, now(), now() from generate_series(0, {0}) i;
insert into session (id, token, "userId", "expiresAt", "createdAt", "updatedAt")
  select 'session-' || i, '{1}-' || lpad(i::text, 31, '0'), 'user-' || i, now() + interval '1 day', now(), now()
  from generate_series(0, {0}) i;
"""


class Phone(asyncio.Protocol):
    """A socket that does nothing but authenticate, by the upgrade or by the first message, and note its end."""

    def __init__(self, host: str, token: str, by_upgrade: bool) -> None:
        loop = asyncio.get_running_loop()
        self.let_in: asyncio.Future[bool] = loop.create_future()
        self.closed_at = 0.0
        self.errors: list[str] = []
        self.close_code = 0
        self._host = host
        self._token = token
        self._by_upgrade = by_upgrade
        self._upgraded = False
        self._data = b""
        self._transport: asyncio.Transport | None = None

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing() and not self.close_code

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        key = "dGhlIHNhbXBsZSBub25jZQ=="
        bearer = f"Authorization: Bearer {self._token}\r\n" if self._by_upgrade else ""
        transport.write(
            f"GET /streams/subscribe HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{bearer}\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._upgraded:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self._answered(False)
                self.leave()
                return
            self._data, self._upgraded = rest, True
            first = {"type": "auth", "token": self._token}
            if self._by_upgrade:  # the 101 may come before the token is verified: only an answer shows that it is
                first = {"type": "unsubscribe", "streamId": "none"}
            self._write(TEXT, json.dumps(first).encode())
        for opcode, payload in self._frames():
            if opcode == TEXT:
                self._heard(json.loads(payload))
            elif opcode == CLOSE:
                self.closed_at = time.monotonic()
                self.close_code = int.from_bytes(payload[:2], "big")
                self._write(CLOSE, payload)

    def connection_lost(self, exc: Exception | None) -> None:
        self._answered(False)

    def leave(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _write(self, opcode: int, payload: bytes) -> None:
        assert self._transport is not None
        self._transport.write(web_socket_frame(opcode, payload))

    def _heard(self, message: dict[str, Any]) -> None:
        if message["type"] == "error":
            self.errors.append(message["code"])
        elif message["type"] == "success":
            self._answered(True)

    def _answered(self, let_in: bool) -> None:
        if not self.let_in.done():
            self.let_in.set_result(let_in)

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        while len(self._data) >= 2:
            length, start = self._data[1], 2
            assert length <= 126, "nobody sends a phone that much here"
            if length == 126:
                length, start = int.from_bytes(self._data[2:4], "big"), 4
            if len(self._data) < start + length:
                return
            opcode, payload = self._data[0] & 0xF, self._data[start : start + length]
            self._data = self._data[start + length :]
            yield opcode, payload


class Crowd:
    """Phones with a session of their own each."""

    def __init__(self, url: str, tokens: list[str]) -> None:
        where = urlsplit(url)
        self._host, self._port = where.hostname or "", where.port or 0
        self._tokens = tokens
        self.phones: list[Phone] = []
        self.tries = 0

    async def come(self) -> float:
        """All at once, until each is in; the seconds that it took."""
        start = time.monotonic()
        ways = itertools.cycle([True, False])
        async with asyncio.timeout(HANGS_S):
            self.phones = list(await asyncio.gather(*map(self._come, self._tokens, ways)))
        return time.monotonic() - start

    async def _come(self, token: str, by_upgrade: bool) -> Phone:
        loop = asyncio.get_running_loop()
        make = functools.partial(Phone, f"{self._host}:{self._port}", token, by_upgrade)
        while True:
            self.tries += 1
            with contextlib.suppress(OSError):
                _, phone = await loop.create_connection(make, self._host, self._port)
                if await phone.let_in:
                    return phone
                assert set(phone.errors) <= {"AUTH_UNAVAILABLE"}, phone.errors
                phone.leave()
            await asyncio.sleep(random.uniform(0.1, 0.5))

    def leave(self) -> None:
        for phone in self.phones:
            phone.leave()


@pytest.fixture
def sessions(
    postgres: Postgres, start_better_auth: Callable[..., BetterAuth]
) -> Callable[[int], tuple[str, list[str]]]:
    """A database of Better Auth's with so many sessions: its URL, and their tokens."""

    def make(count: int) -> tuple[str, list[str]]:
        url = postgres.create_database()
        start_better_auth(url).stop()
        mark = secrets.token_hex(4)
        postgres.run_sql(url, SESSIONS.format(count - 1, mark) + 'analyze "user", session;')
        postgres.log_statements(url)
        return url, [f"{mark}-{i:031}" for i in range(count)]

    return make


@pytest.fixture
async def database(postgres: Postgres) -> AsyncIterator[Any]:
    """A connection to look at the server from outside."""
    connection = await asyncpg.connect(postgres.url())
    yield connection
    await connection.close()


@pytest.fixture(autouse=True)
def enough_descriptors() -> Iterator[None]:
    """For this process, and for the gateway that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = PHONES + SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        not_permitted(f"this user may open {hard} files, and {wanted} are needed")
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def queries(postgres: Postgres) -> list[str]:
    """What was asked since the server's start; the brackets of transactions are not counted."""
    return [text for text in postgres.statements() if not text.startswith(("begin", "commit", "rollback"))]


async def gateway_connections(database: Any, url: str) -> int:
    """How many connections gateways have to the database of this URL; the server may have others for other tests."""
    query = "select count(*) from pg_stat_activity where application_name = 'watchout-gateway' and datname = $1"
    return int(await database.fetchval(query, url.rpartition("/")[2].partition("?")[0]))


async def most_connections(database: Any, url: str, most: list[int]) -> None:
    """Look again and again how many connections the gateway has, and note each number."""
    while True:
        most.append(await gateway_connections(database, url))
        await asyncio.sleep(0.02)


def environ(url: str) -> dict[str, str]:
    return {
        "DATABASE_URL": url,
        "RECHECK_S": str(RECHECK_S),
        "STORE_CONNECTIONS": str(STORE_CONNECTIONS),
        "DRAIN_S": "0.1",
    }


async def test_two_thousand_phones_that_come_back_at_once_are_all_in_and_the_database_hardly_notices(
    watchout: Callable[..., Watchout], postgres: Postgres, sessions: Any, database: Any
) -> None:
    url, tokens = sessions(PHONES)
    started = watchout(environ={**environ(url), **NO_DEADLINES})
    crowd = Crowd(started.url, tokens)
    try:
        first_s = await crowd.come()
        await asyncio.to_thread(started.one("gateway").kill)
        await eventually(lambda: not any(phone.open for phone in crowd.phones), READY_S)

        async def gone() -> bool:
            return await gateway_connections(database, url) == 0

        await eventually(gone, READY_S)
        started.start("gateway")

        async def healthy() -> bool:
            with contextlib.suppress(OSError):
                return (await http(f"{started.url}/health")).status == 200
            return False

        await eventually(healthy, READY_S)
        executed, tries = len(queries(postgres)), crowd.tries
        connections: list[int] = []
        watching = asyncio.create_task(most_connections(database, url, connections))
        back_s = await crowd.come()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        executed, tries = len(queries(postgres)) - executed, crowd.tries - tries
        print(
            f"\n{PHONES} phones in within {first_s:.2f} s, back within {back_s:.2f} s in {tries} tries, "
            f"{executed} queries, at most {max(connections)} of {STORE_CONNECTIONS} connections"
        )
        assert all(phone.open for phone in crowd.phones)
        assert back_s < BACK_WITHIN_S
        assert tries == PHONES, "nobody is sent away to come again"
        assert 1 <= max(connections) <= STORE_CONNECTIONS
        assert executed < PHONES
    finally:
        crowd.leave()


async def test_sessions_that_end_under_a_thousand_open_sockets_close_theirs_within_two_seconds(
    watchout: Callable[..., Watchout], postgres: Postgres, sessions: Any, database: Any
) -> None:
    url, tokens = sessions(SOCKETS)
    started = watchout(environ={**environ(url), **NO_DEADLINES})
    crowd = Crowd(started.url, tokens)
    try:
        await crowd.come()
        executed, start = len(queries(postgres)), time.monotonic()
        await asyncio.sleep(QUIET_S)
        per_s = (len(queries(postgres)) - executed) / (time.monotonic() - start)

        pool = await asyncpg.create_pool(url, min_size=1, max_size=4)
        ends = random.sample(range(SOCKETS), REVOKED)

        async def revoke(i: int) -> float:
            await asyncio.sleep(random.uniform(0, REVOKED_OVER_S))
            asked_at = time.monotonic()
            await pool.execute("delete from session where token = $1", tokens[i])
            await eventually(lambda: crowd.phones[i].closed_at, READY_S, "the socket is still open")
            return crowd.phones[i].closed_at - asked_at

        try:
            took_s = sorted(await asyncio.gather(*map(revoke, ends)))
        finally:
            await pool.close()
        p50_s, p90_s, p99_s = (took_s[int(len(took_s) * share) - 1] for share in (0.5, 0.9, 0.99))
        print(
            f"\n{REVOKED} of {SOCKETS} sessions deleted: closed after p50 {p50_s:.2f} s, p99 {p99_s:.2f} s, at most "
            f"{took_s[-1]:.2f} s; re-check of {SOCKETS} sockets: {per_s:.2f} queries per s"
        )
        ended = [crowd.phones[i] for i in ends]
        assert Counter(phone.close_code for phone in ended) == {4500: REVOKED}
        assert all(phone.errors == ["SESSION_ENDED"] for phone in ended)
        others = [phone for i, phone in enumerate(crowd.phones) if i not in set(ends)]
        assert all(phone.open and not phone.errors for phone in others)
        # All of them on a quiet machine. One that pauses a process for a moment holds up those of that moment.
        assert p50_s < CLOSED_WITHIN_S / 2
        assert p90_s < CLOSED_WITHIN_S
        # One look at the sessions per interval; the rest is room for a look at the schema.
        assert per_s < 1.5 / RECHECK_S
    finally:
        crowd.leave()
