"""The file of reservations, on real disks: full, read-only, broken, put away below its feet."""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from watchout.common.home_files import RESERVATIONS_FILE
from watchout.common.reservations import Reservation
from watchout.router import home_database
from watchout.router.reservation_file import ReservationFile

NOW_MS = 1_700_000_000_000
ANN = Reservation("ann", ("acme", "böse"), 7 << 20, 41, NOW_MS - 5000)


class Kept:
    """A file with a count of its failures."""

    def __init__(self, home: Path) -> None:
        self.failures = 0
        self.file = ReservationFile(home)
        self.file.failed = self.failed
        self.loaded: dict[str, Reservation] = {}

    async def load(self) -> None:
        self.loaded = dict(await self.file.load(NOW_MS))

    def failed(self) -> None:
        self.failures += 1

    async def save(self, *changes: tuple[str, Reservation | None], whole: bool = False, now: float = 0.0) -> None:
        self.file.save(list(changes), now, whole=whole)
        await self.file.wait()
        await asyncio.sleep(0)  # what follows the writing has its turn


async def opened(home: Path) -> Kept:
    """A file that was loaded."""
    kept = Kept(home)
    await kept.load()
    return kept


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    kept = await opened(tmp_path)
    yield kept
    await kept.file.close()


async def again(home: Path) -> dict[str, Reservation]:
    """What the next router finds."""
    kept = await opened(home)
    await kept.file.close()
    return kept.loaded


async def test_what_was_saved_is_found_again_the_latest_of_each(kept: Kept, tmp_path: Path) -> None:
    await kept.save(("a", ANN), ("b", ANN), ("c", ANN))
    later = replace(ANN, term=8 << 20, ended_at=NOW_MS - 10)
    await kept.save(("a", later), ("b", None))
    await kept.file.close()
    assert await again(tmp_path) == {"a": later, "c": ANN}


async def test_the_oldest_come_first_so_that_they_give_way_first(kept: Kept, tmp_path: Path) -> None:
    ages = {"b": 3000, "live": -math.inf, "a": 1000, "c": 2000}
    await kept.save(*((name, replace(ANN, ended_at=NOW_MS - age)) for name, age in ages.items()))
    await kept.file.close()
    assert list(await again(tmp_path)) == ["b", "c", "a", "live"]


async def test_a_stream_that_had_a_camera_ended_when_the_router_did_and_no_end_lies_ahead(
    kept: Kept, tmp_path: Path
) -> None:
    await kept.save(("live", replace(ANN, ended_at=math.inf)), ("ahead", replace(ANN, ended_at=NOW_MS + 1e9)))
    await kept.file.close()
    assert {name: r.ended_at for name, r in (await again(tmp_path)).items()} == {"live": NOW_MS, "ahead": NOW_MS}


async def test_a_whole_replaces_all(kept: Kept, tmp_path: Path) -> None:
    await kept.save(("a", ANN), ("b", ANN))
    await kept.save(("c", ANN), whole=True)
    await kept.file.close()
    assert set(await again(tmp_path)) == {"c"}


async def test_it_stands_after_a_kill(kept: Kept, tmp_path: Path) -> None:
    await kept.save(("a", ANN))
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tmp_path.glob(f"{RESERVATIONS_FILE}*"):
        (copy / path.name).write_bytes(path.read_bytes())
    assert set(await again(copy)) == {"a"}


@pytest.mark.parametrize(
    "broken", [b"", b"\0" * 4096, b"no database at all" * 100, None], ids=("empty", "zeros", "text", "flipped")
)
async def test_a_broken_file_is_put_aside_with_a_word_and_a_new_one_is_begun(
    broken: bytes | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kept = await opened(tmp_path)
    await kept.save(*((f"s{n}", ANN) for n in range(2000)))
    await kept.file.close()
    path = tmp_path / RESERVATIONS_FILE
    content = path.read_bytes()
    path.write_bytes(broken if broken is not None else content[:5000] + b"\xff" * 3000 + content[8000:])
    kept = await opened(tmp_path)
    assert kept.loaded == {}
    if broken:  # an empty file is a new one
        assert str(path) in capfd.readouterr().out
        assert path.with_suffix(".bad").exists()
    await kept.save(("a", ANN))
    await kept.file.close()
    assert kept.failures == 0
    assert set(await again(tmp_path)) == {"a"}


async def test_rows_that_were_not_written_here_are_passed_over(kept: Kept, tmp_path: Path) -> None:
    await kept.save(("good", ANN))
    await kept.file.close()
    db = sqlite3.connect(tmp_path / RESERVATIONS_FILE)
    for row in (
        ("bad id", "u", "[]", 1, 1, 1), ("x", "u", "{", 1, 1, 1), ("x2", "u", "[1]", 1, 1, 1),
        ("x3", "u", "[]", -1, 1, 1), ("x4", "u", "[]", 1, 2**40, 1), ("x5", "u" * 2000, "[]", 1, 1, 1),
    ):  # fmt: skip
        db.execute("INSERT INTO reservation VALUES (?, ?, ?, ?, ?, ?)", row)
    db.commit()
    db.close()
    assert set(await again(tmp_path)) == {"good"}


async def test_a_full_disk_is_said_once_with_the_files_name_and_all_is_told_again_later(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    await kept.save(("a", ANN))
    await kept.file.close()
    monkeypatch.setattr(home_database, "MAX_FILE_BYTES", 16 * home_database.PAGE_BYTES)
    kept = await opened(tmp_path)
    many = [(f"stream-{n}", ANN) for n in range(5000)]
    for now in (0.0, 10.0):
        await kept.save(*many, now=now)
        assert not kept.file.ready(now)
        assert kept.file.ready(now + 5)
    assert (kept.failures, kept.file.failing) == (2, True)
    said = capfd.readouterr().out
    assert said.count(RESERVATIONS_FILE) == 1
    assert "full" in said
    monkeypatch.undo()
    await kept.save(*many, whole=True, now=20.0)
    assert not kept.file.failing
    await kept.file.close()
    assert len(await again(tmp_path)) == 5000


@pytest.fixture
def own_home() -> Iterator[Path]:
    """A home of an ordinary user, as whom the test runs: root may write everywhere."""
    root, user = os.geteuid() == 0, 65534
    # Other than `tmp_path` this directory is within reach of all users.
    with tempfile.TemporaryDirectory(prefix="watchout-home-") as name:
        home = Path(name)
        if root:
            os.chown(home, user, user)
            os.seteuid(user)
        try:
            yield home
        finally:
            if root:
                os.seteuid(0)
            home.chmod(0o700)


@pytest.mark.parametrize("what", ["files", "journal"])
async def test_a_home_that_cannot_be_written_is_read_all_the_same(what: str, own_home: Path) -> None:
    kept = await opened(own_home)
    await kept.save(("a", ANN))
    await kept.file.close()
    assert kept.failures == 0
    for path in own_home.iterdir():
        if what == "files":
            path.chmod(0o400)
        elif path.name != RESERVATIONS_FILE:
            path.unlink()  # a new one cannot be made
    own_home.chmod(0o500)
    kept = await opened(own_home)
    assert set(kept.loaded) == {"a"}
    await kept.save(("b", ANN))
    await kept.file.close()
    assert kept.failures == 1
    assert set(await again(own_home)) == {"a"}


async def test_something_else_in_its_place_is_said_and_left_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / RESERVATIONS_FILE).mkdir()
    kept = await opened(tmp_path)
    assert kept.loaded == {}
    await kept.save(("a", ANN))
    await kept.file.close()
    assert kept.failures == 1
    assert RESERVATIONS_FILE in capfd.readouterr().out
    assert (tmp_path / RESERVATIONS_FILE).is_dir()


async def test_it_is_for_nobody_else(kept: Kept, tmp_path: Path) -> None:
    await kept.save(("a", ANN))
    assert stat.S_IMODE((tmp_path / RESERVATIONS_FILE).stat().st_mode) & 0o077 == 0
