"""Tables, names, dates and rights as real PostgreSQL databases have them."""

from __future__ import annotations

import time

import pytest
from structlog.testing import capture_logs

from tests.integration.identity.postgres_kit import (
    ALICE,
    OTHER,
    SCHEMA,
    SESSION,
    TICKET,
    TIMEOUT_S,
    TOKEN,
    UNKNOWN,
    VERIFICATION,
    Database,
    new_role,
    opened,
    refusal,
    verify,
    who,
)
from tests.kit.services import Postgres
from watchout.common.errors import StartError, StoreUnavailable
from watchout.identity import Identity
from watchout.identity.sources.postgres import PostgresStore

pytestmark = pytest.mark.real

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
            assert alice.expires_at == pytest.approx(time.time() + 60, abs=30)
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
    store = PostgresStore(database.url, timeout_s=TIMEOUT_S, connections=1, max_waiting=20_000)
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
        assert identity.expires_at == pytest.approx(time.time() + 60, abs=30)
        assert await verify(store, UNKNOWN) is None
        database.run(f"""update "user" set banned = true, "banExpires" = ({local}) + interval '1 min'""")
        assert await verify(store, TOKEN) is None
        database.run(f"""update "user" set "banExpires" = ({local}) - interval '1 s'""")
        assert await verify(store, TOKEN) is not None


async def test_a_zone_that_the_server_does_not_know_is_said(database: Database) -> None:
    database.run(SCHEMA + SESSION)
    async with opened(database.url, naive_timezone="Nowhere/City") as store:
        assert 'time zone "Nowhere/City" not recognized' in await refusal(store, TOKEN)


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
