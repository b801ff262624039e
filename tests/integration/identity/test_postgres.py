"""Sessions, users and organizations in real PostgreSQL databases."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from tests.integration.identity.postgres_kit import (
    ALICE,
    MEMBER,
    ODD_TOKENS,
    OTHER,
    SCHEMA,
    SESSION,
    TOKEN,
    UNKNOWN,
    VERIFICATION,
    Database,
    opened,
    refusal,
    ticket_rows,
    verify,
    who,
)
from tests.kit.services import Postgres
from watchout.identity.schema.plan import Statement

pytestmark = pytest.mark.real


async def test_a_session_is_found_on_every_version(each_postgres: Postgres) -> None:
    database = Database(each_postgres)
    database.run(SCHEMA + SESSION)
    async with opened(database.url) as store:
        identity = await verify(store, TOKEN)
        assert identity is not None
        assert who(identity) == ALICE
        assert identity.expires_at == pytest.approx(time.time() + 3600, abs=60)
        assert await verify(store, UNKNOWN) is None
        await store.check()


@pytest.mark.parametrize("token", ODD_TOKENS, ids=range(len(ODD_TOKENS)))
async def test_an_odd_token_is_nobody(database: Database, token: str) -> None:
    database.run(SCHEMA + SESSION)
    async with opened(database.url) as store:
        assert await verify(store, token) is None
        assert who(await verify(store, TOKEN)) == ALICE


async def test_a_session_ends_by_itself(database: Database) -> None:
    database.run(SCHEMA + SESSION)
    async with opened(database.url) as store:
        assert who(await verify(store, TOKEN)) == ALICE
        database.run("update session set \"expiresAt\" = now() + interval '0.5 s'")
        give_up = time.monotonic() + 30
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
