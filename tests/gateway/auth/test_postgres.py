from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest
import uvloop
from structlog.testing import capture_logs

from common.errors import StoreUnavailable
from gateway.auth import Identity, postgres
from gateway.auth.postgres import PostgresStore
from tests.kit.services import Postgres

pytestmark = pytest.mark.real

TIMEOUT_S = 2.0
UNKNOWN = "0" * 32
TOKEN = "t" * 32

SCHEMA = """
create table "user" (id text primary key, name text);
create table session (id text primary key, "expiresAt" timestamptz not null, token text not null unique,
  "userId" text not null references "user" (id) on delete cascade);
insert into "user" values ('u1', 'alice');
"""
SESSION = f"""insert into session values ('s1', now() + interval '1 hour', '{TOKEN}', 'u1');"""
ALICE = ("u1", "s1")
BACKENDS = (
    "select {} from pg_stat_activity where application_name = 'watchout-gateway' and datname = current_database()"
)

ODD_TOKENS = ["", "x", "'; drop table session; --", "$1" * 16, "\0" * 32, "x" * 20 + "\0", "\ud800" * 20, "x" * 100_000]


@asynccontextmanager
async def opened(url: str, connections: int = 5, timeout_s: float = TIMEOUT_S) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, timeout_s=timeout_s, connections=connections)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def database(postgres: Postgres) -> Database:
    return Database(postgres)


class Database:
    """A new database with statements run in it."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self.url = server.create_database()

    def run(self, sql: str) -> str:
        return self._server.run_sql(self.url, sql)


def who(identity: Identity | None) -> tuple[str, str] | None:
    return identity and (identity.user_id, identity.session_id)


async def refusal(store: PostgresStore, token: str = UNKNOWN) -> str:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        await store.verify(token)
    assert time.monotonic() - began < TIMEOUT_S + 0.5
    assert token not in str(caught.value)
    return str(caught.value)


async def verified(store: PostgresStore, token: str = TOKEN) -> Identity | None:
    """The answer of a store that is just coming back."""
    give_up = time.monotonic() + 10
    while True:
        with suppress(StoreUnavailable):
            return await store.verify(token)
        assert time.monotonic() < give_up
        await asyncio.sleep(0.02)


async def test_a_session_is_found_on_every_version(each_postgres: Postgres) -> None:
    database = Database(each_postgres)
    database.run(SCHEMA + SESSION)
    async with opened(database.url) as store:
        identity = await store.verify(TOKEN)
        assert identity is not None
        assert who(identity) == ALICE
        assert identity.expires_at == pytest.approx(time.time() + 3600, abs=5)
        assert await store.verify(UNKNOWN) is None
        await store.check()


@pytest.mark.parametrize("token", ODD_TOKENS, ids=range(len(ODD_TOKENS)))
async def test_an_odd_token_is_nobody(database: Database, token: str) -> None:
    database.run(SCHEMA + SESSION)
    async with opened(database.url) as store:
        assert await store.verify(token) is None
        assert who(await store.verify(TOKEN)) == ALICE


async def test_a_session_ends_by_itself(database: Database) -> None:
    database.run(SCHEMA + SESSION + "update session set \"expiresAt\" = now() + interval '0.5 s'")
    async with opened(database.url) as store:
        assert who(await store.verify(TOKEN)) == ALICE
        give_up = time.monotonic() + 5
        while await store.verify(TOKEN) is not None:
            assert time.monotonic() < give_up


@pytest.mark.parametrize(
    ("banned", "ends", "lives"),
    [
        ("null", "null", True),
        ("false", "null", True),
        ("true", "null", False),
        ("true", "now() + interval '1 min'", False),
        ("true", "now() - interval '1 min'", True),
        ("false", "now() + interval '1 min'", True),
    ],
)
async def test_a_banned_user_is_nobody_while_the_ban_lasts(
    database: Database, banned: str, ends: str, lives: bool
) -> None:
    database.run(SCHEMA + SESSION + 'alter table "user" add banned boolean, add "banExpires" timestamptz;')
    database.run(f'update "user" set banned = {banned}, "banExpires" = {ends}')
    async with opened(database.url) as store:
        assert (await store.verify(TOKEN) is not None) is lives


@pytest.mark.parametrize(("column", "type"), [("expires_at", "timestamp"), ('"expiresAt"', "timestamp(3)")])
async def test_dates_without_a_zone_that_are_utc_are_read_as_utc(database: Database, column: str, type: str) -> None:
    database.run(
        f"""create table "user" (id text); insert into "user" values ('u1');
        create table session (id text, token text, user_id text, {column} {type});
        insert into session values ('s1', '{TOKEN}', 'u1', (now() at time zone 'UTC') + interval '1 min'),
                                   ('s2', '{UNKNOWN}', 'u1', (now() at time zone 'UTC') - interval '1 min')"""
    )
    async with opened(database.url) as store:
        identity = await store.verify(TOKEN)
        assert identity is not None
        assert identity.expires_at == pytest.approx(time.time() + 60, abs=5)
        assert await store.verify(UNKNOWN) is None


async def test_dates_of_an_unknown_zone_are_refused_until_they_are_repaired(database: Database) -> None:
    database.run(SCHEMA + SESSION + 'alter table session alter "expiresAt" type timestamp')
    async with opened(database.url) as store:
        assert "ALTER TABLE" in await refusal(store, TOKEN)
        database.run(
            'alter table session alter "expiresAt" type timestamptz using "expiresAt" at time zone \'Asia/Kolkata\''
        )
        assert who(await store.verify(TOKEN)) == ALICE


@pytest.mark.parametrize(("type", "value"), [("uuid", "11111111-2222-3333-4444-555555555555"), ("integer", "42")])
async def test_ids_that_are_no_text_come_as_text(database: Database, type: str, value: str) -> None:
    database.run(
        f"""create table "user" (id {type}); insert into "user" values ('{value}');
        create table session (id {type}, token text, "userId" {type}, "expiresAt" timestamptz);
        insert into session values ('{value}', '{TOKEN}', '{value}', now() + interval '1 min')"""
    )
    async with opened(database.url) as store:
        assert who(await store.verify(TOKEN)) == (value, value)


async def test_tables_are_found_on_the_search_path(database: Database) -> None:
    database.run(f"create schema auth; set search_path to auth; {SCHEMA} {SESSION}")
    async with opened(database.url) as store:
        assert 'no table "session"' in await refusal(store)
    async with opened(f"{database.url}?search_path=auth") as store:
        assert who(await store.verify(TOKEN)) == ALICE


async def test_a_role_that_may_only_read_the_columns_in_use_is_enough(database: Database) -> None:
    role = f"r_{database.url[-12:]}"
    database.run(
        f"""{SCHEMA} {SESSION} create role {role} login password 'pw';
        grant select (id, token, "userId", "expiresAt") on session to {role}; grant select (id) on "user" to {role}"""
    )
    host = database.url.rpartition("@")[2]
    async with opened(f"postgres://{role}:pw@{host}") as store:
        assert who(await store.verify(TOKEN)) == ALICE


async def test_migrations_may_run_after_us(database: Database) -> None:
    async with opened(database.url) as store:
        assert 'no table "session"' in await refusal(store)
        database.run(SCHEMA + SESSION)
        assert who(await store.verify(TOKEN)) == ALICE


async def test_columns_that_change_under_a_running_store_are_found_again(database: Database) -> None:
    database.run(SCHEMA + SESSION)
    async with opened(database.url) as store:
        assert who(await store.verify(TOKEN)) == ALICE
        database.run('alter table session rename "expiresAt" to expires_at')
        assert "UndefinedColumn" in await refusal(store, TOKEN)
        assert who(await store.verify(TOKEN)) == ALICE


async def test_a_lookup_that_the_server_refuses_shows_no_token(database: Database) -> None:
    database.run(
        f"""{SCHEMA} {SESSION} alter table session rename to real;
        create function broken(t text) returns text language plpgsql as
          $$ begin raise exception 'no % today', t; end $$;
        create view session as select id, "userId", "expiresAt", broken(token) as token from real"""
    )
    async with opened(database.url) as store:
        with capture_logs() as lines:
            assert await refusal(store, TOKEN) == "PostgreSQL refused the lookup: RaiseError P0001"
        assert TOKEN not in str(lines)


async def test_many_lookups_share_few_connections(database: Database) -> None:
    database.run(SCHEMA)
    database.run(
        """insert into session select 's' || i, now() + interval '1 min', lpad(i::text, 32, 'x'), 'u1'
        from generate_series(1, 50) i"""
    )
    tokens = [str(i).rjust(32, "x") for i in range(1, 51)] * 10
    async with opened(database.url, connections=3) as store:
        found = await asyncio.gather(*[store.verify(token) for token in tokens])
        assert [identity and identity.session_id for identity in found] == [f"s{t.strip('x')}" for t in tokens]
        assert 1 <= int(database.run(BACKENDS.format("count(*)"))) <= 3


async def test_too_many_lookups_at_once_are_told_so_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "MAX_LOOKUPS", 5)
    database.run(SCHEMA)
    async with opened(database.url) as store:
        found = await asyncio.gather(*[store.verify(UNKNOWN) for _ in range(20)], return_exceptions=True)
        assert [type(one) for one in found] == [type(None)] * 5 + [StoreUnavailable] * 15
        assert await store.verify(UNKNOWN) is None


async def test_callers_that_leave_do_no_harm(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    database.run(SCHEMA + SESSION)
    async with opened(database.url, connections=1) as store:
        await store.check()
        before = database.run(BACKENDS.format("pid"))
        for turns in range(30):
            tasks = [asyncio.create_task(store.verify(TOKEN)) for _ in range(5)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert who(await store.verify(TOKEN)) == ALICE
        assert database.run(BACKENDS.format("pid")) == before
    gc.collect()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_lookups_under_way_when_the_store_closes_are_unavailable(database: Database) -> None:
    database.run(SCHEMA)
    async with opened(database.url, connections=2) as store:
        asked = [asyncio.create_task(store.verify(UNKNOWN)) for _ in range(20)]
        await asyncio.sleep(0)
        await store.close()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(one) for one in found} == {StoreUnavailable}


async def test_a_table_that_stays_locked_is_unavailable_within_the_deadline(database: Database) -> None:
    database.run(SCHEMA + SESSION)
    other = await asyncpg.connect(database.url)
    try:
        async with opened(database.url, connections=2) as store:
            assert who(await store.verify(TOKEN)) == ALICE
            async with other.transaction():
                await other.execute("lock table session in access exclusive mode")
                reasons = await asyncio.gather(*[refusal(store, TOKEN) for _ in range(10)])
                assert set(reasons) == {f"PostgreSQL gave no answer within {TIMEOUT_S:g} s"}
            assert who(await store.verify(TOKEN)) == ALICE
    finally:
        await other.close()


async def test_connections_that_the_server_closed_are_replaced_within_one_lookup(database: Database) -> None:
    database.run(SCHEMA + SESSION)
    async with opened(database.url, connections=3) as store:
        for _ in range(5):
            await asyncio.gather(*[store.verify(TOKEN) for _ in range(10)])
            database.run(BACKENDS.format("pg_terminate_backend(pid)"))
            found = await asyncio.gather(*[store.verify(TOKEN) for _ in range(10)])
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
                found = await asyncio.gather(*[store.verify(TOKEN) for _ in range(20)])
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

        async def ask() -> set[tuple[str, str] | None]:
            found = set()
            while not over.is_set():
                with suppress(StoreUnavailable):
                    found.add(who(await store.verify(TOKEN)))
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
    async with opened(url) as store:
        with capture_logs() as lines:
            assert who(await store.verify(TOKEN)) == ALICE
            own_postgres.stop()
            for _ in range(5):
                await refusal(store, TOKEN)
            own_postgres.start()
            for _ in range(5):
                assert who(await store.verify(TOKEN)) == ALICE
        assert [line["event"] for line in lines] == [
            "session store found",
            "session store unavailable",
            "session store answers again",
        ]
        assert TOKEN not in str(lines)
        assert own_postgres.password not in str(lines)


async def test_wrong_credentials_are_unavailable_and_not_shown(database: Database, postgres: Postgres) -> None:
    wrong = database.url.replace(postgres.password, "not-the-password")
    async with opened(wrong) as store:
        reason = await refusal(store)
    assert "password authentication failed" in reason
    assert "not-the-password" not in reason


async def test_a_database_that_is_not_there_is_unavailable(postgres: Postgres) -> None:
    async with opened(postgres.url("nowhere")) as store:
        assert "does not exist" in await refusal(store)


@pytest.mark.parametrize("query", ["sslmode=nonsense", "schema=public", "sslmode=verify-full&sslrootcert=/nowhere"])
async def test_a_url_with_options_that_cannot_be_is_unavailable(postgres: Postgres, query: str) -> None:
    async with opened(f"{postgres.url()}?{query}") as store:
        assert postgres.password not in await refusal(store)


@pytest.mark.parametrize(
    "says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 1000, b"R\0\0\0\x08\0\0\0\0E" + b"\xff" * 50]
)
async def test_something_else_on_that_port_is_unavailable_within_the_deadline(says: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(says)
            await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with opened(f"postgres://u:secret-word@127.0.0.1:{port}/x") as store:
            reasons = await asyncio.gather(*[refusal(store) for _ in range(10)])
        assert "secret-word" not in str(reasons)
    finally:
        server.close()
        await server.wait_closed()


async def test_a_store_that_is_not_open_is_unavailable(database: Database) -> None:
    store = PostgresStore(database.url, timeout_s=TIMEOUT_S, connections=1)
    assert "closed" in await refusal(store)
    await store.open()
    await store.close()
    await store.close()
    assert "closed" in await refusal(store)
