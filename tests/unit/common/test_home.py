"""The directory in which the sockets of the bus live."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit.skips import NOT_PERMITTED
from watchout.common.errors import StartError
from watchout.common.home import lock_home, open_file, prepare_home, who_holds, write_file
from watchout.identity import embedded_store


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_home_is_for_nobody_else(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        prepare_home(tmp_path / "deep" / "home")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "deep" / "home").stat().st_mode) == 0o700


def test_a_home_that_was_open_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    prepare_home(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_home_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="file"):
        prepare_home(tmp_path / "file" / "home")


# ── whose the home is, and what its files are ────────────────────────────────────────────────────────────────────

STRANGER = 4321
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason=NOT_PERMITTED + "only root can make what belongs to another user"
)


def as_user(user: int, work: Callable[[], object]) -> str:
    """Run `work` in a child of this user; the text of the `StartError` that it raised, "" for none."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        said = b"the child failed"
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            work()
            said = b""
        except StartError as error:
            said = str(error).encode()
        finally:
            os.write(write, said)
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        said = file.read()
    os.waitpid(child, 0)
    return said


@needs_root
def test_root_does_not_live_in_a_home_of_another_user(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, STRANGER, STRANGER)
    with pytest.raises(StartError, match=f"belongs to user {STRANGER}, and this process runs as user 0: run it as"):
        prepare_home(home)


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory of root's that another user can reach, as a mounted volume is."""
    directory = Path(tempfile.mkdtemp(prefix="wo-"))
    directory.chmod(0o2777)
    yield directory
    shutil.rmtree(directory)


@needs_root
@pytest.mark.e2e
def test_a_volume_whose_mode_cannot_be_changed_names_a_directory_below_it(open_to_all: Path) -> None:
    said = as_user(STRANGER, lambda: prepare_home(open_to_all))
    assert f"belongs to user 0, and this process runs as user {STRANGER}" in said
    advised = re.search(r"set WATCHOUT_HOME=(\S+), a directory below it", said)
    assert advised, said
    assert advised[1] == f"{open_to_all}/watchout"
    assert as_user(STRANGER, lambda: prepare_home(Path(advised[1]))) == ""
    assert Path(advised[1]).stat().st_mode & 0o777 == 0o700


@needs_root
@pytest.mark.e2e
def test_a_home_of_another_user_that_cannot_be_written_is_said(tmp_path_factory: pytest.TempPathFactory) -> None:
    said = as_user(STRANGER, lambda: prepare_home(Path("/usr")))
    assert "run all of watchout as one user" in said


def test_a_volume_without_modes_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setattr(os, "fchmod", lambda fd, mode: None)  # as on vfat, CIFS and Windows' drives in WSL
    with pytest.raises(StartError, match="has mode 0777, which cannot be changed to 0700"):
        prepare_home(tmp_path)


FILES = ("router.lock", "listen.lock", "port-4000", "name-gateway")


@pytest.mark.parametrize("name", FILES)
def test_a_link_in_the_home_is_not_followed(tmp_path: Path, name: str) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / name).symlink_to(target)
    with pytest.raises(StartError, match=f"{name} is a symbolic link"):
        open_file(tmp_path / name, os.O_RDWR | os.O_CREAT)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(tmp_path / "not-there-yet")
    with pytest.raises(StartError, match="symbolic link"):
        open_file(tmp_path / name, os.O_RDWR | os.O_CREAT)
    (tmp_path / name).unlink()
    (tmp_path / name).hardlink_to(target)
    with pytest.raises(StartError, match="second name"):
        open_file(tmp_path / name, os.O_RDWR | os.O_CREAT)
    assert target.read_text() == "precious"
    assert not (tmp_path / "not-there-yet").exists()


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "router.lock")
    with pytest.raises(StartError, match="not a file"):
        lock_home(tmp_path)


@needs_root
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "router.lock").touch()
    os.chown(tmp_path / "router.lock", STRANGER, STRANGER)
    with pytest.raises(StartError, match=f"router.lock belongs to user {STRANGER}"):
        lock_home(tmp_path)


@pytest.mark.parametrize("name", ["sessions.db", "sessions.db-wal", "sessions.db-shm", "sessions.db-journal"])
def test_the_embedded_store_follows_no_link(tmp_path: Path, name: str) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    home = tmp_path / "home"
    home.mkdir()
    if name != "sessions.db":
        embedded_store.ensure(home / "sessions.db")
        (home / name).unlink(missing_ok=True)
    (home / name).symlink_to(target)
    with pytest.raises(StartError, match=f"{name} is a symbolic link"):
        embedded_store.ensure(home / "sessions.db")
    assert target.read_text() == "precious"


def test_a_file_is_replaced_at_once_and_no_link_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "epoch.new").symlink_to(target)
    (tmp_path / "epoch").symlink_to(target)
    write_file(tmp_path / "epoch", "7\n")
    assert (tmp_path / "epoch").read_text() == "7\n"
    assert not (tmp_path / "epoch").is_symlink()
    assert not (tmp_path / "epoch.new").exists()
    assert target.read_text() == "precious"
    with pytest.raises(StartError, match="nowhere/epoch cannot be written: No such file"):
        write_file(tmp_path / "nowhere" / "epoch", "7\n")


def test_who_holds_a_lock_can_be_seen_and_a_look_disturbs_nobody(tmp_path: Path) -> None:
    assert who_holds(tmp_path / "router.lock") is None
    fd = lock_home(tmp_path)
    assert who_holds(tmp_path / "router.lock") == os.getpid()
    with pytest.raises(StartError, match=f"process {os.getpid()}"):
        lock_home(tmp_path)
    os.close(fd)
    assert who_holds(tmp_path / "router.lock") is None
    os.close(lock_home(tmp_path))
