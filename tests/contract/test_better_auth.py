from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.kit.services import BetterAuth, Postgres, SignedIn, running_better_auth
from tests.kit.sql_of_page import sql_of_page
from watchout.common.errors import StartError, StoreUnavailable
from watchout.common.settings import load
from watchout.identity import Identity, Organizations, SessionStore, open_store
from watchout.identity.embedded_store import SCHEMA, ensure, mint_token

pytestmark = pytest.mark.real

Start = Callable[..., BetterAuth]
Opened = Callable[..., Awaitable[SessionStore]]


class Database:
    """A new database of either kind: its URL, and statements run in it."""

    def __init__(self, kind: str, directory: Path, request: pytest.FixtureRequest) -> None:
        self._server: Postgres | None = None
        if kind == "postgresql":
            self._server = request.getfixturevalue("postgres")
            self.url = self._server.create_database()
        else:
            self._path = directory / "sessions.db"
            ensure(self._path)
            self.url = f"sqlite:{self._path}"

    def run(self, sql: str) -> None:
        if self._server is not None:
            self._server.run_sql(self.url, sql)
            return
        with contextlib.closing(sqlite3.connect(self._path, isolation_level=None)) as db:
            db.execute(sql)

    def count(self, table: str) -> int:
        """How many rows it has."""
        sql = f"select count(*) from {table}"
        if self._server is not None:
            return int(self._server.run_sql(self.url, sql))
        with contextlib.closing(sqlite3.connect(self._path)) as db:
            return int(db.execute(sql).fetchone()[0])


@pytest.fixture(params=["postgresql", "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    return Database(request.param, tmp_path, request)


@dataclass(frozen=True, slots=True)
class Site:
    """A Better Auth server with its database."""

    database: Database
    server: BetterAuth


@pytest.fixture(scope="module", params=["postgresql", "sqlite"])
def site(
    request: pytest.FixtureRequest, each_better_auth: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """One for all tests that change nothing but their own users."""
    database = Database(request.param, tmp_path_factory.mktemp("site"), request)
    with running_better_auth(database.url, version=each_better_auth, BA_PLUGINS="bearer,admin,organization") as server:
        yield Site(database, server)


@pytest.fixture
async def store_of_site(site: Site) -> AsyncIterator[SessionStore]:
    store = open_store(load({"DATABASE_URL": site.database.url}))
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    stores: list[SessionStore] = []

    async def open_(url: str, **environ: str) -> SessionStore:
        stores.append(open_store(load({"DATABASE_URL": url} | environ)))
        await stores[-1].open()
        return stores[-1]

    yield open_
    for store in stores:
        await store.close()


@pytest.fixture
async def store(database: Database) -> AsyncIterator[SessionStore]:
    store = open_store(load({"DATABASE_URL": database.url}))
    await store.open()
    yield store
    await store.close()


async def verify(store: SessionStore, token: str) -> Identity | None:
    return (await store.find([token])).get(token)


async def test_a_user_that_signs_up_is_known_until_the_sign_out(site: Site, store_of_site: SessionStore) -> None:
    server, store = site.server, store_of_site
    alice, bob = server.sign_up("alice"), server.sign_up("bob")
    for one in (alice, bob):
        identity = await verify(store, one.token)
        assert identity is not None
        assert identity.user_id == one.user_id
        assert identity.expires_at == pytest.approx(time.time() + 7 * 86_400, abs=60)
        _, session, _ = server.call("GET", "/get-session", token=one.token)
        assert session["session"]["id"] == identity.session_id
    server.sign_out(alice.token)
    assert await verify(store, alice.token) is None
    assert await verify(store, bob.token) is not None


async def test_tokens_that_better_auth_never_gave_are_nobody(site: Site, store_of_site: SessionStore) -> None:
    signed_in = site.server.sign_up()
    for token in (signed_in.token[:-1], signed_in.token + "x", signed_in.token.swapcase(), "'or'1'='1" * 4, "\0" * 32):
        assert await verify(store_of_site, token) is None


async def test_a_session_that_expired_is_nobody_though_its_row_stays(
    database: Database, store: SessionStore, start_better_auth: Start
) -> None:
    server = start_better_auth(database.url, BA_OPTIONS='{"session":{"expiresIn":2}}')
    began = time.time()
    signed_in = server.sign_up()
    asked = time.time()
    while (identity := await verify(store, signed_in.token)) is not None:
        assert asked < identity.expires_at + 0.1
        await asyncio.sleep(0.02)
        asked = time.time()
    assert time.time() >= began + 2 - 0.1
    assert database.count("session") == 1


async def test_a_renewed_session_has_its_new_end(
    database: Database, store: SessionStore, start_better_auth: Start
) -> None:
    server = start_better_auth(database.url, BA_OPTIONS='{"session":{"expiresIn":60,"updateAge":0}}')
    signed_in = server.sign_up()
    first = await verify(store, signed_in.token)
    server.call("GET", "/get-session", token=signed_in.token)
    second = await verify(store, signed_in.token)
    assert first is not None
    assert second is not None
    assert second.expires_at > first.expires_at
    assert second.session_id == first.session_id


async def test_a_user_who_is_banned_in_the_database_is_nobody_though_the_session_lives(
    site: Site, store_of_site: SessionStore
) -> None:
    database, store, signed_in = site.database, store_of_site, site.server.sign_up()
    assert await verify(store, signed_in.token) is not None
    database.run(f"""update "user" set banned = {_true(database)} where id = '{signed_in.user_id}'""")
    assert await verify(store, signed_in.token) is None
    over = "2020-01-01T00:00:00.000Z"
    database.run(f"""update "user" set "banExpires" = '{over}' where id = '{signed_in.user_id}'""")
    assert await verify(store, signed_in.token) is not None


async def test_a_user_whom_an_admin_bans_is_nobody(site: Site, store_of_site: SessionStore) -> None:
    database, server, store = site.database, site.server, store_of_site
    admin, mallory = server.sign_up("admin"), server.sign_up("mallory")
    database.run(f"""update "user" set role = 'admin' where id = '{admin.user_id}'""")
    assert await verify(store, mallory.token) is not None
    status, answer, _ = server.call("POST", "/admin/ban-user", {"userId": mallory.user_id}, token=admin.token)
    assert status == 200, answer
    assert await verify(store, mallory.token) is None
    assert await verify(store, admin.token) is not None


async def test_better_auth_may_come_after_us(start_better_auth: Start, postgres_url: str) -> None:
    store = open_store(load({"DATABASE_URL": postgres_url}))
    await store.open()
    try:
        with pytest.raises(StoreUnavailable, match="migrations"):
            await store.check()
        signed_in = start_better_auth(postgres_url).sign_up()
        assert await verify(store, signed_in.token) is not None
    finally:
        await store.close()


async def test_live_sessions_are_known_by_their_ids_until_they_are_revoked(
    site: Site, store_of_site: SessionStore
) -> None:
    server, store = site.server, store_of_site
    alice = server.sign_up()
    other = server.sign_in(alice.email)
    here, there = await verify(store, alice.token), await verify(store, other.token)
    assert here is not None
    assert there is not None
    ids = [str(here.session_id), str(there.session_id)]
    assert await store.live([*ids, "nobody", "\0"]) == {ids[0]: here, ids[1]: there}
    server.revoke_other_sessions(alice.token)
    assert await store.live(ids) == {ids[0]: here}
    server.sign_out(alice.token)
    assert await store.live(ids) == {}


@pytest.mark.parametrize("kept", ["plain", "hashed"])
async def test_a_ticket_is_used_up_once_here_or_there(
    database: Database, store: SessionStore, start_better_auth: Start, each_better_auth: str, kept: str
) -> None:
    options = f'{{"oneTimeToken":{{"storeToken":"{kept}"}}}}'
    server = start_better_auth(
        database.url, version=each_better_auth, BA_PLUGINS="bearer,oneTimeToken", BA_PLUGIN_OPTIONS=options
    )
    alice = server.sign_up()
    ticket = server.one_time_token(alice.token)
    found = await asyncio.gather(*[store.redeem(ticket) for _ in range(12)])
    assert [identity for identity in found if identity is not None] == [await verify(store, alice.token)]
    assert not server.redeem(ticket)
    there = server.one_time_token(alice.token)
    assert server.redeem(there)
    assert await store.redeem(there) is None
    late = server.one_time_token(alice.token)
    server.sign_out(alice.token)
    assert await store.redeem(late) is None


async def test_organizations_and_roles_are_as_better_auth_has_them(site: Site, opened: Opened) -> None:
    server, store = site.server, await opened(site.database.url, STREAM_ACCESS="organization")
    alice, bob, carol = (server.sign_up(name) for name in ("alice", "bob", "carol"))
    acme = server.create_organization(alice.token, "acme")
    server.create_organization(carol.token, "other")
    member = server.add_member(alice.token, acme, bob)

    async def of(one: SignedIn) -> Organizations:
        identity = await verify(store, one.token)
        assert identity is not None
        assert (await store.live([str(identity.session_id)]))[str(identity.session_id)] == identity
        assert identity.roles == {"user"}
        assert (await store.organizations([one.user_id])).get(one.user_id, {}) == identity.organizations
        return identity.organizations

    assert await of(alice) == {acme: {"owner"}}
    assert await of(bob) == {acme: {"member"}}
    assert set(await of(carol)) & {acme} == set()
    server.set_member_role(alice.token, acme, member, "admin")
    assert await of(bob) == {acme: {"admin"}}
    server.remove_member(alice.token, acme, member)
    assert await of(bob) == {}


@pytest.mark.parametrize(("ids", "form"), [("uuid", r"[0-9a-f-]{36}"), ("serial", r"[0-9]+")])
async def test_ids_may_be_uuids_or_numbers(
    database: Database, opened: Opened, start_better_auth: Start, ids: str, form: str
) -> None:
    url = database.url
    if url.startswith("sqlite:"):  # the embedded tables have text ids already
        url += ".new"
        Path(url.removeprefix("sqlite:")).touch()
    server = start_better_auth(
        url,
        BA_PLUGINS="bearer,organization,oneTimeToken",
        BA_OPTIONS=f'{{"advanced":{{"database":{{"generateId":"{ids}"}}}}}}',
    )
    store = await opened(url, STREAM_ACCESS="organization")
    alice, bob = server.sign_up("alice"), server.sign_up("bob")
    for one in (alice, bob):
        organization = server.create_organization(one.token, "acme")
        identity = await verify(store, one.token)
        assert identity is not None
        assert re.fullmatch(form, str(identity.session_id))
        assert identity.user_id == str(one.user_id)
        assert identity.organizations == {organization: {"owner"}}
        strange = ["x", "9" * 30, "\0", "11111111-2222-3333-4444-555555555555"]
        assert await store.live([*strange, str(identity.session_id)]) == {str(identity.session_id): identity}
        assert await store.organizations([*strange, identity.user_id]) == {identity.user_id: identity.organizations}
        assert await store.redeem(server.one_time_token(one.token)) == identity


async def test_tables_and_columns_that_better_auth_renames_are_found(
    postgres_url: str, opened: Opened, start_better_auth: Start
) -> None:
    server = start_better_auth(
        postgres_url,
        BA_PLUGINS="bearer",
        BA_OPTIONS=json.dumps(
            {
                "user": {"modelName": "people"},
                "session": {
                    "modelName": "auth_session",
                    "fields": {"expiresAt": "expires_at", "userId": "user_id", "createdAt": "created_at"},
                },
            }
        ),
    )
    signed_in = server.sign_up()
    with pytest.raises(StoreUnavailable, match="SESSION_TABLE"):
        await (await opened(postgres_url)).check()
    for prefix in ("", "public."):
        store = await opened(postgres_url, SESSION_TABLE=f"{prefix}auth_session", USER_TABLE=f"{prefix}people")
        identity = await verify(store, signed_in.token)
        assert identity is not None
        assert identity.user_id == signed_in.user_id


@pytest.mark.parametrize(("zone", "wrong"), [("Asia/Tokyo", "America/New_York"), ("America/New_York", "Asia/Tokyo")])
async def test_dates_without_a_zone_are_right_in_better_auths_own_zone(
    postgres: Postgres, postgres_url: str, opened: Opened, start_better_auth: Start, zone: str, wrong: str
) -> None:
    start_better_auth(postgres_url).stop()
    postgres.run_sql(  # as 1.3.0 to 1.3.10 made them; newer ones leave them so
        postgres_url,
        """alter table session alter "expiresAt" type timestamp, alter "createdAt" type timestamp,
          alter "updatedAt" type timestamp""",
    )
    server = start_better_auth(postgres_url, TZ=zone, BA_OPTIONS='{"session":{"expiresIn":3600}}')
    with pytest.raises(StartError, match="NAIVE_TIMEZONE"):
        await opened(postgres_url)
    fresh = server.sign_up("fresh")
    right, other = await opened(postgres_url, NAIVE_TIMEZONE=zone), await opened(postgres_url, NAIVE_TIMEZONE=wrong)
    identity = await verify(right, fresh.token)
    assert identity is not None
    assert identity.expires_at == pytest.approx(time.time() + 3600, abs=30)
    postgres.run_sql(postgres_url, """update session set "expiresAt" = "expiresAt" - interval '61 min'""")
    assert await verify(right, fresh.token) is None
    # Which shows that it matters: in the other zone one of the two answers is wrong.
    assert (await verify(other, fresh.token) is not None) is (zone == "Asia/Tokyo")


GRANTS = ("grants: sessions", "grants: admin", "grants: organizations", "grants: tickets")


async def test_the_role_of_the_page_can_do_all_and_reads_nothing_else(
    each_postgres: Postgres, opened: Opened, start_better_auth: Start
) -> None:
    url = each_postgres.create_database()
    server = start_better_auth(url, BA_PLUGINS="bearer,admin,organization,oneTimeToken")
    role = f"watchout_{url[-12:]}"
    grants = sql_of_page("names: camelCase", *GRANTS).replace("watchout", role)
    each_postgres.run_sql(url, grants)
    limited = f"postgres://{role}:change-me@{url.rpartition('@')[2]}"
    alice = server.sign_up()
    organization = server.create_organization(alice.token, "acme")
    store = await opened(limited, STREAM_ACCESS="organization")
    identity = await verify(store, alice.token)
    assert identity is not None
    assert identity.organizations == {organization: {"owner"}}
    assert await store.redeem(server.one_time_token(alice.token)) == identity
    each_postgres.run_sql(url, f"""update "user" set banned = true where id = '{alice.user_id}'""")
    assert await verify(store, alice.token) is None
    for forbidden in (
        "select 1 from account", 'select email from "user"', 'select "ipAddress" from session',
        "delete from session", 'update "user" set banned = false', "insert into verification default values",
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="permission denied"):
            each_postgres.run_sql(limited, forbidden)


async def test_the_grants_of_the_page_fit_snake_case_too(postgres: Postgres, postgres_url: str, opened: Opened) -> None:
    role = f"watchout_{postgres_url[-12:]}"
    postgres.run_sql(
        postgres_url,
        """create table "user" (id text, email text, role text, banned boolean, ban_expires timestamp);
        create table session (id text, token text, user_id text, expires_at timestamp);
        create table member (id text, user_id text, organization_id text, role text);
        create table verification (id text, identifier text, value text, expires_at timestamp);"""
        + sql_of_page("names: snake_case", *GRANTS).replace("watchout", role),
    )
    limited = f"postgres://{role}:change-me@{postgres_url.rpartition('@')[2]}"
    with capture_logs() as lines:
        store = await opened(limited, STREAM_ACCESS="organization")
    assert await store.redeem("T" * 32) is None
    await store.check()
    assert [lines[0][fact] for fact in ("tickets", "organizations")] == ["verification", "member"]


def tables(path: Path) -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return dict(db.execute("select name, sql from sqlite_master where sql is not null").fetchall())


def test_the_embedded_schema_is_what_better_auth_makes_by_itself(tmp_path: Path, start_better_auth: Start) -> None:
    start_better_auth(f"sqlite:{tmp_path / 'real.db'}", BA_PLUGINS="").stop()
    assert sorted(tables(tmp_path / "real.db").values()) == sorted(SCHEMA)


def test_better_auth_adds_to_the_embedded_file_only_what_its_plugins_need(
    tmp_path: Path, start_better_auth: Start
) -> None:
    path = tmp_path / "sessions.db"
    ensure(path)
    before = tables(path)
    server = start_better_auth(f"sqlite:{path}", BA_PLUGINS="bearer,jwt")
    server.sign_up()
    server.stop()
    assert server.said == ""
    after = tables(path)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"jwks"}


async def test_better_auth_takes_a_session_that_we_minted_and_may_end_it(
    tmp_path: Path, start_better_auth: Start
) -> None:
    path = tmp_path / "sessions.db"
    token = mint_token(path, "alice")
    server = start_better_auth(f"sqlite:{path}")
    status, session, _ = server.call("GET", "/get-session", token=token)
    assert status == 200
    assert session["user"]["name"] == "alice"
    store: Any = open_store(load({"DATABASE_URL": f"sqlite:{path}"}))
    await store.open()
    try:
        identity = await verify(store, token)
        assert identity.user_id == session["user"]["id"]
        server.sign_out(token)
        assert await verify(store, token) is None
    finally:
        await store.close()
    assert mint_token(path, "alice") != token


def _true(database: Database) -> str:
    return "1" if database.url.startswith("sqlite:") else "true"
