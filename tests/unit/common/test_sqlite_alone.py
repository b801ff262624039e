"""A SQLite file whose readers cannot have their common index: one at a time reads it, with what is in its log."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from watchout.common.toolbox.sqlite_alone import lacks_room, open_file

#: For longer than it can take, so that who waits in vain fails.
WAITS_S = 10.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file whose log was not written back, and in place of whose index nothing can be created."""
    path, written = tmp_path / "t.db", tmp_path / "written.db"
    with contextlib.closing(sqlite3.connect(written, isolation_level=None)) as db:
        db.execute("pragma journal_mode = wal")
        db.execute("create table t (x)")
        db.execute("insert into t values (1)")
        shutil.copy(written, path)
        shutil.copy(tmp_path / "written.db-wal", tmp_path / "t.db-wal")
    path.with_name("t.db-shm").symlink_to("nowhere")  # SQLite follows no links
    return path


def test_it_is_read_with_its_log_by_one_at_a_time(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db, pytest.raises(sqlite3.OperationalError) as caught:
        db.execute("select x from t")
    assert lacks_room(caught.value)
    with contextlib.closing(open_file(str(path), timeout=0)) as db:
        assert db.execute("select x from t").fetchall() == [(1,)]
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            open_file(str(path), timeout=0)
    with contextlib.closing(open_file(str(path), timeout=0)) as db:
        assert db.execute("select x from t").fetchall() == [(1,)]


def test_those_that_want_it_at_the_same_time_get_it_in_turn(path: Path) -> None:
    def read(_: int) -> object:
        with contextlib.closing(open_file(str(path), timeout=WAITS_S)) as db:
            return db.execute("select x from t").fetchall()

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(read, range(40))) == [[(1,)]] * 40


def test_with_an_index_nobody_is_alone(path: Path) -> None:
    path.with_name("t.db-shm").unlink()
    one, other = open_file(str(path), timeout=0), open_file(str(path), timeout=0)
    with contextlib.closing(one), contextlib.closing(other):
        assert one.execute("select x from t").fetchall() == other.execute("select x from t").fetchall() == [(1,)]


def test_other_faults_are_raised_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        open_file(str(tmp_path / "x.db"), timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        open_file(f"file:{tmp_path}/none.db?mode=rw", uri=True, timeout=0)
