from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from watchout.common.errors import StartError
from watchout.identity.embedded_store import DAY_S, SCHEMA, ensure, mint_token


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "sessions.db"


def query(path: Path, sql: str, *values: object) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        return db.execute(sql, values).fetchall()


def test_the_file_is_made_for_its_owner_only(path: Path) -> None:
    ensure(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_files_beside_it_are_for_its_owner_only_too(path: Path) -> None:
    ensure(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute('update "user" set "image" = null')
        db.commit()
        modes = {f.name: stat.S_IMODE(f.stat().st_mode) for f in path.parent.iterdir()}
    assert set(modes) == {"sessions.db", "sessions.db-wal", "sessions.db-shm"}
    assert set(modes.values()) == {0o600}


def test_the_schema_is_better_auths_and_nothing_else(path: Path) -> None:
    ensure(path)
    made = query(path, "select sql from sqlite_master where sql is not null order by rowid")
    assert [sql for (sql,) in made] == list(SCHEMA)


def test_readers_do_not_wait_for_writers(path: Path) -> None:
    ensure(path)
    assert query(path, "pragma journal_mode") == [("wal",)]


def test_the_first_start_makes_one_user_and_later_starts_none(path: Path) -> None:
    ensure(path)
    before = query(path, 'select * from "user"')
    ensure(path)
    assert query(path, 'select * from "user"') == before
    assert query(path, 'select "name", "email" from "user"') == [("watchout", "watchout@localhost")]


def test_a_user_that_was_removed_does_not_come_back_with_the_next_start(path: Path) -> None:
    ensure(path)
    query(path, 'delete from "user"')
    ensure(path)
    assert query(path, 'select * from "user"') == []


def test_an_empty_file_left_by_a_start_that_was_killed_is_completed(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    ensure(path)
    assert len(query(path, 'select * from "user"')) == 1


@pytest.mark.e2e
def test_many_processes_may_make_the_file_at_once(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from watchout.identity.embedded_store import mint_token; "
        "sys.stdin.read(); print(mint_token(Path(sys.argv[1])))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    tokens = set()
    for process in processes:
        with process:
            assert process.stdout is not None
            tokens.add(process.stdout.read())
        assert process.returncode == 0
    assert len(tokens) == 1
    assert query(path, 'select count(*) from "user"') == [(1,)]
    assert query(path, 'select count(*) from "session"') == [(1,)]


def test_a_token_looks_as_better_auth_makes_them(path: Path) -> None:
    token = mint_token(path)
    assert re.fullmatch(r"[A-Za-z0-9]{32}", token)
    [(expires, created, stored)] = query(path, 'select "expiresAt", "createdAt", "token" from "session"')
    assert stored == token
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", expires)
    assert query(path, "select julianday(?) - julianday(?)", expires, created) == [(7.0,)]


def test_the_same_user_gets_the_same_token_while_it_has_over_a_day_left(path: Path) -> None:
    token = mint_token(path, "alice")
    assert mint_token(path, "alice") == token
    assert query(path, 'select count(*) from "session"') == [(1,)]


def test_a_token_with_less_than_a_day_left_is_not_given_again(path: Path) -> None:
    token = mint_token(path, "alice", lifetime_s=DAY_S - 60)
    assert mint_token(path, "alice") != token


def test_a_session_that_outlives_what_is_asked_for_is_not_given_again(path: Path) -> None:
    week = mint_token(path)
    assert mint_token(path, lifetime_s=2 * DAY_S) != week
    assert mint_token(path, lifetime_s=1.0) != week
    assert mint_token(path) == week


def test_expired_sessions_that_were_minted_do_not_pile_up(path: Path) -> None:
    for _ in range(5):
        mint_token(path, "alice", lifetime_s=0.0001)
    assert query(path, 'select count(*) from "session"')[0][0] <= 2


def test_sessions_made_by_others_are_neither_given_nor_removed(path: Path) -> None:
    mint_token(path)
    query(path, """update "session" set "userAgent" = 'a browser', "token" = 'theirs'""")
    assert mint_token(path) != "theirs"
    query(path, """update "session" set "expiresAt" = '2020-01-01T00:00:00.000Z'""")
    mint_token(path)
    assert query(path, """select "token" from "session" where "userAgent" = 'a browser'""") == [("theirs",)]


def test_each_name_is_one_user(path: Path) -> None:
    names = ["alice", "Alice", "alice smith", "alice@example.com", "ünï", "a'; drop table user; --", "%41"]
    for _ in range(2):
        for name in names:
            mint_token(path, name)
    assert sorted(n for (n,) in query(path, 'select "name" from "user"')) == sorted([*names, "watchout"])


def test_no_name_means_the_default_user(path: Path) -> None:
    assert mint_token(path) == mint_token(path, "watchout")


@pytest.mark.parametrize("name", ["", " ", " alice", "alice ", "a\nb", "a\x00b", "\x1b[31m", "a" * 65, "\ud800"])
def test_a_name_that_cannot_be_is_refused_and_makes_nothing(path: Path, name: str) -> None:
    with pytest.raises(StartError, match="user name"):
        mint_token(path, name)
    assert not path.exists()


@pytest.mark.parametrize("lifetime_s", [0, -1, float("nan"), float("inf"), 1e12])
def test_a_lifetime_that_cannot_be_is_refused(path: Path, lifetime_s: float) -> None:
    with pytest.raises(StartError, match="lifetime"):
        mint_token(path, lifetime_s=lifetime_s)


def test_a_file_that_is_no_database_is_named(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("something else entirely" * 100)
    with pytest.raises(StartError, match=re.escape(str(path)) + ".*not a database"):
        ensure(path)
    assert path.read_text().startswith("something else")


def test_a_directory_in_its_place_is_named(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StartError, match="not a file"):
        ensure(path)


def test_a_parent_that_is_a_file_is_named(path: Path) -> None:
    path.parent.write_text("")
    with pytest.raises(StartError, match="cannot be made"):
        ensure(path)


def test_a_home_that_cannot_be_written_is_named(path: Path) -> None:
    path.parent.mkdir(mode=0o500)
    root = os.geteuid() == 0
    if root:  # who may write everywhere
        os.seteuid(65534)
    try:
        with pytest.raises(StartError, match="cannot be made"):
            ensure(path)
    finally:
        if root:
            os.seteuid(0)


def test_somebody_elses_database_is_left_as_it_is(path: Path) -> None:
    path.parent.mkdir()
    query(path, 'create table "user" (x)')
    before = path.read_bytes()
    with pytest.raises(StartError, match="already exists"):
        ensure(path)
    assert path.read_bytes() == before


@pytest.mark.e2e
def test_a_writer_that_takes_its_time_is_waited_for(path: Path) -> None:
    ensure(path)
    code = (
        "import sys; from pathlib import Path; from watchout.identity.embedded_store import ensure, mint_token; "
        "ensure(Path(sys.argv[1])); print(flush=True); print(mint_token(Path(sys.argv[1])))"
    )
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        command = [sys.executable, "-c", code, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as minting:
            assert minting.stdout is not None
            minting.stdout.readline()  # `ensure` over a complete file does not need the writer's lock
            other.execute("commit")
            assert len(minting.stdout.readline().strip()) == 32
