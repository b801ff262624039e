from __future__ import annotations

import asyncio
import gc
import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import uvloop
from structlog.testing import capture_logs

from tests.kit.services import Postgres, missing
from watchout.common.errors import StartError, StoreUnavailable
from watchout.identity import Identity, SessionStore
from watchout.identity.schema.catalogue import Layout
from watchout.identity.schema.plan import Statement
from watchout.identity.sources import session_store as base
from watchout.identity.sources.postgres import READ_ONLY, PostgresStore

pytestmark = pytest.mark.real

TIMEOUT_S = 2.0
UNKNOWN = "0" * 32
TOKEN = "t" * 32
OTHER = "o" * 32
TICKET = "T" * 32

SCHEMA = """
create table "user" (id text primary key, name text);
create table session (id text primary key, "expiresAt" timestamptz not null, token text not null unique,
  "userId" text not null references "user" (id) on delete cascade);
insert into "user" values ('u1', 'alice');
"""
SESSION = f"""insert into session values ('s1', now() + interval '1 hour', '{TOKEN}', 'u1');"""
MEMBER = 'create table member (id text primary key, "organizationId" text, "userId" text, role text);'
VERIFICATION = f"""
create table verification (id text primary key, identifier text, value text, "expiresAt" timestamptz);
insert into verification values ('v1', 'one-time-token:{TICKET}', '{TOKEN}', now() + interval '3 min');
"""
ALICE = ("u1", "s1")
BACKENDS = (
    "select {} from pg_stat_activity where application_name = 'watchout-gateway' and datname = current_database()"
)

ODD_TOKENS = ["", "x", "'; drop table session; --", "$1" * 16, "\0" * 32, "x" * 20 + "\0", "\ud800" * 20, "x" * 100_000]


@asynccontextmanager
async def opened(
    url: str, connections: int = 5, timeout_s: float = TIMEOUT_S, **layout: Any
) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, Layout(**layout), timeout_s=timeout_s, connections=connections)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def database(postgres: Postgres) -> Database:
    return Database(postgres)


def new_role(database: Database) -> tuple[str, str]:
    """A role that may log in and nothing else, and the URL with which it does."""
    role = f"r_{database.url[-12:]}"
    database.run(f"create role {role} login password 'pw'")
    return role, f"postgres://{role}:pw@{database.url.rpartition('@')[2]}"


class Database:
    """A new database with statements run in it."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self.url = server.create_database()

    def run(self, sql: str) -> str:
        return self._server.run_sql(self.url, sql)


def who(identity: Identity | None) -> tuple[str, str | None] | None:
    return identity and (identity.user_id, identity.session_id)


async def verify(store: SessionStore, token: str = TOKEN) -> Identity | None:
    found = await store.find([token])
    assert set(found) <= {token}
    return found.get(token)


async def refusal(store: PostgresStore, token: str = UNKNOWN) -> str:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        await verify(store, token)
    assert time.monotonic() - began < TIMEOUT_S + 0.5
    assert token not in str(caught.value)
    return str(caught.value)


async def verified(store: PostgresStore, token: str = TOKEN) -> Identity | None:
    """The answer of a store that is just coming back."""
    give_up = time.monotonic() + 10
    while True:
        with suppress(StoreUnavailable):
            return await verify(store, token)
        assert time.monotonic() < give_up
        await asyncio.sleep(0.02)


async def test_a_session_is_found_on_every_version(each_postgres: Postgres) -> None:
    database = Database(each_postgres)
    database.run(SCHEMA + SESSION)
    async with opened(database.url) as store:
        identity = await verify(store, TOKEN)
        assert identity is not None
        assert who(identity) == ALICE
        assert identity.expires_at == pytest.approx(time.time() + 3600, abs=5)
        assert await verify(store, UNKNOWN) is None
        await store.check()


@pytest.mark.parametrize("token", ODD_TOKENS, ids=range(len(ODD_TOKENS)))
async def test_an_odd_token_is_nobody(database: Database, token: str) -> None:
    database.run(SCHEMA + SESSION)
    async with opened(database.url) as store:
        assert await verify(store, token) is None
        assert who(await verify(store, TOKEN)) == ALICE


async def test_a_session_ends_by_itself(database: Database) -> None:
    database.run(SCHEMA + SESSION + "update session set \"expiresAt\" = now() + interval '0.5 s'")
    async with opened(database.url) as store:
        assert who(await verify(store, TOKEN)) == ALICE
        give_up = time.monotonic() + 5
        while await verify(store, TOKEN) is not None:
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
        assert (await verify(store, TOKEN) is not None) is lives


# As `npx auth generate` and drizzle-kit make it.
DRIZZLE = """
create table "user" ("id" text primary key, "name" text not null, "email" text not null unique,
  "role" text, "banned" boolean default false, "ban_reason" text, "ban_expires" timestamp);
create table "session" ("id" text primary key, "expires_at" timestamp not null, "token" text not null,
  "created_at" timestamp default now() not null, "updated_at" timestamp not null, "ip_address" text,
  "user_agent" text, "user_id" text not null, constraint "session_token_unique" unique ("token"));
create table "verification" ("id" text primary key, "identifier" text not null, "value" text not null,
  "expires_at" timestamp not null, "created_at" timestamp default now() not null);
create table "member" ("id" text primary key, "organization_id" text not null, "user_id" text not null,
  "role" text default 'member' not null, "created_at" timestamp not null);
create index "member_userId_idx" on "member" using btree ("user_id");
alter table "session" add constraint "session_user_id_user_id_fk" foreign key ("user_id")
  references "public"."user"("id") on delete cascade;
"""
# As `prisma migrate` makes it from the official CLI's schema.
PRISMA = """
create table "user" ("id" text not null, "name" text not null, "email" text not null, "role" text,
  "banned" boolean default false, "banReason" text, "banExpires" timestamp(3),
  constraint "user_pkey" primary key ("id"));
create table "session" ("id" text not null, "expiresAt" timestamp(3) not null, "token" text not null,
  "createdAt" timestamp(3) not null default current_timestamp, "ipAddress" text, "userId" text not null,
  constraint "session_pkey" primary key ("id"));
create table "verification" ("id" text not null, "identifier" text not null, "value" text not null,
  "expiresAt" timestamp(3) not null, constraint "verification_pkey" primary key ("id"));
create table "member" ("id" text not null, "organizationId" text not null, "userId" text not null,
  "role" text not null);
create unique index "session_token_key" on "session"("token");
alter table "session" add constraint "session_userId_fkey" foreign key ("userId") references "user"("id")
  on delete cascade on update cascade;
"""


@pytest.mark.parametrize(("schema", "spelling"), [(DRIZZLE, "snake_case"), (PRISMA, "camelCase")])
async def test_dates_of_drizzle_and_prisma_are_read_as_utc(each_postgres: Postgres, schema: str, spelling: str) -> None:
    database = Database(each_postgres)
    snake = spelling == "snake_case"
    expires, bans = ("expires_at", "ban_expires") if snake else ('"expiresAt"', '"banExpires"')
    user, organization = ("user_id", "organization_id") if snake else ('"userId"', '"organizationId"')
    database.run(
        f"""{schema} insert into "user" (id, name, email, role)
          values ('u1', 'alice', 'a@example.com', 'guard,user'), ('u2', 'bob', 'b@example.com', null);
        insert into session (id, {expires}, token, {user} {", updated_at" if snake else ""})
          select id, (now() at time zone 'UTC') + delta, token, u {", now()" if snake else ""} from (values
            ('s1', interval '1 min', '{TOKEN}', 'u1'), ('s2', interval '-1 min', '{UNKNOWN}', 'u1'),
            ('s3', interval '1 min', '{OTHER}', 'u2')) v(id, delta, token, u);
        insert into member (id, {organization}, {user}, role {", created_at" if snake else ""})
          values ('m1', 'o1', 'u1', 'owner,admin' {", now()" if snake else ""});
        insert into verification (id, identifier, value, {expires}) values
          ('v1', 'one-time-token:{TICKET}', '{TOKEN}', (now() at time zone 'UTC') + interval '1 min'),
          ('v2', 'one-time-token:{OTHER}', '{TOKEN}', (now() at time zone 'UTC') - interval '1 min')"""
    )
    with capture_logs() as lines:
        async with opened(database.url, organizations=True) as store:
            alice = await verify(store, TOKEN)
            assert alice == Identity(
                "u1", "s1", alice.expires_at if alice else 0, frozenset({"guard", "user"}),
                {"o1": frozenset({"owner", "admin"})},
            )  # fmt: skip
            assert alice.expires_at == pytest.approx(time.time() + 60, abs=5)
            assert await verify(store, UNKNOWN) is None
            assert who(await store.redeem(TICKET)) == ALICE
            assert await store.redeem(OTHER) is None
            assert await store.find([TOKEN, OTHER]) == {TOKEN: alice, OTHER: await verify(store, OTHER)}
            database.run(f"""update "user" set banned = true, {bans} = (now() at time zone 'UTC') + interval '1 min'""")
            assert await verify(store, TOKEN) is None
            database.run(f"""update "user" set {bans} = (now() at time zone 'UTC') - interval '1 s'""")
            assert who(await verify(store, TOKEN)) == ALICE
    assert [lines[0][fact] for fact in ("spelling", "bans", "tickets", "organizations", "token_indexed")] == [
        spelling, True, "verification", "member", True,
    ]  # fmt: skip


async def test_dates_of_an_unknown_zone_stop_the_start(database: Database) -> None:
    database.run(SCHEMA + SESSION + 'alter table session alter "expiresAt" type timestamp')
    store = PostgresStore(database.url, timeout_s=TIMEOUT_S, connections=1)
    with pytest.raises(StartError, match=r"NAIVE_TIMEZONE.* ALTER TABLE"):
        await store.open()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.check()


async def test_dates_of_an_unknown_zone_that_come_later_are_unavailable_until_they_are_repaired(
    database: Database,
) -> None:
    async with opened(database.url) as store:
        database.run(SCHEMA + SESSION + 'alter table session alter "expiresAt" type timestamp')
        assert "ALTER TABLE" in await refusal(store, TOKEN)
        database.run(
            'alter table session alter "expiresAt" type timestamptz using "expiresAt" at time zone \'Asia/Kolkata\''
        )
        assert who(await verify(store, TOKEN)) == ALICE


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
async def test_dates_without_a_zone_are_read_in_the_operators(database: Database, zone: str) -> None:
    local = f"now() at time zone '{zone}'"
    database.run(
        f"""{SCHEMA} alter table "user" add banned boolean, add "banExpires" timestamp;
        alter table session alter "expiresAt" type timestamp;
        insert into session values ('s1', ({local}) + interval '1 min', '{TOKEN}', 'u1'),
                                   ('s2', ({local}) - interval '1 min', '{UNKNOWN}', 'u1');"""
    )
    async with opened(database.url, naive_timezone=zone) as store:
        identity = await verify(store, TOKEN)
        assert identity is not None
        assert identity.expires_at == pytest.approx(time.time() + 60, abs=5)
        assert await verify(store, UNKNOWN) is None
        database.run(f"""update "user" set banned = true, "banExpires" = ({local}) + interval '1 min'""")
        assert await verify(store, TOKEN) is None
        database.run(f"""update "user" set "banExpires" = ({local}) - interval '1 s'""")
        assert await verify(store, TOKEN) is not None


async def test_a_zone_that_the_server_does_not_know_is_said(database: Database) -> None:
    database.run(SCHEMA + SESSION)
    async with opened(database.url, naive_timezone="Nowhere/City") as store:
        assert 'time zone "Nowhere/City" not recognized' in await refusal(store, TOKEN)


IDS = {
    "uuid": ["11111111-2222-3333-4444-55555555555f", "aaaaaaaa-2222-3333-4444-55555555555f"],
    "integer": ["42", "2147483647"],
    "bigint": ["42", "9223372036854775807"],
    "character(36)": ["a" * 36, "short"],
    "character varying(36)": ["sitzung-ä", "会議 🎥"],
}
ODD_IDS = [
    "", " ", "x", "0", "-1", "42 ", "042", "4.2e1", "9" * 30, "2147483648", "9223372036854775808", "\0", "a\0",
    "\ud800", "ü" * 5, "١", "11111111-2222-3333-4444-55555555555F", "{11111111-2222-3333-4444-55555555555f}",
    "'; drop table x; --", "{}", "{a,b}", "null", "a" * 37, "x" * 10_000,
]  # fmt: skip


@pytest.mark.parametrize("type", IDS)
async def test_ids_of_any_type_come_as_text_and_odd_ones_spoil_nothing(database: Database, type: str) -> None:
    one, two = IDS[type]
    database.run(
        f"""create table "user" (id {type} primary key); insert into "user" values ('{one}'), ('{two}');
        create table session (id {type} primary key, token text unique, "userId" {type}, "expiresAt" timestamptz);
        create table member (id {type}, "userId" {type}, "organizationId" {type}, role text);
        insert into member values ('{one}', '{two}', '{one}', 'owner');
        insert into session values ('{one}', '{TOKEN}', '{one}', now() + interval '1 min'),
                                   ('{two}', '{OTHER}', '{two}', now() + interval '1 min')"""
    )
    odd = [key for key in ODD_IDS if key not in (one, two)]
    async with opened(database.url, organizations=True) as store:
        assert who(await verify(store, TOKEN)) == (one, one)
        found = await store.live([*odd, one, *odd, two])
        assert {key: (who(identity), identity.organizations) for key, identity in found.items()} == {
            one: ((one, one), {}),
            two: ((two, two), {one: frozenset({"owner"})}),
        }
        assert await store.organizations([*odd, one, two]) == {two: {one: frozenset({"owner"})}}
        for key in odd:
            assert await store.live([key]) == {}


async def test_thousands_are_asked_for_a_thousand_at_a_time(own_postgres: Postgres) -> None:
    url = own_postgres.create_database()
    own_postgres.run_sql(
        url,
        SCHEMA
        + """insert into session select 's' || i, now() + interval '1 min', lpad(i::text, 32, 'x'), 'u1'
        from generate_series(1, 2500) i""",
    )
    own_postgres.log_statements(url)
    async with opened(url) as store:
        ids, tokens = [f"s{i}" for i in range(5000)], [str(i).rjust(32, "x") for i in range(5000)]
        asked = len([s for s in own_postgres.statements() if s.startswith("with answer as (select s.")])
        live = await store.live(ids)
        assert set(live) == {f"s{i}" for i in range(1, 2501)}
        found = await store.find(tokens)
        assert {identity.session_id for identity in found.values()} == set(live)
        assert await store.organizations(["u1"]) == {}
        assert await store.find([]) == await store.live([]) == {}
    assert len([s for s in own_postgres.statements() if s.startswith("with answer as (select s.")]) - asked == 10


async def test_each_caller_has_the_organizations_and_roles_of_the_user(database: Database) -> None:
    database.run(
        f"""{SCHEMA} {SESSION} {MEMBER} alter table "user" add role text; update "user" set role = 'admin, guard';
        insert into "user" values ('u2', 'bob', null), ('u3', 'carol', '');
        insert into session select 's' || i, now() + interval '1 hour', repeat(i::text, 32), 'u' || i from
          generate_series(2, 3) i;
        insert into member values ('m1', 'o1', 'u1', 'owner'), ('m2', 'o2', 'u1', 'admin,member'),
          ('m3', 'o2', 'u2', 'member'), ('m4', 'o3', 'u4', 'member')"""
    )
    alice = {"o1": frozenset({"owner"}), "o2": frozenset({"admin", "member"})}
    bob = {"o2": frozenset({"member"})}
    async with opened(database.url, organizations=True) as store:
        found = await store.find([TOKEN, "2" * 32, "3" * 32])
        assert [(i.user_id, i.roles, i.organizations) for i in sorted(found.values(), key=lambda i: i.user_id)] == [
            ("u1", {"admin", "guard"}, alice),
            ("u2", set(), bob),
            ("u3", set(), {}),
        ]
        assert await store.live(["s1", "s2", "s3"]) == {i.session_id: i for i in found.values()}
        assert await store.organizations(["u1", "u2", "u3", "nobody"]) == {"u1": alice, "u2": bob}
    async with opened(database.url) as store:
        identity = await verify(store)
        assert identity is not None
        assert identity.organizations == {}
        assert await store.organizations(["u1"]) == {}


async def test_organizations_without_their_table_are_unavailable_until_it_comes(database: Database) -> None:
    database.run(SCHEMA + SESSION)
    async with opened(database.url, organizations=True) as store:
        assert 'STREAM_ACCESS is organization, but there is no table "member"' in await refusal(store)
        database.run(MEMBER)
        assert who(await verify(store)) == ALICE


@pytest.mark.parametrize("indexed", [True, False])
async def test_a_batch_reads_no_table_once_per_row(each_postgres: Postgres, indexed: bool) -> None:
    database = Database(each_postgres)
    database.run(
        f"""{SCHEMA} {MEMBER} insert into "user" select 'v' || i from generate_series(1, 20000) i;
        insert into session select 's' || i, now() + interval '1 min', lpad(i::text, 32, 'x'), 'v' || i
          from generate_series(1, 20000) i;
        insert into member select 'm' || i, 'o' || i % 7, 'v' || i, 'member' from generate_series(1, 20000) i;
        {VERIFICATION} {ticket_rows("lpad(i::text, 32, 'T')", 20000)}
        {'create index on member ("userId"); create index on verification (identifier);' if indexed else ""} analyze"""
    )
    async with opened(database.url, organizations=True) as store:
        plan = store._plans.current(0.0)
        assert plan is not None
        assert plan.members is not None
        connection = await asyncpg.connect(database.url)
        try:
            assert isinstance(plan.redeem, Statement)
            for statement, key in (
                (plan.by_token, "{:x>32}"),
                (plan.by_session, "s{}"),
                (plan.members, "v{}"),
                (plan.redeem, "one-time-token:made-up-{}"),
                (plan.redeem, "one-time-token:{:T>32}"),
            ):
                for keys in (1, 1000):
                    text = await connection.fetchval(
                        f"explain (analyze, format json) {statement.sql}", [key.format(i) for i in range(1, keys + 1)]
                    )
                    scans = [
                        node
                        for node in nodes(json.loads(text)[0]["Plan"])
                        if node["Node Type"] == "Seq Scan" and not node["Relation Name"].startswith("pg_")
                    ]
                    assert {node["Actual Loops"] for node in scans} <= {0, 1}
                    if keys == 1:
                        assert {node["Relation Name"] for node in scans} <= (
                            set() if indexed else {"member", "verification"}
                        )
        finally:
            await connection.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


async def test_tables_may_be_named_and_in_a_schema(database: Database) -> None:
    database.run(
        f"""create schema auth; set search_path to auth; {SCHEMA} {SESSION} {VERIFICATION}
        alter table session rename to "Sitzung"; alter table "user" rename to people;
        alter table verification rename to tickets"""
    )
    async with opened(database.url, session="auth.Sitzung", user="auth.people", verification="auth.tickets") as store:
        assert who(await verify(store)) == ALICE
        assert who(await store.redeem(TICKET)) == ALICE
    async with opened(database.url, session="auth.sessions", user="auth.people") as store:
        assert 'no table "auth"."sessions"' in await refusal(store)


async def test_any_names_at_all_may_be_given_by_a_view(database: Database) -> None:
    database.run(
        f"""{SCHEMA} {SESSION} alter table session rename to s; alter table s rename "expiresAt" to valid_until;
        create view session as select id, token, "userId", valid_until as "expiresAt" from s"""
    )
    with capture_logs() as lines:
        async with opened(database.url) as store:
            assert who(await verify(store)) == ALICE
    assert [line["log_level"] for line in lines] == ["info"]


async def test_a_token_without_an_index_is_warned_of(database: Database) -> None:
    database.run(SCHEMA + SESSION + "alter table session drop constraint session_token_key")
    with capture_logs() as lines:
        async with opened(database.url) as store:
            assert who(await verify(store)) == ALICE
    assert [(line["log_level"], line["event"]) for line in lines] == [
        ("info", "session store found"),
        ("warning", "session store is slow"),
    ]
    assert lines[0]["token_indexed"] is False
    assert '"session"."token" has no index' in lines[1]["reason"]


def ticket_rows(tickets: str, count: int) -> str:
    """Tickets from so many numbers, all of alice's session."""
    return f"""insert into verification select 'n' || i, 'one-time-token:' || {tickets}, '{TOKEN}',
      now() + interval '1 min' from generate_series(1, {count}) i;"""


async def test_a_ticket_is_used_up_once_by_many_at_once(each_postgres: Postgres) -> None:
    database = Database(each_postgres)
    database.run(SCHEMA + SESSION + VERIFICATION + "create index on verification (identifier);")
    database.run(ticket_rows("lpad(i::text, 32, 'T')", 200))
    tickets = [str(i).rjust(32, "T") for i in range(1, 201)]
    async with opened(database.url) as one, opened(database.url) as two, opened(database.url) as three:
        stores = (one, two, three)
        found = await asyncio.gather(
            *[store.redeem(ticket) for ticket in tickets for store in stores for _ in range(2)],
            *[store.redeem(ticket) for store in stores for ticket in reversed(tickets)],
        )
        assert sorted(map(str, map(who, found))) == [str(ALICE)] * 200 + ["None"] * 1600
        assert {await store.redeem(ticket) for store in stores for ticket in tickets} == {None}
    assert database.run("select id from verification").split() == ["v1"]


async def test_a_ticket_goes_to_another_who_brings_it_when_its_first_bearer_leaves(database: Database) -> None:
    database.run(SCHEMA + SESSION + VERIFICATION)
    other = await asyncpg.connect(database.url)
    try:
        async with opened(database.url) as store:
            for leaving in range(3):
                async with other.transaction():
                    await other.execute("lock table verification")
                    bearers = [asyncio.create_task(store.redeem(TICKET)) for _ in range(3)]
                    await asyncio.sleep(0.1)
                    for task in bearers[:leaving]:
                        task.cancel()
                    bearers.append(asyncio.create_task(store.redeem(TICKET)))
                    await asyncio.sleep(0)
                found = await asyncio.gather(*bearers, return_exceptions=True)
                assert [type(one) for one in found[:leaving]] == [asyncio.CancelledError] * leaving
                assert sum(isinstance(one, Identity) for one in found) == 1
                database.run(VERIFICATION.partition(";")[2])
    finally:
        await other.close()


async def test_a_ticket_whose_bearer_leaves_before_its_turn_is_not_used_up(database: Database) -> None:
    database.run(SCHEMA + SESSION + VERIFICATION)
    other = await asyncpg.connect(database.url)
    try:
        async with opened(database.url) as store:
            async with other.transaction():
                await other.execute("lock table verification")
                ahead = asyncio.create_task(store.redeem(OTHER))
                await asyncio.sleep(0.1)
                waiting = asyncio.create_task(store.redeem(TICKET))
                await asyncio.sleep(0.1)
                waiting.cancel()
            assert await ahead is None
            await asyncio.gather(waiting, return_exceptions=True)
            await store.check()
            assert who(await store.redeem(TICKET)) == ALICE
    finally:
        await other.close()


@pytest.mark.parametrize("organizations", [False, True])
async def test_a_ticket_whose_session_cannot_be_looked_up_now_stays_good(
    database: Database, organizations: bool
) -> None:
    role, url = new_role(database)
    database.run(
        f"""{SCHEMA} {SESSION} {MEMBER} {VERIFICATION} insert into member values ('m1', 'o1', 'u1', 'owner');
        grant select on session, "user", member, verification to {role}; grant delete on verification to {role}"""
    )
    async with opened(url, organizations=organizations) as store:
        await store.check()
        database.run(f"revoke select on session from {role}")
        with pytest.raises(StoreUnavailable):
            await store.redeem(TICKET)
        database.run(f"grant select on session to {role}")
        identity = await store.redeem(TICKET)
        assert identity is not None
        assert who(identity) == ALICE
        assert identity == await verify(store)
        assert identity.organizations == ({"o1": frozenset({"owner"})} if organizations else {})
        assert await store.redeem(TICKET) is None


async def test_a_flood_of_made_up_tickets_costs_few_queries_and_a_good_one_gets_through(
    own_postgres: Postgres,
) -> None:
    url = own_postgres.create_database()
    own_postgres.run_sql(url, SCHEMA + SESSION + VERIFICATION)
    own_postgres.log_statements(url)
    async with opened(url) as store:
        made_up = [f"{i:032}" for i in range(1999)]
        tickets = [*made_up[:1500], TICKET, *made_up[1500:]]
        found = await asyncio.gather(*[store.redeem(ticket) for ticket in tickets])
        assert [who(identity) for identity in found] == [ALICE if ticket == TICKET else None for ticket in tickets]
    assert len([s for s in own_postgres.statements() if s.startswith("with answer as (delete ")]) == 4


@pytest.mark.parametrize("connections", [2, 5])
async def test_tickets_that_are_stuck_hold_up_no_recheck_and_no_lookup(database: Database, connections: int) -> None:
    database.run(SCHEMA + SESSION + MEMBER + VERIFICATION)
    other = await asyncpg.connect(database.url)
    try:
        async with opened(database.url, connections=connections, organizations=True) as store, other.transaction():
            await store.check()
            await other.execute("lock table verification")
            flood = [asyncio.create_task(store.redeem(f"{i:032}")) for i in range(1000)]
            await asyncio.sleep(0.1)
            for _ in range(20):
                assert who((await store.live(["s1"])).get("s1")) == ALICE
                assert await store.organizations(["u1"]) == {}
                await store.check()
            if connections > 2:
                assert who(await verify(store)) == ALICE
            assert not any(task.done() for task in flood)
            found = await asyncio.gather(*flood, return_exceptions=True)
            assert {type(one) for one in found} == {StoreUnavailable}
    finally:
        await other.close()


@pytest.mark.parametrize("connections", [1, 2, 5])
async def test_a_recheck_does_not_wait_behind_a_crowd_of_lookups(database: Database, connections: int) -> None:
    # Each look-up takes its time, as over a slow network.
    database.run(
        f"""{SCHEMA} {SESSION} alter table session rename to s;
        create view session as select s.* from s, pg_sleep(0.02)"""
    )
    async with opened(database.url, connections=connections, timeout_s=20.0) as store:
        await asyncio.gather(*[store.live(["s1"]) for _ in range(10)], *[verify(store) for _ in range(10)])
        crowd = [asyncio.create_task(verify(store)) for _ in range(300)]
        await asyncio.sleep(0)
        for _ in range(5):
            before = sum(task.done() for task in crowd)
            assert who((await store.live(["s1"])).get("s1")) == ALICE
            assert sum(task.done() for task in crowd) - before <= 3 * connections
        await asyncio.gather(*crowd)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("update verification set \"expiresAt\" = now() - interval '1 s'", "it expired"),
        ("update verification set value = 'nothing'", "there is no such session"),
        ("delete from session", "the session is gone"),
        ('update session set "expiresAt" = now()', "the session expired"),
        ("update verification set identifier = 'sign-in-otp-' || identifier", "it is something else"),
        (f"update verification set identifier = '{TICKET}'", "it is something else"),
    ],
)
async def test_a_ticket_that_is_good_for_nothing_is_nobodys(database: Database, change: str, why: str) -> None:
    database.run(SCHEMA + SESSION + VERIFICATION + change)
    async with opened(database.url) as store:
        assert await store.redeem(TICKET) is None, why
        for odd in ODD_TOKENS:
            assert await store.redeem(odd) is None


async def no_verdict(store: SessionStore, ticket: str = TICKET) -> str:
    """Why nothing can be said about a ticket, which is not to be taken for a bad one."""
    with pytest.raises(StoreUnavailable) as caught:
        await store.redeem(ticket)
    assert ticket not in str(caught.value)
    return str(caught.value)


async def test_a_role_without_the_right_to_delete_says_nothing_about_a_ticket_and_says_so_once(
    database: Database,
) -> None:
    role, url = new_role(database)
    database.run(
        f"""{SCHEMA} {SESSION} {VERIFICATION} grant select on session, "user" to {role};
        grant select (identifier, value) on verification to {role}"""
    )
    with capture_logs() as lines:
        async with opened(url) as store:
            for _ in range(3):
                await no_verdict(store)
            assert who(await verify(store)) == ALICE
            database.run(f'grant select ("expiresAt"), delete on verification to {role}')
            store._plans.expire()
            assert who(await store.redeem(TICKET)) == ALICE
    (line,) = [line for line in lines if "tickets" in line["event"]]
    assert f'GRANT SELECT ("expiresAt"), DELETE ON "verification" TO "{role}"' in line["reason"]


async def test_a_database_that_is_read_only_says_nothing_about_a_ticket_and_says_so_once(database: Database) -> None:
    database.run(
        f"""{SCHEMA} {SESSION} {VERIFICATION}
        alter database {database.url.rpartition("/")[2]} set default_transaction_read_only = on"""
    )
    with capture_logs() as lines:
        async with opened(database.url) as store:
            for _ in range(3):
                await no_verdict(store)
            assert who(await verify(store)) == ALICE
    assert [line["reason"] for line in lines if "tickets" in line["event"]] == [READ_ONLY]


async def test_without_its_table_nothing_is_said_about_a_ticket(database: Database) -> None:
    database.run(SCHEMA + SESSION)
    async with opened(database.url) as store:
        await no_verdict(store)
        await store.check()


#: What the server may answer to the deleting of a ticket. None of it says that the ticket is bad.
SERVER_FAULTS = [
    "25006", "25P03", "42501", "42P01", "42703", "08006", "08P01", "40001", "40P01", "53000", "53100", "53200", "53300",
    "53400", "54001", "55000", "55006", "55P03", "57000", "57014", "57P01", "57P02", "57P03", "57P05", "58000", "58030",
    "72000", "F0000", "P0001", "XX000", "XX001", "XX002", "22P02", "0A000",
]  # fmt: skip


@pytest.mark.parametrize("code", SERVER_FAULTS)
async def test_no_fault_of_the_server_is_a_verdict_on_a_ticket_or_a_token(database: Database, code: str) -> None:
    raising = f"begin raise exception 'about %', old using errcode = '{code}'; end"
    database.run(
        f"""{SCHEMA} {SESSION} {VERIFICATION}
        create function refuse() returns trigger language plpgsql as $$ {raising} $$;
        create trigger refuse before delete on verification for each row execute function refuse();"""
    )
    async with opened(database.url) as store:
        await no_verdict(store)
        assert who(await verify(store)) == ALICE
        database.run("drop trigger refuse on verification")
        assert who(await store.redeem(TICKET)) == ALICE
        database.run(
            f"""alter table session rename to real;
            create function broken(t text) returns text language plpgsql as
              $$ begin raise exception 'about %', t using errcode = '{code}'; end $$;
            create view session as select id, "userId", "expiresAt", broken(token) as token from real"""
        )
        await refusal(store, TOKEN)
        with pytest.raises(StoreUnavailable):
            await store.live(["s1"])


async def test_a_ticket_whose_row_is_locked_is_no_bad_ticket(database: Database) -> None:
    database.run(SCHEMA + SESSION + VERIFICATION)
    other = await asyncpg.connect(database.url)
    try:
        async with opened(database.url, timeout_s=0.3) as store, other.transaction():
            await other.execute("select from verification for update")
            await no_verdict(store)
    finally:
        await other.close()


async def test_a_right_that_is_missing_is_said_with_its_grant(database: Database) -> None:
    role, url = new_role(database)
    database.run(f'{SCHEMA} {SESSION} grant select (id, token, "userId") on session to {role}')
    async with opened(url) as store:
        assert f'GRANT SELECT ("expiresAt") ON "session" TO "{role}"' in await refusal(store)
        database.run(f'grant select ("expiresAt") on session to {role}')
        assert f'GRANT SELECT ("id") ON "user" TO "{role}"' in await refusal(store)
        database.run(f'grant select (id) on "user" to {role}')
        assert who(await verify(store)) == ALICE


async def test_a_schema_that_may_not_be_used_is_said(database: Database) -> None:
    _, url = new_role(database)
    database.run(f"create schema auth; set search_path to auth; {SCHEMA} {SESSION}")
    async with opened(url, session="auth.session", user="auth.user") as store:
        assert "permission denied for schema auth" in await refusal(store)


async def test_tables_are_found_on_the_search_path(database: Database) -> None:
    database.run(f"create schema auth; set search_path to auth; {SCHEMA} {SESSION}")
    async with opened(database.url) as store:
        assert 'no table "session"' in await refusal(store)
    async with opened(f"{database.url}?search_path=auth") as store:
        assert who(await verify(store, TOKEN)) == ALICE


async def test_migrations_may_run_after_us(database: Database) -> None:
    async with opened(database.url) as store:
        assert 'no table "session"' in await refusal(store)
        database.run(SCHEMA + SESSION)
        assert who(await verify(store, TOKEN)) == ALICE


async def test_columns_that_change_under_a_running_store_are_found_again(database: Database) -> None:
    database.run(SCHEMA + SESSION)
    async with opened(database.url) as store:
        assert who(await verify(store, TOKEN)) == ALICE
        database.run('alter table session rename "expiresAt" to expires_at')
        assert "UndefinedColumn" in await refusal(store, TOKEN)
        assert who(await verify(store, TOKEN)) == ALICE


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
        async with opened(database.url, connections=2) as store:
            assert who(await verify(store, TOKEN)) == ALICE
            async with other.transaction():
                await other.execute("lock table session in access exclusive mode")
                reasons = await asyncio.gather(*[refusal(store, TOKEN) for _ in range(10)])
                assert set(reasons) == {f"PostgreSQL gave no answer within {TIMEOUT_S:g} s"}
            assert who(await verify(store, TOKEN)) == ALICE
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


class PgBouncer:
    """PgBouncer in transaction mode before a server, with two connections to it."""

    def __init__(self, server: Postgres) -> None:
        program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            missing("no PgBouncer: the program is not installed")
        self._directory = Path(tempfile.mkdtemp(prefix="watchout-pgbouncer-"))
        self._command = [program, "-q", str(self._directory / "ini")]
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # PgBouncer refuses to run as root
            nobody = pwd.getpwnam("nobody")
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self._directory, nobody.pw_uid, nobody.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        (self._directory / "ini").write_text(
            f"""[databases]
            * = host=127.0.0.1 port={server.port} user=postgres password={server.password}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {self.port}
            unix_socket_dir =
            auth_type = any
            pool_mode = transaction
            default_pool_size = 2
            """
        )
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database_url: str) -> str:
        """The same database through it."""
        return f"postgresql://anybody@127.0.0.1:{self.port}/{database_url.rpartition('/')[2]}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", '"$@" & cat >/dev/null; kill $!; wait $!', "sh", *self._command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", **self._as,
        )  # fmt: skip
        give_up = time.monotonic() + 10
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            assert time.monotonic() < give_up, self.stop()
            time.sleep(0.02)

    def stop(self) -> str:
        process, self._process = self._process, None
        if process is not None:
            said, _ = process.communicate(timeout=10)
            return said.decode()
        return ""

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._directory)


@pytest.fixture
def pgbouncer(postgres: Postgres) -> Iterator[PgBouncer]:
    bouncer = PgBouncer(postgres)
    bouncer.start()
    yield bouncer
    bouncer.remove()


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
