"""All sessions seem to vanish at once: no verdict then, on a real PostgreSQL. Those that ended are over at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.integration.identity.postgres_kit import (
    ALICE,
    MEMBER,
    OTHER,
    SCHEMA,
    SESSION,
    TICKET,
    TOKEN,
    UNKNOWN,
    VERIFICATION,
    Database,
    PgBouncer,
    new_role,
    opened,
    verify,
    who,
)
from tests.kit.services import Postgres
from watchout.common.errors import StoreUnavailable
from watchout.identity.sources import continuity
from watchout.identity.sources.postgres import PostgresStore
from watchout.identity.sources.session_store import ChangedStore, HiddenRows

pytestmark = pytest.mark.real

BOB = f"""insert into "user" values ('u2', 'bob');
insert into session values ('s2', now() + interval '1 h', '{OTHER}', 'u2');"""


@pytest.fixture
def database(postgres: Postgres) -> Database:
    made = Database(postgres)
    made.run(SCHEMA + SESSION + BOB + MEMBER + VERIFICATION)
    return made


@pytest.fixture
async def store(database: Database) -> AsyncIterator[PostgresStore]:
    """Of a role that may read and is nobody's owner; Alice and Bob are here."""
    role, url = new_role(database)
    database.run(
        f"""grant usage, create on schema public to {role}; grant select on all tables in schema public to {role};
        grant delete on verification to {role}"""
    )
    async with opened(url) as made:
        assert set(await made.find([TOKEN, OTHER])) == {TOKEN, OTHER}
        assert set(await made.live(["s1", "s2"])) == {"s1", "s2"}
        yield made


def role_of(store: PostgresStore) -> str:
    return str(store._url.user)


async def no_verdict(store: PostgresStore, *names: str) -> StoreUnavailable:
    """Nothing is said of those who are here, of who comes, and of whom nobody knows; the reason names these."""
    found = await asyncio.gather(
        store.live(["s1", "s2"]), store.find([TOKEN]), store.find([UNKNOWN]), store.check(), return_exceptions=True
    )
    for each in found:
        assert isinstance(each, StoreUnavailable), found
        for name in names:
            assert name in str(each)
    assert isinstance(found[0], StoreUnavailable)
    return found[0]


async def is_well(store: PostgresStore) -> None:
    assert set(await store.live(["s1", "s2"])) == {"s1", "s2"}
    assert who(await verify(store, TOKEN)) == ALICE
    assert await verify(store, UNKNOWN) is None
    await store.check()


async def recovers(store: PostgresStore) -> None:
    """What is in doubt is looked at again a moment later."""
    give_up = time.monotonic() + 30
    while True:
        try:
            return await is_well(store)
        except StoreUnavailable:
            assert time.monotonic() < give_up
            await asyncio.sleep(0.02)


async def are_over(store: PostgresStore) -> None:
    """Both sessions have ended, which is said at once."""
    assert await store.live(["s1", "s2"]) == {}
    assert await store.find([TOKEN]) == {}
    await store.check()


HIDING: dict[str, str] = {
    "no policy": "alter table session enable row level security",
    "no policy on user": 'alter table "user" enable row level security',
    "forced": "alter table session enable row level security; alter table session force row level security",
    "a policy by a setting": """alter table session enable row level security;
        create policy own on session using ("userId" = current_setting('request.jwt.claims', true))""",
    "a policy for another role": """alter table session enable row level security;
        create policy his on session to postgres using (true)""",
    "a policy that hides some": """alter table session enable row level security;
        create policy part on session using (id = 's1')""",
    "a policy to insert only": """alter table session enable row level security;
        create policy adds on session for insert with check (true)""",
    "a restrictive policy": """alter table session enable row level security;
        create policy open on session using (true);
        create policy shut on session as restrictive using ("userId" = 'nobody')""",
}


@pytest.mark.parametrize("how", HIDING)
async def test_row_level_security_that_is_switched_on_is_no_verdict_and_is_named_with_its_remedy(
    database: Database, store: PostgresStore, how: str
) -> None:
    database.run(HIDING[how])
    found = await no_verdict(store, "row level security", role_of(store))
    assert isinstance(found, HiddenRows)
    remedy = str(found).partition(": ")[2]
    for statement in remedy.split(", or "):
        database.run(statement)
        await is_well(store)
        if "BYPASSRLS" in statement:
            database.run(f"alter role {role_of(store)} nobypassrls")
            await no_verdict(store, "row level security")


async def test_it_is_no_verdict_from_the_start_either(database: Database, store: PostgresStore) -> None:
    database.run(HIDING["no policy"])
    url = database.url.replace("postgresql://postgres", f"postgresql://{role_of(store)}")
    url = f"postgresql://{role_of(store)}:pw@{url.rpartition('@')[2]}"
    async with opened(url) as late:
        await no_verdict(late, "row level security")
        database.run("alter table session disable row level security")
        await is_well(late)


@pytest.mark.parametrize(
    "allowing",
    [
        "create policy reads on session for select to {role} using (true)",
        "create policy reads on session using (true)",
        "create role g_{role}; grant g_{role} to {role}; create policy reads on session to g_{role} using (true)",
        "alter role {role} bypassrls",
        "alter table session owner to {role}",
    ],
)  # fmt: skip
async def test_row_level_security_that_lets_us_see_everything_is_no_hindrance(
    database: Database, store: PostgresStore, allowing: str
) -> None:
    database.run(f"{allowing.format(role=role_of(store))}; alter table session enable row level security")
    await is_well(store)
    database.run("delete from session where id = 's1'")
    assert set(await store.live(["s1", "s2"])) == {"s2"}


async def test_an_owner_for_whom_it_is_forced_is_no_exception(database: Database, store: PostgresStore) -> None:
    database.run(f"alter table session owner to {role_of(store)}; alter table session enable row level security")
    await is_well(store)
    database.run("alter table session force row level security")
    await no_verdict(store, "row level security")


@pytest.mark.parametrize("invoker", [True, False])
async def test_it_is_found_beneath_a_view(database: Database, store: PostgresStore, invoker: bool) -> None:
    role = role_of(store)
    owner = (
        ""
        if invoker
        else f"create role o_{role}; grant select on real to o_{role}; alter view session owner to o_{role};"
    )
    database.run(
        f"""alter table session rename to real;
        create view session with (security_invoker = {str(invoker).lower()}) as select * from real;
        {owner} grant select on session, real to {role}"""
    )
    await is_well(store)
    database.run('alter table "real" enable row level security')
    await no_verdict(store, "row level security", 'public."real"')
    database.run('alter table "real" disable row level security')
    await is_well(store)


async def test_members_that_are_hidden_are_no_verdict_where_they_count(database: Database) -> None:
    role, url = new_role(database)
    database.run(f"grant select on all tables in schema public to {role}")
    async with opened(url, organizations=True) as store:
        await is_well(store)
        database.run("alter table member enable row level security")
        await no_verdict(store, "row level security", "member")
    async with opened(url) as store:
        await is_well(store)


async def test_tickets_that_are_hidden_are_no_verdict_and_hold_up_nothing_else(
    database: Database, store: PostgresStore
) -> None:
    database.run("alter table verification enable row level security")
    with pytest.raises(StoreUnavailable, match="row level security") as caught:
        await store.redeem(TICKET)
    await is_well(store)
    remedy = str(caught.value).partition(", or ")[2]
    database.run(remedy)
    give_up = time.monotonic() + 30
    while True:
        try:
            assert who(await store.redeem(TICKET)) == ALICE
            break
        except StoreUnavailable:
            assert time.monotonic() < give_up
            await asyncio.sleep(0.02)


REPLACED: dict[str, str] = {
    "an empty table": "alter table session rename to old; create table session (like old including all)",
    "an empty view": "alter table session rename to old; create view session as select * from old where false",
    "another schema's": "create schema auth; create table auth.session (like public.session including all)",
    "an empty user table": """alter table session drop constraint "session_userId_fkey";
        alter table "user" rename to old; create table "user" (like old including all)""",
    "strangers": """alter table session rename to old; create table session (like old including all);
        insert into session values ('s9', now() + interval '1 hour', repeat('9', 32), 'u1')""",
}
BACK: dict[str, str] = {
    "an empty table": "drop table session; alter table old rename to session",
    "an empty view": "drop view session; alter table old rename to session",
    "another schema's": "drop table auth.session",
    "an empty user table": 'drop table "user"; alter table old rename to "user"',
    "strangers": "drop table session; alter table old rename to session",
}


@pytest.mark.parametrize("what", REPLACED)
async def test_a_table_that_is_replaced_is_no_verdict_until_the_sessions_are_there_again(
    database: Database, store: PostgresStore, what: str
) -> None:
    role = role_of(store)
    if what == "another schema's":
        # Connections that are open keep the old path.
        name = database.url.rpartition("/")[2]
        database.run(f"{REPLACED[what]}; alter database {name} set search_path = auth, public")
        database.run(f"grant usage on schema auth to {role}; grant select on auth.session to {role}")
        database.run("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'watchout%'")
    else:
        database.run(f"{REPLACED[what]}; grant select on all tables in schema public to {role}")
    assert isinstance(await no_verdict(store, "another table answers"), ChangedStore)
    database.run(BACK[what])
    await is_well(store)


async def test_a_table_that_is_rebuilt_with_its_rows_is_believed_at_once(
    database: Database, store: PostgresStore
) -> None:
    for change in (
        "vacuum full session",
        'alter table session alter "expiresAt" type timestamptz(3)',
        f"""create table new (like session including all); insert into new select * from session; drop table session;
        alter table new rename to session; grant select on session to {role_of(store)}""",
    ):
        database.run(change)
        await is_well(store)
    database.run("delete from session where id = 's1'")
    assert set(await store.live(["s1", "s2"])) == {"s2"}


async def test_dates_that_become_another_type_are_read_anew_before_anything_is_believed(
    database: Database, store: PostgresStore
) -> None:
    """Read as before, a date without a zone would be five hours off in this server's zone."""
    database.run('alter table session alter "expiresAt" type timestamp(3) using "expiresAt" at time zone \'UTC\'')
    await is_well(store)
    found = (await store.live(["s1"]))["s1"]
    assert found.expires_at == pytest.approx(time.time() + 3600, abs=60)


@pytest.mark.parametrize(
    "change", ["delete from session", 'update session set "expiresAt" = now()', 'delete from "user"']
)
async def test_who_was_signed_out_is_out_at_once_be_it_everybody(
    database: Database, store: PostgresStore, change: str
) -> None:
    database.run(change)
    await are_over(store)


async def test_the_only_session_that_there_is_ends_at_once(database: Database, store: PostgresStore) -> None:
    database.run("delete from session where id = 's2'")
    assert set(await store.live(["s1", "s2"])) == {"s1"}
    database.run("delete from session where id = 's1'")
    assert await store.live(["s1"]) == {}


async def test_a_truncated_table_is_believed_after_a_moment(
    database: Database, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.run("truncate session")
    await no_verdict(store, "emptied")
    monkeypatch.setattr(continuity, "EMPTIED_S", 0.0)
    monkeypatch.setattr(continuity, "LOOK_AGAIN_S", 0.0)
    await are_over(store)


async def test_a_table_that_is_truncated_and_filled_again_keeps_its_sessions(
    database: Database, store: PostgresStore
) -> None:
    database.run("create table kept as select * from session; truncate session")
    await no_verdict(store, "emptied")
    database.run("insert into session select * from kept")
    await recovers(store)


async def test_another_database_behind_a_pooler_is_no_verdict(database: Database, postgres: Postgres) -> None:
    twin = Database(postgres)
    twin.run(SCHEMA)
    bouncer = PgBouncer(postgres)
    file = bouncer._directory / "ini"
    text = file.read_text()

    def lead_to(url: str) -> None:
        bouncer.stop()
        file.write_text(text.replace("* = ", f"app = dbname={url.rpartition('/')[2]} "))
        bouncer.start()

    lead_to(database.url)
    try:
        async with opened(bouncer.url("x/app"), timeout_s=20.0) as store:
            await is_well(store)
            lead_to(twin.url)
            await no_verdict(store, "another database answers")
            lead_to(database.url)
            await is_well(store)
            database.run("delete from session where id = 's1'")
            assert set(await store.live(["s1", "s2"])) == {"s2"}
    finally:
        bouncer.remove()


async def test_a_server_that_restarts_is_the_same_and_who_left_meanwhile_is_out(own_postgres: Postgres) -> None:
    database = Database(own_postgres)
    database.run(SCHEMA + SESSION + BOB)
    async with opened(database.url) as store:
        await is_well(store)
        database.run("delete from session where id = 's1'")
        own_postgres.stop()
        own_postgres.start()
        assert set(await store.live(["s1", "s2"])) == {"s2"}


async def test_a_server_that_was_made_anew_is_another_one(own_postgres: Postgres) -> None:
    """With the same migrations its oids are the same."""
    database = Database(own_postgres)
    database.run(SCHEMA + SESSION + BOB)
    name = database.url.rpartition("/")[2]
    async with opened(database.url) as store:
        await is_well(store)
        own_postgres.stop()
        anew = Postgres(own_postgres.major, password=own_postgres.password)
        try:
            anew.start_at(own_postgres.port)
            anew.run_sql(anew.url(), f"create database {name}")
            anew.run_sql(anew.url(name), SCHEMA)
            await no_verdict(store, "another database server answers")
        finally:
            anew.remove()


async def test_statements_of_the_mark_work_for_a_role_that_may_do_least(database: Database) -> None:
    role, url = new_role(database)
    database.run(
        f"""grant select (id, token, "userId", "expiresAt") on session to {role};
        grant select (id) on "user" to {role}"""
    )
    async with opened(url) as store:
        assert set(await store.live(["s1", "s2"])) == {"s1", "s2"}
        database.run("delete from session")
        assert await store.live(["s1", "s2"]) == {}
