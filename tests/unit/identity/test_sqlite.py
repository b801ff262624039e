from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.kit import session_stores
from tests.kit.session_stores import verify
from watchout.common.errors import StartError, StoreUnavailable
from watchout.common.settings import load
from watchout.identity import Identity, open_store
from watchout.identity.embedded_store import ensure, mint_token
from watchout.identity.schema.catalogue import Layout
from watchout.identity.sources import session_store as base
from watchout.identity.sources.postgres import PostgresStore
from watchout.identity.sources.sqlite import SqliteStore

#: The deadline of a store that is to reach it; that of all others is no matter, however slow the machine.
TIMEOUT_S = 2.0
PATIENT_S = 60.0
UNKNOWN = "0" * 32
ODD_TOKENS = [
    "",
    "x",
    "' or '1'='1' --xxxxxxxxx",
    '\'||(select"token"from"session")||\'',
    "%" * 32,
    "\0" * 32,
    "x" * 20 + "\0",
    "\ud800" * 20,
    "ü" * 20,
    "x" * 513,
    "x" * 1_000_000,
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "sessions.db"
    ensure(path)
    return path


Opened = Callable[..., Awaitable[SqliteStore]]


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    stores = []

    async def open_(
        path: Path, *, timeout_s: float = PATIENT_S, max_waiting: int = 20_000, **layout: Any
    ) -> SqliteStore:
        stores.append(SqliteStore(path, Layout(**layout), timeout_s=timeout_s, max_waiting=max_waiting))
        await stores[-1].open()
        return stores[-1]

    yield open_
    for store in stores:
        await store.close()


def run(path: Path, sql: str, *values: object) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        return db.execute(sql, values).fetchall()


async def refusal(store: SqliteStore, token: str = UNKNOWN) -> str:
    return await session_stores.refusal(store, token, TIMEOUT_S)


async def test_a_minted_token_is_its_users_session(path: Path, opened: Opened) -> None:
    token = mint_token(path, "alice", lifetime_s=3600)
    identity = await verify(await opened(path), token)
    [(session_id, user_id)] = run(path, 'select "id", "userId" from "session"')
    assert identity is not None
    assert identity == Identity(user_id=user_id, session_id=session_id, expires_at=identity.expires_at)
    assert identity.expires_at == pytest.approx(time.time() + 3600, abs=60)


async def test_an_unknown_token_is_nobody(path: Path, opened: Opened) -> None:
    mint_token(path)
    assert await verify(await opened(path), UNKNOWN) is None


@pytest.mark.parametrize("token", ODD_TOKENS, ids=range(len(ODD_TOKENS)))
async def test_an_odd_token_is_nobody(path: Path, opened: Opened, token: str) -> None:
    mint_token(path)
    assert await verify(await opened(path), token) is None


async def test_a_session_ends_by_itself(path: Path, opened: Opened) -> None:
    store = await opened(path)
    for lifetime_s in (0.2, 1.0, 5.0, 30.0):
        token = mint_token(path, lifetime_s=lifetime_s)
        if await verify(store, token) is not None:  # None: a machine that was too slow to see it alive
            break
    else:
        pytest.fail("no session was ever alive")
    give_up = time.monotonic() + lifetime_s + 30
    while await verify(store, token) is not None:
        assert time.monotonic() < give_up
        await asyncio.sleep(0.005)


async def test_a_session_that_is_deleted_is_gone_at_once(path: Path, opened: Opened) -> None:
    store, token = await opened(path), mint_token(path)
    assert await verify(store, token) is not None
    run(path, 'delete from "session"')
    assert await verify(store, token) is None


@pytest.mark.parametrize(
    ("stored", "lives"),
    [
        ("{}", True),
        (4102444800000, True),
        (4102444800000.0, True),
        ("2099-12-31T23:59:59.999Z", True),
        (1700000000000, False),
        (1700000000, False),
        ("2023-11-14T22:13:20.000Z", False),
        ("zzzz", False),
        ("", False),
        (b"2099-12-31T23:59:59.999Z", False),
    ],
)
async def test_dates_are_text_or_milliseconds_and_anything_else_is_no_live_session(
    path: Path, opened: Opened, stored: object, lives: bool
) -> None:
    token = mint_token(path)
    if stored != "{}":
        run(path, 'update "session" set "expiresAt" = ?', stored)
    identity = await verify(await opened(path), token)
    assert (identity is not None) is lives
    if isinstance(stored, int | float) and identity is not None:
        assert identity.expires_at == 4102444800.0


async def test_snake_case_columns_are_found(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "drizzle.db"
    run(path, "create table user (id text primary key)")
    run(path, "create table session (id text, token text unique, expires_at integer, user_id text)")
    run(path, "insert into user values ('u1')")
    run(path, "insert into session values ('s1', ?, 4102444800000, 'u1')", "t" * 32)
    assert await verify(await opened(path), "t" * 32) == Identity(
        user_id="u1", session_id="s1", expires_at=4102444800.0
    )


@pytest.mark.parametrize(
    ("banned", "ends", "lives"),
    [
        (None, None, True),
        (0, None, True),
        (1, None, False),
        (1, "2099-01-01T00:00:00.000Z", False),
        (1, "2020-01-01T00:00:00.000Z", True),
        (0, "2099-01-01T00:00:00.000Z", True),
    ],
)
async def test_a_banned_user_is_nobody_while_the_ban_lasts(
    path: Path, opened: Opened, banned: int | None, ends: str | None, lives: bool
) -> None:
    token = mint_token(path)
    run(path, 'alter table "user" add column "banned" integer')
    run(path, 'alter table "user" add column "banExpires" date')
    run(path, 'update "user" set "banned" = ?, "banExpires" = ?', banned, ends)
    assert (await verify(await opened(path), token) is not None) is lives


async def test_a_user_that_is_gone_is_nobody(path: Path, opened: Opened) -> None:
    token = mint_token(path)
    run(path, 'delete from "user"')
    assert await verify(await opened(path), token) is None


async def test_a_missing_file_is_unavailable_until_it_is_there(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "later.db"
    store = await opened(path)
    assert "No such file" in await refusal(store)
    assert not path.exists()
    ensure(path)
    assert await verify(store, mint_token(path)) is not None


def remove(path: Path) -> None:
    for name in ("sessions.db", "sessions.db-wal", "sessions.db-shm"):
        path.with_name(name).unlink(missing_ok=True)


async def test_a_replaced_file_is_the_one_that_counts(path: Path, opened: Opened) -> None:
    store = await opened(path)
    old = mint_token(path)
    await store.check()
    remove(path)
    await refusal(store, old)
    new = mint_token(path)
    assert await verify(store, new) is not None
    assert await verify(store, old) is None


async def test_a_replaced_file_without_the_sessions_that_were_live_is_no_verdict(path: Path, opened: Opened) -> None:
    store, old = await opened(path), mint_token(path)
    identity = await verify(store, old)
    assert identity is not None
    assert identity.session_id is not None
    kept = path.with_name("kept.db")
    with contextlib.closing(sqlite3.connect(path)) as source:
        source.execute("vacuum into ?", (str(kept),))
    remove(path)
    ensure(path)
    with pytest.raises(StoreUnavailable, match="another database"):
        await store.live([identity.session_id])
    await refusal(store)
    remove(path)
    shutil.copyfile(kept, path)
    assert set(await store.live([identity.session_id])) == {identity.session_id}
    run(path, 'delete from "session"')
    assert await store.live([identity.session_id]) == {}
    assert await verify(store, old) is None


async def test_a_file_that_is_no_database_is_unavailable_until_it_is_one(
    tmp_path: Path, path: Path, opened: Opened
) -> None:
    bad, token = tmp_path / "bad.db", mint_token(path)
    bad.write_text("not a database at all " * 100)
    store = await opened(bad)
    assert "not a database" in await refusal(store)
    shutil.copyfile(path, bad)
    assert await verify(store, token) is not None


async def test_migrations_may_run_after_us(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    store = await opened(path)
    assert 'no table "session"' in await refusal(store)
    ensure(path)
    assert await verify(store, mint_token(path)) is not None


async def test_columns_that_change_under_a_running_store_are_found_again(path: Path, opened: Opened) -> None:
    store, token = await opened(path), mint_token(path)
    assert await verify(store, token) is not None
    run(path, 'alter table "session" rename column "expiresAt" to "expires_at"')
    assert await verify(store, token) is not None


async def test_a_writer_does_not_hold_up_a_lookup(path: Path, opened: Opened) -> None:
    store, token = await opened(path), mint_token(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("begin immediate")
        writer.execute('delete from "session"')
        assert await verify(store, token) is not None
        writer.execute("commit")
    assert await verify(store, token) is None


async def test_a_file_that_stays_locked_is_unavailable_within_the_deadline(path: Path, opened: Opened) -> None:
    run(path, "pragma journal_mode = delete")
    store, token = await opened(path, timeout_s=TIMEOUT_S), mint_token(path)
    run(path, "pragma journal_mode = delete")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("begin exclusive")
        reasons = await asyncio.gather(*[refusal(store) for _ in range(20)])
        assert any("locked" in reason for reason in reasons)
        writer.execute("rollback")
    give_up = time.monotonic() + 30
    while True:
        with contextlib.suppress(StoreUnavailable):
            assert await verify(store, token) is not None
            break
        assert time.monotonic() < give_up


async def test_many_lookups_at_once_all_get_their_own_answer(path: Path, opened: Opened) -> None:
    tokens = [mint_token(path, f"user{i}") for i in range(20)]
    users = dict(run(path, 'select "token", "userId" from "session"'))
    asked = [*tokens, UNKNOWN] * 20
    store = await opened(path)
    found = await asyncio.gather(*[verify(store, token) for token in asked])
    assert [identity and identity.user_id for identity in found] == [users.get(token) for token in asked]


async def test_too_many_lookups_at_once_are_told_so_at_once(
    path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await opened(path)
    monkeypatch.setattr(base, "MAX_QUERIES", 5)
    found = await asyncio.gather(*[verify(store, UNKNOWN) for _ in range(20)], return_exceptions=True)
    assert [type(one) for one in found] == [type(None)] * 5 + [StoreUnavailable] * 15
    assert await verify(store, UNKNOWN) is None


async def test_callers_that_leave_do_no_harm(path: Path, opened: Opened) -> None:
    store, token = await opened(path), mint_token(path)
    for turns in range(20):
        tasks = [asyncio.create_task(verify(store, token)) for _ in range(5)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert await verify(store, token) is not None


async def test_check_tells_whether_the_store_can_be_asked(tmp_path: Path, path: Path, opened: Opened) -> None:
    await (await opened(path)).check()
    with pytest.raises(StoreUnavailable):
        await (await opened(tmp_path / "missing.db")).check()


async def test_a_closed_store_is_unavailable(path: Path, opened: Opened) -> None:
    store, token = await opened(path), mint_token(path)
    await verify(store, token)
    await store.close()
    await store.close()
    assert "closed" in await refusal(store)


async def test_an_outage_is_logged_once_and_never_with_a_token(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "later.db"
    with capture_logs() as lines:
        store = await opened(path)
        for _ in range(5):
            await refusal(store)
        token = mint_token(path)
        for _ in range(5):
            await verify(store, token)
    assert [line["event"] for line in lines] == [
        "session store unavailable",
        "session store found",
        "session store is available again",
    ]
    assert token not in str(lines)
    assert UNKNOWN not in str(lines)


async def test_live_sessions_are_known_by_their_ids(path: Path, opened: Opened) -> None:
    token = mint_token(path, "alice")
    gone = mint_token(path, "bob", lifetime_s=0.001)
    ids = dict(run(path, 'select "token", "id" from "session"'))
    store = await opened(path)
    assert set(await store.live([ids[token], ids[gone], "nobody", *ODD_TOKENS])) == {ids[token]}


@pytest.mark.parametrize("id", ["sitzung-ä", "会議 🎥", 'it\'s "1" & <2>', "x" * 512, "ü" * 512])
async def test_a_session_with_any_text_as_its_id_that_is_found_is_live(path: Path, opened: Opened, id: str) -> None:
    token = mint_token(path)
    run(path, 'update "session" set "id" = ?', id)
    store = await opened(path)
    identity = await verify(store, token)
    assert identity is not None
    assert identity.session_id == id
    assert await store.live([id]) == {id: identity}


async def test_thousands_are_looked_up_at_once(path: Path, opened: Opened) -> None:
    [(user,)] = run(path, 'select "id" from "user"')
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.executemany(
            """insert into "session" values (?, '2099-01-01T00:00:00.000Z', ?, '', '', null, null, ?)""",
            [(f"s{i}", str(i).rjust(32, "t"), user) for i in range(2500)],
        )
    store = await opened(path)
    assert len(await store.live([f"s{i}" for i in range(5000)])) == 2500
    assert len(await store.find([str(i).rjust(32, "t") for i in range(5000)])) == 2500


@pytest.mark.parametrize("kind", ["text", "integer"])
async def test_ids_and_organizations_of_any_type_come_as_text(tmp_path: Path, opened: Opened, kind: str) -> None:
    path = tmp_path / "auth.db"
    run(path, f"create table user (id {kind} primary key, role text)")
    run(path, f"create table session (id {kind} primary key, token text unique, expires_at integer, user_id {kind})")
    run(path, f"create table member (id {kind} primary key, user_id {kind}, organization_id {kind}, role text)")
    run(path, "insert into user values ('1', 'guard, admin'), ('2', null)")
    run(
        path,
        "insert into session values ('42', ?, 4102444800000, '1'), ('43', ?, 4102444800000, '2')",
        "t" * 32,
        "u" * 32,
    )
    run(path, "insert into member values ('1', '1', '7', 'owner,member'), ('2', '1', '8', null)")
    store = await opened(path, organizations=True)
    found = await store.live(["42", "43", "4.2e1", "042", " 42", "42 ", "9" * 19, "9" * 40, *ODD_TOKENS])
    organizations = {"7": frozenset({"owner", "member"}), "8": frozenset[str]()}
    assert found == {
        "42": Identity("1", "42", 4102444800.0, frozenset({"guard", "admin"}), organizations),
        "43": Identity("2", "43", 4102444800.0),
    }
    assert await store.find(["t" * 32, "u" * 32]) == {"t" * 32: found["42"], "u" * 32: found["43"]}
    assert await store.organizations(["1", "2", "3"]) == {"1": organizations}
    assert await (await opened(path)).organizations(["1"]) == {}


async def test_organizations_without_their_table_are_unavailable(path: Path, opened: Opened) -> None:
    assert "STREAM_ACCESS is organization" in await refusal(await opened(path, organizations=True))


async def test_tables_may_be_named(path: Path, opened: Opened) -> None:
    token = mint_token(path)
    run(path, 'alter table "session" rename to "Sitzung"')
    run(path, 'alter table "user" rename to people')
    for schema in ("", "main."):
        store = await opened(path, session=f"{schema}Sitzung", user=f"{schema}people")
        assert await verify(store, token) is not None


async def test_what_is_not_indexed_is_warned_of(tmp_path: Path, opened: Opened) -> None:
    path = tmp_path / "auth.db"
    run(path, "create table user (id integer primary key)")
    run(path, "create table session (id text primary key, token text, expires_at integer, user_id integer)")
    with capture_logs() as lines:
        await opened(path)
    assert [line["event"] for line in lines] == ["session store found", "session store is slow"]
    assert '"session"."token"' in lines[1]["reason"]


def add_ticket(path: Path, token: str, ticket: str = "T" * 32, *, expires: str = "2099-01-01T00:00:00.000Z") -> None:
    run(
        path,
        'insert into "verification" values (?, ?, ?, ?, ?, ?)',
        ticket, f"one-time-token:{ticket}", token, expires, expires, expires,
    )  # fmt: skip


async def test_a_ticket_is_used_up_once_by_many_at_once(path: Path, opened: Opened) -> None:
    token = mint_token(path)
    stores = [await opened(path) for _ in range(3)]
    for turn in range(5):
        ticket = f"{turn}" * 32
        add_ticket(path, token, ticket)
        found = await asyncio.gather(*[store.redeem(ticket) for store in stores for _ in range(4)])
        assert [identity for identity in found if identity is not None] == [await verify(stores[0], token)]
    assert run(path, 'select * from "verification"') == []


async def test_a_ticket_that_expired_or_has_no_session_is_nobodys(path: Path, opened: Opened) -> None:
    store, token = await opened(path), mint_token(path)
    add_ticket(path, token, expires="2020-01-01T00:00:00.000Z")
    add_ticket(path, "n" * 32, "U" * 32)
    for ticket in ("T" * 32, "U" * 32, UNKNOWN, *ODD_TOKENS):
        assert await store.redeem(ticket) is None
    assert len(run(path, 'select * from "verification"')) == 2


async def test_a_ticket_whose_session_cannot_be_looked_up_now_stays_good(path: Path, opened: Opened) -> None:
    store, token = await opened(path), mint_token(path)
    add_ticket(path, token)
    run(path, 'alter table "session" rename to "away"')
    with pytest.raises(StoreUnavailable):
        await store.redeem("T" * 32)
    run(path, 'alter table "away" rename to "session"')
    assert await store.redeem("T" * 32) == await verify(store, token) is not None
    assert run(path, 'select * from "verification"') == []


async def test_as_many_tickets_wait_as_the_setting_says_and_further_ones_are_not_called_invalid(
    path: Path, opened: Opened
) -> None:
    store = await opened(path, max_waiting=5)
    calls = [store.redeem(f"{number:032}") for number in range(50)]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(each) for each in found} == {type(None), StoreUnavailable}
    assert "keys are waiting" in str(next(each for each in found if each is not None))


async def test_a_flood_of_made_up_tickets_keeps_no_writer_waiting_and_lets_a_good_one_through(
    path: Path, opened: Opened
) -> None:
    store, token = await opened(path), mint_token(path)
    add_ticket(path, token)
    made_up = [f"{i:032}" for i in range(1999)]
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("begin immediate")
        assert set(await asyncio.gather(*[store.redeem(ticket) for ticket in made_up])) == {None}
        writer.execute("rollback")
    found = await asyncio.gather(*[store.redeem(ticket) for ticket in [*made_up, "T" * 32]])
    assert found == [None] * 1999 + [await verify(store, token)]


async def test_a_recheck_does_not_wait_behind_a_crowd_of_lookups(path: Path, opened: Opened) -> None:
    store, token = await opened(path), mint_token(path)
    [(session,)] = run(path, 'select "id" from "session" where "token" = ?', token)
    crowd = [asyncio.create_task(verify(store, f"{i:032}")) for i in range(1000)]
    await asyncio.sleep(0)
    for _ in range(5):
        before = sum(task.done() for task in crowd)
        assert set(await store.live([session])) == {session}
        assert sum(task.done() for task in crowd) - before <= 5
    await asyncio.gather(*crowd)


async def test_a_ticket_while_the_file_stays_locked_is_unavailable_and_still_good_afterwards(
    path: Path, opened: Opened
) -> None:
    store, token = await opened(path, timeout_s=TIMEOUT_S), mint_token(path)
    add_ticket(path, token)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("begin immediate")
        found = await asyncio.gather(*[store.redeem("T" * 32) for _ in range(3)], return_exceptions=True)
        assert [type(one) for one in found] == [StoreUnavailable] * 3
        writer.execute("rollback")
    assert await store.redeem("T" * 32) is not None


async def no_verdict(store: SqliteStore, ticket: str = "T" * 32) -> None:
    with pytest.raises(StoreUnavailable):
        await store.redeem(ticket)


async def test_a_file_that_is_read_only_says_nothing_about_a_ticket_and_says_so_once(
    path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, token = await opened(path), mint_token(path)
    add_ticket(path, token)
    monkeypatch.setattr(SqliteStore, "_uri", f"file:{path}?mode=ro")
    with capture_logs() as lines:
        for _ in range(3):
            await no_verdict(store)
    assert [line["event"] for line in lines] == ["one-time tickets cannot be redeemed"]
    assert "read-only" in lines[0]["reason"]
    assert await verify(store, token) is not None


async def test_without_its_table_nothing_is_said_about_a_ticket(path: Path, opened: Opened) -> None:
    run(path, 'drop table "verification"')
    store = await opened(path)
    with capture_logs() as lines:
        for _ in range(3):
            await no_verdict(store)
    assert [line["reason"] for line in lines] == ['there is no table "verification" here (VERIFICATION_TABLE)']


async def test_without_a_database_the_embedded_store_is_made_and_used(tmp_path: Path) -> None:
    settings = load({"WATCHOUT_HOME": str(tmp_path / "home")})
    store = open_store(settings)
    await store.open()
    try:
        assert (tmp_path / "home" / "sessions.db").is_file()
        assert await verify(store, mint_token(tmp_path / "home" / "sessions.db")) is not None
    finally:
        await store.close()


async def test_an_embedded_store_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "home" / "sessions.db").mkdir(parents=True)
    store = open_store(load({"WATCHOUT_HOME": str(tmp_path / "home")}))
    with pytest.raises(StartError):
        await store.open()
    await store.close()


@pytest.mark.parametrize("slashes", ["", "//"])
async def test_a_named_file_is_used_but_never_made(tmp_path: Path, slashes: str) -> None:
    path = tmp_path / "odd name?#%41.db"
    store = open_store(load({"DATABASE_URL": f"sqlite:{slashes}{path}"}))
    await store.open()
    try:
        with pytest.raises(StoreUnavailable):
            await store.check()
        assert not path.exists()
        token = mint_token(path)
        assert await verify(store, token) is not None
    finally:
        await store.close()


def test_a_postgres_url_opens_the_postgres_store() -> None:
    assert isinstance(open_store(load({"DATABASE_URL": "postgres://u:p@127.0.0.1:1/x"})), PostgresStore)


async def test_gateways_take_turns_where_there_is_no_room_for_their_common_index(path: Path, opened: Opened) -> None:
    token = mint_token(path)
    index = path.with_name("sessions.db-shm")
    index.symlink_to("nowhere")  # SQLite follows no links
    with capture_logs() as logs:
        stores = [await opened(path) for _ in range(2)]
        for store in stores * 3:
            assert await verify(store, token)
        for store in stores:
            assert not await verify(store, UNKNOWN)
        assert all(await asyncio.gather(*(verify(store, token) for store in stores * 10))), "both at once"
        index.unlink()
        for store in stores * 2:
            assert await verify(store, token)
    said = [line["event"] for line in logs if "room beside" in line["event"]]
    none = "there is no room beside the session store: one process at a time reads it"
    assert said == [none, none, *["there is room beside the session store again"] * 2]


async def test_a_connection_that_is_open_in_the_turn_in_which_its_end_is_cancelled_is_closed(path: Path) -> None:
    store = SqliteStore(path, timeout_s=PATIENT_S, max_waiting=1)
    wanted, stopped = asyncio.Event(), asyncio.Event()

    async def connect() -> Any:
        await wanted.wait()
        return SimpleNamespace(stop=stopped.set)

    store._opening = opening = asyncio.create_task(connect())
    opening.add_done_callback(lambda _: drop.cancel())  # before the drop sees that it is open
    drop = asyncio.create_task(store._drop())
    await asyncio.sleep(0)
    wanted.set()
    await asyncio.gather(drop, return_exceptions=True)
    assert drop.cancelled()
    assert opening.done()
    await asyncio.sleep(0)
    assert stopped.is_set()
