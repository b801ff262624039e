"""Backups of homes made by hand: what goes in, what is refused, and what a refused or failed restore leaves."""

from __future__ import annotations

import contextlib
import io
import os
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from watchout.common.bus.zeromq import curve
from watchout.common.errors import StartError
from watchout.common.home import lock_home, lock_soon, write_pid
from watchout.ctl.backup import restoring, saving
from watchout.ctl.backup.contents import CONTENTS_FILE
from watchout.ctl.environment import Failure
from watchout.identity import embedded_store
from watchout.router.home_database import HomeDatabase

Entry = tuple[tarfile.TarInfo, bytes]


def tree(directory: Path) -> dict[str, bytes]:
    """All files below a directory, without locks."""
    found = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.endswith(".lock")}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with some of everything, and with a write-ahead log that nobody has closed."""
    home = tmp_path / "home"
    embedded_store.mint_token(home / "sessions.db", "ann")
    (home / "share.key").write_bytes(bytes(32))
    (home / "epoch").write_text("1700000000000\n")
    curve.write_pair(curve.server_file(home), curve.new_pair(), "a test")
    curve.allow(home, "ml-team", curve.new_pair().public)
    for name in ("router.lock", "name-gateway", "shares.bad", "unknown", "curve/half.new"):
        (home / name).write_bytes(b"x")
    return home


@pytest.fixture
def saved(home: Path, tmp_path: Path) -> Path:
    saving.save(home, tmp_path / "b.tar.gz")
    return tmp_path / "b.tar.gz"


def rewritten(source: Path, change: Callable[[list[Entry]], list[Entry]]) -> Path:
    """The same tar file with other entries."""
    with tarfile.open(source) as tar:
        entries = [(entry, (tar.extractfile(entry) or io.BytesIO()).read()) for entry in tar]
    changed = source.with_name("changed.tar.gz")
    with tarfile.open(changed, "w:gz") as tar:
        for entry, content in change(entries):
            entry.size = len(content) if entry.isreg() else 0
            tar.addfile(entry, io.BytesIO(content))
    return changed


def linked(entries: list[Entry]) -> list[Entry]:
    for entry, _ in entries:
        if entry.name == "epoch":
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return entries


def outside(entries: list[Entry]) -> list[Entry]:
    return [(entry, content.replace(b'"epoch"', b'"../x"')) for entry, content in entries]


def another_byte(entries: list[Entry]) -> list[Entry]:
    return [(entry, content[:-1] + b"y" if entry.name == "share.key" else content) for entry, content in entries]


def test_a_backup_has_what_matters_and_nobody_else_may_read_it(home: Path, saved: Path) -> None:
    assert saved.stat().st_mode & 0o777 == 0o600
    with tarfile.open(saved) as tar:
        assert tar.getnames() == [
            CONTENTS_FILE, "sessions.db", "share.key", "epoch", "curve/clients/ml-team.pub", "curve/server.key",
        ]  # fmt: skip
    assert [path.name for path in saved.parent.iterdir() if path != home] == [saved.name]


def test_what_is_only_in_the_write_ahead_log_is_in_the_backup_while_a_process_holds_it(home: Path) -> None:
    target = home.with_name("b.tar.gz")
    with contextlib.closing(sqlite3.connect(home / "sessions.db", isolation_level=None)) as db:
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("UPDATE user SET name = 'in the log' WHERE name = 'ann'")
        saving.save(home, target)
    restoring.restore(home.with_name("other"), target, replace=False)
    with contextlib.closing(sqlite3.connect(home.with_name("other") / "sessions.db")) as db:
        assert ("in the log",) in db.execute("SELECT name FROM user").fetchall()


def test_a_transaction_that_is_not_committed_is_not_in_the_backup(home: Path) -> None:
    path, target = home / "shares.db", home.with_name("b.tar.gz")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE record (key TEXT PRIMARY KEY, body BLOB)")
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO record VALUES ('half', '')")
        saving.save(home, target)
        db.execute("COMMIT")
    restoring.restore(home.with_name("other"), target, replace=False)
    with contextlib.closing(sqlite3.connect(home.with_name("other") / "shares.db")) as db:
        assert db.execute("SELECT count(*) FROM record").fetchone() == (0,)


def test_nothing_is_overwritten_and_nothing_half_is_left(home: Path, saved: Path, monkeypatch) -> None:
    before = saved.read_bytes()
    with pytest.raises(Failure, match="exists, and a backup replaces nothing"):
        saving.save(home, saved)
    assert saved.read_bytes() == before
    target = saved.with_name("other.tar.gz")
    monkeypatch.setattr(saving, "BUSY_S", 0.01)
    with contextlib.closing(sqlite3.connect(home / "sessions.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Failure, match="stayed locked"):
            saving.save(home, target)
    (home / "sessions.db").write_bytes(b"SQLite format 3\0" + bytes(5000))
    with pytest.raises(Failure, match="cannot be copied"):
        saving.save(home, target)
    assert {path.name for path in saved.parent.iterdir()} == {home.name, saved.name}


def test_a_home_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="there is no home"):
        saving.save(tmp_path / "none", tmp_path / "b")
    assert not (tmp_path / "none").exists()
    (tmp_path / "empty").mkdir(0o700)
    with pytest.raises(Failure, match="holds nothing to keep"):
        saving.save(tmp_path / "empty", tmp_path / "b")
    with pytest.raises(Failure, match="cannot be written: No such file"):
        saving.save(tmp_path / "empty", tmp_path / "no" / "b")


def test_a_restored_home_is_the_one_that_was_saved(home: Path, saved: Path) -> None:
    other = home.with_name("other")
    assert restoring.restore(other, saved, replace=False).former is None
    token = embedded_store.mint_token(home / "sessions.db", "ann")
    assert embedded_store.mint_token(other / "sessions.db", "ann") == token
    for name in ("share.key", "epoch", "curve/server.key", "curve/clients/ml-team.pub"):
        assert (other / name).read_bytes() == (home / name).read_bytes()
        assert (other / name).stat().st_mode & 0o777 == 0o600
    assert curve.allowed(other) == curve.allowed(home)
    assert {path.name for path in other.iterdir()} >= {"curve", "sessions.db"}
    assert not (other / "unknown").exists()
    assert other.stat().st_mode & 0o777 == 0o700


def test_with_replace_the_former_files_stay_aside_and_none_is_mixed_in(home: Path, saved: Path) -> None:
    """A log or journal of the former database beside the restored one would damage it."""
    for name in ("sessions.db-wal", "shares.db", "reservations.db-journal", "mesh"):
        (home / name).mkdir() if name == "mesh" else (home / name).write_bytes(b"of before")
    before = tree(home)
    with pytest.raises(Failure, match=r"holds sessions\.db, .* already: with --replace"):
        restoring.restore(home, saved, replace=False)
    assert tree(home) == before
    former = restoring.restore(home, saved, replace=True).former
    assert former is not None
    assert former.parent == home
    for name in ("sessions.db-wal", "shares.db", "reservations.db-journal"):
        assert (former / name).read_bytes() == b"of before"
        assert not (home / name).exists()
    assert not (home / "mesh").exists()
    assert (home / "unknown").read_bytes() == b"x"
    again = restoring.restore(home, saved, replace=True).former
    assert again is not None
    assert again != former


def test_the_epoch_does_not_go_back(home: Path, saved: Path) -> None:
    (home / "epoch").write_text("1800000000000\n")
    restoring.restore(home, saved, replace=True)
    assert (home / "epoch").read_text() == "1800000000000\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda entries: entries[1:], "does not begin with"),
        (lambda entries: entries[:-1], "curve/server.key is missing"),
        (lambda entries: [*entries, entries[-1]], "more entries"),
        (lambda entries: [entries[0], *entries[2:], entries[1]], "where sessions.db should be is 'share.key'"),
        (another_byte, "the content of share.key was changed"),
        (linked, "where epoch should be is 'epoch'"),
        (outside, "no backup of watchout holds"),
    ],
    ids=["no list", "cut", "longer", "order", "byte", "link", "outside"],
)
def test_a_backup_that_was_changed_is_refused_and_the_home_is_as_it_was(
    home: Path, saved: Path, change: Callable[[list[Entry]], list[Entry]], said: str
) -> None:
    wrong, before = rewritten(saved, change), tree(home)
    with pytest.raises(Failure, match=said):
        restoring.restore(home, wrong, replace=True)
    assert tree(home) == before


@pytest.mark.parametrize("size", [0, 10, 500, -500])
def test_a_backup_that_ends_early_is_refused(saved: Path, tmp_path: Path, size: int) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes(saved.read_bytes()[:size])
    with pytest.raises(Failure, match=r"no backup of watchout, or is damaged|cannot be read"):
        restoring.restore(tmp_path / "new", cut, replace=False)
    assert tree(tmp_path / "new") == {}


def test_other_files_are_no_backup(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    for name, said in (("text", "no backup|cannot be read"), ("none", "No such file"), (".", "Is a directory")):
        with pytest.raises(Failure, match=said):
            restoring.check(tmp_path / name, tmp_path)


def test_a_database_or_key_that_is_damaged_already_is_refused_before_anything_changes(home: Path) -> None:
    (home / "share.key").write_bytes(b"short")
    saving.save(home, home.with_name("b.tar.gz"))
    with pytest.raises(Failure, match=r"share\.key in .* is damaged: it has 5 bytes, expected 32"):
        restoring.restore(home.with_name("other"), home.with_name("b.tar.gz"), replace=False)


def test_a_home_in_use_is_not_restored(home: Path, saved: Path) -> None:
    before, lock = tree(home), lock_home(home)
    try:
        with pytest.raises(StartError, match="another router"):
            restoring.restore(home, saved, replace=True)
    finally:
        os.close(lock)
    assert {name for name in tree(home) if name not in before} == set()


def test_a_home_with_a_process_is_not_restored_and_the_process_is_named(home: Path, saved: Path) -> None:
    held = os.open(home / "name-gateway", os.O_RDWR)
    assert lock_soon(held)
    write_pid(held)
    try:
        with pytest.raises(Failure, match=rf"gateway \(process {os.getpid()}\) runs in .*stop all of watchout first"):
            restoring.restore(home, saved, replace=True)
    finally:
        os.close(held)


def test_the_files_of_a_router_that_has_them_open_are_copied(home: Path) -> None:
    file, target = HomeDatabase(home / "shares.db", "CREATE TABLE IF NOT EXISTS record (key TEXT)"), home.with_name("b")
    file.read()
    assert file.write(add_row) is None
    saving.save(home, target)
    assert file.write(add_row) is None
    file.close()
    restoring.restore(home.with_name("other"), target, replace=False)
    with contextlib.closing(sqlite3.connect(home.with_name("other") / "shares.db")) as db:
        assert db.execute("SELECT count(*) FROM record").fetchone() == (1,)


def add_row(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO record VALUES ('a')")


def test_a_restore_that_cannot_be_finished_is_undone(home: Path, saved: Path, monkeypatch) -> None:
    before, rename = tree(home), Path.rename

    def full(self: Path, target: Path) -> Path:
        if self.parent.name == "restore.new" and self.name == "share.key":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(Failure, match="is as it was: No space left"):
        restoring.restore(home, saved, replace=True)
    assert tree(home) == before
