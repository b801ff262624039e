from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from common.embedded_store import SCHEMA, ensure, mint_token
from common.errors import StoreUnavailable
from common.settings import load
from identity import Identity, SessionStore, open_store
from tests.kit.services import BetterAuth, Postgres

pytestmark = pytest.mark.real

Start = Callable[..., BetterAuth]


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


@pytest.fixture(params=["postgresql", "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    return Database(request.param, tmp_path, request)


@pytest.fixture
async def store(database: Database) -> AsyncIterator[SessionStore]:
    store = open_store(load({"DATABASE_URL": database.url}))
    await store.open()
    yield store
    await store.close()


async def verify(store: SessionStore, token: str) -> Identity | None:
    return (await store.find([token])).get(token)


async def test_a_user_that_signs_up_is_known_until_the_sign_out(
    database: Database, store: SessionStore, start_better_auth: Start
) -> None:
    server = start_better_auth(database.url)
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


async def test_tokens_that_better_auth_never_gave_are_nobody(
    database: Database, store: SessionStore, start_better_auth: Start
) -> None:
    signed_in = start_better_auth(database.url).sign_up()
    for token in (signed_in.token[:-1], signed_in.token + "x", signed_in.token.swapcase(), "'or'1'='1" * 4, "\0" * 32):
        assert await verify(store, token) is None


async def test_a_session_that_expired_is_nobody_though_its_row_stays(
    database: Database, store: SessionStore, start_better_auth: Start
) -> None:
    server = start_better_auth(database.url, BA_OPTIONS='{"session":{"expiresIn":2}}')
    signed_in = server.sign_up()
    identity = await verify(store, signed_in.token)
    assert identity is not None
    while await verify(store, signed_in.token) is not None:
        assert time.time() < identity.expires_at + 2
    assert time.time() >= identity.expires_at - 0.1


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
    database: Database, store: SessionStore, start_better_auth: Start
) -> None:
    server = start_better_auth(database.url, BA_PLUGINS="bearer,admin")
    signed_in = server.sign_up()
    assert await verify(store, signed_in.token) is not None
    database.run(f"""update "user" set banned = {_true(database)} where id = '{signed_in.user_id}'""")
    assert await verify(store, signed_in.token) is None
    database.run("""update "user" set "banExpires" = '2020-01-01T00:00:00.000Z'""")
    assert await verify(store, signed_in.token) is not None


async def test_a_user_whom_an_admin_bans_is_nobody(
    database: Database, store: SessionStore, start_better_auth: Start
) -> None:
    server = start_better_auth(database.url, BA_PLUGINS="bearer,admin")
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
