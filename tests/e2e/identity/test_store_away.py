"""A session store that is away closes nobody and lets nobody in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import pytest

from tests.e2e.identity.support import (
    ENDED_WITHIN_S,
    PLUGINS,
    SUBSCRIBE,
    Start,
    _is_put_off,
    environ,
    has_ended,
    is_in,
    start,
)
from tests.kit.clients import Clients, Viewer, eventually, http, new_name
from tests.kit.ports import free_port
from tests.kit.processes import Watchout
from tests.kit.relays import Relays, both_ways, connected
from tests.kit.services import Postgres, running_better_auth

pytestmark = [pytest.mark.e2e, pytest.mark.real]


class Door:
    """A way to PostgreSQL that can be shut."""

    def __init__(self, port: int) -> None:
        self._beyond = port
        self._relays = Relays(self._pass)
        self._relays.port = free_port()  # which no client is given while the door is shut

    @property
    def port(self) -> int:
        return self._relays.port

    async def open(self) -> None:
        await self._relays.open()

    async def shut(self) -> None:
        """Nobody comes in any more, and who is in is put out."""
        await self._relays.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with connected("127.0.0.1", self._beyond) as beyond:
            await both_ways((reader, writer), beyond)


@pytest.fixture
async def door(postgres: Postgres) -> AsyncIterator[Door]:
    door = Door(postgres.port)
    await door.open()
    yield door
    await door.shut()


async def test_a_store_that_is_away_closes_nobody_and_lets_nobody_in(
    watchout: Callable[..., Watchout], clients: Clients, own_postgres: Postgres
) -> None:
    database_url = own_postgres.create_database()
    with running_better_auth(database_url, BA_PLUGINS=PLUGINS) as app:
        alice, bob = app.sign_up("alice"), app.sign_up("bob")
        started = start(watchout(environ=environ(app, database_url), start=False))
    camera, viewer = await clients.camera(started.url, alice.token), await clients.viewer(started.url, alice.token)
    await viewer.subscribe(await camera.register(new_name()))
    leaves = await clients.viewer(started.url, bob.token)
    await asyncio.to_thread(own_postgres.stop)
    async with camera.streaming():
        await asyncio.sleep(1.5)  # longer than what was verified is remembered, and than the interval of the re-check
        newcomer = await clients.viewer(started.url, None)
        await newcomer.send("auth", token=bob.token)
        await _is_put_off(newcomer)
        for token in (alice.token, "x" * 32):
            answer = await http(f"{started.url}/streams", token=token)
            assert (answer.status, answer.error) == (503, "AUTH_UNAVAILABLE")
            await _is_put_off(await clients.viewer(started.url, token, by="header"))
        ticket = f"{SUBSCRIBE}?ticket={'x' * 32}"
        await _is_put_off(Viewer(await clients.connect(started.url, ticket)))
        assert (await http(f"{started.url}/health")).status == 503
        seen = len(viewer.frames)
        await eventually(lambda: len(viewer.frames) > seen + 5)
        await asyncio.to_thread(own_postgres.start)
        own_postgres.run_sql(database_url, f"delete from session where token = '{bob.token}'")
        await has_ended(leaves, 2 * ENDED_WITHIN_S)
        await is_in(await clients.viewer(started.url, alice.token))
        seen = len(viewer.frames)
        await eventually(lambda: len(viewer.frames) > seen + 5)


async def test_what_was_signed_out_while_the_store_could_not_be_asked_ends_when_it_can_be_again(
    watchout: Callable[..., Watchout], clients: Clients, postgres: Postgres, door: Door, start_better_auth: Start
) -> None:
    database_url = postgres.create_database()
    app = start_better_auth(database_url, BA_PLUGINS=PLUGINS)
    by_door = database_url.replace(f":{urlsplit(database_url).port}/", f":{door.port}/")
    started = watchout(environ=environ(app, by_door), start=False)
    await asyncio.to_thread(start, started)  # the door needs the loop meanwhile
    alice, bob = app.sign_up("alice"), app.sign_up("bob")
    ends, stays = await clients.viewer(started.url, alice.token), await clients.viewer(started.url, bob.token)
    await door.shut()
    await asyncio.to_thread(app.sign_out, alice.token)
    await asyncio.sleep(2.5)  # some re-checks
    await is_in(ends)
    await door.open()
    await has_ended(ends, 2 * ENDED_WITHIN_S)
    await is_in(stays)
