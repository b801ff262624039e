"""Tickets in a real PostgreSQL database: used up once, and judged only when they can be."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from structlog.testing import capture_logs

from tests.integration.identity.postgres_kit import (
    ALICE,
    MEMBER,
    ODD_TOKENS,
    OTHER,
    SCHEMA,
    SESSION,
    TICKET,
    TOKEN,
    VERIFICATION,
    Database,
    new_role,
    opened,
    refusal,
    ticket_rows,
    verify,
    who,
)
from tests.kit.clients import eventually
from tests.kit.services import Postgres
from watchout.common.errors import StoreUnavailable
from watchout.identity import Identity, SessionStore
from watchout.identity.sources.postgres import READ_ONLY

pytestmark = pytest.mark.real


async def someone_waits(database: Database) -> None:
    """Wait until a statement waits for a lock in this database."""
    waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    await eventually(lambda: database.run(waiting) != "0\n")


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
                    await someone_waits(database)
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
                await someone_waits(database)
                waiting = asyncio.create_task(store.redeem(TICKET))
                await asyncio.sleep(0)  # it has begun, and waits for its turn behind the other
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
            assert await ahead is None
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
        async with opened(database.url, connections, 6.0, organizations=True) as store, other.transaction():
            await store.check()
            await other.execute("lock table verification")
            flood = [asyncio.create_task(store.redeem(f"{i:032}")) for i in range(1000)]
            await someone_waits(database)
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
            # Behind the crowd it would wait for all of it; a database that halts meanwhile costs it some of it.
            assert sum(task.done() for task in crowd) - before < len(crowd) // 2
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
