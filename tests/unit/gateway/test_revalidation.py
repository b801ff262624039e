"""Looking again at who is here: what is asked, how often, and what happens when it cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from watchout.common.errors import StoreUnavailable
from watchout.common.metrics import Metrics
from watchout.common.settings import load
from watchout.gateway.presence import Presence
from watchout.gateway.revalidation import BATCH, Revalidation
from watchout.identity import Identity


class Client:
    """Somebody who is here; what he was told."""

    def __init__(self, fails: bool = False) -> None:
        self.ended = 0
        self.became: list[Identity] = []
        self._fails = fails

    def on_session_ended(self) -> None:
        self.ended += 1
        if self._fails:
            raise RuntimeError("this client is in trouble")

    def on_identity_changed(self, identity: Identity) -> None:
        self.became.append(identity)


class Sessions:
    """A store and an endpoint in memory, which can be away; what they were asked."""

    def __init__(self) -> None:
        self.rows: dict[str, Identity] = {}
        self.belongs: dict[str, Mapping[str, frozenset[str]]] = {}
        self.tokens: dict[str, Identity] = {}
        self.away = False
        self.asked: list[list[str]] = []
        self.introspections = 0

    def sign_in(self, session: str, user: str = "ann") -> Identity:
        self.rows[session] = Identity(user, session)
        return self.rows[session]

    async def live(self, session_ids: Iterable[str]) -> dict[str, Identity]:
        self.asked.append(list(session_ids))
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailable("away")
        return {session: self.rows[session] for session in self.asked[-1] if session in self.rows}

    async def organizations(self, user_ids: Iterable[str]) -> Mapping[str, Mapping[str, frozenset[str]]]:
        if self.away:
            raise StoreUnavailable("away")
        return {user: self.belongs[user] for user in user_ids if user in self.belongs}

    async def introspect(self, token: str, *, recheck: bool) -> Identity | None:
        assert recheck
        self.introspections += 1
        if self.away:
            raise StoreUnavailable("away")
        return self.tokens.get(token)


@asynccontextmanager
async def running(
    sessions: Sessions, presence: Presence[Any], **environ: str
) -> AsyncIterator[tuple[Revalidation, Metrics]]:
    metrics = Metrics()
    rounds = Revalidation(load({"RECHECK_S": "0.2"} | environ), metrics, presence, sessions, sessions)  # type: ignore[arg-type]
    begun = rounds.begin()
    task = asyncio.create_task(rounds.check_changed())
    try:
        yield rounds, metrics
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await asyncio.gather(*(each.close() for each in begun))


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


async def test_whose_session_ended_is_told_once_and_others_are_not() -> None:
    sessions, presence = Sessions(), Presence[Any]()
    phone, tablet, other = Client(), Client(), Client()
    for client, session in ((phone, "s1"), (tablet, "s1"), (other, "s2")):
        presence.add(client, sessions.sign_in(session, f"user of {session}"), time.time())
    async with running(sessions, presence) as (_, metrics):
        await until(lambda: len(sessions.asked) >= 2)
        assert (phone.ended, tablet.ended, other.ended) == (0, 0, 0)
        del sessions.rows["s1"]
        await until(lambda: phone.ended)
        rounds = len(sessions.asked)
        await until(lambda: len(sessions.asked) >= rounds + 2)
        assert (phone.ended, tablet.ended, other.ended) == (1, 1, 0)
        assert sessions.asked[-1] == ["s2"]
        assert metrics.values["sessions_revalidated_total"] > 0


@pytest.mark.virtual_time
async def test_while_nobody_is_here_nothing_is_begun() -> None:
    sessions, presence = Sessions(), Presence[Any]()
    async with running(sessions, presence):
        begun: list[str] = []

        def begin(loop: asyncio.AbstractEventLoop, work: Any, **_: Any) -> asyncio.Task[Any]:
            begun.append(work.__name__)
            return asyncio.Task(work, loop=loop)

        asyncio.get_running_loop().set_task_factory(begin)
        await asyncio.sleep(10)
        assert begun == []
        presence.add(Client(), sessions.sign_in("s1"), time.time())
        await asyncio.sleep(1)
        assert begun
        assert sessions.asked[-1] == ["s1"]
        asyncio.get_running_loop().set_task_factory(None)


async def test_new_rights_are_told_once() -> None:
    sessions, presence, client = Sessions(), Presence[Any](), Client()
    presence.add(client, sessions.sign_in("s1"), time.time())
    async with running(sessions, presence):
        sessions.rows["s1"] = Identity("ann", "s1", roles=frozenset({"admin"}))
        await until(lambda: client.became)
        rounds = len(sessions.asked)
        await until(lambda: len(sessions.asked) >= rounds + 2)
        assert client.became == [sessions.rows["s1"]]


async def test_a_store_that_is_away_closes_nobody_and_then_everybody_is_looked_at() -> None:
    sessions, presence, client, other = Sessions(), Presence[Any](), Client(), Client()
    presence.add(client, sessions.sign_in("s1"), time.time())
    presence.add(other, sessions.sign_in("s2", "bob"), time.time())
    sessions.away = True
    async with running(sessions, presence) as (_, metrics):
        await until(lambda: metrics.values["revalidation_failed_total"] >= 3)
        del sessions.rows["s1"]
        assert (client.ended, other.ended) == (0, 0)
        sessions.away = False
        await until(lambda: client.ended)
        assert other.ended == 0


async def test_a_thousand_sessions_are_one_query_and_more_are_spread_over_the_round() -> None:
    sessions, presence = Sessions(), Presence[Any]()
    clients = [Client() for _ in range(2 * BATCH + 1)]
    for number, client in enumerate(clients):
        presence.add(client, sessions.sign_in(f"s{number}"), time.time())
    async with running(sessions, presence):
        await until(lambda: len(sessions.asked) >= 3)
        assert [len(batch) for batch in sessions.asked[:3]] == [BATCH, BATCH, 1]
        sessions.rows.clear()
        await until(lambda: all(client.ended for client in clients))
    assert len(presence) == 0


async def test_a_change_that_was_heard_of_is_looked_at_without_waiting_for_the_round() -> None:
    sessions, presence, client, other = Sessions(), Presence[Any](), Client(), Client()
    presence.add(client, sessions.sign_in("s1", "ann"), time.time())
    presence.add(other, sessions.sign_in("s2", "bob"), time.time())
    async with running(sessions, presence, RECHECK_S="3600") as (rounds, _):
        await until(lambda: len(sessions.asked) == 1)
        rounds.on_changed("s1", None)
        await until(lambda: len(sessions.asked) == 2)
        assert sessions.asked[1] == ["s1"]
        assert client.ended == 0  # a hint is no fact
        rounds.on_changed("unknown", "nobody")
        del sessions.rows["s2"]
        rounds.on_changed(None, "bob")
        await until(lambda: other.ended)
        del sessions.rows["s1"]
        rounds.on_changed(None, None)
        await until(lambda: client.ended)


async def test_a_token_without_a_session_ends_in_time_though_the_store_is_away() -> None:
    sessions, presence, client, other = Sessions(), Presence[Any](), Client(), Client()
    sessions.away = True
    presence.add(client, Identity("ann", ends_at=time.time() + 0.3), time.time())
    presence.add(other, Identity("bob"), time.time())
    async with running(sessions, presence):
        await until(lambda: client.ended)
        assert other.ended == 0


async def test_what_a_user_without_a_session_belongs_to_is_asked_for() -> None:
    sessions, presence, client = Sessions(), Presence[Any](), Client()
    presence.add(client, Identity("ann"), time.time())
    async with running(sessions, presence):
        sessions.belongs["ann"] = {"acme": frozenset({"member"})}
        await until(lambda: client.became)
        assert client.became == [Identity("ann", organizations=sessions.belongs["ann"])]


async def test_an_introspected_token_that_is_good_no_more_ends() -> None:
    sessions, presence, client = Sessions(), Presence[Any](), Client()
    sessions.tokens["t"] = Identity("eve", introspected="t")
    presence.add(client, sessions.tokens["t"], time.time())
    async with running(sessions, presence, INTROSPECTION_URL="http://x/", INTROSPECTION_RECHECK_S="1"):
        sessions.away = True
        await until(lambda: sessions.introspections >= 2)
        assert client.ended == 0
        sessions.away = False
        sessions.tokens["t"] = Identity("eve", roles=frozenset({"admin"}), introspected="t")
        await until(lambda: client.became)
        del sessions.tokens["t"]
        await until(lambda: client.ended)


async def test_one_client_in_trouble_keeps_no_other_in() -> None:
    sessions, presence = Sessions(), Presence[Any]()
    clients = [Client(fails=True), Client(fails=True), Client()]
    for client in clients:
        presence.add(client, sessions.sign_in("s1"), time.time())
    async with running(sessions, presence):
        sessions.rows.clear()
        await until(lambda: all(client.ended for client in clients))
