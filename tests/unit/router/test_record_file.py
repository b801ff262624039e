"""Records that survive the router: what is in the file, and what a faulty disk or file does."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from watchout.router.record_file import RecordFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "things.db"


async def test_what_was_written_is_there_for_the_next_router_and_what_was_deleted_is_not(path: Path) -> None:
    file = RecordFile(path, "things")
    assert await file.load() == {}
    file.change({"a": b"1", "b": b"2"})
    assert await file.write()
    file.change({"a": None, "b": b"3", "c": b""})
    await file.close()
    assert await RecordFile(path, "things").load() == {"b": b"3", "c": b""}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_write_that_fails_is_made_up_for_by_the_next(path: Path) -> None:
    path.mkdir()
    file = RecordFile(path, "things")
    assert await file.load() == {}
    file.change({"a": b"1"})
    assert not await file.write()
    assert (file.failing, file.unwritten) == (True, 1)
    path.rmdir()
    file.change({"b": b"2"})
    assert await file.write()
    assert (file.failing, file.unwritten) == (False, 0)
    await file.close()
    assert await RecordFile(path, "things").load() == {"a": b"1", "b": b"2"}


async def test_a_change_during_a_write_is_not_lost(path: Path) -> None:
    file = RecordFile(path, "things")
    file.change({"a": b"1"})
    write = file.write()
    task = asyncio.get_running_loop().create_task(write)
    await asyncio.sleep(0)
    file.change({"a": b"2"})
    assert await task
    assert file.unwritten == 1
    await file.close()
    assert await RecordFile(path, "things").load() == {"a": b"2"}


async def test_a_file_that_is_none_is_put_aside(path: Path) -> None:
    path.write_bytes(b"not a database" * 100)
    file = RecordFile(path, "things")
    assert await file.load() == {}
    assert path.with_suffix(".bad").exists()
    assert await file.load() == {}


async def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere.db")
    assert await RecordFile(path, "things").load() == {}
    assert not (tmp_path / "elsewhere.db").exists()
