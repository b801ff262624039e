"""PostgreSQL that is away, slow, overloaded, restarted, something else, or behind PgBouncer."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from contextlib import suppress

import asyncpg
import pytest
import uvloop
from structlog.testing import capture_logs

from tests.integration.identity.postgres_kit import (
    ALICE,
    MEMBER,
    SCHEMA,
    SESSION,
    SHORT_S,
    TICKET,
    TIMEOUT_S,
    TOKEN,
    UNKNOWN,
    VERIFICATION,
    Database,
    PgBouncer,
    new_role,
    opened,
    refusal,
    verify,
    who,
)
from tests.kit.relays import Relays
from tests.kit.services import Postgres
from watchout.common.errors import StoreUnavailable
from watchout.identity import Identity
from watchout.identity.sources import session_store as base
from watchout.identity.sources.postgres import PostgresStore

pytestmark = pytest.mark.real

BACKENDS = (
    "select {} from pg_stat_activity where application_name = 'watchout-gateway' and datname = current_database()"
)


async def verified(store: PostgresStore, token: str = TOKEN) -> Identity | None:
    """The answer of a store that is just coming back."""
    give_up = time.monotonic() + 30
    while True:
        with suppress(StoreUnavailable):
            return await verify(store, token)
        assert time.monotonic() < give_up
        await asyncio.sleep(0.02)


async def test_a_lookup_that_the_server_refuses_shows_no_token(database: Database) -> None:
    database.run(
        f"""{SCHEMA} {SESSION} alter table session rename to real;
        create function broken(t text) returns text language plpgsql as
          $$ begin raise exception 'no % today', t; end $$;
        create view session as select id, "userId", "expiresAt", broken(token) as token from real"""
    )
    async with opened(database.url) as store:
        with capture_logs() as lines:
            assert await refusal(store, TOKEN) == "PostgreSQL refused the look-up: RaiseError P0001"
        assert TOKEN not in str(lines)


async def test_many_lookups_share_few_connections(database: Database) -> None:
    database.run(SCHEMA)
    database.run(
        """insert into session select 's' || i, now() + interval '1 min', lpad(i::text, 32, 'x'), 'u1'
        from generate_series(1, 50) i"""
    )
    tokens = [str(i).rjust(32, "x") for i in range(1, 51)] * 10
    async with opened(database.url, connections=3) as store:
        found = await asyncio.gather(*[verify(store, token) for token in tokens])
        assert [identity and identity.session_id for identity in found] == [f"s{t.strip('x')}" for t in tokens]
        assert 1 <= int(database.run(BACKENDS.format("count(*)"))) <= 3


async def test_too_many_lookups_at_once_are_told_so_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.run(SCHEMA)
    async with opened(database.url) as store:
        monkeypatch.setattr(base, "MAX_QUERIES", 5)
        found = await asyncio.gather(*[verify(store, UNKNOWN) for _ in range(20)], return_exceptions=True)
        assert [type(one) for one in found] == [type(None)] * 5 + [StoreUnavailable] * 15
        assert await verify(store, UNKNOWN) is None


async def test_callers_that_leave_do_no_harm(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    database.run(SCHEMA + SESSION)
    async with opened(database.url, connections=1) as store:
        await store.check()
        before = database.run(BACKENDS.format("pid"))
        for turns in range(30):
            tasks = [asyncio.create_task(verify(store, TOKEN)) for _ in range(5)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert who(await verify(store, TOKEN)) == ALICE
        assert database.run(BACKENDS.format("pid")) == before
    gc.collect()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_lookups_under_way_when_the_store_closes_are_unavailable(database: Database) -> None:
    database.run(SCHEMA)
    async with opened(database.url, connections=2) as store:
        asked = [asyncio.create_task(verify(store, UNKNOWN)) for _ in range(20)]
        await asyncio.sleep(0)
        await store.close()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(one) for one in found} == {StoreUnavailable}


async def test_a_table_that_stays_locked_is_unavailable_within_the_deadline(database: Database) -> None:
    database.run(SCHEMA + SESSION)
    other = await asyncpg.connect(database.url)
    try:
        async with opened(database.url, connections=2, timeout_s=SHORT_S) as store:
            assert who(await verified(store)) == ALICE
            async with other.transaction():
                await other.execute("lock table session in access exclusive mode")
                reasons = await asyncio.gather(*[refusal(store, TOKEN, SHORT_S) for _ in range(10)])
                assert set(reasons) == {f"PostgreSQL gave no answer within {SHORT_S:g} s"}
            assert who(await verified(store)) == ALICE
    finally:
        await other.close()


async def test_connections_that_the_server_closed_are_replaced_within_one_lookup(database: Database) -> None:
    database.run(SCHEMA + SESSION)
    async with opened(database.url, connections=3) as store:
        for _ in range(5):
            await asyncio.gather(*[verify(store, TOKEN) for _ in range(10)])
            database.run(BACKENDS.format("pg_terminate_backend(pid)"))
            found = await asyncio.gather(*[verify(store, TOKEN) for _ in range(10)])
            assert {who(identity) for identity in found} == {ALICE}


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_server_that_goes_and_comes_back_is_found_again(
    own_postgres: Postgres, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    url = own_postgres.create_database()
    own_postgres.run_sql(url, SCHEMA + SESSION)
    own_postgres.stop()

    async def history() -> None:
        async with opened(url) as store:
            assert "cannot be reached" in await refusal(store)
            with pytest.raises(StoreUnavailable):
                await store.check()
            for _ in range(2):
                own_postgres.start()
                found = await asyncio.gather(*[verify(store, TOKEN) for _ in range(20)])
                assert {who(identity) for identity in found} == {ALICE}
                await store.check()
                own_postgres.stop()
                await asyncio.gather(*[refusal(store, TOKEN) for _ in range(20)])

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(history())


async def test_lookups_over_a_restart_are_answered_or_unavailable_and_nothing_else(own_postgres: Postgres) -> None:
    url = own_postgres.create_database()
    own_postgres.run_sql(url, SCHEMA + SESSION)
    async with opened(url) as store:
        over = asyncio.Event()

        async def ask() -> set[tuple[str, str | None] | None]:
            found = set()
            while not over.is_set():
                with suppress(StoreUnavailable):
                    found.add(who(await verify(store, TOKEN)))
                await asyncio.sleep(0)
            return found

        askers = [asyncio.create_task(ask()) for _ in range(10)]
        await asyncio.to_thread(own_postgres.stop)
        await asyncio.to_thread(own_postgres.start)
        assert who(await verified(store)) == ALICE
        over.set()
        assert await asyncio.gather(*askers) == [{ALICE}] * 10


async def test_an_outage_is_logged_once_and_so_is_its_end(own_postgres: Postgres) -> None:
    url = own_postgres.create_database()
    own_postgres.run_sql(url, SCHEMA + SESSION)
    with capture_logs() as lines:
        async with opened(url) as store:
            assert who(await verify(store, TOKEN)) == ALICE
            own_postgres.stop()
            for _ in range(5):
                await refusal(store, TOKEN)
            own_postgres.start()
            for _ in range(5):
                assert who(await verify(store, TOKEN)) == ALICE
        assert [line["event"] for line in lines] == [
            "session store found",
            "session store unavailable",
            "session store is available again",
        ]
        assert TOKEN not in str(lines)
        assert own_postgres.password not in str(lines)


async def test_a_store_that_comes_and_goes_is_said_once_in_a_while(database: Database) -> None:
    role, url = new_role(database)
    database.run(f'{SCHEMA} {SESSION} grant select on session, "user" to {role}')
    with capture_logs() as lines:
        async with opened(url) as store:
            for _ in range(20):
                database.run(f"revoke select on session from {role}")
                await refusal(store)
                database.run(f"grant select on session to {role}")
                assert who(await verify(store)) == ALICE
    assert [line["event"] for line in lines if "found" not in line["event"]] == [
        "session store unavailable",
        "session store is available again",
    ]


async def test_wrong_credentials_are_unavailable_and_not_shown(database: Database, postgres: Postgres) -> None:
    wrong = database.url.replace(postgres.password, "not-the-password")
    async with opened(wrong) as store:
        reason = await refusal(store)
    assert "password authentication failed" in reason
    assert "not-the-password" not in reason


async def test_a_database_that_is_not_there_is_unavailable(postgres: Postgres) -> None:
    async with opened(postgres.url("nowhere")) as store:
        assert "does not exist" in await refusal(store)


@pytest.mark.parametrize(
    "says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 1000, b"R\0\0\0\x08\0\0\0\0E" + b"\xff" * 50]
)
async def test_something_else_on_that_port_is_unavailable_within_the_deadline(says: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        await reader.read()

    async with Relays(answer) as server:
        url = f"postgres://u:secret-word@127.0.0.1:{server.port}/x"
        async with opened(url, timeout_s=SHORT_S) as store:
            reasons = await asyncio.gather(*[refusal(store, timeout_s=SHORT_S) for _ in range(10)])
    assert "secret-word" not in str(reasons)


async def test_a_store_that_is_not_open_is_unavailable(database: Database) -> None:
    store = PostgresStore(database.url, timeout_s=TIMEOUT_S, connections=1, max_waiting=20_000)
    assert "closed" in await refusal(store)
    await store.open()
    await store.close()
    await store.close()
    assert "closed" in await refusal(store)


async def test_it_works_through_pgbouncer_in_transaction_mode(database: Database, pgbouncer: PgBouncer) -> None:
    database.run(f"{SCHEMA} {SESSION} {VERIFICATION} {MEMBER} insert into member values ('m1', 'o1', 'u1', 'owner')")
    database.run(
        """insert into session select 'x' || i, now() + interval '1 min', lpad(i::text, 32, 'x'), 'u1'
        from generate_series(1, 50) i"""
    )
    tokens = [str(i).rjust(32, "x") for i in range(1, 51)]
    async with (
        opened(pgbouncer.url(database.url), connections=8, organizations=True) as store,
        opened(pgbouncer.url(database.url), connections=8, organizations=True) as other,
    ):
        for _ in range(5):
            found, live, organizations = await asyncio.gather(
                asyncio.gather(*[one.find([token]) for one in (store, other) for token in tokens]),
                asyncio.gather(*[other.live([f"x{i}"]) for i in range(1, 51)]),
                asyncio.gather(*[store.organizations(["u1"]) for _ in range(50)]),
            )
            assert [list(one) for one in found] == [[token] for token in tokens] * 2
            assert [list(one) for one in live] == [[f"x{i}"] for i in range(1, 51)]
            assert organizations == [{"u1": {"o1": frozenset({"owner"})}}] * 50
        redeemed = await asyncio.gather(*[one.redeem(TICKET) for _ in range(6) for one in (store, other)])
        assert sorted(map(str, map(who, redeemed))) == [str(ALICE)] + ["None"] * 11
        assert int(database.run(BACKENDS.format("count(*)"))) <= 2
        pgbouncer.stop()
        await refusal(store)
        pgbouncer.start()
        assert who(await verified(store)) == ALICE
