from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.kit.services import BetterAuth, Postgres
from tests.kit.sql_of_page import sql_of_page
from watchout.common.errors import StoreUnavailable
from watchout.identity.sources import listen
from watchout.identity.sources.listen import ANY_CHANGE, CHANGES_AT_ONCE, Change, PendingChanges, parse_notification
from watchout.identity.sources.postgres import PostgresStore

TIMEOUT_S = 20.0
CHANNEL = "watchout"
TOKEN = "t" * 32


# ── pure ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ('{"session":"s1","user":"u1"}', ("s1", "u1")),
        ('{"session":"s1","user":null}', ("s1", None)),
        ('{"user":"u1","more":[1]}', (None, "u1")),
        ('{"heartbeat":"word"}', "word"),
        ('{"session":null,"user":null}', None),
        ('{"session":1,"user":"u1"}', None),
        ('{"session":"","user":"u1"}', None),
        (json.dumps({"session": "s" * 513}), None),
        ("{}", None),
        ("[]", None),
        ('"s1"', None),
        ("null", None),
        ("", None),
        ("{", None),
        ("[" * 5000, None),
        ("NaN", None),
    ],
)
def test_a_payload_names_a_change_or_nothing(payload: str, said: object) -> None:
    assert parse_notification(payload) == said


@given(st.text() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_no_payload_makes_it_raise(payload: str) -> None:
    parse_notification(payload)


def heard(session: str) -> str:
    return json.dumps({"session": session, "user": "u"})


def all_of(changes: PendingChanges) -> list[Change]:
    found = []
    while taken := changes.take():
        assert len(taken) <= CHANGES_AT_ONCE
        found += taken
    return found


async def test_changes_are_told_once_and_in_order() -> None:
    changes = PendingChanges()
    for session in ("s1", "s2", "s1", "s3"):
        changes.add(heard(session))
    assert all_of(changes) == [("s1", "u"), ("s2", "u"), ("s3", "u")]
    assert all_of(changes) == []


async def test_more_changes_than_are_kept_become_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "MAX_CHANGES", 1000)
    changes = PendingChanges()
    for i in range(1000):
        changes.add(heard(f"s{i}"))
    changes.add(heard("s7"))
    assert len(all_of(changes)) == 1000
    for i in range(5000):
        changes.add(heard(f"s{i}"))
    assert all_of(changes) == [ANY_CHANGE]
    changes.add(heard("s1"))
    assert all_of(changes) == [("s1", "u")]


async def test_a_lost_connection_wakes_who_waits() -> None:
    changes = PendingChanges()
    waiting = asyncio.create_task(changes.wait())
    await asyncio.sleep(0)
    changes.connection_lost()
    with pytest.raises(StoreUnavailable):
        await waiting


# ── real ─────────────────────────────────────────────────────────────────────────────────────────────────────────

SCHEMA = {
    "camelCase": """
create table "user" (id text primary key, role text, banned boolean, "banExpires" timestamptz);
create table session (id text primary key, "expiresAt" timestamptz not null, token text not null unique,
  "updatedAt" timestamptz, "userId" text not null references "user" (id) on delete cascade);
create table member (id text primary key, "organizationId" text, "userId" text, role text);
""",
    "snake_case": """
create table "user" (id uuid primary key, role text, banned boolean, ban_expires timestamp);
create table session (id uuid primary key, expires_at timestamp not null, token text not null unique,
  updated_at timestamp, user_id uuid not null references "user" (id) on delete cascade);
create table member (id uuid primary key, organization_id uuid, user_id uuid, role text);
""",
}
TRIGGERS = ("trigger: sessions", "trigger: admin", "trigger: organizations")


class Heard:
    """What a listener was told, to wait for."""

    def __init__(self) -> None:
        self.changes: list[Change] = []

    def __call__(self, session_id: str | None, user_id: str | None) -> None:
        self.changes.append((session_id, user_id))

    async def until(self, change: Change, *, within_s: float = 30.0) -> None:
        """Wait for it, and forget all that was told up to it."""
        give_up = time.monotonic() + within_s
        while change not in self.changes:
            assert time.monotonic() < give_up, (change, self.changes)
            await asyncio.sleep(0.005)
        del self.changes[: self.changes.index(change) + 1]


@asynccontextmanager
async def listening(url: str, timeout_s: float = TIMEOUT_S) -> AsyncIterator[Heard]:
    told = Heard()
    store = PostgresStore(url, timeout_s=timeout_s, connections=1, max_waiting=20_000)
    task = asyncio.create_task(store.listen(CHANNEL, told))
    try:
        yield told
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.real
@pytest.mark.parametrize("spelling", SCHEMA)
async def test_the_trigger_of_the_page_tells_every_change_that_matters_and_no_token(
    each_postgres: Postgres, spelling: str
) -> None:
    url = each_postgres.create_database()
    names = sql_of_page(f"names: {spelling}")

    def run(sql: str) -> str:
        return each_postgres.run_sql(url, names + sql)

    run(SCHEMA[spelling] + sql_of_page(*TRIGGERS))
    user, session, other = (f"{i}1111111-2222-3333-4444-555555555555" for i in "abc")
    async with listening(url) as told:
        await told.until(ANY_CHANGE)
        run(f"""insert into "user" values ('{user}');
            insert into session (id, :"expires_at", token, :"user_id")
              values ('{session}', now(), '{TOKEN}', '{user}')""")
        run("update session set token = token")
        run('update "user" set id = id')
        run('update session set :"expires_at" = now()')
        await told.until((session, user))
        run('update "user" set banned = true')
        await told.until((None, user))
        run(f"""insert into member (id, :"user_id") values ('{other}', '{user}')""")
        await told.until((None, user))
        run("update member set role = 'owner'")
        await told.until((None, user))
        run("delete from member")
        await told.until((None, user))
        run(f"insert into session (id, :\"expires_at\", token, :\"user_id\") values ('{other}', now(), 'x', '{user}')")
        run(f"delete from session where id = '{other}'")
        await told.until((other, user))
        run('delete from "user"')
        await told.until((None, user))
        assert told.changes in ([(session, user)], [])  # the cascade's, before or after it
        run(sql_of_page("trigger: remove"))
        assert run("select count(*) from pg_trigger where not tgisinternal") == "0\n"


@pytest.mark.real
async def test_no_notification_holds_the_token(postgres: Postgres, postgres_url: str) -> None:
    names = sql_of_page("names: camelCase")
    postgres.run_sql(postgres_url, names + SCHEMA["camelCase"] + sql_of_page(*TRIGGERS))
    said = postgres.run_sql(
        postgres_url,
        f"""listen {CHANNEL}; insert into "user" values ('u1');
        insert into session values ('s1', now(), '{TOKEN}', now(), 'u1'); delete from session; select 1;""",
    )
    assert '{"session" : "s1", "user" : "u1"}' in said
    assert TOKEN not in said


@pytest.mark.real
async def test_sign_out_ban_and_membership_of_a_real_better_auth_are_heard(
    postgres: Postgres, postgres_url: str, start_better_auth: Callable[..., BetterAuth]
) -> None:
    server = start_better_auth(postgres_url, BA_PLUGINS="bearer,admin,organization")
    postgres.run_sql(postgres_url, sql_of_page("names: camelCase", *TRIGGERS))
    admin, alice, bob, carol = (server.sign_up(name) for name in ("admin", "alice", "bob", "carol"))
    ids = {
        one: server.session(("Authorization", f"Bearer {one.token}"))["session"]["id"] for one in (admin, alice, bob)
    }
    postgres.run_sql(postgres_url, f"""update "user" set role = 'admin' where id = '{admin.user_id}'""")
    async with listening(postgres_url) as told:
        await told.until(ANY_CHANGE)
        server.sign_out(alice.token)
        await told.until((ids[alice], alice.user_id))
        postgres.run_sql(postgres_url, f"""update "user" set banned = true where id = '{bob.user_id}'""")
        await told.until((None, bob.user_id))
        server.ban_user(admin.token, bob.user_id)
        await told.until((ids[bob], bob.user_id))
        organization = server.create_organization(admin.token, "acme")
        await told.until((None, admin.user_id))
        member = server.add_member(admin.token, organization, carol)
        await told.until((None, carol.user_id))
        server.remove_member(admin.token, organization, member)
        await told.until((None, carol.user_id))
        server.remove_user(admin.token, carol.user_id)
        await told.until((None, carol.user_id))


@pytest.mark.real
async def test_after_each_connecting_anything_may_have_changed(own_postgres: Postgres) -> None:
    url = own_postgres.create_database()
    payload = heard("s1")
    own_postgres.stop()
    with capture_logs() as lines:
        async with listening(url) as told:
            for _ in range(2):
                await asyncio.to_thread(own_postgres.start)
                await told.until(ANY_CHANGE)
                own_postgres.run_sql(url, f"notify {CHANNEL}, '{payload}'")
                await told.until(("s1", "u"))
                own_postgres.run_sql(url, "select pg_terminate_backend(pid) from pg_stat_activity where "
                                          "application_name = 'watchout-listen'")  # fmt: skip
                await told.until(ANY_CHANGE)
                await asyncio.to_thread(own_postgres.stop)
            assert told.changes == []
    events = [line["event"] for line in lines]
    assert events.count("listening for sessions that change") == 4
    assert events.count("not listening for sessions that change") <= 5
    assert own_postgres.password not in str(lines)


@pytest.mark.real
async def test_five_thousand_sessions_that_go_at_once_are_all_told(postgres: Postgres, postgres_url: str) -> None:
    postgres.run_sql(postgres_url, sql_of_page("names: camelCase") + SCHEMA["camelCase"] + sql_of_page(*TRIGGERS))
    postgres.run_sql(
        postgres_url,
        """insert into "user" values ('u');
        insert into session select 's' || i, now(), 't' || i, now(), 'u' from generate_series(1, 5000) i""",
    )
    async with listening(postgres_url) as told:
        await told.until(ANY_CHANGE)
        postgres.run_sql(postgres_url, "delete from session")
        for i in range(1, 5001):
            await told.until((f"s{i}", "u"))
        assert told.changes == []


@pytest.mark.real
async def test_payloads_of_others_are_ignored_and_counted(postgres: Postgres, postgres_url: str) -> None:
    with capture_logs() as lines:
        async with listening(postgres_url) as told:
            await told.until(ANY_CHANGE)
            postgres.run_sql(
                postgres_url, f"notify {CHANNEL}, 'what'; notify {CHANNEL}; notify {CHANNEL}, '{{\"heartbeat\":\"x\"}}'"
            )
            postgres.run_sql(postgres_url, f"notify {CHANNEL}, '[]'; notify {CHANNEL}, '{heard('s1')}'")
            await told.until(("s1", "u"))
            assert told.changes == []
    counted = [line for line in lines if line["log_level"] == "warning"]
    assert len(counted) == 1
    assert counted[0]["count"] in (1, 2, 3)


@pytest.mark.real
async def test_a_silent_channel_is_tried_and_one_that_does_not_carry_is_left(
    postgres: Postgres, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "SILENCE_S", 0.05)
    beats: list[str] = []

    def deaf(payload: str) -> Any:
        beats.append(payload)
        return parse_notification(payload) if len(beats) < 4 else None

    monkeypatch.setattr(listen, "parse_notification", deaf)
    with capture_logs() as lines:
        async with listening(postgres_url, timeout_s=6.0) as told:
            await told.until(ANY_CHANGE)
            give_up = time.monotonic() + 30
            while not any(line["log_level"] == "warning" and "reason" in line for line in lines):
                assert time.monotonic() < give_up
                await asyncio.sleep(0.01)
            assert told.changes == []
    assert len(beats) >= 4
    assert [line["reason"] for line in lines if "reason" in line] == [
        "a notification of our own did not come back; through PgBouncer none may"
    ]
